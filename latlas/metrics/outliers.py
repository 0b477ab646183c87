"""Outliers: metrics of a ranking, thresholds with a known false-positive rate, controls; how
isolated examples are among others, and the groups that the most isolated ones form."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from latlas.core.errors import ConfigError, DataError, say_option
from latlas.metrics.arrays import ROWS, Array, Float, Index, matrix, pair

#: training examples that the controls are fitted to; principal axes of examples
CONTROL_EXAMPLES, AXES = 10_000, 50
#: share of the largest variance below which a direction is rounding error
TINY = 1e-9
#: neighbours that an example's surroundings reach to: near, for few that lie scattered, and far,
#: for those that lie close together and have near neighbours in each other
NEIGHBOURS = (5, 10, 30)
#: examples that neighbours are looked for among
REFERENCE = 60_000
#: of the walk: how often it starts anew, its steps, and the nearest that an example's is averaged
#: over
ANYWHERE, STEPS, AROUND = 0.1, 40, 10
#: groups of rare examples at most, examples of the smallest on average, examples that decide how
#: many, and the mean silhouette below which there are none
MOST_GROUPS, SMALLEST, JUDGED, APART = 8, 10, 2000, 0.05


@dataclass(frozen=True)
class Ranking:
    """How well scores put the odd examples first: the chance that one scores above a normal one,
    the mean precision over their places, and their share among the first ``k``, by default their
    number."""

    auroc: float
    average_precision: float
    precision: float
    k: int


def ranking(score: Array, odd: Array, k: int | None = None) -> Ranking | None:
    """Of ``score`` (n,), higher is odder, against ``odd`` (n,) bool; ``None`` if all are alike."""
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
    al. 2023, eq. 3). ConfigError: α is no share, or m is too small for it.

    >>> threshold(np.arange(99), 0.1)
    89.0
    """
    if not 0 < fpr < 1:
        raise ConfigError(f"{say_option('fpr', fpr)}: a share between 0 and 1", option="fpr")
    m = len(normal)
    place = math.ceil(round((m + 1) * (1 - fpr), 9))
    if place > m:
        raise ConfigError(f"{say_option('fpr', fpr)} needs {math.ceil(1 / fpr) - 1} "
                          f"held-out normal examples, there are {m}, which are enough for "
                          f"{say_option('fpr', math.ceil(1000 / (m + 1)) / 1000)}", option="fpr")
    return float(np.partition(np.asarray(normal, np.float64), place - 1)[place - 1])


def contamination_threshold(training: Array, share: float) -> float:
    """The score that ``share`` of the training examples exceed. ConfigError: no share up to ½.

    >>> contamination_threshold(np.arange(100), 0.1)
    89.0
    """
    if not 0 < share <= 0.5:
        raise ConfigError(f"{say_option('contamination', share)}: a share above 0, up to 0.5",
                          option="contamination")
    place = math.ceil(round(len(training) * (1 - share), 9))
    return float(np.sort(np.asarray(training, np.float64))[max(place - 1, 0)])


@dataclass(frozen=True)
class Typical:
    """The Gaussian of several statistics of normal examples."""

    mean: Float
    whiten: Float

    @classmethod
    def of(cls, statistics: Array) -> Self:
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


def ppca_surprise(train: Array, examples: Array, axes: int = AXES) -> Float:
    """The control: −log p under probabilistic PCA, but for a constant; (n,), higher is odder.

    Σ_j≤k t_j² / λ_j + |residual|² / σ² (Tipping & Bishop 1999) of flattened examples.
    """
    from sklearn.decomposition import PCA

    train, examples = _flat(train, examples)
    k = max(1, min(axes, train.shape[1] - 1, len(train) - 2))
    pca = PCA(k, random_state=0).fit(train)
    centred = examples - pca.mean_
    latents = centred @ pca.components_.T
    residual = np.square(centred).sum(1) - np.square(latents).sum(1)
    noise = max(float(pca.noise_variance_), TINY * float(pca.explained_variance_[0]), 1e-300)
    inside = np.square(latents) / np.maximum(pca.explained_variance_, noise)
    return np.asarray(inside.sum(1) + np.maximum(residual, 0) / noise, np.float64)


def forest_surprise(train: Array, examples: Array, seed: int = 0) -> Float:
    """The control: isolation forest (Liu et al. 2008) with scikit-learn's defaults; (n,)."""
    from sklearn.ensemble import IsolationForest

    train, examples = _flat(train, examples)
    return np.asarray(-IsolationForest(random_state=seed).fit(train).score_samples(examples))


def _flat(train: Array, examples: Array) -> tuple[Array, Array]:
    """Two matrices in single precision; of the training examples an even choice of the first."""
    step = max(1, len(train) // CONTROL_EXAMPLES)
    flat = [np.asarray(x.reshape(len(x), -1), np.float32) for x in (train[::step], examples)]
    return pair(flat[0], flat[1], ("training data", "examples"), 1)


def half_whitened(latents: Array) -> Float:
    """Latents (n, d) on their principal axes, each divided by the fourth root of its variance λ.

    Half the way to covariance I: it becomes diag(√λ), and what varies little counts more than it
    did, but not as much as what varies most. Flat directions are left out.
    """
    values = matrix(latents, "latents").astype(np.float64)
    values = values - values.mean(0)
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(values.T)))
    varying = variances > TINY * variances[-1]
    return np.asarray(values @ (axes[:, varying] * variances[varying] ** -0.25))


@dataclass(frozen=True)
class Axes:
    """The principal axes of some examples: ``mean`` (d,) and ``axes`` (k, d)."""

    mean: Float
    axes: Float

    @classmethod
    def of(cls, examples: Array, most: int = AXES) -> Self:
        """The ``most`` widest of examples (m, d); DataError if all are alike, or not finite."""
        from sklearn.decomposition import PCA

        if not (matrix(examples, "examples") != examples[0]).any():
            raise DataError("these examples are all alike, so none is rare")
        pca = PCA(min(most, *examples.shape), random_state=0).fit(examples)
        return cls(pca.mean_, pca.components_)

    def __call__(self, examples: Array) -> Float:
        """Coordinates (n, k) of examples (n, d), which keep their distances nearly."""
        return np.asarray((examples - self.mean) @ self.axes.T)


@dataclass(frozen=True)
class Neighbours:
    """The nearest others of n examples, among m of them that stand for all: distances (n, k), the
    nearest first, ``which`` of the m they are (n, k), and the ``rows`` (m,) of those."""

    far: Float
    which: Index
    rows: Index

    @classmethod
    def of(cls, points: Array, most: int = REFERENCE,
           count: Callable[[int], None] = lambda more: None) -> Self:
        """Of examples (n, d), the 30 nearest, of more than ``most`` among so many, evenly spread
        over the rows. ``count`` is called with how many more examples are done."""
        from sklearn.neighbors import NearestNeighbors

        rows = _evenly(len(points), most)
        k = min(max(NEIGHBOURS), len(rows) - 1)
        within = np.isin(np.arange(len(points)), rows)[:, None]  # those meet themselves first
        search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(points[rows])
        far, which = np.empty((len(points), k)), np.empty((len(points), k), np.int64)
        for start in range(0, len(points), ROWS):
            part = slice(start, start + ROWS)
            for array, result in zip((far, which), search.kneighbors(points[part]), strict=True):
                array[part] = np.where(within[part], result[:, 1:], result[:, :-1])
            count(len(far[part]))
        return cls(far, which, rows)

    def isolation(self, neighbours: tuple[int, ...] = NEIGHBOURS) -> Float:
        """log distance to each k-th nearest other, (n, len(neighbours)).

        −log density / d but for a constant (Loftsgaarden & Quesenberry 1965). Where some examples
        stand for all, every k shrinks with their share.
        """
        share = len(self.rows) / len(self.far)
        place = np.array([min(max(1, round(k * share)), self.far.shape[1]) for k in neighbours])
        return np.log(np.maximum(self.far[:, place - 1], np.finfo(float).eps))


def loneliness(view: Neighbours) -> Float:
    """(n,) the greatest of the ranks of an example's distances to its 5th, 10th, 30th neighbour."""
    return np.asarray(np.max([ranks(far) for far in view.isolation().T], 0))


def seldomness(view: Neighbours) -> Float:
    """(n,) how seldom a walk from neighbour to neighbour comes by an example or those around it.

    The walk goes on to any of the 30 nearest, and one time in ten anywhere (PageRank, Page et al.
    1999). What it tells of density needs no scale (Hashimoto et al. 2015): a place as sparse as its
    whole kind is not rare for that. −log of the visits in units of their mean, nats, averaged over
    an example's 10 nearest.
    """
    steps, m = view.which[view.rows], len(view.rows)
    visits: Float = np.ones(m)
    for _ in range(STEPS):
        share = np.repeat(visits / steps.shape[1], steps.shape[1])
        visits = np.asarray((1 - ANYWHERE) * np.bincount(steps.ravel(), share, m) + ANYWHERE)
    return np.asarray(-np.log(visits)[view.which[:, :AROUND]].mean(1))


def ranks(values: Array) -> Float:
    """(n,) share of the examples that lie below each, ties halfway: in 0 … 1 with mean ½."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(values) - 0.5) / len(values))


def groups(latents: Array, seed: int = 0) -> Index:
    """(n,) group of each of some examples (n, d), the largest group first.

    k-means with the number of groups (2 … 8) of the greatest mean silhouette (Rousseeuw 1987); one
    group where that is under 0.05, and for fewer than 20 examples.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    best, label, rows = APART, np.zeros(len(latents), np.int64), _evenly(len(latents), JUDGED)
    for k in range(2, min(MOST_GROUPS, len(latents) // SMALLEST) + 1):
        partition = KMeans(k, n_init=4, random_state=seed).fit(latents).labels_
        if len(np.unique(partition[rows])) > 1:
            score = float(silhouette_score(latents[rows], partition[rows]))
            if score > best:
                best, label = score, partition
    place = np.argsort(np.argsort(-np.bincount(label), kind="stable"), kind="stable")
    return np.asarray(place[label], np.int64)


def _evenly(n: int, most: int) -> Index:
    """Rows of at most ``most`` of n examples, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))
