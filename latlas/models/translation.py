"""What models that translate images of one domain into images of another share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.errors import ConfigError, DataError, say_option
from latlas.core.model import Model, PairBatch, Phase, Step
from latlas.core.noise import Noise, dropout_rng
from latlas.core.options import option
from latlas.core.space import PairSpace, Space
from latlas.networks.conv import pyramid
from latlas.networks.translators import (
    ColumnTranslator,
    PatchDiscriminator,
    ResidualTranslator,
    UNet,
)
from latlas.objectives.adversarial import (
    OBJECTIVES,
    discriminator_loss,
    find_objective,
    gradient_penalty,
    logit_terms,
)

#: images with a side beyond this get nine residual blocks instead of six (Zhu et al. 2017)
LARGE = 128
#: discriminators halve until a side would be under this
LEAST_PATCHES = 8
Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TranslationConfig:
    """From images of one domain to those of another."""

    network: str = option("unet", "kind of generator: unet sees every size again on its way up, "
                          "residual works at a quarter of the size", choices=("unet", "residual"))
    width: int = option(64, "channels of the first level of all networks", low=1)
    depth: int = option(0, "downsampling stages of a unet; 0: until a side is 4 … 7", low=0)
    blocks: int = option(0, "residual blocks, of a unet at its innermost level; 0: none of a unet, "
                            "four of columns, else six, or nine for sides over 128", low=0)
    dropout: float = option(0.0, "noise: share of units that the innermost levels of a unet "
                            "leave out", low=0, high=0.9)
    horizontal_flip: bool = option(False, "in training, flip half of the images left to right, "
                                   "pairs alike; for few images of what has no left and right")
    discriminator_depth: int = option(0, "downsampling stages of the discriminator: three see "
                                      "patches of 70 pixels, two of 34; 0: by the size of the "
                                      "images", low=0)
    discriminator_width: int = option(0, "channels of the discriminator's first level; 0: as many "
                                         "as the generator's", low=0)
    objective: str = option("least-squares", f"adversarial loss: {', '.join(OBJECTIVES)}")
    penalty: str = option("none", "gradient penalty of the discriminator",
                          choices=("none", "r1", "r2", "r1+r2", "gp"))
    gamma: float = option(1.0, "weight of the gradient penalty", low=0, high=1e6)
    gamma_end: float = option(1.0, "share of gamma that is left at the end of the budget", low=1e-6,
                              high=1)
    r1_interval: int = option(1, "steps from one gradient penalty to the next, each times as many",
                              low=1)

    def __post_init__(self) -> None:
        find_objective(self.objective)

    def resolve(self, space: PairSpace) -> Self:
        """The config with what was left to the data filled in."""
        return self


class Translator(Model):
    """Generators from images of domain A to those of domain B, against discriminators of patches.

    Attributes:
        ways: the domains it translates to.
    """

    latent_dim = 0
    ways: tuple[str, ...] = ("B",)
    space: PairSpace  # type: ignore[assignment]

    def __init__(self, config: Any, space: PairSpace) -> None:
        if not isinstance(space, PairSpace):
            raise DataError("this model translates and needs two domains: give pairs (A/ and B/, "
                            "A|B side by side) or trainA/ and trainB/ (docs/data.md)")
        super().__init__(config.resolve(space), space)  # type: ignore[arg-type]
        a, b = space.a, space.b
        for side in (a, b):
            if side.kind != "image" or min(side.shape[1:]) < LEAST_PATCHES:
                raise ConfigError(f"images of at least {LEAST_PATCHES} pixels a side are "
                                  f"translated, not {side.words} of shape {side.shape}")
        if a.shape[1:] != b.shape[1:]:
            one, two = ("×".join(map(str, side.shape[1:])) for side in (a, b))
            raise DataError(f"images are translated to the same size, and A is of {one}, B of "
                            f"{two} pixels: give both one size with "
                            f"{say_option('image_size')}")
        if a.sound != b.sound:
            raise DataError(f"A is of {a.sound or 'images'}, B of {b.sound or 'images'}: give "
                            "both one rate=, n_fft=, hop= and floor= (--data-option)")
        if config.horizontal_flip and a.sound:
            raise ConfigError("horizontal_flip=true is for images: a recording's would be it "
                              "backwards")
        penalised = self.config.penalty != "none" and self.config.gamma > 0
        #: the gradient penalty is part of the discriminator's loss, or a phase of its own
        self.eager = penalised and self.config.r1_interval == 1
        self.lazy = penalised and self.config.r1_interval > 1
        self.paired = find_objective(self.config.objective).paired

    def generator_to(self, to: str) -> nn.Module:
        """The generator of images of this domain."""
        raise NotImplementedError

    def translate(self, x: Tensor, *, to: str = "B", noise: Noise | None = None) -> Tensor:
        """Images (n, *shape) of the other domain to domain ``to``, model units.

        Dropout, where there is some, draws from ``noise``.
        """
        with nullcontext() if noise is None else dropout_rng(noise, len(x)):
            image: Tensor = self.generator_to(to)(x)
        return image

    def describe(self, n_train: int) -> str:
        """Objective, and gradient penalty with its weight at the start and at the end."""
        c = self.config
        if not (self.eager or self.lazy):
            return f"{c.objective}, no penalty"
        return (f"{c.objective}, {c.penalty} with gamma {c.gamma:.4g}, at the end "
                f"{c.gamma * c.gamma_end:.4g}" + f", every {c.r1_interval} steps" * self.lazy)

    def discriminator_phases(self, name: str, modules: tuple[str, ...]) -> tuple[Phase, ...]:
        """The phase of the discriminators in ``modules``, and of their penalty where it is lazy."""
        lazy = Phase("penalty", modules, every=self.config.r1_interval)
        return (Phase(name, modules), *((lazy,) if self.lazy else ()))

    def discriminate(self, logits: Logits, real: Tensor, fake: Tensor,
                     step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss, with the gradient penalty if that is eager, and what to log."""
        d_inputs = [x.detach().requires_grad_(self.eager) for x in (real, fake)]
        # the gradient at one kind, part of the same loss, would go back through both
        apart = self.eager and self.config.penalty in ("r1", "r2")
        outputs = [logits(x) for x in d_inputs] if apart else joint(logits, *d_inputs)
        loss = discriminator_loss(self.config.objective, *outputs)
        terms = {"discriminator": loss} | logit_terms(*outputs)
        if not self.eager:
            return loss, terms
        penalty, parts = gradient_penalty(
            self.config.penalty, lambda *xs: [logits(x) for x in xs] if apart else joint(
                logits, *xs), d_inputs, step.noise, outputs)
        return loss + self.gamma(step) * penalty, terms | parts

    def penalise(self, logits: Logits, real: Tensor, fake: Tensor,
                 step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted gradient penalty by itself, and its parts."""
        d_inputs = [x.detach().requires_grad_() for x in (real, fake)]
        penalty, parts = gradient_penalty(self.config.penalty, lambda *xs: joint(logits, *xs),
                                          d_inputs, step.noise)
        return self.gamma(step) * penalty, parts

    def gamma(self, step: Step) -> float:
        """Weight of the penalty: γ at the start, ``gamma_end`` of it at the end, geometrically."""
        return float(self.config.gamma * self.config.gamma_end ** min(1.0, step.progress))

    def augmented(self, batch: PairBatch, step: Step) -> PairBatch:
        """The batch; with ``horizontal_flip`` half of its examples are flipped, on both sides."""
        if not self.config.horizontal_flip:
            return batch
        return flipped(batch, step.noise.uniform(len(batch)) < 0.5)

    def make_generator(self, a: Space, b: Space) -> nn.Module:
        """From images of ``a`` to images of ``b``."""
        size, blocks = (a.shape[1], a.shape[2]), self.config.blocks
        ends = a.shape[0], b.shape[0], size, self.config.width
        if self.config.network == "columns":
            return ColumnTranslator(*ends, blocks or 4)
        if self.config.network == "residual":
            return ResidualTranslator(*ends, blocks or (9 if max(size) > LARGE else 6))
        return UNet(*ends, self.config.depth or None, self.config.dropout, blocks)

    def make_discriminator(self, channels: int, size: tuple[int, ...]) -> PatchDiscriminator:
        """One that sees patches of 70 pixels, or of fewer where images are small."""
        stages = sum(min(large) > 2 * LEAST_PATCHES for large in pyramid(size[0], size[1], 3))
        return PatchDiscriminator(channels,
                                  self.config.discriminator_width or self.config.width,
                                  self.config.discriminator_depth or max(1, stages))


def joint(logits: Logits, *d_inputs: Tensor) -> list[Tensor]:
    """D's logits of several inputs, by one pass over one batch."""
    batch = torch.cat([x.to(d_inputs[0].dtype) for x in d_inputs])
    return list(logits(batch).chunk(len(d_inputs)))


def flipped(batch: PairBatch, which: Tensor) -> PairBatch:
    """The batch with the images of some examples (n,) left to right, of both sides alike."""
    chosen = which.to(batch.a.x.device).view(-1, 1, 1, 1)

    def flip(x: Tensor) -> Tensor:
        return torch.where(chosen, x.flip(-1), x)

    a, b = (replace(side, x=flip(side.x), neighbour=side.neighbour if side.neighbour is None
                    else flip(side.neighbour)) for side in (batch.a, batch.b))
    return PairBatch(a, b)


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, model units."""
    return F.l1_loss(image.float(), target.float())
