"""What a model is given at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass
class Batch:
    """n examples in model units (images in [−1, 1], tables standardised), on the model's device.

    Attributes:
        x: (n, *shape) float.
        label: (n,) int64 class codes.
        condition: what the model is conditioned on: (n, k) one-hot or (n, C + 1, H, W).
        neighbour: (n, *shape) of frames the one after each, before it of a clip's last one.
        index: (n,) int64 row of each example in its data set.
    """

    x: Tensor
    label: Tensor | None = None
    condition: Tensor | None = None
    neighbour: Tensor | None = None
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def part(self, i: int, of: int) -> Batch:
        """Part ``i`` of as many equal ones."""
        return replace(self, **{k: v.chunk(of)[i] for k, v in vars(self).items() if v is not None})


@dataclass
class PairBatch:
    """As many examples of A as of B, which belong together row by row if the data are aligned."""

    a: Batch
    b: Batch

    def __len__(self) -> int:
        return len(self.a)

    def part(self, i: int, of: int) -> PairBatch:
        """Part ``i`` of as many equal ones."""
        return PairBatch(self.a.part(i, of), self.b.part(i, of))
