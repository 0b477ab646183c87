"""From what the user names to a :class:`Source`: one function per kind of source."""

from __future__ import annotations

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

from latlas.core.errors import DataError, unknown
from latlas.data import packing
from latlas.data.dataset import Dataset
from latlas.data.files import FILMS, MAY_MOVE, SOUNDS
from latlas.data.files import PICTURES as PICTURE_SUFFIXES
from latlas.data.maps import first_is_map
from latlas.data.pixels import has_frames
from latlas.data.source import Source, join, make
from latlas.data.store import MEMORY_SHARE, Progress, Store

BUILT_IN = {
    "digits": "digits:open_digits",
    "grid": "toy:open_grid",
    "moons": "toy:open_moons",
    "ring": "toy:open_ring",
    "shapes": "shapes:open_shapes",
    "swiss-roll": "toy:open_swiss_roll",
}
BY_SUFFIX = {
    ".bin": "cifar:open_cifar",
    ".csv": "tables:open_table",
    ".mat": "svhn:open_svhn",
    ".npy": "npz:open_npy",
    ".npz": "npz:open_npz",
    ".parquet": "tables:open_table",
    ".tsv": "tables:open_table",
    ".wav": "recordings:open_recordings",
}
PICTURES, TWO_FOLDERS, CLIP = "sides:open_pictures", "sides:open_two", "clips:open_clip"
RECORDINGS = "recordings:open_recordings"
INTERNAL = {"store", "name"}


def open_source(spec: Any, *, memory_share: float = MEMORY_SHARE, **options: Any) -> Source:
    """Opens anything that holds items.

    Args:
        spec: a built-in name (``digits``, ``shapes``, ``ring``, ``grid``, ``moons``,
            ``swiss-roll``), a path (``FILE.zip::MEMBER`` for one file of a zip,
            ``PLACE::PATTERN`` for recordings whose names match), an array (N, ...),
            a pair (items, labels), two names, paths or sources, which are two domains
            (:func:`open_pair`), or the ``spec`` of a source opened before.
        memory_share: a file whose items take more than this share of the available memory is
            packed to a memory-mapped file once (see :mod:`latlas.data.packing`).
        options: what this kind of source takes, as values or as text: ``label``, ``image_size``,
            ``mode``, ``key``, ``on_error``, ``levels``, ``n``, ... (``docs/data.md``).

    Raises:
        DataError: one line that names the file, column, key or option and what to do.
    """
    if isinstance(spec, Source | Dataset):
        return spec if isinstance(spec, Source) else make("data set", spec)
    if isinstance(spec, Mapping):
        named = dict(spec)
        return open_source(named.pop("source"), memory_share=memory_share, **{**named, **options})
    if _are_sides(spec):
        return open_pair(*spec, memory_share=memory_share, **options)
    if not isinstance(spec, str | Path):
        return _open_in_memory(spec, options)
    text = str(spec)
    options = _plain(options)
    if text in BUILT_IN:
        source = _call(BUILT_IN[text], (), text, options, Store())
        return replace(source, spec={"source": text, **options})
    return _open_path(text, options, memory_share)


def open_pair(a: Any, b: Any, *, paired: bool | str = False, direction: str | None = None,
              maps: str | None = None, ids: str | None = None,
              memory_share: float = MEMORY_SHARE, **options: Any) -> Source:
    """One source of two sides, each anything that :func:`open_source` takes.

    Args:
        paired: row i of ``b`` belongs to row i of ``a``; pictures in two folders are brought
            together by their names. Otherwise they are two domains.
        direction: ``BtoA`` swaps the sides.
        maps: ``A`` or ``B``: the side whose pixels are class ids; ``ids``: those of its channels.
        options: of both sources.

    Raises:
        DataError: sides that do not fit each other, or one that cannot be read.
    """
    together = bool(_coerced("paired", paired, bool))
    first_is_map(direction, maps)
    if together and _is_folder(a) and _is_folder(b):
        named = {"direction": direction, "maps": maps, "ids": ids}
        return _open_two_folders(a, b, {**options, **named}, memory_share)
    sides = [open_source(x, memory_share=memory_share, **options,
                         **({"maps": "A", "ids": ids} if maps == name else {}))
             for name, x in (("A", a), ("B", b))]
    sides = _at_one_rate((a, b), sides, options)
    first, second = sides[::-1] if direction == "BtoA" else sides
    return replace(join(first, second, paired=together, name=f"{sides[0].name}-{sides[1].name}"),
                   spec=_spec_of_two(sides, together, direction))


def _at_one_rate(named: tuple[Any, Any], sides: list[Source],
                 options: dict[str, Any]) -> list[Source]:
    """Recordings of two rates, the higher one opened again at the lower one."""
    rates = [side.space.sound.rate for side in sides if side.space.sound is not None]
    if len(set(rates)) < 2:
        return sides
    return [side if rate == min(rates) else open_source(
        side.spec if side.spec is not None else place, **{**options, "rate": min(rates)})
        for side, place, rate in zip(sides, named, rates, strict=True)]


def _spec_of_two(sides: list[Source], paired: bool, direction: str | None) -> dict[str, Any] | None:
    """What :func:`open_source` opens again; options that both sides share are said once."""
    specs = [side.spec for side in sides]
    if specs[0] is None or specs[1] is None:
        return None
    shared = {k: v for k, v in specs[0].items() if k != "source" and specs[1].get(k) == v}
    own = [{k: v for k, v in spec.items() if k not in shared} for spec in specs if spec]
    places = [spec["source"] if len(spec) == 1 else spec for spec in own]
    turned = {} if direction is None else {"direction": direction}
    return {"source": places, **shared, "paired": paired, **turned}


def _are_sides(spec: Any) -> bool:
    """Two sources rather than items and their labels."""
    return isinstance(spec, list | tuple) and len(spec) == 2 and any(
        isinstance(side, str | Path | Source | Dataset | Mapping) for side in spec)


def _is_folder(spec: Any) -> bool:
    """A folder or zip of pictures."""
    if not isinstance(spec, str | Path) or str(spec) in BUILT_IN:
        return False
    path = Path(spec).expanduser()
    if path.is_dir():
        return any(path.iterdir()) and _folder_kind(path) == PICTURES
    return path.suffix.lower() == ".zip" and path.is_file() and _zip_member(path, "")[0] is None


def _open_two_folders(a: Any, b: Any, options: dict[str, Any], share: float) -> Source:
    paths = Path(a).expanduser(), Path(b).expanduser()
    options = _plain(options)
    spec = {"source": [_absolute(str(p)) for p in paths], "paired": True, **options}

    def read(store: Store) -> Source:
        with _readable(paths[0]):
            return _call(TWO_FOLDERS, paths, f"{a} and {b}", options, store)

    return _stored(spec, share, read)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given, fit for JSON."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in options.items() if v is not None}


def pack(spec: Any, out: str | Path, *, progress: Progress | None = None,
         **options: Any) -> Source:
    """Writes a source to a folder that opens as a memory map, and opens it.

    Args:
        spec, options: as :func:`open_source`.
        out: a new folder; it gets ``x.npy``, ``arrays.npz`` and ``meta.json``.
        progress: called with (items done, items in all).
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already; choose a new folder")
    with packing.building(out) as folder:
        store = Store(folder, share=0, progress=progress)
        if isinstance(spec, str | Path) and str(spec) not in BUILT_IN:
            source = _dispatch(str(spec), options, store)
        else:
            source = open_source(spec, **options)
        packing.write(source, folder, store)
    return open_source(out)


def _open_path(text: str, options: dict[str, Any], share: float) -> Source:
    return _stored({"source": _absolute(text), **options}, share,
                   lambda store: _dispatch(text, options, store))


def _stored(spec: dict[str, Any], share: float, read: Callable[[Store], Source]) -> Source:
    """What is read, or was packed of it before; it is packed now if it is large."""
    cached = packing.find_cached(spec)
    if cached is not None:
        return replace(packing.open_packed(cached), spec=spec)
    with packing.building(packing.cache_folder(spec)) as folder:
        store = Store(folder, share)
        source = read(store)
        if store.on_disk:
            packing.write(source, folder, store)
    if store.on_disk:
        source = packing.open_packed(packing.cache_folder(spec))
    return replace(source, spec=spec)


def _absolute(text: str) -> str:
    path, mark, member = text.partition("::")
    return f"{Path(path).expanduser().resolve()}{mark}{member}"


def _dispatch(text: str, options: dict[str, Any], store: Store) -> Source:
    """Chooses the reader of a path by what is there."""
    file, _, member = text.partition("::")
    path = Path(file).expanduser()
    if not path.exists():
        raise DataError(_missing(text))
    with _readable(path):
        return _reader_of(path, member, options, store)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """An error of the system as one that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: "
                        f"{error.strerror or error}") from None


def _reader_of(path: Path, member: str, options: dict[str, Any], store: Store) -> Source:
    if path.suffix.lower() == ".zip":
        return _open_zip(path, member, options, store)
    target = _folder_kind(path) if path.is_dir() else _file_kind(path)
    which = (member,) if target == RECORDINGS else ()
    return _call(target, (path, *which), str(path), options, store)


def _missing(text: str) -> str:
    if "/" in text or "\\" in text or "." in text:
        return f"{text}: no such file or folder"
    return f"{text}: no such file or folder; as a built-in source, " + unknown(
        "source", text, BUILT_IN)


def _file_kind(path: Path) -> str:
    suffix = path.suffix.lower()
    names = path.name.lower()
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix]
    if suffix in FILMS or (suffix in MAY_MOVE and has_frames(path.read_bytes())):
        return CLIP
    if names.endswith((".tar.gz", ".tgz")):
        return "cifar:open_cifar"
    if suffix == ".gz" or "ubyte" in names or "idx" in suffix:
        return "idx:open_idx"
    raise DataError(f"{path} is not a kind of file latlas reads; valid: a folder or .zip of "
                    f"pictures or recordings, {', '.join(sorted(BY_SUFFIX))}, IDX (.gz), .gif and "
                    "videos")


def _folder_kind(path: Path) -> str:
    names = [p.name.lower() for p in path.iterdir()]
    if not names:
        raise DataError(f"{path} is an empty folder")
    if packing.META in names:
        return "packing:open_packed"
    if any("ubyte" in name for name in names):
        return "idx:open_idx"
    if any(n in ("data_batch_1.bin", "train.bin", "test_batch.bin", "test.bin") for n in names):
        return "cifar:open_cifar"
    if any(n in ("train_32x32.mat", "test_32x32.mat") for n in names):
        return "svhn:open_svhn"
    return _heard(p.name for p in path.rglob("*"))


def _heard(names: Iterable[str]) -> str:
    """The reader of a place of pictures, or of recordings where there are some and no picture."""
    sound = False
    for name in names:  # a large folder is not gone through once a picture is seen
        suffix = Path(name).suffix.lower()
        if suffix in PICTURE_SUFFIXES:
            return PICTURES
        sound = sound or suffix in SOUNDS
    return RECORDINGS if sound else PICTURES


def _open_zip(path: Path, member: str, options: dict[str, Any], store: Store) -> Source:
    if _heard(_names(path)) == RECORDINGS:
        return _call(RECORDINGS, (path, member), str(path), options, store)
    chosen, data = _zip_member(path, member)
    if chosen is None:
        return _call(PICTURES, (path,), str(path), options, store)
    target = BY_SUFFIX[Path(chosen).suffix.lower()]
    return _call(target, (data,), chosen, options, store, name=f"{path}::{chosen}")


def _zip_member(path: Path, member: str) -> tuple[str | None, io.BytesIO]:
    """The file in a zip that is meant, and what it holds; ``None`` for a zip of pictures."""
    try:
        with zipfile.ZipFile(path) as archive:
            chosen = _member(path, archive.namelist(), member)
            return chosen, io.BytesIO(b"" if chosen is None else archive.read(chosen))
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} cannot be read as a zip: {error}") from None


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} cannot be read as a zip: {error}") from None


def _member(path: Path, names: list[str], wanted: str) -> str | None:
    """The file in the zip that is meant; ``None`` for a zip of pictures."""
    data = [n for n in names if Path(n).suffix.lower() in (".npz", ".csv", ".tsv", ".parquet")]
    if wanted:
        exact = [n for n in data if wanted in (n, Path(n).name, Path(n).stem)]
        if len(exact) == 1:
            return exact[0]
        raise DataError(f"{path}: {unknown('member', wanted, data)}")
    tables_only = len(data) == len([n for n in names if not n.endswith("/")])
    if len(data) > 1 and tables_only:
        raise DataError(f"{path} holds {len(data)} data sets; name one, as in "
                        f"{path.name}::{Path(data[0]).stem}. Valid: {', '.join(sorted(data))}")
    return data[0] if data and tables_only else None


def _open_in_memory(spec: Any, options: dict[str, Any]) -> Source:
    if hasattr(spec, "get_columns"):  # a polars DataFrame
        return _call("tables:open_table", (spec,), "table", options, Store())
    x, y = spec if isinstance(spec, tuple) and len(spec) == 2 else (spec, None)
    try:
        x = np.asarray(x)
    except Exception as error:
        raise DataError(f"{type(spec).__name__} cannot be read as an array: {error}") from None
    return _call("npz:open_arrays", (x, y), "array", options, Store())


def _call(target: str, args: tuple[Any, ...], shown: str, options: Mapping[str, Any],
          store: Store, **more: Any) -> Source:
    """Calls a reader with the options it takes; ``label=none`` is for all of them."""
    module, function = target.split(":")
    reader: Callable[..., Source] = getattr(import_module(f"latlas.data.{module}"), function)
    known = inspect.signature(reader).parameters
    kinds = typing.get_type_hints(reader)
    if "store" in known:
        more["store"] = store
    options = {k: v for k, v in options.items() if v is not None}
    unlabelled = str(options.get("label", "")).lower() == "none"
    given = {k: v for k, v in options.items() if not (k == "label" and unlabelled)}
    valid = [k for k, p in known.items() if p.kind is p.KEYWORD_ONLY and k not in INTERNAL]
    for key in given:
        if key == "label" and key not in valid:
            raise DataError(f"{shown} has no labels to choose from; leave out label=")
        if key == "pair" and key not in valid:
            raise DataError(f"{shown}: pair={given[key]} is for folders and zips of pictures; two "
                            "arrays are joined by open_pair(a, b)")
        if key not in valid:
            raise DataError(f"{shown}: {unknown('option', key, {*valid, 'label'})}")
    values = {k: _coerced(k, v, kinds[k]) for k, v in given.items()}
    if unlabelled and "label" in valid:
        values["label"] = "none"
    source = reader(*args, **values, **more)
    return without_labels(source) if unlabelled else source


def _coerced(key: str, value: Any, kind: Any) -> Any:
    """Text such as ``"64"`` as the type the option has."""
    types = [t for t in typing.get_args(kind) or (kind,) if t is not type(None)]
    if isinstance(value, tuple(types)) and not (isinstance(value, bool) and bool not in types):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        if bool in types:
            return words[str(value).lower()]
        return types[0](value)
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{key}={value!r} is not a valid {types[0].__name__}") from None


def without_labels(source: Source) -> Source:
    """The source with its labels and class names left out."""
    space = replace(source.space, classes=())
    parts = {k: replace(d, label=None, space=replace(d.space, classes=()))
             for k, d in source.parts.items()}
    other = None if source.other is None else without_labels(source.other)
    if other is not None:
        space = replace(space, target=other.space)
    return replace(source, space=space, parts=parts, other=other, _ready={})
