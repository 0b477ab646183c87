"""Networks with an equalised learning rate: of ``progressive-gan`` and of ``style-gan``.

The size of Adam's steps does not follow that of the gradient. Weights that all start as N(0, 1)
and are scaled where they are used, by gain/√(inputs of one output), therefore all learn equally
fast ("equalised learning rate", Karras et al. 2018, section 4.1). A gain before a leaky ReLU is
one after it, so the factor that keeps the variance costs nothing of its own.

``sizes`` and ``wide`` are sizes of the image and channels, the coarsest first.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.errors import ConfigError
from latlas.core.noise import Noise
from latlas.networks.conv import Size, flat, pyramid
from latlas.networks.gan import Discriminator

#: slope of the leaky ReLU below 0, and the gain that makes up for what it takes from the variance
SLOPE, GAIN = 0.2, math.sqrt(2)
LEAST_SIDE = 8
#: learning rate of the mapping as a share of the others' (Karras et al. 2019, appendix C)
MAPPING_RATE = 0.01


class EqualLinear(nn.Linear):
    """gain · rate · (W x/√inputs + b), with W ~ N(0, 1/rate²) at the start.

    Args:
        rate: learning rate as a share of the other layers'.
        start: the bias at the start, as it acts.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0, rate: float = 1.0,
                 start: float = 0.0) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight, std=1 / rate)
        nn.init.constant_(self.bias, start / (gain * rate))
        self.gain = gain * rate

    def forward(self, x: Tensor) -> Tensor:
        scale = self.gain / math.sqrt(self.in_features)
        return F.linear(x, self.weight * scale, self.bias * self.gain)


class EqualConv(nn.Conv2d):
    """gain · (W ∗ x/√inputs + b) with W ~ N(0, 1) at the start; the size of images stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, gain: float = 1.0,
                 bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.gain
        weight = self.weight * (self.gain / math.sqrt(self.weight[0].numel()))
        return F.conv2d(x, weight, bias, padding=self.padding)


def leaky(h: Tensor) -> Tensor:
    """Leaky ReLU, in place."""
    return F.leaky_relu(h, SLOPE, inplace=True)


def pixel_norm(h: Tensor) -> Tensor:
    """h over its root mean square along dimension 1 (Karras et al. 2018, section 4.2)."""
    return h * (h.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def enlarged(h: Tensor, size: Size) -> Tensor:
    """(n, c, ·, ·) to (n, c, *size), bilinear."""
    return h if h.shape[2:] == size else F.interpolate(h, size, mode="bilinear")


def shrunk(h: Tensor, size: Size) -> Tensor:
    """(n, c, ·, ·) to (n, c, *size): means of two neighbours along each side that is halved."""
    window = 1 + (h.shape[2] > size[0]), 1 + (h.shape[3] > size[1])
    return h if window == (1, 1) else F.avg_pool2d(h, window, ceil_mode=True)


class Halve(nn.Module):
    """(n, inputs, ·, ·) to (n, outputs, *size): two convolutions beside one of a single pixel.
    (f(x) + skip(x))/√2, the block of StyleGAN2's discriminator (Karras et al. 2020, figure 7c)."""

    def __init__(self, inputs: int, outputs: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.first = EqualConv(inputs, inputs, gain=GAIN)
        self.second = EqualConv(inputs, outputs, gain=GAIN * math.sqrt(0.5))
        self.skip = EqualConv(inputs, outputs, 1, gain=math.sqrt(0.5), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = leaky(self.first(x))
        h = leaky(self.second(shrunk(h, self.size)))
        return h + self.skip(shrunk(x, self.size))


class Descent(nn.Module):
    """(n, wide[level], *sizes[level]) to (n, wide[0])."""

    def __init__(self, sizes: Sequence[Size], wide: Sequence[int]) -> None:
        super().__init__()
        pairs = zip(pairwise(wide), sizes[:-1], strict=True)
        self.blocks = nn.ModuleList(Halve(fine, coarse, size) for (coarse, fine), size in pairs)
        self.last = EqualConv(wide[0], wide[0], gain=GAIN)
        self.flat = EqualLinear(wide[0] * math.prod(sizes[0]), wide[0], gain=GAIN)

    def forward(self, h: Tensor, level: int | None = None) -> Tensor:
        """``level`` of ``h``, from 0; the finest unless given."""
        for block in reversed(self.blocks[:level]):
            h = block(h)
        return leaky(self.flat(flat(leaky(self.last(h)))))


def residual_trunk(channels: int, sizes: Sequence[Size], wide: Sequence[int]) -> nn.Module:
    """(n, channels, H, W) to (n, wide[0])."""
    colours = EqualConv(channels, wide[-1], 1, gain=GAIN)
    return nn.Sequential(colours, nn.LeakyReLU(SLOPE, inplace=True), Descent(sizes, wide))


def image_sizes(name: str, shape: tuple[int, ...], depth: int = 0) -> list[Size]:
    """Sizes from the coarsest to the image's own; ``depth`` 0 starts from sides of 4 … 7.
    ConfigError: no images, ones with a side of less than 8, or too many downsampling stages."""
    if len(shape) != 3:
        raise ConfigError(f"{name} needs images (C, H, W), this data is {shape}: train gan")
    if min(shape[1:]) < LEAST_SIDE:
        raise ConfigError(f"{name} needs images of at least {LEAST_SIDE} by {LEAST_SIDE} pixels, "
                          f"these are {shape[1]} by {shape[2]}: train gan")
    sizes = pyramid(shape[1], shape[2], depth or None)[::-1]
    if any(small == large for small, large in pairwise(sizes)):
        raise ConfigError(f"depth={depth}: images of {shape[1]} by {shape[2]} pixels cannot be "
                          "halved so often; leave depth out")
    return sizes


# ------------------------------------------------------------------------------ progressive-gan
# Generator and discriminator grow from the coarsest images. How far is one number, the stage: at
# stage k images have size k (0 is coarsest); between k − 1 and k, size k fades in, with the weight
# stage − (k − 1) (Karras et al. 2018, section 2 and figure 2). Every layer exists from the start:
# a checkpoint never changes shape.

def level_and_weight(stage: float) -> tuple[int, float]:
    """The finest size there is, and how much of it, in (0, 1]."""
    level = math.ceil(stage)
    return level, 1 - (level - stage)


class Double(nn.Module):
    """(n, inputs, ·, ·) to (n, outputs, *size), each of two convolutions normalised by pixel."""

    def __init__(self, inputs: int, outputs: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.first = EqualConv(inputs, outputs, gain=GAIN)
        self.second = EqualConv(outputs, outputs, gain=GAIN)

    def forward(self, h: Tensor) -> Tensor:
        h = pixel_norm(leaky(enlarged(self.first(h), self.size)))
        return pixel_norm(leaky(self.second(h)))


class GrowingGenerator(nn.Module):
    """z (n, inputs) to images of the stage's size (Karras et al. 2018, table 2)."""

    def __init__(self, inputs: int, channels: int, sizes: Sequence[Size],
                 wide: Sequence[int]) -> None:
        super().__init__()
        self.sizes, self.coarse = list(sizes), (wide[0], *sizes[0])
        self.stem = EqualLinear(inputs, math.prod(self.coarse), gain=GAIN)
        self.base = EqualConv(wide[0], wide[0], gain=GAIN)
        levels = zip(pairwise(wide), sizes[1:], strict=True)
        self.blocks = nn.ModuleList(Double(i, o, size) for (i, o), size in levels)
        self.colours = nn.ModuleList(EqualConv(c, channels, 1) for c in wide)

    def forward(self, z: Tensor, stage: float) -> Tensor:
        level, weight = level_and_weight(stage)
        h = pixel_norm(leaky(self.stem(pixel_norm(z)))).unflatten(1, self.coarse)
        h = before = pixel_norm(leaky(self.base(h)))
        for block in self.blocks[:level]:
            before, h = h, block(h)
        images: Tensor = self.colours[level](h)
        if weight == 1:
            return images
        coarse = enlarged(self.colours[level - 1](before), self.sizes[level])
        return faded(coarse, images, weight)

    def enlarge(self, images: Tensor, stage: float) -> Tensor:
        """Images of the stage's size taken to the full size."""
        for size in self.sizes[math.ceil(stage) + 1:]:
            images = enlarged(images, size)
        return images


class GrowingDiscriminator(nn.Module):
    """Images of the stage's size to (n, 1); ``group`` for its ``minibatch_std``."""

    def __init__(self, channels: int, sizes: Sequence[Size], wide: Sequence[int], group: int,
                 bias: bool) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.colours = nn.ModuleList(EqualConv(channels, c, 1, gain=GAIN) for c in wide)
        self.descent = Descent(sizes, wide)
        self.head = Discriminator(nn.Identity(), wide[0], minibatch_std=group, bias=bias)

    def forward(self, x: Tensor, stage: float) -> Tensor:
        level, weight = level_and_weight(stage)
        h = leaky(self.colours[level](x))
        if weight < 1:
            before = leaky(self.colours[level - 1](shrunk(x, self.sizes[level - 1])))
            h = faded(before, self.descent.blocks[level - 1](h), weight)
            level -= 1
        return self.head(self.descent(h, level))


def at_stage(x: Tensor, sizes: Sequence[Size], stage: float) -> Tensor:
    """Full images as the stage shows them, with its size faded in."""
    level, weight = level_and_weight(stage)
    for size in reversed(sizes[level:-1]):
        x = shrunk(x, size)
    if weight == 1:
        return x
    return faded(enlarged(shrunk(x, sizes[level - 1]), sizes[level]), x, weight)


def faded(before: Tensor, after: Tensor, weight: float) -> Tensor:
    """The way from one to the other. Under autocast CUDA interpolates in fp32, and convolutions
    give bf16."""
    return torch.lerp(before.to(after.dtype), after, weight)


# ------------------------------------------------------------------------------ style-gan
# Latents become a style, and the style scales every convolution.

class Mapping(nn.Module):
    """z (n, inputs), taken to length √inputs, to w (n, outputs) float32 (Karras et al. 2019)."""

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
    power = weight.float().square().sum((2, 3))
    with torch.autocast(style.device.type, enabled=False):
        d = (style.float().square() @ power.T + 1e-8).rsqrt()
    return torch.addcmul(_per_channel(shift[None], h), h, _per_channel(gain * d, h))


def _per_channel(scales: Tensor, like: Tensor) -> Tensor:
    return scales[:, :, None, None].to(like.dtype)


class Styled(nn.Module):
    """A modulated convolution, made larger, with a grain of noise: one layer of the generator.
    Making larger comes after the convolution, which then has a quarter of the pixels to see."""

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
        shape = len(h), 1, *self.size
        normal = self.fixed if noise is None else noise.normal(*shape).to(self.fixed)
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
    """Styles (n, styles) or, one for each layer, (n, layers, styles) to images (n, channels, H, W).

    A learnt constant, two layers at every size but one at the coarsest, and the sum of what every
    size adds to the image (Karras et al. 2020, figures 2c and 7b).
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
        return self.synthesis(self.mapping(z))
