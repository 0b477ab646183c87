"""Autoencoder and denoising autoencoder: squared error through a bottleneck."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.distributions import PointMass
from latlas.core.model import Loss, Step
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.models.autoencoding import Autoencoding
from latlas.models.config import AEConfig
from latlas.models.priors import FullNormal


class AE(Autoencoding):
    """Encoder and decoder trained on squared error (Hinton & Salakhutdinov 2006).

    It has no prior; :meth:`finish` fits a Gaussian to the training codes, from which ``sample``
    draws.
    """

    code_mean: Tensor
    code_factor: Tensor

    def __init__(self, config: AEConfig, space: Space, *, encoder: nn.Module | None = None,
                 decoder: nn.Module | None = None) -> None:
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        self.register_buffer("code_mean", torch.zeros(self.latent_dim))
        self.register_buffer("code_factor", torch.eye(self.latent_dim))

    @property
    def prior(self) -> FullNormal:
        """The Gaussian fitted to the training codes."""
        return FullNormal(self.code_mean, self.code_factor)

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> PointMass:
        """(n, *shape) to codes (n, latent_dim)."""
        return PointMass(self._encoded(x, condition).float())

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> PointMass:
        """(*batch, latent_dim) to items (*batch, *shape), model units."""
        return PointMass(self._decoded(z, condition).float(), len(self.space.shape))

    def corrupt(self, x: Tensor, noise: Noise) -> Tensor:
        """What the encoder sees in training; the item itself here."""
        return x

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Squared error per item, summed over its scalars, model units²."""
        z = self.encode(self.corrupt(batch.x, step.noise)).mean
        error = (self.decode(z).mean - batch.x).square().flatten(1).sum(1).mean()
        return Loss(error, {"loss": error, "mse": error / self.space.dims})

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Mean and covariance of the training codes, float64, one sweep."""
        codes = torch.cat([self.encode(batch.x).mean for batch in batches]).double()
        ridge = 1e-6 * torch.eye(self.latent_dim, dtype=torch.float64, device=codes.device)
        covariance = torch.atleast_2d(torch.cov(codes.T)) + ridge
        self.code_mean.copy_(codes.mean(0))
        self.code_factor.copy_(torch.linalg.cholesky(covariance))

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """Decoded draws from the Gaussian fitted to the codes, (n, *shape) model units."""
        return self.decode(self.prior.sample(n, noise)).mean


class DAE(AE):
    """Denoising autoencoder (Vincent et al. 2008): the clean item from a corrupted one."""

    def corrupt(self, x: Tensor, noise: Noise) -> Tensor:
        """Gaussian noise, or scalars set to the middle of the range."""
        if self.config.corruption == "gaussian":
            return x + self.config.noise * noise.normal(*x.shape)
        return x * (noise.uniform(*x.shape) >= self.config.noise)
