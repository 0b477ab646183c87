"""How far images are from the ones that were wanted: one metric for every pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Float = NDArray[np.float64]
#: side and standard deviation of the window of SSIM, pixels; its two constants
WINDOW, SPREAD, K1, K2 = 11, 1.5, 0.01, 0.03
#: images at a time
CHUNK = 256


def l1(made: Array, wanted: Array, top: float) -> Float:
    """Mean absolute difference of each pair (n, \\*shape), as a share of the range 0 … top."""
    return _each(made, wanted, lambda a, b: (a - b).abs().flatten(1).mean(1) / top)


def psnr(made: Array, wanted: Array, top: float) -> Float:
    """Peak signal-to-noise ratio of each pair, dB: 10 log₁₀(top² / mean squared difference)."""
    error = _each(made, wanted, lambda a, b: (a - b).square().flatten(1).mean(1))
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(top**2 / error))


def ssim(made: Array, wanted: Array, top: float) -> Float:
    """Structural similarity of each pair of images (n, C, H, W), at most 1.

    (2 μ_a μ_b + c₁)(2 σ_ab + c₂) / ((μ_a² + μ_b² + c₁)(σ_a² + σ_b² + c₂)), moments under a Gaussian
    window of 11 pixels and deviation 1.5, c_i = (k_i top)²; mean over all places where the window
    fits and over channels (Wang et al. 2004, eq. 13 and section III-C). Of images with a side
    under 11 the window is as large as fits.
    """
    c1, c2 = (K1 * top) ** 2, (K2 * top) ** 2

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        mean_a, mean_b = _blurred(a), _blurred(b)
        var_a = _blurred(a * a) - mean_a.square()
        var_b = _blurred(b * b) - mean_b.square()
        shared = _blurred(a * b) - mean_a * mean_b
        light = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
        shape = (2 * shared + c2) / (var_a + var_b + c2)
        return (light * shape).flatten(1).mean(1)
    return _each(made, wanted, similarity)


def _blurred(x: Tensor) -> Tensor:
    """Under the Gaussian window, one axis after the other."""
    for axis in (2, 3):
        side = min(WINDOW, x.shape[axis])
        at = torch.arange(side, dtype=x.dtype) - (side - 1) / 2
        weight = torch.exp(-at.square() / (2 * SPREAD**2))
        shape = [1, 1, 1, 1]
        shape[axis] = side
        kernel = (weight / weight.sum()).view(shape).repeat(x.shape[1], 1, 1, 1)
        x = F.conv2d(x, kernel, groups=x.shape[1])
    return x


def _each(made: Array, wanted: Array, metric: Any) -> Float:
    """A metric of every pair, in double precision, some pairs at a time."""
    if made.shape != wanted.shape:
        raise ValueError(f"pairs of shapes {made.shape} and {wanted.shape}")
    parts = [metric(*(torch.from_numpy(np.array(x[i:i + CHUNK], np.float64))
                      for x in (made, wanted))).numpy() for i in range(0, len(made), CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)
