"""From a code to an item, within the range that pictures have."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.space import Space
from latlas.networks.blocks import Up, channels, preserve_scale, pyramid
from latlas.networks.mlp import leaky_mlp


class Squashed(nn.Module):
    """A network whose output goes through tanh.

    Pixels pile up at −1 and 1; without the curve a discriminator would see the overshoot.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> Tensor:
        out: Tensor = self.network(*given)
        return out.tanh()


class Perceptron(nn.Module):
    """(n, inputs) and an optional (n, condition) to (n, *shape) by a :func:`leaky_mlp`."""

    def __init__(self, shape: tuple[int, ...], inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.shape = shape
        self.layers = leaky_mlp(inputs, math.prod(shape), width, depth)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        out: Tensor = self.layers(z if c is None else torch.cat([z, c], 1))
        return out.unflatten(1, self.shape)


class Refined(nn.Module):
    """(h + a convolution of it) / √2: the size and the spread stay."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = (h + self.conv(F.silu(h))) * math.sqrt(0.5)
        return out


class Ascent(nn.Module):
    """(n, inputs) and an optional (n, condition) to (n, C, H, W): every size is refined.

    Made larger from sides of 4 … 7 on, as :class:`latlas.networks.conv.ConvDecoder` does, with a
    residual convolution at every size: what one makes larger the next one can still correct, which
    an adversary asks for and a decoder of means does not need.
    """

    def __init__(self, shape: tuple[int, ...], inputs: int, width: int, depth: int | None) -> None:
        super().__init__()
        sizes = pyramid(shape[1], shape[2], depth)[::-1]
        wide = [*channels(width, len(sizes) - 1)[::-1], max(1, width // 2)]
        levels = zip(pairwise(wide), pairwise(sizes), strict=True)
        self.coarse = (wide[0], *sizes[0])
        self.stem = nn.Linear(inputs, math.prod(self.coarse))
        self.trunk = nn.Sequential(*(layer for (i, o), (small, large) in levels
                                     for layer in (Refined(i), nn.SiLU(), Up(i, o, small, large))),
                                   Refined(wide[-1]), nn.SiLU(),
                                   nn.Conv2d(wide[-1], shape[0], 3, padding=1))
        preserve_scale(self)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.stem(z if c is None else torch.cat([z, c], 1))
        out: Tensor = self.trunk(h.unflatten(1, self.coarse))
        return out


def make_generator(space: Space, inputs: int, condition: int = 0, *, kind: str, width: int,
                   depth: int) -> nn.Module:
    """(n, inputs) and an optional (n, condition) to (n, *shape)."""
    if kind == "mlp":
        made: nn.Module = Perceptron(space.shape, inputs + condition, width, depth)
    else:
        made = Ascent(space.shape, inputs + condition, width, depth or None)
    return Squashed(made) if space.kind == "picture" else made
