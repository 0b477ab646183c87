"""A batch of items as models see it.

Pictures are float tensors in [−1, 1], channels first; tables are standardised. This is the one
place that says so (``Space`` holds the map to and from the units of the file).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """n items, model units, on the model's device.

    Attributes:
        x: (n, *shape) float.
        label: (n,) int64 class codes.
        condition: what the model is conditioned on: (n, k) one-hot or (n, C + 1, H, W).
        factors: (n, f) float values of known generative factors.
        target: (n, *space.target.shape) items of the other side: those that belong to ``x`` of
            pairs, others of the other domain where nothing belongs together.
        neighbour: (n, *shape) of frames the one after each, or before it of a clip's last one;
            ``None`` for pictures that are no frames.
        target_neighbour: the same of ``target``.
        mask: (n, 1, H, W) bool, what is given.
        index: (n,) int64 row of each item in its data set.
        length: (n,) int64 true length of items of varying length.
    """

    x: Tensor
    label: Tensor | None = None
    condition: Tensor | None = None
    factors: Tensor | None = None
    target: Tensor | None = None
    neighbour: Tensor | None = None
    target_neighbour: Tensor | None = None
    mask: Tensor | None = None
    index: Tensor | None = None
    length: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        fields: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **{k: v.to(device) for k, v in fields.items()
                                            if v is not None})
