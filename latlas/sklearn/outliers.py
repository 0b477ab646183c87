"""Outliers of a table: a small ensemble of trimmed VAEs, trimmed PCA and independent columns.

    outlier = OutlierDetector(contamination=0.02, random_state=0).fit(X).predict(X) == -1

Each member is a model of the command line. It leaves the worst-fitting rows out of every update,
so that outliers do not teach it that they are normal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import erf, logsumexp
from scipy.stats import binom
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from latlas.core.model import Model
from latlas.core.noise import derive
from latlas.metrics.outliers import threshold
from latlas.sklearn import estimators
from latlas.sklearn.estimators import Array, table, trained
from latlas.training import TrainingData, plan_of

#: optimisation steps of a member: passes over the rows, but at least and at most so many steps
PASSES, LEAST, MOST = 40, 500, 600
#: rows of a step, at most
BATCH = 256
#: rows held out at most, and the fewest worth it
HELD_OUT, FEWEST = 2000, 20
#: rounds of fitting PPCA and leaving out the rows that fit worst
ROUNDS = 3
#: draws of the latent vector per row
DRAWS = 8
#: of PPCA, of independent columns and of the VAEs together in the score
PPCA_WEIGHT, COLUMNS_WEIGHT, VAES_WEIGHT = 1.0, 1.0, 2.0
#: interquartile range of a standard normal
IQR = 1.3489795
#: values beyond so many robust deviations from the median do not count for a column's scale
WINSOR = 10.0


class OutlierDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Rows of a table that do not belong, in scikit-learn's conventions.

    Columns are put on a robust scale and clipped. Three kinds of models give −log p of a row: VAEs;
    probabilistic PCA; and independent columns, which detect values far out where the others have
    learnt to follow. Each is standardised robustly by the training rows; the score is a soft
    maximum of the three. The score of a row depends on that row alone.

    Args:
        contamination: share of the training rows that ``predict`` calls outliers; ``auto``: as
            many as lie beyond the upper fence of a box plot of their scores, Q₃ + 1.5 (Q₃ − Q₁)
            (Tukey 1977): few or none of a table without outliers.
        fpr: instead of ``contamination``: the share of new normal rows called outliers. The
            threshold then comes from rows held out of ``X``, which are taken for normal.
        latent_dims: one VAE for each, with that number of latent dimensions; may be empty.
        beta: weight of the KL term (β-VAE).
        trimmed_fraction: share of every batch, and of all rows for PPCA, its worst-fitting, that is
            left out of an update.
        clip: robust deviations beyond which a value is cut.
        jitter: standard deviation, on the robust scale, of the noise added to the training rows.
            Without it, a column that hardly varies once the worst rows are left out decides the
            score alone.
        validation_fraction: share of the rows held out, for early stopping and for ``fpr``; at
            most 2,000 rows, and none where that is fewer than 20.
        settings: any other setting of the model or of training, name to value.
        random_state: decides weights, order and draws.

    Attributes:
        offset_: ``decision_function`` is ``score_samples`` minus this; negative for outliers.
        vaes_, ppca_: the members; of one column there is no PPCA, but ``None``.
        scale_: the columns' :class:`RobustScale`.

    Raises:
        ValueError: from ``fit``: a parameter or data that do not suit.
    """

    def __init__(self, contamination: float | Literal["auto"] = 0.1, *, fpr: float | None = None,
                 latent_dims: Sequence[int] = (1, 2, 3), beta: float = 1.0,
                 trimmed_fraction: float = 0.1, clip: float = 5.0, jitter: float = 0.03,
                 validation_fraction: float = 0.1, settings: dict[str, Any] | None = None,
                 random_state: Any = None) -> None:
        self.contamination = contamination
        self.fpr = fpr
        self.latent_dims = latent_dims
        self.beta = beta
        self.trimmed_fraction = trimmed_fraction
        self.clip = clip
        self.jitter = jitter
        self.validation_fraction = validation_fraction
        self.settings = settings
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit to the rows of ``X`` (n, d), outliers among them; ``y`` is ignored."""
        x = validate_data(self, X, dtype=[np.float64, np.float32],
                          ensure_min_samples=5).astype(np.float64)
        if self.contamination != "auto" and not (
                isinstance(self.contamination, Real) and 0 < self.contamination <= 0.5):
            raise ValueError(f"contamination={self.contamination!r}: auto, or a share up to 0.5")
        for name in ("jitter", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: above 0")
        seed = estimators.seed_of(self.random_state)
        self.scale_ = RobustScale.of(x, self.clip)
        numbers, x = x, self.scale_(x)
        estimators.say_what_collapses(X, numbers, x)
        order = np.random.default_rng(seed).permutation(len(x))
        n = min(int(self.validation_fraction * len(x)), HELD_OUT)
        n = n if n >= FEWEST else 0
        rows, held_out = x[np.sort(order[n:])], x[order[:n]]
        noisy, noisy_held_out = (
            part + (self.jitter * np.random.default_rng(derive(seed, "jitter")).standard_normal(
                part.shape)).astype(np.float32) for part in (rows, held_out))
        parts = TrainingData(table(noisy), table(noisy_held_out) if n else None)
        batch = min(BATCH, len(rows))
        steps = int(np.clip(PASSES * len(rows) // batch, LEAST, MOST))
        settings = {"beta": self.beta, "trimmed_fraction": self.trimmed_fraction, "width": 64,
                    "depth": 1, "likelihood": "gaussian-learnt", "batch_size": batch,
                    "images": steps * batch, "learning_rate": 3e-3, "patience": 5,
                    "precision": "fp32", "threads": 1, "device": "cpu"}
        with estimators.as_value_error():
            self.vaes_ = []
            for i, latent_dim in enumerate(self.latent_dims):
                own = {**settings, "latent_dim": latent_dim, **(self.settings or {}),
                       "seed": derive(seed, i) % 2**31}
                plan = plan_of("beta-vae", own, split="all", origin=type(self).__name__)
                self.vaes_.append(trained(plan, parts))
            # a Gaussian with all axes but one, fitted again without the rows that fitted worst:
            # concentration steps of the minimum covariance determinant, from all rows (Rousseeuw &
            # Van Driessen 1999, section 2)
            inliers, rounds = np.arange(len(noisy)), ROUNDS if self.trimmed_fraction else 1
            n_inliers = len(noisy) - int(self.trimmed_fraction * len(noisy))
            self.ppca_ = None  # one column has no axes: it is the independent column
            for _ in range(rounds if noisy.shape[1] > 1 else 0):
                axes = max(1, min(noisy.shape[1] - 1, len(inliers) - 2))
                plan = plan_of("pca", {"latent_dim": axes, "device": "cpu"}, split="all")
                self.ppca_ = trained(plan, TrainingData(table(noisy[inliers])))
                surprise = _surprise(self.ppca_, noisy)
                inliers = np.sort(np.argpartition(surprise, n_inliers - 1)[:n_inliers])
            raw = self._raw(np.concatenate([rows, held_out]))
            self.reference_ = np.percentile(raw, (25, 50, 75), axis=1)
            scores = self._combined(raw)
            if self.fpr is not None:
                self.offset_ = -threshold(scores[len(rows):], self.fpr)
            elif self.contamination == "auto":  # scores are logarithms, so hardly skewed
                low, high = np.quantile(scores, (0.25, 0.75))
                self.offset_ = -float(high + 1.5 * (high - low))
            else:
                self.offset_ = -float(np.quantile(scores, 1 - self.contamination))
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """(n,), higher is more normal."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return -self._combined(self._raw(self.scale_(x)))

    def decision_function(self, X: ArrayLike) -> Array:
        """(n,), negative for outliers."""
        return np.asarray(self.score_samples(X) - self.offset_)

    def predict(self, X: ArrayLike) -> Array:
        """(n,): −1 for outliers, 1 for the rest."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _raw(self, rows: Array) -> Array:
        """−log p by the VAEs, by PPCA where there is one, and by independent columns, (members, n),
        nats. The last is Σ |t_j|, Laplace's density of every column, but for a constant."""
        models = self.vaes_ if self.ppca_ is None else (*self.vaes_, self.ppca_)
        return np.stack([*(_surprise(model, rows) for model in models),
                         np.abs(rows).sum(1, dtype=np.float64)])

    def _combined(self, raw: Array) -> Array:
        """A soft maximum of the three kinds of members."""
        members, n = standardised(raw, self.reference_), len(self.vaes_)
        kinds = [*members[n:], *([members[:n].mean(0)] if n else [])]
        weights = [*([PPCA_WEIGHT] if self.ppca_ is not None else []), COLUMNS_WEIGHT, VAES_WEIGHT]
        return soft_maximum(np.stack(kinds), np.array(weights[:len(kinds)]))


class PyODDetector(BaseEstimator):  # type: ignore[misc]
    """:class:`OutlierDetector` in PyOD's conventions: higher is more anomalous, 1 is an outlier.

    Args:
        contamination: share of the training rows that are called outliers, or ``auto``.
        detector: whose other parameters to take; it is not changed.

    Attributes:
        decision_scores_: (n,) of the training rows; ``threshold_`` and ``labels_`` follow.
        detector_: the fitted :class:`OutlierDetector`.
    """

    def __init__(self, contamination: float | Literal["auto"] = 0.1,
                 detector: OutlierDetector | None = None) -> None:
        self.contamination = contamination
        self.detector = detector

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit to (n, d); ``y`` is ignored."""
        detector = clone(self.detector or OutlierDetector())
        self.detector_ = detector.set_params(contamination=self.contamination).fit(X)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.detector_, name):
                setattr(self, name, getattr(self.detector_, name))
        self.threshold_ = -self.detector_.offset_
        self.decision_scores_ = self.decision_function(X)
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return self

    def fit_predict(self, X: ArrayLike, y: Any = None) -> Array:
        """Fit to (n, d); ``labels_`` of its rows."""
        return self.fit(X).labels_

    def decision_function(self, X: ArrayLike) -> Array:
        """(n,), higher is more anomalous."""
        check_is_fitted(self)
        return -self.detector_.score_samples(X)

    def predict(self, X: ArrayLike, return_confidence: bool = False) -> Any:
        """(n,): 1 for outliers, 0 for the rest; and (n,) confidences, if asked for."""
        labels = (self.decision_function(X) > self.threshold_).astype(int)
        return (labels, self.predict_confidence(X)) if return_confidence else labels

    def predict_confidence(self, X: ArrayLike) -> Array:
        """(n,) chance that the prediction would be the same after training on other rows of the
        kind: ExCeeD (Perini et al. 2020).

        The chance that a row has a higher score than another is taken to be p = (1 + k) / (2 + n)
        where k of the n training scores are not above its own. It is an outlier if it belongs to
        the m = ⌊n · contamination⌋ highest: P(B ≥ n − m + 1) of B ~ Binomial(n, p).
        """
        score, ordered = self.decision_function(X), np.sort(self.decision_scores_)
        n = len(ordered)
        outliers = int(self.labels_.sum() if self.contamination == "auto" else
                       n * self.contamination)
        p = (1 + np.searchsorted(ordered, score, side="right")) / (2 + n)
        return np.where(score > self.threshold_, binom.sf(n - outliers, n, p),
                        binom.cdf(n - outliers, n, p))

    def predict_proba(self, X: ArrayLike, method: str = "linear",
                      return_confidence: bool = False) -> Any:
        """(n, 2): of being normal and of being an outlier; and (n,) confidences, if asked for.

        ``linear`` maps the training scores' range to 0 … 1; ``unify`` is the error function of the
        standardised score (Kriegel et al. 2011, section 4.2). Neither is calibrated.
        """
        score, fitted = self.decision_function(X), self.decision_scores_
        if method == "linear":
            p = (score - fitted.min()) / max(float(np.ptp(fitted)), 1e-12)
        elif method == "unify":
            p = erf((score - fitted.mean()) / max(float(fitted.std()), 1e-12) / np.sqrt(2))
        else:
            raise ValueError(f"method={method!r}: linear or unify")
        p = np.clip(p, 0, 1)
        both = np.stack([1 - p, p], 1)
        return (both, self.predict_confidence(X)) if return_confidence else both


def _surprise(model: Model, rows: Array) -> Array:
    """−log p of every row, (n,) float64, nats."""
    log_p = estimators.log_likelihood(model, "outliers", DRAWS)
    nats = estimators.in_batches(torch.from_numpy(rows), log_p)
    return -nats.double().numpy()


@dataclass(frozen=True)
class RobustScale:
    """Median and deviation of every column; what lies beyond ``clip`` deviations is cut there.

    The deviation is the standard one of the values winsorised at ten times the interquartile
    range / 1.349 from the median (Huber & Ronchetti 2009, section 1.7), so up to a quarter of the
    rows may be anything. Columns in which half of the rows are equal take the range that holds
    98% of the values instead; constant ones keep scale 1.
    """

    centre: Array
    scale: Array
    clip: float

    @classmethod
    def of(cls, x: Array, clip: float) -> Self:
        """Fitted to (n, d)."""
        whole = np.frexp(np.abs(x).max(0))[1]  # powers of two: nothing is rounded
        y = np.ldexp(x, -whole)
        low, centre, high = np.percentile(y, (25, 50, 75), axis=0)
        reach = WINSOR * (high - low) / IQR
        bottom, top = np.percentile(y, (1, 99), axis=0)
        flat = reach <= 1e-12 * np.abs(centre)
        bottom = np.where(flat, bottom, centre - reach)
        top = np.where(flat, top, centre + reach)
        scale = estimators.deviation(np.clip(y, bottom, top), centre)
        scale = np.where(scale > 0, scale, estimators.deviation(y, y.mean(0)))
        return cls(np.ldexp(centre, whole), np.where(scale > 0, np.ldexp(scale, whole), 1.0), clip)

    def __call__(self, x: Array) -> Array:
        """(n, d) float32 within ±``clip``."""
        return estimators.standardised(x, self.centre, self.scale, self.clip)


def standardised(scores: Array, reference: Array) -> Array:
    """(members, n) scores in robust deviations from the median; ``reference`` are the quartiles."""
    low, centre, high = reference[..., None]
    return np.asarray((scores - centre) / np.maximum(
        (high - low) / IQR, 1e-12 * np.maximum(1.0, np.abs(centre))))


def soft_maximum(deviations: Array, weights: Array) -> Array:
    """½ log Σ_m w_m exp(2 s_m) of s = sign(t) log(1 + |t|), (members, n) to (n,).

    Near their mean where the members agree. A single member that calls a row an outlier raises the
    score, but by the logarithm of its deviation only, so that it does not outvote the others.
    """
    s = np.sign(deviations) * np.log1p(np.abs(deviations))
    return np.asarray(0.5 * logsumexp(2 * s, axis=0, b=(weights / weights.sum())[:, None]))
