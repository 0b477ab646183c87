"""How alone items stand among others by their codes, and the groups that the loneliest form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from latlas.metrics.arrays import ROWS, Array, Float, Index, matrix, nearest
from latlas.metrics.outliers import Typical

#: neighbours that an item's surroundings reach to, and items that neighbours are looked for among
NEIGHBOURS, REFERENCE = 30, 20_000
#: groups of rare items at most, items of the smallest on average, and items that decide how many
MOST_GROUPS, SMALLEST, JUDGED = 8, 10, 2000
#: below this mean silhouette rare items form no groups
APART = 0.05


def whitened(codes: Array) -> Float:
    """Codes (n, d) turned and scaled to mean 0 and covariance I; flat directions are left out."""
    values = matrix(codes, "codes").astype(np.float64)
    if values.shape[1] == 1:
        return np.asarray((values - values.mean(0)) / values.std(0))
    typical = Typical.of(values)
    return np.asarray((values - typical.mean) @ typical.whiten)


def isolation(codes: Array, k: int = NEIGHBOURS, most: int = REFERENCE,
              count: Callable[[int], None] = lambda more: None) -> Float:
    """log distance of every item of (n, d) to the k-th nearest other, (n,): −log density / d + c.

    (Loftsgaarden & Quesenberry 1965.) Of more than ``most`` items, neighbours are looked for among
    so many, evenly spread over the rows, and k shrinks with their share. Copies of an item are
    neighbours at distance 0. ``count`` is called with how many more items are done.
    """
    rows = np.unique(np.linspace(0, len(codes) - 1, min(most, len(codes))).astype(np.int64))
    k = min(max(1, round(k * len(rows) / len(codes))), len(rows) - 1)
    far = np.empty((len(codes), 2))
    for start in range(0, len(codes), ROWS):
        part = slice(start, start + ROWS)
        far[part] = nearest(codes[part], codes[rows], k + 1)[0][:, k - 1:]
        count(len(far[part]))
    within = np.isin(np.arange(len(codes)), rows)  # those meet themselves first, at distance 0
    return np.log(np.maximum(np.where(within, far[:, 1], far[:, 0]), np.finfo(float).eps))


def ranks(values: Array) -> Float:
    """(n,) share of the items that lie below each, ties halfway: in 0 … 1 with mean ½."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(values) - 0.5) / len(values))


def groups(codes: Array, seed: int = 0) -> Index:
    """(n,) group of each of some items (n, d), the largest group first.

    k-means with the number of groups (2 … 8) of the greatest mean silhouette (Rousseeuw 1987); one
    group where that is under 0.05, and for fewer than 20 items.
    """
    from sklearn.cluster import KMeans

    most = min(MOST_GROUPS, len(codes) // SMALLEST)
    made = [KMeans(k, n_init=4, random_state=seed).fit(codes).labels_ for k in range(2, most + 1)]
    score = [_silhouette(codes, label) for label in made]
    if not made or max(score) < APART:
        return np.zeros(len(codes), np.int64)
    label = made[int(np.argmax(score))]
    place = np.argsort(np.argsort(-np.bincount(label), kind="stable"), kind="stable")
    return np.asarray(place[label], np.int64)


def _silhouette(codes: Array, label: Array) -> float:
    from sklearn.metrics import silhouette_score

    rows = np.unique(np.linspace(0, len(codes) - 1, min(JUDGED, len(codes))).astype(np.int64))
    if len(np.unique(label[rows])) < 2:
        return -1.0
    return float(silhouette_score(codes[rows], label[rows]))
