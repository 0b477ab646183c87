"""p(z): what codes are drawn from, and what the posterior is held to."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from latlas.core.distributions import Normal
from latlas.core.noise import Noise
from latlas.objectives.divergences import kl_standard_normal


class Prior(nn.Module, ABC):
    """A density over codes of ``dims`` numbers, nats."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), (*batch, dims) to (*batch,), nats."""

    @abstractmethod
    def sample(self, n: int, noise: Noise) -> Tensor:
        """(n, dims) draws, on the device of ``noise``."""

    def kl(self, q: Normal, z: Tensor) -> Tensor:
        """KL(q ‖ p) per item in one or more parts, (n, parts), nats: here log q(z) − log p(z).

        Unbiased for the one draw z ~ q, (n, dims); a prior with a closed form overrides it.
        """
        return (q.log_prob(z) - self.log_prob(z))[:, None]


class StandardNormal(Prior):
    """N(0, I)."""

    def log_prob(self, z: Tensor) -> Tensor:
        return Normal(torch.zeros_like(z), z.new_zeros(())).log_prob(z)

    def sample(self, n: int, noise: Noise) -> Tensor:
        return noise.normal(n, self.dims)

    def kl(self, q: Normal, z: Tensor) -> Tensor:
        """In closed form, of every dimension."""
        return kl_standard_normal(q.mean, q.log_var)


class FullNormal(Prior):
    """N(mean, factor factorᵀ) with a lower triangular factor: a Gaussian fitted to codes."""

    def __init__(self, mean: Tensor, factor: Tensor) -> None:
        super().__init__(len(mean))
        self.mean, self.factor = mean, factor

    def log_prob(self, z: Tensor) -> Tensor:
        white = torch.linalg.solve_triangular(self.factor, (z - self.mean)[..., None], upper=False)
        standard = StandardNormal(self.dims).log_prob(white[..., 0])
        return standard - self.factor.diagonal().log().sum()

    def sample(self, n: int, noise: Noise) -> Tensor:
        return self.mean + noise.normal(n, self.dims).to(self.mean) @ self.factor.T
