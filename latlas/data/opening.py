"""From what the user names to a :class:`Source`, or of two sides a :class:`PairSource`."""

from __future__ import annotations

import dataclasses
import inspect
import io
import typing
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from latlas.core.errors import DataError, say_option, unknown
from latlas.data.dataset import Dataset, Source, make
from latlas.data.files import FILMS, MAY_MOVE, PICTURES, SOUNDS
from latlas.data.pairs import PairDataset, PairSource, join
from latlas.data.pixels import has_frames
from latlas.data.storage import (
    MEMORY_SHARE,
    META,
    Progress,
    Store,
    building,
    open_packed,
    stored,
    write,
)

Opened = Source | PairSource
BUILT_IN = {"digits": "builtin:open_digits", "grid": "builtin:open_grid",
            "moons": "builtin:open_moons", "ring": "builtin:open_ring",
            "shapes": "builtin:open_shapes", "swiss-roll": "builtin:open_swiss_roll"}
IMAGES, RECORDINGS, PACKED = "images:open_pictures", "recordings:open_recordings", "packed"
CIFAR, IDX, SVHN = "formats:open_cifar", "formats:open_idx", "formats:open_svhn"
BY_SUFFIX = {".bin": CIFAR, ".mat": SVHN, ".npy": "arrays:open_array", ".npz": "arrays:open_npz",
             ".wav": RECORDINGS, **dict.fromkeys((".csv", ".parquet", ".tsv"), "tables:open_table")}
#: how the sides of a place are told, and which of these options readers know
SIDES: dict[str, type] = {"pair": str, "paired": bool, "direction": str, "maps": str, "ids": str}
SIDED = {IMAGES: "pair paired direction maps ids",
         "clips:open_clips": "pair paired direction maps ids",
         "images:open_two_folders": "direction maps ids", "clips:open_film": "direction",
         "arrays:open_npz": "paired direction maps ids", "arrays:open_array": "direction maps ids",
         RECORDINGS: "paired direction"}
INTERNAL = {"store", "name", "maps", "ids", "how"}


def open_source(spec: Any, *, memory_share: float = MEMORY_SHARE, **options: Any) -> Opened:
    """Opens anything that holds examples.

    Args:
        spec: a built-in name (``digits``, ``shapes``, ``ring``, ``grid``, ``moons``,
            ``swiss-roll``), a path (``FILE.zip::MEMBER`` for one file of a zip,
            ``PLACE::PATTERN`` for recordings whose names match), an array (N, ...),
            a pair (examples, labels), two names, paths or sources, which are two domains
            (:func:`open_pair`), or the ``spec`` of a source opened before.
        memory_share: a file whose examples take more than this share of the available memory is
            packed to a memory-mapped file once (see :mod:`latlas.data.storage`).
        options: what this kind of source takes, as values or as text: ``label``, ``image_size``,
            ``mode``, ``key``, ``on_error``, ``levels``, ``n``, ... (``docs/data.md``); of two sides
            also ``pair``, ``paired``, ``direction``, ``maps``, ``ids``.

    Raises:
        DataError: one line that names the file, column, key or option and what to do.
    """
    if isinstance(spec, Mapping):
        spec, options = spec["source"], {**spec, **options}
        options.pop("source")
    if isinstance(spec, list | tuple) and len(spec) == 2 and any(
            isinstance(side, str | Path | Source | PairSource | Dataset | Mapping)
            for side in spec):
        return open_pair(*spec, memory_share=memory_share, **options)
    if not isinstance(spec, str | Path):
        return _in_memory(spec, options)
    text, options = str(spec), _plain(options)
    if text in BUILT_IN:
        source = _read(BUILT_IN[text], (), text, options, Store())
        return replace(source, spec={"source": text, **options})
    return stored({"source": _absolute(text), **options}, memory_share,
                  lambda store: _open_path(text, options, store))


def open_pair(a: Any, b: Any, *, paired: bool | str = False, direction: str | None = None,
              maps: str | None = None, ids: str | None = None,
              memory_share: float = MEMORY_SHARE, **options: Any) -> PairSource:
    """One source of two sides, each anything that :func:`open_source` takes.

    Args:
        paired: row i of ``b`` belongs to row i of ``a``; images in two folders are brought
            together by their names. Otherwise they are two domains.
        direction: ``BtoA`` swaps the sides.
        maps: ``A`` or ``B``: the side whose pixels are class ids; ``ids``: those of its channels.
        options: of both sources.

    Raises:
        DataError: sides that do not fit each other, or one that cannot be read.
    """
    aligned = bool(_coerced("paired", paired, bool))
    _first_is_map(direction, maps)
    turned = {} if direction is None else {"direction": direction}
    if aligned and all(_is_folder(place) for place in (a, b)):
        options = _plain({**options, **turned, "maps": maps, "ids": ids})
        spec = {"source": [_absolute(str(p)) for p in (a, b)], "paired": True, **options}

        def read(store: Store) -> Opened:
            paths = Path(a).expanduser(), Path(b).expanduser()
            with _readable(paths[0]):
                return _read("images:open_two_folders", paths, f"{a} and {b}", options, store,
                             stem=f"{paths[0].stem}-{paths[1].stem}")

        return stored(spec, memory_share, read)  # type: ignore[return-value]
    sides = []
    for name, place in (("A", a), ("B", b)):
        more = {"maps": "A", "ids": ids} if maps == name else {}
        side = open_source(place, memory_share=memory_share, **options, **more)
        if isinstance(side, PairSource):
            raise DataError(f"{side.name} has two sides of its own; name sources of one side")
        sides.append(side)
    rates = [side.space.sound.rate for side in sides if side.space.sound is not None]
    for i, place in enumerate((a, b) if len(set(rates)) == 2 else ()):
        if rates[i] > min(rates):  # recordings of two rates meet at the lower one
            sides[i] = open_source(  # type: ignore[assignment]
                sides[i].spec or place, **{**options, "rate": min(rates)})
    first, second = sides[::-1] if direction == "BtoA" else sides
    specs = [side.spec for side in sides]
    source = join(first, second, aligned=aligned, name=f"{sides[0].name}-{sides[1].name}")
    if specs[0] is None or specs[1] is None:
        return source
    shared = {k: v for k, v in specs[0].items() if k != "source" and specs[1].get(k) == v}
    own = [{k: v for k, v in spec.items() if k not in shared} for spec in specs if spec]
    places = [spec["source"] if len(spec) == 1 else spec for spec in own]
    return replace(source, spec={"source": places, **shared, "paired": aligned, **turned})


def pack(spec: Any, out: str | Path, *, progress: Progress | None = None,
         **options: Any) -> Opened:
    """Writes a source to a folder that opens as a memory map, and opens it.

    Args:
        spec, options: as :func:`open_source`.
        out: a new folder; it gets ``x.npy``, ``arrays.npz`` and ``meta.json``.
        progress: called with (examples done, examples in all).
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already; choose a new folder")
    with building(out) as folder:
        store = Store(folder, share=0, progress=progress)
        file = isinstance(spec, str | Path) and str(spec) not in BUILT_IN
        write(_open_path(str(spec), options, store) if file else open_source(spec, **options),
              folder, store)
    return open_source(out)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given, fit for JSON."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in options.items() if v is not None}


def _absolute(text: str) -> str:
    path, mark, member = text.partition("::")
    return f"{Path(path).expanduser().resolve()}{mark}{member}"


def _in_memory(spec: Any, options: dict[str, Any]) -> Opened:
    if isinstance(spec, Source | PairSource):
        return spec
    if isinstance(spec, Dataset):
        return make("data set", spec)
    if isinstance(spec, PairDataset):
        return join(make("data set", spec.a), make("data set", spec.b), aligned=spec.aligned)
    if hasattr(spec, "get_columns"):  # a polars DataFrame
        return _read("tables:open_table", (spec,), "table", options, Store())
    x, y = spec if isinstance(spec, tuple) and len(spec) == 2 else (spec, None)
    try:
        x = np.asarray(x)
    except Exception as error:
        raise DataError(f"{type(spec).__name__} cannot be read as an array: {error}") from None
    return _read("arrays:open_array", (x, y), "array", options, Store())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """An error of the system as one that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: "
                        f"{error.strerror or error}") from None


def _open_path(text: str, options: dict[str, Any], store: Store) -> Opened:
    """Chooses the reader of a path by what is there."""
    file, _, member = text.partition("::")
    path = Path(file).expanduser()
    if not path.exists():
        hint = "" if any(mark in text for mark in "/\\.") else "; as a built-in source, " + unknown(
            "source", text, BUILT_IN)
        raise DataError(f"{text}: no such file or folder{hint}")
    with _readable(path):
        target, inside = _kind(path, member)
        if inside:
            with zipfile.ZipFile(path) as archive:
                data = io.BytesIO(archive.read(inside))
            return _read(target, (data,), inside, options, store, name=f"{path}::{inside}")
        if target == PACKED:
            return open_packed(path)
        if target == IMAGES and _coerced("frames", options.get("frames", False), bool):
            target = "clips:open_clips"
        pattern = (member,) if target == RECORDINGS else ()
        return _read(target, (path, *pattern), str(path), options, store, stem=path.stem)


def _kind(path: Path, member: str = "") -> tuple[str, str]:
    """The reader of a file or folder; of a zip of data files also which of these is meant."""
    suffix, name = path.suffix.lower(), path.name.lower()
    if suffix == ".zip":
        return _zip_kind(path, member)
    if path.is_dir():
        return _folder_kind(path), ""
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix], ""
    if suffix in FILMS or (suffix in MAY_MOVE and has_frames(path.read_bytes())):
        return "clips:open_film", ""
    if name.endswith((".tar.gz", ".tgz")):
        return CIFAR, ""
    if suffix == ".gz" or "ubyte" in name or "idx" in suffix:
        return IDX, ""
    raise DataError(f"{path} is not a kind of file latlas reads; valid: a folder or .zip of "
                    f"images or recordings, {', '.join(sorted(BY_SUFFIX))}, IDX (.gz), .gif and "
                    "videos")


def _folder_kind(path: Path) -> str:
    names = {p.name.lower() for p in path.iterdir()}
    if not names:
        raise DataError(f"{path} is an empty folder")
    if META in names:
        return PACKED
    if any("ubyte" in name for name in names):
        return IDX
    if {"data_batch_1.bin", "train.bin", "test_batch.bin", "test.bin"} & names:
        return CIFAR
    if {"train_32x32.mat", "test_32x32.mat"} & names:
        return SVHN
    return _by_contents(p.name for p in path.rglob("*"))


def _is_folder(spec: Any) -> bool:
    """A folder or zip of images."""
    if not isinstance(spec, str | Path) or str(spec) in BUILT_IN:
        return False
    path = Path(spec).expanduser()
    there = any(path.iterdir()) if path.is_dir() else (
        path.is_file() and path.suffix.lower() == ".zip")
    return there and _kind(path)[0] == IMAGES


def _zip_kind(path: Path, member: str) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} cannot be read as a zip: {error}") from None
    target = _by_contents(names)
    data = [n for n in names if Path(n).suffix.lower() in (".npz", ".csv", ".tsv", ".parquet")]
    alone = len(data) == len([n for n in names if not n.endswith("/")])
    if target == RECORDINGS or not (member or (data and alone)):
        return target, ""
    exact = [n for n in data if not member or member in (n, Path(n).name, Path(n).stem)]
    if member and len(exact) != 1:
        raise DataError(f"{path}: {unknown('member', member, data)}")
    if len(exact) > 1:
        raise DataError(f"{path} holds {len(data)} data sets; name one, as in "
                        f"{path.name}::{Path(data[0]).stem}. Valid: {', '.join(sorted(data))}")
    return BY_SUFFIX[Path(exact[0]).suffix.lower()], exact[0]


def _by_contents(names: Iterable[str]) -> str:
    """The reader of a place of images, or of recordings where there are some and no image."""
    sound = False
    for name in names:  # a large folder is not gone through once an image is seen
        suffix = Path(name).suffix.lower()
        if suffix in PICTURES:
            return IMAGES
        sound = sound or suffix in SOUNDS
    return RECORDINGS if sound else IMAGES


def _read(target: str, args: tuple[Any, ...], title: str, options: Mapping[str, Any],
          store: Store, stem: str = "", **more: Any) -> Any:
    """Calls a reader with the options it takes; ``label=none`` is for all of them.

    A reader gives a source, or a place that may have two sides: ``sides`` finds them, ``read``
    reads one, and ``together``, where it is, makes them fit each other.
    """
    module, function = target.split(":")
    reader: Callable[..., Any] = getattr(import_module(f"latlas.data.{module}"), function)
    parameters, hints = inspect.signature(reader).parameters, typing.get_type_hints(reader)
    settings = hints.get("how")  # a dataclass of options, or they are keywords of the reader
    names = [f.name for f in dataclasses.fields(settings)] if settings else [
        k for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY and k not in INTERNAL]
    hints = typing.get_type_hints(settings) if settings else hints
    valid = {k: hints[k] for k in names} | {k: SIDES[k] for k in SIDED.get(target, "").split()}
    options = {k: v for k, v in options.items() if v is not None}
    unlabelled = str(options.get("label", "")).lower() == "none"
    if unlabelled:
        options.pop("label")
    for key, value in options.items():
        if key == "label" and key not in valid:
            raise DataError(f"{title} has no labels to choose from; leave out "
                            f"{say_option('label')}")
        if key == "pair" and key not in valid:
            raise DataError(f"{title}: {say_option('pair', value)} is for folders and zips of "
                            "images; two "
                            "arrays are joined by open_pair(a, b)")
        if key not in valid:
            raise DataError(f"{title}: {unknown('option', key, {*valid, 'label'})}")
    values = {k: _coerced(k, v, valid[k]) for k, v in options.items()}
    if unlabelled and "label" in valid:
        values["label"] = "none"
    side = {k: values.pop(k, None) for k in SIDES}
    is_map = _first_is_map(side["direction"], side["maps"])
    more |= {k: v for k, v in (("store", store), ("maps", is_map),
                               ("ids", side["ids"] if is_map else None)) if k in parameters}
    source = reader(*args, **({"how": settings(**values)} if settings else values), **more)
    if not isinstance(source, Source):
        source = _read_sides(source, side, store, stem)
    return without_labels(source) if unlabelled else source


def _read_sides(place: Any, how: dict[str, Any], store: Store, stem: str) -> Opened:
    """A place of one side or of two, read in the order asked for."""
    two = (*place, True) if isinstance(place, tuple) else place.sides(how["pair"], how["paired"])
    if two is None:
        is_map = _first_is_map(how["direction"], how["maps"])
        return place.read(store, stem, is_map, how["ids"] if is_map else None)
    turned = how["direction"] == "BtoA"
    first, second = two[turned], two[not turned]
    if hasattr(first, "together"):
        first, second = first.together(second, two[2])
    sources = [side.read(to, f"{stem} ({name})", name == how["maps"],
                         how["ids"] if name == how["maps"] else None)
               for name, side, to in zip("BA" if turned else "AB", (first, second), store.sides(),
                                         strict=True)]
    return join(*sources, aligned=two[2], name=stem)


def _first_is_map(direction: str | None, maps: str | None) -> bool:
    """Whether the side that is read first holds class ids; DataError for options that are none."""
    if direction not in (None, "AtoB", "BtoA"):
        raise DataError(unknown("direction", str(direction), ["AtoB", "BtoA"]))
    if maps not in (None, "A", "B"):
        raise DataError(unknown("maps", str(maps), ["A", "B"]))
    return maps == ("B" if direction == "BtoA" else "A")


def _coerced(key: str, value: Any, kind: Any) -> Any:
    """Text such as ``"64"`` as the type the option has."""
    types = [t for t in typing.get_args(kind) or (kind,) if t is not type(None)]
    if isinstance(value, tuple(types)) and not (isinstance(value, bool) and bool not in types):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        return words[str(value).lower()] if bool in types else types[0](value)
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{key}={value!r} is not a valid {types[0].__name__}") from None


def without_labels(source: Any) -> Any:
    """The source with its labels and class names left out."""
    if isinstance(source, PairSource):
        return replace(source, a=without_labels(source.a), b=without_labels(source.b))
    return source.with_parts({k: replace(d, label=None, space=d.space.replace(classes=()))
                              for k, d in source.parts.items()})
