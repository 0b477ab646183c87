"""What models that turn a picture into one of another domain share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Loss, Model, Phase, Step, TrainingDefaults
from latlas.core.noise import Noise, dropout_rng
from latlas.core.space import Space
from latlas.models.contest import Contest
from latlas.networks.blocks import pyramid
from latlas.networks.translators import (
    ColumnTranslator,
    PatchDiscriminator,
    ResidualTranslator,
    UNet,
)

#: pictures with a side beyond this get nine residual blocks instead of six (Zhu et al. 2017)
LARGE = 128
#: discriminators halve until a side would be under this
LEAST_PATCHES = 8


class Translator(Model, ABC):
    """Networks from pictures of domain A to those of domain B, against discriminators of patches.

    Attributes:
        other: the space of domain B; ``space`` is that of A.
        ways: the domains it translates to.
    """

    defaults = TrainingDefaults(monitored=True)
    latent_dim = 0
    ways: tuple[str, ...] = ("B",)

    def __init__(self, config: Any, space: Space) -> None:
        super().__init__(config, space)
        if space.target is None:
            raise DataError("this model translates and needs two domains: give pairs (A/ and B/, "
                            "A|B side by side) or trainA/ and trainB/ (docs/data.md)")
        self.other = space.target
        for side in (space, self.other):
            if side.kind != "picture" or min(side.shape[1:]) < LEAST_PATCHES:
                raise ConfigError(f"pictures of at least {LEAST_PATCHES} pixels a side are "
                                  f"translated, not {side.words} of shape {side.shape}")
        if space.shape[1:] != self.other.shape[1:]:
            a, b = ("×".join(map(str, side.shape[1:])) for side in (space, self.other))
            raise DataError(f"pictures are translated to the same size, and A is of {a}, B of {b} "
                            "pixels: give both one size with image_size=")
        if space.sound != self.other.sound:
            raise DataError(f"A is of {space.sound or 'pictures'}, B of "
                            f"{self.other.sound or 'pictures'}: give both one rate=, n_fft=, hop= "
                            "and floor= (--data-option)")
        if config.mirror and space.sound:
            raise ConfigError("mirror=true is for pictures: a recording's would be it backwards")
        self.contest = Contest(config)

    def translate(self, x: Tensor, *, to: str = "B", noise: Noise | None = None) -> Tensor:
        """Pictures (n, *shape) of the other domain to domain ``to``, model units.

        Dropout, where there is some, draws from ``noise``.
        """
        with nullcontext() if noise is None else dropout_rng(noise, len(x)):
            made: Tensor = self._towards(to)(x)
        return made

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """Every phase that is due, with its loss."""
        for phase in self.phases:
            if step.index % phase.every == 0:
                yield phase.name, self.phase_loss(batch, phase.name, step)

    @property
    @abstractmethod
    def phases(self) -> tuple[Phase, ...]: ...

    @abstractmethod
    def phase_loss(self, batch: Batch, phase: str, step: Step) -> Loss: ...

    @abstractmethod
    def _towards(self, to: str) -> nn.Module:
        """The network that translates to this domain."""

    def describe(self, n_train: int) -> str:
        """Objective and penalty, where there is a discriminator; what frames are held together by.
        """
        contested = getattr(self.config, "adversarial", True)
        weight = getattr(self.config, "temporal", 0.0)
        return (str(self.contest) if contested else "no discriminator") + (
            f", temporal {weight:g}" if weight else "")

    def _turned(self, batch: Batch, step: Step) -> Batch:
        """The step's batch, of ``mirror`` half of its items left to right, with all of theirs."""
        if not self.config.mirror:
            return batch
        if "turned" not in step.cache:
            step.cache["turned"] = mirrored(batch, step.noise.uniform(len(batch)) < 0.5)
        turned: Batch = step.cache["turned"]
        return turned

    def _translator(self, a: Space, b: Space) -> nn.Module:
        """From pictures of ``a`` to pictures of ``b``."""
        size, blocks = (a.shape[1], a.shape[2]), self.config.blocks
        ends = a.shape[0], b.shape[0], size, self.config.width
        if self.config.network == "columns":
            return ColumnTranslator(*ends, blocks or 4)
        if self.config.network == "residual":
            return ResidualTranslator(*ends, blocks or (9 if max(size) > LARGE else 6))
        return UNet(*ends, self.config.depth or None, self.config.dropout, blocks)

    def _discriminator(self, channels: int, size: tuple[int, ...]) -> PatchDiscriminator:
        """One that sees patches of 70 pixels, or of fewer where pictures are small."""
        halvings = sum(min(large) > 2 * LEAST_PATCHES for large in pyramid(size[0], size[1], 3))
        return PatchDiscriminator(channels,
                                  self.config.discriminator_width or self.config.width,
                                  self.config.discriminator_depth or max(1, halvings))


def exchanged(pool: Tensor, fakes: Tensor, known: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """What D is shown of ``fakes`` (n, \\*shape), and the pool (p, \\*shape) after that.

    The first p fakes fill the pool; later ones take the place of a random one half of the time,
    and that one is shown instead (Shrivastava et al. 2017, section 2.3; Zhu et al. 2017).

    Args:
        known: fakes seen before these.
        noise: decides.

    Raises:
        ConfigError: more fakes than the pool holds.
    """
    n, p = len(fakes), len(pool)
    if n > p:
        raise ConfigError(f"pool={p} holds fewer than a batch of {n}: raise it, or choose pool=0")
    slots = noise.uniform(p).argsort()[:n].to(pool.device)
    swap = (noise.uniform(n) < 0.5).to(pool.device).view(n, *[1] * (fakes.dim() - 1))
    if known + n <= p:
        return fakes, pool.index_copy(0, torch.arange(known, known + n, device=pool.device), fakes)
    old = pool[slots]
    return (torch.where(swap, old, fakes),
            pool.index_copy(0, slots, torch.where(swap, fakes, old)))


def mirrored(batch: Batch, which: Tensor) -> Batch:
    """The batch with the pictures of some items (n,) left to right, of both sides alike."""
    pictures = {name: x for name in ("x", "target", "neighbour", "target_neighbour")
                if (x := getattr(batch, name)) is not None}
    chosen = which.to(batch.x.device).view(-1, 1, 1, 1)
    return replace(batch, **{k: torch.where(chosen, x.flip(-1), x) for k, x in pictures.items()})


def absolute(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference, model units."""
    return F.l1_loss(made.float(), wanted.float())
