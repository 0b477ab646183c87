"""A source of items, and how it is divided for training, choosing and testing.

The split rule. A file that comes with train and test parts keeps them, and validation is 5% of
train (at most 2,000 items). Anything else is divided 80 / 10 / 10 into train, validation and test.
A seeded permutation decides, and items that share a group number stay together; groups larger
than a twentieth of the items go to train. The seed is 0 unless asked otherwise and has nothing to
do with the seed of training, so every model of a source is tested on the same items.

A source may have another side, B. Pairs are divided by the rule as A is, so that what belongs
together stays together; two domains of which nothing belongs together are divided each by itself.

Tables and points are standardised by numbers of the train split alone, and a missing number is
replaced by the median of its column there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, unknown
from latlas.core.space import Space
from latlas.data.dataset import Dataset

Rows = NDArray[np.int64]
SPLITS = ("train", "validation", "test", "all")
VALIDATION_SHARE, VALIDATION_MOST = 0.05, 2000
LARGE_GROUP = 0.05


@dataclass(frozen=True)
class Source:
    """Everything one name or file holds.

    Attributes:
        name: what to call it in reports.
        space: shape and units of an item (those of the split with seed 0).
        parts: ``{"all"}`` or ``{"train", "test"[, "validation"]}``, sharing one ``x``, as in the
            file: missing numbers of a table are still NaN. Use :func:`split` for data to work on.
        spec: a JSON object :func:`latlas.data.open_source` opens again; ``None`` for arrays.
        notes: what was decided on the way (a resize, a column left out), for people to read.
        other: the other side, one-sided itself; its space is ``space.target``.
        paired: row i of B belongs to row i of A.
    """

    name: str
    space: Space
    parts: dict[str, Dataset]
    spec: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    other: Source | None = None
    paired: bool = True
    _ready: dict[int, Dataset] = field(default_factory=dict, repr=False, compare=False)

    @property
    def base(self) -> Dataset:
        """All items in file order, as in the file."""
        parts = [part.rows for part in self.parts.values()]
        first = next(iter(self.parts.values()))
        if any(rows is None for rows in parts):
            return replace(first, rows=None)
        rows = np.sort(np.concatenate([r for r in parts if r is not None]))
        return replace(first, rows=None if len(rows) == len(first.x) else rows)


def make(name: str, data: Dataset, *, parts: Mapping[str, Rows] | None = None,
         notes: tuple[str, ...] = ()) -> Source:
    """A source over one data set; ``parts`` names the rows of the file's own splits."""
    subsets = {k: replace(data, rows=np.asarray(v, np.int64)) for k, v in (parts or {}).items()}
    source = Source(name, data.space, subsets or {"all": data}, notes=notes)
    return replace(source, space=_ready(source, 0).space, _ready={})


def join(a: Source, b: Source, *, paired: bool, name: str = "") -> Source:
    """One source of two sides; of pairs those rows that both sides have.

    Raises:
        DataError: pairs that are not as many on both sides, or not of one height and width.
    """
    if a.other is not None or b.other is not None:
        both = a if a.other is not None else b
        raise DataError(f"{both.name} has two sides of its own; name sources of one side")
    if paired and a.space.sound is not None:
        raise DataError("recordings are not taken as pairs: no two take the same time; leave out "
                        "paired=true")
    if paired:
        a, b = _matched(a, b)
    notes = tuple(f"{side.name}: {note}" for side in (a, b) for note in side.notes)
    return replace(a, name=name or a.name, space=replace(a.space, target=b.space), spec=None,
                   notes=notes, other=b, paired=paired)


def _matched(a: Source, b: Source) -> tuple[Source, Source]:
    """Both sides with the rows that both have, in the parts and groups of A."""
    if len(a.base.x) != len(b.base.x):
        raise DataError(f"{a.name} holds {len(a.base.x):,} items, {b.name} {len(b.base.x):,}; "
                        "pairs need as many on both sides (paired=false: two domains)")
    if a.space.shape[1:] != b.space.shape[1:] or a.space.kind != b.space.kind:
        raise DataError(f"{a.name} holds {a.space.words} of shape {a.space.shape}, {b.name} "
                        f"{b.space.words} of {b.space.shape}; pairs need one height and width: "
                        "give image_size=")
    common = np.intersect1d(_rows(a.base), _rows(b.base))
    other = replace(b.base, group=a.base.group)  # divided as A is
    rows = {k: d.rows if len(common) == len(d.x) else np.intersect1d(_rows(d), common)
            for k, d in a.parts.items()}
    return (replace(a, parts={k: replace(a.parts[k], rows=v) for k, v in rows.items()}, _ready={}),
            replace(b, parts={k: replace(other, rows=v) for k, v in rows.items()}, _ready={}))


def one_sided(source: Source) -> Source:
    """A alone."""
    return replace(source, space=replace(source.space, target=None), other=None)


def split(source: Source, which: str, *, seed: int = 0) -> Dataset:
    """The items of one split, ready to train on. See the rule at the head of this module.

    The other side of a source, if it has one, is that of the same split.

    Args:
        which: ``train``, ``validation``, ``test``, or ``all`` (every item, in file order).
        seed: decides the permutation; the default is the one every run and report uses.

    Raises:
        DataError: no such split, or the source has too few items (or groups) to fill it.
    """
    if which not in SPLITS:
        raise DataError(unknown("split", which, SPLITS))
    items = _split(source, which, seed)
    if source.other is None:
        return items
    return items.beside(_split(source.other, which, seed), paired=source.paired)


def _split(source: Source, which: str, seed: int) -> Dataset:
    ready = _ready(source, seed)
    if which == "all":
        return ready
    rows = partition(source, seed)[which]
    if not len(rows):
        raise DataError(f"{source.name}: {len(ready)} items are too few for a {which} split; "
                        "use --split all, or give more items")
    return replace(ready, rows=rows)


def partition(source: Source, seed: int = 0) -> dict[str, Rows]:
    """Rows of ``train``, ``validation`` and ``test``, each in file order."""
    parts = {name: _rows(part) for name, part in source.parts.items()}
    if set(parts) == {"train", "validation"}:  # the part people hold out is the one to test on
        parts["test"] = parts.pop("validation")
    group = source.base.group
    if not {"train", "test"} <= set(parts):
        everything = np.sort(np.concatenate(list(parts.values())))
        tenth = max(1, round(len(everything) / 10))
        return _divide(everything, group, {"validation": tenth, "test": tenth}, seed)
    if "validation" in parts:
        return parts
    held = max(1, min(VALIDATION_MOST, round(VALIDATION_SHARE * len(parts["train"]))))
    return {**_divide(parts["train"], group, {"validation": held}, seed), "test": parts["test"]}


def _rows(data: Dataset) -> Rows:
    return np.arange(len(data.x)) if data.rows is None else data.rows


def _divide(rows: Rows, group: Rows | None, held: dict[str, int], seed: int) -> dict[str, Rows]:
    """Train, then each held-out split of about that many items, by permuted whole groups."""
    ids = np.arange(len(rows)) if group is None else np.unique(group[rows], return_inverse=True)[1]
    sizes = np.bincount(ids)
    order = np.random.default_rng(seed).permutation(len(sizes))
    large = sizes[order] > max(1.0, LARGE_GROUP * len(rows))
    order = np.concatenate([order[large], order[~large]])
    start = np.cumsum(sizes[order]) - sizes[order]
    names = ["train", *held]
    bounds = np.maximum(1, len(rows) - np.cumsum(list(held.values())[::-1])[::-1])
    which = np.searchsorted(bounds, start, side="right")
    spare = min(len(held), len(order) - 1)  # large groups must not leave a split empty
    if spare > 0:
        which[-spare:] = np.maximum(which[-spare:], len(names) - np.arange(spare, 0, -1))
    of_group = np.empty(len(order), np.int64)
    of_group[order] = which
    return {name: rows[of_group[ids] == i] for i, name in enumerate(names)}


def _ready(source: Source, seed: int) -> Dataset:
    """All items with missing numbers filled and units fixed by this seed's train split."""
    base = source.base
    if base.space.kind == "picture":
        return base
    if seed not in source._ready:
        rows = partition(source, seed)["train"]
        rows = rows if len(rows) else _rows(base)
        x = filled(base.x, rows)
        source._ready[seed] = replace(base, x=x, space=standardised(base.space, x[rows]))
    return source._ready[seed]


def filled(x: NDArray[Any], train: Rows) -> NDArray[Any]:
    """``x`` (N, d) with each NaN replaced by the median of its column over the train rows."""
    missing = np.isnan(x)
    columns = np.flatnonzero(missing.any(axis=0))
    if not len(columns):
        return x
    x = x.copy()
    for column in columns:
        known = x[train, column][~missing[train, column]]
        x[missing[:, column], column] = np.median(known) if len(known) else 0.0
    return x


def standardised(space: Space, train: NDArray[Any]) -> Space:
    """The space with location and scale from the train rows (n, d).

    Table columns get their mean and standard deviation; columns that hold only 0 and 1 become −1
    and 1; constant columns keep scale 1. Points share one scale, which keeps their geometry.
    """
    wide = train.astype(np.float64)
    mean, sd = wide.mean(axis=0), wide.std(axis=0)
    if space.kind == "points":
        sd = np.full_like(sd, np.sqrt((sd**2).mean()))
    else:
        binary = ((train == 0) | (train == 1)).all(axis=0) & (sd > 0)
        mean, sd = np.where(binary, 0.5, mean), np.where(binary, 0.5, sd)
    sd = np.where(sd > 1e-12 * np.maximum(1.0, np.abs(mean)), sd, 1.0)
    return replace(space, location=tuple(mean.tolist()), scale=tuple(sd.tolist()))
