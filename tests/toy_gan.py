"""A generative adversarial network in the plane: two players and a lazy penalty."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.distributions import PointMass
from latlas.core.model import Loss, Model, Phase, Step
from latlas.core.noise import Noise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.priors import StandardNormal
from latlas.networks.mlp import mlp


@dataclass(frozen=True)
class ToyGANConfig:
    """Toy GAN."""

    latent_dim: int = option(2, "size of the code", low=1)
    width: int = option(64, "units of a hidden layer", low=1)
    depth: int = option(1, "residual blocks", low=0)
    penalty: float = option(0.1, "weight of the R1 penalty", low=0)


class ToyGAN(Model):
    """Non-saturating GAN (Goodfellow et al. 2014, section 3) with R1 (Mescheder et al. 2018)."""

    Config = ToyGANConfig
    provides = frozenset({"sample", "decode"})
    ema_modules = ("generator",)
    phases = (Phase("discriminator", ("discriminator",)),
              Phase("penalty", ("discriminator",), every=4),
              Phase("generator", ("generator",)))

    def __init__(self, config: ToyGANConfig, space: Space) -> None:
        super().__init__(config, space)
        self.latent_dim = config.latent_dim
        self.generator = mlp(config.latent_dim, space.dims, config.width, config.depth)
        self.discriminator = mlp(space.dims, 1, config.width, config.depth)
        self.prior = StandardNormal(config.latent_dim)

    def loss(self, batch: Batch, phase: str, step: Step) -> Loss:
        """One player's loss, nats per item."""
        return {"discriminator": self.judge, "penalty": self.smooth,
                "generator": self.fool}[phase](batch, step)

    def judge(self, batch: Batch, step: Step) -> Loss:
        """−E log D(x) − E log(1 − D(G(z)))."""
        fakes = step.cache["fakes"] = self.sample(len(batch), noise=step.noise)
        real, fake = self.discriminator(batch.x), self.discriminator(fakes.detach())
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        return Loss(loss, {"discriminator": loss})

    def smooth(self, batch: Batch, step: Step) -> Loss:
        """γ/2 E‖∇D(x)‖²."""
        x = batch.x.clone().requires_grad_()
        slope, = torch.autograd.grad(self.discriminator(x).sum(), x, create_graph=True)
        loss = 0.5 * self.config.penalty * slope.square().sum(1).mean()
        return Loss(loss, {"penalty": loss})

    def fool(self, batch: Batch, step: Step) -> Loss:
        """−E log D(G(z)), on the fakes that the discriminator has judged."""
        loss = F.softplus(-self.discriminator(step.cache["fakes"])).mean()
        return Loss(loss, {"generator": loss})

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """G(z), z ~ N(0, I): (n, *shape) model units."""
        return self.decode(self.prior.sample(n, noise).to(self.device)).mean

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> PointMass:
        """(*batch, latent_dim) to (*batch, *shape)."""
        return PointMass(self.generator(z).float().unflatten(-1, self.space.shape))
