"""What every adversarial model shares: two players, their objective, and penalties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.distributions import PointMass
from latlas.core.errors import ConfigError
from latlas.core.model import Loss, Model, Phase, Step, TrainingDefaults
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.models.contest import Contest
from latlas.models.priors import Prior, StandardNormal
from latlas.networks.augment import AUGMENTATIONS

#: fewer pictures than this are augmented; fewer items than this are learnt by heart all the same
FEW, HANDFUL = 10_000, 100
#: certainty of D that augmentation holds it to, and the items over which its probability can rise
#: from 0 to 1 (Karras et al. 2020b, section 3.1)
TARGET, PACE = 0.6, 500_000


class Adversarial(Model):
    """A generator G of codes z ~ N(0, I) and a discriminator D, trained against each other.

    D's slope is penalised, every step inside its own loss or every k-th step in a phase of its
    own (Karras et al. 2020, appendix B). Fakes are made once a step and serve both players.
    A subclass builds ``generator`` and ``discriminator``.
    """

    defaults = TrainingDefaults(ema_modules=("generator",), monitored=True,
                                group_option="minibatch_std")
    generator: nn.Module
    discriminator: nn.Module
    augment_p: Tensor

    def __init__(self, config: Any, space: Space) -> None:
        config = settled(config, space)
        super().__init__(config, space)
        if space.kind != "picture" and config.augment not in ("auto", "none"):
            raise ConfigError(f"augment={config.augment} is for pictures; leave it out")
        self.latent_dim = config.latent_dim
        self.prior: Prior = StandardNormal(self.latent_dim)
        self.contest = Contest(config)
        self.register_buffer("augment_p", torch.zeros(()))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Discriminator, its lazy penalty, generator."""
        judge = self.contest.phases("discriminator", ("discriminator",))
        return (*judge, Phase("generator", ("generator",)))

    def describe(self, n_train: int) -> str:
        """Objective, penalty with its weight at the start and the end, and augmentation."""
        seen = f", augment={self._augmentation(n_train)}" if self.space.kind == "picture" else ""
        return f"{self.contest}{seen}"

    def warnings(self, n_train: int) -> list[str]:
        """So few n_train that the discriminator knows each."""
        if n_train >= HANDFUL:
            return []
        kind, pictures = self._augmentation(n_train), self.space.kind == "picture"
        what = f"{'picture' if pictures else 'item'}{'' if n_train == 1 else 's'}"
        way = f"augment={kind}, in use, delays that" if kind != "none" else (
            "augment=ada would delay that" if pictures else "give more")
        return [f"only {n_train} training {what}: so few are learnt by heart, and samples will be "
                f"copies of them; {way}"]

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """Every phase that is due, with its loss."""
        for phase in self.phases:
            if step.index % phase.every == 0:
                yield phase.name, self.phase_loss(batch, phase.name, step)

    def phase_loss(self, batch: Batch, phase: str, step: Step) -> Loss:
        """One player's loss, mean per item."""
        return {"discriminator": self.judge, "penalty": self.smooth,
                "generator": self.fool}[phase](batch, step)

    def judge(self, batch: Batch, step: Step) -> Loss:
        """The discriminator's loss, and the penalty where it is due at every step."""
        step.cache["items"] = len(batch)
        shown = self._shown(batch, step, slopes=self.contest.eager)
        outputs = self.contest.odds(lambda x: self._outputs(x, batch, step), shown)
        odds = [out[:, 0] for out in outputs]
        total, terms = self.contest.judge(lambda x: self._odds(x, batch, step), shown, odds, step)
        told = self._told(outputs[0], batch, step)
        if self._augmentation(step.n_train) == "ada":
            terms["augmented"] = self.augment_p.clone()
        return Loss(sum(told.values(), total), terms | told)

    def smooth(self, batch: Batch, step: Step) -> Loss:
        """The penalty by itself; D is run where it is taken and nowhere else."""
        shown = self._shown(batch, step, slopes=True)
        return Loss(*self.contest.penalty(lambda x: self._odds(x, batch, step), shown,
                                          (), step))

    def fool(self, batch: Batch, step: Step) -> Loss:
        """The generator's loss on the fakes that the discriminator has just judged."""
        outputs = self._outputs(self._seen(self._fakes(batch, step), step), batch, step)
        total = self.contest.fool(lambda x: self._odds(self._seen(x, step), batch, step), batch.x,
                                  outputs[:, 0])
        told = self._told(outputs, batch, step)
        return Loss(sum(told.values(), total), {"generator": total})

    def _shown(self, batch: Batch, step: Step, slopes: bool) -> list[Tensor]:
        """This step's real items and fakes as D sees them; with ``slopes`` its slope can be
        taken."""
        return [self._seen(x, step).detach().requires_grad_(slopes)
                for x in (batch.x, self._fakes(batch, step).detach())]

    def _seen(self, x: Tensor, step: Step) -> Tensor:
        """What D is shown of items."""
        kind = self._augmentation(step.n_train)
        return x if kind == "none" else AUGMENTATIONS[kind](x, self.augment_p, step.noise)

    def _augmentation(self, items: int) -> str:
        if self.space.kind != "picture" or self.config.augment == "none":
            return "none"
        if self.config.augment == "auto":
            return "ada" if 0 < items < FEW else "none"
        return str(self.config.augment)

    def after_step(self, step: Step, terms: dict[str, Tensor]) -> None:
        """Augment more where D is surer of the real items than :data:`TARGET`, and less below.

        (Karras et al. 2020b, section 3.) The number is this process's own; items are those of all.
        """
        if self._augmentation(step.n_train) != "ada":
            return
        items = step.cache["items"] * step.noise.world
        further = (terms["certainty"] - TARGET).sign() * (items / PACE)
        self.augment_p.add_(further).clamp_(0, 1)

    def _odds(self, x: Tensor, batch: Batch, step: Step) -> Tensor:
        """How real D finds items that share the batch's conditions, (n,) float32."""
        return self._outputs(x, batch, step)[:, 0]

    def _outputs(self, x: Tensor, batch: Batch, step: Step) -> Tensor:
        """D's outputs at items that share the batch's conditions, (n, k) float32.

        The first is how real an item is; what the others tell is a subclass's matter. ``x`` may be
        as many items as the batch several times over.
        """
        times = len(x) // len(batch)
        known = (given if given is None else given.repeat(times, *[1] * (given.dim() - 1))
                 for given in self._known(batch, step))
        out: Tensor = self.discriminator(x, *known)
        return out.float()

    def _known(self, batch: Batch, step: Step) -> tuple[Tensor | None, ...]:
        """What D is told of the batch's items and of the fakes beside them: their condition."""
        given = self.conditioning(batch, step.noise)
        return () if given is None else (given,)

    def _told(self, outputs: Tensor, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Further terms of both players, by what D tells of real items or of fakes; none here."""
        return {}

    def _fakes(self, batch: Batch, step: Step) -> Tensor:
        """G(z) for this step, attached to the generator."""
        if "fakes" not in step.cache:
            step.cache["fakes"] = self._made(batch, step)
        fakes: Tensor = step.cache["fakes"]
        return fakes

    def _made(self, batch: Batch, step: Step) -> Tensor:
        """As many fakes as there are real items."""
        return self.sample(len(batch), noise=step.noise,
                           condition=self.conditioning(batch, step.noise))

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """What this batch is conditioned on; nothing here."""
        return None

    def sample_latents(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """(n, latent_dim) codes of items, of a condition where codes differ by it."""
        return self.prior.sample(n, noise).to(self.device)

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """G(z) of such codes: (n, *shape) model units."""
        z = self.sample_latents(n, noise=noise, condition=condition)
        return self.decode(z, condition=condition).mean

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> PointMass:
        """(*batch, latent_dim) to (*batch, *shape); a condition (n, …) serves all leading draws."""
        made = self._generated(z.reshape(-1, z.shape[-1]), condition)
        return PointMass(made.float().reshape(*z.shape[:-1], *self.space.shape),
                         len(self.space.shape))

    def _generated(self, z: Tensor, condition: Tensor | None) -> Tensor:
        out: Tensor = self.generator(z)
        return out


def settled(config: Any, space: Space) -> Any:
    """The config with the penalty and the size of a code that were left to the data chosen."""
    penalty = config.penalty
    if penalty == "auto":
        penalty = "gp" if config.objective == "wasserstein" else "r1+r2"
    return replace(config, penalty=penalty,
                   latent_dim=config.latent_dim or auto_latent_dim(space),
                   gamma=auto_gamma(penalty, space) if config.gamma is None else config.gamma,
                   gamma_end=auto_gamma_end(penalty, space) if config.gamma_end is None
                   else config.gamma_end)


def auto_latent_dim(space: Space) -> int:
    """64 for pictures; what has few numbers gets a code of twice as many."""
    return 64 if space.kind == "picture" else min(64, max(2, 2 * space.dims))


def auto_gamma(penalty: str, space: Space) -> float:
    """10 for the gradient penalty (Gulrajani et al. 2017), else 1, or for pictures by their size.

    The penalty of a picture sums over pixels, which move together.
    """
    if penalty == "gp":
        return 10.0
    return max(0.01, space.dims / 2048) if space.kind == "picture" else 1.0


def auto_gamma_end(penalty: str, space: Space) -> float:
    """Where the edges of modes are to be told as sharply as rows and points have them, less.

    The gradient penalty is a constraint and stays.
    """
    if penalty == "gp":
        return 1.0
    return 0.1 if space.kind == "picture" else 0.01
