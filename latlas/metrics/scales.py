"""Columns on a common scale, whatever their units, outliers and gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from latlas.metrics.arrays import Array

#: interquartile range of a standard normal
IQR = 1.3489795
#: values beyond so many robust deviations from the median do not count for a column's scale
WINSOR = 10.0
#: quantiles that a column's normal scores are fixed at
SHARES = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class RobustScale:
    """Median and deviation of every column; what lies beyond ``clip`` deviations is cut there.

    The deviation is the standard one of the values winsorised at ten times the interquartile
    range / 1.349 from the median (Huber & Ronchetti 2009, section 1.7), so up to a quarter of the
    rows may be anything. Columns in which half of the rows are equal take the range that holds
    98% of the values instead; constant ones keep scale 1. Gaps (NaN) do not count, and stay.
    """

    centre: Array
    scale: Array
    clip: float

    @classmethod
    def of(cls, x: Array, clip: float) -> RobustScale:
        """Fitted to (n, d); a column of gaps alone keeps scale 1."""
        x = np.where(np.isnan(x).all(0), 0.0, x)
        whole = np.frexp(np.nanmax(np.abs(x), axis=0))[1]  # powers of two: nothing is rounded
        y = np.ldexp(x, -whole)
        low, centre, high = np.nanpercentile(y, (25, 50, 75), axis=0)
        reach = WINSOR * (high - low) / IQR
        bottom, top = np.nanpercentile(y, (1, 99), axis=0)
        flat = reach <= 1e-12 * np.abs(centre)
        bottom = np.where(flat, bottom, centre - reach)
        top = np.where(flat, top, centre + reach)
        scale = deviation(np.clip(y, bottom, top), centre)
        scale = np.where(scale > 0, scale, deviation(y, np.nanmean(y, axis=0)))
        return cls(np.ldexp(centre, whole), np.where(scale > 0, np.ldexp(scale, whole), 1.0), clip)

    def __call__(self, x: Array) -> Array:
        """(n, d) float32 within ±``clip``."""
        return standardised(x, self.centre, self.scale, self.clip)


def deviation(x: Array, centre: Array) -> Array:
    """Root mean square of x − centre by column, (n, d) float64 of any size to (d,), without gaps
    (NaN); 0 of columns that are constant but for rounding."""
    half = x / 2 - centre / 2  # the difference of two numbers may be too large for float64
    unit = np.frexp(np.nanmax(np.abs(half), axis=0))[1]  # squares neither too large nor too small
    size = np.ldexp(np.sqrt(np.nanmean(np.square(np.ldexp(half, -unit)), axis=0)), unit)
    varies = size > np.maximum(1e-12 * np.abs(centre / 2), np.finfo(np.float64).tiny)
    return np.where(varies, np.minimum(size, np.finfo(np.float64).max / 2) * 2, 0.0)


def standardised(x: Array, centre: Array, scale: Array, farthest: float) -> Array:
    """(x − centre) / scale in float64, cut at ± ``farthest``, as float32."""
    with np.errstate(over="ignore"):  # what is too large is cut
        t = (x / 2 - centre / 2) / (scale / 2)
    return np.clip(t, -farthest, farthest).astype(np.float32)


@dataclass(frozen=True)
class NormalScores:
    """Every column so that it is about N(0, 1): a monotone, piecewise linear map that takes its
    quantiles from 5% to 95% to those of a standard normal, and goes on straight beyond, so that a
    value far out is as far out as it is.

    Attributes:
        knots: of each column (k,) ascending values and their normal scores.
        clip: scores beyond are cut there.
    """

    knots: tuple[tuple[Array, Array], ...]
    clip: float = 10.0

    @classmethod
    def of(cls, x: Array, clip: float = 10.0) -> NormalScores:
        """Fitted to (n, d), without gaps (NaN); a column of one value is 0 there."""
        knots = []
        for column in x.T:
            present = column[~np.isnan(column)]
            values, place = np.unique(np.quantile(present, SHARES) if len(present) else np.zeros(1),
                                      return_inverse=True)
            scores = np.bincount(place, ndtri(SHARES)[:len(place)]) / np.bincount(place)
            if len(values) < 3:
                middle = float(present.mean()) if len(present) else 0.0
                sd = float(deviation(present[:, None], np.array([middle]))[0]) if len(
                    present) else 0.0
                values, scores = middle + np.array([-1.0, 1.0]) * (sd or 1.0), np.array([-1.0, 1])
            knots.append((values, scores))
        return cls(tuple(knots), clip)

    def __call__(self, x: Array) -> Array:
        """(n, d) within ±``clip``."""
        return np.clip(self._mapped(x, [*self.knots]), -self.clip, self.clip)

    def inverse(self, scores: Array) -> Array:
        """Scores (n, d) as values."""
        return self._mapped(scores, [(z, v) for v, z in self.knots])

    @staticmethod
    def _mapped(x: Array, knots: list[tuple[Array, Array]]) -> Array:
        result = np.empty(x.shape)
        for column, (at, to), out in zip(x.T, knots, result.T, strict=True):
            k = max(1, len(at) // 6)  # a slope by one pair of quantiles is too noisy
            low, high = ((to[b] - to[a]) / (at[b] - at[a]) for a, b in ((0, k), (-1 - k, -1)))
            out[:] = np.interp(column, at, to)
            below, above = column < at[0], column > at[-1]
            out[below] = to[0] + low * (column[below] - at[0])
            out[above] = to[-1] + high * (column[above] - at[-1])
            out[np.isnan(column)] = np.nan
        return result
