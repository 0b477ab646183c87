"""Adam, one for the phases that train the same modules, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latlas.core.model import Model, Phase
from latlas.engine.options import TrainOptions


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) with decoupled weight decay (Loshchilov & Hutter 2019,
    algorithm 2), as one call of torch's fused kernel.

    Only matrices decay: a bias, or a variance that is learnt, has no reason to be near 0.
    ``torch.optim`` computes the same; building one of its optimisers imports the compiler, which
    costs 70 MB and a second at every start, and its bookkeeping a tenth of a small network's step.
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
    def step(self, share: float | Tensor) -> None:
        """Move every parameter by its gradient, which must be there and is dropped, at ``share`` of
        the peak learning rate."""
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


def phase_optimisers(model: Model, phases: Sequence[Phase],
                     options: TrainOptions) -> dict[str, tuple[Phase, Adam]]:
    """Every phase by name with its optimiser; phases of the same modules share one."""
    optimisers: dict[str, tuple[Phase, Adam]] = {}
    for modules in dict.fromkeys(phase.modules for phase in phases):
        shared = [phase for phase in phases if phase.modules == modules]
        owners = [module for name in modules if (module := getattr(model, name)) is not None]
        parameters = list(dict.fromkeys(
            p for owner in owners for p in ([owner] if isinstance(owner, nn.Parameter)
                                            else owner.parameters()) if p.requires_grad))
        # a lazy penalty steps the optimiser 1 + 1/k times per step: betas and learning rate to the
        # power k/(k+1) keep its time constants (Karras et al. 2020, appendix B)
        lazy = max(phase.every for phase in shared)
        share = lazy / (lazy + 1) if lazy > 1 and len(shared) > 1 else 1.0
        beta1, beta2 = shared[0].betas or options.betas
        adam = Adam(parameters, options.learning_rate * share, (beta1 ** share, beta2 ** share),
                    options.weight_decay, options.adam_eps)
        optimisers |= {phase.name: (phase, adam) for phase in shared}
    return optimisers


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
