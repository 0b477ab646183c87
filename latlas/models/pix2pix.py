"""``pix2pix``: the other picture of a pair (Isola et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.model import Loss, Phase, Step, TrainingDefaults
from latlas.core.space import Space
from latlas.models.config import Pix2PixConfig
from latlas.models.translation import Translator, absolute
from latlas.networks.translators import PatchDiscriminator


class Pix2Pix(Translator):
    """G(x) near the y of its pair, and so that D cannot tell (x, G(x)) from (x, y) (eq. 4).

    D sees both pictures and says of every patch how real it is. ``adversarial=0`` leaves D out:
    what is uncertain then becomes its median, which is blurred.
    """

    Config = Pix2PixConfig
    config: Pix2PixConfig
    discriminator: PatchDiscriminator
    needs = "pairs"
    defaults = TrainingDefaults(ema_modules=("generator",), monitored=True)

    def __init__(self, config: Pix2PixConfig, space: Space) -> None:
        super().__init__(config, space)
        self.generator = self._translator(space, self.other)
        if config.adversarial:
            self.discriminator = self._discriminator(space.shape[0] + self.other.shape[0],
                                                     space.shape[1:])

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Discriminator, its lazy penalty, generator."""
        alone = Phase("generator", ("generator",))
        if not self.config.adversarial:
            return (alone,)
        return (*self.contest.phases("discriminator", ("discriminator",)), alone)

    def phase_loss(self, batch: Batch, phase: str, step: Step) -> Loss:
        """One player's loss, mean per item."""
        return {"discriminator": self.judge, "penalty": self.smooth,
                "generator": self.make}[phase](self._turned(batch, step), step)

    def judge(self, batch: Batch, step: Step) -> Loss:
        """The discriminator's loss, and the penalty where it is due at every step."""
        shown = self._shown(batch, step, slopes=self.contest.eager)
        odds = self.contest.odds(lambda y: self._odds(y, batch), shown)
        return Loss(*self.contest.judge(lambda y: self._odds(y, batch), shown, odds, step))

    def smooth(self, batch: Batch, step: Step) -> Loss:
        """The penalty by itself."""
        shown = self._shown(batch, step, slopes=True)
        return Loss(*self.contest.penalty(lambda y: self._odds(y, batch), shown, (),
                                          step))

    def make(self, batch: Batch, step: Step) -> Loss:
        """The generator's: λ |y − G(x)|, what D says, and how far its features are apart."""
        made, wanted = self._made(batch, step), _target(batch)
        near = absolute(made, wanted)
        total, terms = self.config.l1 * near, {"l1": near}
        if self.config.adversarial:
            fooled = self.contest.fool(lambda y: self._odds(y, batch), wanted,
                                       self._odds(made, batch))
            total, terms = total + self.config.adversarial * fooled, terms | {"generator": fooled}
        if self.config.adversarial and self.config.features:
            apart = self._apart(made, wanted, batch)
            total, terms = total + self.config.features * apart, terms | {"features": apart}
        return Loss(total, terms)

    def _towards(self, to: str) -> nn.Module:
        return self.generator

    def _apart(self, made: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
        """Mean absolute difference of D's features, mean over levels (Wang et al. 2018, eq. 3)."""
        with torch.no_grad():
            true = self.discriminator.features(torch.cat([batch.x, wanted], 1))
        found = self.discriminator.features(torch.cat([batch.x, made], 1))
        levels = [absolute(f, t) for f, t in zip(found, true, strict=True)]
        return torch.stack(levels).mean()

    def _shown(self, batch: Batch, step: Step, slopes: bool) -> list[Tensor]:
        return [y.detach().requires_grad_(slopes)
                for y in (_target(batch), self._made(batch, step))]

    def _made(self, batch: Batch, step: Step) -> Tensor:
        """G(x) for this step, attached to the generator; both players see the same."""
        if "made" not in step.cache:
            step.cache["made"] = self.generator(batch.x)
        made: Tensor = step.cache["made"]
        return made

    def _odds(self, y: Tensor, batch: Batch) -> Tensor:
        """D's outputs at pairs, (n, patches) float32; y may be several batches."""
        x = batch.x.repeat(len(y) // len(batch), 1, 1, 1)
        out: Tensor = self.discriminator(torch.cat([x, y.to(x.dtype)], 1))
        return out.float()


def _target(batch: Batch) -> Tensor:
    assert batch.target is not None  # the source has been checked to hold pairs
    return batch.target
