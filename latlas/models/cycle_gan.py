"""``cycle-gan``: from one domain to another and back, without pairs (Zhu et al. 2017)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.errors import ConfigError
from latlas.core.model import Loss, Phase, Step, TrainingDefaults
from latlas.core.motion import explained, found, grey
from latlas.core.space import Space
from latlas.models.config import CycleGANConfig
from latlas.models.translation import Translator, absolute, exchanged
from latlas.objectives.temporal import flicker

#: weight of the temporal term for frames, and the share of the budget in which it grows to that:
#: generators that must be steady from the first step do not leave what they begin with
TEMPORAL, GROWING = 20.0, 0.5
#: what a config leaves open: for pictures as Zhu et al. (2017); for recordings, whose networks
#: begin near what they are given, less is paid for that, and discriminators are held back
Open = dict[str, Any]
SEEN: Open = {"network": "residual", "width": 64, "penalty": "none", "gamma": 1.0,
              "penalty_every": 1, "cycle": 10.0, "identity": 5.0}
HEARD: Open = {"network": "columns", "width": 16, "penalty": "r1", "gamma": 5e-5,
               "penalty_every": 4, "cycle": 1.5, "identity": 0.0}
#: items of a step, and its size
PACE, PACE_HEARD = (1, 2e-4), (4, 4e-4)
GENERATORS, DISCRIMINATORS = ("forth", "back"), ("judge_a", "judge_b")


class CycleGAN(Translator):
    """F: A → B and G: B → A, each against a discriminator of its domain, and G(F(a)) = a (eq. 3).

    Each discriminator sees a pool of earlier fakes beside new ones. Where both domains have as
    many channels, F is to leave B as it is, and G A (section 5.2). Of frames, translations of
    neighbours are to differ by their motion alone (Lai et al. 2018, section 3.2).
    """

    Config = CycleGANConfig
    config: CycleGANConfig
    needs = "domains"
    ways = ("A", "B")
    defaults = TrainingDefaults(ema_modules=GENERATORS, monitored=True)
    pool_a: Tensor
    pool_b: Tensor

    def __init__(self, config: CycleGANConfig, space: Space) -> None:
        super().__init__(_steadied(_chosen(config, space), space), space)
        a, b = space, self.other
        size, rate = PACE_HEARD if space.sound else PACE
        self.defaults = replace(self.defaults, max_batch_size=size, learning_rate=rate)
        self.forth, self.back = self._translator(a, b), self._translator(b, a)
        self.judge_a = self._discriminator(a.shape[0], a.shape[1:])
        self.judge_b = self._discriminator(b.shape[0], b.shape[1:])
        self.register_buffer("pool_a", torch.zeros(config.pool, *a.shape))
        self.register_buffer("pool_b", torch.zeros(config.pool, *b.shape))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Both discriminators, their lazy penalties, both generators."""
        return (*self.contest.phases("discriminators", DISCRIMINATORS),
                Phase("generators", GENERATORS))

    def phase_loss(self, batch: Batch, phase: str, step: Step) -> Loss:
        """The loss of two players, mean per item."""
        return {"discriminators": self.judge, "penalty": self.smooth,
                "generators": self.make}[phase](self._turned(batch, step), step)

    def judge(self, batch: Batch, step: Step) -> Loss:
        """Both discriminators' losses, with the penalties where they are due at every step."""
        return _of_both(*(self._judged(side, batch, step) for side in "ab"))

    def smooth(self, batch: Batch, step: Step) -> Loss:
        """The penalties by themselves."""
        return _of_both(*(Loss(*self.contest.penalty(
            self._odds(side), self._shown(side, batch, step, slopes=True), (), step))
            for side in "ab"))

    def make(self, batch: Batch, step: Step) -> Loss:
        """Both generators': what the discriminators say, λ |G(F(a)) − a|, and the identity."""
        a, b = _sides(batch)
        made, same = self._made(batch, step), step.cache["same"]
        fooled = sum((self.contest.fool(self._odds(side), real, self._odds(side)(made[side]))
                      for side, real in (("a", a), ("b", b))), a.new_zeros(()))
        cycle = absolute(self.back(made["b"]), a) + absolute(self.forth(made["a"]), b)
        terms = {"generators": fooled, "cycle": cycle}
        assert self.config.cycle is not None and self.config.identity is not None  # settled
        total = fooled + self.config.cycle * cycle
        if same:
            apart = absolute(same["a"], a) + absolute(same["b"], b)
            total, terms = total + self.config.identity * apart, terms | {"identity": apart}
        if self.config.temporal:
            steady = self._flicker(batch, made)
            weight = self.config.temporal * min(1.0, step.progress / GROWING)
            total, terms = total + weight * steady, terms | {"temporal": steady}
        return Loss(total, terms)

    def after_step(self, step: Step, terms: dict[str, Tensor]) -> None:
        """The pools after this step's exchange."""
        for side in "ab":
            if f"pool {side}" in step.cache:
                getattr(self, f"pool_{side}").copy_(step.cache[f"pool {side}"])

    def _towards(self, to: str) -> nn.Module:
        return self.forth if to == "B" else self.back

    def _flicker(self, batch: Batch, made: dict[str, Tensor]) -> Tensor:
        """How much translations of neighbouring frames differ beyond the motion of those."""
        a, b = _sides(batch)
        ways = [(x, after, fake, to) for x, after, fake, to in (
            (a, batch.neighbour, made["b"], "B"), (b, batch.target_neighbour, made["a"], "A"))
            if after is not None]
        if not ways:
            return a.new_zeros(())
        before, later = (torch.cat([grey(x) for x in side]) for side in
                         zip(*((x, after) for x, after, *_ in ways), strict=True))
        motions = found(before, later).split(len(a))  # of both at once: half the time
        return torch.stack([
            flicker(fake, self.translate(after, to=to), motion,
                    explained(x, after, motion, scale=2.0)).mean()
            for (x, after, fake, to), motion in zip(ways, motions, strict=True)]).sum()

    def _judged(self, side: str, batch: Batch, step: Step) -> Loss:
        shown = self._shown(side, batch, step, slopes=self.contest.eager)
        odds = self.contest.odds(self._odds(side), shown)
        return Loss(*self.contest.judge(self._odds(side), shown, odds, step))

    def _shown(self, side: str, batch: Batch, step: Step, slopes: bool) -> list[Tensor]:
        """Real pictures of a domain, and fakes of now and earlier."""
        real = _sides(batch)["ab".index(side)]
        return [x.detach().requires_grad_(slopes)
                for x in (real, self._pooled(side, batch, step))]

    def _pooled(self, side: str, batch: Batch, step: Step) -> Tensor:
        """This step's fakes, half of them changed for earlier ones; the same in every phase."""
        fakes = self._made(batch, step)[side].detach()
        if not self.config.pool:
            return fakes
        if f"shown {side}" not in step.cache:
            step.cache[f"shown {side}"], step.cache[f"pool {side}"] = exchanged(
                getattr(self, f"pool_{side}"), fakes, step.index * len(fakes), step.noise)
        shown: Tensor = step.cache[f"shown {side}"]
        return shown

    def _made(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Fakes of both domains for this step, attached to the generators.

        What is to stay as it is goes through in the same batch, which takes less time.
        """
        if "made" not in step.cache:
            a, b = _sides(batch)
            alike = self.config.identity and a.shape[1] == b.shape[1]
            ways = {"a": (self.back, b, a), "b": (self.forth, a, b)}
            both = {side: way(torch.cat([given, own]) if alike else given).split(len(a))
                    for side, (way, given, own) in ways.items()}
            step.cache["made"] = {side: out[0] for side, out in both.items()}
            step.cache["same"] = {side: out[1] for side, out in both.items() if alike}
        made: dict[str, Tensor] = step.cache["made"]
        return made

    def _odds(self, side: str):  # type: ignore[no-untyped-def]
        """The discriminator of a domain: pictures to (n, patches) float32."""
        judge = self.judge_a if side == "a" else self.judge_b
        return lambda x: judge(x).float()


def _chosen(config: CycleGANConfig, space: Space) -> CycleGANConfig:
    """The config with what it leaves open chosen by the data."""
    usual, blank = SEEN if space.sound is None else HEARD, type(config)()
    unset = {k: v for k, v in usual.items() if getattr(config, k) == getattr(blank, k)}
    return replace(config, **unset)


def _sides(batch: Batch) -> tuple[Tensor, Tensor]:
    """Items of A and of B; there are as many of each."""
    assert batch.target is not None  # the source has been checked to hold two domains
    return batch.x, batch.target


def _of_both(a: Loss, b: Loss) -> Loss:
    """The sum, means of both domains' terms, and each domain's own, ``NAME/A``, for the log."""
    own = {f"{name}/{side}": value for side, loss in (("A", a), ("B", b))
           for name, value in loss.terms.items()}
    return Loss(a.total + b.total,
                {name: (value + b.terms[name]) / 2 for name, value in a.terms.items()} | own)


def _steadied(config: CycleGANConfig, space: Space) -> CycleGANConfig:
    """The config with the weight of the temporal term that suits the data.

    Raises:
        ConfigError: one is asked for, and neither domain has frames.
    """
    frames = space.frames or (space.target is not None and space.target.frames)
    if config.temporal and not frames:
        raise ConfigError(f"temporal={config.temporal:g} is for frames, and these are pictures by "
                          "themselves: open clips (frames=true), or leave it out")
    weight = config.temporal if config.temporal is not None else TEMPORAL if frames else 0.0
    return replace(config, temporal=weight)

