"""``style-gan``: a generator whose every layer is told a style (StyleGAN2)."""

from __future__ import annotations

import torch
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.distributions import PointMass
from latlas.core.model import Loss, Phase, Step
from latlas.core.noise import Noise, derive
from latlas.core.space import Space
from latlas.models.config import StyleGANConfig
from latlas.models.picture_gan import PictureGAN
from latlas.networks.discriminator import Discriminator
from latlas.networks.residual import residual_trunk
from latlas.networks.style import Mapping, StyleGenerator, Synthesis
from latlas.objectives.penalties import path_lengths

#: codes whose styles are averaged for w̄
CODES = 4096
#: share of the way that the running mean of path lengths goes to the batch's (Karras et al. 2020)
PACE = 0.01


class StyleGAN(PictureGAN):
    """StyleGAN2 (Karras et al. 2020): z → w → a style for every layer, and a residual D.

    Fakes of training switch at a random layer to the style of a second code (Karras et al. 2019,
    section 3.1); the lengths of paths are penalised in a phase of their own (2020, section 3.2).
    """

    Config = StyleGANConfig
    path_length: Tensor
    generator: StyleGenerator

    def __init__(self, config: StyleGANConfig, space: Space) -> None:
        super().__init__("style-gan", config, space)
        sizes, wide = self.sizes, self.wide
        mapping = Mapping(self.latent_dim, config.style_dim, config.mapping_depth)
        synthesis = Synthesis(space.shape[0], sizes, wide, config.style_dim)
        self.generator = StyleGenerator(mapping, synthesis)
        trunk = residual_trunk(space.shape[0], sizes, wide)
        self.discriminator = Discriminator(trunk, wide[0], group=config.minibatch_std,
                                           bias=not self.contest.objective.relative)
        self.register_buffer("path_length", torch.zeros(()))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Those of every adversarial model, and the lazy penalty on the generator."""
        path = Phase("path", ("generator",), every=self.config.path_every)
        return (*super().phases, *((path,) if self.config.path_weight > 0 else ()))

    def phase_loss(self, batch: Batch, phase: str, step: Step) -> Loss:
        """One player's loss, mean per item."""
        return self.even(batch, step) if phase == "path" else super().phase_loss(batch, phase, step)

    def even(self, batch: Batch, step: Step) -> Loss:
        """E(‖J_wᵀ y‖ − a)² of fresh codes, half as many as items; a is the running mean."""
        w = self._mixed(max(1, len(batch) // 2), step.noise)
        made = self.decode_w(w, noise=step.noise).mean
        lengths = path_lengths(made, w, step.noise.normal(*made.shape).to(made))
        wanted = self._followed(lengths.detach().mean())
        total = self.config.path_weight * (lengths - wanted).square().mean()
        return Loss(total, {"path": total, "path length": lengths.mean()})

    def after_step(self, step: Step, terms: dict[str, Tensor]) -> None:
        """The running mean of path lengths; augmentation as in every adversarial model."""
        super().after_step(step, terms)
        if "path length" in terms:
            self.path_length.copy_(self._followed(terms["path length"]))

    def _followed(self, length: Tensor) -> Tensor:
        """The running mean with one more; it begins with the first there is."""
        known = self.path_length
        return torch.where(known > 0, torch.lerp(known, length, PACE), length)

    def _made(self, batch: Batch, step: Step) -> Tensor:
        w = self._mixed(len(batch), step.noise)
        return self.decode_w(w, noise=step.noise).mean

    def _mixed(self, n: int, noise: Noise) -> Tensor:
        """Styles of n pictures, (n, layers, d_w), a share of them of two codes."""
        z = torch.cat([self.prior.sample(n, noise), self.prior.sample(n, noise)])
        first, second = self.to_w(z.to(self.device)).chunk(2)
        layers = len(self.layer_sizes)
        level = 1 + (noise.uniform(n) * (layers - 1)).floor()
        alone = noise.uniform(n) >= self.config.style_mixing
        return self.mix(first, second, torch.where(alone, layers, level).to(first.device))

    @property
    def layer_sizes(self) -> tuple[tuple[int, int], ...]:
        """The picture size that each layer works towards, the coarsest first."""
        return self.generator.synthesis.layer_sizes

    def to_w(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """w̄ + ψ (w − w̄) of codes z (n, latent_dim): (n, d_w) (Karras et al. 2019, appendix B)."""
        w: Tensor = self.generator.mapping(z)
        return w if truncation == 1 else torch.lerp(self.mean_w(), w, truncation)

    @torch.no_grad()
    def mean_w(self) -> Tensor:
        """Mean style of 4,096 codes, always the same ones, (d_w,).

        Found when it is asked for, it is that of these weights, averaged ones too.
        """
        z = self.prior.sample(CODES, Noise(derive("mean w")))
        mean: Tensor = self.generator.mapping(z.to(self.device)).mean(0)
        return mean

    def mix(self, first: Tensor, second: Tensor, level: int | Tensor) -> Tensor:
        """(n, d_w) twice to (n, layers, d_w): the first below layer ``level``, then the second."""
        layers = torch.arange(len(self.layer_sizes), device=first.device)
        below = layers < torch.as_tensor(level, device=first.device).view(-1, 1)
        return torch.where(below[..., None], first[:, None], second[:, None])

    def decode_w(self, w: Tensor, *, noise: Noise | None = None) -> PointMass:
        """Styles (n, d_w) or (n, layers, d_w) to pictures; without ``noise`` with a fixed grain."""
        return PointMass(self.generator.synthesis(w, noise).float(), len(self.space.shape))

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None,
               truncation: float = 1.0) -> Tensor:
        """G(z), z ~ N(0, I), with a grain of its own: (n, *shape) model units."""
        w = self.to_w(self.prior.sample(n, noise).to(self.device), truncation)
        return self.decode_w(w, noise=noise).mean
