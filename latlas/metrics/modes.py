"""The modes of data whose classes are known: which of them samples reach, how often, how varied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.metrics.arrays import Array, Float, Index, blocks, matrix, nearest

Mask = NDArray[np.bool_]
#: standard deviations around its centre that belong to a mode
REACH = 3.0


@dataclass(frozen=True)
class Balls:
    """Every class as a ball of three standard deviations around its mean.

    For modes that are Gaussians, such as those of ``ring`` and ``grid``, whose standard measure
    this is (Srivastava et al. 2017; Lin et al. 2018). In the plane 98.9% of a Gaussian lies inside.

    Attributes:
        codes: (k,) class codes.
        centres: (k, d) means of the classes.
        sd: (k,) standard deviation of each, over all its coordinates.
    """

    codes: Index
    centres: Float
    sd: Float

    @classmethod
    def fit(cls, x: Array, label: Index) -> Balls:
        """From examples (n, d) and their class codes (n,), negative ones of no class."""
        x = matrix(x, "examples")
        codes = np.unique(label[label >= 0])
        if not len(codes):
            raise DataError("modes need labelled examples, and none has a label")
        members = [x[label == code].astype(np.float64) for code in codes]
        return cls(codes, np.stack([m.mean(0) for m in members]),
                   np.array([np.sqrt(m.var(0).mean() * len(m) / max(1, len(m) - 1))
                             for m in members]))

    def tell(self, x: Array) -> tuple[Index, Mask]:
        """(n,) class whose centre is nearest, and whether the example lies in that ball."""
        distance, index = nearest(matrix(x, "examples", 1), self.centres)
        row = index[:, 0]
        return self.codes[row], distance[:, 0] <= REACH * self.sd[row]


def class_shares(label: Index) -> Float:
    """(k,) share of every class code among labelled examples; negative codes are left out."""
    counts = np.bincount(label[label >= 0])
    return np.asarray(counts / max(1, counts.sum()))


def modes_covered(mode: Index, shares: Float) -> int:
    """How many classes with a share in the data (k,) occur among the modes of samples (n,)."""
    frequency = np.bincount(mode, minlength=len(shares))[:len(shares)]
    return int(((frequency > 0) & (shares > 0)).sum())


def mode_divergence(mode: Index, shares: Float) -> float:
    """KL of the frequencies of modes among samples (n,) from those of the data (k,), nats.

    Σ p log(p / q), p of the samples (the "reverse" KL of Lin et al. 2018, appendix). About
    (k − 1) / 2n for n fresh examples, infinite for a mode that the data do not have.
    """
    frequency = np.bincount(mode, minlength=len(shares)) / max(1, len(mode))
    real = np.pad(shares, (0, len(frequency) - len(shares)))
    some = frequency > 0
    with np.errstate(divide="ignore"):
        return max(0.0, float((frequency[some] * np.log(frequency[some] / real[some])).sum()))


def class_diversity(fake: Array, fake_mode: Index, real: Array, real_mode: Index) -> float:
    """Mean distance of two samples of one mode, over that of two real examples; mean over modes.

    1 for samples as varied as the data within every mode, 0 where each mode is one example over and
    over. Modes with fewer than two examples on a side are left out; NaN if none is left.

    Args:
        fake, real: features (n, d) and (m, d); ``fake_mode``, ``real_mode`` their modes.
    """
    ratios = []
    for code in np.unique(real_mode):
        mine, theirs = fake[fake_mode == code], real[real_mode == code]
        if min(len(mine), len(theirs)) > 1 and (apart := mean_distance(theirs)) > 0:
            ratios.append(mean_distance(mine) / apart)
    return float(np.mean(ratios)) if ratios else float("nan")


def mean_distance(x: Array) -> float:
    """Mean Euclidean distance of two different rows of (n, d), n ≥ 2."""
    x = matrix(x, "examples")
    total = sum(np.sqrt(square).sum() for _, _, square in blocks(x, x))
    return float(total / (len(x) * (len(x) - 1)))
