"""Does a model copy its training set? Distances to the training examples, held against held-out
data.

Every metric compares how near samples come to the training examples with how near fresh real data
comes. A copying model cannot pass: its distances are zero, whatever the features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from latlas.metrics.arrays import Array, Float, Index, nearest, pair


@dataclass(frozen=True)
class Memorisation:
    """How near samples are to the training examples, beside held-out data.

    Attributes:
        z: data-copying statistic C_T, about N(0, 1) or narrower for fresh draws; under −3 the
            samples are nearer to the training examples than chance allows, over 3 farther.
        closer: probability that a sample is nearer to its nearest training example than a held-out
            example is to its own; 0.5 is fair, 1 means all copied.
        ratio: median distance to the nearest training example, samples over held-out; 1 is fair, 0
            copied, NaN if the held-out median is 0.
        near_copies: share of samples as near to a training example as the nearest 1% of held-out
            examples; 0.01 is fair.
        authenticity: share of samples farther from their nearest training example than that example
            is from its own nearest neighbour; 0 means all copied. Compare with:
        authenticity_held_out: the same share for held-out data.
    """

    z: float
    closer: float
    ratio: float
    near_copies: float
    authenticity: float
    authenticity_held_out: float

    @property
    def copies(self) -> bool:
        """Whether the test finds copying: C_T < −3."""
        return self.z < -3


def memorisation(samples: Array, train: Array, held_out: Array, *, cells: int | None = None,
                 seed: int = 0) -> Memorisation:
    """All metrics of :class:`Memorisation` from features (m, d), (t, d) and (n, d).

    Args:
        samples: what the model made.
        train: what it was trained on, all of it.
        held_out: real examples it never saw.
        cells: regions of C_T; ``None`` means one for every 100 held-out examples, 1 … 10.
    """
    samples, train = pair(samples, train, ("samples", "training data"))
    held_out, train = pair(held_out, train, ("held-out data", "training data"))
    near_sample, item_sample = _nearest(samples, train)
    near_held, item_held = _nearest(held_out, train)
    regions = _cells(train, cells or int(np.clip(len(held_out) // 100, 1, 10)), seed)
    z = _copying(near_sample, near_held, regions[item_sample], regions[item_held])
    ranks = rankdata(np.concatenate([near_sample, near_held]))
    u = ranks[:len(near_sample)].sum() - len(near_sample) * (len(near_sample) + 1) / 2
    closer = float(1 - u / (len(near_sample) * len(near_held)))  # P(a < b) + ½ P(a = b)
    median = float(np.median(near_held))
    ratio = float(np.median(near_sample)) / median if median > 0 else float("nan")
    return Memorisation(
        z, closer, ratio,
        float((near_sample <= np.quantile(near_held, 0.01)).mean()),
        _authentic(train, near_sample, item_sample), _authentic(train, near_held, item_held))


def authenticity(samples: Array, train: Array) -> float:
    """Share of samples that are authentic (Alaa et al. 2022), 0 … 1.

    A sample is authentic if it is farther from its nearest training example than that example is
    from the nearest other training example. Fresh real data does not reach 1: compare with its
    value.
    """
    samples, train = pair(samples, train, ("samples", "training data"))
    return _authentic(train, *_nearest(samples, train))


def data_copying(samples: Array, held_out: Array, sample_cell: Array | None = None,
                 held_out_cell: Array | None = None) -> float:
    """Data-copying statistic C_T (Meehan et al. 2020) from nearest-train distances.

    In every cell the Mann-Whitney statistic of the two sets of distances, standardised,
    Z = (U − mn/2) / sqrt(mn(m + n + 1)/12) with correction for ties; C_T is their mean weighted by
    the share of held-out examples. Cells with fewer than 20 samples or held-out examples are left
    out; if none is left the whole space is one cell.

    Args:
        samples, held_out: (m,) and (n,) distances to the nearest training example.
        sample_cell, held_out_cell: (m,) and (n,) cell numbers; ``None`` puts all in one cell.
    Returns:
        About N(0, 1) for one cell and fresh draws; far below 0 means copying.
    """
    a = np.zeros(len(samples), np.int64) if sample_cell is None else sample_cell
    b = np.zeros(len(held_out), np.int64) if held_out_cell is None else held_out_cell
    return _copying(np.asarray(samples), np.asarray(held_out), a, b)


def _nearest(x: Array, train: Array) -> tuple[Float, Index]:
    distance, item = nearest(x, train)
    return distance[:, 0], item[:, 0]


def _copying(samples: Float, held_out: Float, sample_cell: Array, held_out_cell: Array,
             least: int = 20) -> float:
    weights, scores = [], []
    for cell in np.unique(held_out_cell):
        a, b = samples[sample_cell == cell], held_out[held_out_cell == cell]
        if min(len(a), len(b)) >= least:
            weights.append(len(b))
            scores.append(_z(a, b))
    return float(np.average(scores, weights=weights)) if scores else _z(samples, held_out)


def _z(a: Float, b: Float) -> float:
    """Standardised Mann-Whitney U of a over b: negative if a is smaller."""
    n, m = len(a), len(b)
    ranks = rankdata(np.concatenate([a, b]))
    u = ranks[:n].sum() - n * (n + 1) / 2
    _, ties = np.unique(ranks, return_counts=True)
    total = n + m
    tied = (ties.astype(np.float64) ** 3 - ties).sum() / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - tied)
    return float((u - n * m / 2) / np.sqrt(variance)) if variance > 0 else 0.0


def _authentic(train: Array, distance: Float, item: Index) -> float:
    """Only the training examples that are somebody's nearest need a neighbour of their own."""
    used, back = np.unique(item, return_inverse=True)
    # the two nearest training examples of a training example are itself (or a copy) and the next
    spacing = nearest(train[used], train, 2)[0][:, 1]
    return float((distance > spacing[back]).mean())


def _cells(train: Array, count: int, seed: int, rounds: int = 10) -> Index:
    """(t,) region of each training example: k-means by Lloyd's iteration from random examples."""
    chosen = np.random.default_rng(seed).choice(len(train), min(count, len(train)), False)
    centres = train[chosen].astype(np.float64)
    for _ in range(rounds):
        cell = nearest(train, centres)[1][:, 0]
        for k in np.unique(cell):
            centres[k] = train[cell == k].mean(0, dtype=np.float64)
    return nearest(train, centres)[1][:, 0]
