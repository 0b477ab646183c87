"""Items in memory or in a memory-mapped file, indexed by rows: one code path for both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latlas.core.space import Space


@dataclass(frozen=True)
class Dataset:
    """Items of one space.

    Attributes:
        x: (N, \\*shape) uint8/uint16 for pictures, float32 otherwise; in data units; an array or
            a memory map. Never copied by :meth:`subset`.
        space: shape and units of an item.
        label: (N,) int64 class codes, indices into ``space.classes``.
        factors: (N, f) float32 known generative factors, named by ``space.factors``.
        group: (N,) int64; items that share a number are related and stay in one split.
        names: (N,) str, what each item is called (a file name); may be ``None``.
        rows: (n,) int64 rows of ``x`` that belong to this data set; ``None`` means all.
    """

    x: NDArray[np.generic]
    space: Space
    label: NDArray[np.int64] | None = None
    factors: NDArray[np.float32] | None = None
    group: NDArray[np.int64] | None = None
    names: NDArray[np.str_] | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    def subset(self, index: NDArray[np.int64] | slice) -> Dataset:
        """The items at these positions; ``x`` is shared."""
        rows = np.arange(len(self.x)) if self.rows is None else self.rows
        return replace(self, rows=rows[index])

    def take(self, name: str) -> NDArray[np.generic] | None:
        """``x``, ``label``, ``factors``, ``group`` or ``names`` of this data set's rows."""
        values: NDArray[np.generic] | None = getattr(self, name)
        if values is None or self.rows is None:
            return values
        return values[self.rows]
