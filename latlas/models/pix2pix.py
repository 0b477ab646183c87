"""``pix2pix``: the other image of a pair (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latlas.core.model import Loss, PairBatch, Phase, Step, TrainingDefaults
from latlas.core.options import option
from latlas.core.space import PairSpace
from latlas.models.translation import TranslationConfig, Translator, l1
from latlas.networks.translators import PatchDiscriminator
from latlas.objectives.adversarial import generator_loss


@dataclass(frozen=True)
class Pix2PixConfig(TranslationConfig):
    """The other image of a pair."""

    l1: float = option(100.0, "weight of the mean absolute difference, model units", low=0)
    adversarial: float = option(1.0, "weight of the adversarial loss; 0: no discriminator", low=0)
    features: float = option(0.0, "weight of the difference of the discriminator's features", low=0)


class Pix2Pix(Translator):
    """G(x) near the y of its pair, and so that D cannot tell (x, G(x)) from (x, y) (eq. 4).

    D sees both images and says of every patch how real it is. ``adversarial=0`` leaves D out:
    what is uncertain then becomes its median, which is blurred.
    """

    Config = Pix2PixConfig
    config: Pix2PixConfig
    discriminator: PatchDiscriminator
    needs = "pairs"
    defaults = TrainingDefaults(ema_modules=("generator",), monitored=True)

    def __init__(self, config: Pix2PixConfig, space: PairSpace) -> None:
        super().__init__(config, space)
        self.generator = self.make_generator(space.a, space.b)
        if config.adversarial:
            self.discriminator = self.make_discriminator(space.a.shape[0] + space.b.shape[0],
                                                         space.a.shape[1:])

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Discriminator, its lazy gradient penalty, generator."""
        generator = Phase("generator", ("generator",))
        if not self.config.adversarial:
            return (generator,)
        return (*self.discriminator_phases("discriminator", ("discriminator",)), generator)

    def losses(self, batch: PairBatch, step: Step) -> Iterator[tuple[str, Loss]]:  # type: ignore[override]
        """One step: the discriminator on this step's fakes, then the generator that made them."""
        c, batch = self.config, self.augmented(batch, step)
        x, y = batch.a.x, batch.b.x
        fake = self.generator(x)

        def pair(image: Tensor) -> Tensor:
            """x beside images, which may be several batches."""
            return torch.cat([x.repeat(len(image) // len(x), 1, 1, 1), image.to(x.dtype)], 1)

        def logits(image: Tensor) -> Tensor:
            return self.discriminator(pair(image)).float()

        if c.adversarial:
            yield "discriminator", Loss(*self.discriminate(logits, y, fake, step))
            if self.lazy and step.index % c.r1_interval == 0:
                yield "penalty", Loss(*self.penalise(logits, y, fake, step))

        near = l1(fake, y)
        total, terms = c.l1 * near, {"l1": near}
        if c.adversarial:
            fake_logits = logits(fake)
            adversarial = generator_loss(c.objective, logits(y) if self.paired else fake_logits,
                                         fake_logits)
            total, terms = total + c.adversarial * adversarial, terms | {"generator": adversarial}
        if c.adversarial and c.features:  # Wang et al. (2018, eq. 3), mean over levels
            with torch.no_grad():
                real_features = self.discriminator.features(pair(y))
            levels = zip(self.discriminator.features(pair(fake)), real_features, strict=True)
            apart = torch.stack([l1(f, r) for f, r in levels]).mean()
            total, terms = total + c.features * apart, terms | {"features": apart}
        yield "generator", Loss(total, terms)

    def describe(self, n_train: int) -> str:
        """Objective and gradient penalty, where there is a discriminator."""
        return super().describe(n_train) if self.config.adversarial else "no discriminator"

    def generator_to(self, to: str) -> nn.Module:
        return self.generator
