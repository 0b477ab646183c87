"""One Adam per set of modules, the learning-rate schedule, and who trains when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from latlas.core.model import Model, Phase
from latlas.engine.adam import Adam
from latlas.engine.options import TrainOptions


@dataclass
class Player:
    """The phases that train one set of modules, their parameters and optimiser."""

    phases: tuple[Phase, ...]
    parameters: list[nn.Parameter]
    optimiser: Adam


def players(model: Model, phases: Sequence[Phase], options: TrainOptions) -> list[Player]:
    """Phases with the same modules share one optimiser, in the order they first appear."""
    grouped: dict[tuple[str, ...], list[Phase]] = {}
    for phase in phases:
        grouped.setdefault(phase.modules, []).append(phase)
    return [_player(model, modules, tuple(shared), options) for modules, shared in grouped.items()]


def _player(model: Model, modules: tuple[str, ...], phases: tuple[Phase, ...],
            options: TrainOptions) -> Player:
    found = [p for name in modules for p in _parameters(getattr(model, name)) if p.requires_grad]
    parameters = list(dict.fromkeys(found))
    lazy = max((phase.every for phase in phases), default=1)
    # a lazy penalty steps the optimiser 1 + 1/k times per step: betas and rate to the power
    # k/(k+1) keep its time constants (Karras et al. 2020, appendix B)
    share = lazy / (lazy + 1) if lazy > 1 and len(phases) > 1 else 1.0
    first, second = phases[0].betas or options.betas
    betas = (first ** share, second ** share)
    made = Adam(parameters, options.learning_rate * share, betas, options.weight_decay,
                options.adam_eps)
    return Player(phases, parameters, made)


def _parameters(module: nn.Module | nn.Parameter | None) -> list[nn.Parameter]:
    if module is None:
        return []
    return [module] if isinstance(module, nn.Parameter) else list(module.parameters())


def rate(options: TrainOptions, progress: float) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a half cosine down to 1%.

    ``stages`` are those of Burda et al. (2016, section 5): 3^i passes at 10^(−i/7), i = 0 … 7, of
    3,280 in all, stretched or shortened to the budget.
    """
    rise = min(1.0, (progress + 1e-9) / options.warmup) if options.warmup > 0 else 1.0
    if options.schedule == "constant":
        return rise
    if options.schedule == "stages":
        stage = math.floor(math.log(1 + (3**8 - 1) * progress, 3) + 1e-9)
        return rise * 10 ** (-min(stage, 7) / 7)
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
