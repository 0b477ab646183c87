"""Mixtures of diagonal normals, nats."""

from __future__ import annotations

import torch
from torch import Tensor

from latlas.core.distributions import LOG_2PI


def log_mixture(z: Tensor, mean: Tensor, log_var: Tensor, log_weights: Tensor) -> Tensor:
    """log Σ_k w_k N(z; μ_k, diag σ_k²), (*batch, d) to (*batch,), nats.

    ``mean`` and ``log_var`` are (K, d), ``log_weights`` (K,) or (1,). The squares are multiplied
    out into matrix products, which need no (*batch, K, d), in float64, where nothing is lost.
    """
    wide, mean, log_var = z.double(), mean.double(), log_var.double()
    precision = torch.exp(-log_var)
    square = wide.square() @ precision.T - 2 * wide @ (mean * precision).T
    rest = (mean.square() * precision + log_var + LOG_2PI).sum(-1)
    joint = log_weights.double() - 0.5 * (square + rest)
    return joint.logsumexp(-1).to(z.dtype)
