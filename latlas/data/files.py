"""The files of a folder or of a zip, and what they say: the reader, sides, splits and classes.

Two sides are found by their folders: ``A`` and ``B`` with equal names (also ``A/train`` or
``train/A``) are pairs, ``trainA`` and ``trainB`` (and ``testA``, ``testB``) are two domains.
Anything else has one side, of which sub-folders ``train``, ``test`` and ``validation`` become
splits, other sub-folders classes; a folder around everything is ignored.
"""

from __future__ import annotations

import copy
import io
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from latlas.core.errors import DataError, say_option, unknown
from latlas.data.dataset import META, Rows

PICTURES = frozenset({".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
                      ".ppm", ".tga", ".tif", ".tiff", ".webp"})
#: images that may have several frames
MAY_MOVE = (".png", ".webp")
#: files that are a whole clip
FILMS = frozenset({".apng", ".gif", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
                   ".webm"})
SOUNDS = frozenset({".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus",
                    ".rf64", ".w64", ".wav", ".wave"})
#: readers, as ``module:function`` of this package
IMAGES, RECORDINGS, PACKED = "images:open_images", "recordings:open_recordings", "packed"
CLIPS, FILM = "clips:open_clips", "clips:open_film"
CIFAR, IDX, MAT = "standard:open_cifar", "standard:open_idx", "matlab:open_mat"
TABLES = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".jsonl", ".ndjson", ".arrow", ".feather",
          ".ipc", ".db", ".sqlite", ".sqlite3")
BY_SUFFIX = {".bin": CIFAR, ".mat": MAT, ".npy": "arrays:open_array", ".npz": "arrays:open_npz",
             **dict.fromkeys(SOUNDS, RECORDINGS), **dict.fromkeys(TABLES, "tables:open_table")}
#: of text files of rows that have no ending of their own
TEXT = (".data", ".dat", ".txt")
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test",
          "val": "validation", "valid": "validation", "validation": "validation"}
#: names of two sides: trainA/NAME of a domain; A/NAME or train/A/NAME of pairs
ADDRESS = re.compile(rf"(?:({'|'.join(SPLITS)})_?(?P<domain>[AB])|([AB])|"
                     rf"((?i:{'|'.join(SPLITS)}))/([AB]))/(.+)", re.DOTALL)
LISTED = 3  # names in an error


def reader_of(path: Path, member: str = "") -> tuple[str, str]:
    """The reader of a file or folder; of a zip of data files also which of these is meant."""
    suffix, name = path.suffix.lower(), path.name.lower()
    if suffix == ".zip":
        return _reader_of_zip(path, member)
    if path.is_dir():
        names = {p.name.lower() for p in path.iterdir()}
        if not names:
            raise DataError(f"{path} is an empty folder")
        marks = {PACKED: META in names, IDX: any("ubyte" in name for name in names),
                 CIFAR: {"data_batch_1.bin", "train.bin", "test_batch.bin", "test.bin"} & names,
                 MAT: {"train_32x32.mat", "test_32x32.mat"} & names}
        reader = next((reader for reader, mark in marks.items() if mark), "")
        return reader or _by_contents(p.name for p in path.rglob("*")), ""
    inner = Path(path.stem).suffix.lower() if suffix in (".gz", ".bz2", ".xz") else suffix
    if suffix in BY_SUFFIX or inner in (*TABLES, *TEXT):
        return BY_SUFFIX.get(suffix, BY_SUFFIX[".csv"]), ""
    if suffix in FILMS or (suffix in MAY_MOVE and has_frames(path.read_bytes())):
        return FILM, ""
    if name.endswith((".tar.gz", ".tgz")):
        return CIFAR, ""
    if suffix == ".gz" or "ubyte" in name or "idx" in suffix:
        return IDX, ""
    raise DataError(f"{path} is not a kind of file latlas reads; valid: a folder or .zip of "
                    f"images or recordings, {', '.join(sorted(BY_SUFFIX))}, IDX (.gz), .gif and "
                    "videos")


def _reader_of_zip(path: Path, member: str) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} cannot be read as a zip: {error}") from None
    reader = _by_contents(names)
    data = [n for n in names if Path(n).suffix.lower() in (".npz", *TABLES[:-3])]
    alone = len(data) == len([n for n in names if not n.endswith("/")])
    if reader == RECORDINGS or not (member or (data and alone)):
        return reader, ""
    exact = [n for n in data if not member or member in (n, Path(n).name, Path(n).stem)]
    if member and len(exact) != 1:
        raise DataError(f"{path}: {unknown('member', member, data)}")
    if len(exact) > 1:
        raise DataError(f"{path} holds {len(data)} data sets; name one, as in "
                        f"{path.name}::{Path(data[0]).stem}. Valid: {', '.join(sorted(data))}")
    return BY_SUFFIX[Path(exact[0]).suffix.lower()], exact[0]


def _by_contents(names: Iterable[str]) -> str:
    """The reader of a place of images, or of recordings where there are some and no image."""
    sound = rows = False
    for name in names:  # a large folder is not gone through once an image is seen
        suffix = Path(name).suffix.lower()
        if suffix in PICTURES:
            return IMAGES
        sound, rows = sound or suffix in SOUNDS, rows or suffix in (".parquet", ".pq")
    return RECORDINGS if sound else BY_SUFFIX[".parquet"] if rows else IMAGES


def has_frames(data: bytes) -> bool:
    """Whether a file holds an image of several frames; false for what is no image."""
    from PIL import Image as pil

    try:
        with pil.open(io.BytesIO(data)) as image:
            return bool(getattr(image, "n_frames", 1) > 1)
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, ...
        return False


class Files:
    """Names (with ``/``, in sorted order) and contents of all files below a folder or in a zip, or
    of one file that is neither.

    ``stored`` are the names of the images (or recordings) as they lie there, ``titles`` what they
    are called: the same, but for a choice of them made by :meth:`only`.

    Args:
        kinds: endings of what counts as an image, or as a recording; a file with one of them is
            a place of its own.
    """

    def __init__(self, path: Path, kinds: Collection[str] = PICTURES) -> None:
        alone = path.suffix.lower() in kinds and path.is_file()
        self.path, self.root = path, path.parent if alone else path
        self.archive = None if alone or path.is_dir() else zipfile.ZipFile(path)
        names = [path.name] if alone else (
            [n for n in self.archive.namelist() if not n.endswith("/")] if self.archive else
            [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()])
        self.names = sorted(n for n in names if not any(
            part.startswith(".") or part == "__MACOSX" for part in n.split("/")) or alone)
        self.stored = [n for n in self.names if PurePosixPath(n).suffix.lower() in kinds]
        self.titles = self.stored

    def only(self, chosen: Mapping[str, str]) -> Files:
        """The same place with these images alone: what each is called, and its name there."""
        part = copy.copy(self)
        part.titles, part.stored = list(chosen), list(chosen.values())
        return part

    def read(self, name: str) -> bytes:
        """The bytes of one file; may be called from any thread."""
        if self.archive is None:
            return (self.root / name).read_bytes()
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{self.path}: {name} cannot be read: {error}") from None

    def without_head(self) -> Files:
        """The images under names without the folders that are around all of them."""
        paths, above = _around(self.stored)
        return self.only({"/".join(p[above:]): stored
                          for p, stored in zip(paths, self.stored, strict=True)})


def _around(names: list[str]) -> tuple[list[list[str]], int]:
    """Names divided at their slashes, and how many folders are around all of them."""
    paths, above = [n.split("/") for n in names], 0
    while paths and all(len(p) > above + 1 and p[above] == paths[0][above] for p in paths):
        above += 1
    return paths, above


def complaint(errors: Mapping[int, str], of: int, what: str, on_error: str,
              where: str = "") -> list[str]:
    """A note that some of so many files are broken and left out, with what is wrong with the first.
    DataError, with ``where`` before it, unless they may be skipped and others are left.

    Args:
        errors: by the positions of the files.
    """
    if not errors:
        return []
    n, first = len(errors), errors[min(errors)]
    if on_error == "skip" and n < of:
        return [f"left out {n:,} of {of:,} {what}: {first}"]
    raise DataError(f"{where}{first} ({n:,} of {of:,} {what}); {say_option('on_error', 'skip')} "
                    f"leaves {'it' if n == 1 else 'them'} out")


def two_sides(files: Files, pair: str | None, paired: bool | None) -> tuple[
        Files, Files, bool] | None:
    """The sides of a place by its folders, and whether they belong together by their names (as
    ``paired`` says, or the folders do); ``None`` for one side, as with ``pair="none"``."""
    folders = None if pair == "none" else by_folders(files)
    if folders is None:
        if paired is not None:
            raise DataError(f"{files.path}: {say_option('paired')} is for two sides (folders A "
                            "and B, or trainA and trainB), and there is one")
        return None
    a, b, domains = folders
    together = not domains if paired is None else paired
    return (a, matched(a, b, str(files.path)) if together else b, together)


def by_folders(files: Files) -> tuple[Files, Files, bool] | None:
    """A and B under names without their folders, and whether those are named as domains."""
    paths, most = _around(files.stored)
    for above in range(most + 1):
        addresses = [ADDRESS.fullmatch("/".join(p[above:])) for p in paths]
        if all(addresses):
            break
    domains = {m["domain"] is not None for m in addresses if m}
    if len(domains) != 1 or not all(addresses):
        return None
    sides: dict[str, dict[str, str]] = {}
    for match, stored in zip(addresses, files.stored, strict=True):
        of, domain, alone, part, inside, name = match.groups()  # type: ignore[union-attr]
        title = "/".join(filter(None, (of or part, name)))
        sides.setdefault(domain or alone or inside, {})[title] = stored
    if len(sides) == 2:
        return files.only(sides["A"]), files.only(sides["B"]), domains == {True}
    (side,), folder = sides, paths[-1][:above + 1]  # is the counterpart missing, or empty?
    twin = folder[-1].replace(side, "B" if side == "A" else "A")
    twin = twin if folder[-1].endswith(side) else folder[-1]
    beside = "/".join([*folder[:-1], twin])
    there = any(n.startswith(f"{beside}/") for n in files.archive.namelist()) if (
        files.archive) else (files.path / beside).is_dir()
    if twin != folder[-1] and there:
        raise DataError(f"{files.path}: {twin} holds no images; fill it, or remove it")
    if domains == {True}:
        raise DataError(f"{files.path}: there is {folder[-1]}, but no {twin} with the images of "
                        f"the other domain; add it, or name {folder[-1]} itself")
    return None


def matched(a: Files, b: Files, where: str) -> Files:
    """B in the order of A's names, which may differ in their endings alone."""
    keys: list[dict[str, tuple[str, str]]] = []  # without its ending: called so, stored so
    for side in (a, b):
        names: dict[str, tuple[str, str]] = {}
        for title, stored in zip(side.titles, side.stored, strict=True):
            key = PurePosixPath(title).with_suffix("").as_posix()
            if key in names:
                raise DataError(f"{where}: {names[key][1]} and {stored} have one name; pairs need "
                                "different ones")
            names[key] = title, stored
        keys.append(names)
    alone = [sorted(mine.keys() - theirs.keys()) for mine, theirs in (keys, keys[::-1])]
    if any(alone):
        lists = "".join(f"; {len(names):,} only in {side} ({', '.join(names[:LISTED])}"
                       f"{', ...' if len(names) > LISTED else ''})"
                       for side, names in zip("AB", alone, strict=True) if names)
        raise DataError(f"{where}: the names differ{lists}; pairs "
                        f"need equal names ({say_option('paired', 'false')}: two domains; "
                        f"{say_option('pair', 'none')}: one side)")
    return b.only({title: keys[1][key][1] for key, (title, _) in keys[0].items()})


def splits_and_folders(titles: list[str]) -> tuple[dict[str, Rows], list[str | None]]:
    """Rows of the splits that names speak of, and the class folder of each."""
    paths, above = _around(titles)
    paths = [p[above:] for p in paths]
    heads = [p[0].lower() if len(p) > 1 else "" for p in paths]
    parts: dict[str, Rows] = {}
    if set(heads) <= set(SPLITS) and len({SPLITS[h] for h in heads}) > 1:
        named = np.array([SPLITS[h] for h in heads])
        parts = {p: np.flatnonzero(named == p) for p in dict.fromkeys(SPLITS.values())
                 if (named == p).any()}
        paths = [p[1:] for p in paths]
    return parts, [p[0] if len(p) > 1 else None for p in paths]
