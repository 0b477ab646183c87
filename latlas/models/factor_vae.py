"""FactorVAE (Kim & Mnih 2018): a discriminator tells the codes of a VAE from permuted ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.distributions import Normal
from latlas.core.model import Loss, Phase, Step
from latlas.core.space import Space
from latlas.models.config import FactorVAEConfig
from latlas.models.vae import VAE
from latlas.networks.mlp import leaky_mlp
from latlas.objectives.total_correlation import permute_dims

#: a discriminator that lags behind the codes finds them independent whatever they are
DISCRIMINATOR_BETAS = (0.5, 0.9)


class FactorVAE(VAE):
    """The bound less γ times the total correlation (eq. 2), by a density ratio (eq. 3).

    A discriminator learns the log-odds that a code comes from q(z), not from Π_j q(z_j): its
    output is the total correlation of one code, nats. Permuting codes couples the items of a
    batch.
    """

    def __init__(self, config: FactorVAEConfig, space: Space, *, encoder: nn.Module | None = None,
                 decoder: nn.Module | None = None) -> None:
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        # leaky ReLU as in appendix A: learns a thin sheet of codes quickly
        self.discriminator = leaky_mlp(self.latent_dim, 1, config.discriminator_width,
                                       config.discriminator_depth)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The VAE, then the discriminator on the codes that the VAE has just drawn."""
        own = tuple(name for name, _ in self.named_children() if name != "discriminator")
        return (Phase("vae", own),
                Phase("discriminator", ("discriminator",), betas=DISCRIMINATOR_BETAS))

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """The VAE's loss, then the discriminator's on the latents that the VAE has just drawn."""
        yield "vae", self.loss(batch, step)
        yield "discriminator", self.discriminator_loss(self.latents, step)

    def discriminator_loss(self, latents: Tensor, step: Step) -> Loss:
        """−½ E log D(z) − ½ E log(1 − D(permuted z)) (algorithm 2); log 2 for a coin."""
        real = self._log_odds(latents)
        permuted = self._log_odds(permute_dims(latents, step.noise))
        loss = 0.5 * (F.softplus(-real).mean() + F.softplus(permuted).mean())
        return Loss(loss, {"discriminator": loss})

    def loss(self, batch: Batch, step: Step) -> Loss:
        """The VAE's loss, mean nats per example."""
        bound = super().loss(batch, step)
        return Loss(bound.total, bound.terms | {"total correlation": self.tc})

    def regulariser(self, kl: Tensor, z: Tensor, q: Normal, step: Step) -> Tensor:
        """KL + γ TC, per example."""
        tc = self._log_odds(z)
        self.latents, self.tc = z.detach(), tc.mean()
        base: Tensor = super().regulariser(kl, z, q, step)
        return base + self.config.gamma * tc

    def _log_odds(self, z: Tensor) -> Tensor:
        """log q(z) − Σ_j log q(z_j) as the discriminator has it, (n,) nats."""
        odds: Tensor = self.discriminator(z).float()[:, 0]
        return odds
