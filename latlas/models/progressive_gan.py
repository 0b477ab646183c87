"""``progressive-gan``: both players grow from the coarsest pictures to the full size."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.model import Loss, Step
from latlas.core.space import Space
from latlas.models.config import ProgressiveGANConfig
from latlas.models.picture_gan import PictureGAN
from latlas.networks.growing import GrowingDiscriminator, GrowingGenerator, at_stage

#: a fade goes in so many steps, all of which float32 holds exactly
FINENESS = 1024


class ProgressiveGAN(PictureGAN):
    """Progressive growing (Karras et al. 2018): each size fades in on top of the one before it.

    Real pictures are shown at the same size, faded in alike. The stage is a function of the share
    of the budget that is spent, and a buffer, so that a checkpoint samples as it was trained. A
    layer that is not used yet has no gradient and does not move; only ``weight_decay`` would.
    """

    Config = ProgressiveGANConfig
    stage: Tensor
    generator: GrowingGenerator
    discriminator: GrowingDiscriminator

    def __init__(self, config: ProgressiveGANConfig, space: Space) -> None:
        super().__init__("progressive-gan", config, space)
        self.defaults = replace(self.defaults, progressive=config.grow)
        sizes, wide = self.sizes, self.wide
        self.generator = GrowingGenerator(self.latent_dim, space.shape[0], sizes, wide)
        self.discriminator = GrowingDiscriminator(space.shape[0], sizes, wide,
                                                  config.minibatch_std,
                                                  not self.contest.objective.relative)
        self.register_buffer("stage", torch.tensor(self.stage_at(0.0)))

    def stage_at(self, progress: float) -> float:
        """The stage when this share of the budget is spent."""
        last = len(self.sizes) - 1
        if not self.config.grow:
            return float(last)
        return stage_at(progress / self.config.grow_share, last, self.config.fade_share)

    def phase_loss(self, batch: Batch, phase: str, step: Step) -> Loss:
        """One player's loss, mean per item, on pictures of the stage."""
        if "shown" not in step.cache:
            stage = self.stage_at(step.progress)
            self.stage.fill_(stage)
            step.cache["shown"] = replace(batch, x=at_stage(batch.x, self.sizes, stage))
        return super().phase_loss(step.cache["shown"], phase, step)

    def _made(self, batch: Batch, step: Step) -> Tensor:
        z = self.prior.sample(len(batch), step.noise).to(self.device)
        return self.generator(z, self.stage_at(step.progress)).float()

    def _outputs(self, x: Tensor, batch: Batch, step: Step) -> Tensor:
        return self.discriminator(x, self.stage_at(step.progress)).float()

    def _generated(self, z: Tensor, condition: Tensor | None) -> Tensor:
        stage = self.stage.item()
        return self.generator.completed(self.generator(z, stage), stage)


def stage_at(share: float, last: int, fading: float) -> float:
    """Where growth stands when ``share`` of its time is over: 0 … ``last``, whole at the ends.

    Every size but the last stands alone for 1 − ``fading`` of its time; in the rest the next one
    fades in.

    >>> [stage_at(share, 2, 0.5) for share in (0.0, 0.25, 0.375, 0.5, 0.8125, 1.0)]
    [0.0, 0.0, 0.5, 1.0, 1.25, 2.0]
    """
    if share >= 1:
        return float(last)
    part, whole = math.modf(share * last)
    faded = max(0.0, part - (1 - fading)) / fading if fading else 0.0
    return whole + math.floor(FINENESS * faded) / FINENESS
