"""How much edge of each direction each part of an image has."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: directions told apart over half a turn; parts along the shorter side, pixels of one at least
DIRECTIONS, PARTS, LEAST = 8, 7, 2


def outlines(x: Tensor) -> Tensor:
    """Images (n, C, H, W) to (n, 8 · parts): the roots of histograms of oriented gradients.

    As Dalal & Triggs 2005: Sobel's slope of the channel where it is steepest; its size goes to the
    two nearest of 8 directions (light to dark as dark to light), and to the nearest of about 7 × 7
    parts of the image, in shares that fall linearly. Not normalised by blocks, which makes a
    plain surface's grain as strong as an outline; the root keeps strong edges from drowning weak
    ones (distances are Hellinger's then). An image one pixel high or wide has none, (n, 0).
    """
    if min(x.shape[2:]) < LEAST:
        return x.new_empty(len(x), 0)
    down, right = _steepest(x)
    size, turn = torch.hypot(down, right), torch.atan2(down, right) / math.pi % 1
    place = turn * DIRECTIONS
    first = place.floor()
    share = place - first
    first = first.long() % DIRECTIONS  # rounding may reach the end
    histogram = size.new_zeros(len(x), DIRECTIONS, *size.shape[1:])
    for which, part in ((first, 1 - share), ((first + 1) % DIRECTIONS, share)):
        histogram.scatter_add_(1, which[:, None], (size * part)[:, None])
    return _gathered(histogram).clamp_min(0).sqrt().flatten(1)


def _steepest(x: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes down and to the right, (n, H, W), of the channel where they are steepest."""
    across = x.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    n, channels, height, width = x.shape
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    slopes = F.conv2d(wide, torch.stack([across.T, across])[:, None])
    slopes = slopes.view(n, channels, 2, height, width)
    which = slopes.square().sum(2).argmax(1)[:, None, None].expand(-1, -1, 2, -1, -1)
    down, right = slopes.gather(1, which)[:, 0].unbind(1)
    return down, right


def _gathered(x: Tensor) -> Tensor:
    """(n, d, H, W) to (n, d, parts down, parts across): sums with weights like a tent."""
    side = max(LEAST, min(x.shape[2:]) // PARTS)
    place = torch.arange(2 * side, device=x.device, dtype=x.dtype)
    tent = 1 - (place - (side - 0.5)).abs() / side
    every = x.flatten(0, 1)[:, None]
    sums = F.conv2d(every, (tent[:, None] * tent)[None, None], stride=side, padding=side // 2)
    return sums.view(*x.shape[:2], *sums.shape[2:])
