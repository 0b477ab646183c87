"""Adam with decoupled weight decay, as one call of torch's fused kernel.

``torch.optim`` does the same sums; building one of its optimisers imports the compiler, which costs
70 MB and a second at every start, and its bookkeeping a tenth of a small network's step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EPS = 1e-8


class Adam:
    """Kingma & Ba 2015, algorithm 1; weight decay as in Loshchilov & Hutter 2019, algorithm 2.

    Args:
        rate: peak learning rate; :meth:`step` takes a share of it.
        betas: decay rates of the two moments.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float,
                 betas: tuple[float, float], weight_decay: float = 0.0) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.rate, self.betas, self.weight_decay = rate, betas, weight_decay
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]
        self.steps = torch.zeros((), device=parameters[0].device)

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Move every parameter by its gradient at ``share`` of the peak rate."""
        self.steps += 1
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._fused_adamw_(self.parameters, gradients, self.first, self.second, [],
                            [self.steps] * len(gradients), lr=self.rate * share,
                            beta1=self.betas[0], beta2=self.betas[1],
                            weight_decay=self.weight_decay, eps=EPS, amsgrad=False,
                            maximize=False)

    def forget_gradients(self) -> None:
        """Drop them: the next backward pass hands over its own instead of adding."""
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
        for name, mine in self.state().items():
            mine.copy_(state[name])
