"""Convolutional building blocks that hit any size exactly; memory layout is left as it comes."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from latlas.networks.reordered import Strided, StridedTransposed

Size = tuple[int, int]
#: 1 / root mean square of silu(a) for a ~ N(0, 1)
SILU_GAIN = 1.676


def pyramid(height: int, width: int, depth: int | None = None) -> list[Size]:
    """Sizes from an image down to its coarsest; each stage halves the sides and rounds up.

    ``depth`` is the number of downsampling stages; without it a side is halved until it is 4 … 7,
    in at least one stage.

    >>> pyramid(28, 105)
    [(28, 105), (14, 53), (7, 27), (7, 14), (7, 7)]
    >>> pyramid(32, 32, depth=1)
    [(32, 32), (16, 16)]
    """
    sizes, least = [(height, width)], 7 if depth is None else 1
    while len(sizes) - 1 < (depth or 1) or (depth is None and max(sizes[-1]) > least):
        h, w = (side if side <= least else (side + 1) // 2 for side in sizes[-1])
        sizes.append((h, w))
    return sizes


def channels(width: int, levels: int, cap: int = 8) -> list[int]:
    """``width``, doubled at every level up to ``cap`` times ``width``.

    >>> channels(32, 5)
    [32, 64, 128, 256, 256]
    """
    return [width * min(2**level, cap) for level in range(levels)]


def _strides(large: Size, small: Size) -> Size:
    return 1 + (large[0] > small[0]), 1 + (large[1] > small[1])


def down(inputs: int, outputs: int, large: Size, small: Size) -> nn.Conv2d:
    """(n, inputs, *large) to (n, outputs, *small): 3×3, stride 2 where the side is halved."""
    return Strided(inputs, outputs, 3, stride=_strides(large, small), padding=1)


class Up(nn.Module):
    """(n, inputs, *small) to (n, outputs, *large), the mirror of :func:`down`.

    A transposed convolution whose kernel of 4 is a multiple of its stride of 2, so every output
    has as many inputs (Odena et al. 2016, "Deconvolution and checkerboard artifacts"); an odd
    side is reached by leaving the last row or column out.

    Args:
        kind: of transposed convolution.
    """

    def __init__(self, inputs: int, outputs: int, small: Size, large: Size,
                 kind: type[nn.ConvTranspose2d] = StridedTransposed) -> None:
        super().__init__()
        stride = _strides(large, small)
        kernel = 2 + stride[0], 2 + stride[1]
        self.large = large
        self.conv = kind(inputs, outputs, kernel, stride=stride, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.conv(h)
        return out[..., :self.large[0], :self.large[1]]


class Refined(nn.Module):
    """(h + a convolution of it) / √2: the size and the spread stay."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = (h + self.conv(F.silu(h))) * math.sqrt(0.5)
        return out


def preserve_scale(network: nn.Module) -> None:
    """Start weights so that every layer's output has the mean square of the network's input.

    Normal weights of variance gain² / (number of inputs of one output) (He et al. 2015, eq. 10),
    for layers in order of which all but the first read a SiLU. It stands in for normalisation.
    """
    gain = 1.0
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            inputs: float = layer.weight[0].numel()  # how many numbers one output is a sum of
            if isinstance(layer, nn.ConvTranspose2d):
                per_stride = math.prod(layer.kernel_size) / math.prod(layer.stride)
                inputs = layer.in_channels * per_stride
            nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            gain = SILU_GAIN
