"""A batch of examples as models see it.

Images are float tensors in [−1, 1], channels first; tables are standardised. This is the one
place that says so (``Space`` holds the map to and from the units of the file).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Batch:
    """n examples, model units, on the model's device.

    Attributes:
        x: (n, *shape) float.
        label: (n,) int64 class codes.
        condition: what the model is conditioned on: (n, k) one-hot or (n, C + 1, H, W).
        neighbour: (n, *shape) of frames the one after each, or before it of a clip's last one;
            ``None`` for images that are no frames.
        index: (n,) int64 row of each example in its data set.
    """

    x: Tensor
    label: Tensor | None = None
    condition: Tensor | None = None
    neighbour: Tensor | None = None
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass
class PairBatch:
    """As many examples of A as of B, which belong together row by row if the data are aligned."""

    a: Batch
    b: Batch

    def __len__(self) -> int:
        return len(self.a)
