"""Items of one domain turned into those of another, in memory or file by file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError
from latlas.core.space import PairSpace, Space
from latlas.data.batches import Sweep
from latlas.data.dataset import Dataset
from latlas.data.maps import to_ids
from latlas.data.pairs import Data, PairDataset, first_side
from latlas.report import pictures
from latlas.tasks.common import (
    Array,
    Progress,
    check,
    in_units_of,
    inference,
    items_of,
    noise,
    to_data,
)
from latlas.tasks.output import file_names, picture, write_missing

#: items that are in memory at a time
BLOCK = 64


@dataclass(frozen=True)
class Translated:
    """How many files were written, and how many were there from an earlier, interrupted run."""

    written: int
    found: int


def given_for(space: PairSpace, to: str) -> Space:
    """The space of what is given for a translation to A or B."""
    return space.a if to == "B" else space.b


def made_for(space: PairSpace, to: str) -> Space:
    """The space of what a translation to A or B gives."""
    return space.b if to == "B" else space.a


def must_reach(model: Any, to: str) -> None:
    """Raise ConfigError if a model does not translate to this domain."""
    if to not in model.ways:
        raise ConfigError(f"to={to}: {type(model).__name__} translates to "
                          f"{' and '.join(model.ways)} alone")


def translate(model: Any, data: Dataset, *, to: str = "B", batch_size: int = BLOCK,
              progress: Progress | None = None) -> Array:
    """Every item in domain ``to``, (n, \\*shape of that domain) in data units.

    Raises:
        CapabilityError: the model does not translate.
        ConfigError: no such domain, or items of another shape than those of the domain before.
    """
    parts = list(_blocks(model, data, to, batch_size, progress))
    shape = made_for(model.space, to).shape
    return np.concatenate(parts) if parts else np.zeros((0, *shape), np.uint8)


def translate_files(model: Any, data: Dataset, folder: Path, *, to: str = "B",
                    progress: Progress | None = None) -> Translated:
    """A PNG for every item, by its name; files that are there already are left as they are.

    Frames keep the folders of their clips. Memory holds one block of items, whatever their number;
    maps of classes are written as ids.
    """
    into = made_for(model.space, to)

    def made(missing: list[int]) -> Iterator[bytes]:
        rest = data.subset(np.array(missing, np.int64))
        for block in _blocks(model, rest, to, BLOCK, progress):
            yield from (file_of(item, into) for item in block)

    names = file_names(len(data), data.take("names"), folders=data.clip is not None)
    return Translated(*write_missing(folder, names, made))


def file_of(item: Array, space: Space) -> bytes:
    """One item as a PNG, a map of classes as ids."""
    return pictures.png(to_ids(item[None], space)[0]) if space.ids else picture(item, space)


def sheet(model: Any, data: Data, *, to: str = "B") -> Array:
    """Rows of input, output and, of pairs, what was wanted: (n, 2 or 3, 4, H, W) RGBA 0 … 255.

    ``data`` are what is translated; of two sides the first is.
    """
    into = made_for(model.space, to)
    given = first_side(data)
    sides: list[tuple[Array, Space]] = [(items_of(given), given_for(model.space, to)),
                                      (translate(model, given, to=to), into)]
    if isinstance(data, PairDataset) and data.aligned:
        sides.append((items_of(data.b), into))
    return np.stack([_shown(x, side) for x, side in sides], 1)


def _shown(x: Array, space: Space) -> Array:
    """Pictures of any channels as RGBA (n, 4, H, W); maps of classes in shades."""
    if space.ids:
        shades = np.linspace(0, 255, max(2, len(space.ids))).astype(np.uint8)
        return pictures.to_rgba(shades[x.argmax(1)][:, None], 256).transpose(0, 3, 1, 2)
    return pictures.to_rgba(x, space.levels).transpose(0, 3, 1, 2)


def _blocks(model: Any, data: Dataset, to: str, size: int,
            progress: Progress | None) -> Iterator[Array]:
    """Translated items, block by block, in data units."""
    check(model, "translate")
    must_reach(model, to)
    space, done = given_for(model.space, to), 0
    if tuple(data.space.shape) != tuple(space.shape):
        raise ConfigError(f"items of shape {tuple(data.space.shape)} cannot be translated to {to}: "
                          f"the model's {'B' if to == 'A' else 'A'} is of {tuple(space.shape)}")
    for batch in Sweep(in_units_of(space, data), size, model.device):
        with inference(model):
            made = model.translate(batch.x, to=to, noise=noise(model, "translate", to, done))
        done += len(batch)
        if progress is not None:
            progress(done, len(data))
        yield to_data(made_for(model.space, to), made)
