"""From a picture's features to one vector: residual blocks that halve it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from latlas.networks.blocks import Size
from latlas.networks.equalised import GAIN, SLOPE, EqualConv, EqualLinear, leaky, shrunk
from latlas.networks.reordered import flat


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
        sizes, wide: sizes of the picture and channels, the coarsest first.
    """

    def __init__(self, sizes: Sequence[Size], wide: Sequence[int]) -> None:
        super().__init__()
        pairs = zip(pairwise(wide), sizes[:-1], strict=True)
        self.blocks = nn.ModuleList(Halve(fine, coarse, size) for (coarse, fine), size in pairs)
        self.last = EqualConv(wide[0], wide[0], gain=GAIN)
        self.flat = EqualLinear(wide[0] * math.prod(sizes[0]), wide[0], gain=GAIN)

    def forward(self, h: Tensor, level: int | None = None) -> Tensor:
        """``level`` of ``h``, from 0; the finest unless told."""
        for block in reversed(self.blocks[:level]):
            h = block(h)
        return leaky(self.flat(flat(leaky(self.last(h)))))


def residual_trunk(channels: int, sizes: Sequence[Size], wide: Sequence[int]) -> nn.Module:
    """(n, channels, H, W) to (n, wide[0])."""
    colours = EqualConv(channels, wide[-1], 1, gain=GAIN)
    return nn.Sequential(colours, nn.LeakyReLU(SLOPE, inplace=True), Descent(sizes, wide))
