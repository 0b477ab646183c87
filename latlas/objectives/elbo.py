"""Bounds on log p(x) and their parts, nats."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from latlas.core.distributions import Normal, Posterior
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


def total_correlation(z: Tensor, q: Normal) -> Tensor:
    """log q(z) − Σ_j log q(z_j) per example, (n,) nats; q(z) is the mean of q(z|x) over the batch.

    Its expectation is KL(q(z) ‖ Π_j q(z_j)). ``z`` (n, d) holds one draw of every q(z|x).
    Minibatch-weighted sampling (Chen et al. 2018, eq. 5) with the batch as the population: a
    training set of N examples would add (d − 1) log N/n to every value and nothing to any gradient,
    so N need not be known. The mean over examples is Σ_j I(x; z_j) − I(x; z) of the batch, none of
    which can exceed log n nats: of latents that hold more the joint information is cut off first,
    and the estimate is too large. n² d memory.
    """
    every = Normal(q.mean[..., None], q.log_var[..., None])
    log_q = every.log_prob(z[:, None, :, None])  # (n, n, d): draw i under posterior j
    joint = log_q.sum(-1).logsumexp(1)
    apart = log_q.logsumexp(1).sum(-1)
    return joint - apart + (z.shape[1] - 1) * math.log(len(z))


def permute_dims(z: Tensor, noise: Noise) -> Tensor:
    """Every column of (n, d) in an order of its own: draws of Π_j q(z_j) (Kim & Mnih 2018,
    algorithm 1)."""
    order = noise.uniform(*z.shape).to(z.device).argsort(0)
    return z.gather(0, order)


class ImportanceBound:
    """log 1/K Σ_k w_k and its effective sample size, accumulated over chunks of draws.

    w_k = p(x, z_k) / q(z_k | x) (Burda et al. 2016, eq. 8). Effective sample size
    (Σ w)² / Σ w² (Kong 1992), between 1 and K. Both sums are kept as logarithms, float64, which
    never overflow.
    """

    def __init__(self) -> None:
        self.draws = 0
        self.log_sums = torch.full((2, 1), -math.inf, dtype=torch.float64)  # of w, of w²

    def add(self, log_w: Tensor) -> None:
        """Log weights of more draws, (k, n)."""
        log_w = log_w.double()
        sums = torch.stack([log_w.logsumexp(0), (2 * log_w).logsumexp(0)])
        self.log_sums = torch.logaddexp(self.log_sums.to(sums.device), sums)
        self.draws += len(log_w)

    def result(self) -> tuple[Tensor, Tensor]:
        """The bound (n,) in nats and the effective sample size (n,)."""
        if not self.draws:
            raise ValueError("no draws were added")
        first, second = self.log_sums
        return first - math.log(self.draws), torch.exp(2 * first - second)


def importance_bound(log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Bound and effective sample size of log weights (K, n) of all draws at once."""
    bound = ImportanceBound()
    bound.add(log_w)
    return bound.result()


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
