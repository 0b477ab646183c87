"""Items in memory or in a memory-mapped file, indexed by rows: one code path for both.

A data set may have another side: B, whose items belong to those of A row by row (pairs), or are
another domain of which nothing is known but that it is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.core.space import Space

NEEDED = {"pairs": "of which the rows belong together: a folder with A/ and B/, pictures side by "
                   "side (pair=side), an npz with A and B",
          "domains": "such as a folder with trainA/ and trainB/, or two sources (--data A --data "
                     "B)"}


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
        other: the other side, one-sided itself; its space is ``space.target``.
        paired: row i of ``other.x`` belongs to row i of ``x``, and both have the same ``rows``.
        clip: (N,) int64 number of the clip that each frame is of, whose frames follow each other in
            ``x`` in the order of time; ``None`` for items that are no frames.
        duration: (N,) float32 milliseconds that each frame is shown.
    """

    x: NDArray[np.generic]
    space: Space
    label: NDArray[np.int64] | None = None
    factors: NDArray[np.float32] | None = None
    group: NDArray[np.int64] | None = None
    names: NDArray[np.str_] | None = None
    rows: NDArray[np.int64] | None = None
    other: Dataset | None = None
    paired: bool = True
    clip: NDArray[np.int64] | None = None
    duration: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    def subset(self, index: NDArray[np.int64] | slice) -> Dataset:
        """The items at these positions; ``x`` is shared. Of pairs both sides, else A alone."""
        rows = np.arange(len(self.x)) if self.rows is None else self.rows
        part = replace(self, rows=rows[index])
        if self.other is None or not self.paired:
            return part
        return replace(part, other=replace(self.other, rows=part.rows))

    @property
    def neighbours(self) -> NDArray[np.int64] | None:
        """(N,) rows of ``x``: the frame after each, before it for a clip's last; ``None`` without.

        A clip of one frame is its own neighbour.
        """
        if self.clip is None:
            return None
        same = np.diff(self.clip) == 0
        rows, after = np.arange(len(self.clip)), np.append(same, False)
        return np.where(after, rows + 1, rows - np.insert(same, 0, False))

    def beside(self, other: Dataset | None, *, paired: bool = True) -> Dataset:
        """The same items with another side, or with none.

        Raises:
            ValueError: pairs whose sides do not have the same rows.
        """
        if other is not None and paired and not (len(self.x) == len(other.x)
                                                 and np.array_equal(_rows(self), _rows(other))):
            raise ValueError("the two sides of pairs need the same rows")
        target = None if other is None else other.space
        return replace(self, other=other, paired=paired, space=replace(self.space, target=target))

    def flipped(self) -> Dataset:
        """The other side first; items of one side are those of either."""
        if self.other is None:
            return self
        return self.other.beside(self.beside(None), paired=self.paired)

    def take(self, name: str) -> NDArray[np.generic] | None:
        """An attribute of one value per item (``x``, ``label``, …), of this data set's rows."""
        values: NDArray[np.generic] | None = getattr(self, name)
        if values is None or self.rows is None:
            return values
        return values[self.rows]


def sides_for(data: Dataset, needs: str | None, model: str) -> tuple[Dataset, str]:
    """What a model that needs ``pairs``, two ``domains`` or one side (``None``) learns from, and a
    note where that is less than the data say.

    Raises:
        DataError: it needs another side, and there is none, or one without pairs.
    """
    if needs is None:
        note = f"{model} learns from side A alone"
        return (data, "") if data.other is None else (data.beside(None), note)
    if data.other is None:
        raise DataError(f"{model} needs data of two sides, {NEEDED[needs]}")
    if needs == "pairs" and not data.paired:
        raise DataError(f"{model} needs pairs, and these are two domains of which nothing belongs "
                        "together; where rows or names do, say paired=true")
    if needs == "domains" and data.paired:
        return data.beside(data.other, paired=False), f"{model} makes no use of what belongs " \
                                                      "together: it takes A and B as two domains"
    return data, ""


def _rows(data: Dataset) -> NDArray[np.int64]:
    return np.arange(len(data.x)) if data.rows is None else data.rows
