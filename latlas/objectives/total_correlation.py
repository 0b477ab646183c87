"""KL(q(z) ‖ Π_j q(z_j)) of the aggregate posterior q(z) = E_x q(z|x), nats, from batches."""

from __future__ import annotations

import torch
from torch import Tensor

from latlas.core.distributions import Normal
from latlas.core.noise import Noise


def total_correlation(z: Tensor, q: Normal, items: int = 0) -> Tensor:
    """log q(z) − Σ_j log q(z_j) per item, (n,) nats, each by :func:`log_aggregate`.

    ``z`` (n, d) holds one draw of every q(z|x), ``items`` is N, the size of the training set. The
    mean over items is an estimate of the total correlation whose logarithms of noisy means lean
    downward, of log q(z) more than of the log q(z_j). n² d memory.
    """
    every = Normal(q.mean[..., None], q.log_var[..., None])
    log_q = every.log_prob(z[:, None, :, None])  # (n, n, d): draw i under posterior j
    return log_aggregate(log_q.sum(-1), items) - log_aggregate(log_q, items).sum(-1)


def log_aggregate(log_q: Tensor, items: int = 0) -> Tensor:
    """log q(z_i) from log q(z_i|x_j), (n, n, \\*more) to (n, \\*more), nats.

    q(z_i) is a mean over N = ``items`` items, of which the batch holds z_i's own, with weight 1/N,
    and n − 1 others, which share the rest: unbiased before the logarithm (minibatch stratified
    sampling, Chen et al. 2018, appendix C.2, the last item's weight spread over all others). N
    under n takes the batch for the whole; a draw then stands out from it by log n nats at most,
    so that a code of more information is held to be correlated, and is pushed back.
    """
    n = len(log_q)
    own = 1 / max(n, items)
    weight = torch.full((n, n), (1 - own) / max(1, n - 1)).fill_diagonal_(own).log().to(log_q)
    return (log_q + weight.reshape(n, n, *(1 for _ in log_q.shape[2:]))).logsumexp(1)


def permute_dims(z: Tensor, noise: Noise) -> Tensor:
    """Every column of (n, d) in an order of its own: draws of Π_j q(z_j).

    (Kim & Mnih 2018, algorithm 1.)
    """
    order = noise.uniform(*z.shape).to(z.device).argsort(0)
    return z.gather(0, order)
