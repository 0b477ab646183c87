"""What a discriminator and a generator are paid, whatever they are and whatever they see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from latlas.core.model import Phase, Step
from latlas.objectives.adversarial import find_objective, gradient_penalty, logit_terms


class Contest:
    """An objective and a penalty on the slope of D, as a config chooses them.

    D's outputs are log-odds that an example is real, (n,), or of its parts, (n, parts).

    Args:
        config: has ``objective``, ``penalty``, ``penalty_every``, ``gamma`` and ``gamma_end``.

    Attributes:
        together: D may see real examples and fakes in one batch; not where examples of it meet.
    """

    def __init__(self, config: Any) -> None:
        self.config, self.together = config, True
        self.objective = find_objective(config.objective)

    @property
    def penalised(self) -> bool:
        """There is a penalty."""
        return bool(self.config.penalty != "none" and self.config.gamma > 0)

    @property
    def eager(self) -> bool:
        """It is part of the discriminator's loss."""
        return self.penalised and self.config.penalty_every == 1

    @property
    def lazy(self) -> bool:
        """It is a phase of its own, at every ``penalty_every``-th step."""
        return self.penalised and self.config.penalty_every > 1

    def __str__(self) -> str:
        gamma, every = self.config.gamma, self.config.penalty_every
        penalty = (f"{self.config.penalty} with gamma {gamma:.4g}, at the end "
                   f"{gamma * self.config.gamma_end:.4g}" if self.penalised else "no penalty")
        return f"{self.config.objective}, {penalty}" + f", every {every} steps" * self.lazy

    def phases(self, name: str, modules: tuple[str, ...]) -> tuple[Phase, ...]:
        """The turn of the discriminators in ``modules``, and of their penalty where it is lazy."""
        lazy = Phase("penalty", modules, every=self.config.penalty_every)
        return (Phase(name, modules), *((lazy,) if self.lazy else ()))

    def judge(self, ask: Callable[[Tensor], Tensor], shown: Sequence[Tensor],
              odds: Sequence[Tensor], step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss, mean, with the penalty if it is eager, and what to log.

        Arguments as for :meth:`penalty`.
        """
        real, fake = odds
        total = self.objective.discriminator(real, fake).mean()
        terms = {"discriminator": total} | logit_terms(real, fake)
        if not self.eager:
            return total, terms
        penalty, found = self.penalty(ask, shown, odds, step)
        return total + penalty, terms | found

    def odds(self, ask: Callable[[Tensor], Tensor], shown: Sequence[Tensor]) -> list[Tensor]:
        """D's outputs at real examples and fakes, in one batch where that may be.

        A slope at one kind, part of the same loss, would go back through both.
        """
        if not self.together or (self.eager and self.config.penalty in ("r1", "r2")):
            return [ask(x) for x in shown]
        return list(ask(torch.cat([x.to(shown[0].dtype) for x in shown])).chunk(len(shown)))

    def fool(self, ask: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """The generator's loss on D's outputs at fakes; ``real`` are asked for if they matter."""
        of_real = ask(real) if self.objective.paired else fake
        return self.objective.generator(of_real, fake).mean()

    def gamma(self, step: Step) -> float:
        """Weight of the penalty: γ at the start, ``gamma_end`` of it at the end, geometrically.

        γ is to the discriminator's slope what a squared length is to the data: every scale gets
        the same time.
        """
        return float(self.config.gamma * self.config.gamma_end ** min(1.0, step.progress))

    def penalty(self, ask: Callable[[Tensor], Tensor], shown: Sequence[Tensor],
                odds: Sequence[Tensor], step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted, and its parts.

        Args:
            ask: D's outputs at examples.
            shown: real examples and fakes; they require a gradient.
            odds: D's outputs there; none where it has not been run.
        """
        penalty, terms = gradient_penalty(self.config.penalty, lambda *xs: self.odds(ask, xs),
                                          shown, step.noise, odds or None)
        return self.gamma(step) * penalty, terms
