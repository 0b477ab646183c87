"""VAEs whose latent dimensions are to be independent: β-VAE, β-TC-VAE and FactorVAE."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.distributions import Normal
from latlas.core.model import Batch, Loss, Phase, Step
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.vae import VAE, VAEConfig
from latlas.networks.mlp import leaky_mlp
from latlas.objectives.elbo import permute_dims, total_correlation

#: a discriminator that lags behind the latents finds them independent whatever they are
DISCRIMINATOR_BETAS = (0.5, 0.9)


@dataclass(frozen=True)
class BetaVAEConfig(VAEConfig):
    """β-VAE: the KL term weighs β."""

    beta: float = option(4.0, "weight of the KL term", low=0)


class BetaVAE(VAE):
    """A VAE whose KL weighs β (Higgins et al. 2017, eq. 4): β > 1 asks for fewer, independent
    latent dimensions."""

    Config = BetaVAEConfig

    def kl_weight(self, step: Step) -> float | Tensor:
        """β times that of a VAE."""
        return self.config.beta * super().kl_weight(step)


@dataclass(frozen=True)
class AnnealedVAEConfig(VAEConfig):
    """A VAE that finds one factor after the other, the weightiest first."""

    kl_warmup: float = option(0.6, "share of the budget over which the KL weight goes from "
                              "kl_weight_start to 1", low=0, high=1)
    kl_weight_start: float = option(20.0, "weight of KL and total correlation at the start of "
                                    "kl_warmup; above 1 it is annealed downward", low=0)


@dataclass(frozen=True)
class BetaTCVAEConfig(AnnealedVAEConfig):
    """β-TC-VAE: the total correlation of the latents weighs β."""

    beta: float = option(6.0, "weight of the total correlation; 1 is a VAE", low=0)


class BetaTCVAE(VAE):
    """A VAE whose total correlation weighs β, the rest of its KL 1.

    (Chen et al. 2018, eq. 4 with α = γ = 1.) The total correlation is estimated within a batch, so
    it couples the examples of a batch.
    """

    Config = BetaTCVAEConfig

    def regularisers(self, z: Tensor, q: Normal, step: Step) -> dict[str, tuple[float, Tensor]]:
        """β − 1 times the total correlation beside the KL, which holds it once."""
        return {"total correlation": (self.config.beta - 1, total_correlation(z, q))}


@dataclass(frozen=True)
class FactorVAEConfig(AnnealedVAEConfig):
    """FactorVAE: γ times the total correlation, by a discriminator."""

    gamma: float = option(10.0, "weight of the total correlation; 0 is a VAE", low=0)
    discriminator_width: int = option(256, "units of the discriminator's hidden layers", low=1)
    discriminator_depth: int = option(5, "hidden layers of the discriminator", low=1)


class FactorVAE(VAE):
    """The bound less γ times the total correlation (Kim & Mnih 2018, eq. 2), by a density ratio.

    A discriminator learns the log-odds that latents come from q(z), not from Π_j q(z_j): its
    output is the total correlation of one latent vector, nats (eq. 3). Permuting latents couples
    the examples of a batch.
    """

    Config = FactorVAEConfig

    def __init__(self, config: FactorVAEConfig, space: Space, *, encoder: nn.Module | None = None,
                 decoder: nn.Module | None = None) -> None:
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        # leaky ReLU as in appendix A: learns a thin sheet of latents quickly
        self.discriminator = leaky_mlp(self.latent_dim, 1, config.discriminator_width,
                                       config.discriminator_depth)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The VAE, then the discriminator."""
        own = tuple(name for name, _ in self.named_children() if name != "discriminator")
        return (Phase("vae", own),
                Phase("discriminator", ("discriminator",), betas=DISCRIMINATOR_BETAS))

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """Negative bound and γ TC, mean nats per example; then the discriminator's loss on the
        latents that were drawn for it."""
        loss, z = self.loss_and_latents(batch, step)
        yield "vae", loss
        yield "discriminator", self.discriminator_loss(z.detach(), step)

    def regularisers(self, z: Tensor, q: Normal, step: Step) -> dict[str, tuple[float, Tensor]]:
        """γ times the total correlation as the discriminator has it."""
        return {"total correlation": (self.config.gamma, self.log_density_ratio(z))}

    def discriminator_loss(self, z: Tensor, step: Step) -> Loss:
        """−½ E log D(z) − ½ E log(1 − D(permuted z)) (algorithm 2); log 2 for a coin."""
        real = self.log_density_ratio(z)
        permuted = self.log_density_ratio(permute_dims(z, step.noise))
        loss = 0.5 * (F.softplus(-real).mean() + F.softplus(permuted).mean())
        return Loss(loss, {"discriminator": loss})

    def log_density_ratio(self, z: Tensor) -> Tensor:
        """log q(z) − Σ_j log q(z_j) as the discriminator has it, (n, d) to (n,) nats."""
        return self.discriminator(z).float()[:, 0]
