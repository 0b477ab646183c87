"""Checks on held-out data, and the best weights so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latlas.core.model import Model, Step, Validates
from latlas.core.noise import Noise, derive
from latlas.data.batches import Sweep
from latlas.data.pairs import Data
from latlas.engine.options import TrainOptions
from latlas.engine.trainer import Trainer

#: checks on held-out data in a whole run, and items looked at in each
CHECKS, CHECK_ITEMS = 25, 2000


class Checks:
    """The averaged model's loss on held-out data, and the best weights so far.

    Held-out draws come from their own stream, the same in every check, so that two checks differ
    by the weights alone.
    """

    def __init__(self, trainer: Trainer, data: Data | None, options: TrainOptions,
                 device: torch.device) -> None:
        usable = data is not None and len(data) > 0 and isinstance(trainer.model, Validates)
        self.data = data.subset(slice(0, CHECK_ITEMS)) if usable and data is not None else None
        self.trainer, self.options, self.device = trainer, options, device
        self.best: float | None = None
        self.weights: dict[str, Tensor] = {}
        self.misses = 0

    @property
    def any(self) -> bool:
        """There is held-out data for this model."""
        return self.data is not None

    @property
    def patience_is_over(self) -> bool:
        """So many checks in a row were no better."""
        return 0 < self.options.patience <= self.misses

    @torch.no_grad()
    def look(self) -> float:
        """Check now; keep the weights if they are the best yet."""
        model, loss = self.trainer.averaged(), 0.0
        noise = Noise(derive(self.options.seed, "check"), self.device)
        step = Step(self.trainer.index, self.trainer.images, 1.0, noise)
        for batch in Sweep(self.data, 500, self.device):  # type: ignore[arg-type]
            with self.trainer.autocast():
                total = model.loss(batch, step).total  # type: ignore[operator]
            loss += total.item() * len(batch)
        loss /= len(self.data)  # type: ignore[arg-type]
        self._keep(loss, model)
        return loss

    def _keep(self, loss: float, model: Model) -> None:
        if self.best is not None and not loss < self.best:
            self.misses += 1
            return
        self.best, self.misses = loss, 0
        self.weights = {k: v.clone() for k, v in model.state_dict().items()}

    def kept(self) -> dict[str, Tensor]:
        """The best weights, or the averaged ones where nothing was held out."""
        return self.weights or dict(self.trainer.averaged().state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """For the checkpoint."""
        tensors = {f"best.{k}": v for k, v in self.weights.items()}
        return tensors, {"best": self.best, "misses": self.misses}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.weights = {k[5:]: v.to(self.device) for k, v in tensors.items()
                        if k.startswith("best.")}
        self.best, self.misses = meta["best"], int(meta["misses"])


def check_every(options: TrainOptions, steps: int) -> int:
    if options.validate_every:
        return max(1, options.validate_every // options.batch_size)
    return max(1, steps // CHECKS)
