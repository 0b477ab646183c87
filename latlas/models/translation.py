"""What translators of images of one domain into another share; ``pix2pix``, the other image of a
pair (Isola et al. 2017)."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.errors import ConfigError, DataError, say_option
from latlas.core.model import Loss, Model, PairBatch, Phase, Step, TrainingDefaults
from latlas.core.noise import Noise, dropout_rng
from latlas.core.options import option
from latlas.core.space import PairSpace, Space
from latlas.networks import translators
from latlas.networks.conv import pyramid
from latlas.objectives.adversarial import OBJECTIVES, AdversarialLoss, find_objective

#: channels of the first level: as Isola et al. (2017) and Zhu et al. (2017), and of narrower
#: networks, whose discriminators have half as many
WIDTHS = (64, 48, 32, 16)
#: images that networks of these widths need, and epochs: in the time of fewer, narrower ones see
#: more and learn more
ENOUGH, EPOCHS = {64: 100_000, 48: 20_000, 32: 4_000}, {64: 50.0, 48: 10.0, 32: 3.0}
#: learning rate of networks of the first width (Isola et al. 2017, section 3.3), and of narrower
PACE, QUICK_PACE = 2e-4, 2e-3
#: share of the budget after which narrower networks are trained against a discriminator
START = 0.75
#: images with a side beyond this get nine residual blocks instead of six (Zhu et al. 2017)
LARGE = 128
#: discriminators halve until a side would be under this
LEAST_PATCHES = 8


@dataclass(frozen=True)
class TranslationConfig:
    """From images of one domain to those of another."""

    network: str = option("unet", "kind of generator: unet sees every size again on its way up, "
                          "residual works at a quarter of the size", choices=("unet", "residual"))
    width: int = option(0, "channels of the first level of all networks; 0: 64, or fewer where "
                           "that learns more in the minutes", low=0)
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
                                         "as the generator's, or half as many where the minutes "
                                         "decide on that", low=0)
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
        return replace(self, width=self.width or WIDTHS[0])

    def levels(self, space: PairSpace) -> tuple[Self, ...]:
        """What is chosen among for a budget of minutes, the published width first; itself alone
        where a width is named."""
        if self.width:
            return (self,)
        return (replace(self, width=WIDTHS[0]), *(
            replace(self, width=width, discriminator_width=self.discriminator_width or width // 2)
            for width in WIDTHS[1:]))

    def suffices(self, images: float, n: int) -> bool:
        """Whether networks of this width learn from so many images, of ``n`` in a data set."""
        return images >= max(ENOUGH[self.width], EPOCHS[self.width] * n)


class Translator(Model):
    """Generators from images of domain A to those of B, against discriminators of patches."""

    latent_dim = 0
    ways: tuple[str, ...] = ("B",)  # the domains it translates to
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
        self.adversarial = AdversarialLoss(self.config, patches=True)

    def generator_to(self, to: str) -> nn.Module:
        """The generator of images of this domain."""
        raise NotImplementedError

    def translate(self, x: Tensor, *, to: str = "B", noise: Noise | None = None) -> Tensor:
        """Images (n, *shape) of the other domain to domain ``to``, model units; dropout draws from
        ``noise``."""
        with nullcontext() if noise is None else dropout_rng(noise, len(x)):
            image: Tensor = self.generator_to(to)(x)
        return image

    def describe(self, n_train: int) -> str:
        """Objective, and gradient penalty with its weight at the start and at the end."""
        return self.adversarial.describe()

    def make_generator(self, a: Space, b: Space) -> nn.Module:
        """From images of ``a`` to images of ``b``."""
        size, c = (a.shape[1], a.shape[2]), self.config
        ends = a.shape[0], b.shape[0], size, c.width
        if c.network == "columns":
            return translators.ColumnTranslator(*ends, c.blocks or 4)
        if c.network == "residual":
            blocks = c.blocks or (9 if max(size) > LARGE else 6)
            return translators.ResidualTranslator(*ends, blocks)
        return translators.UNet(*ends, c.depth or None, c.dropout, c.blocks)

    def make_discriminator(self, channels: int,
                           size: tuple[int, ...]) -> translators.PatchDiscriminator:
        """One that sees patches of 70 pixels, or of fewer where images are small."""
        stages = sum(min(large) > 2 * LEAST_PATCHES for large in pyramid(size[0], size[1], 3))
        return translators.PatchDiscriminator(
            channels, self.config.discriminator_width or self.config.width,
            self.config.discriminator_depth or max(1, stages))


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


@dataclass(frozen=True)
class Pix2PixConfig(TranslationConfig):
    """The other image of a pair."""

    l1: float = option(100.0, "weight of the mean absolute difference, model units", low=0)
    adversarial: float = option(1.0, "weight of the adversarial loss; 0: no discriminator", low=0)
    features: float = option(0.0, "weight of the difference of the discriminator's features", low=0)
    adversarial_start: float = option(0.0, "share of the budget after which the adversarial loss "
                                      "sets in; where the minutes decide on a narrower network "
                                      f"{START:g}", low=0, high=0.99)

    def levels(self, space: PairSpace) -> tuple[Self, ...]:
        """Narrow ones learn what is near the target before a discriminator asks for detail: it
        would get mottle of networks that do not see the outlines yet."""
        published, *rest = super().levels(space)
        return (published, *(replace(
            level, adversarial_start=self.adversarial_start or START) for level in rest))


class Pix2Pix(Translator):
    """G(x) near the y of its pair, and so that D cannot tell (x, G(x)) from (x, y) (eq. 4).

    D sees both images and says of every patch how real it is. ``adversarial=0`` leaves D out:
    what is uncertain then becomes its median, which is blurred.
    """

    Config = Pix2PixConfig
    config: Pix2PixConfig
    discriminator: translators.PatchDiscriminator
    needs = "pairs"
    defaults = TrainingDefaults(ema_modules=("generator",), monitored=True)

    def __init__(self, config: Pix2PixConfig, space: PairSpace) -> None:
        super().__init__(config, space)
        self.defaults = replace(
            self.defaults, learning_rate=PACE if self.config.width >= WIDTHS[0] else QUICK_PACE,
            progressive=bool(config.adversarial and config.adversarial_start))
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
        span = self.config.adversarial_start, 1.0
        return (*(replace(phase, span=span) for phase in self.adversarial.phases(
            "discriminator", "discriminator")), generator)

    def losses(self, batch: PairBatch, step: Step) -> Iterator[tuple[str, Loss]]:  # type: ignore[override]
        """One step: the discriminator on this step's fakes, then the generator that made them."""
        c = self.config
        if c.horizontal_flip:
            batch = flipped(batch, step.noise.uniform(len(batch)) < 0.5)
        x, y = batch.a.x, batch.b.x
        fake = self.generator(x)

        def pair(image: Tensor) -> Tensor:
            """x beside images, which may be several batches."""
            return torch.cat([x.repeat(len(image) // len(x), 1, 1, 1), image.to(x.dtype)], 1)

        def discriminate(image: Tensor) -> Tensor:
            return self.discriminator(pair(image))

        adversarial = c.adversarial * (not step.before(c.adversarial_start))
        if adversarial:
            yield "discriminator", Loss(*self.adversarial.discriminator_loss(
                discriminate, y, fake, step)[:2])
            if self.adversarial.due(step):
                yield "penalty", Loss(*self.adversarial.penalty(discriminate, (y, fake), step))

        near = l1(fake, y)
        total, terms = c.l1 * near, {"l1": near}
        if adversarial:
            fooled, _ = self.adversarial.generator_loss(discriminate, fake, y)
            total, terms = total + adversarial * fooled, terms | {"generator": fooled}
        if adversarial and c.features:  # Wang et al. (2018, eq. 3), mean over levels
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
