"""From a code to an item, within the range that pictures have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latlas.core.space import Space
from latlas.networks.conv import ConvDecoder
from latlas.networks.mlp import leaky_mlp

#: slope of :class:`Squashed` far out
LEAK = 0.005


class Squashed(nn.Module):
    """A network whose output y becomes tanh y + 0.005 y.

    Pixels pile up at −1 and 1; without the curve a discriminator would see the overshoot. Through
    tanh alone no gradient comes back from there: digits on black became black altogether.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> Tensor:
        out: Tensor = self.network(*given)
        return out.tanh() + LEAK * out


class Perceptron(nn.Module):
    """(n, inputs) and an optional (n, condition) to (n, *shape) by a :func:`leaky_mlp`."""

    def __init__(self, shape: tuple[int, ...], inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.shape = shape
        self.layers = leaky_mlp(inputs, math.prod(shape), width, depth)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        out: Tensor = self.layers(z if c is None else torch.cat([z, c], 1))
        return out.unflatten(1, self.shape)


def make_generator(space: Space, inputs: int, condition: int = 0, *, kind: str, width: int,
                   depth: int) -> nn.Module:
    """(n, inputs) and an optional (n, condition) to (n, *shape)."""
    if kind == "mlp":
        made: nn.Module = Perceptron(space.shape, inputs + condition, width, depth)
    else:
        made = ConvDecoder(space.shape, inputs, condition, width=width, depth=depth,
                           refined=True)
    return Squashed(made) if space.kind == "picture" else made
