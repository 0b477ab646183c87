"""Thresholds with a known false-positive rate, metrics of a ranking, and controls beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import ConfigError, say_option
from latlas.metrics.arrays import Array, Float, pair

#: training examples the controls are fitted to
CONTROL_ITEMS = 10_000
#: axes of the PPCA control
CONTROL_AXES = 50
#: share of the largest variance below which a direction of the statistics is rounding error
TINY = 1e-9


@dataclass(frozen=True)
class Ranking:
    """How well scores put the odd examples first.

    Attributes:
        auroc: chance that an odd example scores above a normal one.
        average_precision: mean precision over the places of the odd examples.
        precision: share of odd examples among the first ``k``; ``k`` is by default their number.
    """

    auroc: float
    average_precision: float
    precision: float
    k: int


def ranking(score: Array, odd: Array, k: int | None = None) -> Ranking | None:
    """Figures of ``score`` (n,), higher is odder, against ``odd`` (n,) bool.

    ``None`` where all examples are of one kind.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = np.asarray(odd, bool)
    if truth.all() or not truth.any():
        return None
    k = min(k or int(truth.sum()), len(truth))
    first = np.argsort(-np.asarray(score), kind="stable")[:k]
    return Ranking(float(roc_auc_score(truth, score)),
                   float(average_precision_score(truth, score)), float(truth[first].mean()), k)


def threshold(normal: Array, fpr: float) -> float:
    """The score that a new normal example exceeds with a chance of at most ``fpr``.

    The ⌈(m + 1)(1 − α)⌉-th smallest of m scores of normal examples that the model has not seen: by
    exchangeability P(new > threshold) ≤ α whatever their distribution (Vovk et al. 2005; Bates et
    al. 2023, eq. 3).

    Raises:
        ConfigError: α is no share, or m is too small for it.

    >>> threshold(np.arange(99), 0.1)
    89.0
    """
    if not 0 < fpr < 1:
        raise ConfigError(f"{say_option('fpr', fpr)}: a share between 0 and 1", option="fpr")
    m = len(normal)
    place = math.ceil(round((m + 1) * (1 - fpr), 9))
    if place > m:
        raise ConfigError(f"{say_option('fpr', fpr)} needs {math.ceil(1 / fpr) - 1} "
                          f"held-out normal examples, there are {m}; allow a larger fpr")
    return float(np.partition(np.asarray(normal, np.float64), place - 1)[place - 1])


@dataclass(frozen=True)
class Typical:
    """The Gaussian of several statistics of normal examples."""

    mean: Float
    whiten: Float

    @classmethod
    def of(cls, statistics: Array) -> Typical:
        """Fitted to (m, p) statistics; directions that do not vary are left out."""
        values = np.asarray(statistics, np.float64)
        mean, sd = values.mean(0), values.std(0)
        sd = np.where(sd > TINY * (1 + np.abs(mean)), sd, np.inf)
        variances, axes = np.linalg.eigh(np.cov((values - mean).T / sd[:, None]))
        varying = variances > max(TINY * variances[-1], 1e-300)
        return cls(mean, (axes[:, varying] / np.sqrt(variances[varying])) / sd[:, None])

    def distance(self, statistics: Array) -> Float:
        """Squared Mahalanobis distance of (n, p) statistics, (n,)."""
        white = (np.asarray(statistics, np.float64) - self.mean) @ self.whiten
        return np.asarray(np.square(white).sum(1))


def ppca_surprise(train: Array, items: Array, axes: int = CONTROL_AXES) -> Float:
    """The control: −log p under probabilistic PCA, but for a constant; (n,), higher is odder.

    Σ_j≤k t_j² / λ_j + |residual|² / σ² (Tipping & Bishop 1999) of flattened examples.
    """
    from sklearn.decomposition import PCA

    train, items = _flat(train, items)
    k = max(1, min(axes, train.shape[1] - 1, len(train) - 2))
    fitted = PCA(k, random_state=0).fit(train)
    centred = items - fitted.mean_
    codes = centred @ fitted.components_.T
    residual = np.square(centred).sum(1) - np.square(codes).sum(1)
    noise = max(float(fitted.noise_variance_), TINY * float(fitted.explained_variance_[0]), 1e-300)
    inside = np.square(codes) / np.maximum(fitted.explained_variance_, noise)
    return np.asarray(inside.sum(1) + np.maximum(residual, 0) / noise, np.float64)


def forest_surprise(train: Array, items: Array, seed: int = 0) -> Float:
    """The control: isolation forest (Liu et al. 2008) with scikit-learn's defaults; (n,)."""
    from sklearn.ensemble import IsolationForest

    train, items = _flat(train, items)
    return np.asarray(-IsolationForest(random_state=seed).fit(train).score_samples(items))


def _flat(train: Array, items: Array) -> tuple[Array, Array]:
    """Two matrices in single precision; of the training examples an even choice of the first."""
    step = max(1, len(train) // CONTROL_ITEMS)
    flat: list[NDArray[np.float32]] = [
        np.asarray(x.reshape(len(x), -1), np.float32) for x in (train[::step], items)]
    return pair(flat[0], flat[1], ("training data", "examples"), 1)
