"""Data of two sides, A and B: pairs that belong together row by row, or two domains.

Pairs (``aligned``) are divided as A is, so that what belongs together stays together. Of two
domains nothing is known to belong together; each is divided by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import PairSpace, Recordings
from latlas.data.dataset import SPLITS, Dataset, Rows, Source

NEEDED = {"pairs": "of which the rows belong together: a folder with A/ and B/, images side by "
                   "side ({side}), an npz with A and B",
          "domains": "such as a folder with trainA/ and trainB/, or two sources (--data A --data "
                     "B)"}


@dataclass(frozen=True)
class PairDataset:
    """Two data sets; if ``aligned``, row i of ``b.x`` belongs to row i of ``a.x``.

    Raises:
        ValueError: aligned sides that do not have the same rows.
    """

    a: Dataset
    b: Dataset
    aligned: bool = True

    def __post_init__(self) -> None:
        if self.aligned and not (len(self.a.x) == len(self.b.x)
                                 and np.array_equal(self.a.index, self.b.index)):
            raise ValueError("the two sides of pairs need the same rows")

    def __len__(self) -> int:
        return len(self.a)

    @property
    def space(self) -> PairSpace:
        """Of both sides."""
        return PairSpace(self.a.space, self.b.space, self.aligned)

    def subset(self, index: Rows | slice) -> PairDataset:
        """The examples of A at these positions, of pairs with those that belong to them."""
        a = self.a.subset(index)
        return PairDataset(a, replace(self.b, rows=a.rows) if self.aligned else self.b,
                           self.aligned)

    def swapped(self) -> PairDataset:
        """B first."""
        return PairDataset(self.b, self.a, self.aligned)


Data = Dataset | PairDataset


@dataclass(frozen=True)
class PairSource:
    """Two sources; of pairs, row i of B belongs to row i of A, and both have the same parts.

    ``name``, ``spec`` and ``notes`` are as of a :class:`latlas.data.dataset.Source`.
    """

    a: Source
    b: Source
    aligned: bool = True
    name: str = ""
    spec: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def space(self) -> PairSpace:
        """Of both sides."""
        return PairSpace(self.a.space, self.b.space, self.aligned)

    @property
    def parts(self) -> dict[str, Dataset]:
        """Those of A."""
        return self.a.parts

    def split(self, which: str, seed: int) -> PairDataset:
        """See :func:`latlas.data.split`."""
        return PairDataset(self.a.split(which, seed), self.b.split(which, seed), self.aligned)


def join(a: Source, b: Source, *, aligned: bool, name: str = "") -> PairSource:
    """One source of two sides; of pairs those rows that both sides have, in A's parts and groups.

    Raises:
        DataError: pairs that are not as many on both sides, or not of one height and width.
    """
    if aligned and isinstance(a.space, Recordings):
        raise DataError("recordings are not taken as pairs: no two take the same time; leave out "
                        f"{say_option('paired', 'true')}")
    if aligned:
        x, y = a.base, b.base
        if len(x.x) != len(y.x):
            raise DataError(f"{a.name} holds {len(x.x):,} examples, {b.name} {len(y.x):,}; "
                            f"pairs need as many on both sides ({say_option('paired', 'false')}: "
                            "two domains)")
        if a.space.shape[1:] != b.space.shape[1:] or a.space.kind != b.space.kind:
            raise DataError(f"{a.name} holds {a.space.words} of shape {a.space.shape}, {b.name} "
                            f"{b.space.words} of {b.space.shape}; pairs need one height and width: "
                            f"give {say_option('image_size')}")
        common = np.intersect1d(x.index, y.index)
        rows = {k: part.rows if len(common) == len(x.x) else np.intersect1d(part.index, common)
                for k, part in a.parts.items()}
        a, b = (side.with_parts({k: replace(data, rows=v) for k, v in rows.items()})
                for side, data in ((a, x), (b, replace(y, group=x.group))))
    notes = tuple(f"{side.name}: {note}" for side in (a, b) for note in side.notes)
    return PairSource(a, b, aligned, name or a.name, notes=notes)


def first_side(data: Data) -> Dataset:
    """A of two sides, the data themselves where there is one."""
    return data.a if isinstance(data, PairDataset) else data


def sides_for(data: Data, needs: str | None, model: str) -> tuple[Data, str]:
    """What a model that needs ``pairs``, two ``domains`` or one side (``None``) learns from, and a
    note where that is less than the data say.

    Raises:
        DataError: it needs another side, and there is none, or one without pairs.
    """
    if isinstance(data, Dataset):
        if needs is not None:
            raise DataError(f"{model} needs data of two sides, "
                            + NEEDED[needs].format(side=say_option("pair", "side")))
        return data, ""
    if needs is None:
        return data.a, f"{model} learns from side A alone"
    if needs == "pairs" and not data.aligned:
        raise DataError(f"{model} needs pairs, and these are two domains of which nothing belongs "
                        f"together; where rows or names do, say {say_option('paired', 'true')}")
    if needs == "domains" and data.aligned:
        return replace(data, aligned=False), f"{model} makes no use of what belongs together: it " \
                                             "takes A and B as two domains"
    return data, ""


@overload
def split(source: Source, which: str, *, seed: int = 0) -> Dataset: ...
@overload
def split(source: PairSource, which: str, *, seed: int = 0) -> PairDataset: ...


def split(source: Source | PairSource, which: str, *, seed: int = 0) -> Dataset | PairDataset:
    """The examples of one split, ready to train on; the rule is in :mod:`latlas.data.dataset`.

    Args:
        which: ``train``, ``validation``, ``test``, or ``all`` (every example, in file order).
        seed: decides the permutation; the default is the one every run and report uses.

    Raises:
        DataError: no such split, or the source has too few examples (or groups) to fill it.
    """
    if which not in SPLITS:
        raise DataError(unknown("split", which, SPLITS))
    return source.split(which, seed)
