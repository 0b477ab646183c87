"""``pix2pix``: the other picture of a pair (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.errors import ConfigError
from latlas.core.model import Loss, Phase, Step
from latlas.core.space import Space
from latlas.models.config import Pix2PixConfig
from latlas.models.translation import Translator, absolute, moved
from latlas.networks.translators import PatchDiscriminator


class Translated(NamedTuple):
    """What both players see of a step, attached to the generator.

    Attributes:
        made: G(x) of the pairs as they are.
        shown: the pairs that D is shown; those, or moved.
        fakes: G(x) of them.
    """

    made: Tensor
    shown: Batch
    fakes: Tensor


class Pix2Pix(Translator):
    """G(x) near the y of its pair, and so that D cannot tell (x, G(x)) from (x, y) (eq. 4).

    D sees both pictures and says of every patch how real it is. ``adversarial=0`` leaves D out:
    what is uncertain then becomes its median, which is blurred.

    With ``jitter`` D sees pairs that are moved by a few pixels, anew each time: what the generator
    makes of those it never knows by heart. The absolute difference is of the pairs as they are.
    """

    config: Pix2PixConfig
    discriminator: PatchDiscriminator
    needs = "pairs"
    ema_modules = ("generator",)

    def __init__(self, config: Pix2PixConfig, space: Space) -> None:
        super().__init__(config, space)
        if config.jitter and space.sound:
            raise ConfigError("jitter= is for pictures: a recording's tones would be others")
        if config.jitter >= min(space.shape[1:]):
            raise ConfigError(f"jitter={config.jitter} moves pictures of "
                              f"{'×'.join(map(str, space.shape[1:]))} pixels out of sight: "
                              "a tenth of the side is plenty")
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

    def loss(self, batch: Batch, phase: str, step: Step) -> Loss:
        """One player's loss, mean per item."""
        return {"discriminator": self.judge, "penalty": self.smooth,
                "generator": self.make}[phase](self._turned(batch, step), step)

    def judge(self, batch: Batch, step: Step) -> Loss:
        """The discriminator's loss, and the penalty where it is due at every step."""
        odds_of, shown = self._contested(batch, step, slopes=self.contest.eager)
        return Loss(*self.contest.judge(odds_of, shown, self.contest.odds(odds_of, shown), step))

    def smooth(self, batch: Batch, step: Step) -> Loss:
        """The penalty by itself."""
        return Loss(*self.contest.penalty(*self._contested(batch, step, slopes=True), (), step))

    def make(self, batch: Batch, step: Step) -> Loss:
        """The generator's: λ |y − G(x)|, what D says, and how far its features are apart."""
        made, shown, fakes = self._translated(batch, step)
        near = absolute(made, _target(batch))
        total, terms = self.config.l1 * near, {"l1": near}
        if self.config.adversarial:
            fooled = self.contest.fool(lambda y: self._odds(y, shown), _target(shown),
                                       self._odds(fakes, shown))
            total, terms = total + self.config.adversarial * fooled, terms | {"generator": fooled}
        if self.config.adversarial and self.config.features:
            apart = self._apart(fakes, shown)
            total, terms = total + self.config.features * apart, terms | {"features": apart}
        return Loss(total, terms)

    def _towards(self, to: str) -> nn.Module:
        return self.generator

    def _apart(self, fakes: Tensor, shown: Batch) -> Tensor:
        """Mean absolute difference of D's features, mean over levels (Wang et al. 2018, eq. 3)."""
        with torch.no_grad():
            true = self.discriminator.features(torch.cat([shown.x, _target(shown)], 1))
        found = self.discriminator.features(torch.cat([shown.x, fakes], 1))
        levels = [absolute(f, t) for f, t in zip(found, true, strict=True)]
        return torch.stack(levels).mean()

    def _contested(self, batch: Batch, step: Step, slopes: bool
                   ) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        """D at the pairs it is shown, as a function of y; the real y and the made one."""
        _, shown, fakes = self._translated(batch, step)
        return (lambda y: self._odds(y, shown),
                [y.detach().requires_grad_(slopes) for y in (_target(shown), fakes)])

    def _translated(self, batch: Batch, step: Step) -> Translated:
        """The translations of this step: once, so that both players see the same."""
        if "translated" not in step.cache:
            step.cache["translated"] = self._translate_all(batch, step)
        translated: Translated = step.cache["translated"]
        return translated

    def _translate_all(self, batch: Batch, step: Step) -> Translated:
        most = self.config.jitter if self.config.adversarial else 0
        if not most:
            made = self.generator(batch.x)
            return Translated(made, batch, made)
        shown = moved(batch, step.noise.integers(2 * most + 1, len(batch), 2) - most)
        made, fakes = self.generator(torch.cat([batch.x, shown.x])).chunk(2)
        return Translated(made, shown, fakes)

    def _odds(self, y: Tensor, batch: Batch) -> Tensor:
        """D's outputs at pairs, (n, patches) float32; y may be several batches."""
        x = batch.x.repeat(len(y) // len(batch), 1, 1, 1)
        out: Tensor = self.discriminator(torch.cat([x, y.to(x.dtype)], 1))
        return out.float()


def _target(batch: Batch) -> Tensor:
    assert batch.target is not None  # the source has been checked to hold pairs
    return batch.target
