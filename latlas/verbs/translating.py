"""Examples of one domain as those of another: the passes behind ``translate``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, say_option
from latlas.core.space import PairSpace, Space
from latlas.data.batches import Sweep
from latlas.data.dataset import Dataset
from latlas.data.pairs import Data, PairDataset, first_side
from latlas.render import imaging
from latlas.verbs.common import Array, Progress
from latlas.verbs.passes import examples_of, in_units_of, inference, noise, to_data

#: examples that are in memory at a time, and those of the contact sheet
BLOCK, SHEET = 64, 16


def from_space(space: PairSpace, to: str) -> Space:
    """The space of what is given for a translation to A or B."""
    return space.a if to == "B" else space.b


def to_space(space: PairSpace, to: str) -> Space:
    """The space of what a translation to A or B gives."""
    return space.b if to == "B" else space.a


def must_reach(model: Any, to: str) -> None:
    """Raise ConfigError if a model does not translate to this domain."""
    if to not in model.ways:
        raise ConfigError(f"{say_option('to', to)}: {type(model).__name__} translates "
                          f"to {' and '.join(model.ways)} alone", option="to")


def translated(model: Any, data: Dataset, *, to: str = "B", batch_size: int = BLOCK,
               progress: Progress | None = None) -> Array:
    """Every example in domain ``to``, (n, \\*shape of that domain) in data units.

    Raises:
        ConfigError: no such domain, or examples of another shape than those of the domain before.
    """
    parts = list(blocks(model, data, to, batch_size, progress))
    shape = to_space(model.space, to).shape
    return np.concatenate(parts) if parts else np.zeros((0, *shape), np.uint8)


def blocks(model: Any, data: Dataset, to: str, size: int = BLOCK,
           progress: Progress | None = None) -> Iterator[Array]:
    """Translated examples, block by block, in data units: memory holds one block."""
    must_reach(model, to)
    space, count = from_space(model.space, to), 0
    if tuple(data.space.shape) != tuple(space.shape):
        raise ConfigError(f"examples of shape {tuple(data.space.shape)} cannot be translated to "
                          f"{to}: the model's {'B' if to == 'A' else 'A'} is of "
                          f"{tuple(space.shape)}")
    for batch in Sweep(in_units_of(space, data), size, model.device):
        with inference(model):
            x = model.translate(batch.x, to=to, noise=noise(model, "translate", to, count))
        count += len(batch)
        if progress is not None:
            progress(count, len(data))
        yield to_data(to_space(model.space, to), x)


def sheet(model: Any, data: Data, *, to: str = "B") -> Array:
    """Rows of input, output and, of pairs, the target: (n, 2 or 3, 4, H, W) RGBA 0 … 255.

    ``data`` are what is translated; of two sides the first is.
    """
    into = to_space(model.space, to)
    inputs = first_side(data)
    sides = [(examples_of(inputs), from_space(model.space, to)),
             (translated(model, inputs, to=to), into)]
    if isinstance(data, PairDataset) and data.aligned:
        sides.append((examples_of(data.b), into))
    return np.stack([_rgba(x, side) for x, side in sides], 1)


def _rgba(x: Array, space: Space) -> Array:
    """Images of any channels as RGBA (n, 4, H, W); maps of classes in shades."""
    if space.ids:
        shades = np.linspace(0, 255, max(2, len(space.ids))).astype(np.uint8)
        return imaging.to_rgba(shades[x.argmax(1)][:, None], 256).transpose(0, 3, 1, 2)
    return imaging.to_rgba(x, space.levels).transpose(0, 3, 1, 2)
