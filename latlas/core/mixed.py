"""Rows of a table by kinds of columns, with their gaps: numbers, and codes of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: code of a gap
GAP = -1


@dataclass(frozen=True)
class MixedRows:
    """n rows of p columns of numbers and q columns of words, truth values among them.

    Attributes:
        numbers: (n, p) float64, NaN for a gap.
        codes: (n, q) int64 places in a column's words, ``GAP``, or the number of its words for one
            that training had not.
        sizes: (q,) how many words each column has.
        names: (p + q,) of the columns, those of numbers first.
    """

    numbers: Array
    codes: Array
    sizes: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def of_numbers(cls, x: Array, names: Sequence[Any] = ()) -> Self:
        """Of an array (n, p) without words."""
        names = tuple(map(str, names)) or tuple(f"x{i}" for i in range(x.shape[1]))
        return cls(x, np.zeros((len(x), 0), np.int64), (), names)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def observed(self) -> NDArray[np.bool_]:
        """(n, p + q) which values are there."""
        return np.concatenate([~np.isnan(self.numbers), self.codes != GAP], 1)

    def take(self, rows: Any) -> Self:
        """Some of the rows."""
        return replace(self, numbers=self.numbers[rows], codes=self.codes[rows])

    def only(self, columns: Array) -> Self:
        """The same with gaps but in these columns, bool (p + q,) or of each row (n, p + q)."""
        there = np.broadcast_to(columns, (len(self), self.numbers.shape[1] + len(self.sizes)))
        p = self.numbers.shape[1]
        return replace(self, numbers=np.where(there[:, :p], self.numbers, np.nan),
                       codes=np.where(there[:, p:], self.codes, GAP))

    def with_numbers(self, numbers: Array) -> Self:
        """The same with other numbers in the same places."""
        return replace(self, numbers=numbers)

    def one_hot(self) -> Array:
        """(n, Σ sizes) 1 at the word of each column, NaN in a gap, 0 everywhere for a new word."""
        blocks = []
        for codes, size in zip(self.codes.T, self.sizes, strict=True):
            block = (codes[:, None] == np.arange(size)).astype(np.float64)
            block[codes == GAP] = np.nan
            blocks.append(block)
        return np.concatenate([np.zeros((len(self), 0)), *blocks], 1)


def patterns(observed: Array) -> tuple[Array, Array]:
    """The distinct rows of (n, c) bool, (k, c), and which of them each row is, (n,)."""
    if observed.all():
        return np.ones((1, observed.shape[1]), bool), np.zeros(len(observed), np.int64)
    packed = np.packbits(observed, axis=1)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    return observed[first], which.reshape(-1)
