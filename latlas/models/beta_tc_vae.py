"""β-TC-VAE (Chen et al. 2018)."""

from __future__ import annotations

from torch import Tensor

from latlas.core.distributions import Normal
from latlas.core.model import Step
from latlas.models.vae import VAE
from latlas.objectives.total_correlation import total_correlation


class BetaTCVAE(VAE):
    """A VAE whose total correlation weighs β (eq. 4 with α = γ = 1), the rest of its KL 1.

    The total correlation is estimated within a batch, so it couples the items of a batch.
    """

    def regulariser(self, kl: Tensor, z: Tensor, q: Normal, step: Step) -> Tensor:
        """KL + (β − 1) TC, per item."""
        base = super().regulariser(kl, z, q, step)
        return base + (self.config.beta - 1) * total_correlation(z, q)
