"""Importance-weighted autoencoder (Burda et al. 2016) and its gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from latlas.core.distributions import Posterior
from latlas.core.errors import ConfigError
from latlas.core.model import Batch, Loss, Step
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.vae import VAE, VAEConfig
from latlas.objectives.elbo import log_mean_weight, reparameterise_twice, trimmed_mean


@dataclass(frozen=True)
class IWAEConfig(VAEConfig):
    """Importance-weighted autoencoder."""

    draws: int = option(5, "draws of the latents per example and step", low=1)
    bound: str = option("importance", "of the draws' weights: the logarithm of their mean "
                        "(importance), or the mean of their logarithms, a VAE's (average)",
                        choices=("importance", "average"))
    gradient: str = option("auto", "of the encoder; auto: dreg, doubly reparameterised, where the "
                           "importance bound has more than one draw, else reparameterised",
                           choices=("auto", "reparameterised", "dreg"))

    def __post_init__(self) -> None:
        if self.free_bits > 0:
            raise ConfigError(f"free_bits={self.free_bits:g} needs the KL of every latent "
                              "dimension, which a bound over draws has not; leave it out, or train "
                              "vae", option="free_bits")

    def resolve(self, space: Space) -> Self:
        """The gradient as well."""
        gradient = self.gradient
        if gradient == "auto":
            several = self.bound == "importance" and self.draws > 1
            gradient = "dreg" if several else "reparameterised"
        return replace(super().resolve(space), gradient=gradient)


class IWAE(VAE):
    """A VAE trained on log 1/K Σ p(x, z_k)/q(z_k|x) of K draws (eq. 8), tighter than its bound.

    With ``bound=average`` on 1/K Σ log p(x, z_k)/q(z_k|x), the VAE's bound of K draws (eq. 3).
    """

    Config = IWAEConfig

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Negative bound, mean nats per example in model units; an example is encoded once."""
        x = self.preprocess(batch.x, step.noise)
        q: Posterior = self.encode(x)
        z = q.draws(self.config.draws, step.noise)
        log_px = self.decode(z).log_prob(x)
        twice, weight = self.config.gradient == "dreg", self.kl_weight(step)
        kl = (q.detached() if twice else q).log_prob(z) - self.prior.log_prob(z)
        log_w = log_px - weight * kl
        if self.config.bound == "average":
            bound = log_w.mean(0)
        else:
            if twice:
                reparameterise_twice(z, log_w, weight)
            bound = log_mean_weight(log_w)
        total = trimmed_mean(-bound, self.config.trimmed_fraction)
        return Loss(total, {"loss": total, "reconstruction": -log_px.mean(), "kl": kl.mean()})
