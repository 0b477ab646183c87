"""Convolutional networks for images of any size and number of channels, and their blocks.

Blocks hit every size exactly. Memory layout is left as it comes: where two layouts meet, what reads
them takes several times as long.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.errors import ConfigError

Size = tuple[int, int]
LEAST_SIDE = 4
#: channels of the first level, unless told otherwise
WIDTH = 32
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


def channels(width: int, levels: int) -> list[int]:
    """``width``, doubled at every level up to eight times ``width``.

    >>> channels(32, 5)
    [32, 64, 128, 256, 256]
    """
    return [width * min(2**level, 8) for level in range(levels)]


def flat(h: Tensor) -> Tensor:
    """(n, C, H, W) to (n, C H W); the gradient comes back in the memory layout of ``h``."""
    if h.requires_grad and not h.is_contiguous():
        h.register_hook(lambda grad: None if grad is None else grad.contiguous(
            memory_format=torch.channels_last))
    return h.flatten(1)


def strides(large: Size, small: Size) -> Size:
    """2 for a side that is halved, else 1."""
    return 1 + (large[0] > small[0]), 1 + (large[1] > small[1])


def down(inputs: int, outputs: int, large: Size, small: Size) -> nn.Conv2d:
    """(n, inputs, *large) to (n, outputs, *small): 3×3, stride 2 where the side is halved."""
    return nn.Conv2d(inputs, outputs, 3, stride=strides(large, small), padding=1)


class Up(nn.ConvTranspose2d):
    """(n, inputs, *small) to (n, outputs, *large), the mirror of :func:`down`: every pixel is
    repeated, then a 3×3 convolution; an odd side leaves the last row or column out.

    A pixel repeated has no power at the Nyquist frequency, and no weights bring it back: there are
    no checkerboards (Odena et al. 2016, "Deconvolution and checkerboard artifacts"), and a constant
    stays constant. Both together are a transposed convolution whose kernel is the 3×3 one summed
    over the copies of a pixel, 4×4, which takes 4/9 of the products of one after the other. What is
    outside of the image is as its edge is, so that borders do not differ from the inside.
    """

    def __init__(self, inputs: int, outputs: int, small: Size, large: Size) -> None:
        super().__init__(inputs, outputs, 3, stride=strides(large, small))
        self.large = large

    def forward(self, h: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight, (down, across) = self.weight, self.stride
        if down == 2:
            weight = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
        if across == 2:
            weight = F.pad(weight, (0, 1)) + F.pad(weight, (1, 0))
        out = F.conv_transpose2d(F.pad(h, (1, 1, 1, 1), mode="replicate"), weight, self.bias,
                                 self.stride, padding=(1 + down, 1 + across))
        return out[..., :self.large[0], :self.large[1]]


class Refined(nn.Module):
    """(h + a convolution of it) / √2: the size and the spread stay."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return (h + self.conv(F.silu(h))) * math.sqrt(0.5)


def _preserve_scale(network: nn.Module) -> None:
    """Start weights so that every layer's output has the mean square of the network's input.

    Normal weights of variance gain² / (number of inputs of one output) (He et al. 2015, eq. 10),
    for layers in order of which all but the first read a SiLU. It stands in for normalisation.
    """
    gain = 1.0
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, Up)):
            weight = layer.weight[:, 0] if isinstance(layer, Up) else layer.weight[0]
            inputs = weight.numel()  # how many numbers one output is a sum of
            nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            gain = SILU_GAIN


def _levels(shape: tuple[int, ...], depth: int) -> list[Size]:
    """The sizes of :func:`pyramid` for images (C, H, W) with sides of at least 4."""
    if len(shape) != 3:
        raise ConfigError(f"network=conv needs images (C, H, W), this data is {shape}: "
                          "use network=mlp")
    if min(shape[1:]) < LEAST_SIDE:
        raise ConfigError(f"network=conv needs images of at least {LEAST_SIDE} by {LEAST_SIDE} "
                          f"pixels, these are {shape[1]} by {shape[2]}: use network=mlp")
    return pyramid(shape[1], shape[2], depth or None)


class ConvEncoder(nn.Module):
    """(n, C, H, W) and an optional (n, condition) to (n, outputs).

    Convolutions of stride 2 down to a side of 4 … 7, then one linear map. A condition joins the
    features before a hidden layer, so that it can change what they mean. No normalisation:
    examples never see each other.

    Args:
        shape: (C, H, W), sides of at least 4.
        outputs: numbers per example.
        condition: length of the condition vector; 0 for none.
        width: channels of the first level; doubled at every level, up to 8 ``width``.
        depth: downsampling stages; 0: until the sides are 4 … 7.

    ConfigError: a shape that is not that of an image with sides of at least 4.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, condition: int = 0,
                 width: int = WIDTH, depth: int = 0) -> None:
        super().__init__()
        sizes = _levels(shape, depth)
        wide = [shape[0], *channels(width, len(sizes) - 1)]
        levels = zip(pairwise(wide), pairwise(sizes), strict=True)
        self.trunk = nn.Sequential(*(layer for (i, o), (large, small) in levels
                                     for layer in (down(i, o, large, small), nn.SiLU())))
        features = wide[-1] * math.prod(sizes[-1])
        hidden = [nn.Linear(features + condition, 8 * width), nn.SiLU()] if condition else []
        self.head = nn.Sequential(*hidden, nn.Linear(8 * width if hidden else features, outputs))
        _preserve_scale(self)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = flat(self.trunk(x))
        return self.head(h if c is None else torch.cat([h, c], 1))


class ConvDecoder(nn.Module):
    """(n, inputs) and an optional (n, condition) to (n, multiplier·C, H, W): the encoder mirrored.

    Args:
        shape, condition, width, depth: as for :class:`ConvEncoder`; the size is hit exactly.
        inputs: latent dimensions.
        multiplier: outputs per scalar of the image.
        refined: with a residual convolution at every size. What one layer makes larger the next
            can still correct, which a discriminator asks for and a decoder of means does not need.
    """

    def __init__(self, shape: tuple[int, ...], inputs: int, condition: int = 0,
                 multiplier: int = 1, width: int = WIDTH, depth: int = 0,
                 refined: bool = False) -> None:
        super().__init__()
        sizes, outputs = _levels(shape, depth)[::-1], multiplier * shape[0]
        finest = max(1, width // 2) if refined else outputs
        wide = [*channels(width, len(sizes) - 1)[::-1], finest]
        self.coarse = (wide[0], *sizes[0])
        self.stem = nn.Linear(inputs + condition, math.prod(self.coarse))
        layers: list[nn.Module] = []
        for (i, o), (small, large) in zip(pairwise(wide), pairwise(sizes), strict=True):
            layers += [*([Refined(i)] if refined else []), nn.SiLU(), Up(i, o, small, large)]
        if refined:
            layers += [Refined(finest), nn.SiLU(), nn.Conv2d(finest, outputs, 3, padding=1)]
        self.trunk = nn.Sequential(*layers)
        _preserve_scale(self)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        h: Tensor = self.stem(z if c is None else torch.cat([z, c], 1))
        weight = next(p for p in self.trunk.parameters() if p.dim() == 4)
        layout = torch.contiguous_format if weight.is_contiguous() else torch.channels_last
        return self.trunk(h.reshape(-1, *self.coarse).contiguous(memory_format=layout))
