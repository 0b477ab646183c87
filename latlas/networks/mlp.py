"""Fully connected networks with residual blocks."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from latlas.core.noise import dropout

#: units of a hidden layer and residual blocks, unless told otherwise
WIDTH, DEPTH = 512, 2


class Residual(nn.Module):
    """h + B act(A act(h)); B starts at zero, so a deep stack starts as the identity.

    It needs no normalisation (Fixup, Zhang et al. 2019, section 3). ``dropout`` is the share of
    units B does not see in a training step (Srivastava et al. 2014).
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        self.act = nn.SiLU()

    def forward(self, h: Tensor) -> Tensor:
        inner = self.act(self.inner(self.act(h)))
        if self.dropout and self.training:
            inner = dropout(inner, self.dropout)
        return h + self.outer(inner)


def mlp(inputs: int, outputs: int, width: int, depth: int, dropout: float = 0.0) -> nn.Sequential:
    """A linear map to ``width``, ``depth`` residual blocks, an activation, a linear map out.
    ``depth`` 0 with ``width`` 0 is one linear map."""
    if width <= 0:
        return nn.Sequential(nn.Linear(inputs, outputs))
    blocks = [Residual(width, dropout) for _ in range(depth)]
    return nn.Sequential(nn.Linear(inputs, width), *blocks, nn.SiLU(), nn.Linear(width, outputs))


def leaky_mlp(inputs: int, outputs: int, width: int, depth: int) -> nn.Sequential:
    """``depth`` hidden layers of leaky ReLU (slope 0.2) and a linear map out.

    For generators and discriminators: no block starts at zero, so that the other network has a
    gradient to follow from the first step, and pieces of planes bend sharply at the edge of a mode.
    """
    sizes = [inputs, *[width] * depth]
    hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.LeakyReLU(0.2))]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], outputs))


class MLPEncoder(nn.Module):
    """(n, *shape) and an optional (n, condition) to (n, outputs), by :func:`mlp`."""

    def __init__(self, shape: tuple[int, ...], outputs: int, condition: int = 0,
                 width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        self.net = mlp(math.prod(shape) + condition, outputs, width, depth)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = x.flatten(1)
        return self.net(h if c is None else torch.cat([h, c], 1))


class MLPDecoder(nn.Module):
    """(n, inputs) and an optional (n, condition) to (n, multiplier·C, H, W)."""

    def __init__(self, shape: tuple[int, ...], inputs: int, condition: int = 0,
                 multiplier: int = 1, width: int = WIDTH, depth: int = DEPTH,
                 dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = (multiplier * shape[0], *shape[1:])
        self.net = mlp(inputs + condition, math.prod(self.shape), width, depth, dropout)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        out: Tensor = self.net(z if c is None else torch.cat([z, c], 1))
        return out.unflatten(1, self.shape)
