"""The one door: from what the user names to a source of one side or of two.

Sources that would take more than a share of the available memory are packed once, into
``$LATLAS_CACHE`` or ``~/.cache/latlas``; the folder is named by the source, its options and its
files' sizes and times, so a changed file is packed anew.
"""

import dataclasses
import glob
import hashlib
import inspect
import io
import json
import math
import os
import shutil
import typing
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from latlas.core.errors import DataError, RunError, UnreadOptionError, say_option, unknown
from latlas.core.files import alone
from latlas.data import files, pairs
from latlas.data.archives import tar_ending, walk
from latlas.data.dataset import MEMORY_SHARE, META, Dataset, Progress, Source, Store, make
from latlas.data.frames import is_frame
from latlas.data.pairs import PairDataset, PairSource
from latlas.data.streams import claim_file, read_member, readable, regular, without_panics

Opened = Source | PairSource
BUILT_IN = {name: f"standard:open_{name.replace('-', '_')}"
            for name in ("digits", "grid", "moons", "ring", "shapes", "swiss-roll")}
TWO_FOLDERS = "imagefiles:open_two_folders"
#: how the sides of a place are told, and which of these options readers know
SIDES: dict[str, type] = {"pair": str, "paired": bool, "direction": str, "maps": str, "ids": str}
SIDED = {files.IMAGES: "pair paired direction maps ids",
         files.CLIPS: "pair paired direction maps ids", TWO_FOLDERS: "direction maps ids",
         files.FILM: "direction", "arrays:open_npz": "paired direction maps ids",
         "arrays:open_array": "direction maps ids", files.RECORDINGS: "paired direction"}
INTERNAL = {"store", "name", "maps", "ids", "how"}


def open_source(spec: Any, *, memory_share: float = MEMORY_SHARE, **options: Any) -> Opened:
    """Opens anything that holds examples.

    Args:
        spec: a built-in name (``digits``, ``shapes``, ``ring``, ``grid``, ``moons``,
            ``swiss-roll``), a path (``FILE.zip::MEMBER`` for one file of a zip,
            ``PLACE::PATTERN`` for recordings whose names match), an array (N, ...),
            a pair (examples, labels), image files in a list, two other names, paths or sources,
            which are two domains (:func:`open_pair`), or the ``spec`` of a source opened before.
        memory_share: a file whose examples take more than this share of the available memory is
            packed to a memory-mapped file once.
        options: what this kind of source takes, as values or as text: ``label``, ``image_size``,
            ``mode``, ``key``, ``on_error``, ``levels``, ``n``, ... (``docs/data.md``); of two sides
            also ``pair``, ``paired``, ``direction``, ``maps``, ``ids``.

    Raises:
        DataError: one line that names the file, column, key or option and what to do.
    """
    if isinstance(spec, Mapping):
        spec, options = spec["source"], {**spec, **options}
        options.pop("source")
    if image_files(spec):
        listed = {"source": [_absolute(str(p)) for p in spec], **_plain(options)}
        return _stored(listed, memory_share, lambda store: _open_listed(spec, options, store))
    if isinstance(spec, list | tuple) and len(spec) == 2 and any(
            isinstance(side, str | Path | Source | PairSource | Dataset | Mapping)
            for side in spec):
        return open_pair(*spec, memory_share=memory_share, **options)
    if not isinstance(spec, str | Path):
        return _in_memory(spec, options)
    text, options = str(spec), _plain(options)
    if text in BUILT_IN:
        source = _read(BUILT_IN[text], (), text, options, Store())
        there = (f"{text} is the built-in source; what lies here under that name is ./{text}",)
        options.pop("fit", None)
        return replace(source, spec={"source": text, **options},
                       notes=source.notes + there * Path(text).exists())
    with readable(text):
        return _stored({"source": _absolute(text), **options}, memory_share,
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
            with readable(paths[0]):
                return _read(TWO_FOLDERS, paths, f"{a} and {b}", options, store,
                             stem=f"{paths[0].stem}-{paths[1].stem}")

        return _stored(spec, memory_share, read)  # type: ignore[return-value]
    sides, fit = [], options.pop("fit", None)
    for name, place in (("A", a), ("B", b)):
        more = {"maps": "A", "ids": ids} if maps == name else {}
        if fit is not None:  # A of a run is what comes first
            more["fit"] = _one_fit(fit, "AB"[(name == "B") != (direction == "BtoA")])
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
    source = pairs.join(first, second, aligned=aligned, name=f"{sides[0].name}-{sides[1].name}")
    specs = [side.spec for side in sides]
    if specs[0] is None or specs[1] is None:
        return source
    shared = {k: v for k, v in specs[0].items() if k != "source" and specs[1].get(k) == v}
    own = [{k: v for k, v in spec.items() if k not in shared} for spec in specs if spec]
    places = [spec["source"] if len(spec) == 1 else spec for spec in own]
    return replace(source, spec={"source": places, **shared, "paired": aligned, **turned})


def pack(spec: Any, out: str | Path, *, progress: Progress | None = None, **options: Any) -> Opened:
    """Writes a source to a folder that opens as a memory map, and opens it.

    Args:
        spec, options: as :func:`open_source`.
        out: a new folder; it gets ``x.npy``, ``arrays.npz`` and ``meta.json``.
        progress: called with (examples done, examples in all).
    """
    out = Path(out)
    with readable(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} is there already; choose a new folder")
    with _building(out) as folder:
        store = Store(folder, share=0, progress=progress)
        file = isinstance(spec, str | Path) and str(spec) not in BUILT_IN
        source = _open_path(str(spec), options, store) if file else open_source(spec, **options)
        pairs.write(source, folder, store)
    return open_source(out)


def _stored(spec: dict[str, Any], share: float, read: Callable[[Store], Opened]) -> Opened:
    """What is read, or was packed of it before; it is packed now if it is large."""
    root = Path(os.environ.get("LATLAS_CACHE") or Path.home() / ".cache/latlas").expanduser()
    places = spec["source"] if isinstance(spec["source"], list) else [spec["source"]]
    paths = [Path(str(place).partition("::")[0]) for place in places]
    with readable(paths[0]):
        below = [f for p in paths for f in ([p / n for n in walk(str(p))] if p.is_dir() else [p])]
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in below if f.exists()]
    digests = (hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
               for text in (f"{pairs.FORMAT}{json.dumps(spec, default=str)}", repr(stats)))
    out = root / f"packed-{'-'.join(digests)}"
    spec = {k: v for k, v in spec.items() if k != "fit"}
    if (out / META).exists():
        return replace(pairs.open_packed(out), spec=spec)
    with _building(out) as folder:
        store = Store(folder, share)
        source = read(store)
        if store.on_disk:
            pairs.write(source, folder, store)
    return replace(pairs.open_packed(out) if (out / META).exists() else source, spec=spec)


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place once it is whole; those that killed
    processes left are removed."""
    folder = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    dead = out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 8}")
    for left in dead if os.name == "posix" else ():  # elsewhere nothing says whether it is
        with suppress(DataError, RunError), alone(left):
            shutil.rmtree(left, ignore_errors=True)
    new, lock = not out.parent.exists(), ExitStack()
    try:
        with lock:
            with suppress(OSError):  # where nothing can be written, a source in memory needs none
                folder.mkdir(parents=True)
                lock.enter_context(alone(folder))
            yield folder
        if (folder / META).exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(out, ignore_errors=True)
            folder.rename(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new:
            with suppress(OSError):  # it is not empty
                out.parent.rmdir()


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given, fit for JSON."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in options.items() if v is not None}


def _absolute(text: str) -> str:
    path, mark, member = text.partition("::")
    return f"{Path(path).expanduser().resolve()}{mark}{member}"


def _is_folder(spec: Any) -> bool:
    """A folder or zip of images."""
    if not isinstance(spec, str | Path) or str(spec) in BUILT_IN:
        return False
    with readable(spec):
        path = Path(spec).expanduser()
        there = any(path.iterdir()) if path.is_dir() else path.is_file() and (
            path.suffix.lower() == ".zip" or bool(tar_ending(path)))
        return there and files.reader_of(path)[0] == files.IMAGES


def image_files(spec: Any) -> bool:
    """A list of image files."""
    return isinstance(spec, list | tuple) and bool(spec) and all(
        isinstance(p, str | Path) and str(p) not in BUILT_IN and files.is_image(
            Path(p).expanduser()) for p in spec)


def holds_images(spec: Any) -> bool:
    """A folder, archive or file of images, or a list of such files."""
    if image_files(spec):
        return True
    if not isinstance(spec, str | Path) or str(spec) in BUILT_IN or not Path(
            spec).expanduser().exists():
        return False
    try:
        return files.reader_of(Path(spec).expanduser())[0] == files.IMAGES
    except (DataError, OSError):
        return False


def _one_fit(fit: str, side: str) -> str:
    """That of one side of a run."""
    parts = fit.split(",")
    return next((part for part in parts if part.startswith(f"{side}=")), parts[0])


def _open_listed(paths: Sequence[str | Path], options: dict[str, Any], store: Store) -> Opened:
    """Images that are named one by one, in that order."""
    every = [Path(p).expanduser().resolve() for p in paths]
    reader = files.CLIPS if _coerced("frames", options.get("frames") or False, bool) else (
        files.IMAGES)
    with readable(every[0]):
        return _read(reader, (every,), "the images", options, store, stem=every[0].stem)


def _in_memory(spec: Any, options: dict[str, Any]) -> Opened:
    if isinstance(spec, Source | PairSource):
        return spec
    if isinstance(spec, Dataset):
        return make("data set", spec)
    if isinstance(spec, PairDataset):
        return pairs.join(make("data set", spec.a), make("data set", spec.b), aligned=spec.aligned)
    if is_frame(spec):
        return _read("tables:open_table", (spec,), "table", options, Store())
    x, y = spec if isinstance(spec, tuple) and len(spec) == 2 else (spec, None)
    try:
        x = np.asarray(x)
    except Exception as error:
        raise DataError(f"{type(spec).__name__} cannot be read as an array: {error}") from None
    return _read("arrays:open_array", (x, y), "array", options, Store())


def _open_path(text: str, options: dict[str, Any], store: Store) -> Opened:
    """Chooses the reader of a path by what is there."""
    file, _, member = text.partition("::")
    path = Path(file).expanduser()
    if not path.exists():
        hint = "" if any(mark in text for mark in "/\\.") else "; as a built-in source, " + unknown(
            "source", text, BUILT_IN)
        raise DataError(f"{text}: no such file or folder{hint}")
    with readable(text):
        reader, inside = files.BY_SUFFIX.get(regular(path).suffix.lower(), ""), ""
        if not reader or path.is_dir():
            reader, inside = files.reader_of(path, member)
        if inside:
            with zipfile.ZipFile(path) as archive:  # where Windows' names have backslashes
                stored = next(n for n in archive.namelist() if n.replace("\\", "/") == inside)
                data = io.BytesIO(read_member(archive, stored, f"{path}::{inside}"))
            return _read(reader, (data,), inside, options, store, name=f"{path}::{inside}")
        if member and reader != files.RECORDINGS:
            raise DataError(f"{text}: {path.name} has no members to choose from; an array of an "
                            f".npz or .mat is chosen by {say_option('key', member)}")
        if reader == files.PACKED:
            return pairs.open_packed(path)
        if reader == files.IMAGES and _coerced("frames", options.get("frames", False), bool):
            reader = files.CLIPS
        pattern = (member,) if reader == files.RECORDINGS else ()
        table = reader.startswith("tables:")
        if table and path.is_file() and path.suffix.lower() not in files.TABLES[-3:]:
            claim_file(path)
        with without_panics() if table else nullcontext():
            return _read(reader, (path, *pattern), str(path), options, store, stem=path.stem)


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
    options = {k: v for k, v in options.items() if v is not None and (k != "fit" or k in valid)}
    unlabelled = str(options.get("label", "")).lower() == "none"
    if unlabelled:
        options.pop("label")
    for key, value in options.items():
        if key == "label" and key not in valid:
            raise DataError(f"{title} has no labels to choose from; leave out "
                            f"{say_option('label')}")
        if key == "pair" and key not in valid:
            raise DataError(f"{title}: {say_option('pair', value)} is for folders and zips of "
                            "images; two arrays are joined by open_pair(a, b)")
        if key not in valid:
            valid_names = {*valid, "label"} - {"fit"}
            raise UnreadOptionError(f"{title}: {unknown('option', key, valid_names)}", key)
    values = {k: _coerced(k, v, valid[k]) for k, v in options.items()}
    if unlabelled and "label" in valid:
        values["label"] = "none"
    side = {k: values.pop(k, None) for k in SIDES}
    is_map = _first_is_map(side["direction"], side["maps"])
    ids = side["ids"] if is_map else None
    more |= {k: v for k, v in (("store", store), ("maps", is_map), ("ids", ids)) if k in parameters}
    source = reader(*args, **({"how": settings(**values)} if settings else values), **more)
    two = None
    if not isinstance(source, Source):
        two = (*source, True) if isinstance(source, tuple) else source.sides(
            side["pair"], side["paired"])
        source = source if two else source.read(store, stem, is_map, ids)
    if two:
        order = "BA" if side["direction"] == "BtoA" else "AB"
        sides = [place.as_side(name) if hasattr(place, "as_side") else place
                 for name, place in zip("AB", two[:2] if order == "AB" else two[1::-1],
                                        strict=True)]
        if hasattr(sides[0], "together"):
            sides = sides[0].together(sides[1], two[2])
        sources = [place.read(store.side(part), f"{stem} ({name})", name == side["maps"],
                              side["ids"] if name == side["maps"] else None)
                   for part, name, place in zip("AB", order, sides, strict=True)]
        source = pairs.join(*sources, aligned=two[2], name=stem)
    return _without_labels(source) if unlabelled else source


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
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{key}={value!r} is not a finite number")
    if isinstance(value, tuple(types)) and not (isinstance(value, bool) and bool not in types):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        result = words[str(value).lower()] if bool in types else types[0](value)
        if isinstance(result, float) and not math.isfinite(result):
            raise ValueError
        return result
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{key}={value!r} is not a valid {types[0].__name__}") from None


def _without_labels(source: Any) -> Any:
    """The source with its labels and class names left out."""
    if isinstance(source, PairSource):
        return replace(source, a=_without_labels(source.a), b=_without_labels(source.b))
    return replace(source, base=source.base.with_labels(None, ()))
