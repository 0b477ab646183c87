"""The generator of StyleGAN2: latents become a style, and the style scales every convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.noise import Noise
from latlas.networks.blocks import Size
from latlas.networks.equalised import GAIN, EqualLinear, enlarged, leaky, pixel_norm

#: learning rate of the mapping as a share of the others' (Karras et al. 2019, appendix C)
MAPPING_RATE = 0.01


class Mapping(nn.Module):
    """z (n, inputs), taken to length √inputs, to w (n, outputs) float32.

    (Karras et al. 2019, section 2.)
    """

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        widths = pairwise([inputs, *[outputs] * depth])
        self.layers = nn.ModuleList(EqualLinear(i, o, GAIN, MAPPING_RATE) for i, o in widths)

    def forward(self, z: Tensor) -> Tensor:
        h = pixel_norm(z)
        for layer in self.layers:
            h = leaky(layer(h))
        return h.float()


def modulated(x: Tensor, weight: Tensor, style: Tensor, shift: Tensor,
              gain: float = 1.0) -> Tensor:
    """Every example convolved with filters of its own, whose outputs have unit variance.

    gain · y + shift, y_o = d_o Σ_ik W_oik s_i x_i, d_o = (Σ_ik (W_oik s_i)² + ε)^(−1/2) (Karras
    et al. 2020, eqs. 1 and 3). s scales inputs and d outputs, so all examples share one
    convolution; a group of filters for every example, as it is usually written, gives the same.

    Args:
        x: (n, i, H, W); ``weight`` (o, i, k, k) with k odd; ``style`` s (n, i); ``shift`` (o,).
    """
    h = F.conv2d(x * _per_channel(style, x), weight, padding=weight.shape[-1] // 2)
    scales = _per_channel(gain * demodulation(weight, style), h)
    return torch.addcmul(_per_channel(shift[None], h), h, scales)


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """d of :func:`modulated`, (n, o) float32."""
    power = weight.float().square().sum((2, 3))
    with torch.autocast(style.device.type, enabled=False):
        return (style.float().square() @ power.T + 1e-8).rsqrt()


def _per_channel(scales: Tensor, like: Tensor) -> Tensor:
    return scales[:, :, None, None].to(like.dtype)


class Styled(nn.Module):
    """A modulated convolution, made larger, with a grain of noise: one layer of the generator.

    Making larger comes after the convolution, which then has a quarter of the pixels to see.
    """

    fixed: Tensor

    def __init__(self, inputs: int, outputs: int, size: Size, styles: int) -> None:
        super().__init__()
        self.size, self.scale = size, 1 / math.sqrt(9 * inputs)
        self.style = EqualLinear(styles, inputs, start=1.0)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        nn.init.normal_(self.conv.weight)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("fixed", torch.randn(1, 1, *size))

    def forward(self, x: Tensor, w: Tensor, noise: Noise | None = None) -> Tensor:
        style = self.style(w) * self.scale
        h = modulated(x, self.conv.weight, style, GAIN * self.bias, GAIN)
        normal = (self.fixed if noise is None
                  else noise.normal(len(h), 1, *self.size).to(self.fixed))
        grain = GAIN * self.strength * normal
        return leaky(enlarged(h, self.size).add_(grain.to(h.dtype)))


class Colours(nn.Module):
    """Features to the image's channels: a convolution of one pixel, scaled but not normalised."""

    def __init__(self, inputs: int, channels: int, styles: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(inputs)
        self.style = EqualLinear(styles, inputs, start=1.0)
        self.conv = nn.Conv2d(inputs, channels, 1, bias=False)
        nn.init.normal_(self.conv.weight)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        out: Tensor = self.conv(x * _per_channel(self.style(w) * self.scale, x))
        return out + _per_channel(self.bias[None], out)


class Synthesis(nn.Module):
    """Styles (n, d) or, one for each layer, (n, layers, d) to images (n, channels, H, W).

    A learnt constant, two layers at every size but one at the coarsest, and the sum of what every
    size adds to the image (Karras et al. 2020, figures 2c and 7b).

    Args:
        sizes, wide: sizes of the image and channels, the coarsest first.
        styles: length of w.
    """

    def __init__(self, channels: int, sizes: Sequence[Size], wide: Sequence[int],
                 styles: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, wide[0], *sizes[0]))
        layers = [Styled(wide[0], wide[0], sizes[0], styles)]
        for (coarse, fine), size in zip(pairwise(wide), sizes[1:], strict=True):
            layers += [Styled(coarse, fine, size, styles), Styled(fine, fine, size, styles)]
        self.layers = nn.ModuleList(layers)
        self.colours = nn.ModuleList(Colours(c, channels, styles) for c in wide)

    @property
    def layer_sizes(self) -> tuple[Size, ...]:
        """What size of image every layer gives."""
        return tuple(layer.size for layer in self.layers)  # type: ignore[misc]

    def forward(self, w: Tensor, noise: Noise | None = None) -> Tensor:
        if w.dim() == 2:
            w = w[:, None].expand(-1, len(self.layers), -1)
        h = self.layers[0](self.start.expand(len(w), -1, -1, -1), w[:, 0], noise)
        image: Tensor = self.colours[0](h, w[:, 0])
        for k in range(2, len(self.layers), 2):
            h = self.layers[k](self.layers[k - 1](h, w[:, k - 1], noise), w[:, k], noise)
            image = enlarged(image, h.shape[2:]) + self.colours[k // 2](h, w[:, k])
        return image


class StyleGenerator(nn.Module):
    """z (n, inputs) to images, through w."""

    def __init__(self, mapping: Mapping, synthesis: Synthesis) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.synthesis(self.mapping(z))
        return out
