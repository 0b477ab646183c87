"""The one door: from what the user names to a source of one side or of two.

Sources that would take more than a share of the available memory are packed once, into
``$LATLAS_CACHE`` or ``~/.cache/latlas``; the folder is named by the source, its options and its
files' sizes and times, so a changed file is packed anew.
"""

import glob
import hashlib
import io
import json
import os
import shutil
import typing
import uuid
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from latlas.core import errors
from latlas.core.errors import DataError, say_option, unknown
from latlas.core.files import alone
from latlas.core.options import FieldInfo, convert
from latlas.data import files, order, packed, pairs
from latlas.data.archives import sole_archive, sole_note, walk
from latlas.data.dataset import MEMORY_SHARE, META, Dataset, Progress, Source, Store, make
from latlas.data.frames import is_frame
from latlas.data.images import Fit
from latlas.data.pairs import PairDataset, PairSource
from latlas.data.streams import claim_file, read_member, readable, regular, without_panics

Opened = Source | PairSource
BUILT_IN = {name: f"standard:open_{name.replace('-', '_')}"
            for name in ("digits", "grid", "moons", "ring", "shapes", "swiss-roll")}
TABLE, TWO_FOLDERS = "tables:open_table", "imagefiles:open_two_folders"
#: options that are dealt with here, by the readers whose sources have them
DOOR = {files.IMAGES: "pair paired direction maps ids",
        TWO_FOLDERS: "direction maps ids", files.FILM: "direction",
        "arrays:open_npz": "paired direction maps ids",
        "arrays:open_array": "direction maps ids", files.RECORDINGS: "paired direction",
        TABLE: "split_by"}


@dataclass(frozen=True)
class Arrangement:
    """Options that are dealt with here.

    Attributes:
        pair: ``side`` takes the halves of every image for two sides, ``none`` folders for one side.
        paired: row i of B belongs to row i of A; otherwise they are two domains.
        direction: ``BtoA`` swaps the sides.
        maps: ``A`` or ``B``: the side whose pixels are class ids; ``ids``: those of its channels.
        split_by: a column of a table whose last values are held out (:mod:`latlas.data.order`).
    """

    pair: str | None = None
    paired: bool | None = None
    direction: str | None = None
    maps: str | None = None
    ids: str | None = None
    split_by: str | None = None

    def __post_init__(self) -> None:
        for name, valid in (("direction", ("AtoB", "BtoA")), ("maps", ("A", "B"))):
            if getattr(self, name) not in (None, *valid):
                raise DataError(unknown(name, getattr(self, name), valid))

    @property
    def sides(self) -> str:
        """The sides as they are called in the files, in the order of the source."""
        return "BA" if self.direction == "BtoA" else "AB"

    def ids_of(self, side: str) -> tuple[bool, str | None]:
        """Whether the pixels of a side are class ids, and those of its channels."""
        return side == self.maps, self.ids if side == self.maps else None


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
            ``mode``, ``key``, ``on_error``, ``levels``, ``n``, ... (``docs/data.md``), and what
            :class:`Arrangement` says.

    Raises:
        DataError: one line that names the file, column, key or option and what to do.
    """
    if isinstance(spec, Mapping):
        spec, options = spec["source"], {k: v for k, v in {**spec, **options}.items()
                                         if k != "source"}
    if image_files(spec):
        paths = [Path(p).expanduser().resolve() for p in spec]
        return _stored([str(p) for p in paths], options, memory_share, lambda store: _read(
            files.IMAGES, (paths,), "the images", options, store,
            stem=paths[0].stem))
    if isinstance(spec, list | tuple) and len(spec) == 2 and any(
            isinstance(side, str | Path | Source | PairSource | Dataset | Mapping)
            for side in spec):
        return open_pair(*spec, memory_share=memory_share, **options)
    if not isinstance(spec, str | Path):
        return _in_memory(spec, options)
    text = str(spec)
    if text in BUILT_IN:
        options = {k: v for k, v in _plain(options).items() if k != "fit"}
        source = _read(BUILT_IN[text], (), text, options, Store())
        there = (f"{text} is the built-in source; what lies here under that name is ./{text}",)
        return replace(source, spec={"source": text, **options},
                       notes=source.notes + there * Path(text).exists())
    return _stored(text, options, memory_share, lambda store: _open_path(text, options, store))


def open_pair(a: Any, b: Any, *, paired: bool | str = False, direction: str | None = None,
              maps: str | None = None, ids: str | None = None,
              memory_share: float = MEMORY_SHARE, **options: Any) -> PairSource:
    """One source of two sides, each anything that :func:`open_source` takes with these options.

    Args:
        paired, direction, maps, ids: as :class:`Arrangement` says; images in two folders are
            paired by their names.

    Raises:
        DataError: sides that do not fit each other, or one that cannot be read.
    """
    aligned = _typed("paired", paired, bool)
    swapped = Arrangement(direction=direction, maps=maps).sides == "BA"
    turned = {} if direction is None else {"direction": direction}
    if aligned and all(holds_images(place) and not image_files([place]) for place in (a, b)):
        paths = Path(a).expanduser(), Path(b).expanduser()
        own = {**options, **turned, "maps": maps, "ids": ids}
        return _stored([str(a), str(b)], {"paired": True, **own}, memory_share,  # type: ignore[return-value]
                       lambda store: _read(TWO_FOLDERS, paths, f"{a} and {b}", own, store,
                                           stem=f"{paths[0].stem}-{paths[1].stem}"))
    sides, fit = [], options.pop("fit", None)
    for name, place in (("A", a), ("B", b)):
        more: dict[str, Any] = {"maps": "A", "ids": ids} if maps == name else {}
        if fit is not None:  # of this side of the run, whose A is what comes first, or of its first
            side = "BA"[name == "A"] if swapped else name
            more["fit"] = Fit(A=fit.of(side))
        source = open_source(place, memory_share=memory_share, **options, **more)
        if isinstance(source, PairSource):
            raise DataError(f"{source.name} has two sides of its own; name sources of one side")
        sides.append(source)
    rates = [side.space.sound.rate for side in sides if side.space.sound is not None]
    for i, place in enumerate((a, b) if len(set(rates)) == 2 else ()):
        if rates[i] > min(rates):  # recordings of two rates meet at the lower one
            sides[i] = open_source(  # type: ignore[assignment]
                sides[i].spec or place, **{**options, "rate": min(rates)})
    source = pairs.join(*sides[::-1 if swapped else 1], aligned=aligned,
                        name=f"{sides[0].name}-{sides[1].name}")
    one, two = sides[0].spec, sides[1].spec
    if one is None or two is None:
        return source
    shared = {k: v for k, v in one.items() if k != "source" and two.get(k) == v}
    places = [{k: v for k, v in spec.items() if k not in shared} for spec in (one, two)]
    places = [place["source"] if len(place) == 1 else place for place in places]
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
    file = isinstance(spec, str | Path) and str(spec) not in BUILT_IN
    _build(out, spec, lambda store: _open_path(str(spec), options, store) if file
           else open_source(spec, **options), 0, progress)
    return open_source(out)


def image_files(spec: Any) -> bool:
    """A list of image files."""
    return isinstance(spec, list | tuple) and bool(spec) and all(
        isinstance(p, str | Path) and str(p) not in BUILT_IN and files.is_image(
            Path(p).expanduser()) for p in spec)


def holds_images(spec: Any) -> bool:
    """A folder, archive or file of images, or a list of such files."""
    if not isinstance(spec, str | Path) or str(spec) in BUILT_IN:
        return image_files(spec)
    path = Path(spec).expanduser()
    try:
        return path.exists() and files.reader_of(path)[0] == files.IMAGES
    except (DataError, OSError):
        return False


def _stored(source: str | list[str], options: Mapping[str, Any], share: float,
            read: Callable[[Store], Opened]) -> Opened:
    """What is read of these places, or was packed of it before; it is packed now if it is large."""
    named = [str(place).partition("::") for place in (
        source if isinstance(source, list) else [source])]
    with readable(named[0][0]):
        paths = [Path(place).expanduser().resolve() for place, _, _ in named]
        places = [f"{path}{mark}{member}" for path, (_, mark, member) in zip(
            paths, named, strict=True)]
        below = [f for p in paths for f in ([p / n for n in walk(str(p))] if p.is_dir() else [p])]
        stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in below if f.exists()]
    spec = {"source": places if isinstance(source, list) else places[0], **_plain(options)}
    digests = (hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
               for text in (f"{packed.FORMAT}{json.dumps(spec, default=str)}", repr(stats)))
    root = Path(os.environ.get("LATLAS_CACHE") or Path.home() / ".cache/latlas").expanduser()
    out = root / f"packed-{'-'.join(digests)}"
    opened = packed.open_packed(out) if (out / META).exists() else _build(
        out, named[0][0], read, share)
    return replace(opened, spec={k: v for k, v in spec.items() if k != "fit"})


def _build(out: Path, name: Any, read: Callable[[Store], Opened], share: float,
           progress: Progress | None = None) -> Opened:
    """What is read of what has this name, in a packed folder if it takes more than this share of
    the free memory (0: always). It is written beside ``out`` and takes its place once it is whole;
    what killed processes left there is removed."""
    part = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    dead = out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 8}")
    for folder in dead if os.name == "posix" else ():  # elsewhere nothing says whether it is
        with suppress(DataError, errors.RunError), alone(folder):
            shutil.rmtree(folder, ignore_errors=True)
    new = not out.parent.exists()
    try:
        with ExitStack() as lock:
            with suppress(OSError):  # where nothing can be written, a source in memory needs none
                part.mkdir(parents=True)
                lock.enter_context(alone(part))
            store = Store(part, share, progress)
            with readable(name):
                source = read(store)
            if share and not store.on_disk:
                return source
            packed.write(source, part, store)
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
        return packed.open_packed(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if new:
            with suppress(OSError):  # it is not empty
                out.parent.rmdir()


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given, fit for JSON."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in options.items() if v is not None}


def _in_memory(spec: Any, options: dict[str, Any]) -> Opened:
    if isinstance(spec, Source | PairSource):
        return spec
    if isinstance(spec, Dataset):
        return make("data set", spec)
    if isinstance(spec, PairDataset):
        return pairs.join(make("data set", spec.a), make("data set", spec.b), aligned=spec.aligned)
    if is_frame(spec):
        return _read(TABLE, (spec,), "table", options, Store())
    x, y = spec if isinstance(spec, tuple) and len(spec) == 2 else (spec, None)
    try:
        x = np.asarray(x)
    except Exception as error:
        raise DataError(f"{type(spec).__name__} cannot be read as an array: {error}") from None
    return _read("arrays:open_array", (x, y), "array", options, Store())


def _open_path(text: str, options: Mapping[str, Any], store: Store) -> Opened:
    """Chooses the reader of a path by what is there."""
    file, mark, member = text.partition("::")
    path = Path(file).expanduser()
    if not path.exists():
        hint = "" if any(mark in text for mark in "/\\.") else "; as a built-in source, " + unknown(
            "source", text, BUILT_IN)
        raise DataError(f"{text}: no such file or folder{hint}")
    archive = sole_archive(path) if path.is_dir() else path
    if archive != path:
        source = _open_path(f"{archive}{mark}{member}", options, store)
        return replace(source, notes=(*sole_note(path, archive), *source.notes))
    reader, inside = files.BY_SUFFIX.get(regular(path).suffix.lower(), ""), ""
    if not reader or path.is_dir():
        reader, inside = files.reader_of(path, member)
    if inside:
        with zipfile.ZipFile(path) as members:  # where Windows' names have backslashes
            stored = next(n for n in members.namelist() if n.replace("\\", "/") == inside)
            data = io.BytesIO(read_member(members, stored, f"{path}::{inside}"))
        return _read(reader, (data,), inside, options, store, name=f"{path}::{inside}")
    if member and reader != files.RECORDINGS:
        raise DataError(f"{text}: {path.name} has no members to choose from; an array of an "
                        f".npz or .mat is chosen by {say_option('key', member)}")
    if reader == files.PACKED:
        return packed.open_packed(path)
    if reader == TABLE and path.is_file() and path.suffix.lower() not in files.TABLES[-3:]:
        claim_file(path)
    pattern = (member,) if reader == files.RECORDINGS else ()
    with without_panics() if reader == TABLE else nullcontext():
        return _read(reader, (path, *pattern), str(path), options, store, stem=path.stem)


def _read(target: str, args: tuple[Any, ...], title: str, options: Mapping[str, Any],
          store: Store, stem: str = "", name: str = "") -> Any:
    """Calls a reader with the options it takes: the fields of its ``how``, else keywords that have
    defaults.

    A reader gives a source, or a place that may have two sides: ``sides`` finds them, ``read``
    reads one, and ``together``, where it is, makes them fit each other.
    """
    module, function = target.split(":")
    reader: Callable[..., Any] = getattr(import_module(f"latlas.data.{module}"), function)
    arguments = typing.get_type_hints(reader)
    how = arguments.get("how")
    types = typing.get_type_hints(how) if how else {
        k: arguments[k] for k in reader.__kwdefaults__ or () if k != "store"}
    own = {k: v for k, v in typing.get_type_hints(Arrangement).items()
           if k in DOOR.get(target, "").split()}
    unlabelled = str(options.get("label") or "").lower() == "none"
    values = _values(title, {**options, "label": "none"} if unlabelled else options, types | own)
    door = Arrangement(**{k: values.pop(k) for k in own if k in values})
    maps, ids = door.ids_of(door.sides[0])
    internal = {"store": store, "name": name, "maps": maps, "ids": ids,
                **({"how": how(**values)} if how else values)}
    source = reader(*args, **{k: v for k, v in internal.items() if k in arguments})
    if not isinstance(source, Source):
        two = (*source, True) if isinstance(source, tuple) else source.sides(
            door.pair, door.paired)
        source = _both(two, door, store, stem) if two else source.read(store, stem, maps, ids)
    if door.split_by is not None:
        source = order.in_order(source, door.split_by, values.get("dates"))
    return _without_labels(source) if unlabelled else source


def _values(title: str, options: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the types that a reader declares; no labels and no fit are for all readers."""
    values = {}
    for key, value in options.items():
        if key in types and value is not None:
            values[key] = value if key == "fit" else _typed(key, value, types[key])
        elif value is None or key == "fit" or (key, value) == ("label", "none"):
            continue
        elif key == "label":
            raise DataError(f"{title} has no labels to choose from; leave out {say_option(key)}")
        elif key == "pair":
            raise DataError(f"{title}: {say_option(key, value)} is for folders and zips of images; "
                            "two arrays are joined by open_pair(a, b)")
        else:
            valid = {*types, "label"} - {"fit"}
            raise errors.UnreadOptionError(f"{title}: {unknown('option', key, valid)}", key)
    return values


def _typed(key: str, value: Any, kind: Any) -> Any:
    """Text such as ``"64"`` as the type that the option has."""
    kinds = [t for t in typing.get_args(kind) or (kind,) if t is not type(None)]
    try:
        return str(value) if str in kinds else convert(
            FieldInfo(key, kind, None), str(value) if bool in kinds else value)
    except errors.ConfigError:
        raise DataError(f"{key}={value!r} is not a valid {kinds[0].__name__}") from None


def _both(two: Any, door: Arrangement, store: Store, stem: str) -> PairSource:
    """The two sides of a place, each read as A or B of the source."""
    a, b, aligned = two
    sides = [place.as_side(name) if hasattr(place, "as_side") else place
             for name, place in zip("AB", (a, b) if door.sides == "AB" else (b, a), strict=True)]
    if hasattr(sides[0], "together"):
        sides = sides[0].together(sides[1], aligned)
    one, two = (place.read(store.side(part), f"{stem} ({name})", *door.ids_of(name))
                for part, name, place in zip("AB", door.sides, sides, strict=True))
    return pairs.join(one, two, aligned=aligned, name=stem)


def _without_labels(source: Any) -> Any:
    """The source with its labels and class names left out."""
    if isinstance(source, PairSource):
        return replace(source, a=_without_labels(source.a), b=_without_labels(source.b))
    return replace(source, base=source.base.with_labels(None, ()))
