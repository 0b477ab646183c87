"""The files of a folder or of a zip, and what their folders say: sides, splits and classes.

Two sides are found by their folders: ``A`` and ``B`` with equal names (also ``A/train`` or
``train/A``) are pairs, ``trainA`` and ``trainB`` (and ``testA``, ``testB``) are two domains.
Anything else has one side, of which sub-folders ``train``, ``test`` and ``validation`` become
splits, other sub-folders classes; a folder around everything is ignored.
"""

from __future__ import annotations

import copy
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from latlas.core.errors import DataError, say_option
from latlas.data.dataset import Rows, encode_labels

PICTURES = frozenset({".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
                      ".ppm", ".tga", ".tif", ".tiff", ".webp"})
#: images that may have several frames
MAY_MOVE = (".png", ".webp")
#: files that are a whole clip
FILMS = frozenset({".apng", ".gif", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
                   ".webm"})
SOUNDS = frozenset({".wav", ".wave"})
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test",
          "val": "validation", "valid": "validation", "validation": "validation"}
PARTED = re.compile(rf"({'|'.join(SPLITS)})_?([AB])")
LISTED = 3  # names in an error


class Files:
    """Names (with ``/``, in sorted order) and contents of all files below a folder or in a zip, or
    of one file that is neither.

    ``images`` are the names of the images as they lie there, ``titles`` what they are called:
    the same, but for a choice of them made by :meth:`only`.

    Args:
        kinds: endings of what counts as an image, or as a recording; a file with one of them is
            a place of its own.
    """

    def __init__(self, path: Path, kinds: frozenset[str] = PICTURES) -> None:
        alone = path.suffix.lower() in kinds and path.is_file()
        self.path, self.root = path, path.parent if alone else path
        self.archive = None if alone or path.is_dir() else zipfile.ZipFile(path)
        names = [path.name] if alone else (
            [n for n in self.archive.namelist() if not n.endswith("/")] if self.archive else
            [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()])
        self.names = sorted(n for n in names if not any(
            part.startswith(".") or part == "__MACOSX" for part in n.split("/")) or alone)
        self.pictures = [n for n in self.names if PurePosixPath(n).suffix.lower() in kinds]
        self.titles = self.pictures

    def only(self, chosen: Mapping[str, str]) -> Files:
        """The same place with these images alone: what each is called, and its name there."""
        part = copy.copy(self)
        part.titles, part.pictures = list(chosen), list(chosen.values())
        return part

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of that name, even an empty one."""
        if self.archive is None:
            return (self.path / name).is_dir()
        return any(n.startswith(f"{name}/") for n in self.archive.namelist())

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
        paths, above = [n.split("/") for n in self.pictures], 0
        while paths and all(len(p) > above + 1 and p[above] == paths[0][above] for p in paths):
            above += 1
        return self.only({"/".join(p[above:]): stored
                          for p, stored in zip(paths, self.pictures, strict=True)})


def complaint(first: str, n: int, of: int, what: str, on_error: str, where: str = "") -> str:
    """A note that ``n`` of so many files are broken and left out; ``first`` is wrong with one.

    Unless they may be skipped and some are left, it is a DataError, and ``where`` precedes it.
    """
    if on_error == "skip" and n < of:
        return f"left out {n:,} of {of:,} {what}: {first}"
    raise DataError(f"{where}{first} ({n:,} of {of:,} {what}); {say_option('on_error', 'skip')} "
                    "leaves "
                    f"{'it' if n == 1 else 'them'} out")


def two_sides(files: Files, pair: str | None, paired: bool | None) -> tuple[
        Files, Files, bool] | None:
    """The sides of a place by its folders, and whether they belong together; ``None`` for one.

    Args:
        pair: ``none`` for one side, whatever the folders are called.
        paired: whether A and B belong together by their names, if the folders do not say so.
    """
    folders = None if pair == "none" else by_folders(files)
    if folders is None:
        if paired is not None:
            raise DataError(f"{files.path}: {say_option('paired')} is for two sides (folders A "
                            "and B, or trainA "
                            "and trainB), and there is one")
        return None
    a, b, domains = folders
    together = not domains if paired is None else paired
    return (a, matched(a, b, str(files.path)) if together else b, together)


def by_folders(files: Files) -> tuple[Files, Files, bool] | None:
    """A and B under names without their folders, and whether those are named as domains."""
    paths, above = [n.split("/") for n in files.pictures], 0
    while not all(_address(p[above:]) for p in paths):
        if not paths or not all(len(p) > above + 1 and p[above] == paths[0][above] for p in paths):
            return None
        above += 1
    addresses = [a for a in (_address(p[above:]) for p in paths) if a]
    domains = {parted for _, _, parted in addresses}
    if len(domains) != 1:
        return None
    named: dict[str, dict[str, str]] = {}
    for (side, name, _), stored in zip(addresses, files.pictures, strict=True):
        named.setdefault(side, {})[name] = stored
    if len(named) == 2:
        return files.only(named["A"]), files.only(named["B"]), domains == {True}
    (side,), folder = named, paths[-1][:above + 1]  # is the counterpart missing, or empty?
    twin = folder[-1].replace(side, "B" if side == "A" else "A")
    twin = twin if folder[-1].endswith(side) else folder[-1]
    if twin != folder[-1] and files.has_folder("/".join([*folder[:-1], twin])):
        raise DataError(f"{files.path}: {twin} holds no images; fill it, or remove it")
    if domains == {True}:
        raise DataError(f"{files.path}: there is {folder[-1]}, but no {twin} with the images of "
                        f"the other domain; add it, or name {folder[-1]} itself")
    return None


def _address(path: list[str]) -> tuple[str, str, bool] | None:
    """Side, name without it, and whether the folder is one such as ``trainA``."""
    if len(path) < 2:
        return None
    parted = PARTED.fullmatch(path[0])
    if parted:
        return parted[2], "/".join([parted[1], *path[1:]]), True
    if path[0] in ("A", "B"):
        return path[0], "/".join(path[1:]), False
    if path[0].lower() in SPLITS and path[1] in ("A", "B") and len(path) > 2:
        return path[1], "/".join([path[0], *path[2:]]), False
    return None


def matched(a: Files, b: Files, where: str) -> Files:
    """B in the order of A's names, which may differ in their endings alone."""
    keys: list[dict[str, tuple[str, str]]] = []  # without its ending: called so, stored so
    for side in (a, b):
        names: dict[str, tuple[str, str]] = {}
        for title, stored in zip(side.titles, side.pictures, strict=True):
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
    paths = [n.split("/") for n in titles]
    while all(len(p) > 1 and p[0] == paths[0][0] for p in paths):
        paths = [p[1:] for p in paths]
    heads = [p[0].lower() if len(p) > 1 else "" for p in paths]
    parts: dict[str, Rows] = {}
    if set(heads) <= set(SPLITS) and len({SPLITS[h] for h in heads}) > 1:
        named = np.array([SPLITS[h] for h in heads])
        parts = {p: np.flatnonzero(named == p) for p in dict.fromkeys(SPLITS.values())
                 if (named == p).any()}
        paths = [p[1:] for p in paths]
    return parts, [p[0] if len(p) > 1 else None for p in paths]


def folder_labels(folders: list[str | None], used: Rows) -> tuple[
        Rows | None, tuple[str, ...], tuple[str, ...]]:
    """Codes, class names and notes, where all files in use lie in sub-folders."""
    names = {folders[i] for i in used}
    if names == {None}:
        return None, (), ()
    if None in names:
        return None, (), ("no labels: some images lie outside the sub-folders",)
    return *encode_labels(np.array([f or "" for f in folders]), "the sub-folders"), ()
