"""A generator and a discriminator that begin with the coarsest images and add size after size.

How far they have grown is one number, the stage: at stage k images have size k (0 is coarsest);
between k − 1 and k, size k fades in, with the weight stage − (k − 1) (Karras et al. 2018,
section 2 and figure 2). Every layer exists from the start, so a checkpoint never changes shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from latlas.networks.blocks import Size
from latlas.networks.equalised import (
    GAIN,
    Descent,
    EqualConv,
    EqualLinear,
    enlarged,
    leaky,
    pixel_norm,
    shrunk,
)
from latlas.networks.gan import Discriminator
from latlas.networks.reordered import penalised


def level_and_weight(stage: float) -> tuple[int, float]:
    """The finest size there is, and how much of it, in (0, 1]."""
    level = math.ceil(stage)
    return level, 1 - (level - stage)


class Double(nn.Module):
    """(n, inputs, ·, ·) to (n, outputs, *size), each of two convolutions normalised by pixel."""

    def __init__(self, inputs: int, outputs: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.first = EqualConv(inputs, outputs, gain=GAIN)
        self.second = EqualConv(outputs, outputs, gain=GAIN)

    def forward(self, h: Tensor) -> Tensor:
        h = pixel_norm(leaky(enlarged(self.first(h), self.size)))
        return pixel_norm(leaky(self.second(h)))


class GrowingGenerator(nn.Module):
    """z (n, inputs) to images of the stage's size (Karras et al. 2018, table 2).

    Args:
        sizes, wide: sizes of the image and channels, the coarsest first.
    """

    def __init__(self, inputs: int, channels: int, sizes: Sequence[Size],
                 wide: Sequence[int]) -> None:
        super().__init__()
        self.sizes, self.coarse = list(sizes), (wide[0], *sizes[0])
        self.stem = EqualLinear(inputs, math.prod(self.coarse), gain=GAIN)
        self.base = EqualConv(wide[0], wide[0], gain=GAIN)
        levels = zip(pairwise(wide), sizes[1:], strict=True)
        self.blocks = nn.ModuleList(Double(i, o, size) for (i, o), size in levels)
        self.colours = nn.ModuleList(EqualConv(c, channels, 1) for c in wide)

    def forward(self, z: Tensor, stage: float) -> Tensor:
        level, weight = level_and_weight(stage)
        h = pixel_norm(leaky(self.stem(pixel_norm(z)))).unflatten(1, self.coarse)
        h = before = pixel_norm(leaky(self.base(h)))
        for block in self.blocks[:level]:
            before, h = h, block(h)
        images: Tensor = self.colours[level](h)
        if weight == 1:
            return images
        coarse = enlarged(self.colours[level - 1](before), self.sizes[level])
        return torch.lerp(coarse, images, weight)

    def enlarge(self, images: Tensor, stage: float) -> Tensor:
        """Images of the stage's size taken to the full size."""
        for size in self.sizes[math.ceil(stage) + 1:]:
            images = enlarged(images, size)
        return images


class GrowingDiscriminator(nn.Module):
    """Images of the stage's size to (n, 1).

    Args:
        group, bias: as for :class:`~latlas.networks.gan.Discriminator`.
    """

    def __init__(self, channels: int, sizes: Sequence[Size], wide: Sequence[int], group: int,
                 bias: bool) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.colours = nn.ModuleList(EqualConv(channels, c, 1, gain=GAIN) for c in wide)
        self.descent = Descent(sizes, wide)
        self.head = Discriminator(nn.Identity(), wide[0], minibatch_std=group, bias=bias)
        penalised(self)

    def forward(self, x: Tensor, stage: float) -> Tensor:
        level, weight = level_and_weight(stage)
        h = leaky(self.colours[level](x))
        if weight < 1:
            before = leaky(self.colours[level - 1](shrunk(x, self.sizes[level - 1])))
            h = torch.lerp(before, self.descent.blocks[level - 1](h), weight)
            level -= 1
        out: Tensor = self.head(self.descent(h, level))
        return out


def at_stage(x: Tensor, sizes: Sequence[Size], stage: float) -> Tensor:
    """Full images as the stage shows them, with its size faded in."""
    level, weight = level_and_weight(stage)
    for size in reversed(sizes[level:-1]):
        x = shrunk(x, size)
    if weight == 1:
        return x
    return torch.lerp(enlarged(shrunk(x, sizes[level - 1]), sizes[level]), x, weight)
