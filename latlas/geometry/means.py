"""Statistics by geodesic distance: Fréchet mean, k-medoids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, DataError
from latlas.geometry.curves import exp_map, geodesics
from latlas.geometry.graph import require_paths
from latlas.geometry.metric import Array, Metric, latents


@dataclass(frozen=True)
class FrechetMean:
    """``mean`` (d,) of latents, ``variance`` the mean squared distance to it, and ``step``, how far
    the last iteration moved it: near 0 if it has converged."""

    mean: Array
    variance: float
    step: float


def frechet_mean(metric: Metric, z: Any, *, start: Any = None, iterations: int = 30,
                 tolerance: float = 1e-6, **options: Any) -> FrechetMean:
    """The point of least mean squared geodesic distance to latents (n, d), by gradient descent
    m ← exp_m(mean of log_m z_i) (Pennec 2006, section 4); a step that gains nothing is halved.

    It is a local minimum: on a closed surface there may be others.

    Args:
        start: (d,) where to begin; the code that is nearest to the arithmetic mean if ``None``.
        tolerance: of a step, relative to the standard deviation.
        options: of :func:`latlas.geometry.geodesics`.
    """
    z = np.asarray(latents(z))
    if not len(z):
        raise DataError("a Fréchet mean needs one latent vector or more")
    mean = (z[np.square(z - z.mean(0)).sum(1).argmin()] if start is None else
            np.asarray(start, np.float64))
    rate, length = 1.0, np.inf
    paths = geodesics(metric, np.tile(mean, (len(z), 1)), z, **options)
    for _ in range(iterations):
        variance, direction = float(np.square(paths.length).mean()), paths.velocity.mean(0)
        g = metric.tensors(mean[None])[0]
        length = float(np.sqrt(direction @ g @ direction))
        if length <= tolerance * max(variance, 1e-300) ** 0.5:
            break
        candidate = exp_map(metric, mean[None], rate * direction[None])[0]
        tried = geodesics(metric, np.tile(candidate, (len(z), 1)), z, **options)
        if np.square(tried.length).mean() < variance:
            mean, paths = candidate, tried
        else:
            rate /= 2
    return FrechetMean(mean, float(np.square(paths.length).mean()), length)


@dataclass(frozen=True)
class Medoids:
    """``medoids`` (k,) row numbers, ``label`` (n,) of the nearest medoid, ``cost`` the sum of the
    distances to it."""

    medoids: Array
    label: Array
    cost: float


def k_medoids(distances: Any, k: int, *, restarts: int = 10, seed: int = 0) -> Medoids:
    """Clusters from distances (n, n): each row belongs to the nearest of k rows, so that the sum of
    distances is small (Park & Jun 2009), the best of several beginnings drawn like k-means++.

    ConfigError: fewer than k rows. DataError: rows without a path between them.
    """
    d = np.asarray(distances, np.float64)
    n = len(d)
    if not 1 <= k <= n:
        raise ConfigError(f"k={k}: from 1 to the number of latents, {n}", option="k")
    require_paths(d[0], "latents")
    rng, best = np.random.default_rng(seed), None
    for _ in range(restarts):
        chosen = [int(rng.integers(n))]
        while len(chosen) < k:
            square = np.square(d[chosen].min(0))
            total = square.sum()
            chosen.append(int(rng.choice(n, p=square / total)) if total > 0 else
                          next(i for i in range(n) if i not in chosen))
        medoids = np.array(chosen)
        for _ in range(100):
            label = d[medoids].argmin(0)
            label[medoids] = np.arange(k)
            moved = np.array([members[d[np.ix_(members, members)].sum(1).argmin()]
                              for members in (np.flatnonzero(label == i) for i in range(k))])
            if (moved == medoids).all():
                break
            medoids = moved
        label = d[medoids].argmin(0)
        cost = float(d[medoids].min(0).sum())
        if best is None or cost < best.cost:
            best = Medoids(medoids, label, cost)
    assert best is not None
    return best
