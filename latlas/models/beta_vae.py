"""β-VAE (Higgins et al. 2017)."""

from __future__ import annotations

from torch import Tensor

from latlas.core.distributions import Normal
from latlas.core.model import Step
from latlas.models.vae import VAE


class BetaVAE(VAE):
    """A VAE whose KL term weighs β (eq. 4): β > 1 asks for fewer, independent code dimensions."""

    def regulariser(self, kl: Tensor, z: Tensor, q: Normal, step: Step) -> Tensor:
        """β · KL, per item."""
        weighted: Tensor = self.config.beta * super().regulariser(kl, z, q, step)
        return weighted
