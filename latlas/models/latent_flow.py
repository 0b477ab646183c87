"""``latent-flow``: an autoencoder with spatial latents, then a flow that generates the latents."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.distributions import Normal, PointMass
from latlas.core.errors import CapabilityError, ConfigError, DataError, say_option
from latlas.core.model import Batch, Loss, Model, Phase, Step, TrainingDefaults
from latlas.core.noise import Noise, SharedNoise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.flow_matching import log_density
from latlas.networks.conv import pyramid
from latlas.networks.spatial import SpatialDecoder, SpatialEncoder, patch_discriminator
from latlas.networks.velocity import VelocityUNet

#: the latents' longest side, at most, of images up to so many pixels and of larger ones, unless
#: stages are named
SIDE, SMALL_IMAGE, LARGE_SIDE = 8, 32, 16
#: channels of the discriminator's first layer
DISCRIMINATOR_WIDTH = 32
#: images that the autoencoder has seen, at least, when the discriminator comes
LEARNT = 10_000
#: share of labels that training leaves out, from which the flow learns all classes together
DROPPED_LABELS = 0.1
#: latents of up to so many dimensions have their exact trace in the prior's density
EXACT_DIMS = 32


@dataclass(frozen=True)
class LatentFlowConfig:
    """Latent flow."""

    stages: int = option(0, "downsampling stages from the image to the spatial latents; 0: until "
                            "both sides are 8 or less, of images above 32 pixels 16 or less",
                         low=0, high=8)
    latent_channels: int = option(0, "channels of the latents; 0: 2 to the power of stages", low=0)
    width: int = option(0, "a quarter of the autoencoder's channels at the latents; every finer "
                           "level has half as many, at least half of width; 0: 32, or 16 for "
                           "latents of more than 8 × 8", low=0)
    depth: int = option(1, "residual blocks at each of its sizes", low=0)
    latent_noise: float = option(0.0, "standard deviation of the noise in the latents, whose mean "
                                      "square is 1; 0: 0.2, or 0.1 for latents of more than 8 × 8",
                                 low=0, high=0.9)
    gradient_weight: float = option(0.25, "weight of the error of the pixels' differences beside "
                                         "that of the pixels", low=0)
    adversarial_weight: float = option(1.0, "how strongly a discriminator of patches moves the "
                                            "decoded pixels, as a share of how strongly the errors "
                                            "do; from the middle of the autoencoder's share on, "
                                            "and its 10,000th image; 0: none", low=0)
    autoencoder_share: float = option(0.5, "share of the budget in which the autoencoder learns; "
                                           "in the rest the flow does", low=0.01, high=0.99)
    flow_width: int = option(96, "channels of the flow's first level", low=1)
    flow_depth: int = option(1, "residual blocks of the flow on either side at each level", low=1)
    draws: int = option(4, "times and noises per example in each step of the flow", low=1)
    steps: int = option(20, "steps from noise to latents, of two evaluations each", low=1)
    condition: str = option("none", "what the flow is given: nothing, or the example's label",
                            choices=("none", "label"))
    guidance: float = option(1.0, "classifier-free guidance: the velocity of a class is taken so "
                                  "many times as far from that of all classes", low=0)
    guidance_interval: tuple[float, float] = option((0.1, 0.9), "times between which it is, of 0 "
                                                    "(noise) … 1 (latents)", low=0, high=1)

    def resolve(self, space: Space) -> Self:
        """Sizes that were left to the data; ConfigError or DataError for data that do not fit."""
        if space.kind != "image":
            raise ConfigError(f"latent-flow needs images, not {space.words}: train flow-matching")
        if self.condition == "label" and len(space.classes) < 2:
            raise DataError("condition=label needs labels of two classes or more, this data has "
                            f"{len(space.classes) or 'none'}: name their column with --label")
        longest = max(space.shape[1:])
        side = SIDE if longest <= SMALL_IMAGE else LARGE_SIDE
        stages = self.stages or max(1, math.ceil(math.log2(longest / side)))
        width, noise = (32, 0.2) if math.ceil(longest / 2**stages) <= SIDE else (16, 0.1)
        return replace(self, stages=stages, latent_channels=self.latent_channels or 2**stages,
                       width=self.width or width, latent_noise=self.latent_noise or noise)


class LatentFlow(Model):
    """x → z = √(1 − σ²) u(x) + σ ε → x, then dz/dt = v(z, t) from N(0, I) to the latents z.

    The encoder's output, normalised over an example's scalars to mean 0 and mean square 1, is u. So
    latents are standardised by construction, and the noise, not a KL, limits what they carry.
    The decoder pays for the L1 error of pixels and of their differences, which keeps edges. Errors
    alone make what latents do not say, such as single hairs, the median of all it may be. So once
    these are learnt a discriminator D of patches joins, which tells a decoded image x from the
    image y it was made of: D minimises softplus(D(x) − D(y)), the decoder softplus(D(y) − D(x))
    (Jolicoeur-Martineau 2019, eq. 7) with a weight for which the gradients at x of this and of the
    errors have a given ratio (as Esser et al. 2021, eq. 7, at the last layer).

    v is regressed on z − ε at z_t = (1 − t) ε + t z, t logit-normal (Lipman et al. 2023, eq. 23;
    Esser et al. 2024, section 3.1). It starts as the velocity that leaves N(0, I) one.
    """

    Config = LatentFlowConfig
    defaults = TrainingDefaults(max_batch_size=8, progressive=True, large_image_epochs=150.0)

    def __init__(self, config: LatentFlowConfig, space: Space) -> None:
        super().__init__(config.resolve(space), space)
        config = self.config
        sizes = pyramid(space.shape[1], space.shape[2], config.stages)
        self.latent_shape = config.latent_channels, *sizes[-1]
        self.latent_dim = math.prod(self.latent_shape)
        self.takes_condition: Literal["label"] | None = (
            "label" if config.condition == "label" else None)
        self.condition_dim = len(space.classes) if self.takes_condition else 0
        networks = space.shape[0], config.latent_channels, sizes, config.width, config.depth
        self.encoder, self.decoder = SpatialEncoder(*networks), SpatialDecoder(*networks)
        self.discriminator = None if config.adversarial_weight == 0 else patch_discriminator(
            space.shape[0], DISCRIMINATOR_WIDTH, min(sizes[0]))
        self.flow = VelocityUNet(config.latent_channels, sizes[-1], config.flow_width,
                                 config.flow_depth, self.condition_dim)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The autoencoder's part of the budget, then the flow's."""
        share = self.config.autoencoder_share
        critic = [Phase("discriminator", ("discriminator",), betas=(0.5, 0.99),
                        span=(share / 2, share))] if self.discriminator is not None else []
        return (Phase("autoencoder", ("encoder", "decoder"), span=(0.0, share)), *critic,
                Phase("flow", ("flow",), span=(share, 1.0)))

    @property
    def prior(self) -> "FlowPrior":
        """The density of latents that the flow has learnt, of all classes together."""
        return FlowPrior(self)

    def describe(self, n_train: int) -> str:
        """The latents, and how the budget is divided."""
        size, share = " × ".join(map(str, self.latent_shape)), self.config.autoencoder_share
        joins = (f", from {share / 2:.0%} and {LEARNT:,} examples on against a discriminator"
                 if self.discriminator is not None else "")
        return f"latents of {size}; the autoencoder learns for {share:.0%}{joins}, then the flow"

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """The autoencoder's loss and its discriminator's, or the flow's once its part of the budget
        has begun."""
        if step.before(self.config.autoencoder_share):
            y, x = batch.x, self.decode(self.encode(batch.x).sample(step.noise)).mean
            pixels, edges = (x - y).abs().mean(), differences(x - y)
            errors = pixels + self.config.gradient_weight * edges
            terms = {"l1": pixels, "l1_differences": edges}
            total = errors
            judge = self.discriminator
            if step.before(self.config.autoencoder_share / 2) or not step.past(LEARNT):
                judge = None
            if judge is not None:
                adversarial = F.softplus(judge(y) - judge(x)).mean()
                of_errors, of_judge = (torch.autograd.grad(loss, x, retain_graph=True)[0].norm()
                                       for loss in (errors, adversarial))
                weight = self.config.adversarial_weight * of_errors / (of_judge + 1e-12)
                total = errors + weight * adversarial
                terms |= {"adversarial": adversarial}
            yield "autoencoder", Loss(total, terms)
            if judge is not None:
                loss = F.softplus(judge(x.detach()) - judge(y)).mean()
                yield "discriminator", Loss(loss, {"discriminator": loss})
            return
        with torch.no_grad():
            z = self.encode(batch.x).draws(self.config.draws, step.noise)
        epsilon = step.noise.normal(*z.shape, batch=1)
        t = step.noise.normal(*z.shape[:2], batch=1).sigmoid()
        label = self.conditioning(batch, step.noise)
        if label is not None:
            dropped = step.noise.uniform(*t.shape, batch=1) < DROPPED_LABELS
            label = torch.where(dropped, self.condition_dim, label).flatten()
        z_t = torch.lerp(epsilon, z, t[..., None])
        velocity = self.velocity(z_t.flatten(0, 1), t.flatten(), label)
        loss = (velocity - (z - epsilon).flatten(0, 1)).square().mean()
        yield "flow", Loss(loss, {"flow": loss})

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> Normal:
        """q(z|x) = N(√(1 − σ²) u(x), σ² I) over latents (n, latent_dim)."""
        h = self.encoder(x).float().flatten(1)
        u = F.layer_norm(h, h.shape[1:], eps=1e-6)
        variance = self.config.latent_noise**2
        return Normal(math.sqrt(1 - variance) * u, u.new_full((), math.log(variance)))

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> PointMass:
        """(*batch, latent_dim) to examples (*batch, *shape), model units."""
        x = self.decoder(z.reshape(-1, *self.latent_shape)).float()
        return PointMass(x.unflatten(0, z.shape[:-1]), len(self.space.shape))

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """The batch's own condition, else its labels, for a flow of given classes."""
        if not self.takes_condition:
            return None
        return batch.label if batch.condition is None else batch.condition

    def velocity(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """v(z, t), (n, latent_dim) at times (n,), for classes (n,); without for all together.

        Two standard normals on the way have variance s = t² + (1 − t)² and E[z − ε | z_t] =
        z_t (2t − 1)/s, around which the spread is 1/√s: what the network sees and gives has unit
        variance.
        """
        if self.takes_condition and label is None:
            label = torch.full((len(z),), self.condition_dim, device=z.device)
        spread = (t.square() + (1 - t).square()).sqrt()[:, None]
        inputs = (z / spread).unflatten(1, self.latent_shape)
        out: Tensor = self.flow(inputs, t, label).float().flatten(1)
        return z * (2 * t[:, None] - 1) / spread.square() + out / spread

    def guided(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """:meth:`velocity`, for classes with guidance within its interval (Ho & Salimans 2022, eq.
        6; Kynkäänniemi et al. 2024)."""
        first, last = self.config.guidance_interval
        velocity, guidance = self.velocity(z, t, label), self.config.guidance
        if label is None or guidance == 1 or not first <= float(t[0]) <= last:
            return velocity
        return torch.lerp(self.velocity(z, t), velocity, guidance)

    @torch.no_grad()
    def sample_latents(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """(n, latent_dim) latents at the end of the flow, by Heun's method."""
        return self.transport(noise.normal(n, self.latent_dim).to(self.device), condition=condition)

    def transport(self, z: Tensor, start: float = 0.0, end: float = 1.0,
                  condition: Tensor | None = None) -> Tensor:
        """Latents or noise (n, latent_dim) carried from time ``start`` to ``end``: from 0 to 1
        noise becomes latents, from 1 to 0 latents the noise that they come from."""
        times = torch.linspace(start, end, self.config.steps + 1).tolist()
        for t, after in pairwise(times):
            slope = self.guided(z, z.new_full((len(z),), t), condition)
            ahead = self.guided(z + (after - t) * slope, z.new_full((len(z),), after), condition)
            z = z + (after - t) / 2 * (slope + ahead)
        return z

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """Decoded latents of the flow, (n, *shape) model units."""
        return self.decode(self.sample_latents(n, noise=noise, condition=condition)).mean


@dataclass
class FlowPrior:
    """The flow's density of latents, nats, and draws from it."""

    model: LatentFlow

    def log_prob(self, z: Tensor) -> Tensor:
        """(*batch, latent_dim) to (*batch,), by the change of variables. Above 32 dimensions the
        trace is estimated with one probe, the same for all vectors and every time.
        CapabilityError: z asks for a gradient, as annealing does."""
        if z.requires_grad:
            raise CapabilityError("the flow's density of latents has no gradient; use "
                                  + say_option("method", "naive"), option="method")
        flat, probe = z.reshape(-1, z.shape[-1]), None
        if flat.shape[1] > EXACT_DIMS:
            probe = 2.0 * SharedNoise(0, z.device).integers(2, *flat.shape) - 1
        steps = -(-self.model.config.steps // 2)  # of four evaluations each
        nats = log_density(lambda y, t: self.model.velocity(y, t.expand(len(y), 1)[:, 0]), flat,
                           steps, probe)
        return nats.reshape(z.shape[:-1])

    def sample(self, n: int, noise: Noise) -> Tensor:
        return self.model.sample_latents(n, noise=noise)


def differences(error: Tensor) -> Tensor:
    """Mean absolute difference of neighbours in images (n, C, H, W), down and across."""
    return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
