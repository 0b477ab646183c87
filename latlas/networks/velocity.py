"""The network of a flow between images: a small U-Net that is given the time and the class."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.networks.conv import Size, down

#: channels, at least, of a group that is normalised together, and of a head of attention
GROUP, HEAD = 16, 64
#: the longest side of the first level, at most; larger images are taken in patches of 2 × 2 pixels
SIDE = 8
#: the time is given as cos πkt and sin πkt, k = 1 … 16
FREQUENCIES = 16


def parts(width: int, least: int) -> int:
    """How many equal parts of at least so many channels there are; 1 if they are fewer.

    >>> parts(96, 16), parts(100, 16), parts(24, 64)
    (6, 5, 1)
    """
    return next(n for n in range(max(1, width // least), 0, -1) if width % n == 0)


def halved(size: Size) -> Size:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(parts(width, GROUP), width)


class Block(nn.Module):
    """h + two convolutions of it, normalised; the time scales and shifts between them (FiLM, as in
    Dhariwal & Nichol 2021, section 3). It starts as the identity, or as a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int, context: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.film = nn.Linear(context, 2 * outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.film(context)[..., None, None].chunk(2, 1)
        inside = self.norm2(self.conv1(F.silu(self.norm1(h)))) * (1 + scale) + shift
        out: Tensor = self.skip(h) + self.conv2(F.silu(inside))
        return out


class Attention(nn.Module):
    """h + self-attention of its pixels, normalised; it starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = parts(width, HEAD)
        self.norm = norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(h)).flatten(2).unflatten(1, (3, self.heads, -1)).mT.unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return h + self.out(mixed.mT.flatten(1, 2).unflatten(2, h.shape[2:]))


class VelocityUNet(nn.Module):
    """v(z, t, class): (n, channels, *size), (n,) in 0 … 1, and (n,) classes to the shape of z.

    Two levels, the second of half the size and twice the width, with attention there; the first has
    the size of z, or half of it where that is above 8.

    Args:
        classes: 0 for none; otherwise class number ``classes`` stands for all of them.
        width: channels of the first level.
        blocks: on either side at each level.
    """

    frequencies: Tensor

    def __init__(self, channels: int, size: Size, width: int, blocks: int,
                 classes: int = 0) -> None:
        super().__init__()
        folded = max(size) > SIDE
        fine = halved(size) if folded else size
        half = halved(fine)
        wide, context = 2 * width, 2 * width
        self.size, self.fine, self.folded = size, fine, folded
        self.register_buffer("frequencies", math.pi * torch.arange(1, FREQUENCIES + 1))
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, context), nn.SiLU(),
                                  nn.Linear(context, context))
        self.label = nn.Embedding(classes + 1, context) if classes else None
        self.stem = down(channels, width, size, fine)
        self.before = nn.ModuleList(Block(width, width, context) for _ in range(blocks))
        self.down = down(width, wide, fine, half)
        self.middle = nn.ModuleList(Block(wide, wide, context) for _ in range(2 * blocks))
        self.attention = nn.ModuleList(Attention(wide) for _ in range(blocks))
        self.up = nn.Conv2d(wide, width, 1)
        self.after = nn.ModuleList(
            Block(width if i else 2 * width, width, context) for i in range(blocks))
        self.head = nn.Sequential(norm(width), nn.SiLU(), nn.Conv2d(
            width, channels * (4 if folded else 1), 3, padding=1))
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        phase = t[:, None] * self.frequencies
        context = self.time(torch.cat([phase.cos(), phase.sin()], 1))
        if self.label is not None and label is not None:
            context = context + self.label(label)
        context = F.silu(context)
        fine = self.stem(z)
        for block in self.before:
            fine = block(fine, context)
        coarse = self.down(fine)
        for i, block in enumerate(self.middle):
            coarse = block(coarse, context)
            if i % 2 == 0:
                coarse = self.attention[i // 2](coarse)
        h = F.interpolate(self.up(coarse), self.fine)
        h = torch.cat([h, fine], 1)
        for block in self.after:
            h = block(h, context)
        out: Tensor = self.head(h)
        return F.pixel_shuffle(out, 2)[..., :self.size[0], :self.size[1]] if self.folded else out
