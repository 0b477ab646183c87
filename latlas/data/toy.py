"""Densities in the plane whose shape is known: ``ring``, ``grid``, ``moons``, ``swiss-roll``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.data.source import Source, make

Points = NDArray[np.float64]


def open_ring(*, n: int = 10_000, seed: int = 0) -> Source:
    """Eight Gaussians on the unit circle, standard deviation 0.01; the label is the Gaussian."""
    angle = np.arange(8) * (2 * np.pi / 8)
    return _mixture("ring", np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.01, n, seed)


def open_grid(*, n: int = 10_000, seed: int = 0) -> Source:
    """25 Gaussians at {−4, −2, 0, 2, 4}², standard deviation 0.05; the label is the Gaussian."""
    ticks = np.arange(-4.0, 5.0, 2.0)
    centres = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    return _mixture("grid", centres, 0.05, n, seed)


def open_moons(*, n: int = 10_000, seed: int = 0, noise: float = 0.05) -> Source:
    """Two interleaved half circles with Gaussian noise; the label is the half circle."""
    rng = _generator(n, seed)
    mode, angle = rng.integers(0, 2, n), rng.uniform(0, np.pi, n)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    x = np.where(mode[:, None] == 0, upper, lower) + noise * rng.standard_normal((n, 2))
    return _points("moons", x, mode, ("upper", "lower"))


def open_swiss_roll(*, n: int = 10_000, seed: int = 0, noise: float = 0.05) -> Source:
    """A spiral (t cos t, t sin t) / 5, t uniform in [3π/2, 9π/2]; t is its known factor."""
    rng = _generator(n, seed)
    t = rng.uniform(1.5 * np.pi, 4.5 * np.pi, n)
    x = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / 5
    x += noise * rng.standard_normal((n, 2))
    space = Space("points", (2,), factors=("t",))
    return make("swiss-roll", Dataset(x.astype(np.float32), space,
                                      factors=t[:, None].astype(np.float32)))


def _mixture(name: str, centres: Points, sd: float, n: int, seed: int) -> Source:
    rng = _generator(n, seed)
    mode = rng.integers(0, len(centres), n)
    x = centres[mode] + sd * rng.standard_normal((n, 2))
    names = tuple(f"({a:.3g}, {b:.3g})" for a, b in np.round(centres, 3) + 0.0)
    return _points(name, x, mode, names)


def _points(name: str, x: Points, mode: NDArray[np.int64], classes: tuple[str, ...]) -> Source:
    space = Space("points", (2,), classes=classes)
    return make(name, Dataset(x.astype(np.float32), space, label=mode.astype(np.int64)))


def _generator(n: int, seed: int) -> np.random.Generator:
    if n < 1:
        raise DataError(f"n={n}: a source needs at least one item")
    return np.random.default_rng(seed)
