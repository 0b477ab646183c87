"""An average of the weights over the recent past, which samples and scores better than the last."""

from __future__ import annotations

import copy

import torch

from latlas.core.model import Model

#: the average is updated every so many steps: the result differs little, the time is saved
EVERY = 8


class Averaged:
    """Exponential moving average whose half-life is a share of the items seen so far.

    A half-life that grows with training needs no tuning to the budget (the power-function
    average of Karras et al. 2024, section 3.1, in its simplest form).

    Args:
        share: half-life / items seen; 0 keeps no average.
    """

    def __init__(self, model: Model, share: float) -> None:
        self.share = share
        self.source = model
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        names = model.ema_modules or ("",)
        self._ours = [p for m in names for p in self.model.get_submodule(m).parameters()]
        self._theirs = [p for m in names for p in model.get_submodule(m).parameters()]

    @torch.no_grad()
    def update(self, images: int, since: int) -> None:
        """Move towards the model, ``since`` items after the last update."""
        decay = 0.5 ** (since / (self.share * images)) if self.share > 0 else 0.0
        torch._foreach_lerp_(self._ours, self._theirs, 1 - decay)

    @torch.no_grad()
    def current(self) -> Model:
        """The averaged model, with the source's buffers and whatever is not averaged."""
        ours, averaged = self.model.state_dict(), {id(p) for p in self._ours}
        by_name = dict(self.model.named_parameters())
        for name, value in self.source.state_dict().items():
            if name not in by_name or id(by_name[name]) not in averaged:
                ours[name].copy_(value)
        return self.model
