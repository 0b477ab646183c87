"""What the latents of a model carry: active units, KL per dimension, mutual information."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from latlas.metrics.arrays import Array, Float, matrix


@dataclass(frozen=True)
class LatentSummary:
    """Figures of Gaussian posteriors over a data set.

    Attributes:
        active: number of active units.
        dims: number of latent dimensions.
        variance: (d,) variance of the posterior means over the data, the most active first is
            ``order[0]``.
        kl: (d,) mean KL to N(0, 1) of each dimension, nats.
        order: (d,) dimensions, most active first.
    """

    active: int
    dims: int
    variance: Float
    kl: Float
    order: Array


def variance_of_means(means: Array) -> Float:
    """(d,) variance over the data of posterior means (n, d), divided by n − 1."""
    return np.asarray(matrix(means, "latents").var(0, dtype=np.float64, ddof=1))


def active_units(means: Array, threshold: float = 0.01) -> int:
    """Units whose posterior mean varies by more than ``threshold`` over the data, from (n, d).

    A_u = Cov_x(E_q(u|x)[u]) > 0.01 (Burda et al. 2016, on inactive units).
    """
    return int((variance_of_means(means) > threshold).sum())


def kl_per_dim(means: Array, log_var: Array) -> Float:
    """(d,) KL(N(μ, σ²) ‖ N(0, 1)) = ½(μ² + σ² − 1 − log σ²), mean over examples (n, d), nats."""
    mu, lv = np.asarray(means, np.float64), np.asarray(log_var, np.float64)
    kl: Float = (0.5 * (mu**2 + np.exp(lv) - 1 - lv)).mean(0)
    return kl


def channel(means: Array, log_var: Array) -> Float:
    """(d,) least upper bound on I(x; z_j) by a normal in the place of q(z_j), nats.

    I(x; z_j) = E_x KL(q(z_j|x) ‖ q(z_j)) ≤ E_x KL(q(z_j|x) ‖ N(m_j, s_j²)), least for the mean and
    variance of q(z_j) itself, where it is ½ (log s_j² − E_x log σ_j²). It takes no prior.
    """
    mu, lv = np.asarray(means, np.float64), np.asarray(log_var, np.float64)
    bound: Float = 0.5 * (np.log(mu.var(0) + np.exp(lv).mean(0)) - lv.mean(0))
    return bound


def latent_summary(means: Array, log_var: Array, threshold: float = 0.01) -> LatentSummary:
    """All metrics of :class:`LatentSummary` from posterior means and log variances, both (n, d)."""
    variance = variance_of_means(means)
    return LatentSummary(int((variance > threshold).sum()), len(variance), variance,
                         kl_per_dim(means, log_var), np.argsort(-variance, kind="stable"))


def mutual_information(means: Array, log_var: Array, *, seed: int = 0, rows: int = 512) -> float:
    """I(x; z) = E_x KL(q(z|x) ‖ q(z)) in nats, one draw of z per example (Hoffman & Johnson 2016).

    q(z) is the mixture of all n posteriors given, so the metric cannot exceed log n; more examples
    give a tighter one. log q(z|x) is taken at the draw too, which cancels part of the noise.

    Args:
        means, log_var: (n, d) posteriors of n examples; time and n² memory by blocks of ``rows``.
    """
    mu, lv = np.asarray(means, np.float64), np.asarray(log_var, np.float64)
    z = mu + np.exp(lv / 2) * np.random.default_rng(seed).standard_normal(mu.shape)
    # the log of the mean density of all posteriors, by the expanded square
    precision = np.exp(-lv)
    constant = -0.5 * (lv + math.log(2 * math.pi) + mu**2 * precision).sum(1)
    mixture = np.concatenate([
        logsumexp(constant - 0.5 * (part**2 @ precision.T) + part @ (mu * precision).T, axis=1)
        for part in (z[i:i + rows] for i in range(0, len(z), rows))]) - math.log(len(mu))
    own = _log_normal(z, mu, lv)
    return float((own - mixture).mean())


def _log_normal(z: Float, mu: Float, lv: Float) -> Float:
    values: Float = -0.5 * ((z - mu) ** 2 * np.exp(-lv) + lv + math.log(2 * math.pi)).sum(-1)
    return values
