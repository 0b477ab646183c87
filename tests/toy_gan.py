"""A generative adversarial network in the plane, with a lazy gradient penalty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.distributions import PointMass
from latlas.core.model import Batch, Loss, Model, Phase, Step, TrainingDefaults
from latlas.core.noise import Noise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.priors import StandardNormal
from latlas.networks.mlp import mlp


@dataclass(frozen=True)
class ToyGANConfig:
    """Toy GAN."""

    latent_dim: int = option(2, "latent dimensions", low=1)
    width: int = option(64, "units of a hidden layer", low=1)
    depth: int = option(1, "residual blocks", low=0)
    penalty: float = option(0.1, "weight of the R1 penalty", low=0)


class ToyGAN(Model):
    """Non-saturating GAN (Goodfellow et al. 2014, section 3) with R1 (Mescheder et al. 2018)."""

    Config = ToyGANConfig
    defaults = TrainingDefaults(ema_modules=("generator",))
    phases = (Phase("discriminator", ("discriminator",)),
              Phase("penalty", ("discriminator",), every=4),
              Phase("generator", ("generator",)))

    def __init__(self, config: ToyGANConfig, space: Space) -> None:
        super().__init__(config, space)
        self.latent_dim = config.latent_dim
        self.generator = mlp(config.latent_dim, space.dims, config.width, config.depth)
        self.discriminator = mlp(space.dims, 1, config.width, config.depth)
        self.prior = StandardNormal(config.latent_dim)

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """−E log D(x) − E log(1 − D(G(z))); γ/2 E‖∇D(x)‖² at every fourth step; −E log D(G(z))."""
        fakes = self.sample(len(batch), noise=step.noise)
        real, fake = self.discriminator(batch.x), self.discriminator(fakes.detach())
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        yield "discriminator", Loss(loss, {"discriminator": loss})
        if step.due(4):
            x = batch.x.clone().requires_grad_()
            slope, = torch.autograd.grad(self.discriminator(x).sum(), x, create_graph=True)
            penalty = 0.5 * self.config.penalty * slope.square().sum(1).mean()
            yield "penalty", Loss(penalty, {"penalty": penalty})
        loss = F.softplus(-self.discriminator(fakes)).mean()
        yield "generator", Loss(loss, {"generator": loss})

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """G(z), z ~ N(0, I): (n, *shape) model units."""
        return self.decode(self.prior.sample(n, noise).to(self.device)).mean

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> PointMass:
        """(*batch, latent_dim) to (*batch, *shape)."""
        return PointMass(self.generator(z).float().unflatten(-1, self.space.shape))
