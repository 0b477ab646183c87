"""Arrays of images to RGBA, grids, strips and animations. Pillow is the only dependency."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Colour = tuple[int, int, int, int]
WHITE: Colour = (255, 255, 255, 255)
#: a gutter that parts images on a light page and on a dark one
FAINT: Colour = (128, 128, 128, 110)
#: images smaller than this are enlarged by a whole factor
LEGIBLE = 64
#: no side of a grid grows beyond this by enlarging
WIDEST = 1600


def to_bytes(x: Array, levels: int | None = 256) -> Array:
    """Integer levels 0 … levels−1 stretched to 0 … 255, uint8.

    >>> to_bytes(np.array([0, 8, 16]), 17).tolist()
    [0, 128, 255]
    """
    top = (levels or 256) - 1
    if x.dtype == np.uint8 and top == 255:
        return x
    return np.clip(np.rint(x.astype(np.float64) * (255 / top)), 0, 255).astype(np.uint8)


def to_rgba(x: Array, levels: int | None = 256) -> Array:
    """(n, C, H, W) levels to (n, H, W, 4) uint8.

    One channel is gray, two gray and alpha, three RGB, four RGBA; of more the first three are
    shown (:func:`note` says so).
    """
    v = np.moveaxis(to_bytes(np.asarray(x), levels), 1, -1)
    if v.shape[-1] > 4:
        v = v[..., :3]
    has_alpha = v.shape[-1] in (2, 4)
    alpha = v[..., -1:] if has_alpha else np.full((*v.shape[:-1], 1), 255, np.uint8)
    colour = v[..., :-1] if has_alpha else v
    colour = np.repeat(colour, 3, -1) if colour.shape[-1] == 1 else colour
    return np.concatenate([colour, alpha], -1)


def note(channels: int) -> str:
    """What a viewer must know about the channels shown; empty when nothing."""
    return f"the first three of {channels} channels shown" if channels > 4 else ""


def checkerboard(pictures: Array, square: int = 4) -> Array:
    """RGBA (n, H, W, 4) laid over light gray squares, opaque."""
    if (pictures[..., 3] == 255).all():
        return pictures
    row, column = np.indices(pictures.shape[1:3]) // square
    board = np.where((row + column) % 2, 255, 216)[None, ..., None]
    alpha = pictures[..., 3:] / 255
    out = pictures.copy()
    out[..., :3] = np.rint(pictures[..., :3] * alpha + board * (1 - alpha))
    out[..., 3] = 255
    return out


def near_square(n: int) -> int:
    """Columns of a grid of ``n`` that is about as wide as high.

    >>> [near_square(n) for n in (1, 2, 6, 16, 17)]
    [1, 2, 3, 4, 5]
    """
    return max(1, math.ceil(math.sqrt(n)))


def factor(height: int, width: int, rows: int, columns: int) -> int:
    """Whole factor that makes tiny images legible without making the grid huge."""
    factor = math.ceil(LEGIBLE / max(height, width))
    room = WIDEST // max(height * rows, width * columns, 1)
    return max(1, min(factor, room))


def enlarge(pictures: Array, times: int) -> Array:
    """Every pixel a square of ``times`` × ``times`` (nearest neighbour)."""
    return pictures.repeat(times, 1).repeat(times, 2)


def tiles(x: Array, levels: int | None, columns: int) -> Array:
    """A grid whose cells are equally large to its very edge, with a fifth of each left clear."""
    height, width = x.shape[2:]
    times = factor(height, width, -(-len(x) // columns), columns)
    gap = max(height, width) * times // 4
    whole = grid(x, levels, columns=columns, scale=times, gap=gap, gutter=(0, 0, 0, 0))
    first, last = gap // 2, gap - gap // 2
    return whole[first:len(whole) - last, first:whole.shape[1] - last]


def grid(x: Array, levels: int | None = 256, *, columns: int | None = None,
         scale: int | None = None, gap: int = 3, gutter: Colour = WHITE) -> Array:
    """One RGBA image (H, W, 4) of examples (n, C, H, W), row by row.

    Args:
        columns: as near a square as can be if ``None``.
        scale: whole enlargement; chosen by :func:`factor` if ``None``.
        gutter: colour between images, ``gap`` pixels wide, and around them.
    """
    n, _, height, width = x.shape
    columns = columns or near_square(n)
    count = max(1, math.ceil(n / columns))
    times = scale or factor(height, width, count, columns)
    tiles = checkerboard(enlarge(to_rgba(x, levels), times))
    cell_h, cell_w = height * times + gap, width * times + gap
    canvas = np.empty((count * cell_h + gap, columns * cell_w + gap, 4), np.uint8)
    canvas[:] = gutter
    for i, tile in enumerate(tiles):
        top, x0 = gap + i // columns * cell_h, gap + i % columns * cell_w
        canvas[top:top + height * times, x0:x0 + width * times] = tile
    return canvas


def mosaic(points: Array, x: Array, levels: int | None = 256, *,
           cells: int | None = None) -> Array:
    """A map of thumbnails, RGBA: each cell of the plane shows the example nearest its centre.

    Args:
        points: (n, 2) where each example lies; x (n, C, H, W) the examples.
        cells: cells a side, by the number of examples if ``None``; empty cells stay clear.
    """
    cells = cells or int(np.clip(1.1 * math.sqrt(len(points)), 6, 28))
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    place = (points - low) / np.maximum(high - low, 1e-12) * cells
    cell = np.minimum(np.floor(place), cells - 1).astype(int)
    distance = np.abs(place - cell - 0.5).max(1)
    height, width = x.shape[2:]
    times = max(1, math.ceil(1000 / cells / max(height, width)))
    high_px, wide_px, gap = height * times, width * times, 3
    canvas = np.zeros((cells * (high_px + gap), cells * (wide_px + gap), 4), np.uint8)
    inside = ((place >= 0) & (place <= cells)).all(1)
    for i in sorted(np.flatnonzero(inside), key=lambda i: -distance[i]):  # the nearest is put last
        tile = checkerboard(enlarge(to_rgba(x[i:i + 1], levels), times))[0]
        top = (cells - 1 - cell[i, 1]) * (high_px + gap)
        x0 = cell[i, 0] * (wide_px + gap)
        canvas[top:top + high_px, x0:x0 + wide_px] = tile
    return canvas


def png(picture: Array) -> bytes:
    """RGBA (H, W, 4), RGB, or gray (H, W) to PNG bytes; opaque images lose their alpha."""
    if picture.ndim == 3 and picture.shape[-1] == 4 and (picture[..., 3] == 255).all():
        picture = picture[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def gif(x: Array, levels: int | None = 256, *, seconds: float = 0.12,
        bounce: bool = True) -> bytes:
    """An endless animation of examples (n, C, H, W); ``bounce`` plays it back again."""
    height, width = x.shape[2:]
    times = max(1, math.ceil(128 / max(height, width)))
    tiles = checkerboard(enlarge(to_rgba(x, levels), times))[..., :3]
    frames = [Image.fromarray(np.ascontiguousarray(t)) for t in tiles]
    if bounce:
        frames += frames[-2:0:-1]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], loop=0,
                   duration=round(seconds * 1000))
    return buffer.getvalue()
