"""Layers with an equalised learning rate, a residual trunk of them, images enlarged and shrunk.

The size of Adam's steps does not follow that of the gradient. Weights that all start as N(0, 1)
and are scaled where they are used, by gain/√(inputs of one output), therefore all learn equally
fast ("equalised learning rate", Karras et al. 2018, section 4.1). A gain before a leaky ReLU is
one after it, so the factor that keeps the variance costs nothing of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.errors import ConfigError
from latlas.networks.blocks import Size, pyramid
from latlas.networks.reordered import Twice, convolved_twice, flat

#: slope of the leaky ReLU below 0, and the gain that makes up for what it takes from the variance
SLOPE, GAIN = 0.2, math.sqrt(2)
LEAST_SIDE = 8


class EqualLinear(nn.Linear):
    """gain · rate · (W x/√inputs + b), with W ~ N(0, 1/rate²) at the start.

    Args:
        rate: learning rate as a share of the other layers'.
        start: the bias at the start, as it acts.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0, rate: float = 1.0,
                 start: float = 0.0) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight, std=1 / rate)
        nn.init.constant_(self.bias, start / (gain * rate))
        self.gain = gain * rate

    def forward(self, x: Tensor) -> Tensor:
        scale = self.gain / math.sqrt(self.in_features)
        return F.linear(x, self.weight * scale, self.bias * self.gain)


class EqualConv(Twice, nn.Conv2d):
    """gain · (W ∗ x/√inputs + b) with W ~ N(0, 1) at the start; the size of images stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, gain: float = 1.0,
                 bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.gain
        weight = self.weight * (self.gain / math.sqrt(self.weight[0].numel()))
        if self.quick(x):
            edge = weight.shape[2] // 2
            return convolved_twice(x, weight, bias, (1, 1), (edge, edge))
        return F.conv2d(x, weight, bias, padding=self.padding)


def leaky(h: Tensor) -> Tensor:
    """Leaky ReLU, in place."""
    return F.leaky_relu(h, SLOPE, inplace=True)


def pixel_norm(h: Tensor) -> Tensor:
    """h over its root mean square along dimension 1 (Karras et al. 2018, section 4.2)."""
    return h * (h.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def enlarged(h: Tensor, size: Size) -> Tensor:
    """(n, c, ·, ·) to (n, c, *size), bilinear."""
    if h.shape[2:] == size:
        return h
    return F.interpolate(h, size=size, mode="bilinear", align_corners=False)


def shrunk(h: Tensor, size: Size) -> Tensor:
    """(n, c, ·, ·) to (n, c, *size): means of two neighbours along each side that is halved."""
    window = 1 + (h.shape[2] > size[0]), 1 + (h.shape[3] > size[1])
    return h if window == (1, 1) else F.avg_pool2d(h, window, ceil_mode=True)


class Halve(nn.Module):
    """(n, inputs, ·, ·) to (n, outputs, *size): two convolutions beside one of a single pixel.

    (f(x) + skip(x))/√2, the block of StyleGAN2's discriminator (Karras et al. 2020, figure 7c).
    """

    def __init__(self, inputs: int, outputs: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.first = EqualConv(inputs, inputs, gain=GAIN)
        self.second = EqualConv(inputs, outputs, gain=GAIN * math.sqrt(0.5))
        self.skip = EqualConv(inputs, outputs, 1, gain=math.sqrt(0.5), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = leaky(self.first(x))
        h = leaky(self.second(shrunk(h, self.size)))
        out: Tensor = h + self.skip(shrunk(x, self.size))
        return out


class Descent(nn.Module):
    """(n, wide[level], *sizes[level]) to (n, wide[0]).

    Args:
        sizes, wide: sizes of the image and channels, the coarsest first.
    """

    def __init__(self, sizes: Sequence[Size], wide: Sequence[int]) -> None:
        super().__init__()
        pairs = zip(pairwise(wide), sizes[:-1], strict=True)
        self.blocks = nn.ModuleList(Halve(fine, coarse, size) for (coarse, fine), size in pairs)
        self.last = EqualConv(wide[0], wide[0], gain=GAIN)
        self.flat = EqualLinear(wide[0] * math.prod(sizes[0]), wide[0], gain=GAIN)

    def forward(self, h: Tensor, level: int | None = None) -> Tensor:
        """``level`` of ``h``, from 0; the finest unless given."""
        for block in reversed(self.blocks[:level]):
            h = block(h)
        return leaky(self.flat(flat(leaky(self.last(h)))))


def residual_trunk(channels: int, sizes: Sequence[Size], wide: Sequence[int]) -> nn.Module:
    """(n, channels, H, W) to (n, wide[0])."""
    colours = EqualConv(channels, wide[-1], 1, gain=GAIN)
    return nn.Sequential(colours, nn.LeakyReLU(SLOPE, inplace=True), Descent(sizes, wide))


def image_sizes(name: str, shape: tuple[int, ...], depth: int = 0) -> list[Size]:
    """Sizes from the coarsest to the image's own; ``depth`` 0 starts from sides of 4 … 7.

    Raises:
        ConfigError: no images, ones with a side of less than 8, or too many downsampling stages.
    """
    if len(shape) != 3:
        raise ConfigError(f"{name} needs images (C, H, W), this data is {shape}: train gan")
    if min(shape[1:]) < LEAST_SIDE:
        raise ConfigError(f"{name} needs images of at least {LEAST_SIDE} by {LEAST_SIDE} pixels, "
                          f"these are {shape[1]} by {shape[2]}: train gan")
    sizes = pyramid(shape[1], shape[2], depth or None)[::-1]
    if any(small == large for small, large in pairwise(sizes)):
        raise ConfigError(f"depth={depth}: images of {shape[1]} by {shape[2]} pixels cannot be "
                          "halved so often; leave depth out")
    return sizes
