"""The latent space: what its dimensions carry, where draws of the prior lead (completeness), how
evenly the decoder moves between them (continuity), and what its latents hold (ELBO surgery)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from latlas.core.errors import DataError
from latlas.metrics.arrays import Array, Float, matrix, nearest
from latlas.metrics.distances import support_distance

LOG_2PI = math.log(2 * math.pi)
#: examples whose mixtures are held in memory at once, (ROWS, n) numbers
ROWS = 256


def active_units(means: Array, threshold: float = 0.01) -> int:
    """Units whose posterior mean varies by more than ``threshold`` over the data, from (n, d).

    A_u = Cov_x(E_q(u|x)[u]) > 0.01, over n − 1 (Burda et al. 2016, on inactive units).
    """
    variance = matrix(means, "latents").var(0, dtype=np.float64, ddof=1)
    return int((variance > threshold).sum())


def kl_per_dim(means: Array, log_var: Array) -> Float:
    """(d,) KL(N(μ, σ²) ‖ N(0, 1)) = ½(μ² + σ² − 1 − log σ²), mean over examples (n, d), nats."""
    mu, lv = np.asarray(means, np.float64), np.asarray(log_var, np.float64)
    return np.asarray((0.5 * (mu**2 + np.exp(lv) - 1 - lv)).mean(0))


def channel(means: Array, log_var: Array) -> Float:
    """(d,) least upper bound on I(x; z_j) by a normal in the place of q(z_j), nats.

    I(x; z_j) = E_x KL(q(z_j|x) ‖ q(z_j)) ≤ E_x KL(q(z_j|x) ‖ N(m_j, s_j²)), least for the mean and
    variance of q(z_j) itself, where it is ½ (log s_j² − E_x log σ_j²). It takes no prior.
    """
    mu, lv = np.asarray(means, np.float64), np.asarray(log_var, np.float64)
    return np.asarray(0.5 * (np.log(mu.var(0) + np.exp(lv).mean(0)) - lv.mean(0)))


def completeness(real: Array, decoded: Array, k: int = 5) -> float:
    """Share of decoded prior draws that lie in the support of real examples, 0 … 1.

    The support is the smaller half of the balls around real examples that reach their k-th nearest
    neighbour, so this is the share of draws of realism score (Kynkäänniemi et al. 2019, eq. 3) at
    least 1. With all balls, as in precision, lone examples span the places between the kinds, and a
    blur of everything counts as covered. One likely thing repeated is complete and covers nothing:
    read it with coverage, the converse, and active units. Fresh real data gets about a half.
    """
    return float((reach(real, decoded, k) <= 1).mean())


def reach(real: Array, decoded: Array, k: int = 5) -> Float:
    """(m,) distance of decoded draws to the support of :func:`completeness`; 1 is its edge."""
    return support_distance(real, decoded, k, keep=0.5)


@dataclass(frozen=True)
class Continuity:
    """The local Lipschitz spectrum of a decoder along paths, in distances between neighbouring real
    examples: 50% and 99% quantile of the slopes ‖g(z+δ) − g(z)‖ / ‖δ‖, and the longest single step
    ‖g(z+δ) − g(z)‖, which halves when the steps do if the decoder is continuous."""

    median: float
    high: float
    largest_jump: float

    @property
    def unevenness(self) -> float:
        """high / median: 1 if the decoder moves evenly; NaN if it does not move."""
        return self.high / self.median if self.median else math.nan


def arcs(start: Array, end: Array, centre: Array, points: int) -> Float:
    """Paths (p, points, d) from each ``start`` (p, d) to each ``end``, ends included.

    c + cos(θ)(a − c) + sin(θ)(b − c) for θ = 0 … π/2. For independent a, b ~ N(c, Σ) every point
    of the path is N(c, Σ) too: a great circle that is right for any covariance.
    """
    if points < 2:
        raise DataError(f"a path needs two points or more, got {points}")
    a, b = np.asarray(start, np.float64) - centre, np.asarray(end, np.float64) - centre
    angle = np.linspace(0, math.pi / 2, points)[:, None]
    return np.asarray(centre + np.cos(angle) * a[:, None] + np.sin(angle) * b[:, None])


def lengths(path: Array) -> Float:
    """Euclidean lengths (…, t − 1) of the steps of paths (…, t, d)."""
    return np.asarray(np.linalg.norm(np.diff(np.asarray(path, np.float64), axis=-2), axis=-1))


def neighbour_distance(x: Array) -> float:
    """Median distance of an example (n, d) to the nearest other: the data's own grain, which
    shrinks as examples are added: compare decoders by the same examples."""
    return float(np.median(nearest(matrix(x, "examples"), x, skip_self=True)[0]))


def continuity(steps: Array, latent_steps: Array, neighbour: float) -> Continuity:
    """The spectrum from the lengths (…) of steps of decoded examples and of latents, in units of
    ``neighbour``, :func:`neighbour_distance` of the data; DataError where one of those is 0."""
    if neighbour <= 0 or (np.asarray(latent_steps) <= 0).any():
        raise DataError("continuity needs paths without rest and data without copies: every step "
                        "of latents and the distance between neighbours above 0")
    moves = np.asarray(steps, np.float64) / neighbour
    median, high = np.quantile(moves / latent_steps, [0.5, 0.99])
    return Continuity(float(median), float(high), float(moves.max()))


def elbo_surgery(means: Array, log_var: Array, *,
                 log_prior: Callable[[Float], Array] | None = None,
                 seed: int = 0) -> dict[str, Float]:
    """What the KL part of the ELBO is made of, per example (n,), nats; averages are the metrics.

    E_x KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ p(z)), and for p(z) = N(0, I)
    KL(q(z) ‖ p(z)) = TC + Σ_j KL(q(z_j) ‖ p(z_j)), TC = KL(q(z) ‖ Π_j q(z_j))
    (Hoffman & Johnson 2016; Chen et al. 2018, eq. 2). Time n² d.

    q(z) is the mixture of the n posteriors given, every term is taken at one draw of each, so
    both sums are exact, and the averages are unbiased for *these n examples*. I never exceeds
    log n; for the population behind them it is too low by what log n cannot hold, and TC and
    KL(q(z) ‖ p(z)) are too high by as much. ``information_upper`` leaves the example's own
    posterior out of the mixture: on average it is not below the population's I, so the two enclose
    it (Poole et al. 2019, structured bounds with tractable encoders).

    Args:
        means, log_var: (n, d) posteriors of n examples.
        log_prior: (m, d) latents to log p(z) (m,); standard normal if ``None``.
    Returns:
        ``kl``, ``information``, ``information_upper``, ``marginal_kl``, ``total_correlation``
        (n,), and ``dimension_kl`` (n, d) against N(0, 1).
    """
    mu, lv = matrix(means, "means").astype(np.float64), np.asarray(log_var, np.float64)
    z = mu + np.exp(lv / 2) * np.random.default_rng(seed).standard_normal(mu.shape)
    n = len(z)
    # log q(z), the same without the example's own posterior, log q(z_j); means from here on sums
    joint, others, each = np.empty(n), np.empty(n), np.empty_like(z)
    for rows in (np.arange(s, min(s + ROWS, n)) for s in range(0, n, ROWS)):
        log_q = np.zeros((len(rows), n))
        for j in range(z.shape[1]):
            log_q_j = _log_normal(z[rows, j, None], mu[:, j], lv[:, j])
            each[rows, j] = logsumexp(log_q_j, axis=1)
            log_q += log_q_j
        joint[rows] = logsumexp(log_q, axis=1)
        log_q[rows - rows[0], rows] = -np.inf
        others[rows] = logsumexp(log_q, axis=1)
    joint, others, each = joint - math.log(n), others - math.log(n - 1), each - math.log(n)
    own, unit = _log_normal(z, mu, lv).sum(1), _log_normal(z, 0.0, 0.0)
    prior = unit.sum(1) if log_prior is None else np.asarray(log_prior(z), np.float64)
    return {"kl": own - prior, "information": own - joint, "information_upper": own - others,
            "marginal_kl": joint - prior, "total_correlation": joint - each.sum(1),
            "dimension_kl": each - unit}


def linear_total_correlation(means: Array, log_var: Array | None = None) -> float:
    """−½ log|R| of the latents' correlation matrix R, nats: TC of a Gaussian with their covariance.

    From posteriors (n, d), n > d; without ``log_var`` the latents are points. It sees linear
    dependence alone, and needs few examples where :func:`elbo_surgery` needs many. Infinite where a
    dimension is a linear function of the others.
    """
    mu = matrix(means, "means", 2).astype(np.float64)
    spread = 0.0 if log_var is None else np.exp(np.asarray(log_var, np.float64)).mean(0)
    covariance = np.atleast_2d(np.cov(mu.T)) + np.diag(np.broadcast_to(spread, mu.shape[1:]))
    moving = np.diag(covariance) > 0
    sd = np.sqrt(np.diag(covariance)[moving])
    sign, log_det = np.linalg.slogdet(covariance[np.ix_(moving, moving)] / np.outer(sd, sd))
    return float(-0.5 * log_det) if sign > 0 else math.inf


def _log_normal(z: Float, mu: Float | float, lv: Float | float) -> Float:
    """Log density of every number, nothing summed."""
    return np.asarray(-0.5 * ((z - mu) ** 2 * np.exp(-np.asarray(lv)) + lv + LOG_2PI))
