"""Adam, which parameters it moves, the learning-rate schedule, and the averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latlas.core.model import Model, Phase
from latlas.engine.options import TrainOptions

#: steps from one update of the averaged weights to the next: more would cost time for little
EMA_EVERY = 8


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) with decoupled weight decay (Loshchilov & Hutter 2019,
    algorithm 2), as one call of torch's fused kernel.

    Only matrices decay: a bias, or a variance that is learnt, has no reason to be near 0.
    ``torch.optim`` computes the same; building one of its optimisers imports the compiler, which
    costs 70 MB and a second at every start, and its bookkeeping a tenth of a small network's step.

    Args:
        learning_rate: at its peak; :meth:`step` takes a share of it.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], learning_rate: float,
                 betas: tuple[float, float], weight_decay: float = 0.0,
                 eps: float = 1e-8) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]
        self.steps = torch.zeros((), device=parameters[0].device)
        decays = [weight_decay if p.dim() > 1 else 0.0 for p in parameters]
        self.by_decay = {decay: [i for i, d in enumerate(decays) if d == decay]
                         for decay in sorted(set(decays))}

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Move every parameter by its gradient, which must be there, at ``share`` of the peak
        learning rate."""
        self.steps += 1
        for decay, members in self.by_decay.items():
            parameters, first, second = ([tensors[i] for i in members] for tensors in (
                self.parameters, self.first, self.second))
            gradients = [p.grad for p in parameters if p.grad is not None]
            # views whose values lie in order: the kernel copies others, twice its own work
            swap = [p.dim() == 4 and not p.is_contiguous()
                    and p.is_contiguous(memory_format=torch.channels_last) for p in parameters]
            parameters, gradients, first, second = (
                [t.permute(0, 2, 3, 1) if s else t for t, s in zip(tensors, swap, strict=True)]
                for tensors in (parameters, gradients, first, second))
            # in another layout than its parameter's the kernel reads a gradient wrongly
            gradients = [g.contiguous() for g in gradients]
            torch._fused_adamw_(parameters, gradients, first, second, [],
                                [self.steps] * len(members), lr=self.learning_rate * share,
                                beta1=self.betas[0], beta2=self.betas[1], weight_decay=decay,
                                eps=self.eps, amsgrad=False, maximize=False)

    def zero_grad(self) -> None:
        """Drop the gradients: the next backward pass hands over its own instead of adding."""
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments by parameter number, and the count of steps."""
        first = {f"{i}.first": m for i, m in enumerate(self.first)}
        second = {f"{i}.second": m for i, m in enumerate(self.second)}
        return {"steps": self.steps, **first, **second}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state`; the moments keep their parameters' memory layout."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


@dataclass
class ParameterGroup:
    """The phases that train one set of modules, their parameters and optimiser."""

    phases: tuple[Phase, ...]
    parameters: list[nn.Parameter]
    optimiser: Adam


def parameter_groups(model: Model, phases: Sequence[Phase],
                     options: TrainOptions) -> list[ParameterGroup]:
    """Phases with the same modules share one optimiser, in the order they first appear."""
    groups = []
    for modules in dict.fromkeys(phase.modules for phase in phases):
        shared = tuple(phase for phase in phases if phase.modules == modules)
        owners = [module for name in modules if (module := getattr(model, name)) is not None]
        parameters = list(dict.fromkeys(
            p for owner in owners for p in ([owner] if isinstance(owner, nn.Parameter)
                                            else owner.parameters()) if p.requires_grad))
        # a lazy penalty steps the optimiser 1 + 1/k times per step: betas and learning rate to the
        # power k/(k+1) keep its time constants (Karras et al. 2020, appendix B)
        lazy = max(phase.every for phase in shared)
        share = lazy / (lazy + 1) if lazy > 1 and len(shared) > 1 else 1.0
        beta1, beta2 = shared[0].betas or options.betas
        groups.append(ParameterGroup(shared, parameters, Adam(
            parameters, options.learning_rate * share, (beta1 ** share, beta2 ** share),
            options.weight_decay, options.adam_eps)))
    return groups


def learning_rate_share(options: TrainOptions, progress: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a half cosine down to 1%.

    ``stages`` are those of Burda et al. (2016, section 5): 3^i epochs at 10^(−i/7), i = 0 … 7, of
    3,280 in all, stretched or shortened to the budget.
    """
    rise = min(1.0, (progress + 1e-9) / options.warmup) if options.warmup > 0 else 1.0
    if options.schedule == "constant":
        return rise
    if options.schedule == "stages":
        stage = math.floor(math.log(1 + (3**8 - 1) * progress, 3) + 1e-9)
        return rise * 10 ** (-min(stage, 7) / 7)
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


class EMA:
    """Exponential moving average of the weights; its half-life is a share of the examples seen.

    A half-life that grows with training needs no tuning to the budget (the power-function average
    of Karras et al. 2024, section 3.1, in its simplest form).

    Args:
        share: half-life / examples seen; 0 keeps no average.
    """

    def __init__(self, model: Model, share: float) -> None:
        self.share, self.images = share, 0
        self.source = model
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        names = (model.defaults.ema_modules or ("",)) if share > 0 else ()
        self.averages, self.weights = (list[Tensor](
            p for name in names for p in m.get_submodule(name).parameters())
            for m in (self.model, model))

    @torch.no_grad()
    def update(self, images: int) -> None:
        """Move towards the model, which has now seen so many examples."""
        since, self.images = images - self.images, images
        if self.averages and since:
            decay = 0.5 ** (since / (self.share * images))
            torch._foreach_lerp_(self.averages, self.weights, 1 - decay)

    @torch.no_grad()
    def current(self) -> Model:
        """The averaged model, with the source's buffers and whatever is not averaged."""
        tensors, averaged = self.model.state_dict(), {id(p) for p in self.averages}
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        for name, value in self.source.state_dict().items():
            if name not in parameters or id(parameters[name]) not in averaged:
                tensors[name].copy_(value)
        return self.model
