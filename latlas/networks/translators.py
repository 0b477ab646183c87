"""From an image to an image of the same size, in other channels."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from latlas.core.errors import ConfigError
from latlas.core.noise import dropout
from latlas.networks.blocks import Size, Up, channels, down, pyramid
from latlas.networks.reordered import Transposed, convolved, mirrored

#: slope of leaky ReLU for negative numbers, and the spread weights start with (Isola et al. 2017,
#: appendix 6.2)
SLOPE, START = 0.2, 0.02
#: innermost levels of a U-Net that noise reaches by dropout (appendix 6.1)
NOISY = 3
CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d, nn.Conv2d, nn.ConvTranspose2d)
#: what a network of columns begins with is tanh of this times x: near x, and not flat at its ends
SKIP = 1.5


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
        wide = channels(width, len(sizes) - 1)
        stages = list(zip(pairwise([inputs, *wide]), pairwise(sizes), strict=True))
        self.downs = nn.ModuleList(
            _level(down(i, o, large, small), nn.LeakyReLU(SLOPE) if level else None,
                   nn.InstanceNorm2d(o) if level and (blocks or level < len(stages) - 1) else None)
            for level, ((i, o), (large, small)) in enumerate(stages))
        self.inside = (nn.Sequential(nn.ReLU(), *(Block(wide[-1]) for _ in range(blocks)))
                       if blocks else nn.Identity())
        self.ups = nn.ModuleList(
            _level(Up(2 * wide[level] if level < len(stages) - 1 else wide[level],
                      wide[level - 1] if level else outputs, small, large, Transposed), nn.ReLU(),
                   nn.InstanceNorm2d(wide[level - 1]) if level else None,
                   Dropout(noise) if noise and level and level >= len(stages) - NOISY else None)
            for level, (_, (large, small)) in reversed(list(enumerate(stages))))
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
        self.layers = nn.Sequential(
            plain(Mirrored(inputs, width, 7)), nn.InstanceNorm2d(width), nn.ReLU(),
            *(layer for (i, o), (large, small) in zip(pairwise(wide), pairwise(sizes), strict=True)
              for layer in (plain(down(i, o, large, small)), nn.InstanceNorm2d(o), nn.ReLU())),
            *(Block(wide[-1]) for _ in range(blocks)),
            *(layer for (i, o), (small, large) in zip(pairwise(wide[::-1]), pairwise(sizes[::-1]),
                                                      strict=True)
              for layer in (plain(Up(i, o, small, large)), nn.InstanceNorm2d(o), nn.ReLU())),
            Mirrored(width, outputs, 7))
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
        self.layers = nn.Sequential(
            along(inputs * size[0], inside, 5), nn.ReLU(),
            plain(along(inside, inside, 3, 2)), nn.InstanceNorm1d(inside), nn.ReLU(),
            *(ColumnBlock(inside) for _ in range(blocks)),
            plain(nn.ConvTranspose1d(inside, inside, 4, 2, 1)), nn.InstanceNorm1d(inside),
            nn.ReLU(),
            along(inside, outputs * size[0], 5))
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        columns: Tensor = self.layers(x.flatten(1, 2))[..., :self.wide]
        change = columns.unflatten(1, (self.outputs, -1)).float()
        return (change + SKIP * x if self.outputs == x.shape[1] else change).tanh()


class ColumnBlock(nn.Module):
    """h + two convolutions of it along the width; the size stays."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            plain(along(width, width, 3)), nn.InstanceNorm1d(width), nn.ReLU(),
            plain(along(width, width, 3)), nn.InstanceNorm1d(width))

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.layers(h)
        return out


def along(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv1d:
    """A convolution along the width, with reflection padding."""
    return nn.Conv1d(inputs, outputs, kernel, stride, (kernel - 1) // 2, padding_mode="reflect")


class Mirrored(nn.Module):
    """A convolution that keeps the size, with reflection padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel)
        self.edge = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return convolved(mirrored(x, self.edge), self.conv)


class Block(nn.Module):
    """h + two mirrored convolutions of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            plain(Mirrored(width, width)), nn.InstanceNorm2d(width), nn.ReLU(),
            plain(Mirrored(width, width)), nn.InstanceNorm2d(width))

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.layers(h)
        return out


class PatchDiscriminator(nn.Module):
    """(n, channels, H, W) to (n, patches): how real every overlapping patch is (Isola et al. 2017).

    Three stages see patches of 70 pixels, two of 34, one of 16 (appendix 6.1.2).

    Args:
        width: channels of the first level, doubled at every level up to eight times.
        depth: downsampling stages.
    """

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        wide = channels(width, depth + 1)
        halves = [_level(nn.Conv2d(i, o, 4, 2, 1), None, nn.InstanceNorm2d(o) if level else None)
                  for level, (i, o) in enumerate(pairwise([inputs, *wide[:-1]]))]
        last = _level(nn.Conv2d(wide[-2], wide[-1], 4, 1, 1), None, nn.InstanceNorm2d(wide[-1]))
        self.levels = nn.ModuleList([*halves, last])
        self.head = nn.Conv2d(wide[-1], 1, 4, 1, 1)
        self.act = nn.LeakyReLU(SLOPE)
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x)[-1]).flatten(1)
        return out

    def features(self, x: Tensor) -> list[Tensor]:
        """The features of every level, the finest first."""
        features = []
        for level in self.levels:
            x = self.act(level(x))
            features.append(x)
        return features


def _level(layer: nn.Module, before: nn.Module | None, *after: nn.Module | None) -> nn.Sequential:
    if any(isinstance(part, nn.InstanceNorm2d) for part in after):
        plain(layer)
    return nn.Sequential(*(part for part in (before, layer, *after) if part is not None))


def plain(layer: nn.Module) -> nn.Module:
    """A convolution without its bias, which the mean that is taken off after it would undo."""
    for part in layer.modules():
        if isinstance(part, CONVOLUTIONS):
            part.register_parameter("bias", None)
    return layer


def start(network: nn.Module) -> None:
    """Weights from N(0, 0.02²), biases 0."""
    for layer in network.modules():
        if isinstance(layer, CONVOLUTIONS):
            nn.init.normal_(layer.weight, std=START)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
