"""Geodesics of an atlas, across its charts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from latlas.core.distributions import Distribution, PointMass
from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Model
from latlas.geometry.curves import extrapolate
from latlas.geometry.graph import neighbour_pairs, path_to, require_paths, symmetric
from latlas.geometry.metric import Array, _KeepsFloat64, mean_of
from latlas.geometry.minimise import minimise

#: times that the charts of the corners are chosen anew
ROUNDS = 5


@dataclass(frozen=True)
class AtlasGeodesics:
    """Shortest curves of p pairs of examples.

    Attributes:
        charts: (p, N + 1) of each corner; ``latents`` (p, N + 1, width) in it; ``points``
            (p, N + 1, D) decoded, model units.
        length: (p,) extrapolated, ``error`` (p,) what it may be wrong by.
        seams: (p,) part of the length on sides between two charts.
        lengths: (levels, p) of the polygons of N/4, N/2 and N sides.
    """

    charts: Array
    latents: Array
    points: Array
    length: Array
    error: Array
    seams: Array
    lengths: Array


class OneChart(Model):
    """Chart k of an atlas, with latents (n, width), as a model that encodes and decodes."""

    def __init__(self, atlas: Any, k: int, width: int) -> None:
        super().__init__(atlas.config, atlas.space)
        self.atlas, self.k, self.latent_dim = atlas, k, width

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> PointMass:
        return PointMass(self.atlas.encode_chart(x, self.k)[1])

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Distribution:
        return self.atlas.decode_chart(self.k, z)  # type: ignore[no-any-return]


class Atlas:
    """A model with several charts (:class:`latlas.core.model.Charts`), in float64 on the CPU."""

    def __init__(self, model: Any) -> None:
        self.twin = copy.deepcopy(model)
        if isinstance(model, torch.nn.Module):
            self.twin = self.twin.cpu().double().eval().requires_grad_(False)
            self.twin.to(memory_format=torch.contiguous_format)
        self.shape = tuple(model.space.shape)

    def decode(self, charts: Tensor, z: Tensor) -> Tensor:
        """Charts (n,) and latents (n, width) to points (n, D)."""
        with _KeepsFloat64():
            rows = [torch.nonzero(charts == k)[:, 0] for k in range(self.twin.n_charts)]
            parts = [mean_of(self.twin.decode_chart(k, z[r])).flatten(1)
                     for k, r in enumerate(rows) if len(r)]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    @torch.no_grad()
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points (n, D) to the charts in charge (n,) and latents in them (n, width)."""
        with _KeepsFloat64():
            charts, z = self.twin.encode_chart(x.double().unflatten(1, self.shape))
        return charts, z.double()


def atlas_geodesics(model: Any, start: Any, end: Any, *, landmarks: Any, segments: int = 32,
                    neighbours: int = 10, tolerance: float = 1e-11,
                    iterations: int = 300) -> AtlasGeodesics:
    """The shortest curves between decoded examples ``start`` and ``end`` (p, *shape), in model
    units, over the charts of an atlas.

    Each curve begins as the shortest path over a graph of decoded ``landmarks``. Its corners are
    put into the charts in charge of them, the energy of the polygon is minimised with the charts as
    they are, and corners that have come under another chart change over to it (``encode_chart``),
    until none does or five times. Where two charts do not agree the seam between them counts as
    length. Extrapolation and its error are those of :func:`latlas.geometry.geodesics`.

    Args:
        landmarks: (n, *shape) examples of the data, model units.
        segments: N, a multiple of 4, at least 16.
        neighbours: of a landmark in the graph.

    DataError: a pair without a path, on two components of the data.
    """
    if segments < 16 or segments % 4:
        raise ConfigError(f"segments={segments}: a multiple of 4, at least 16", option="segments")
    atlas = Atlas(model)
    examples = [torch.as_tensor(v, dtype=torch.float64).flatten(1) for v in (start, end, landmarks)]
    p = len(examples[0])
    if len(examples[1]) != p:
        raise DataError(f"{p} starts and {len(examples[1])} ends: as many of both")
    charts, z = atlas.encode(torch.cat(examples))
    with torch.no_grad():
        points = atlas.decode(charts, z)
    ends = [(charts[rows], z[rows]) for rows in (slice(0, p), slice(p, 2 * p))]
    i, j = neighbour_pairs(np.asarray(points), neighbours)
    sides = np.linalg.norm(np.asarray(points[i] - points[j]), axis=1)
    length, before = dijkstra(symmetric(i, j, sides, len(points)), directed=False,
                              indices=np.arange(p), return_predecessors=True)
    require_paths(length[np.arange(p), np.arange(p) + p], "pairs")
    corners = [points[path_to(before[row], p + row, length[row])] for row in range(p)]
    levels, lengths, gap = [], [], torch.zeros(p)
    for count in (segments // 4, segments // 2, segments):
        places = torch.stack([_spaced(c, count + 1) for c in corners])
        path, gap = _shortest(atlas, places, ends, tolerance, iterations)
        corners = list(path[2])
        levels.append(path)
        lengths.append(path[2].diff(dim=1).norm(dim=-1).sum(1))
    charts, z, points = levels[-1]
    side = points.diff(dim=1).norm(dim=-1)
    total, error, _ = extrapolate(np.stack([np.asarray(v) for v in lengths]),
                                  np.asarray(gap / (segments * side.square().sum(1))))
    seams = (side * (charts[:, 1:] != charts[:, :-1])).sum(1)
    return AtlasGeodesics(np.asarray(charts), np.asarray(z), np.asarray(points), total, error,
                          np.asarray(seams), np.stack([np.asarray(v) for v in lengths]))


def _spaced(corners: Tensor, count: int) -> Tensor:
    """(count, D): a polygon at equal distances along it."""
    time = np.concatenate([[0], np.cumsum(np.asarray(corners.diff(dim=0).norm(dim=1)) + 1e-300)])
    share = np.linspace(0, time[-1], count)
    return torch.as_tensor(np.stack([np.interp(share, time, c) for c in np.asarray(corners).T], 1))


def _shortest(atlas: Atlas, places: Tensor, ends: list[tuple[Tensor, Tensor]], tolerance: float,
              iterations: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Charts, latents and points of polygons of least energy near places (p, n + 1, D), and the
    gain in energy still expected."""
    p, n = len(places), places.shape[1] - 1
    second = 2 * torch.eye(n - 1, dtype=places.dtype)
    second -= torch.diag_embed(torch.ones(n - 2, dtype=places.dtype), 1)
    second -= torch.diag_embed(torch.ones(n - 2, dtype=places.dtype), -1)
    inverse = torch.linalg.inv(second) / (2 * n)
    gap, last = torch.zeros(p, dtype=places.dtype), None
    for _ in range(ROUNDS):
        charts, z = (v.unflatten(0, places.shape[:2]) for v in atlas.encode(places.flatten(0, 1)))
        for column, (chart, latent) in zip((0, -1), ends, strict=True):
            charts[:, column], z[:, column] = chart, latent
        if last is not None and bool((charts == last).all()):
            break
        last = charts

        def decode(x: Tensor, rows: Tensor, charts: Tensor = charts, z: Tensor = z) -> Tensor:
            own = torch.cat([z[rows, :1], x.unflatten(1, (n - 1, -1)), z[rows, -1:]], 1)
            flat = atlas.decode(charts[rows].flatten(), own.flatten(0, 1))
            return flat.unflatten(0, own.shape[:2])

        with torch.no_grad():
            stretch = _stretch(decode, z)

        def precondition(grad: Tensor, rows: Tensor, stretch: Tensor = stretch) -> Tensor:
            own = stretch[rows][..., None]
            return (inverse @ (grad.unflatten(1, (n - 1, -1)) / own) / own).flatten(1)

        def energy(x: Tensor, rows: Tensor,
                   decode: Callable[[Tensor, Tensor], Tensor] = decode) -> Tensor:
            return n * decode(x, rows).diff(dim=1).square().sum((1, 2))

        x, gap = minimise(energy, z[:, 1:-1].flatten(1), precondition, tolerance=tolerance,
                          iterations=iterations)
        with torch.no_grad():
            places = decode(x, torch.arange(p))
        z = torch.cat([z[:, :1], x.unflatten(1, (n - 1, -1)), z[:, -1:]], 1)
    return (last if last is not None else charts, z, places), gap


def _stretch(decode: Callable[[Tensor, Tensor], Tensor], z: Tensor) -> Tensor:
    """(p, n − 1): by how much a small step of the latents is stretched at each inner corner, in the
    mean over as many directions as there are latents."""
    rows = torch.arange(len(z))
    inner = z[:, 1:-1]
    step = 1e-4 * z.flatten(0, 1).std(0, correction=0).mean().clamp(min=1e-12)
    at = decode(inner.flatten(1), rows)
    square = torch.zeros_like(at[:, 1:-1, 0])
    for direction in torch.eye(z.shape[2], dtype=z.dtype):
        moved = decode((inner + step * direction).flatten(1), rows)
        square = square + ((moved - at)[:, 1:-1] / step).square().sum(2) / z.shape[2]
    return square.sqrt().clamp(min=1e-12)
