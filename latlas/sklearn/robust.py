"""Columns on one scale that a few wild rows do not set, and scores of several members on one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Array = NDArray[Any]
#: interquartile range of a standard normal
IQR = 1.3489795
#: values beyond so many robust deviations from the median do not count for a column's scale
WINSOR = 10.0


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
    def of(cls, x: Array, clip: float) -> RobustScale:
        """Fitted to (n, d)."""
        low, centre, high = np.percentile(x, (25, 50, 75), axis=0)
        reach = WINSOR * (high - low) / IQR
        bottom, top = np.percentile(x, (1, 99), axis=0)
        flat = reach <= 1e-12 * np.maximum(1.0, np.abs(centre))
        bottom = np.where(flat, bottom, centre - reach)
        top = np.where(flat, top, centre + reach)
        scale = np.sqrt(np.square(np.clip(x, bottom, top) - centre).mean(0))
        usable = scale > 1e-12 * np.maximum(1.0, np.abs(centre))
        spare = np.where(x.std(0) > 1e-12 * np.maximum(1.0, np.abs(centre)), x.std(0), 1.0)
        return cls(centre, np.where(usable, scale, spare), clip)

    def __call__(self, x: Array) -> Array:
        """(n, d) float32 within ±``clip``."""
        return np.clip((x - self.centre) / self.scale, -self.clip, self.clip).astype(np.float32)


def quartiles(scores: Array) -> Array:
    """(3, members) from scores (members, n) of the training rows."""
    return np.asarray(np.percentile(scores, (25, 50, 75), axis=1))


def standardised(scores: Array, reference: Array) -> Array:
    """(members, n) scores in robust deviations from the median; ``reference`` are the quartiles."""
    low, centre, high = reference[..., None]
    return np.asarray((scores - centre) / np.maximum(
        (high - low) / IQR, 1e-12 * np.maximum(1.0, np.abs(centre))))


def soft_maximum(deviations: Array, weights: Array) -> Array:
    """½ log Σ_m w_m exp(2 s_m) of s = sign(t) log(1 + |t|), (members, n) to (n,).

    Near their mean where the members agree; where one finds a row odd that the others do not, it
    is heard, and in logarithms it does not outvote them for finding it a thousand times too odd.
    """
    s = np.sign(deviations) * np.log1p(np.abs(deviations))
    return np.asarray(0.5 * logsumexp(2 * s, axis=0, b=(weights / weights.sum())[:, None]))
