"""A generator and a discriminator whose every level costs alike, for images of 48 pixels and more.

Channels halve where sides double, convolutions that change the size run at the smaller one, and
activations overwrite what they read, so that a step costs little time and memory. No example sees
another.
"""

import math
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.errors import ConfigError
from latlas.networks.conv import Size, pyramid, strides

#: slope of activations below 0, and 1 / root mean square of one of a ~ N(0, 1)
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))
#: channels double at every coarser level up to eight times the finest level's, or so many
MOST_CHANNELS = 128
#: side of what a gate reads, and levels from there to what it scales
GATE_SIDE, GATE_LEVELS = 4, 3
#: least side of images: two levels of the discriminator below the first
LEAST_SIDE = 16


def channels(width: int, levels: int) -> list[int]:
    """``width``, doubled at every level up to eight times, or to 128.

    >>> channels(8, 6), channels(32, 5)
    ([8, 16, 32, 64, 128, 128], [32, 64, 128, 256, 256])
    """
    return [min(width * 2**level, max(8 * width, MOST_CHANNELS)) for level in range(levels)]


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int | Size = 1,
         gain: float = GAIN) -> nn.Conv2d:
    """A convolution that starts with outputs of ``gain`` times the inputs' root mean square."""
    return start(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), gain)


Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def start(layer: Layer, gain: float = GAIN) -> Layer:
    """Normal weights of variance gain² / inputs (He et al. 2015, eq. 10), no bias."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def leaky(h: Tensor) -> Tensor:
    """Leaky ReLU in the place of ``h``."""
    return F.leaky_relu(h, SLOPE, inplace=True)


class Rise(nn.Module):
    """(n, inputs, *small) to (n, outputs, *large): a convolution, twice the size, and a residual
    convolution.

    A level ``gated`` by one of ``reads`` channels is scaled, channel by channel, by a function of
    that coarser level (skip-layer excitation, Liu et al. 2021, section 3.1).
    """

    def __init__(self, inputs: int, outputs: int, large: Size, reads: int = 0) -> None:
        super().__init__()
        self.large = large
        # activations are mostly positive, and their sums keep their spread by less than GAIN
        self.first, self.second = conv(inputs, outputs, gain=1.15), conv(outputs, outputs, gain=1.0)
        self.gate = start(nn.Linear(reads * GATE_SIDE**2, outputs), 1.0) if reads else None

    def forward(self, h: Tensor, coarse: Tensor | None = None) -> Tensor:
        h = F.interpolate(leaky(self.first(h)), self.large)
        h = leaky(self.second(h).add_(h))
        if self.gate is None or coarse is None:
            return h
        share = self.gate(F.adaptive_avg_pool2d(coarse, GATE_SIDE).flatten(1)).sigmoid()
        return h * (2 * share)[:, :, None, None]


class LightGenerator(nn.Module):
    """(n, inputs) and an optional (n, condition) to images (n, C, H, W).

    Args:
        shape: (C, H, W), sides of at least 16.
        width: channels of the finest level (:func:`channels`).
        depth: enlargements; 0: from sides of 4 … 7.
    """

    def __init__(self, shape: tuple[int, ...], inputs: int, condition: int = 0, *, width: int,
                 depth: int = 0) -> None:
        super().__init__()
        sizes = levels_of(shape, depth)[::-1]
        wide = channels(width, len(sizes))[::-1]
        self.coarse = (wide[0], *sizes[0])
        self.stem = start(nn.Linear(inputs + condition, math.prod(self.coarse)))
        self.levels = nn.ModuleList(
            Rise(i, o, large, wide[k - GATE_LEVELS] if k >= GATE_LEVELS else 0)
            for k, ((i, o), large) in enumerate(zip(pairwise(wide), sizes[1:], strict=True), 1))
        self.colours = conv(wide[-1], shape[0], 1, gain=1.0)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        h = leaky(self.stem(z if c is None else torch.cat([z, c], 1))).view(-1, *self.coarse)
        if not next(self.levels.parameters()).is_contiguous():
            h = h.contiguous(memory_format=torch.channels_last)
        levels = [h]
        for k, level in enumerate(self.levels, 1):
            levels.append(level(levels[-1], levels[k - GATE_LEVELS] if k >= GATE_LEVELS else None))
        out: Tensor = self.colours(levels[-1])
        return out


class Fall(nn.Module):
    """(n, inputs, *large) to (n, outputs, *small): two convolutions, the first of stride 2, beside
    one of the mean of every four pixels (Liu et al. 2021, section 3.2)."""

    def __init__(self, inputs: int, outputs: int, large: Size, small: Size) -> None:
        super().__init__()
        self.strides = strides(large, small)
        self.first = conv(inputs, outputs, stride=self.strides)
        self.second = conv(outputs, outputs, gain=1.0)
        self.skip = conv(inputs, outputs, 1, gain=1.0)

    def forward(self, h: Tensor) -> Tensor:
        mean = F.avg_pool2d(h, self.strides, ceil_mode=True)
        return leaky(self.second(leaky(self.first(h))).add_(self.skip(mean)))


class LightTrunk(nn.Module):
    """Images (n, C, H, W) to (n, features); the arguments are those of :class:`LightGenerator`."""

    def __init__(self, shape: tuple[int, ...], features: int, *, width: int,
                 depth: int = 0) -> None:
        super().__init__()
        sizes = levels_of(shape, depth)
        wide = channels(width, len(sizes) - 1)
        self.first = conv(shape[0], wide[0], stride=strides(*sizes[:2]))
        self.levels = nn.Sequential(*(
            Fall(i, o, large, small)
            for (i, o), (large, small) in zip(pairwise(wide), pairwise(sizes[1:]), strict=True)))
        self.last = start(nn.Linear(wide[-1] * math.prod(sizes[-1]), features))

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.last(self.levels(leaky(self.first(x))).flatten(1)))


def levels_of(shape: tuple[int, ...], depth: int) -> list[Size]:
    """Sizes from the image to the coarsest; ConfigError for what is no image of 16 pixels a side.
    """
    if len(shape) != 3 or min(shape[1:]) < LEAST_SIDE:
        raise ConfigError(f"network=light needs images of at least {LEAST_SIDE} by {LEAST_SIDE} "
                          f"pixels, this data is {shape}: use network=conv or mlp")
    return pyramid(shape[1], shape[2], depth or None)
