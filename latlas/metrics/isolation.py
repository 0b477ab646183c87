"""How isolated examples are among others, and the groups that the most isolated ones form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from latlas.core.errors import DataError
from latlas.metrics.arrays import ROWS, Array, Float, Index, matrix

#: neighbours that an example's surroundings reach to: near, for few that lie scattered, and far,
#: for those that lie close together and have near neighbours in each other
NEIGHBOURS = (5, 10, 30)
#: examples that neighbours are looked for among
REFERENCE = 60_000
#: of the walk: how often it starts anew, its steps, and the nearest that an example's is averaged
#: over
ANYWHERE, STEPS, AROUND = 0.1, 40, 10
#: principal axes of examples, and share of the largest variance below which a direction is rounding
AXES, TINY = 50, 1e-9
#: groups of rare examples at most, examples of the smallest on average, and examples that decide
#: how many
MOST_GROUPS, SMALLEST, JUDGED = 8, 10, 2000
#: below this mean silhouette rare examples form no groups
APART = 0.05


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
    def of(cls, items: Array, most: int = AXES) -> Axes:
        """The ``most`` widest of examples (m, d).

        Raises:
            DataError: examples that are all alike, or whose numbers are not finite.
        """
        from sklearn.decomposition import PCA

        if not (matrix(items, "examples") != items[0]).any():
            raise DataError("these examples are all alike, so none is rare")
        fitted = PCA(min(most, *items.shape), random_state=0).fit(items)
        return cls(fitted.mean_, fitted.components_)

    def __call__(self, items: Array) -> Float:
        """Coordinates (n, k) of examples (n, d), which keep their distances nearly."""
        return np.asarray((items - self.mean) @ self.axes.T)


@dataclass(frozen=True)
class Neighbours:
    """The nearest others of n examples, among m of them that stand for all.

    Attributes:
        far: (n, k) distances, the nearest first; ``which``, (n, k), who they are among the m.
        rows: (m,) rows of those.
    """

    far: Float
    which: Index
    rows: Index

    @classmethod
    def of(cls, points: Array, most: int = REFERENCE,
           count: Callable[[int], None] = lambda more: None) -> Neighbours:
        """Of examples (n, d), the 30 nearest.

        Of more than ``most`` examples, neighbours are looked for among so many, evenly spread over
        the rows. ``count`` is called with how many more examples are done.
        """
        from sklearn.neighbors import NearestNeighbors

        rows = np.unique(np.linspace(0, len(points) - 1, min(most, len(points))).astype(np.int64))
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
        passed_on = np.repeat(visits / steps.shape[1], steps.shape[1])
        came = np.bincount(steps.ravel(), passed_on, m)
        visits = np.asarray((1 - ANYWHERE) * came + ANYWHERE)
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

    most = min(MOST_GROUPS, len(latents) // SMALLEST)
    partitions = [KMeans(k, n_init=4, random_state=seed).fit(latents).labels_
                  for k in range(2, most + 1)]
    score = [_silhouette(latents, label) for label in partitions]
    if not partitions or max(score) < APART:
        return np.zeros(len(latents), np.int64)
    label = partitions[int(np.argmax(score))]
    place = np.argsort(np.argsort(-np.bincount(label), kind="stable"), kind="stable")
    return np.asarray(place[label], np.int64)


def _silhouette(latents: Array, label: Array) -> float:
    from sklearn.metrics import silhouette_score

    rows = np.unique(np.linspace(0, len(latents) - 1, min(JUDGED, len(latents))).astype(np.int64))
    if len(np.unique(label[rows])) < 2:
        return -1.0
    return float(silhouette_score(latents[rows], label[rows]))
