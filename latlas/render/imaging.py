"""Arrays of images to RGBA, grids, mosaics and animations. Pillow is the only dependency."""

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
#: images smaller than this are enlarged by a whole factor; no side of a grid grows beyond the
#: second by it
LEGIBLE, WIDEST = 64, 1600


def to_rgba(x: Array, levels: int | None = 256) -> Array:
    """(n, C, H, W) integer levels 0 … levels−1, stretched to 0 … 255, as (n, H, W, 4) uint8.

    One channel is gray, two gray and alpha, three RGB, four RGBA; of more the first three are
    shown (:func:`note` says so).

    >>> to_rgba(np.array([0, 8, 16]).reshape(1, 1, 1, 3), 17)[0, 0, :, 0].tolist()
    [0, 128, 255]
    """
    v, top = np.moveaxis(np.asarray(x), 1, -1), (levels or 256) - 1
    if v.dtype != np.uint8 or top != 255:
        v = np.clip(np.rint(v.astype(np.float64) * (255 / top)), 0, 255).astype(np.uint8)
    v = v[..., :3] if v.shape[-1] > 4 else v
    alpha = np.full((*v.shape[:-1], 1), 255, np.uint8)
    if v.shape[-1] in (2, 4):
        v, alpha = v[..., :-1], v[..., -1:]
    return np.concatenate([np.broadcast_to(v, (*v.shape[:-1], 3)), alpha], -1)


def note(channels: int) -> str:
    """What a viewer must know about the channels shown; empty when nothing."""
    return f"the first three of {channels} channels shown" if channels > 4 else ""


def checkerboard(rgba: Array, square: int = 4) -> Array:
    """RGBA (n, H, W, 4) laid over light gray squares, opaque."""
    if (rgba[..., 3] == 255).all():
        return rgba
    row, column = np.indices(rgba.shape[1:3]) // square
    board = np.where((row + column) % 2, 255, 216)[None, ..., None]
    alpha = rgba[..., 3:] / 255
    out = rgba.copy()
    out[..., :3] = np.rint(rgba[..., :3] * alpha + board * (1 - alpha))
    out[..., 3] = 255
    return out


def enlarged(x: Array, levels: int | None, times: int) -> Array:
    """Opaque RGBA (n, H·times, W·times, 4): every pixel a square (nearest neighbour)."""
    return checkerboard(to_rgba(x, levels).repeat(times, 1).repeat(times, 2))


def factor(height: int, width: int, rows: int, columns: int) -> int:
    """Whole factor that makes tiny images legible without making the grid huge."""
    factor = math.ceil(LEGIBLE / max(height, width))
    return max(1, min(factor, WIDEST // max(height * rows, width * columns, 1)))


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
    columns = columns or max(1, math.ceil(math.sqrt(n)))
    rows = max(1, math.ceil(n / columns))
    times = scale or factor(height, width, rows, columns)
    tall, wide = height * times, width * times
    canvas = np.empty((rows * (tall + gap) + gap, columns * (wide + gap) + gap, 4), np.uint8)
    canvas[:] = gutter
    for i, tile in enumerate(enlarged(x, levels, times)):
        top, x0 = gap + i // columns * (tall + gap), gap + i % columns * (wide + gap)
        canvas[top:top + tall, x0:x0 + wide] = tile
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
    times, gap = max(1, math.ceil(1000 / cells / max(height, width))), 3
    tall, wide = height * times, width * times
    canvas = np.zeros((cells * (tall + gap), cells * (wide + gap), 4), np.uint8)
    inside = ((place >= 0) & (place <= cells)).all(1)
    for i in sorted(np.flatnonzero(inside), key=lambda i: -distance[i]):  # the nearest is put last
        top, x0 = (cells - 1 - cell[i, 1]) * (tall + gap), cell[i, 0] * (wide + gap)
        canvas[top:top + tall, x0:x0 + wide] = enlarged(x[i:i + 1], levels, times)[0]
    return canvas


def png(image: Array) -> bytes:
    """RGBA (H, W, 4), RGB, or gray (H, W) to PNG bytes; opaque images lose their alpha."""
    if image.ndim == 3 and image.shape[-1] == 4 and (image[..., 3] == 255).all():
        image = image[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def gif(x: Array, levels: int | None = 256, *, seconds: float = 0.12,
        bounce: bool = True) -> bytes:
    """An endless animation of examples (n, C, H, W); ``bounce`` plays it back again."""
    times = max(1, math.ceil(128 / max(x.shape[2:])))
    frames = [Image.fromarray(np.ascontiguousarray(frame))
              for frame in enlarged(x, levels, times)[..., :3]]
    if bounce:
        frames += frames[-2:0:-1]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], loop=0,
                   duration=round(seconds * 1000))
    return buffer.getvalue()
