"""Bounds on log p(x) and their parts, nats."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from latlas.core.distributions import Posterior
from latlas.core.noise import Noise

#: latents (K, n, d) to nats (K, n)
Density = Callable[[Tensor], Tensor]


def kl_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) of every dimension, same shape as ``mean``, nats, non-negative.

    ½ (μ² + σ² − 1 − log σ²) with σ² = exp(``log_var``) (Kingma & Welling 2014, appendix B).
    """
    mean, log_var = mean.float(), log_var.float()
    return 0.5 * (mean.square() + torch.exp(log_var) - 1 - log_var)


def free_bits(kl: Tensor, floor: float) -> Tensor:
    """KL per example (n,) that costs at least ``floor`` nats in every dimension.

    Σ_j max(λ, E_batch KL_j) (Kingma et al. 2016, eq. 15), spread evenly over the batch; the
    expectation couples the examples of a batch. ``kl`` is (n, d).
    """
    if floor <= 0:
        return kl.sum(-1)
    return kl.mean(0).clamp(min=floor).sum().expand(len(kl))


def trimmed_mean(losses: Tensor, fraction: float) -> Tensor:
    """Mean of the examples' losses (n,) without the largest ⌊fraction · n⌋ of them.

    Least trimmed squares (Rousseeuw 1984) for any loss: what fits worst, outliers above all, does
    not move the weights. It couples the examples of a batch. ``fraction`` 0 is the plain mean.

    >>> trimmed_mean(torch.tensor([1.0, 2.0, 300.0]), 0.34)
    tensor(1.5000)
    """
    trimmed = int(fraction * len(losses))
    if trimmed == 0:
        return losses.mean()
    return losses.topk(len(losses) - trimmed, largest=False, sorted=False).values.mean()


class ImportanceBound:
    """log 1/K Σ_k w_k and its effective sample size, accumulated over chunks of draws.

    w_k = p(x, z_k) / q(z_k | x) (Burda et al. 2016, eq. 8). Effective sample size
    (Σ w)² / Σ w² (Kong 1992), between 1 and K. float64 sums of exponentials never overflow:
    both are kept as log-sums.
    """

    def __init__(self) -> None:
        self.draws = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def add(self, log_w: Tensor) -> None:
        """Log weights of more draws, (k, n)."""
        log_w = log_w.double()
        first, second = log_w.logsumexp(0), (2 * log_w).logsumexp(0)
        if self._first is not None and self._second is not None:
            first = torch.logaddexp(self._first, first)
            second = torch.logaddexp(self._second, second)
        self._first, self._second = first, second
        self.draws += len(log_w)

    def result(self) -> tuple[Tensor, Tensor]:
        """The bound (n,) in nats and the effective sample size (n,)."""
        if self._first is None or self._second is None:
            raise ValueError("no draws were added")
        ess = torch.exp(2 * self._first - self._second)
        return self._first - math.log(self.draws), ess


def importance_bound(log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Bound and effective sample size of log weights (K, n) of all draws at once."""
    bound = ImportanceBound()
    bound.add(log_w)
    return bound.result()


def log_mean_weight(log_w: Tensor) -> Tensor:
    """log 1/K Σ_k w_k of log weights (K, n): (n,) nats (Burda et al. 2016, eq. 8)."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def reparameterise_twice(z: Tensor, log_w: Tensor, kl_weight: float = 1.0) -> None:
    """Make the gradient of :func:`log_mean_weight` the doubly reparameterised one.

    The gradient that reaches draw z_k is multiplied by its normalised weight w̃_k, which makes it
    Σ w̃_k² ∂log w_k/∂z_k ∂z_k/∂φ (Tucker et al. 2019, eq. 8) where ``log_w`` was made with a
    posterior whose parameters are held fixed. If log q(z|x) weighs β = ``kl_weight`` in log w, the
    score function it stands for weighs β too, and the factor is 1 − β (1 − w̃_k).

    Args:
        z: (K, n, d) draws, from which ``log_w`` (K, n) was computed.
    """
    if z.requires_grad:
        factor = 1 - kl_weight * (1 - log_w.detach().softmax(0))[..., None]
        z.register_hook(lambda gradient: gradient * factor)


def log_weights(q: Posterior, log_prior: Density, log_likelihood: Density, draws: int,
                noise: Noise) -> Tensor:
    """log p(x|z) + log p(z) − log q(z|x) for fresh draws of z from q (n, d): (draws, n), nats."""
    z = q.draws(draws, noise)
    return log_likelihood(z) + (log_prior(z) - q.log_prob(z))


def weighted_error(ess: Tensor, draws: int) -> Tensor:
    """Standard error of log 1/K Σ w_k over the draws, nats, from the effective sample size.

    √((K/ESS − 1) / (K − 1)), which is √(1/ESS − 1/K) but for a factor near 1: the relative error
    of a mean, by the delta method. Too small where few draws carry the sum; NaN for one draw.
    """
    return ((draws / ess - 1).clamp(min=0) / (draws - 1)).sqrt()


def mean_error(draws: Tensor) -> Tensor:
    """Standard error of the mean over the first dimension (K, n): sd / √K; NaN for one draw."""
    centred = draws - draws.mean(0)
    return (centred.square().sum(0) / (len(draws) - 1) / len(draws)).sqrt()
