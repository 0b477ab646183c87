"""Data sets that are made here, and the digits of scikit-learn.

``digits``: 1,797 real handwritten digits of 8×8 pixels and 17 levels
(E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998, test part).
``ring``, ``grid``, ``moons``, ``swiss-roll``: densities in the plane whose shape is known.
``shapes``: rendered sprites at any resolution, after dSprites (Matthey et al., 2017, with a
triangle added), of known factors drawn independently and uniformly: shape (square, ellipse, heart,
triangle), scale (6 values), orientation (40 angles), x and y (32 positions each), white on black;
optionally one of 8 hues.
"""

import colorsys
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option
from latlas.core.space import Images, Points
from latlas.data.dataset import Dataset, Source, Store, make
from latlas.data.streams import claim

SHAPES = ("square", "ellipse", "heart", "triangle")
SCALES, ANGLES, POSITIONS, HUES = 6, 40, 32, 8
SYMMETRY = np.array([ANGLES // 4, ANGLES // 2, ANGLES, ANGLES])  # angles after which it repeats
RADIUS = 0.18  # of the largest sprite, as a share of the image's side
SPRITES = 64  # drawn at once: fits a processor's cache
POINT_BYTES = 100  # of memory to make a point, or the factors of a shape
MOST_SIDE = 8192  # of an image of shapes
Floats = NDArray[Any]  # float32


def open_digits(*, label: str | None = None) -> Source:
    """Shape (1, 8, 8), integers 0 … 16; the label is the digit."""
    if label not in (None, "none", "digit"):
        raise DataError(f"{say_option('label', label)}: the label of digits is the digit; leave "
                        f"it out, or say {say_option('label', 'none')}")
    spec = importlib.util.find_spec("sklearn")  # importing it takes seconds
    folder = Path(spec.origin if spec and spec.origin else "").parent
    table = np.loadtxt(folder / "datasets/data/digits.csv.gz", np.int64, delimiter=",")
    x = table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8)
    space = Images((1, 8, 8), 17, classes=tuple("0123456789"))
    return make("digits", Dataset(x, space, table[:, -1]))


def open_ring(*, n: int = 10_000, seed: int = 0) -> Source:
    """Eight Gaussians on the unit circle, standard deviation 0.01; the label is the Gaussian."""
    angle = np.arange(8) * (2 * np.pi / 8)
    return _mixture("ring", np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.01, n, seed)


def open_grid(*, n: int = 10_000, seed: int = 0) -> Source:
    """25 Gaussians at {−4, −2, 0, 2, 4}², standard deviation 0.05; the label is the Gaussian."""
    ticks = np.arange(-4.0, 5.0, 2.0)
    centres = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    return _mixture("grid", centres, 0.05, n, seed)


def _mixture(name: str, centres: NDArray[Any], sd: float, n: int, seed: int) -> Source:
    rng = _generator(n, seed)
    mode = rng.integers(0, len(centres), n)
    x = centres[mode] + sd * rng.standard_normal((n, 2))
    classes = tuple(f"({a:.3g}, {b:.3g})" for a, b in np.round(centres, 3) + 0.0)
    return make(name, Dataset(x.astype(np.float32), Points((2,), classes=classes), mode))


def open_moons(*, n: int = 10_000, seed: int = 0, noise: float = 0.05) -> Source:
    """Two interleaved half circles with Gaussian noise; the label is the half circle."""
    rng = _generator(n, seed, noise)
    mode, angle = rng.integers(0, 2, n), rng.uniform(0, np.pi, n)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    x = np.where(mode[:, None] == 0, upper, lower) + noise * rng.standard_normal((n, 2))
    space = Points((2,), classes=("upper", "lower"))
    return make("moons", Dataset(x.astype(np.float32), space, mode))


def open_swiss_roll(*, n: int = 10_000, seed: int = 0, noise: float = 0.05) -> Source:
    """A spiral (t cos t, t sin t) / 5, t uniform in [3π/2, 9π/2]; t is its known factor."""
    rng = _generator(n, seed, noise)
    t = rng.uniform(1.5 * np.pi, 4.5 * np.pi, n)
    x = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / 5
    x += noise * rng.standard_normal((n, 2))
    return make("swiss-roll", Dataset(x.astype(np.float32), Points((2,), factors=("t",)),
                                      factors=t[:, None].astype(np.float32)))


def _generator(n: int, seed: int, noise: float = 0.0) -> np.random.Generator:
    """That of a source; DataError for options that make none."""
    if n < 1:
        raise DataError(f"{say_option('n', n)}: a source needs at least one example")
    if seed < 0 or not 0 <= noise < math.inf:
        raise DataError(f"{say_option('seed', seed)}, {say_option('noise', noise)}: neither may be "
                        "negative, and the noise must be finite")
    claim(POINT_BYTES * n, f"{say_option('n', n)}: a source of so many examples")
    return np.random.default_rng(seed)


def open_shapes(*, n: int = 10_000, image_size: int = 64, seed: int = 0, colour: bool = False,
                store: Store | None = None) -> Source:
    """Shape (1, S, S) or (3, S, S), antialiased; ``factors`` holds their values, label the shape.

    The orientation is in radians, positions are shares of the image's side, scale is relative.
    Images that are equal (a square turned by 90°) share a group.
    """
    rng = _generator(n, seed)
    if not 8 <= image_size <= MOST_SIDE:
        raise DataError(f"{say_option('image_size', image_size)}: give 8 to {MOST_SIDE:,}")
    sizes = [len(SHAPES), SCALES, ANGLES, POSITIONS, POSITIONS, HUES if colour else 1]
    index = rng.integers(0, sizes, (n, len(sizes)))
    values, store = factor_values(index), store or Store()
    x = store.allocate((n, 3 if colour else 1, image_size, image_size), np.uint8)
    hues = np.array([colorsys.hsv_to_rgb(h / HUES, 0.8, 1.0) for h in range(HUES)], np.float32)
    for code, distance in enumerate((square, ellipse, heart, triangle)):
        rows = np.flatnonzero(index[:, 0] == code)
        for part in np.array_split(rows, max(1, -(-len(rows) // SPRITES))):
            cover = draw(distance, values[part], image_size)[:, None] * 255
            tint = hues[index[part, 5]][:, :, None, None] if colour else 1
            x[part] = np.rint(cover * tint).astype(np.uint8)
    store.done(n, n)
    names = ("shape", "scale", "orientation", "x", "y", *(("hue",) if colour else ()))
    space = Images(x.shape[1:], classes=SHAPES, factors=names)
    return make("shapes", Dataset(x, space, label=index[:, 0], factors=values[:, :len(names)],
                                  group=equal_images(index)))


def factor_values(index: NDArray[np.int64]) -> Floats:
    """Factor values (n, 6) of factor indices."""
    shape, scale, angle, x, y, hue = index.T
    place = 0.25 + 0.5 / (POSITIONS - 1) * np.stack([x, y])
    return np.stack([shape, 0.5 + 0.5 / (SCALES - 1) * scale, angle * (2 * np.pi / ANGLES),
                     *place, hue / HUES], axis=1).astype(np.float32)


def equal_images(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers that equal images share, whatever else there is."""
    key = index.copy()
    key[:, 2] %= SYMMETRY[key[:, 0]]
    sizes = (len(SHAPES), SCALES, ANGLES, POSITIONS, POSITIONS, HUES)
    return np.ravel_multi_index(tuple(key.T), sizes).astype(np.int64)


def draw(distance: Callable[[Floats, Floats], Floats], values: Floats, size: int) -> Floats:
    """Coverage (n, S, S) of each pixel by sprites with these factor values.

    The coverage is ½ − d, clipped to [0, 1], where d is the signed distance of the pixel's centre
    from the outline in pixels: a box filter of one pixel's width across the edge.
    """
    radius = values[:, 1] * RADIUS
    cos, sin = np.cos(values[:, 2]) / radius, np.sin(values[:, 2]) / radius
    ticks = (np.arange(size, dtype=np.float32) + 0.5) / size
    dx, dy = ticks - values[:, 3, None], ticks - values[:, 4, None]
    u = (cos[:, None] * dx)[:, None, :] + (sin[:, None] * dy)[:, :, None]
    v = (-sin[:, None] * dx)[:, None, :] + (cos[:, None] * dy)[:, :, None]
    pixels = distance(u, v) * (radius * size)[:, None, None]
    return np.clip(0.5 - pixels, 0, 1)


# Signed distances of points (u, v) from outlines inside the unit disc, negative inside.

def square(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.abs(u), np.abs(v)) - 0.7


def ellipse(u: Floats, v: Floats) -> Floats:
    """Half axes 1 and ½; to first order k(k − 1)/|∇|, exact on the outline (I. Quilez)."""
    k = np.sqrt(u * u + 4 * v * v)
    return k * (k - 1) / np.maximum(np.sqrt(u * u + 16 * v * v), 1e-6)


def heart(u: Floats, v: Floats) -> Floats:
    """A square on its corner with half discs on its upper sides (I. Quilez), about its centroid."""
    stretch, centroid = 0.66, 0.6566
    x, y = np.abs(u) * stretch, centroid - v * stretch
    lobe = np.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    along = 0.5 * np.maximum(x + y, 0)
    side = np.sqrt(np.minimum(x**2 + (y - 1) ** 2, (x - along) ** 2 + (y - along) ** 2))
    return np.where(x + y > 1, lobe, side * np.sign(x - y)) / stretch


def triangle(u: Floats, v: Floats) -> Floats:
    """Equilateral, corners at distance 0.9."""
    slope = np.abs(u) * (math.sqrt(3) / 2) - v / 2
    return np.maximum(slope, v) - 0.45
