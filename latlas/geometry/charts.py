"""The decoder as a chart: rank, inverse, folds, self-overlap, smoothness."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from latlas.core.errors import DataError
from latlas.geometry.graph import code_graph, neighbour_pairs
from latlas.geometry.metric import Array, Metric, latents, rank_and_condition

#: neighbours that orientations and overlaps are compared with; steps of the way to one; how many
#: times longer than through the data a way through the chart is that goes round
NEIGHBOURS, STEPS, DETOUR = 8, 16, 5.0


@dataclass(frozen=True)
class ChartChecks:
    """How good a chart a decoder D is at n latents, with an encoder E if there is one.

    Attributes:
        rank: (n,) of J; ``latent_dim`` everywhere in a chart.
        condition: (n,) longest by shortest stretch of a direction.
        flips: (n,) whether the orientation changes to that of a neighbour: a fold runs between.
        overlaps: (n,) whether another part of the chart covers the same place.
        order: (n,) by which power of h second differences shrink: 2 where D is smooth, 1 at an
            edge, 0 at a jump; NaN where D is straight.
        latent_error: (n,) ‖E(D(z)) − z‖ in standard deviations of the latents; NaN without E.
        data_error: (n,) ‖D(E(x)) − x‖ by the root mean square distance of examples from their
            mean; NaN without data.
    """

    rank: Array
    condition: Array
    flips: Array
    overlaps: Array
    order: Array
    latent_error: Array
    data_error: Array

    @property
    def folds(self) -> int:
        """Latents beside a fold or under an overlap."""
        return int((self.flips | self.overlaps).sum())


def chart_checks(metric: Metric, z: Any, *, encode: Callable[[Tensor], Tensor] | None = None,
                 x: Any = None, seed: int = 0) -> ChartChecks:
    """Check a decoder at latents (n, d), those of data.

    Args:
        metric: :func:`latlas.geometry.pullback` of the decoder.
        encode: embedded points (n, D) to latents (n, d).
        x: (n, D) the examples of these latents.
    """
    z = latents(z)
    if len(z) < 2:
        raise DataError(f"a chart is checked at 2 latents or more, got {len(z)}")
    spread = z.std(0, correction=0).clamp(min=1e-300)
    latent_error = data_error = np.full(len(z), math.nan)
    with torch.no_grad():
        points = metric.embed(z)
        if encode is not None:
            latent_error = np.asarray(((encode(points) - z) / spread).square().mean(1).sqrt())
        if x is not None:
            real = torch.as_tensor(x, dtype=points.dtype)
            size = (real - real.mean(0)).square().sum(1).mean().sqrt().clamp(min=1e-300)
            data_error = np.asarray((points - real).square().sum(1).sqrt() / size)
    return ChartChecks(*rank_and_condition(metric.tensors(z)), orientation_flips(metric, z),
                       overlaps(metric, z), smoothness_order(metric, z, seed=seed), latent_error,
                       data_error)


def orientation_flips(metric: Metric, z: Any, neighbours: int = NEIGHBOURS) -> Array:
    """(n,) whether the tangent plane is turned over somewhere on the straight way to a neighbour.

    det(J_iᵀ J_j) is the cosine of the angle between the orientations of two places, times their
    magnifications. Across a fold it is below 0, also from one place to the next of many; a sharp
    bend has small steps. Neighbours are those of both places in the latents and in the data.
    """
    z = latents(z)
    with torch.no_grad():
        points, j = metric.jacobian(z)
    i, other = neighbour_pairs(np.asarray(z), neighbours)
    near = {*zip(*neighbour_pairs(np.asarray(points), neighbours), strict=True)}
    both = np.array([pair in near for pair in zip(i, other, strict=True)], bool)
    flips, share = np.zeros(len(z), bool), torch.linspace(0, 1, STEPS + 1, dtype=z.dtype)[:, None]
    for s, e in zip(i[both], other[both], strict=True):
        if not flips[s] and float(torch.linalg.det(j[s] @ j[e].T)) < 0:
            way = metric.jacobian(z[s] + share * (z[e] - z[s]))[1]
            flips[s] = bool((torch.linalg.det(way[:-1] @ way[1:].mT) < 0).any())
    return flips


def overlaps(metric: Metric, z: Any, neighbours: int = NEIGHBOURS) -> Array:
    """(n,) whether one of the nearest decoded latent vectors is far away through the chart: the
    decoder covers the place twice.

    Far is a way, straight in the latents or over neighbours there, that is 5 times as long as the
    distance to the fourth nearest.
    """
    z = latents(z)
    with torch.no_grad():
        points = np.asarray(metric.embed(z))
    few = min(4, len(z) - 1)
    i, j = (pair.reshape(len(z), few) for pair in neighbour_pairs(points, few))
    grain = np.linalg.norm(points[i] - points[j], axis=2).max(1)
    share = torch.linspace(0, 1, 17, dtype=z.dtype)[:, None]
    line = np.stack([metric.length(z[s, None] + share * (z[e] - z[s])[:, None])
                     for s, e in zip(i.T, j.T, strict=True)], 1)
    over = dijkstra(code_graph(metric, z, neighbours), directed=False)
    return (np.minimum(line, over[i, j]) > DETOUR * grain[:, None]).any(1)


@torch.no_grad()
def smoothness_order(metric: Metric, z: Any, step: float = 0.05, seed: int = 0) -> Array:
    """(n,) log₂ of how much ‖f(z + h) − 2 f(z) + f(z − h)‖ shrinks as h is halved, in a random
    direction of ``step`` standard deviations: 2 where f has two derivatives, 1 at an edge, 0 at a
    jump; NaN where f is straight."""
    z = latents(z)
    rng = np.random.default_rng(seed)
    way = torch.as_tensor(rng.standard_normal(z.shape))
    way = step * way / way.norm(dim=1, keepdim=True) * z.std(0, correction=0)
    middle = metric.embed(z)
    bends = [(metric.embed(z + h * way) - 2 * middle + metric.embed(z - h * way)).norm(dim=1)
             for h in (1.0, 0.5)]
    size = (metric.embed(z + way) - middle).norm(dim=1)
    order = torch.log2(bends[0] / bends[1])
    straight = bends[1] <= 1e-9 * size.clamp(min=1e-300)
    return np.where(np.asarray(straight), math.nan, np.asarray(order))
