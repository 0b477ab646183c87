"""Outliers of a table: a small ensemble of trimmed VAEs, a trimmed Gaussian, independent columns
and nearest neighbours.

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
from scipy.special import erf
from scipy.stats import binom
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from latlas.core.errors import DataError, say_notes
from latlas.core.mixed import MixedRows
from latlas.core.model import Model
from latlas.core.noise import derive
from latlas.core.space import Column, Table
from latlas.data.dataset import Dataset
from latlas.data.frames import is_frame, read_frame
from latlas.data.tables import TableOptions, numbers_of, open_table
from latlas.data.values import mixed_rows
from latlas.metrics.outliers import threshold
from latlas.metrics.scales import RobustScale
from latlas.metrics.surprise import Ensemble, Frequencies, MixedGaussian, Nearest
from latlas.sklearn import estimators
from latlas.sklearn.estimators import Array, trained
from latlas.training import TrainingData, plan_of

#: optimisation steps of a member: passes over the rows, but at least and at most so many steps
PASSES, LEAST, MOST = 40, 500, 600
#: rows of a step, at most
BATCH = 256
#: rows held out at most, and the fewest worth it
HELD_OUT, FEWEST = 2000, 20
#: draws of the latent vector per row
DRAWS = 8
#: of the kinds of members in the score
WEIGHTS = {"vaes": 2.0, "gaussian": 1.0, "columns": 1.0, "nearest": 1.0}


class OutlierDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Rows of a table that do not belong, in scikit-learn's conventions.

    Columns are put on a robust scale and clipped. Four kinds of members say how improbable a row
    is: VAEs; a Gaussian; independent columns, which detect values far out where the others have
    learnt to follow; and the distances to the nearest rows. Each is standardised robustly by
    training rows with gaps in the same columns; the score is a soft maximum of the four. The score
    of a row depends on that row alone.

    Rows may have gaps (NaN), and come as a data frame with words, truth values and dates, whose
    likelihoods are of their kinds; a gap is left out.

    Args:
        contamination: share of the training rows that ``predict`` calls outliers; ``auto``: as
            many as lie beyond the upper fence of a box plot of their scores, Q₃ + 1.5 (Q₃ − Q₁)
            (Tukey 1977): few or none of a table without outliers.
        fpr: instead of ``contamination``: the share of new normal rows called outliers. The
            threshold then comes from rows held out of ``X``, which are taken for normal.
        latent_dims: one VAE for each, with that number of latent dimensions; may be empty.
        beta: weight of the KL term (β-VAE).
        trimmed_fraction: share of every batch, and of all rows for the Gaussian, its worst-fitting,
            that is left out of an update.
        clip: robust deviations beyond which a value is cut.
        jitter: standard deviation, on the robust scale, of the noise added to the training rows.
            Without it, a column that hardly varies once the worst rows are left out decides the
            score alone.
        validation_fraction: share of the rows held out, for early stopping, or with ``fpr`` for the
            threshold alone; at most 2,000 rows, and none where that is fewer than 20.
        settings: any other setting of the model or of training, name to value.
        random_state: decides weights, order and draws.

    Attributes:
        offset_: ``decision_function`` is ``score_samples`` minus this; negative for outliers.
        vaes_, gaussian_: members; of one column there is no Gaussian, but ``None``.
        ensemble_: all members together; scale_: the columns' :class:`RobustScale`.
        fields_: of a data frame its columns, as they were understood; else empty.

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

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to the rows of ``X`` (n, d), outliers among them: numbers, NaN for gaps, or a data
        frame with words, truth values and dates; ``y`` is ignored."""
        if self.contamination != "auto" and not (
                isinstance(self.contamination, Real) and 0 < self.contamination <= 0.5):
            raise ValueError(f"contamination={self.contamination!r}: auto, or a share up to 0.5")
        for name in ("jitter", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: above 0")
        seed = estimators.seed_of(self.random_state)
        with estimators.as_value_error():
            raw = self._read(X, fitting=True)
        order = np.random.default_rng(seed).permutation(len(raw))
        n = min(int(self.validation_fraction * len(raw)), HELD_OUT)
        n = n if n >= FEWEST else 0
        if self.fpr is not None:  # before the long work: are there enough of them?
            with estimators.as_value_error():
                threshold(np.zeros(n), self.fpr)
        # rows that set the threshold must be to the members as any new row is
        apart = np.sort(order[n:]) if self.fpr is not None else slice(None)
        self.scale_ = RobustScale.of(raw.numbers[apart], self.clip)
        x = self._scaled(raw)
        if not self.fields_:
            estimators.say_what_collapses(X, raw.numbers, x.numbers)
        rows, held_out = x.take(np.sort(order[n:])), x.take(order[:n])
        with estimators.as_value_error():
            self.vaes_ = self._train_vaes(
                rows, held_out if self.fpr is None else held_out.take(slice(0)), seed)
        members: dict[str, Any] = {f"vaes {i}": VAESurprise(vae) for i, vae in enumerate(
            self.vaes_)}
        self.gaussian_ = None  # one column is the independent column
        if len(x.names) > 1:
            self.gaussian_ = MixedGaussian.of(rows, trimmed_fraction=self.trimmed_fraction,
                                              jitter=self.jitter)
            members["gaussian"] = self.gaussian_
        members |= {"columns": Frequencies.of(rows), "nearest": Nearest.of(rows, seed=seed)}
        self.ensemble_ = Ensemble(members, WEIGHTS, x.take(apart))
        scores = self.ensemble_(x)
        if self.fpr is not None:
            self.offset_ = -threshold(scores[order[:n]], self.fpr)
        elif self.contamination == "auto":  # scores are logarithms, so hardly skewed
            low, high = np.quantile(scores, (0.25, 0.75))
            self.offset_ = -float(high + 1.5 * (high - low))
        else:
            self.offset_ = -float(np.quantile(scores, 1 - self.contamination))
        return self

    def _read(self, X: Any, fitting: bool = False) -> MixedRows:
        """Rows by kinds of columns; what each column of a frame is, is decided when fitting."""
        if fitting:
            self.fields_: tuple[Column, ...] = ()
            if is_frame(X) and not _complete_numbers(X):
                validate_data(self, X, skip_check_array=True)
                source = open_table(X, how=TableOptions(label="none"))
                say_notes(note for note in source.notes if "filled with" not in note)
                if source.problems:
                    raise DataError("; ".join(source.problems))
                self.fields_ = getattr(source.base.space, "fields", ())
        if self.fields_:
            data = numbers_of(read_frame(X, "the table"), self.fields_, "the table", fill=False,
                              lenient=True)
            say_notes(data.notes if not fitting else ())
            return mixed_rows(data.x, self.fields_)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=fitting,
                          ensure_all_finite="allow-nan", ensure_min_samples=5 if fitting else 1)
        return MixedRows.of_numbers(x.astype(np.float64))

    def _scaled(self, rows: MixedRows) -> MixedRows:
        return rows.with_numbers(self.scale_(rows.numbers))

    def _train_vaes(self, rows: MixedRows, held_out: MixedRows, seed: int) -> list[Any]:
        """One for each number of latent dimensions."""
        def noisy(part: MixedRows) -> Dataset:
            noise = np.random.default_rng(derive(seed, "jitter")).standard_normal(
                part.numbers.shape)
            return Dataset(features_of(part.with_numbers(
                part.numbers + (self.jitter * noise).astype(np.float32))).astype(np.float32), space)

        space = space_of(rows)
        plain = not rows.sizes and rows.observed.all() and held_out.observed.all()
        parts = TrainingData(noisy(rows), noisy(held_out) if len(held_out) else None)
        batch = min(BATCH, len(rows))
        steps = int(np.clip(PASSES * len(rows) // batch, LEAST, MOST))
        settings = {"beta": self.beta, "trimmed_fraction": self.trimmed_fraction, "width": 64,
                    "depth": 1, "likelihood": "gaussian-learnt" if plain else "columns",
                    "batch_size": batch, "images": steps * batch, "learning_rate": 3e-3,
                    "patience": 5, "precision": "fp32", "threads": 1, "device": "cpu"}
        vaes = []
        for i, latent_dim in enumerate(self.latent_dims):
            own = {**settings, "latent_dim": latent_dim, **(self.settings or {}),
                   "seed": derive(seed, i) % 2**31}
            vaes.append(trained(plan_of("beta-vae", own, split="all",
                                        origin=type(self).__name__), parts))
        return vaes

    def score_samples(self, X: Any) -> Array:
        """(n,), higher is more normal."""
        check_is_fitted(self)
        with estimators.as_value_error():
            return -self.ensemble_(self._scaled(self._read(X)))

    def decision_function(self, X: ArrayLike) -> Array:
        """(n,), negative for outliers."""
        return np.asarray(self.score_samples(X) - self.offset_)

    def predict(self, X: ArrayLike) -> Array:
        """(n,): −1 for outliers, 1 for the rest."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _complete_numbers(frame: Any) -> bool:
    """A frame whose columns are all numbers, none missing."""
    data = read_frame(frame, "the table").data
    return all(dtype.is_numeric() for dtype in data.dtypes) and not any(
        series.null_count() for series in data)


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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def predict_confidence(self, X: ArrayLike) -> Array:
        """(n,) chance that the prediction would be the same after training on other rows of the
        kind: ExCeeD (Perini et al. 2020).

        The chance that a row has a higher score than another is taken to be p = (1 + k) / (2 + n)
        where k of the n training scores are not above its own. It is an outlier if it belongs to
        the m = ⌊n · contamination⌋ highest: P(B ≥ n − m + 1) of B ~ Binomial(n, p).
        """
        score, ordered = self.decision_function(X), np.sort(self.decision_scores_)
        n = len(ordered)
        by_threshold = self.contamination == "auto" or self.detector_.fpr is not None
        outliers = int(self.labels_.sum() if by_threshold else n * self.contamination)
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


@dataclass(frozen=True)
class VAESurprise:
    """−log p of rows on the scale of the detector by a VAE, nats."""

    model: Model

    def __call__(self, rows: MixedRows) -> Array:
        log_p = estimators.log_likelihood(self.model, "outliers", DRAWS)
        x = self.model.space.to_model(torch.from_numpy(features_of(rows)))
        return np.asarray(-estimators.in_batches(x, log_p).double().numpy())


def features_of(rows: MixedRows) -> Array:
    """(n, p + Σ sizes) what a VAE learns: numbers, and 0 and 1 for each word; NaN for gaps."""
    return np.concatenate([rows.numbers, rows.one_hot()], 1)


def space_of(rows: MixedRows) -> Table:
    """The columns of :func:`features_of`; words are −1 and 1 to a network."""
    p, words = rows.numbers.shape[1], sum(rows.sizes)
    fields = [Column(name, "real", "Float64") for name in rows.names[:p]]
    fields += [Column(name, "category", "String", categories=tuple(map(str, range(size))))
               for name, size in zip(rows.names[p:], rows.sizes, strict=True)]
    return Table(fields=tuple(fields), location=(0.0,) * p + (0.5,) * words,
                 scale=(1.0,) * p + (0.5,) * words)
