"""The order of the data by weights that the model itself gives, anew at fixed steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latlas.core.errors import TrainingError
from latlas.core.model import ReweightsData, Weights
from latlas.data.batches import Batches, Sweep
from latlas.engine.processes import DistributedContext
from latlas.engine.trainer import Trainer


class Weighing:
    """Asks the averaged model for weights when they are due, and draws the batches by them.

    Asked at fixed steps, and the weights are part of the checkpoint, so a run that was killed and
    resumed ends with the same bits.
    """

    def __init__(self, trainer: Trainer, batches: Batches, steps: int,
                 world: DistributedContext) -> None:
        self.trainer, self.batches, self.world = trainer, batches, world
        model = trainer.model
        share = model.reweighting_interval if isinstance(model, ReweightsData) else 0.0
        self.every = max(1, round(share * steps)) if share > 0 else 0
        self.values: Tensor | None = None

    def look(self, index: int) -> Weights | None:
        """New weights before step ``index``, if it is time; all processes take those of rank 0.

        Raises:
            TrainingError: weights that are negative, not finite, or all 0.
        """
        if not self.every or index == 0 or index % self.every:
            return None
        model: Any = self.trainer.averaged()
        found: Weights = model.sampling_weights(Sweep(self.batches.data,
                                                      device=self.batches.device))
        values = self.world.agree(found.values.detach().double().cpu())
        if not (values.isfinite().all() and (values >= 0).all() and values.sum() > 0):
            raise TrainingError(f"the weights of the data at step {index} are not all numbers of "
                                "at least 0")
        self._use(values)
        n = len(values) * values.square().sum()
        share = float(values.sum().square() / n)
        return Weights(values, found.figures | {"weights/effective_share": share}, found.words)

    def _use(self, values: Tensor | None) -> None:
        self.values = values
        self.batches.reweigh(values)

    def state(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        return {} if self.values is None else {"order.weights": self.values}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        held = tensors.get("order.weights")
        self._use(None if held is None else held.to(torch.device("cpu")))
