"""``cycle-gan``: from one domain to another and back, without pairs (Zhu et al. 2017)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from latlas.core.errors import ConfigError, say_option
from latlas.core.model import Loss, PairBatch, Phase, Step, TrainingDefaults
from latlas.core.motion import estimate, explained, grey, warped
from latlas.core.noise import Noise
from latlas.core.options import option
from latlas.core.space import PairSpace
from latlas.models.translation import (
    PACE,
    WIDTHS,
    TranslationConfig,
    Translator,
    flipped,
    l1,
)

#: weight of the temporal term for frames, and the share of the budget in which it grows to that:
#: generators that must be steady from the first step do not leave what they begin with
TEMPORAL, GROWING = 20.0, 0.5
#: what a config leaves open: for images as Zhu et al. (2017); for recordings, whose networks begin
#: near the identity, less is paid for that, and discriminators are held back
IMAGE_DEFAULTS: dict[str, Any] = {
    "network": "residual", "width": 64, "penalty": "none", "gamma": 1.0, "r1_interval": 1,
    "cycle": 10.0, "identity": 5.0}
AUDIO_DEFAULTS: dict[str, Any] = {
    "network": "columns", "width": 16, "penalty": "r1", "gamma": 5e-5, "r1_interval": 4,
    "cycle": 1.5, "identity": 0.0}
#: for a budget of minutes that does not suffice for these: a residual network spends its time on
#: the full size; a U-Net, whose skip connections keep outlines, takes a tenth of that
NARROWER: tuple[dict[str, Any], ...] = (
    {"network": "residual", "width": 32},
    {"network": "unet", "width": 32, "depth": 2, "blocks": 3},
    {"network": "unet", "width": 16, "depth": 2, "blocks": 3})
#: images and epochs that these networks need
ENOUGH = {("residual", 64): (100_000, 50.0), ("residual", 32): (30_000, 20.0),
          ("unet", 32): (20_000, 15.0)}
#: examples of a step, and the learning rate: of images, of networks narrower than the published, of
#: recordings
IMAGE_PACE, NARROW_PACE, AUDIO_PACE = (1, PACE), (4, 1e-3), (4, 4e-4)
GENERATORS = ("G_AB", "G_BA")


@dataclass(frozen=True)
class CycleGANConfig(TranslationConfig):
    """There and back without pairs."""

    network: str = option("auto", "kind of generator: residual works at a quarter of the size, "
                          "unet sees every size again on its way up, columns sees a column at "
                          "once, of spectra all tones; auto: columns for recordings, else residual",
                          choices=("auto", "residual", "unet", "columns"))
    width: int = option(0, "channels of the first level of all networks, of columns a sixteenth of "
                           "those inside; 0: 16 for recordings, else 64, or fewer, of another "
                           "network, where that learns more in the minutes", low=0)
    penalty: str = option("auto", "gradient penalty of the discriminators; auto: r1 for "
                          "recordings, else none", choices=("auto", "none", "r1", "r2", "r1+r2",
                                                            "gp"))
    gamma: float = option(0.0, "weight of the gradient penalty; 0: 5e-5 for recordings, else 1",
                          low=0, high=1e6)
    r1_interval: int = option(0, "steps from one gradient penalty to the next, each times as many; "
                                 "0: 4 for recordings, else 1", low=0)
    cycle: float | None = option(None, "weight of the cycle-consistency loss; none: 1.5 for "
                                 "recordings, else 10", low=0)
    identity: float | None = option(None, "weight of the identity loss, of images that are of the "
                                    "target domain already, for equal numbers of channels; none: "
                                    "0 for recordings, else 5", low=0)
    temporal: float | None = option(None, "weight of the temporal loss, by which translations of "
                                    "neighbouring frames differ beyond their motion; none: 20 for "
                                    "frames, 0 for images", low=0)
    replay_buffer: int = option(50, "earlier fakes that discriminators go on seeing; 0: none",
                                low=0)

    def resolve(self, space: PairSpace) -> Self:
        """With what it leaves open chosen by the data; ConfigError for ``temporal`` where neither
        domain has frames."""
        frames = space.a.frames or space.b.frames
        if self.temporal and not frames:
            raise ConfigError(f"temporal={self.temporal:g} is for frames, and these are images "
                              "by themselves: open clips "
                              f"({say_option('frames', 'true')}), or leave it out")
        usual = IMAGE_DEFAULTS if space.a.sound is None else AUDIO_DEFAULTS
        blank, temporal = CycleGANConfig(), TEMPORAL if frames else 0.0
        return replace(self, temporal=temporal if self.temporal is None else self.temporal,
                       **{k: v for k, v in usual.items() if getattr(self, k) == getattr(blank, k)})

    def levels(self, space: PairSpace) -> tuple[Self, ...]:
        """The published networks and lighter ones; of recordings, and where a network or width is
        named, itself alone."""
        if self.width or self.network != "auto" or space.a.sound:
            return (self,)
        blank = CycleGANConfig()  # what is named stays
        return (replace(self, network="residual", width=IMAGE_DEFAULTS["width"]), *(
            replace(self, **{k: v for k, v in level.items()
                             if getattr(self, k) == getattr(blank, k)}) for level in NARROWER))

    def suffices(self, images: float, n: int) -> bool:
        least, epochs = ENOUGH[self.network, self.width]
        return images >= max(least, epochs * n)


class CycleGAN(Translator):
    """G_AB: A → B and G_BA: B → A, each against a discriminator, and G_BA(G_AB(a)) = a (eq. 3).

    Each discriminator sees a buffer of earlier fakes beside new ones. Where both domains have as
    many channels, G_AB is to leave B as it is, and G_BA A (section 5.2). Of frames, translations of
    neighbours are to differ by their motion alone (Lai et al. 2018, section 3.2).
    """

    Config = CycleGANConfig
    config: CycleGANConfig
    needs = "domains"
    ways = ("A", "B")
    defaults = TrainingDefaults(ema_modules=GENERATORS, monitored=True)
    replay_a: Tensor
    replay_b: Tensor

    def __init__(self, config: CycleGANConfig, space: PairSpace) -> None:
        super().__init__(config, space)
        a, b = space.a, space.b
        size, rate = AUDIO_PACE if a.sound else IMAGE_PACE
        if not a.sound and self.config.width < WIDTHS[0]:
            size, rate = NARROW_PACE
        self.defaults = replace(self.defaults, max_batch_size=size, learning_rate=rate)
        self.G_AB, self.G_BA = self.make_generator(a, b), self.make_generator(b, a)
        self.D_A = self.make_discriminator(a.shape[0], a.shape[1:])
        self.D_B = self.make_discriminator(b.shape[0], b.shape[1:])
        self.register_buffer("replay_a", torch.zeros(config.replay_buffer, *a.shape))
        self.register_buffer("replay_b", torch.zeros(config.replay_buffer, *b.shape))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Both discriminators, their lazy gradient penalties, both generators."""
        return (*self.adversarial.phases("discriminators", "D_A", "D_B"),
                Phase("generators", GENERATORS))

    def losses(self, batch: PairBatch, step: Step) -> Iterator[tuple[str, Loss]]:  # type: ignore[override]
        """One step: both discriminators on this step's fakes and earlier ones, then both
        generators."""
        c = self.config
        if c.horizontal_flip:
            batch = flipped(batch, step.noise.uniform(len(batch)) < 0.5)
        a, b = batch.a.x, batch.b.x
        # what is to stay as it is goes through in the same batch, which takes less time
        identity_weight = c.identity if c.identity and a.shape[1] == b.shape[1] else 0.0
        alike = identity_weight > 0
        fake_a, *same_a = self.G_BA(torch.cat([b, a]) if alike else b).split(len(a))
        fake_b, *same_b = self.G_AB(torch.cat([a, b]) if alike else a).split(len(a))

        old_a, replay_a = fake_a.detach(), self.replay_a
        old_b, replay_b = fake_b.detach(), self.replay_b
        if c.replay_buffer:
            old_a, replay_a = replayed(replay_a, old_a, step.index * len(a), step.noise)
        loss_a, terms_a, _ = self.adversarial.discriminator_loss(self.D_A, a, old_a, step)
        if c.replay_buffer:
            old_b, replay_b = replayed(replay_b, old_b, step.index * len(b), step.noise)
        loss_b, terms_b, _ = self.adversarial.discriminator_loss(self.D_B, b, old_b, step)
        yield "discriminators", Loss(loss_a + loss_b, both(terms_a, terms_b))
        if self.adversarial.due(step):
            loss_a, terms_a = self.adversarial.penalty(self.D_A, (a, old_a), step)
            loss_b, terms_b = self.adversarial.penalty(self.D_B, (b, old_b), step)
            yield "penalty", Loss(loss_a + loss_b, both(terms_a, terms_b))

        adversarial = (self.adversarial.generator_loss(self.D_A, fake_a, a)[0]
                       + self.adversarial.generator_loss(self.D_B, fake_b, b)[0])
        cycle = l1(self.G_BA(fake_b), a) + l1(self.G_AB(fake_a), b)
        total, terms = adversarial + (c.cycle or 0.0) * cycle, {
            "generators": adversarial, "cycle": cycle}
        if alike:
            identity = l1(same_a[0], a) + l1(same_b[0], b)
            total, terms = total + identity_weight * identity, terms | {"identity": identity}
        if c.temporal:
            unsteady = self.temporal_loss(batch, fake_a, fake_b)
            weight = c.temporal * step.share_of(GROWING)
            total, terms = total + weight * unsteady, terms | {"temporal": unsteady}
        yield "generators", Loss(total, terms)

        self.replay_a.copy_(replay_a)
        self.replay_b.copy_(replay_b)

    def temporal_loss(self, batch: PairBatch, fake_a: Tensor, fake_b: Tensor) -> Tensor:
        """How much translations of neighbouring frames differ beyond the motion of those."""
        pairs = [(side.x, side.neighbour, fake, to) for side, fake, to in (
            (batch.a, fake_b, "B"), (batch.b, fake_a, "A")) if side.neighbour is not None]
        if not pairs:
            return fake_a.new_zeros(())
        earlier, later = (torch.cat([grey(x) for x in side]) for side in
                          zip(*((x, near) for x, near, *_ in pairs), strict=True))
        motions = estimate(earlier, later).split(len(fake_a))  # of both at once: half the time
        return torch.stack([
            flicker(fake, self.translate(near, to=to), motion,
                    explained(x, near, motion, scale=2.0)).mean()
            for (x, near, fake, to), motion in zip(pairs, motions, strict=True)]).sum()

    def describe(self, n_train: int) -> str:
        """Objective and gradient penalty; the weight of the temporal loss, where there is one."""
        weight = self.config.temporal
        return super().describe(n_train) + (f", temporal {weight:g}" if weight else "")

    def generator_to(self, to: str) -> nn.Module:
        return self.G_AB if to == "B" else self.G_BA


def replayed(buffer: Tensor, fakes: Tensor, before: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """What D sees in place of ``fakes`` (n, \\*shape), and the buffer (p, \\*shape) after that.

    The first p fakes fill the buffer; later ones take the place of a random one half of the time,
    and D sees that one instead (Shrivastava et al. 2017, section 2.3; Zhu et al. 2017). ``before``
    says how many fakes there were before these. ConfigError for more fakes than the buffer holds.
    """
    n, p = len(fakes), len(buffer)
    if n > p:
        raise ConfigError(f"replay_buffer={p} holds fewer than a batch of {n}: raise it, or choose "
                          "replay_buffer=0")
    slots = noise.uniform(p).argsort()[:n].to(buffer.device)
    swap = (noise.uniform(n) < 0.5).to(buffer.device).view(n, *[1] * (fakes.dim() - 1))
    if before + n <= p:
        rows = torch.arange(before, before + n, device=buffer.device)
        return fakes, buffer.index_copy(0, rows, fakes)
    old = buffer[slots]
    return torch.where(swap, old, fakes), buffer.index_copy(0, slots, torch.where(swap, fakes, old))


def flicker(earlier: Tensor, later: Tensor, motion: Tensor, weight: Tensor) -> Tensor:
    """mean over places and channels of w |later − W(earlier)|, of each pair of frames: (n,).

    The short-term temporal loss of Lai et al. (2018, section 3.2; Ruder et al. 2016, eq. 7, with
    squares). ``motion`` (n, 2, 3) is that of the frames themselves, and ``weight`` (n, 1, H, W) how
    well it explains them (:mod:`latlas.core.motion`).
    """
    return (weight * (later.float() - warped(earlier, motion)).abs()).flatten(1).mean(1)


def both(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    """For the log: of both domains' terms the mean, and each domain's own, ``NAME/A``."""
    means = {name: (value + b[name]) / 2 for name, value in a.items()}
    return means | {f"{name}/{side}": value for side, terms in (("A", a), ("B", b))
                    for name, value in terms.items()}
