"""Penalties on slopes of the players, per item, reduced in fp32; differentiable again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def slopes(outputs: Sequence[Tensor], xs: Sequence[Tensor]) -> list[Tensor]:
    """‖∇_x D(x)‖² of every item, (n,) float32, from D's outputs at each x (n, *shape).

    They must have required a gradient before D saw them; an output is of its own x alone. ½γ
    times the mean over real items is R1 (Mescheder et al. 2018, eq. 9), over generated ones R2
    (eq. 10). One backward pass serves all, as one forward pass may have.
    """
    found = torch.autograd.grad([out.sum() for out in outputs], list(xs), create_graph=True)
    return [gradient.float().square().flatten(1).sum(1) for gradient in found]


def off_unit(output: Tensor, x: Tensor) -> Tensor:
    """(‖∇_x D(x)‖ − 1)² of every item, (n,): Gulrajani et al. 2017, eq. 3."""
    return ((slopes([output], [x])[0] + 1e-12).sqrt() - 1).square()


def between(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Items on the lines from real to fake ones, where that penalty is taken.

    Args:
        real, fake: (n, *shape).
        share: (n,) of the way, uniform in [0, 1).
    """
    way = share.to(real).view(-1, *[1] * (real.dim() - 1))
    return torch.lerp(real, fake, way)


def path_lengths(made: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """‖J_wᵀ y‖ / √(H W) of every item, (n,): how far the picture moves with its styles.

    Karras et al. 2020, eq. 4, where lengths are held to their running mean, so that a step in w
    changes the picture by the same amount everywhere. Root mean square over layers.

    Args:
        made: pictures (n, C, H, W) made from the styles w (n, layers, d).
        y: like ``made``, of standard normal numbers.
    """
    moved = (made.float() * y).sum() / math.sqrt(made.shape[2] * made.shape[3])
    gradient, = torch.autograd.grad(moved, w, create_graph=True)
    return (gradient.float().square().sum(2).mean(1) + 1e-12).sqrt()
