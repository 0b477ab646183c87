"""Data for a model that exists already: opened, divided, and put in the model's own space."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import (
    ConfigError,
    DataError,
    UnreadOptionError,
    say_notes,
    say_option,
    unknown,
)
from latlas.core.space import Images, PairSpace, Space, Table
from latlas.data.archives import Files
from latlas.data.dataset import Dataset, Source, Store
from latlas.data.files import PICTURES, TABLES, two_sides
from latlas.data.frames import is_frame
from latlas.data.imagefiles import are_sheets
from latlas.data.images import fit_of, one_hot, to_levels
from latlas.data.opening import holds_images, image_files, open_source
from latlas.data.order import in_order
from latlas.data.pairs import PairDataset, PairSource, first_side
from latlas.data.tables import in_columns

#: options of a run's source that other data must share to fit the model
SHARED = ("image_size", "mode", "levels", "direction", "maps", "frames")


class Like(Protocol):
    """What other data must fit: a run's space, and how its own data were named and read."""

    space: Any  # a Space, or of two sides a PairSpace
    data: Mapping[str, Any] | None

    @property
    def conditional(self) -> bool:
        """Its model is given the class of an example, or a part."""


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
    if space is not None and (is_arrays(data) or is_frame(data)):
        rows = _from_arrays(data, _first(space))
        say_notes(rows.notes)
        return rows
    examples, name, notes = data, "the data set", tuple[str, ...]()
    if not isinstance(data, Dataset | PairDataset):
        opened = as_source(data, like, side=side, **options)
        source = opened if like is None else in_run(opened, like)
        examples = source.split(split or default_split(source, like))
        name, notes = source.name, source.notes
        say_notes(notes if like is None else [n for n in notes if n not in opened.notes])
    examples = examples.swapped() if isinstance(examples, PairDataset) and side == "B" else examples
    if space is None:
        return examples
    examples = conform(examples, space, name)
    if isinstance(examples, PairDataset):
        return examples
    return replace(examples, notes=tuple(dict.fromkeys((*notes, *examples.notes))))


def _first(space: Any) -> Any:
    return space.a if isinstance(space, PairSpace) else space


def in_run(source: Source | PairSource, like: Like) -> Any:
    """A source whose tables are read in the columns of a run, before it is divided. Images lose
    labels that the run does not know, if its model takes none."""
    space, first = like.space, _first(like.space)
    if isinstance(source, PairSource):
        second = space.b if isinstance(space, PairSpace) else None
        return replace(source, a=_in_table(source.a, first), b=_in_table(source.b, second))
    strange = [c for c in source.base.space.classes if c not in first.classes]
    if isinstance(first, Images) and strange and not like.conditional:
        note = (f"labels are left out: the run knows no class {strange[0]!r}"
                f"{' and the like' * (len(strange) > 1)}")
        return replace(source, base=source.base.with_labels(None, ()), notes=(*source.notes, note))
    return _in_table(source, first)


def with_own_labels(source: Source | PairSource, like: Like) -> Any:
    """A source whose table is read in the columns of a run, but whose labels are its own, in words
    that the run need not know."""
    space = _first(like.space)
    if not isinstance(source, Source) or not isinstance(space, Table) or not isinstance(
            source.base.space, Table):
        return source
    rows, classes = _in_table(source, space.replace(classes=())), source.base.space.classes
    return replace(rows, base=replace(rows.base, label=source.base.label,
                                      space=space.replace(classes=classes)))


def _in_table(source: Source, space: Any) -> Source:
    if not isinstance(space, Table) or not isinstance(source.base.space, Table):
        return source
    base = replace(in_columns(source, space, source.name), order=source.base.order)
    return replace(source, base=base, problems=(), notes=base.notes)


def as_source(data: Any, like: Like | None = None, *, side: str = "A",
              **options: Any) -> Source | PairSource:
    """Whatever names a source, opened as that of ``like`` was; a Dataset becomes a source of one
    part. Images are read in the size and mode of ``side``, of two sides in those of each."""
    spec = (like.data if like else None) or {}
    if isinstance(data, Source | Dataset):
        return open_source(data)
    if data is None and spec:
        return open_source({**spec, **options})
    if data is None:
        raise DataError("this model was trained on arrays in memory; name the data" if like else
                        "no data: name a source, or give an array")
    space = like.space if like else None
    sides = [space.a, space.b] if isinstance(space, PairSpace) else [space] if space else []
    sounds = [{**s.sound.to_json(), "window": s.shape[2]} for s in sides if s.sound is not None]
    shared = {k: spec[k] for k in SHARED if spec.get(k) is not None}
    if sounds:  # their choices, also where none was given
        shared |= sounds[0]
    elif "maps" in shared:
        shared["ids"] = ",".join(str(k) for k in next((s.ids for s in sides if s.ids), ())) or None
    if sides and not sounds and all(isinstance(s, Images) for s in sides):
        named = list(zip("AB", sides, strict=False))
        shared |= _of_images(spec, data)
        shared["fit"] = fit_of(dict(named[::-1] if side == "B" else named))
    try:
        source = open_source(data, **{**shared, **options})
    except UnreadOptionError as error:
        if error.option in options:
            raise
        raise DataError(f"{data} holds no {'recordings' if sounds else 'images'} as the run was "
                        "trained on") from None
    if not any(isinstance(s, Table) for s in sides):
        say_notes(source.notes if like else ())
    return _in_order(source, spec)


def _in_order(source: Source | PairSource, spec: Mapping[str, Any]) -> Source | PairSource:
    """A table that has the column by which the run's was divided, divided so, too."""
    column: str = spec.get("split_by") or ""
    if isinstance(source, PairSource) or source.frame is None or source.base.order is not None or (
            column not in source.frame.data.columns):
        return source
    return in_order(source, column, spec.get("dates"))


def _of_images(spec: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """Options by which a run's images were read that apply to other images, too."""
    pair, label = spec.get("pair"), spec.get("label")
    paired = {} if spec.get("paired") is None else {"paired": spec["paired"]}
    if isinstance(data, list | tuple) and len(data) == 2 and not image_files(data):
        return paired
    if not holds_images(data):
        return {}
    options = {k: spec[k] for k in ("on_error", "rate") if spec.get(k) is not None}
    place, like = ([Path(p).expanduser() for p in places] if isinstance(places, list | tuple)
                   else Path(places).expanduser() for places in (data, spec.get("source", "")))
    files = Files(place, PICTURES)
    if pair == "side" and holds_images(spec["source"]):
        halves = are_sheets(place, like)
        options |= {"pair": "side"} if halves else {}
        say_notes(["as in training each image is a pair, A its left half and B its right one"
                   if halves else "the images have not the proportions of the training's pairs, so "
                   f"each is taken whole; {say_option('pair', 'side')} takes halves"])
    elif pair == "none":
        options["pair"] = "none"
    if paired and (options.get("pair") == "side" or two_sides(files, pair, None) is not None):
        options |= paired
    table = any(n.lower().endswith((*TABLES, ".txt")) for n in files.names)
    if label == "none" or (label and table):
        options["label"] = label
    return options


def default_split(source: Source | PairSource, like: Like | None) -> str:
    """``test`` where the source has a test part or is what ``like`` learnt from, else ``all``."""
    own = False
    if like is not None and like.data is not None and source.spec is not None:
        places = source.spec.get("source"), like.data.get("source")
        own = places[0] == places[1] or len({Path(str(place)).resolve() for place in places}) == 1
    return "test" if own or "test" in source.parts else "all"


def is_arrays(data: Any) -> bool:
    first = data[0] if isinstance(data, tuple) and data else data
    return isinstance(first, np.ndarray) or hasattr(first, "__array__")


def _from_arrays(data: Any, space: Space) -> Dataset:
    """Examples given as numbers in data units; channels may come last, or be left out if there is
    one. Class ids (n, H, W) become the channels that a model of maps knows, false and true the ends
    of the pixels' range.

    They must be finite, and no fractions of 1 where the model knows levels 0, 1, 2, …; others may
    be meant, an image with noise on it has some.
    """
    x, y = data if isinstance(data, tuple) else (data, None)
    label = None if y is None else class_codes(space, np.asarray(y).tolist())
    if isinstance(space, Table):
        rows = in_columns(x, space, "the examples")
        return rows if label is None else replace(rows, label=label)
    x, shape, levels = np.asarray(x), space.shape, space.levels
    if x.dtype.kind not in "buif":
        raise DataError(f"examples must be numbers, not {x.dtype}")
    if space.ids and x.shape[1:] == shape[1:]:
        x = one_hot(x[:, None], Store(), ",".join(map(str, space.ids)), "the examples")[0]
    elif levels is not None and x.dtype == bool:
        x = x * (np.uint8 if levels <= 256 else np.uint16)(levels - 1)
    if len(shape) == 3 and x.shape[1:] == (*shape[1:], shape[0]) != shape:
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    elif (len(shape) == 3 and shape[0] == 1 and x.shape[1:] == shape[1:]) or (
            x.ndim == 2 and x.shape[1] == space.dims):
        x = x.reshape(len(x), *shape)
    if x.shape[1:] != shape:
        raise DataError(f"examples of shape {_by(x.shape[1:])} given; the run's are {_by(shape)}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError("the examples hold NaN or infinity; replace or remove them")
    if levels is not None and x.size:
        _check_pixels(x, levels)
    stored = space.kind == "image" and x.dtype in (np.uint8, np.uint16)
    return Dataset(x if stored else x.astype(np.float32), space, label)


def _check_pixels(x: NDArray[Any], levels: int) -> None:
    """DataError for whole numbers out of range, or fractions that look like a range of their
    own."""
    low, high = x.min(), x.max()
    whole = x.dtype.kind != "f" or (x == np.rint(x)).all()
    if not 0 <= low <= high < levels if whole else -1 <= low <= high <= 1:
        raise DataError("the examples are not the whole numbers of the run's pixels: the run's "
                        f"pixels are 0 … {levels - 1}, these are {low:.6g} … {high:.6g}; bring "
                        "them to the same scale")


def conform(data: Any, space: Any, name: str) -> Any:
    """The same examples in ``space``: its units, its order of columns, its codes of classes. Of two
    sides both, if the space has two, else A. DataError for another kind, shape or number of levels,
    or a column that is missing."""
    if isinstance(space, PairSpace) and isinstance(data, PairDataset):
        a = conform(data.a, space.a, name)
        return PairDataset(a, conform(data.b, space.b, f"the other side of {name}"), data.aligned)
    data, space = first_side(data), _first(space)
    if (data.space.kind == "image") != (space.kind == "image"):
        raise DataError(f"{name} holds {data.space.words}, the run's data are {space.words}")
    if isinstance(space, Table) and isinstance(data.space, Table):
        return in_columns(data, space, name)
    data = _in_levels(data, space, name)
    mine = data.space
    for (what, one), (_, other) in zip(_shared_by(mine), _shared_by(space), strict=True):
        if one != other:
            raise DataError(f"{name}: {what} {one}, the run's are {other}{_hint(mine, space)}")
    label = data.label  # as the codes that the model knows, if it knows classes
    if label is not None and mine.classes != space.classes:
        codes = np.array([space.classes.index(c) if c in space.classes else -1
                          for c in mine.classes], np.int64)
        for code in label[codes[label] < 0] if space.classes else ():
            raise DataError(f"{name}: {unknown('class', mine.classes[code], space.classes)}")
        label = codes[label] if space.classes else None
    own = space.replace(factors=mine.factors)  # factors are known of these examples alone
    return replace(data, space=own, label=label)


def _shared_by(space: Space) -> list[tuple[str, str]]:
    """What all examples of a run share, in words."""
    return [("examples are", _by(space.shape)),
            ("pixels are", f"whole numbers 0 … {space.levels - 1}" if space.levels else
             "real numbers"),
            ("examples are", f"recordings at {space.sound}" if space.sound else "no recordings"),
            ("examples are", f"maps of the classes {','.join(map(str, space.ids))}" if space.ids
             else "no maps of classes")]


def _hint(mine: Space, theirs: Space) -> str:
    """What to do about images of another size."""
    square = theirs.kind == "image" and theirs.shape[1] == theirs.shape[2]
    return f"; try {say_option('image_size', theirs.shape[1])}" if (
        square and mine.shape[1:] != theirs.shape[1:]) else ""


def _in_levels(data: Dataset, space: Space, name: str) -> Dataset:
    """Images of another number of levels in those of a run, by the value range."""
    mine = data.space
    if (mine.levels in (None, space.levels) or mine.ids or space.ids or mine.sound or space.sound
            or mine.shape != space.shape or not isinstance(mine, Images)):
        return data
    if space.levels is not None:
        x, to = to_levels(data.x, mine.levels, space.levels), f"{space.levels:,} levels"
    else:
        x, to = space.to_data(mine.to_model(data.x.astype(np.float32))), "real numbers"
    note = f"{name}: pixels of {mine.levels:,} levels were brought to {to} by their range"
    say_notes([note])
    return replace(data, x=x, notes=(*data.notes, note), space=mine.replace(
        levels=space.levels, value_range=space.value_range if isinstance(space, Images) else None))


def class_codes(space: Space, label: Any) -> NDArray[np.int64]:
    """Class names (or one of them) as (n,) int64 codes; ConfigError for one the model has not."""
    if not space.classes:
        raise ConfigError("this model knows no classes; leave out the label")
    several = isinstance(label, Sequence) and not isinstance(label, str)
    names = [str(v) for v in (label if several else [label])]
    strange = [name for name in names if name not in space.classes]
    if strange:
        raise ConfigError(unknown("class", strange[0], space.classes))
    return np.array([space.classes.index(name) for name in names], np.int64)


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "single numbers"
