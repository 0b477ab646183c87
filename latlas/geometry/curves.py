"""Geodesics between many pairs of latents at once, exponential and logarithm map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.func import jvp

from latlas.core.errors import ConfigError, DataError
from latlas.geometry.graph import paths_over_codes
from latlas.geometry.metric import Array, Metric, latents
from latlas.geometry.minimise import minimise

#: numbers of embedded paths that are in memory at once
NUMBERS = 1 << 23
#: times that the preconditioner is computed anew; latent dimensions from which it takes no
#: Jacobian
ROUNDS, DIRECTIONS = 4, 32


@dataclass(frozen=True)
class Geodesics:
    """Shortest curves of p pairs.

    Attributes:
        latents: (p, N + 1, d) at equal distances along each, ends included.
        length: (p,) by extrapolation to N → ∞; ``error`` (p,) what it may be wrong by.
        line: (p,) length of the straight line of latents between the same ends.
        velocity: (p, d) at the start, for one unit of time from end to end: the logarithm map.
        lengths: (levels, p) of the polygons of N/4, N/2 and N sides that it is extrapolated from.
    """

    latents: Array
    length: Array
    error: Array
    line: Array
    velocity: Array
    lengths: Array


def geodesics(metric: Metric, start: Any, end: Any, *, segments: int = 32,
              tolerance: float = 1e-11, iterations: int = 300) -> Geodesics:
    """The shortest curves between latents ``start`` and ``end`` (p, d), as polygons of N segments.

    The energy N Σ ‖x_{i+1} − x_i‖² of the embedded corners is minimised, first for N/4 segments,
    then for N/2 and N, each pair by its own L-BFGS, preconditioned by the inverse of the path's
    second difference and the metric at its corners. A metric that knows where the data are also
    begins from the shortest path over the codes, and the shorter of the two curves counts.

    The chords of a smooth curve are too short by a term in 1/N², then 1/N⁴, …, which two steps of
    Richardson's extrapolation remove. ``error`` is the size of the second step, and more where the
    three lengths do not shrink like 1/N²: then the longest polygon's length is given, and what the
    last halving changed.

    Args:
        segments: N, a multiple of 4, at least 16.
        tolerance: of the energy, relative, at which a pair is done; after ``iterations`` it stops.

    DataError: ends of another shape, not finite, or a decoder that is constant (rank 0).
    """
    if segments < 16 or segments % 4:
        raise ConfigError(f"segments={segments}: a multiple of 4, at least 16", option="segments")
    a, b = latents(start), latents(end)
    if a.shape != b.shape:
        raise DataError(f"geodesics need as many ends as starts, of one width; got "
                        f"{tuple(a.shape)} and {tuple(b.shape)}")
    width = len(metric.embed(a[:1])[0]) if len(a) else 1
    if len(a) and not metric.rank(torch.cat([a[:4], b[:4]])).any():
        raise DataError("the decoder is constant at the ends of the paths (rank 0): every curve "
                        "has length 0, and none is shortest")
    size = max(1, NUMBERS // (width * segments))
    over = None if metric.codes is None or not len(a) else paths_over_codes(
        metric, metric.codes, a, b, segments // 4)
    parts = []
    for rows in torch.arange(len(a)).split(size):
        levels = _refined(metric, a[rows], b[rows], None if over is None else over[rows], segments,
                          tolerance, iterations)
        parts.append(_extrapolated(metric, *levels))
    joined = [np.concatenate([part[i] for part in parts], 1 if i == 5 else 0) for i in range(6)]
    return Geodesics(*joined)


def distances(metric: Metric, z: Any, **options: Any) -> Array:
    """(n, n) lengths of the geodesics between all pairs of latents (n, d); ``options`` of
    :func:`geodesics`."""
    z = np.asarray(z)
    i, j = np.triu_indices(len(z), 1)
    matrix = np.zeros((len(z), len(z)))
    if len(i):
        matrix[i, j] = matrix[j, i] = geodesics(metric, z[i], z[j], **options).length
    return matrix


def log_map(metric: Metric, start: Any, end: Any, **options: Any) -> Array:
    """(p, d) directions from ``start`` in which the geodesics to ``end`` set out, as long as they
    are; ``options`` of :func:`geodesics`."""
    return geodesics(metric, start, end, **options).velocity


@torch.no_grad()
def exp_map(metric: Metric, start: Any, velocity: Any, *, tolerance: float = 1e-9) -> Array:
    """Where the geodesics that set out from ``start`` (p, d) with ``velocity`` (p, d) are after one
    unit of time, (p, d).

    The embedded curve bends at right angles to the surface: z'' = −G⁻¹Jᵀ f''(v, v), f'' by forward
    mode twice; a weight w adds (vᵀGv) G⁻¹∇w / 2w − (v·∇w) v / w. By the Runge–Kutta method of order
    8 of Dormand and Prince, whose steps keep to the relative and absolute ``tolerance``.

    DataError: a geodesic that comes to where the decoder has no full rank.
    """
    z, v = latents(start), latents(velocity)

    def rate(time: float, state: Array) -> Array:
        at, moving = torch.as_tensor(state).view(2, *z.shape)
        return np.asarray(torch.stack([moving, _acceleration(metric, at, moving)])).ravel()

    try:
        path = solve_ivp(rate, (0, 1), np.asarray(torch.stack([z, v])).ravel(), method="DOP853",
                         rtol=tolerance, atol=tolerance)
        if path.success and np.isfinite(path.y[:, -1]).all():
            return np.asarray(path.y[:, -1].reshape(2, *z.shape)[0])
    except RuntimeError:  # a matrix that is singular
        pass
    raise DataError("exp_map: a geodesic comes to a place where the decoder has no full rank")


def resample(path: Any, metric: Metric, points: int) -> Array:
    """Polygons (p, N + 1, d) at ``points`` places, equally far apart along them in the metric, by
    cubic splines through the corners."""
    path = np.asarray(path, np.float64)
    sides = metric.steps(torch.as_tensor(path)).sqrt().detach().numpy()
    rows = []
    for corners, side in zip(path, sides, strict=True):
        # a path of no length has one place, whichever time
        time = np.concatenate([[0], np.cumsum(side + 1e-12 * (side.max() or 1))])
        rows.append(CubicSpline(time / time[-1], corners)(np.linspace(0, 1, points)))
    return np.stack(rows)


def _refined(metric: Metric, a: Tensor, b: Tensor, over: Tensor | None, segments: int,
             tolerance: float, iterations: int) -> tuple[list[Tensor], Tensor]:
    """Polygons of N/4, N/2 and N sides, and the gain in energy that the last could still make."""
    share = torch.linspace(0, 1, segments // 4 + 1, dtype=a.dtype)[:, None]
    path = _minimal(metric, a[:, None] + share * (b - a)[:, None], tolerance, iterations)[0]
    if over is not None:
        other = _minimal(metric, over, tolerance, iterations)[0]
        with torch.no_grad():
            shorter = metric.steps(other).sum(1) < metric.steps(path).sum(1)
        path = torch.where(shorter[:, None, None], other, path)
    levels = [path]
    for _ in range(2):
        fine = torch.as_tensor(_halved(np.asarray(levels[-1])))
        path, gap = _minimal(metric, fine, tolerance, iterations)
        levels.append(path)
    return levels, gap


def _halved(path: Array) -> Array:
    """The same curves at twice as many places, by cubic splines."""
    time = np.linspace(0, 1, path.shape[1])
    return np.asarray(CubicSpline(time, path, axis=1)(np.linspace(0, 1, 2 * path.shape[1] - 1)))


def _minimal(metric: Metric, path: Tensor, tolerance: float,
             iterations: int) -> tuple[Tensor, Tensor]:
    """The polygons of least energy between the same ends, and the gain still expected (p,)."""
    inside, d = path.shape[1] - 2, path.shape[2]
    n, ends = inside + 1, (path[:, :1], path[:, -1:])

    def energy(x: Tensor, rows: Tensor) -> Tensor:
        corners = torch.cat([ends[0][rows], x.unflatten(1, (inside, d)), ends[1][rows]], 1)
        return n * metric.steps(corners).sum(1)

    second = 2 * torch.eye(inside, dtype=path.dtype)
    second -= torch.diag_embed(torch.ones(inside - 1, dtype=path.dtype), 1)
    second -= torch.diag_embed(torch.ones(inside - 1, dtype=path.dtype), -1)
    inverse = torch.linalg.inv(second) / (2 * n)
    for _ in range(ROUNDS):
        scale = _inverse_roots(metric, path)

        def precondition(grad: Tensor, rows: Tensor, scale: Tensor = scale) -> Tensor:
            # where G = D² the Hessian is about D (second difference ⊗ I) D
            own = scale[rows]
            force = own @ grad.unflatten(1, (inside, d))[..., None]
            return (own @ (inverse @ force.squeeze(-1))[..., None]).flatten(1)

        x, gap = minimise(energy, path[:, 1:-1].flatten(1), precondition, tolerance=tolerance,
                          iterations=iterations // ROUNDS)
        path = torch.cat([ends[0], x.unflatten(1, (inside, d)), ends[1]], 1)
        with torch.no_grad():
            if bool((gap <= tolerance * n * metric.steps(path).sum(1)).all()):
                break
    return path, gap


def _inverse_roots(metric: Metric, path: Tensor) -> Tensor:
    """(p, N − 1, d, d): G^(−1/2) at the inner corners of paths; of many latent dimensions the
    stretch along the path alone, which takes no Jacobian."""
    d, inner = path.shape[2], path[:, 1:-1]
    if d <= DIRECTIONS:
        g = torch.as_tensor(metric.tensors(inner.flatten(0, 1)))
        values, vectors = torch.linalg.eigh(g)
        floor = (1e-3 * values.mean(1, keepdim=True)).clamp(min=1e-300)
        root = (vectors * values.clamp(min=floor).rsqrt()[:, None]) @ vectors.mT
        return root.unflatten(0, inner.shape[:2])
    with torch.no_grad():
        stretch = metric.steps(path).sqrt() / path.diff(dim=1).norm(dim=-1).clamp(min=1e-300)
    mean = ((stretch[:, 1:] + stretch[:, :-1]) / 2).clamp(min=1e-150)
    return torch.eye(d, dtype=path.dtype) / mean[..., None, None]


def extrapolate(lengths: Array, gap: Array) -> tuple[Array, Array, Array]:
    """Length (p,), its error (p,) and whether it was extrapolated (p,), from the lengths (3, p) of
    polygons of N/4, N/2 and N sides and the relative gain in energy that the last could make."""
    coarse, middle, fine = lengths
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (middle - coarse) / (fine - middle)
    # of lines and circles the differences are rounding errors
    rounding = 1e-12 * fine
    smooth = (np.abs(ratio - 4) < 1.5) | (np.abs(fine - coarse) < rounding)
    length = np.where(smooth, second + (second - first) / 15, fine)
    error = np.where(smooth, np.abs(second - first) / 15, np.abs(fine - middle))
    return length, error + fine * gap + rounding, smooth


def _extrapolated(metric: Metric, levels: list[Tensor], gap: Tensor) -> tuple[Array, ...]:
    """What :class:`Geodesics` holds, from polygons of N/4, N/2 and N sides."""
    path = levels[-1]
    lengths = np.stack([metric.length(level) for level in levels])
    length, error, smooth = extrapolate(
        lengths, np.asarray(gap) / np.maximum(metric.energy(path), 1e-300))
    # the least energy is d²(a, b), whose gradient in a is −2 G v, and shrinks like the lengths
    g = torch.as_tensor(metric.tensors(path[:, 0]))
    pulls = [_pull_at_start(metric, level) for level in levels]
    last = (64 * pulls[2] - 20 * pulls[1] + pulls[0]) / 45
    pull = torch.where(torch.as_tensor(smooth)[:, None], last, pulls[2])
    velocity = torch.einsum("pij,pj->pi", torch.linalg.pinv(g, hermitian=True), pull)
    share = torch.linspace(0, 1, 8 * path.shape[1] + 1, dtype=path.dtype)[:, None]
    line = metric.length(path[:, :1] + share * (path[:, -1:] - path[:, :1]))
    return np.asarray(path), length, error, line, np.asarray(velocity), lengths


def _pull_at_start(metric: Metric, path: Tensor) -> Tensor:
    """(p, d) minus half the gradient of the energy in the first corner."""
    first = path[:, :1].clone().requires_grad_()
    with torch.enable_grad():
        energy = metric.steps(torch.cat([first, path[:, 1:2]], 1)).sum() * (path.shape[1] - 1)
        return -torch.autograd.grad(energy, first)[0][:, 0] / 2


def _acceleration(metric: Metric, z: Tensor, v: Tensor) -> Tensor:
    def slope(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        return jvp(function, (at,), (v,))[1]  # type: ignore[no-any-return]

    j = metric.jacobian(z)[1]
    g = j @ j.mT
    bend = slope(lambda at: slope(metric.embed, at), z)
    force = -torch.einsum("pid,pd->pi", j, bend)
    if metric.weight is None:
        return torch.linalg.solve(g, force)
    weight = metric.weight
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        log_w_grad, = torch.autograd.grad(weight(leaf).log().sum(), leaf)
    square = torch.einsum("pi,pij,pj->p", v, g, v)
    force = force + log_w_grad * square[:, None] / 2
    return torch.linalg.solve(g, force) - (log_w_grad * v).sum(1, keepdim=True) * v
