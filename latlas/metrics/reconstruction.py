"""Reconstruction errors per example."""

from __future__ import annotations

import numpy as np

from latlas.core.errors import DataError
from latlas.metrics.arrays import Array, Float


def mse(x: Array, y: Array) -> Float:
    """(n,) mean squared difference over all scalars of an example, from two (n, \\*shape)."""
    return np.asarray(np.square(_difference(x, y)).mean(1))


def mae(x: Array, y: Array) -> Float:
    """(n,) mean absolute difference over all scalars of an example, from two (n, \\*shape)."""
    return np.asarray(np.abs(_difference(x, y)).mean(1))


def psnr(x: Array, y: Array, peak: float) -> Float:
    """(n,) peak signal-to-noise ratio 10 log₁₀(peak² / mse) in dB; infinite for equal images.

    Args:
        peak: the largest value a scalar can have: levels − 1 in data units, 2 in model units.
    """
    if peak <= 0:
        raise DataError(f"psnr: peak must be positive, got {peak}")
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(peak**2 / mse(x, y)))


def _difference(x: Array, y: Array) -> Float:
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.shape != b.shape or a.ndim < 2:
        raise DataError(f"reconstructions have shape {b.shape}, the data {a.shape}: they must be "
                        "equal, (n, ...)")
    return (a - b).reshape(len(a), -1)
