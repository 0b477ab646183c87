"""An average of the weights over the recent past, which samples and scores better than the last."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

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
        self.share, self.images = share, 0
        self.source = model
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        names = (model.defaults.ema_modules or ("",)) if share > 0 else ()
        self._ours, self._theirs = _parameters(self.model, names), _parameters(model, names)

    @torch.no_grad()
    def update(self, images: int) -> None:
        """Move towards the model, which has now seen so many items."""
        since, self.images = images - self.images, images
        if self._ours and since:
            decay = 0.5 ** (since / (self.share * images))
            torch._foreach_lerp_(self._ours, self._theirs, 1 - decay)

    @torch.no_grad()
    def current(self) -> Model:
        """The averaged model, with the source's buffers and whatever is not averaged."""
        ours, averaged = self.model.state_dict(), {id(p) for p in self._ours}
        by_name = dict(self.model.named_parameters(remove_duplicate=False))
        for name, value in self.source.state_dict().items():
            if name not in by_name or id(by_name[name]) not in averaged:
                ours[name].copy_(value)
        return self.model


def _parameters(model: Model, names: Sequence[str]) -> list[Tensor]:
    return [p for name in names for p in model.get_submodule(name).parameters()]
