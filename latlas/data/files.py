"""The files of a folder or of an archive, and what they say: the reader, sides, splits, classes.

Two sides are found by their folders: ``A`` and ``B`` with equal names (also ``A/train`` or
``train/A``) are pairs, ``trainA`` and ``trainB`` (and ``testA``, ``testB``) are two domains.
Anything else has one side, of which sub-folders ``train``, ``test`` and ``validation`` become
splits, other sub-folders classes; a folder around everything is ignored. What lies beside folders
of sides or splits is left out, and so is all that is no image; notes say how much of it.
"""

from __future__ import annotations

import copy
import json
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from latlas.core.errors import DataError, say_option, unknown
from latlas.data.archives import DAMAGE, Listed, Place, first_names, place_of, tar_ending, walk
from latlas.data.dataset import META, MOST_CLASSES, Rows, encode_labels
from latlas.data.images import opened

PICTURES = frozenset({
    ".avif", ".avifs", ".blp", ".bmp", ".bw", ".dds", ".dib", ".gif", ".heic", ".heif", ".hif",
    ".icb", ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg",
    ".jpf", ".jpg", ".jpx", ".mpo", ".msp", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm",
    ".psd", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".spi", ".spider", ".tga", ".tif", ".tiff",
    ".vda", ".vst", ".webp", ".xbm", ".xpm"})
#: images that may have several frames
MAY_MOVE = (".png", ".webp")
#: files that are a whole clip
FILMS = frozenset({".apng", ".gif", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
                   ".webm"})
SOUNDS = frozenset({".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus",
                    ".rf64", ".w64", ".wav", ".wave"})
#: readers, as ``module:function`` of this package
IMAGES, RECORDINGS, PACKED = "imagefiles:open_images", "recordings:open_recordings", "packed"
CLIPS, FILM = "clips:open_clips", "clips:open_film"
CIFAR, IDX, MAT = "formats:open_cifar", "formats:open_idx", "formats:open_mat"
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
#: what systems put beside people's files
JUNK = frozenset({"thumbs.db", "desktop.ini", ".ds_store"})


def reader_of(path: Path, member: str = "") -> tuple[str, str]:
    """The reader of a file or folder; of a zip of data files also which of these is meant."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return _reader_of_zip(path, member)
    if path.is_dir():
        return _reader_of_folder(path), ""
    return _reader_of_file(path, suffix), ""


def _reader_of_file(path: Path, suffix: str) -> str:
    inner = Path(path.stem).suffix.lower() if suffix in (".gz", ".bz2", ".xz") else suffix
    if inner in (*TABLES, *TEXT):
        suffix = ".csv"
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix]
    if tar_ending(path):
        return next((CIFAR for n in first_names(path) if _ending(n) == ".bin"),
                    _by_contents(first_names(path)))
    if suffix in FILMS or (suffix in MAY_MOVE and has_frames(path.read_bytes())):
        return FILM
    if suffix in PICTURES:
        return IMAGES
    if suffix == ".gz" or "ubyte" in path.name.lower() or "idx" in suffix:
        return IDX
    raise DataError(f"{path} is not a kind of file latlas reads; valid: images, a folder, .zip or "
                    f".tar of images or recordings, {', '.join(sorted(BY_SUFFIX))}, IDX (.gz), "
                    ".gif and videos")


def _reader_of_folder(path: Path) -> str:
    names = {p.name.lower() for p in path.iterdir()}
    if not names:
        raise DataError(f"{path} is an empty folder")
    marks = {PACKED: META in names and _is_packed(path),
             IDX: any("ubyte" in name for name in names),
             CIFAR: {"data_batch_1.bin", "train.bin", "test_batch.bin", "test.bin"} & names,
             MAT: {"train_32x32.mat", "test_32x32.mat"} & names}
    return next((reader for reader, mark in marks.items() if mark), "") or _by_contents(
        walk(str(path)))


def _is_packed(path: Path) -> bool:
    """Whether latlas wrote the meta.json of a folder, or most of such a folder is there."""
    if (path / "x.npy").exists() or not (path / META).is_file():
        return True
    try:
        return "format" in json.loads((path / META).read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        return False


def is_image(path: Path) -> bool:
    """Whether a path is one image by its ending."""
    return path.suffix.lower() in PICTURES and path.is_file()


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _reader_of_zip(path: Path, member: str) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.replace("\\", "/") for name in archive.namelist()]
    except DAMAGE as error:
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
    try:
        with opened(data) as image:
            return bool(getattr(image, "n_frames", 1) > 1)
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, ...
        return False


class Files:
    """Names (with ``/``, in sorted order) and contents of all files below a folder or in an
    archive, of one file that is an image or recording, or of several that are named one by one.

    ``stored`` are the names of the images (or recordings) as they lie there, ``titles`` what they
    are called: the same, but for a choice of them made by :meth:`only`.

    Args:
        kinds: endings of what counts as an image, or as a recording; a file with one of them is
            a place of its own.
    """

    def __init__(self, path: Path | Sequence[Path], kinds: Collection[str] = PICTURES) -> None:
        paths = [path] if isinstance(path, Path) else list(path)
        alone = not isinstance(path, Path) or (path.suffix.lower() in kinds and path.is_file())
        self.place: Place = Listed(paths) if alone else place_of(paths[0])
        self.path = path if isinstance(path, Path) else self.place.root
        self.root, self.in_archive = self.place.root, self.place.packed
        every = [n for n in self.place.names if alone or not _is_junk(n)]
        self.names = every if alone else sorted(n for n in every if not _is_hidden(n))
        self.stored = [n for n in self.names if _ending(n) in kinds]
        self.titles = self.stored
        self._others = Counter(_ending(n) or "without an ending" for n in self.names
                               if _ending(n) not in kinds)
        self._others.update({"hidden": len(every) - len(self.names), **self.place.skipped})

    def only(self, chosen: Mapping[str, str], beside: Sequence[str] = (), of: str = "") -> Files:
        """The same place with these images alone: what each is called, and its name there; others
        are left out as they lie ``beside`` folders ``of`` sides or splits."""
        part = copy.copy(self)
        part.titles, part.stored = list(chosen), list(chosen.values())
        if beside:
            part._others = self._others + Counter(
                {f"beside the folders of {of}, {beside[0]}": len(beside)})
        return part

    def read(self, name: str) -> bytes:
        """The bytes of one file; may be called from any thread."""
        return self.place.read(name)

    def left_out(self, of_use: Collection[str] = ()) -> tuple[str, ...]:
        """A note of what in the place is not read, but for endings that are ``of_use``."""
        counts = {k: n for k, n in sorted(self._others.items()) if n > 0 and k not in of_use}
        words, total = [f"{n:,} {kind}" for kind, n in counts.items()], sum(counts.values())
        return (f"left out {total:,} file{'s' * (total > 1)}: {', '.join(words)}",) if (
            total) else ()

    def untold(self) -> Files:
        """The same, of which another tells what is left out."""
        part = copy.copy(self)
        part._others = Counter()
        return part

    def in_splits(self) -> Files:
        """Without what lies beside folders named as splits."""
        paths = [n.split("/") for n in self.titles]
        for folder in _descent(paths):
            named = [i for i, p in enumerate(paths) if p[:len(folder)] == folder
                     and len(p) > len(folder) + 1 and p[len(folder)].lower() in SPLITS]
            kinds = {SPLITS[paths[i][len(folder)].lower()] for i in named}
            if len(kinds) > 1 and len(named) < len(paths) < 2 * len(named):
                chosen = {self.titles[i]: self.stored[i] for i in named}
                return self.only(chosen, sorted({*self.stored} - {*chosen.values()}), "splits")
        return self

    def without_head(self) -> Files:
        """The images under names without the folders that are around all of them."""
        paths, above = _around(self.stored)
        return self.only({"/".join(p[above:]): stored
                          for p, stored in zip(paths, self.stored, strict=True)})


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _is_junk(name: str) -> bool:
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1].lower() in JUNK


def _descent(paths: list[list[str]]) -> Iterator[list[str]]:
    """The whole place, then again and again the folder that holds more than half of all."""
    folder = list[str]()
    while True:
        yield folder
        heads = Counter(p[len(folder)] for p in paths
                        if p[:len(folder)] == folder and len(p) > len(folder) + 1)
        head, count = heads.most_common(1)[0] if heads else ("", 0)
        if 2 * count <= len(paths):
            return
        folder = [*folder, head]


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
    found = _addresses(files.stored)
    if found is None:
        return None
    addresses, above = found
    domains = {m["domain"] is not None for m in addresses.values()}
    sides: dict[str, dict[str, str]] = {}
    for stored, match in addresses.items():
        of, domain, alone, part, inside, name = match.groups()
        title = "/".join(filter(None, (of or part, name)))
        sides.setdefault(domain or alone or inside, {})[title] = stored
    paths = [n.split("/") for n in addresses]
    if len(sides) == 2:
        beside = [n for n in files.stored if n not in addresses]
        return (files.only(sides["A"], beside, "sides"), files.only(sides["B"]).untold(),
                domains == {True})
    (side,), folder = sides, paths[-1][:above + 1]  # is the counterpart missing, or empty?
    twin = folder[-1].replace(side, "B" if side == "A" else "A")
    twin = twin if folder[-1].endswith(side) else folder[-1]
    other = "/".join([*folder[:-1], twin])
    if twin != folder[-1] and files.place.has_folder(other):
        raise DataError(f"{files.path}: {twin} holds no images; fill it, or remove it")
    if domains == {True}:
        raise DataError(f"{files.path}: there is {folder[-1]}, but no {twin} with the images of "
                        f"the other domain; add it, or name {folder[-1]} itself")
    return None


def _addresses(stored: list[str]) -> tuple[dict[str, re.Match[str]], int] | None:
    """What the names say that have an address in a side, and how many folders are around them.

    All have one, or two sides are plain in spite of a few that have none: beside domains any,
    beside A and B, which might be classes, files that lie in no folder of their own.
    """
    paths = [n.split("/") for n in stored]
    for folder in _descent(paths):
        above = len(folder)
        found = {n: m for n, p in zip(stored, paths, strict=True) if p[:above] == folder
                 and (m := ADDRESS.fullmatch("/".join(p[above:])))}
        domains = {m["domain"] is not None for m in found.values()}
        if len(domains) != 1:
            continue
        if len(found) == len(stored):
            return found, above
        sides = {m["domain"] or m[3] or m[5] for m in found.values()}
        loose = all(p[:-1] == folder[:len(p) - 1] for n, p in zip(stored, paths, strict=True)
                    if n not in found)
        if len(sides) == 2 and len(stored) < 2 * len(found) and (domains == {True} or loose):
            return found, above
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


def folder_classes(folders: Sequence[str | None]) -> tuple[
        Rows | None, tuple[str, ...], tuple[str, ...]]:
    """Codes and names of the folders that images lie in, and a note where there are too many."""
    names = np.array([f or "" for f in folders])
    k = len(set(folders))
    if k > MOST_CLASSES and len(folders) < 2 * k:
        return None, (), (f"no labels: {k:,} sub-folders hold {len(folders):,} files, too few of "
                          "each for classes",)
    return *encode_labels(names, "the sub-folders", most=max(k, MOST_CLASSES)), ()
