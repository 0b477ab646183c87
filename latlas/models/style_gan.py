"""``style-gan``: a generator whose every layer reads a style (StyleGAN2)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.core.distributions import PointMass
from latlas.core.model import Batch, Loss, Phase, Step
from latlas.core.noise import Noise, derive
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.gan import Adversarial, AdversarialConfig
from latlas.networks import equalised
from latlas.networks.conv import channels
from latlas.networks.gan import Discriminator
from latlas.objectives.adversarial import Objective, path_lengths

#: latents whose styles are averaged for w̄
MEAN_LATENTS = 4096
#: share of the way that the running mean of path lengths goes to the batch's (Karras et al. 2020)
PATH_DECAY = 0.01


@dataclass(frozen=True)
class StyleGANConfig(AdversarialConfig):
    """StyleGAN2."""

    style_dim: int = option(128, "size of w, from which every layer's style is made", low=1)
    mapping_depth: int = option(4, "layers from the latent vector to w", low=1)
    style_mixing: float = option(0.9, "share of the images in training whose later layers get the "
                                      "style of another latent vector", low=0, high=1)
    path_weight: float = option(2.0, "weight of path-length regularisation, by which w changes the "
                                     "image evenly; 0: none", low=0)
    path_every: int = option(8, "steps from one path-length regularisation to the next, each times "
                                "as many", low=1)


class StyleGAN(Adversarial):
    """StyleGAN2 (Karras et al. 2020): z → w → a style for every layer, and a residual D.

    Fakes of training switch at a random layer to the style of a second latent vector (Karras et al.
    2019, section 3.1); path lengths are regularised in a phase of their own (2020, section 3.2).
    """

    Config = StyleGANConfig
    path_length: Tensor
    generator: equalised.StyleGenerator

    def __init__(self, config: StyleGANConfig, space: Space,
                 objective: Objective | None = None) -> None:
        sizes = equalised.image_sizes("style-gan", space.shape, config.depth)
        super().__init__(config, space, objective)
        wide = channels(self.config.width, len(sizes))[::-1]
        mapping = equalised.Mapping(self.latent_dim, config.style_dim, config.mapping_depth)
        synthesis = equalised.Synthesis(space.shape[0], sizes, wide, config.style_dim)
        self.generator = equalised.StyleGenerator(mapping, synthesis)
        trunk = equalised.residual_trunk(space.shape[0], sizes, wide)
        self.discriminator = Discriminator(trunk, wide[0], minibatch_std=config.minibatch_std,
                                           bias=not self.objective.shift_invariant)
        self.register_buffer("path_length", torch.zeros(()))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Those of every GAN, and the lazy regularisation of the generator."""
        path = Phase("path", ("generator",), every=self.config.path_every)
        return (*super().phases, *((path,) if self.config.path_weight > 0 else ()))

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """The discriminator's loss, its penalty where that is lazy, the generator's loss, and
        path-length regularisation: E(‖J_wᵀ y‖ − a)² of fresh latents, half as many as examples,
        with a the running mean of the lengths."""
        x, n, noise = batch.x, len(batch.x), step.noise
        fakes = self.decode_w(self.mixed_styles(n, noise), noise=noise).mean

        inputs = self.augment(x, step), self.augment(fakes.detach(), step)
        total, terms, _ = self.adversarial.discriminator_loss(self.discriminator, *inputs, step)
        if self.augmentation(step.n_train) == "ada":
            terms["augmented"] = self.augment_p.clone()
        yield "discriminator", Loss(total, terms)

        if self.adversarial.due(step):
            inputs = self.augment(x, step), self.augment(fakes.detach(), step)
            yield "penalty", Loss(*self.adversarial.penalty(self.discriminator, inputs, step))

        augmented = self.augment(fakes, step)
        real = self.augment(x, step) if self.objective.generator_uses_real else x
        total, _ = self.adversarial.generator_loss(self.discriminator, augmented, real)
        yield "generator", Loss(total, {"generator": total})

        if self.config.path_weight > 0 and step.due(self.config.path_every):
            w = self.mixed_styles(max(1, n // 2), noise)
            images = self.decode_w(w, noise=noise).mean
            lengths = path_lengths(images, w, noise.normal(*images.shape).to(images))
            length = lengths.detach().mean()
            mean = torch.where(self.path_length > 0,
                               torch.lerp(self.path_length, length, PATH_DECAY), length)
            total = self.config.path_weight * (lengths - mean).square().mean()
            yield "path", Loss(total, {"path": total, "path length": lengths.mean()})
            self.path_length.copy_(mean)
        self.update_ada_p(terms["ada_signal"], n, step)

    def mixed_styles(self, n: int, noise: Noise) -> Tensor:
        """Styles of n images, (n, layers, d_w), a share of them of two latent vectors."""
        z = torch.cat([self.prior.sample(n, noise), self.prior.sample(n, noise)])
        first, second = self.to_w(z.to(self.device)).chunk(2)
        layers = len(self.layer_sizes)
        level = 1 + (noise.uniform(n) * (layers - 1)).floor()
        alone = noise.uniform(n) >= self.config.style_mixing
        return self.mix(first, second, torch.where(alone, layers, level).to(first.device))

    @property
    def layer_sizes(self) -> tuple[tuple[int, int], ...]:
        """The image size that each layer works towards, the coarsest first."""
        return self.generator.synthesis.layer_sizes

    def to_w(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """w̄ + ψ (w − w̄) of latents z (n, latent_dim): (n, d_w) (Karras et al. 2019, appendix B)."""
        w: Tensor = self.generator.mapping(z)
        return w if truncation == 1 else torch.lerp(self.mean_w(), w, truncation)

    @torch.no_grad()
    def mean_w(self) -> Tensor:
        """Mean style of 4,096 latents, always the same ones, under the present weights: (d_w,)."""
        z = self.prior.sample(MEAN_LATENTS, Noise(derive("mean w")))
        return self.generator.mapping(z.to(self.device)).mean(0)

    def mix(self, first: Tensor, second: Tensor, level: int | Tensor) -> Tensor:
        """(n, d_w) twice to (n, layers, d_w): the first below layer ``level``, then the second."""
        layers = torch.arange(len(self.layer_sizes), device=first.device)
        below = layers < torch.as_tensor(level, device=first.device).view(-1, 1)
        return torch.where(below[..., None], first[:, None], second[:, None])

    def decode_w(self, w: Tensor, *, noise: Noise | None = None) -> PointMass:
        """Styles (n, d_w) or (n, layers, d_w) to images; without ``noise`` with a fixed grain."""
        return PointMass(self.generator.synthesis(w, noise).float(), len(self.space.shape))

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None,
               truncation: float = 1.0) -> Tensor:
        """G(z), z ~ N(0, I), with a grain of its own: (n, *shape) model units."""
        w = self.to_w(self.prior.sample(n, noise).to(self.device), truncation)
        return self.decode_w(w, noise=noise).mean
