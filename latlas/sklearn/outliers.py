"""Outliers of a table: a small ensemble of trimmed VAEs, trimmed PCA and independent columns.

    odd = OutlierDetector(contamination=0.02, random_state=0).fit(X).predict(X) == -1

Each member is a model of the command line. It leaves the worst-fitting rows out of every update,
so that the rows it is to find do not teach it that they are normal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import erf
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from latlas.core.model import Model
from latlas.core.noise import SharedNoise, derive
from latlas.core.space import Table
from latlas.data.dataset import Dataset
from latlas.metrics.outliers import threshold
from latlas.sklearn.estimators import Array, as_value_error, in_batches, seed_of, trained
from latlas.sklearn.robust import RobustScale, quartiles, soft_maximum, standardised
from latlas.training import TrainingData, plan_of

#: optimisation steps of a member: passes over the rows, but at least and at most so many steps
PASSES, LEAST, MOST = 40, 500, 600
#: rows of a step, at most
BATCH = 256
#: rows held out at most, and the fewest worth it
HELD_OUT, FEWEST = 2000, 20
#: rounds of fitting PPCA and leaving out the rows that fit worst
ROUNDS = 3
#: draws of the code per row
DRAWS = 8
#: of PPCA, of independent columns and of the VAEs together in the score
WEIGHTS = np.array([1.0, 1.0, 2.0])


class OutlierDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Rows of a table that do not belong, in scikit-learn's conventions.

    Columns are put on a robust scale and clipped. Three kinds of models are asked how surprising a
    row is: VAEs; probabilistic PCA; and columns that know nothing of each other, which see what
    lies far out where the others have learnt to follow. −log p of each is standardised robustly by
    the training rows; the score is a soft maximum of the three. What is said of a row depends on
    that row alone.

    Args:
        contamination: share of the training rows that ``predict`` calls outliers.
        false_alarms: instead of ``contamination``: the share of new normal rows called outliers.
            The threshold then comes from rows held out of ``X``, which are taken for normal.
        code_sizes: one VAE for each, with a code of that size; may be empty.
        beta: weight of the KL term (β-VAE).
        trimmed_fraction: share of every batch, and of all rows for PPCA, its worst-fitting, that is
            left out of an update.
        clip: robust deviations beyond which a value is cut.
        jitter: standard deviation, on the robust scale, of the noise added to the training rows:
            the least a member can take for a column's own. Without it a column that hardly
            varies once the worst rows are left out decides everything.
        validation_fraction: share of the rows held out, to stop early by and for
            ``false_alarms``; at most 2,000 rows, and none where that is fewer than 20.
        settings: any other setting of the model or of training, name to value.
        random_state: decides weights, order and draws.

    Attributes:
        offset_: ``decision_function`` is ``score_samples`` minus this; negative for outliers.
        vaes_, ppca_: the members; ``scale_`` the columns' :class:`RobustScale`.

    Raises:
        ValueError: from ``fit``: a parameter or data that do not suit.
    """

    def __init__(self, contamination: float = 0.1, *, false_alarms: float | None = None,
                 code_sizes: Sequence[int] = (1, 2, 3), beta: float = 1.0,
                 trimmed_fraction: float = 0.1, clip: float = 5.0, jitter: float = 0.03,
                 validation_fraction: float = 0.1, settings: dict[str, Any] | None = None,
                 random_state: Any = None) -> None:
        self.contamination = contamination
        self.false_alarms = false_alarms
        self.code_sizes = code_sizes
        self.beta = beta
        self.trimmed_fraction = trimmed_fraction
        self.clip = clip
        self.jitter = jitter
        self.validation_fraction = validation_fraction
        self.settings = settings
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> OutlierDetector:
        """Fit to the rows of ``X`` (n, d), outliers among them; ``y`` is ignored."""
        x = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=5,
                          ensure_min_features=2)
        self._check()
        seed = seed_of(self.random_state)
        self.scale_ = RobustScale.of(x, self.clip)
        rows, held_out = self._divided(self.scale_(x), seed)
        noisy, noisy_held = (part + self._noise(part.shape, seed) for part in (rows, held_out))
        with as_value_error():
            self.vaes_ = [self._vae(noisy, noisy_held, size, derive(seed, i))
                          for i, size in enumerate(self.code_sizes)]
            self.ppca_ = _ppca(noisy, self.trimmed_fraction)
            self._calibrate(rows, held_out)
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """(n,), higher is more normal."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return -self._oddness(self.scale_(x))

    def decision_function(self, X: ArrayLike) -> Array:
        """(n,), negative for outliers."""
        return np.asarray(self.score_samples(X) - self.offset_)

    def predict(self, X: ArrayLike) -> Array:
        """(n,): −1 for outliers, 1 for the rest."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _check(self) -> None:
        if not 0 < self.contamination <= 0.5:
            raise ValueError(f"contamination={self.contamination}: a share up to 0.5")
        if not self.jitter > 0:
            raise ValueError(f"jitter={self.jitter}: above 0")
        if not self.clip > 0:
            raise ValueError(f"clip={self.clip}: above 0")

    def _divided(self, rows: Array, seed: int) -> tuple[Array, Array]:
        """Rows to fit and rows held out."""
        order = np.random.default_rng(seed).permutation(len(rows))
        held_out = min(int(self.validation_fraction * len(rows)), HELD_OUT)
        held_out = held_out if held_out >= FEWEST else 0
        return rows[np.sort(order[held_out:])], rows[order[:held_out]]

    def _noise(self, shape: tuple[int, ...], seed: int) -> Array:
        noise = np.random.default_rng(derive(seed, "jitter")).standard_normal(shape)
        return (self.jitter * noise).astype(np.float32)

    def _vae(self, rows: Array, held_out: Array, size: int, seed: int) -> Model:
        n = len(rows)
        batch = min(BATCH, n)
        steps = int(np.clip(PASSES * n // batch, LEAST, MOST))
        settings = {"latent_dim": size, "beta": self.beta,
                    "trimmed_fraction": self.trimmed_fraction, "width": 64, "depth": 1,
                 "likelihood": "gaussian-learnt",
                 "batch_size": batch, "images": steps * batch, "learning_rate": 3e-3,
                 "patience": 5, "precision": "fp32", "threads": 1, "device": "cpu",
                 **(self.settings or {}), "seed": seed % 2**31}
        plan = plan_of("beta-vae", settings, split="all", origin=type(self).__name__)
        parts = TrainingData(_dataset(rows), _dataset(held_out) if len(held_out) else None)
        return trained(plan, parts)

    def _calibrate(self, rows: Array, held_out: Array) -> None:
        """What members' scores are standardised by, and the threshold."""
        everything = np.concatenate([rows, held_out])
        raw = self._raw(everything)
        self.reference_ = quartiles(raw)
        odd = self._combined(raw)
        if self.false_alarms is None:
            self.offset_ = -float(np.quantile(odd, 1 - self.contamination))
        else:
            self.offset_ = -threshold(odd[len(rows):], self.false_alarms)

    def _oddness(self, rows: Array) -> Array:
        return self._combined(self._raw(rows))

    def _raw(self, rows: Array) -> Array:
        """−log p by the VAEs, by PPCA and by independent columns, (VAEs + 2, n), nats.

        The last is Σ |t_j|, Laplace's density of every column, but for a constant.
        """
        x = torch.from_numpy(rows)
        surprise = [in_batches(x, _surprise(model)).numpy() for model in (*self.vaes_, self.ppca_)]
        return np.stack([*surprise, np.abs(rows).sum(1, dtype=np.float64)])

    def _combined(self, raw: Array) -> Array:
        """A soft maximum of the three kinds of members."""
        *vaes, ppca, columns = standardised(raw, self.reference_)
        kinds = [ppca, columns, *([np.mean(vaes, 0)] if vaes else [])]
        return soft_maximum(np.stack(kinds), WEIGHTS[:len(kinds)])


class PyODDetector(BaseEstimator):  # type: ignore[misc]
    """:class:`OutlierDetector` in PyOD's conventions: higher is odder, 1 is an outlier.

    Args:
        contamination: share of the training rows that are called outliers.
        detector: whose other parameters to take; it is not changed.

    Attributes:
        decision_scores_: (n,) of the training rows; ``threshold_`` and ``labels_`` follow.
        detector_: the fitted :class:`OutlierDetector`.
    """

    def __init__(self, contamination: float = 0.1, detector: OutlierDetector | None = None) -> None:
        self.contamination = contamination
        self.detector = detector

    def fit(self, X: ArrayLike, y: Any = None) -> PyODDetector:
        """Fit to (n, d); ``y`` is ignored."""
        detector = clone(self.detector or OutlierDetector())
        self.detector_ = detector.set_params(contamination=self.contamination).fit(X)
        self.threshold_ = -self.detector_.offset_
        self.decision_scores_ = self.decision_function(X)
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return self

    def decision_function(self, X: ArrayLike) -> Array:
        """(n,), higher is odder."""
        check_is_fitted(self)
        return -self.detector_.score_samples(X)

    def predict(self, X: ArrayLike) -> Array:
        """(n,): 1 for outliers, 0 for the rest."""
        return (self.decision_function(X) > self.threshold_).astype(int)

    def predict_proba(self, X: ArrayLike, method: str = "linear") -> Array:
        """(n, 2): of being normal and of being an outlier.

        ``linear`` maps the training scores' range to 0 … 1; ``unify`` is the error function of the
        standardised score (Kriegel et al. 2011, section 4.2). Neither is calibrated.
        """
        score, fitted = self.decision_function(X), self.decision_scores_
        if method == "linear":
            odd = (score - fitted.min()) / max(float(np.ptp(fitted)), 1e-12)
        elif method == "unify":
            odd = erf((score - fitted.mean()) / max(float(fitted.std()), 1e-12) / np.sqrt(2))
        else:
            raise ValueError(f"method={method!r}: linear or unify")
        odd = np.clip(odd, 0, 1)
        return np.stack([1 - odd, odd], 1)


def _dataset(rows: Array) -> Dataset:
    names = tuple(f"x{i}" for i in range(rows.shape[1]))
    return Dataset(rows, Table((rows.shape[1],), columns=names))


def _ppca(rows: Array, trimmed_fraction: float) -> Model:
    """A Gaussian with all axes but one, fitted again without the rows that fitted worst.

    Concentration steps of the minimum covariance determinant (Rousseeuw & Van Driessen 1999,
    section 2), from all rows.
    """
    inliers = np.arange(len(rows))
    least = len(rows) - int(trimmed_fraction * len(rows))
    for _ in range(ROUNDS if trimmed_fraction else 1):
        axes = max(1, min(rows.shape[1] - 1, len(inliers) - 2))
        plan = plan_of("pca", {"latent_dim": axes, "device": "cpu"}, split="all")
        model = trained(plan, TrainingData(_dataset(rows[inliers])))
        surprise = in_batches(torch.from_numpy(rows), _surprise(model)).numpy()
        inliers = np.sort(np.argpartition(surprise, least - 1)[:least])
    return model


def _surprise(model: Model) -> Callable[[Tensor], Tensor]:
    """−log p(x) of a batch, nats; every row meets the same draws."""
    def of(batch: Tensor) -> Tensor:
        noise = SharedNoise(derive("outliers"))
        nats, _ = model.log_likelihood(batch, noise=noise, draws=DRAWS)  # type: ignore[operator]
        return -nats.double()
    return of
