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
from latlas.data.dataset import Dataset, Source, Store, split
from latlas.data.files import TABLES, Files, two_sides
from latlas.data.frames import is_frame
from latlas.data.imagefiles import are_sheets, fit_of
from latlas.data.images import one_hot, to_levels
from latlas.data.opening import holds_images, image_files, open_source
from latlas.data.pairs import Data, PairDataset, PairSource, first_side
from latlas.data.tables import in_columns

#: options of a run's source that other data must share to fit the model
SHARED = ("image_size", "mode", "levels", "direction", "maps", "frames")
#: of images by their channels
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


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
        rows = _from_arrays(data, space.a if isinstance(space, PairSpace) else space)
        say_notes(rows.notes)
        return rows
    examples, name, notes = data, "the data set", tuple[str, ...]()
    if not isinstance(data, Dataset | PairDataset):
        opened = as_source(data, like, side=side, **options)
        source = in_run(opened, like)
        examples, name = part_of(source, split or default_split(source, like)), source.name
        notes = source.notes
        say_notes(notes if like is None else [n for n in notes if n not in opened.notes])
    examples = examples.swapped() if isinstance(examples, PairDataset) and side == "B" else examples
    if space is None:
        return examples
    examples = conform(examples, space, name)
    if isinstance(examples, PairDataset):
        return examples
    return replace(examples, notes=tuple(dict.fromkeys((*notes, *examples.notes))))


def in_run(source: Source | PairSource, like: Like | None) -> Any:
    """A source whose tables are read in the columns of a run, before it is divided."""
    space = None if like is None else like.space
    if isinstance(source, Source) and space is not None:
        first = space.a if isinstance(space, PairSpace) else space
        source = _without_unknown_labels(source, first, bool(getattr(like, "conditional", False)))
    if isinstance(source, PairSource) and isinstance(space, PairSpace):
        return replace(source, a=_in_table(source.a, space.a), b=_in_table(source.b, space.b))
    if isinstance(source, PairSource):
        return source if space is None else replace(source, a=_in_table(source.a, space))
    return _in_table(source, space.a if isinstance(space, PairSpace) else space)


def with_own_labels(source: Source | PairSource, like: Like) -> Any:
    """A source whose table is read in the columns of a run, but whose labels are its own, in words
    that the run need not know."""
    space = like.space.a if isinstance(like.space, PairSpace) else like.space
    if not isinstance(source, Source) or not isinstance(space, Table) or not isinstance(
            source.base.space, Table):
        return source
    rows = _in_table(source, space.replace(classes=()))
    label, classes = source.base.label, source.base.space.classes
    return replace(rows, base=replace(rows.base, label=label,
                                      space=space.replace(classes=classes)))


def _without_unknown_labels(source: Source, space: Any, conditional: bool) -> Source:
    """Images in folders that name other classes than the run knows, for a model that takes none."""
    base = source.base
    unknown_classes = [c for c in base.space.classes if c not in space.classes]
    if conditional or not isinstance(space, Images) or not unknown_classes:
        return source
    note = (f"labels are left out: the run knows no class {unknown_classes[0]!r}"
            f"{' and the like' * (len(unknown_classes) > 1)}")
    return replace(source, base=base.with_labels(None, ()), notes=(*source.notes, note))


def _in_table(source: Source, space: Any) -> Source:
    if not isinstance(space, Table) or not isinstance(source.base.space, Table):
        return source
    base = in_columns(source, space, source.name)
    return replace(source, base=base, problems=(), notes=base.notes)


def as_source(data: Any, like: Like | None = None, *, side: str = "A",
              **options: Any) -> Source | PairSource:
    """Whatever names a source, opened as that of ``like`` was; a Dataset becomes a source of one
    part. Images are read in the size and mode of ``side``, of two sides in those of each."""
    if isinstance(data, Source | Dataset):
        return open_source(data)
    if data is None and like is None:
        raise DataError("no data: name a source, or give an array")
    spec = (like.data if like else None) or {}
    if data is None:
        if not spec:
            raise DataError("this model was trained on arrays in memory; name the data")
        return open_source({**spec, **options})
    shared = {k: spec[k] for k in SHARED if spec.get(k) is not None}
    space = like.space if like else None
    sides = (space.a, space.b) if isinstance(space, PairSpace) else (space,) if space else ()
    sounds = [{**side.sound.to_json(), "window": side.shape[2]}
              for side in sides if side.sound is not None]
    ids = [side.ids for side in sides if side.ids]
    if sounds:  # its choices, also where it was not told
        shared |= sounds[0]
    elif ids and "maps" in shared:
        shared["ids"] = ",".join(map(str, ids[0]))
    images = [s for s in sides if isinstance(s, Images)]
    if images and len(images) == len(sides) and not sounds:
        named = list(zip("AB", sides, strict=False))
        shared["fit"] = fit_of(dict(named[::-1] if side == "B" else named))
        shared |= _kept(spec, data)
    source = _opened(data, shared, options, "recordings" if sounds else "images")
    if like is not None and not any(isinstance(side, Table) for side in sides):
        say_notes(source.notes)
    return source


def _opened(data: Any, shared: dict[str, Any], options: dict[str, Any], kind: str) -> (
        Source | PairSource):
    """The source, or that it is of another kind where it has no option that the run's has."""
    try:
        return open_source(data, **{**shared, **options})
    except UnreadOptionError as error:
        if error.option in options:
            raise
        raise DataError(f"{data} holds no {kind} as the run was trained on") from None


def _kept(spec: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """Options by which a run's images were read that apply to other images, too."""
    kept = {k: spec[k] for k in ("on_error", "rate") if spec.get(k) is not None}
    if isinstance(data, list | tuple) and len(data) == 2 and not image_files(data):
        return {"paired": spec["paired"]} if spec.get("paired") is not None else {}
    if not holds_images(data):
        return {}
    place = [Path(p).expanduser() for p in data] if image_files(data) else Path(data).expanduser()
    pair, files = spec.get("pair"), Files(place)
    if pair == "side" and holds_images(spec["source"]):
        like = spec["source"]
        like = [Path(p) for p in like] if isinstance(like, list) else Path(like)
        halves = are_sheets(place, like)
        kept |= {"pair": "side"} if halves else {}
        say_notes(["as in training each image is a pair, A its left half and B its right one"
                   if halves else "the images have not the proportions of the training's pairs, so "
                   f"each is taken whole; {say_option('pair', 'side')} takes halves"])
    elif pair == "none":
        kept["pair"] = "none"
    if spec.get("paired") is not None and (
            kept.get("pair") == "side" or two_sides(files, pair, None) is not None):
        kept["paired"] = spec["paired"]
    table = any(n.lower().endswith((*TABLES, ".txt")) for n in files.names)
    if spec.get("label") == "none" or (spec.get("label") and table):
        kept["label"] = spec["label"]
    return kept


def part_of(source: Source | PairSource, which: str) -> Data:
    return split(source, which)


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
    one. Class ids (n, H, W) become the channels that a model of maps knows.

    They must be finite, and no fractions of 1 where the model knows levels 0, 1, 2, …: other
    fractions may be meant, an image with noise on it has some.
    """
    x, y = data if isinstance(data, tuple) else (data, None)
    if isinstance(space, Table):
        rows = in_columns(x, space, "the examples")
        codes = None if y is None else class_codes(space, np.asarray(y).tolist())
        return rows if y is None else replace(rows, label=codes)
    x, shape = np.asarray(x), space.shape
    if x.dtype.kind not in "buif":
        raise DataError(f"examples must be numbers, not {x.dtype}")
    if space.levels is not None and not space.ids:
        x = _in_range(x, space.levels)
    whole = space.kind == "image" and x.dtype in (np.uint8, np.uint16)
    if space.ids and x.shape[1:] == shape[1:]:
        x = one_hot(x[:, None], Store(), ",".join(map(str, space.ids)), "the examples")[0]
    if len(shape) == 3 and x.shape[1:] == (*shape[1:], shape[0]) != shape:
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    elif (len(shape) == 3 and shape[0] == 1 and x.shape[1:] == shape[1:]) or (
            x.ndim == 2 and x.shape[1] == space.dims):
        x = x.reshape(len(x), *shape)
    if x.shape[1:] != shape:
        raise DataError(f"examples of shape {_by(x.shape[1:])} given; the run's are {_by(shape)}")
    label = None if y is None else class_codes(space, np.asarray(y).tolist())
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError("the examples hold NaN or infinity; replace or remove them")
    if space.levels is not None and x.size and x.dtype.kind == "f" and np.abs(x).max() <= 1 and (
            x != np.rint(x)).any():
        raise DataError(f"the run's pixels are whole numbers 0 … {space.levels - 1}, these are "
                        f"{x.min():.3g} … {x.max():.3g}: bring them to the same scale")
    return Dataset(x if whole else x.astype(np.float32), space, label)


def _in_range(x: NDArray[Any], levels: int) -> NDArray[Any]:
    """Pixels that are whole numbers, in the run's range: false and true are its ends."""
    if x.dtype == bool:
        return x * (np.uint8 if levels <= 256 else np.uint16)(levels - 1)
    if x.size and np.isfinite(x).all() and (x.min() < 0 or x.max() >= levels) and (
            x.dtype.kind != "f" or (x == np.rint(x)).all()):
        raise DataError(f"the examples hold whole numbers {x.min():g} … {x.max():g}, the run's "
                        f"pixels are 0 … {levels - 1}: bring them to this range")
    return x


def conform(data: Any, space: Any, name: str) -> Any:
    """The same examples in ``space``: its units, its order of columns, its codes of classes. Of two
    sides both, if the space has two, else A. DataError for another kind, shape or number of levels,
    or a column that is missing."""
    if isinstance(space, PairSpace) and isinstance(data, PairDataset):
        a = conform(data.a, space.a, name)
        return PairDataset(a, conform(data.b, space.b, f"the other side of {name}"), data.aligned)
    data, space = first_side(data), space.a if isinstance(space, PairSpace) else space
    if (data.space.kind == "image") != (space.kind == "image"):
        raise DataError(f"{name} holds {data.space.words}, the run's data are {space.words}")
    if isinstance(space, Table) and isinstance(data.space, Table):
        return in_columns(data, space, name)
    data = _in_levels(data, space, name)
    mine = data.space
    sounds = ["no recordings" if s.sound is None else f"recordings at {s.sound}"
              for s in (mine, space)]
    maps = [f"maps of the classes {','.join(map(str, s.ids))}" if s.ids else "no maps"
            for s in (mine, space)]
    for same, words in (
            (mine.shape == space.shape, f"examples are {_by(mine.shape)}, the run's are "
             f"{_by(space.shape)}{_hint(mine, space)}"),
            (mine.levels == space.levels, "pixels are real numbers, the run's are whole numbers "
             f"0 … {(space.levels or 1) - 1}"),
            (mine.sound == space.sound, f"{sounds[0]}, the run's data are {sounds[1]}"),
            (mine.ids == space.ids, f"{maps[0]}, the run's data are {maps[1]}; open it with the "
             f"run's {say_option('maps')} and {say_option('ids')}")):
        if not same:
            raise DataError(f"{name}: {words}")
    label = data.label  # as the codes that the model knows, if it knows classes
    if label is not None and mine.classes != space.classes:
        table = np.array([space.classes.index(c) if c in space.classes else -1
                          for c in mine.classes], np.int64)
        for code in np.unique(label) if space.classes else ():
            if table[code] < 0:
                raise DataError(f"{name}: {unknown('class', mine.classes[code], space.classes)}")
        label = table[label] if space.classes else None
    own = space.replace(factors=mine.factors)  # factors are known of these examples alone
    return replace(data, space=own, label=label)


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


def _hint(mine: Space, theirs: Space) -> str:
    """What to do about images of another shape."""
    if theirs.kind != "image":
        return ""
    height, width = theirs.shape[1:]
    other = mine.shape[1:] != theirs.shape[1:]
    if height != width and other:
        return f"; bring the images to {height} by {width} pixels"
    mode = MODES.get(theirs.shape[0]) if mine.shape[0] != theirs.shape[0] else None
    size = f"; try {say_option('image_size', height)}" if other else ""
    return size + (f"; {say_option('mode', mode)} converts folders of images" if mode else "")


def class_codes(space: Space, label: Any) -> NDArray[np.int64]:
    """Class names (or one of them) as (n,) int64 codes; ConfigError for one the model has not."""
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
