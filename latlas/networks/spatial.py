"""An encoder and a decoder whose latents are a small image, for images of any size and channels.

Nothing is normalised across examples or positions, so an example never sees another. Upsampling is
a convolution and a pixel shuffle that starts as a resize, so there is no checkerboard (Odena et
al. 2016; Aitken et al. 2017).
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.networks.conv import SILU_GAIN, Size, down


class Residual(nn.Module):
    """(h + two 3×3 convolutions of it) / √2: the size and the spread stay."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return (h + self.second(F.silu(self.first(F.silu(h))))) * math.sqrt(0.5)


class ShuffleUp(nn.Module):
    """(n, inputs, h, w) to (n, outputs, *large), sides up to twice as large: every pixel becomes
    four, which start out equal, so that it begins as a resize to the nearest pixel."""

    def __init__(self, inputs: int, outputs: int, large: Size) -> None:
        super().__init__()
        self.large = large
        self.conv = nn.Conv2d(inputs, 4 * outputs, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        h = F.pixel_shuffle(self.conv(F.silu(h)), 2)
        return h[..., :self.large[0], :self.large[1]]


def widths(width: int, levels: int) -> list[int]:
    """Channels of every level from the image inward: 4 ``width`` at the latents, half as many at
    every finer level, so that levels cost alike; ``width`` / 2 at least.

    >>> widths(32, 3), widths(32, 5)
    ([32, 64, 128], [16, 16, 32, 64, 128])
    """
    return [max(4 * width >> level, (width + 1) // 2) for level in reversed(range(levels))]


class SpatialEncoder(nn.Module):
    """(n, channels, *sizes[0]) to (n, outputs, *sizes[-1]); ``sizes`` halve, rounded up."""

    def __init__(self, channels: int, outputs: int, sizes: list[Size], width: int,
                 blocks: int) -> None:
        super().__init__()
        wide = [channels, *widths(width, len(sizes) - 1)]
        layers: list[nn.Module] = []
        for (i, o), (large, small) in zip(pairwise(wide), pairwise(sizes), strict=True):
            layers += [down(i, o, large, small), nn.SiLU()]
        layers = [*layers[:-1], *(Residual(wide[-1]) for _ in range(blocks))]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(wide[-1], outputs, 1))
        preserve_scale(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class SpatialDecoder(nn.Module):
    """(n, inputs, *sizes[-1]) to (n, channels, *sizes[0]), the encoder mirrored, with ``blocks`` at
    every size but that of the image."""

    def __init__(self, channels: int, inputs: int, sizes: list[Size], width: int,
                 blocks: int) -> None:
        super().__init__()
        wide = [*widths(width, len(sizes) - 1)[::-1], channels]
        layers: list[nn.Module] = [nn.Conv2d(inputs, wide[0], 3, padding=1)]
        for (i, o), large in zip(pairwise(wide), sizes[-2::-1], strict=True):
            layers += [*(Residual(i) for _ in range(blocks)), ShuffleUp(i, o, large)]
        self.layers = nn.Sequential(*layers)
        preserve_scale(self)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z)
        return out


class WithDetail(nn.Module):
    """Images (n, C, H, W) to (n, 2 C, H, W): beside them what a blur over 3×3 pixels takes from
    them, four times as strong. Fine detail is weak beside all else, and would be learnt last."""

    def forward(self, x: Tensor) -> Tensor:
        blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([x, 4 * (x - blurred)], 1)


def patch_discriminator(channels: int, width: int, side: int) -> nn.Sequential:
    """(n, channels, H, W) to logits (n, 1, h, w): how real every overlapping patch of 38 pixels is
    (Isola et al. 2017, section 3.2.2), without normalisation; a smaller one for a shorter ``side``
    below 8. The kernels are twice the stride, so that every pixel's gradient has as many terms. The
    logits have no bias: a loss of their differences would not move it."""
    wide = [2 * channels, width, 2 * width, 4 * width][:side.bit_length()]
    layers: list[nn.Module] = [WithDetail()]
    for i, o in pairwise(wide):
        layers += [nn.Conv2d(i, o, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(wide[-1], 1, 3, padding=1, bias=False))


@torch.no_grad()
def preserve_scale(network: nn.Module) -> None:
    """Start every layer so that its output has the mean square of its input: normal weights of
    variance gain² / inputs (He et al. 2015, eq. 10). All but the first read a SiLU."""
    gain = 1.0
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=gain / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            gain = SILU_GAIN
    for module in network.modules():
        if isinstance(module, ShuffleUp):
            module.conv.weight.copy_(module.conv.weight[::4].repeat_interleave(4, 0))
