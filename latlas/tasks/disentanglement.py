"""Figures of disentanglement for data whose factors are known, with the ceiling and a control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from latlas.core.errors import DataError, unknown
from latlas.core.model import Model
from latlas.data.dataset import Dataset
from latlas.metrics.disentanglement import disentanglement, oracle, rotated
from latlas.tasks.common import Array
from latlas.tasks.figures import Figure
from latlas.tasks.read import encode

#: items looked at, at most
MOST_ITEMS = 10_000
#: a symmetric shape looks the same at several angles, so no code of the picture can hold the angle
AMBIGUOUS = "orientation"


def figures(model: Model, data: Dataset, factors: Sequence[str] = (), seed: int = 0,
            notes: list[str] | None = None) -> Iterator[Figure]:
    """Every figure, beside rotated codes (control) and the factors as codes (ceiling).

    Args:
        factors: names; by default all that vary but ``orientation``.
        notes: whole sentences a reader must know are added here.
    """
    notes = [] if notes is None else notes
    names, values = known_factors(data, factors, notes)
    notes.append(f"Disentanglement is of the factors {', '.join(names)}, on {len(values):,} items.")
    codes = encode(model, data.subset(slice(0, MOST_ITEMS)))
    own, low, best = (disentanglement(z, values, seed=seed) for z in (
        codes, rotated(codes, seed=seed), oracle(values, codes.shape[1], seed=seed)))
    for key, value in own.items():
        yield Figure(key, value, control=low[key], control_name="rotated codes", ceiling=best[key])


def has_factors(data: Dataset) -> bool:
    """Two factors or more: with one there is nothing to keep apart."""
    return data.factors is not None and data.factors.shape[1] > 1


def known_factors(data: Dataset, asked: Sequence[str],
                  notes: list[str]) -> tuple[list[str], Array]:
    """Names and values (n, f) of the factors asked for, of the first 10,000 items.

    Raises:
        DataError: the data have no factors, none of that name, or fewer than two to keep apart.
    """
    if data.factors is None:
        raise DataError("disentanglement needs data whose factors are known, and these have none: "
                        "use --data shapes, or an npz with an array `factors` (n, f)")
    values = np.asarray(data.subset(slice(0, MOST_ITEMS)).take("factors"), np.float64)
    names = _names(data, values.shape[1])
    for name in asked:
        if name not in names:
            raise DataError(unknown("factor", name, names))
    chosen = list(asked) or _default(names, values, notes)
    if len(chosen) < 2:
        raise DataError(f"disentanglement needs two factors or more that vary, these are "
                        f"{', '.join(chosen) or 'none'} of {', '.join(names)}")
    return chosen, values[:, [names.index(name) for name in chosen]]


def _default(names: Sequence[str], values: Array, notes: list[str]) -> list[str]:
    varying = [n for n, v in zip(names, values.T, strict=True) if v.min() < v.max()]
    if AMBIGUOUS in varying:
        varying.remove(AMBIGUOUS)
        notes.append(f"The factor {AMBIGUOUS} is left out: a symmetric shape looks the same at "
                     "several. --factors NAME,NAME chooses.")
    return varying


def _names(data: Dataset, width: int) -> list[str]:
    given = data.space.factors
    return list(given) if len(given) == width else [f"factor{i}" for i in range(width)]
