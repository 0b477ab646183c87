"""Random augmentations that real and generated images go through before the discriminator.

With few images a discriminator memorises them. It cannot if the images that it sees are augmented
at random; and as long as the augmentations can be undone in distribution, the generator still
learns the images as they are (Karras et al. 2020b, section 2). All functions take (n, C, H, W) in
[−1, 1] and are differentiable.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.noise import Noise

#: of ADA: standard deviation of log scale, of brightness, of log contrast and half that of log
#: saturation; largest shift as a share of the side (Karras et al. 2020b, appendix B; logarithms
#: there are of base 2, here natural: changes are 1.44 times as large)
SCALE, BRIGHT, CONTRAST, SHIFT = 0.2, 0.2, 0.5, 0.125
#: of DiffAugment: largest shift and side of the square that is cut out, as shares of the side
SLIDE, HOLE = 0.125, 0.5


def diff_augment(x: Tensor, noise: Noise) -> Tensor:
    """Colour, shift and a square cut out, of every image (Zhao et al. 2020, section 3.2)."""
    n, _, height, width = x.shape
    x = x + noise.uniform(n, 1, 1, 1).to(x) - 0.5
    if x.shape[1] == 3:
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * (2 * noise.uniform(n, 1, 1, 1).to(x))
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * (0.5 + noise.uniform(n, 1, 1, 1).to(x))
    sides = x.new_tensor(x.shape[2:])
    x = shift_images(x, ((2 * noise.uniform(n, 2).to(x) - 1) * SLIDE * sides).round().long())
    hole = int(HOLE * height), int(HOLE * width)
    top = (noise.uniform(n, 1).to(x) * (height + 1)).floor() - hole[0] // 2
    start = (noise.uniform(n, 1).to(x) * (width + 1)).floor() - hole[1] // 2
    rows, columns = (torch.arange(side, device=x.device)[None] for side in (height, width))
    inside = (((rows >= top) & (rows < top + hole[0]))[:, None, :, None]
              & ((columns >= start) & (columns < start + hole[1]))[:, None, None, :])
    return x * ~inside


def shift_images(x: Tensor, shift: Tensor) -> Tensor:
    """Every image moved by whole pixels (n, 2), down and right; zeros move in."""
    n, _, height, width = x.shape
    rows = torch.arange(height, device=x.device) - shift[:, :1]
    columns = torch.arange(width, device=x.device) - shift[:, 1:]
    inside = (((rows >= 0) & (rows < height))[:, None, :, None]
              & ((columns >= 0) & (columns < width))[:, None, None, :])
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    each = torch.arange(n, device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2) * inside


def ada_augment(x: Tensor, p: Tensor, noise: Noise) -> Tensor:
    """Each augmentation with probability ``p`` (a tensor of one number) for every image.

    Horizontal flip; turns by multiples of 90°, by any angle; shift, scale, anisotropic scale;
    brightness, contrast, hue, saturation (Karras et al. 2020b, figure 4a; the pixels are read
    bilinearly, with the image reflected at its edges).
    """
    with torch.autocast(x.device.type, enabled=False):  # in bf16 all places would be blurred
        n, p = len(x), p.to(x)

        def some(values: Tensor, identity: float) -> Tensor:
            chosen = torch.where(noise.uniform(n).to(x) < p, values, identity)
            return chosen.view(n, 1, 1, 1)

        x = resample(x, random_geometry(x, p, noise))
        x = x + some(BRIGHT * noise.normal(n).to(x), 0.0)
        x = x * some((CONTRAST * noise.normal(n).to(x)).exp(), 1.0)
        if x.shape[1] != 3:
            return x
        grey = x.mean(1, keepdim=True)
        colour = rotate_hue(x - grey, some((2 * noise.uniform(n).to(x) - 1) * math.pi, 0.0))
        return grey + colour * some((2 * CONTRAST * noise.normal(n).to(x)).exp(), 1.0)


def random_geometry(x: Tensor, p: Tensor, noise: Noise) -> Tensor:
    """(n, 3, 3), from places in the result to places in the source, both in −1 … 1.

    Rotations are those of the image, whatever its sides: until the end places are in units of half
    its height.
    """
    n, wide = len(x), x.shape[3] / x.shape[2]

    def some(values: Tensor, identity: float) -> Tensor:
        return torch.where(noise.uniform(n).to(x) < p, values, identity)

    one = torch.ones(n, device=x.device)
    flip = some(1 - 2 * (noise.uniform(n).to(x) < 0.5).float(), 1.0)
    quarter = some((4 * noise.uniform(n).to(x)).floor() * (math.pi / 2), 0.0)
    across, down = (some((2 * noise.uniform(n).to(x) - 1) * 2 * SHIFT, 0.0) for _ in range(2))
    scale, stretch = (some((SCALE * noise.normal(n).to(x)).exp(), 1.0) for _ in range(2))
    turn = some((2 * noise.uniform(n).to(x) - 1) * math.pi, 0.0)
    return (matrix(flip / wide, 0 * one, 0 * one, one) @ rotation(quarter)
            @ matrix(one, 0 * one, 0 * one, one, wide * across, down)
            @ matrix(scale, 0 * one, 0 * one, scale)
            @ matrix(stretch, 0 * one, 0 * one, 1 / stretch) @ rotation(turn)
            @ matrix(wide * one, 0 * one, 0 * one, one))


def rotation(angle: Tensor) -> Tensor:
    """(n, 3, 3) of turns by angles (n,)."""
    cos, sin = angle.cos(), angle.sin()
    return matrix(cos, -sin, sin, cos)


def matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor, across: Tensor | None = None,
           down: Tensor | None = None) -> Tensor:
    """(n, 3, 3) of linear maps and shifts."""
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    rows = ((a, b, zero if across is None else across),
            (c, d, zero if down is None else down), (zero, zero, one))
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def resample(x: Tensor, geometry: Tensor) -> Tensor:
    """Images read at the places that matrices (n, 3, 3) send theirs to."""
    grid = F.affine_grid(geometry[:, :2], list(x.shape), align_corners=False)
    return F.grid_sample(x, grid.to(x), mode="bilinear", padding_mode="reflection",
                         align_corners=False)


def rotate_hue(colour: Tensor, angle: Tensor) -> Tensor:
    """Colours (n, 3, H, W) that sum to 0, turned about the grey axis (Rodrigues' formula)."""
    sideways = (colour.roll(1, 1) - colour.roll(-1, 1)) / math.sqrt(3)
    return angle.cos() * colour + angle.sin() * sideways
