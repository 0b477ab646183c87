"""Kullback–Leibler divergences in closed form, nats."""

from __future__ import annotations

import torch
from torch import Tensor


def kl_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) of every dimension, same shape as ``mean``, nats, non-negative.

    ½ (μ² + σ² − 1 − log σ²) with σ² = exp(``log_var``) (Kingma & Welling 2014, appendix B).
    """
    mean, log_var = mean.float(), log_var.float()
    return 0.5 * (mean.square() + torch.exp(log_var) - 1 - log_var)


def kl_normal(mean: Tensor, log_var: Tensor, mean2: Tensor, log_var2: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(μ₂, σ₂²)) of every dimension, nats.

    ½ [log σ₂²/σ² + (σ² + (μ − μ₂)²)/σ₂² − 1].
    """
    ratio = torch.exp(log_var - log_var2)
    return 0.5 * (log_var2 - log_var + ratio + (mean - mean2).square() * torch.exp(-log_var2) - 1)


def free_bits(kl: Tensor, floor: float) -> Tensor:
    """KL per item (n,) that costs at least ``floor`` nats in every dimension.

    Σ_j max(λ, E_batch KL_j) (Kingma et al. 2016, eq. 15), spread evenly over the batch; the
    expectation couples the items of a batch. ``kl`` is (n, d).
    """
    if floor <= 0:
        return kl.sum(-1)
    return kl.mean(0).clamp(min=floor).sum().expand(len(kl))
