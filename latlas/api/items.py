"""Data for a model that exists already: opened, divided, and put in the model's own space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import ConfigError, DataError, unknown
from latlas.core.space import PairSpace, Space
from latlas.data.dataset import Dataset, encode_labels
from latlas.data.pairs import Data, PairDataset, PairSource, first_side
from latlas.data.tables import ABSENT, as_read, category_of, kinds_of

if TYPE_CHECKING:
    from latlas.data.dataset import Source

#: options of a run's source that other data must share to fit the model
_SHARED = ("image_size", "mode", "levels", "direction", "maps", "frames")


@dataclass(frozen=True)
class Known:
    """What is known of a run or model before it is loaded."""

    name: str
    space: Any  # a Space, or of two sides a PairSpace
    spec: Mapping[str, Any] | None
    provides: frozenset[str] | None


def known(run: Any) -> Known:
    """Of a run folder by its run.json, which imports no torch; of a model by itself."""
    if not isinstance(run, (str, Path)):
        return Known(type(run).__name__, run.space, getattr(run, "trained_on", None), None)
    from latlas.checkpoint import run_info

    info = run_info(run)
    return Known(str(run), info.space, info.data, info.provides)


def require(run: Any, capability: str, task: str | None = None) -> None:
    """Raise CapabilityError if a run's model lacks what a task needs; no data, no weights read."""
    if not isinstance(run, (str, Path)):
        return  # the task asks the model itself
    from latlas.checkpoint import run_info
    from latlas.models import MODELS

    info = run_info(run)
    if capability not in info.provides:
        from latlas.tasks.common import require as check

        check(info.model, info.provides, capability,
              {name: entry.provides for name, entry in MODELS.items()}, task)


def require_styles(run: Any, task: str, asked: bool) -> None:
    """:func:`require` for what only a model with styles can do, where that is asked for."""
    if asked:
        require(run, "mix", task)


def open_items(run: Any, data: Any = None, split: str | None = None, *, side: str = "A",
               **options: Any) -> Any:
    """The items a task reads, in the space of ``run`` (``None``: in their own): a Dataset, or of
    two sides a PairDataset whose first side is ``side``.

    Data of one side are taken for items of that domain; a run of one side reads A of two.

    Args:
        data: an array or (array, labels), used whole; a Dataset; a Source or what
            :func:`latlas.data.open_source` takes; ``None`` for what the run was trained on.
        split: ``None`` is ``test`` where the source has a test part or is the run's own, else
            ``all``.

    Raises:
        DataError: no such data, or it does not have the shape of the run's items.
    """
    like = None if run is None else known(run)
    space = None if like is None else like.space
    space = space.swapped() if isinstance(space, PairSpace) and side == "B" else space
    if space is not None and _is_arrays(data):
        return _from_arrays(data, space.a if isinstance(space, PairSpace) else space)
    items, name = data, "the data set"
    if not isinstance(data, Dataset | PairDataset):
        source = as_source(data, like, **options)
        items, name = _split(source, split or default_split(source, like)), source.name
    items = items.swapped() if isinstance(items, PairDataset) and side == "B" else items
    if space is None:
        return items
    if not isinstance(space, PairSpace):
        return fitted(first_side(items), space, name)
    if not isinstance(items, PairDataset):
        return fitted(items, space.a, name)
    return PairDataset(fitted(items.a, space.a, name),
                       fitted(items.b, space.b, f"the other side of {name}"), items.aligned)


def open_marked(run: Any, data: Any = None, split: str | None = None, *,
                odd: str | None = None, **options: Any) -> tuple[Dataset, NDArray[np.bool_] | None]:
    """The items of :func:`open_items` without their labels, and which of them are outliers.

    Args:
        data: labels of a pair (items, labels) are true or 1 for outliers.
        odd: classes that are outliers, commas between, in the words of ``data``, which need not be
            the run's. ``None`` takes ``1`` where the classes are 0 and 1.

    Raises:
        ConfigError: no such class.
    """
    if isinstance(data, tuple) and _is_arrays(data):
        items = open_items(run, data[0], split)
        return items, _as_marks(np.asarray(data[1]), len(items))
    if _is_arrays(data):
        return open_items(run, data, split), None
    like = known(run)
    source = as_source(data, like, **options)
    items = first_side(_split(source, split or default_split(source, like)))
    return (fitted(replace(items, label=None), like.space, source.name),
            _odd_ones(items.take("label"), items.space.classes, odd))


def open_grouped(run: Any, data: Any = None, split: str = "all", *, group: str | None = None,
                 **options: Any) -> tuple[Dataset, NDArray[np.int64] | None, tuple[str, ...]]:
    """The items of :func:`open_items` without their labels, the group of each, the groups' names.

    Args:
        data: labels of a pair (items, labels) may be any numbers or words, one for each item.
        group: a factor or column of the data that groups them; ``None``: their labels.

    Raises:
        ConfigError: no such factor or column. DataError: labels of another number than the items.
    """
    if _is_arrays(data):
        x, y = data if isinstance(data, tuple) else (data, None)
        if group is not None:
            raise ConfigError(f"group={group}: arrays have no columns; give (items, labels)")
        return _labelled(open_items(run, x, split), y)
    like = known(run)
    source = as_source(data, like, **options)
    items = first_side(_split(source, split))
    code, names = _grouping(items, group, source.name)
    return fitted(replace(items, label=None), like.space, source.name), code, names


def _labelled(items: Dataset, y: Any) -> tuple[Dataset, NDArray[np.int64] | None, tuple[str, ...]]:
    if y is None:
        return items, None, ()
    if len(np.asarray(y)) != len(items):
        raise DataError(f"{len(np.asarray(y)):,} labels for {len(items):,} items: give one for "
                        "each")
    return items, *encode_labels(y, "the labels")


def _grouping(items: Dataset, group: str | None, where: str) -> tuple[
        NDArray[np.int64] | None, tuple[str, ...]]:
    if group is None:
        label: Any = items.take("label")
        named = items.space.classes or tuple(
            str(k) for k in range(0 if label is None else int(label.max()) + 1))
        return label, tuple(named)
    if group in items.space.factors:
        factors: Any = items.take("factors")
        return kinds_of(factors[:, items.space.factors.index(group)], f"factor {group} of {where}")
    x: Any = items.take("x")
    columns = as_read(x, items.space) if items.space.columns else {}
    if group not in columns:
        raise ConfigError(unknown("factor or column", group, [*items.space.factors, *columns])
                          + " (groups are the labels where none is named)")
    return kinds_of(columns[group], f"column {group} of {where}")


def normal_items(run: Any, data: Any = None) -> Dataset:
    """What outliers are judged against: by default the items the run held out while training."""
    return open_marked(run, data, "validation" if data is None else None)[0]


def _as_marks(labels: NDArray[Any], n: int) -> NDArray[np.bool_]:
    if labels.shape != (n,) or not np.isin(labels, (0, 1)).all():
        raise DataError(f"labels of outliers must be {n} numbers that are 0 or 1 (1: outlier)")
    return labels.astype(bool)


def _odd_ones(label: Any, classes: Sequence[str], odd: str | None) -> NDArray[np.bool_] | None:
    if odd is not None and label is None:
        raise ConfigError(f"odd={odd}: the data have no labels; name their column with label=")
    if label is None or (odd is None and set(classes) != {"0", "1"}):
        return None
    names = [name.strip() for name in (odd or "1").split(",")]
    for name in names:
        if name not in classes:
            raise ConfigError(unknown("class", name, classes))
    return np.isin(label, [list(classes).index(name) for name in names])


def as_source(data: Any, like: Known | None = None, **options: Any) -> Source | PairSource:
    """Whatever names a source, opened; a Dataset becomes a source of one part."""
    from latlas.data import open_source
    from latlas.data.dataset import Source

    if isinstance(data, Source | Dataset):
        return open_source(data)
    if data is not None:
        return open_source(data, **{**_shared(like), **options})
    if like is None:
        raise DataError("no data: name a source, or give an array")
    if like.spec is None:
        raise DataError("this model was trained on arrays in memory; name the data")
    return open_source({**like.spec, **options})


def _shared(like: Known | None) -> dict[str, Any]:
    spec = (like.spec if like else None) or {}
    found = {k: spec[k] for k in _SHARED if spec.get(k) is not None}
    space = like.space if like else None
    sides = (space.a, space.b) if isinstance(space, PairSpace) else (space,) if space else ()
    ids = next((side.ids for side in sides if side.ids), ())
    for side in sides:
        if side.sound is not None:  # its choices, also where it was not told
            return {**found, **side.sound.to_json(), "window": side.shape[2]}
    return {**found, "ids": ",".join(map(str, ids))} if ids and "maps" in found else found


def _split(source: Source | PairSource, which: str) -> Data:
    from latlas.data import split

    return split(source, which)


def default_split(source: Source | PairSource, like: Known | None) -> str:
    """``test`` where the source has a test part or is what ``like`` learnt from, else ``all``."""
    own = like is not None and like.spec is not None and source.spec is not None and (
        _same_place(source.spec.get("source"), like.spec.get("source")))
    return "test" if own or "test" in source.parts else "all"


def _same_place(a: Any, b: Any) -> bool:
    return a == b or Path(str(a)).resolve() == Path(str(b)).resolve()


def _is_arrays(data: Any) -> bool:
    first = data[0] if isinstance(data, tuple) and data else data
    return isinstance(first, np.ndarray) or hasattr(first, "__array__")


def _from_arrays(data: Any, space: Space) -> Dataset:
    """Items given as numbers in data units; channels may come last, or be left out if there is
    one."""
    x, y = data if isinstance(data, tuple) else (data, None)
    array = np.asarray(x)
    if array.dtype.kind not in "buif":
        raise DataError(f"items must be numbers, not {array.dtype}")
    shaped = _shaped(_channels(array, space), space)
    whole = space.kind == "picture" and array.dtype in (np.uint8, np.uint16)
    label = None if y is None else class_codes(space, np.asarray(y).tolist())
    _must_fit(shaped, space)
    return Dataset(shaped if whole else shaped.astype(np.float32), space, label)


def _channels(x: NDArray[Any], space: Space) -> NDArray[Any]:
    """Class ids (n, H, W) as the channels that a model of maps knows; anything else as it is."""
    from latlas.data.maps import one_hot
    from latlas.data.storage import Store

    if not space.ids or x.shape[1:] != space.shape[1:]:
        return x
    return one_hot(x[:, None], Store(), ",".join(map(str, space.ids)), "the items")[0]


def _must_fit(x: NDArray[Any], space: Space) -> None:
    """Finite numbers, and no fractions of 1 where the model knows levels 0, 1, 2, …

    Other fractions may be meant: a picture with noise on it has some.
    """
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError("the items hold NaN or infinity; replace or remove them")
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
    raise DataError(f"items of shape {_by(x.shape[1:])} given; the run's are {_by(shape)}")


def fitted(data: Dataset, space: Any, name: str) -> Dataset:
    """The same items in ``space``: its units, its order of columns, its codes of classes.

    Raises:
        DataError: another kind, shape or number of levels, or a column that is missing.
    """
    if (data.space.kind == "picture") != (space.kind == "picture"):
        raise DataError(f"{name} holds {data.space.words}, the run's data are {space.words}")
    data = _reordered(data, space, name) if space.columns else data
    if data.space.shape != space.shape:
        raise DataError(f"{name}: items are {_by(data.space.shape)}, the run's are "
                        f"{_by(space.shape)}{_hint(data.space, space)}")
    if data.space.levels != space.levels:
        raise DataError(f"{name}: pixels have {data.space.levels} levels, the run's "
                        f"{space.levels}; open it with levels={space.levels}")
    if data.space.sound != space.sound:
        raise DataError(f"{name}: {_heard(data.space)}, the run's data are {_heard(space)}")
    if data.space.ids != space.ids:
        raise DataError(f"{name}: {_ids(data.space)}, the run's data are {_ids(space)}; open it "
                        "with the run's maps= and ids=")
    own = space.replace(factors=data.space.factors)  # factors are known of these items alone
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
            known = [c.removeprefix(f"{category}=") for c in space.columns
                     if category_of(c, space) == category]
            raise DataError(f"{name}: column {category} holds "
                            f"{column.removeprefix(f'{category}=')!r}, which the run has not seen; "
                            f"it knows {', '.join(known)}")


def _hint(mine: Space, theirs: Space) -> str:
    if theirs.kind != "picture":
        return ""
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    height, width = theirs.shape[1:]
    if height != width and mine.shape[1:] != theirs.shape[1:]:
        return f"; bring the pictures to {height} by {width} pixels"
    size = f" --image-size {height}" if mine.shape[1:] != theirs.shape[1:] else ""
    mode = modes.get(theirs.shape[0]) if mine.shape[0] != theirs.shape[0] else None
    option = f"; --data-option mode={mode} converts folders of pictures" if mode else ""
    return (f"; try{size}" if size else "") + option


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
