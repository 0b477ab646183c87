"""From an image to an image of the same size, in other channels."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.errors import ConfigError
from latlas.core.noise import dropout
from latlas.networks.conv import Size, Up, channels, down, pyramid

#: slope of leaky ReLU for negative numbers, and the spread weights start with (Isola et al. 2017,
#: appendix 6.2)
SLOPE, START = 0.2, 0.02
#: innermost levels of a U-Net that noise reaches by dropout (appendix 6.1)
NOISY = 3
CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d, nn.Conv2d, nn.ConvTranspose2d)
#: what a network of columns begins with is tanh of this times x: near x, and not flat at its ends
SKIP = 1.5


def normed(layer: nn.Module, width: int,
           norm: Callable[[int], nn.Module] = nn.InstanceNorm2d) -> list[nn.Module]:
    """A convolution and instance normalisation, which would undo its bias: it has none."""
    for part in layer.modules():
        if isinstance(part, CONVOLUTIONS):
            part.register_parameter("bias", None)
    return [layer, norm(width)]


def start(network: nn.Module) -> None:
    """Weights from N(0, 0.02²), biases 0."""
    for layer in network.modules():
        if isinstance(layer, CONVOLUTIONS):
            nn.init.normal_(layer.weight, std=START)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Mirrored(nn.Module):
    """A convolution that keeps the size, with reflection padding. A processor fills outputs up to
    16, so 7 × 7 to 3 takes half the time row by row of the kernel."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel)

    def forward(self, x: Tensor) -> Tensor:
        conv, height, k = self.conv, x.shape[2], self.conv.kernel_size[0]
        x = F.pad(x, [k // 2] * 4, mode="reflect")
        if conv.out_channels > 8 or x.device.type != "cpu":
            return conv(x)
        weight = conv.weight.transpose(1, 2).flatten(0, 1)[:, :, None]  # outputs · k, inputs, 1, k
        rows = F.conv2d(x, weight).unflatten(1, (-1, k)).float()
        total = rows[:, :, 0, :height]
        for i in range(1, k):
            total = total + rows[:, :, i, i:i + height]
        return total if conv.bias is None else total + conv.bias[:, None, None]


def along(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv1d:
    """A convolution along the width, with reflection padding."""
    return nn.Conv1d(inputs, outputs, kernel, stride, (kernel - 1) // 2, padding_mode="reflect")


class Block(nn.Module):
    """h + two convolutions of it, mirrored or :func:`along` the width; the size stays."""

    def __init__(self, width: int, layer: Callable[..., nn.Module] = Mirrored,
                 norm: Callable[[int], nn.Module] = nn.InstanceNorm2d) -> None:
        super().__init__()
        self.layers = nn.Sequential(*normed(layer(width, width, 3), width, norm), nn.ReLU(),
                                    *normed(layer(width, width, 3), width, norm))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.layers(h)


class Dropout(nn.Module):
    """Dropout of a share of the units, in use as in training: it is the model's noise."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor) -> Tensor:
        return dropout(h, self.share, grows=False)


class UNet(nn.Module):
    """(n, inputs, H, W) to (n, outputs, H, W) in [−1, 1], with skip connections at every size.

    Isola et al. (2017, section 3.2.1), with instance normalisation (their choice at batch 1) but
    at the ends.

    Args:
        size: H and W, any.
        width: channels of the first level, doubled at every level up to eight times.
        depth: downsampling stages; ``None`` until a side is 4 … 7.
        noise: share of units that dropout leaves out in the innermost levels.
        blocks: residual ones at the innermost level; ConfigError if they see a single pixel.
    """

    def __init__(self, inputs: int, outputs: int, size: Size, width: int,
                 depth: int | None = None, noise: float = 0.0, blocks: int = 0) -> None:
        super().__init__()
        sizes = pyramid(*size, depth)
        if blocks and min(sizes[-1]) == 1:
            raise ConfigError(f"blocks={blocks}: after {len(sizes) - 1} halvings there is no "
                              "image left for them; lower depth")
        innermost, wide = len(sizes) - 2, [inputs, *channels(width, len(sizes) - 1)]
        downs, ups = [], []
        for level, (large, small) in enumerate(pairwise(sizes)):
            i, o = wide[level:level + 2]
            conv = down(i, o, large, small)
            inner = level and (blocks or level < innermost)
            parts: list[nn.Module] = normed(conv, o) if inner else [conv]
            downs.append(nn.Sequential(*([nn.LeakyReLU(SLOPE)] if level else []), *parts))
        inside = [nn.ReLU(), *(Block(wide[-1]) for _ in range(blocks))] if blocks else []
        for level in reversed(range(innermost + 1)):
            i, o = wide[level + 1], wide[level] if level else outputs
            up = Up(i if level == innermost else 2 * i, o, sizes[level + 1], sizes[level])
            parts = normed(up, o) if level else [up]
            if noise and level and level > innermost - NOISY:
                parts.append(Dropout(noise))
            ups.append(nn.Sequential(nn.ReLU(), *parts))
        self.downs, self.inside = nn.ModuleList(downs), nn.Sequential(*inside)
        self.ups = nn.ModuleList(ups)
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.downs:
            x = level(x)
            skips.append(x)
        h = self.inside(skips.pop())
        for level in self.ups[:-1]:
            h = torch.cat([level(h), skips.pop()], 1)
        out: Tensor = self.ups[-1](h)
        return out.float().tanh()


class ResidualTranslator(nn.Module):
    """(n, inputs, H, W) to (n, outputs, H, W) in [−1, 1], by residual blocks at a quarter size.

    Johnson et al. (2016) as Zhu et al. (2017, appendix 7.2) use it: reflection padding, and
    instance normalisation after every convolution but the last.

    Args:
        size: H and W, any of at least 8.
        width: channels at full size; four times that in the blocks.
        blocks: how many; 6 for sides up to 128, 9 beyond, in the source.
    """

    def __init__(self, inputs: int, outputs: int, size: Size, width: int, blocks: int) -> None:
        super().__init__()
        sizes, wide = pyramid(*size, 2), channels(width, 3)
        layers = [*normed(Mirrored(inputs, width, 7), width), nn.ReLU()]
        for (i, o), (large, small) in zip(pairwise(wide), pairwise(sizes), strict=True):
            layers += [*normed(down(i, o, large, small), o), nn.ReLU()]
        layers += [Block(wide[-1]) for _ in range(blocks)]
        for (i, o), (small, large) in zip(pairwise(wide[::-1]), pairwise(sizes[::-1]), strict=True):
            layers += [*normed(Up(i, o, small, large), o), nn.ReLU()]
        self.layers = nn.Sequential(*layers, Mirrored(width, outputs, 7))
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out.float().tanh()


class ColumnTranslator(nn.Module):
    """(n, inputs, H, W) to (n, outputs, H, W) in [−1, 1], column by column with its neighbours.

    Every row is a channel of its own, so that convolutions along the width see all of a column at
    once: of spectra all tones, wherever a voice has them (a one-dimensional residual network, as
    Kaneko & Kameoka 2018, section 3.1). Reflection padding; instance normalisation but at the ends.
    Where there are as many channels on both sides it is tanh(f(x) + 1.5 x): it begins near x.

    Args:
        width: a sixteenth of the channels inside.
        blocks: residual blocks, at half the width.
    """

    def __init__(self, inputs: int, outputs: int, size: Size, width: int, blocks: int) -> None:
        super().__init__()
        self.outputs, self.wide, inside = outputs, size[1], 16 * width
        norm = nn.InstanceNorm1d
        self.layers = nn.Sequential(
            along(inputs * size[0], inside, 5), nn.ReLU(),
            *normed(along(inside, inside, 3, 2), inside, norm), nn.ReLU(),
            *(Block(inside, along, norm) for _ in range(blocks)),
            *normed(nn.ConvTranspose1d(inside, inside, 4, 2, 1), inside, norm), nn.ReLU(),
            along(inside, outputs * size[0], 5))
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        columns: Tensor = self.layers(x.flatten(1, 2))[..., :self.wide]
        change = columns.unflatten(1, (self.outputs, -1)).float()
        return (change + SKIP * x if self.outputs == x.shape[1] else change).tanh()


class PatchDiscriminator(nn.Module):
    """(n, channels, H, W) to (n, patches): how real every overlapping patch is (Isola et al. 2017).

    ``depth`` 3 sees patches of 70 pixels, 2 of 34, 1 of 16 (appendix 6.1.2). ``width`` is that of
    the first level, doubled at every level up to eight times.
    """

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        wide = [inputs, *channels(width, depth + 1)]
        self.levels = nn.ModuleList()
        for level, (i, o) in enumerate(pairwise(wide)):
            conv = nn.Conv2d(i, o, 4, 2 if level < depth else 1, 1)
            self.levels.append(nn.Sequential(*(normed(conv, o) if level else [conv])))
        self.head = nn.Conv2d(wide[-1], 1, 4, 1, 1)
        self.act = nn.LeakyReLU(SLOPE)
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[-1]).flatten(1)

    def features(self, x: Tensor) -> list[Tensor]:
        """The features of every level, the finest first."""
        features = []
        for level in self.levels:
            x = self.act(level(x))
            features.append(x)
        return features
