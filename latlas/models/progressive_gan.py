"""``progressive-gan``: both networks grow from the coarsest images to the full size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from latlas.core.model import Batch, Loss, Step
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.gan import Adversarial, AdversarialConfig
from latlas.networks.conv import channels
from latlas.networks.equalised import GrowingDiscriminator, GrowingGenerator, at_stage, image_sizes
from latlas.objectives.adversarial import Objective

#: a fade goes in so many steps, all of which float32 holds exactly
FADE_STEPS = 1024


@dataclass(frozen=True)
class ProgressiveGANConfig(AdversarialConfig):
    """Progressively grown GAN."""

    grow: bool = option(True, "begin with the coarsest images; false trains the same networks at "
                              "full size all along")
    grow_share: float = option(0.5, "share of the budget after which images have their full size",
                               low=0.01, high=0.95)
    fade_share: float = option(0.5, "share of that time in which the next size fades in; in the "
                                    "rest a size stands alone", low=0, high=1)


class ProgressiveGAN(Adversarial):
    """Progressive growing (Karras et al. 2018): each size fades in on top of the one before it.

    Real images are shown at the same size, faded in alike. The stage is a function of the share of
    the budget that is spent, and a buffer, so that a checkpoint samples as it was trained. A layer
    that is not used yet has no gradient and does not move; only ``weight_decay`` would.
    """

    Config = ProgressiveGANConfig
    stage: Tensor
    generator: GrowingGenerator
    discriminator: GrowingDiscriminator

    def __init__(self, config: ProgressiveGANConfig, space: Space,
                 objective: Objective | None = None) -> None:
        self.sizes = sizes = image_sizes("progressive-gan", space.shape, config.depth)
        super().__init__(config, space, objective)
        self.defaults = replace(self.defaults, progressive=config.grow)
        wide = channels(self.config.width, len(sizes))[::-1]
        self.generator = GrowingGenerator(self.latent_dim, space.shape[0], sizes, wide)
        self.discriminator = GrowingDiscriminator(
            space.shape[0], sizes, wide, config.minibatch_std, not self.objective.shift_invariant)
        self.register_buffer("stage", torch.tensor(self.stage_at(0.0)))

    def stage_at(self, progress: float) -> float:
        """The stage when this share of the budget is spent."""
        last = len(self.sizes) - 1
        if not self.config.grow:
            return float(last)
        return stage_at(progress / self.config.grow_share, last, self.config.fade_share)

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """The discriminator's loss, its penalty where that is lazy, the generator's loss."""
        stage = self.stage_at(step.progress)
        self.stage.fill_(stage)
        x = at_stage(batch.x, self.sizes, stage)
        z = self.prior.sample(len(x), step.noise).to(x.device)
        fakes = self.generator(z, stage).float()
        discriminate = partial(self.discriminator, stage=stage)

        inputs = self.augment(x, step), self.augment(fakes.detach(), step)
        total, terms, _ = self.adversarial.discriminator_loss(discriminate, *inputs, step)
        if self.augmentation(step.n_train) == "ada":
            terms["augmented"] = self.augment_p.clone()
        yield "discriminator", Loss(total, terms)

        if self.adversarial.due(step):
            inputs = self.augment(x, step), self.augment(fakes.detach(), step)
            yield "penalty", Loss(*self.adversarial.penalty(discriminate, inputs, step))

        augmented = self.augment(fakes, step)
        real = self.augment(x, step) if self.objective.generator_uses_real else x
        total, _ = self.adversarial.generator_loss(discriminate, augmented, real)
        yield "generator", Loss(total, {"generator": total})
        self.update_ada_p(terms["ada_signal"], len(x), step)

    def generate(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """G(z) at the current stage, enlarged to the full size: (n, *shape)."""
        stage = self.stage.item()
        return self.generator.enlarge(self.generator(z, stage), stage)


def stage_at(share: float, last: int, fade_share: float) -> float:
    """The stage when ``share`` of the time of growth is over: 0 … ``last``, whole at the ends.

    Every size but the last stands alone for 1 − ``fade_share`` of its time; in the rest the next
    one fades in.

    >>> [stage_at(share, 2, 0.5) for share in (0.0, 0.25, 0.375, 0.5, 0.8125, 1.0)]
    [0.0, 0.0, 0.5, 1.0, 1.25, 2.0]
    """
    if share >= 1:
        return float(last)
    part, whole = math.modf(share * last)
    faded = max(0.0, part - (1 - fade_share)) / fade_share if fade_share else 0.0
    return whole + math.floor(FADE_STEPS * faded) / FADE_STEPS
