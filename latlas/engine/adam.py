"""Adam with decoupled weight decay, as one call of torch's fused kernel.

``torch.optim`` does the same sums; building one of its optimisers imports the compiler, which costs
70 MB and a second at every start, and its bookkeeping a tenth of a small network's step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Adam:
    """Kingma & Ba 2015, algorithm 1; weight decay as in Loshchilov & Hutter 2019, algorithm 2.

    Only matrices decay: a bias, or a variance that is learnt, has no reason to be near 0.

    Args:
        rate: peak learning rate; :meth:`step` takes a share of it.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float,
                 betas: tuple[float, float], weight_decay: float = 0.0,
                 eps: float = 1e-8) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.rate, self.betas, self.eps = rate, betas, eps
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]
        self.steps = torch.zeros((), device=parameters[0].device)
        decays = [weight_decay if p.dim() > 1 else 0.0 for p in parameters]
        self.groups = {decay: [i for i, d in enumerate(decays) if d == decay]
                       for decay in sorted(set(decays))}

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Move every parameter by its gradient at ``share`` of the peak rate."""
        self.steps += 1
        for decay, members in self.groups.items():
            self._move(members, self.rate * share, decay)

    def _move(self, members: list[int], rate: float, decay: float) -> None:
        """One fused call; every parameter has a gradient by now."""
        parameters, first, second = ([held[i] for i in members] for held in
                                     (self.parameters, self.first, self.second))
        gradients = [p.grad for p in parameters if p.grad is not None]
        swap = [_channels_last(p) for p in parameters]
        parameters, gradients, first, second = (
            _in_order(tensors, swap) for tensors in (parameters, gradients, first, second))
        gradients = [g.contiguous() for g in gradients]  # in any other layout it reads them wrongly
        torch._fused_adamw_(parameters, gradients, first, second, [],
                            [self.steps] * len(members), lr=rate, beta1=self.betas[0],
                            beta2=self.betas[1], weight_decay=decay, eps=self.eps, amsgrad=False,
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


def _channels_last(t: Tensor) -> bool:
    return (t.dim() == 4 and not t.is_contiguous()
            and t.is_contiguous(memory_format=torch.channels_last))


def _in_order(tensors: list[Tensor], swap: list[bool]) -> list[Tensor]:
    """Views whose numbers lie in order: the kernel copies others, twice as much work as its own."""
    return [t.permute(0, 2, 3, 1) if s else t for t, s in zip(tensors, swap, strict=True)]
