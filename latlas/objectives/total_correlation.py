"""KL(q(z) ‖ Π_j q(z_j)) of the aggregate posterior q(z) = E_x q(z|x), nats, from batches."""

from __future__ import annotations

import math

from torch import Tensor

from latlas.core.distributions import Normal
from latlas.core.noise import Noise


def total_correlation(z: Tensor, q: Normal) -> Tensor:
    """log q(z) − Σ_j log q(z_j) per example, (n,) nats; q(z) is the mean of q(z|x) over the batch.

    ``z`` (n, d) holds one draw of every q(z|x). Minibatch-weighted sampling (Chen et al. 2018,
    eq. 5) with the batch as the population: a training set of N examples would add (d − 1) log N/n
    to every value and nothing to any gradient, so N need not be known. The mean over examples is
    Σ_j I(x; z_j) − I(x; z) of the batch, none of which can exceed log n nats: of latents that hold
    more the joint information is cut off first, and the estimate is too large. n² d memory.
    """
    every = Normal(q.mean[..., None], q.log_var[..., None])
    log_q = every.log_prob(z[:, None, :, None])  # (n, n, d): draw i under posterior j
    joint = log_q.sum(-1).logsumexp(1)
    apart = log_q.logsumexp(1).sum(-1)
    return joint - apart + (z.shape[1] - 1) * math.log(len(z))


def permute_dims(z: Tensor, noise: Noise) -> Tensor:
    """Every column of (n, d) in an order of its own: draws of Π_j q(z_j).

    (Kim & Mnih 2018, algorithm 1.)
    """
    order = noise.uniform(*z.shape).to(z.device).argsort(0)
    return z.gather(0, order)
