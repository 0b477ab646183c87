"""Convolutional encoder and decoder for images of any size and number of channels."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from latlas.core.errors import ConfigError
from latlas.networks.blocks import Refined, Up, channels, down, preserve_scale, pyramid
from latlas.networks.reordered import flat, memory_format

LEAST_SIDE = 4
#: channels of the first level, unless told otherwise
WIDTH = 32


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

    Raises:
        ConfigError: a shape that is not that of an image with sides of at least 4.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, condition: int = 0,
                 width: int = WIDTH, depth: int = 0) -> None:
        super().__init__()
        channel, *side = _image_shape(shape)
        sizes = pyramid(side[0], side[1], depth or None)
        wide = [channel, *channels(width, len(sizes) - 1)]
        levels = zip(pairwise(wide), pairwise(sizes), strict=True)
        self.trunk = nn.Sequential(*(layer for (i, o), (large, small) in levels
                                     for layer in (down(i, o, large, small), nn.SiLU())))
        features = wide[-1] * sizes[-1][0] * sizes[-1][1]
        hidden = [nn.Linear(features + condition, 8 * width), nn.SiLU()] if condition else []
        self.head = nn.Sequential(*hidden, nn.Linear(8 * width if hidden else features, outputs))
        preserve_scale(self)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = flat(self.trunk(x))
        out: Tensor = self.head(h if c is None else torch.cat([h, c], 1))
        return out


class ConvDecoder(nn.Module):
    """(n, inputs) and an optional (n, condition) to (n, multiplier·C, H, W): the encoder mirrored.

    Args:
        shape: (C, H, W), sides of at least 4, hit exactly.
        inputs: latent dimensions.
        condition: length of the condition vector; 0 for none.
        multiplier: outputs per scalar of the image.
        width, depth: as in :class:`ConvEncoder`.
        refined: with a residual convolution at every size. What one layer makes larger the next
            can still correct, which a discriminator asks for and a decoder of means does not need.

    Raises:
        ConfigError: a shape that is not that of an image with sides of at least 4.
    """

    def __init__(self, shape: tuple[int, ...], inputs: int, condition: int = 0,
                 multiplier: int = 1, width: int = WIDTH, depth: int = 0,
                 refined: bool = False) -> None:
        super().__init__()
        channel, *side = _image_shape(shape)
        sizes = pyramid(side[0], side[1], depth or None)[::-1]
        finest = max(1, width // 2) if refined else multiplier * channel
        wide = [*channels(width, len(sizes) - 1)[::-1], finest]
        levels = zip(pairwise(wide), pairwise(sizes), strict=True)
        self.coarse = (wide[0], *sizes[0])
        self.stem = nn.Linear(inputs + condition, wide[0] * sizes[0][0] * sizes[0][1])
        layers = [layer for (i, o), (small, large) in levels
                  for layer in (*([Refined(i)] if refined else []), nn.SiLU(),
                                Up(i, o, small, large))]
        if refined:
            layers += [Refined(finest), nn.SiLU(),
                       nn.Conv2d(finest, multiplier * channel, 3, padding=1)]
        self.trunk = nn.Sequential(*layers)
        preserve_scale(self)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        h: Tensor = self.stem(z if c is None else torch.cat([z, c], 1))
        # in the layout of the weights that come next: two that meet take several times as long
        layouts = (memory_format(p) for p in self.trunk.parameters() if p.dim() == 4)
        out: Tensor = self.trunk(h.reshape(-1, *self.coarse).contiguous(
            memory_format=next(layouts, torch.contiguous_format)))
        return out


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` if it is (C, H, W) with sides of at least 4."""
    if len(shape) != 3:
        raise ConfigError(f"network=conv needs images (C, H, W), this data is {shape}: "
                          "use network=mlp")
    if min(shape[1:]) < LEAST_SIDE:
        raise ConfigError(f"network=conv needs images of at least {LEAST_SIDE} by {LEAST_SIDE} "
                          f"pixels, these are {shape[1]} by {shape[2]}: use network=mlp")
    return shape
