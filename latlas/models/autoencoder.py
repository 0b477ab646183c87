"""Models with an encoder and a decoder; the autoencoder and the denoising autoencoder."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from latlas.core.distributions import PointMass
from latlas.core.model import Batch, Loss, Model, Phase, Step, TrainingDefaults
from latlas.core.noise import Noise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.priors import FullNormal
from latlas.networks import conv, mlp, must_fit

#: images of up to this many scalars get a fully connected network
MLP_DIMS = 1024


@dataclass(frozen=True)
class AEConfig:
    """Autoencoder, and what every model with an encoder and a decoder has."""

    latent_dim: int = option(0, "latent dimensions; 0 chooses from the data's size", low=0)
    network: str = option("auto", "kind of network; auto: mlp up to 1,024 scalars, else conv",
                          choices=("auto", "mlp", "conv"))
    width: int = option(0, "units of a hidden layer (mlp) or channels (conv); 0: the default",
                        low=0)
    depth: int = option(0, "residual blocks (mlp) or downsampling stages (conv); 0: the default",
                        low=0)

    def resolve(self, space: Space) -> Self:
        """With every choice that was left to the data made, as run.json keeps it."""
        kind = self.network
        if kind == "auto":
            kind = "conv" if space.kind == "image" and space.dims > MLP_DIMS else "mlp"
        # depth 0 of conv: by the shape of the data
        width, depth = {"mlp": (mlp.WIDTH, mlp.DEPTH), "conv": (conv.WIDTH, 0)}[kind]
        return replace(self, latent_dim=self.latent_dim or auto_latent_dim(space), network=kind,
                       width=self.width or width, depth=self.depth or depth)


def auto_latent_dim(space: Space) -> int:
    """Latent dimensions when none are given: 2 for points up to 50 for images of 784 scalars."""
    if space.kind != "image":
        return max(2, min(32, space.dims // 2))
    return 16 if space.dims <= 256 else 50 if space.dims <= 1024 else 128


class Autoencoding(Model):
    """An encoder with ``outputs_per_latent`` outputs per latent dimension, and a decoder.

    Args:
        encoder, decoder: any modules of the user's own instead of the built-in networks:
            (n, *shape) to (n, outputs), and (n, latent_dim) to (n, multiplier·C, H, W). With a
            condition they are called with it as a second argument, (n, condition_dim).
    """

    defaults = TrainingDefaults(prior_share=0.25)
    outputs_per_latent = 1
    more_outputs = 0  # of the encoder, beside those of the latent dimensions
    multiplier = 1  # outputs of the decoder per scalar of an example
    dropout = 0.0  # share of the decoder's hidden units that a training step leaves out

    def __init__(self, config: Any, space: Space, *, encoder: nn.Module | None = None,
                 decoder: nn.Module | None = None) -> None:
        super().__init__(config.resolve(space), space)
        self.latent_dim = self.config.latent_dim
        inputs, condition = self.decoder_inputs, self.condition_dim
        outputs = self.outputs_per_latent * inputs + self.more_outputs
        size = self.multiplier, self.config.width, self.config.depth
        self.encoder = self.make_encoder(space.shape, outputs, condition) if encoder is None else (
            encoder)
        if decoder is not None:
            self.decoder = decoder
        elif self.config.network == "mlp":
            self.decoder = mlp.MLPDecoder(space.shape, inputs, condition, *size, self.dropout)
        else:
            self.decoder = conv.ConvDecoder(space.shape, inputs, condition, *size)
        if encoder is not None:
            must_fit("encoder", encoder, space.shape, (outputs,), condition)
        if decoder is not None:
            channels = self.multiplier * space.shape[0]
            must_fit("decoder", decoder, (inputs,), (channels, *space.shape[1:]), condition)

    def make_encoder(self, shape: tuple[int, ...], outputs: int, condition: int = 0) -> nn.Module:
        """From (n, *shape) and an optional (n, condition) to (n, outputs), as the config says."""
        kind = {"mlp": mlp.MLPEncoder, "conv": conv.ConvEncoder}[self.config.network]
        return kind(shape, outputs, condition, self.config.width, self.config.depth)

    @property
    def decoder_inputs(self) -> int:
        """Latent dimensions that the encoder gives and the decoder reads: here all of them."""
        return self.latent_dim

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One phase that trains everything."""
        return (Phase("model", tuple(name for name, _ in self.named_children())),)


class AE(Autoencoding):
    """Encoder and decoder trained on squared error (Hinton & Salakhutdinov 2006), without a prior;
    :meth:`finish` fits a Gaussian to the training latents, from which ``sample`` draws."""

    Config = AEConfig
    latent_mean: Tensor
    latent_factor: Tensor

    def __init__(self, config: AEConfig, space: Space, *, encoder: nn.Module | None = None,
                 decoder: nn.Module | None = None) -> None:
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        self.register_buffer("latent_mean", torch.zeros(self.latent_dim))
        self.register_buffer("latent_factor", torch.eye(self.latent_dim))

    @property
    def prior(self) -> FullNormal:
        """The Gaussian fitted to the training latents."""
        return FullNormal(self.latent_mean, self.latent_factor)

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> PointMass:
        """(n, *shape) to latents (n, latent_dim)."""
        return PointMass(self.encoder(x).float())

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> PointMass:
        """(*batch, latent_dim) to examples (*batch, *shape), model units."""
        x = self.decoder(z.reshape(-1, z.shape[-1])).unflatten(0, z.shape[:-1])
        return PointMass(x.float(), len(self.space.shape))

    def corrupt(self, x: Tensor, noise: Noise) -> Tensor:
        """What the encoder sees in training: here the example itself."""
        return x

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Squared error per example, summed over its scalars, model units²."""
        z = self.encode(self.corrupt(batch.x, step.noise)).mean
        error = (self.decode(z).mean - batch.x).square().flatten(1).sum(1).mean()
        return Loss(error, {"loss": error, "mse": error / self.space.dims})

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Mean and covariance of the training latents, float64, one sweep."""
        z = torch.cat([self.encode(batch.x).mean for batch in batches]).cpu().double()
        ridge = 1e-6 * torch.eye(self.latent_dim, dtype=torch.float64)
        covariance = torch.atleast_2d(torch.cov(z.T)) + ridge
        self.latent_mean.copy_(z.mean(0))
        self.latent_factor.copy_(torch.linalg.cholesky(covariance))

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """Decoded draws from the Gaussian fitted to the latents, (n, *shape) model units."""
        return self.decode(self.prior.sample(n, noise)).mean


@dataclass(frozen=True)
class DAEConfig(AEConfig):
    """Denoising autoencoder: reconstruct the clean example from a corrupted one."""

    corruption: str = option("gaussian", "how the input is corrupted", choices=("gaussian", "mask"))
    noise: float = option(0.5, "standard deviation of the noise in model units, or the share of "
                          "masked scalars", low=0)


class DAE(AE):
    """Denoising autoencoder (Vincent et al. 2008): the clean example from a corrupted one."""

    Config = DAEConfig

    def corrupt(self, x: Tensor, noise: Noise) -> Tensor:
        """Gaussian noise, or scalars set to the middle of the range."""
        if self.config.corruption == "gaussian":
            return x + self.config.noise * noise.normal(*x.shape)
        return x * (noise.uniform(*x.shape) >= self.config.noise)
