"""Data for a model that exists already: opened, divided, and put in the model's own space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import ConfigError, DataError, say_option, unknown
from latlas.core.space import PairSpace, Space
from latlas.data.dataset import Dataset
from latlas.data.pairs import Data, PairDataset, PairSource, first_side
from latlas.data.tables import ABSENT, category_of

if TYPE_CHECKING:
    from latlas.data.dataset import Source

#: options of a run's source that other data must share to fit the model
_SHARED = ("image_size", "mode", "levels", "direction", "maps", "frames")


class Like(Protocol):
    """What other data must fit: a run's space, and how its own data were named and read."""

    space: Any  # a Space, or of two sides a PairSpace
    data: Mapping[str, Any] | None


def open_examples(like: Like | None, data: Any = None, split: str | None = None, *,
                  side: str = "A", **options: Any) -> Any:
    """The examples a verb reads, in the space of ``like`` (``None``: in their own).

    Of two sides these are a PairDataset whose first side is ``side``. Data of one side are taken
    for examples of that domain; a run of one side reads A of two.

    Args:
        data: an array or (array, labels), used whole; a Dataset; a Source or what
            :func:`latlas.data.open_source` takes; ``None`` for what the run was trained on.
        split: ``None`` is ``test`` where the source has a test part or is the run's own, else
            ``all``.

    Raises:
        DataError: no such data, or it does not have the shape of the run's examples.
    """
    space = None if like is None else like.space
    space = space.swapped() if isinstance(space, PairSpace) and side == "B" else space
    if space is not None and is_arrays(data):
        return _from_arrays(data, space.a if isinstance(space, PairSpace) else space)
    examples, name = data, "the data set"
    if not isinstance(data, Dataset | PairDataset):
        source = as_source(data, like, **options)
        examples, name = part_of(source, split or default_split(source, like)), source.name
    examples = examples.swapped() if isinstance(examples, PairDataset) and side == "B" else examples
    if space is None:
        return examples
    if not isinstance(space, PairSpace):
        return fitted(first_side(examples), space, name)
    if not isinstance(examples, PairDataset):
        return fitted(examples, space.a, name)
    return PairDataset(fitted(examples.a, space.a, name),
                       fitted(examples.b, space.b, f"the other side of {name}"), examples.aligned)


def as_source(data: Any, like: Like | None = None, **options: Any) -> Source | PairSource:
    """Whatever names a source, opened; a Dataset becomes a source of one part."""
    from latlas.data import open_source
    from latlas.data.dataset import Source

    if isinstance(data, Source | Dataset):
        return open_source(data)
    if data is not None:
        return open_source(data, **{**_shared(like), **options})
    if like is None:
        raise DataError("no data: name a source, or give an array")
    if like.data is None:
        raise DataError("this model was trained on arrays in memory; name the data")
    return open_source({**like.data, **options})


def _shared(like: Like | None) -> dict[str, Any]:
    spec = (like.data if like else None) or {}
    options = {k: spec[k] for k in _SHARED if spec.get(k) is not None}
    space = like.space if like else None
    sides = (space.a, space.b) if isinstance(space, PairSpace) else (space,) if space else ()
    ids = next((side.ids for side in sides if side.ids), ())
    for side in sides:
        if side.sound is not None:  # its choices, also where it was not told
            return {**options, **side.sound.to_json(), "window": side.shape[2]}
    return {**options, "ids": ",".join(map(str, ids))} if ids and "maps" in options else options


def part_of(source: Source | PairSource, which: str) -> Data:
    from latlas.data import split

    return split(source, which)


def default_split(source: Source | PairSource, like: Like | None) -> str:
    """``test`` where the source has a test part or is what ``like`` learnt from, else ``all``."""
    own = like is not None and like.data is not None and source.spec is not None and (
        _same_place(source.spec.get("source"), like.data.get("source")))
    return "test" if own or "test" in source.parts else "all"


def _same_place(a: Any, b: Any) -> bool:
    return a == b or Path(str(a)).resolve() == Path(str(b)).resolve()


def is_arrays(data: Any) -> bool:
    first = data[0] if isinstance(data, tuple) and data else data
    return isinstance(first, np.ndarray) or hasattr(first, "__array__")


def _from_arrays(data: Any, space: Space) -> Dataset:
    """Examples given as numbers in data units; channels may come last, or be left out if there is
    one."""
    x, y = data if isinstance(data, tuple) else (data, None)
    array = np.asarray(x)
    if array.dtype.kind not in "buif":
        raise DataError(f"examples must be numbers, not {array.dtype}")
    shaped = _shaped(_channels(array, space), space)
    whole = space.kind == "image" and array.dtype in (np.uint8, np.uint16)
    label = None if y is None else class_codes(space, np.asarray(y).tolist())
    _must_fit(shaped, space)
    return Dataset(shaped if whole else shaped.astype(np.float32), space, label)


def _channels(x: NDArray[Any], space: Space) -> NDArray[Any]:
    """Class ids (n, H, W) as the channels that a model of maps knows; anything else as it is."""
    from latlas.data.maps import one_hot
    from latlas.data.storage import Store

    if not space.ids or x.shape[1:] != space.shape[1:]:
        return x
    return one_hot(x[:, None], Store(), ",".join(map(str, space.ids)), "the examples")[0]


def _must_fit(x: NDArray[Any], space: Space) -> None:
    """Finite numbers, and no fractions of 1 where the model knows levels 0, 1, 2, …

    Other fractions may be meant: an image with noise on it has some.
    """
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError("the examples hold NaN or infinity; replace or remove them")
    if space.levels is None or not x.size:
        return
    if x.dtype.kind == "f" and np.abs(x).max() <= 1 and (x != np.rint(x)).any():
        raise DataError(f"the run's pixels are whole numbers 0 … {space.levels - 1}, these are "
                        f"{x.min():.3g} … {x.max():.3g}: bring them to the same scale")


def _shaped(x: NDArray[Any], space: Space) -> NDArray[Any]:
    shape = space.shape
    if x.shape[1:] == shape:
        return x
    if len(shape) == 3 and x.shape[1:] == (*shape[1:], shape[0]):
        return np.ascontiguousarray(np.moveaxis(x, -1, 1))
    if len(shape) == 3 and shape[0] == 1 and x.shape[1:] == shape[1:]:
        return x[:, None]
    if x.ndim == 2 and x.shape[1] == space.dims:
        return x.reshape(-1, *shape)
    raise DataError(f"examples of shape {_by(x.shape[1:])} given; the run's are {_by(shape)}")


def fitted(data: Dataset, space: Any, name: str) -> Dataset:
    """The same examples in ``space``: its units, its order of columns, its codes of classes.

    Raises:
        DataError: another kind, shape or number of levels, or a column that is missing.
    """
    if (data.space.kind == "image") != (space.kind == "image"):
        raise DataError(f"{name} holds {data.space.words}, the run's data are {space.words}")
    data = _reordered(data, space, name) if space.columns else data
    if data.space.shape != space.shape:
        raise DataError(f"{name}: examples are {_by(data.space.shape)}, the run's are "
                        f"{_by(space.shape)}{_hint(data.space, space)}")
    if data.space.levels != space.levels:
        raise DataError(f"{name}: pixels have {data.space.levels} levels, the run's "
                        f"{space.levels}; open it with {say_option('levels', space.levels)}")
    if data.space.sound != space.sound:
        raise DataError(f"{name}: {_heard(data.space)}, the run's data are {_heard(space)}")
    if data.space.ids != space.ids:
        raise DataError(f"{name}: {_ids(data.space)}, the run's data are {_ids(space)}; open it "
                        f"with the run's {say_option('maps')} and {say_option('ids')}")
    own = space.replace(factors=data.space.factors)  # factors are known of these examples alone
    return replace(data, space=own, label=_recoded(data, space, name))


def _heard(space: Space) -> str:
    return "no recordings" if space.sound is None else f"recordings at {space.sound}"


def _ids(space: Space) -> str:
    return f"maps of the classes {','.join(map(str, space.ids))}" if space.ids else "no maps"


def _reordered(data: Dataset, space: Space, name: str) -> Dataset:
    """A table's columns by name, in the order the model learnt.

    Levels of a category that do not occur here, and what says that numbers are missing where none
    are, are columns of zeros.
    """
    mine = data.space.columns
    if mine == space.columns or not mine:
        return data
    _known_levels(data, space, name)
    here = [i for i, column in enumerate(space.columns) if column in mine]
    for column in (c for c in space.columns if c not in mine):
        if not (category_of(column, data.space) or column.removesuffix(f" {ABSENT}") in mine):
            raise DataError(f"{name} has no column {column!r}, which the run was trained on")
    x = np.zeros((len(data), len(space.columns)), data.x.dtype)
    x[:, here] = data.x[:, [mine.index(space.columns[i]) for i in here]]
    own = data.space.replace(shape=(x.shape[1],), columns=space.columns)
    return replace(data, x=x, space=own)


def _known_levels(data: Dataset, space: Space, name: str) -> None:
    """Refuse words that the run has not seen in a category of its own."""
    for i, column in enumerate(data.space.columns):
        category = category_of(column, space)
        if category and column not in space.columns and np.any(data.x[:, i]):
            categories = [c.removeprefix(f"{category}=") for c in space.columns
                     if category_of(c, space) == category]
            raise DataError(f"{name}: column {category} holds "
                            f"{column.removeprefix(f'{category}=')!r}, which the run has not seen; "
                            f"it knows {', '.join(categories)}")


def _hint(mine: Space, theirs: Space) -> str:
    if theirs.kind != "image":
        return ""
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    height, width = theirs.shape[1:]
    if height != width and mine.shape[1:] != theirs.shape[1:]:
        return f"; bring the images to {height} by {width} pixels"
    other = mine.shape[1:] != theirs.shape[1:]
    mode = modes.get(theirs.shape[0]) if mine.shape[0] != theirs.shape[0] else None
    size = f"; try {say_option('image_size', height)}" if other else ""
    return size + (f"; {say_option('mode', mode)} converts folders of images" if mode else "")


def _recoded(data: Dataset, space: Space, source: str) -> NDArray[np.int64] | None:
    """Labels as the codes the model knows; none if the model knows no classes."""
    if data.label is None or data.space.classes == space.classes:
        return data.label
    if not space.classes:
        return None
    table = np.array([space.classes.index(c) if c in space.classes else -1
                      for c in data.space.classes], np.int64)
    used = np.unique(data.label)
    strange = used[table[used] < 0] if len(used) else used
    if len(strange):
        name = data.space.classes[int(strange[0])]
        raise DataError(f"{source}: {unknown('class', name, space.classes)}")
    return table[data.label]


def class_codes(space: Space, label: Any) -> NDArray[np.int64]:
    """Class names (or one of them) as (n,) int64 codes.

    Raises:
        ConfigError: the model has no classes, or none of that name.
    """
    if not space.classes:
        raise ConfigError("this model knows no classes; leave out the label")
    several = isinstance(label, Sequence) and not isinstance(label, str)
    names = [str(v) for v in (label if several else [label])]
    for name in names:
        if name not in space.classes:
            raise ConfigError(unknown("class", name, space.classes))
    return np.array([space.classes.index(name) for name in names], np.int64)


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "single numbers"
