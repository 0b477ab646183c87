"""How far examples are from those they are compared with, a value for every pair: reconstructions
and translations from their targets, a frame of a clip from the one before it."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core import motion
from latlas.core.errors import DataError
from latlas.metrics.arrays import Array, Float

#: side and standard deviation of the window of SSIM, pixels; its two constants
WINDOW, SPREAD, K1, K2 = 11, 1.5, 0.01, 0.03
#: examples at a time, and pairs of frames
CHUNK, FRAMES = 256, 64


def mse(x: Array, target: Array) -> Float:
    """(n,) mean squared difference over all scalars of an example, from two (n, \\*shape)."""
    return _each(x, target, lambda a, b: (a - b).square().flatten(1).mean(1))


def l1(x: Array, target: Array, top: float = 1.0) -> Float:
    """(n,) mean absolute difference of each pair (n, \\*shape), as a share of the range 0 … top."""
    return _each(x, target, lambda a, b: (a - b).abs().flatten(1).mean(1) / top)


def psnr(x: Array, target: Array, top: float) -> Float:
    """(n,) peak signal-to-noise ratio, dB: 10 log₁₀(top² / mse); infinite for equal examples. The
    largest value a scalar can have is ``top``: levels − 1 in data units, 2 in model units."""
    if top <= 0:
        raise DataError(f"psnr: peak must be positive, got {top}")
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(top**2 / mse(x, target)))


def ssim(x: Array, target: Array, top: float) -> Float:
    """(n,) structural similarity of each pair of images (n, C, H, W), at most 1.

    (2 μ_a μ_b + c₁)(2 σ_ab + c₂) / ((μ_a² + μ_b² + c₁)(σ_a² + σ_b² + c₂)), moments under a Gaussian
    window of 11 pixels and deviation 1.5, c_i = (k_i top)²; mean over all places where the window
    fits and over channels (Wang et al. 2004, eq. 13 and section III-C). Of images with a side
    under 11 the window is as large as fits.
    """
    c1, c2 = (K1 * top) ** 2, (K2 * top) ** 2

    def blurred(images: Tensor) -> Tensor:
        for axis in (2, 3):
            side = min(WINDOW, images.shape[axis])
            place = torch.arange(side, dtype=images.dtype) - (side - 1) / 2
            weight = torch.exp(-place.square() / (2 * SPREAD**2))
            shape = [1, 1, 1, 1]
            shape[axis] = side
            kernel = (weight / weight.sum()).view(shape).repeat(images.shape[1], 1, 1, 1)
            images = F.conv2d(images, kernel, groups=images.shape[1])
        return images

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        mean_a, mean_b = blurred(a), blurred(b)
        var_a = blurred(a * a) - mean_a.square()
        var_b = blurred(b * b) - mean_b.square()
        shared = blurred(a * b) - mean_a * mean_b
        light = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
        shape = (2 * shared + c2) / (var_a + var_b + c2)
        return (light * shape).flatten(1).mean(1)

    return _each(x, target, similarity)


def _each(x: Array, target: Array, metric: Callable[[Tensor, Tensor], Tensor]) -> Float:
    """A metric of every pair, in double precision, some pairs at a time."""
    if x.shape != target.shape or x.ndim < 2:
        raise DataError(f"reconstructions have shape {target.shape}, the data {x.shape}: they must "
                        "be equal, (n, ...)")
    parts = [metric(*(torch.from_numpy(np.array(v[i:i + CHUNK], np.float64))
                      for v in (x, target))).numpy() for i in range(0, len(x), CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)


def flicker(earlier: Array, later: Array, flow: Array, top: float,
            weight: Array | None = None) -> Float:
    """How much a clip changes beyond its motion: mean |later − W(earlier)| of each pair of frames
    (n, C, H, W), as a share of the range.

    W moves the earlier frame (Lai et al. 2018, section 4.2, with squares and a flow of a network).
    The mean is over channels and over places weighted by ``weight``; NaN where all are 0.

    Args:
        flow: (n, 2, 3) their motion, known or found (:func:`motions`), in the terms of
            :mod:`latlas.core.motion`.
        top: the largest level.
        weight: (n, 1, H, W); by default 1 where a place of the later frame is in the earlier one.
    """
    shares = np.zeros(len(later))
    for part in (slice(i, i + FRAMES) for i in range(0, len(later), FRAMES)):
        a, b, moves = (torch.from_numpy(np.asarray(x[part], np.float32))
                       for x in (earlier, later, flow))
        inside = motion.inside(moves, *b.shape[2:]) if weight is None else torch.from_numpy(
            weight[part])
        change = (b - motion.warped(a, moves)).abs().mean(1, keepdim=True)
        shares[part] = ((change * inside).double().sum((1, 2, 3))
                        / inside.double().sum((1, 2, 3))).numpy() / top
    return shares


def motions(earlier: Array, later: Array, top: float) -> tuple[Array, Array]:
    """The motion (n, 2, 3) of each pair of frames, and how well it explains each place of the
    later one (n, 1, H, W); see :func:`latlas.core.motion.explained`."""
    flow = np.zeros((len(later), 2, 3), np.float32)
    weight = np.zeros((len(later), 1, *later.shape[2:]), np.float32)
    for part in (slice(i, i + FRAMES) for i in range(0, len(later), FRAMES)):
        a, b = (torch.from_numpy(np.asarray(x[part], np.float32)) for x in (earlier, later))
        moves = motion.estimate(motion.grey(a / top), motion.grey(b / top))
        flow[part] = moves.numpy()
        weight[part] = motion.explained(a, b, moves, top).numpy()
    return flow, weight
