"""What a folder or an archive is, by the names of its files: the reader, sides, splits, classes.

Two sides are found by their folders: ``A`` and ``B`` with equal names (also ``A/train`` or
``train/A``) are pairs, and so are ``images`` and ``masks``, which a note says; ``trainA`` and
``trainB`` (and ``testA``, ``testB``) are two domains. Anything else has one side, of which
sub-folders ``train``, ``test`` and ``validation`` become splits, other sub-folders classes; a
folder around everything is ignored. What lies beside folders of sides or splits is left out, and so
is all that is no image; notes say how much of it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from latlas.core.errors import DataError, say_option, unknown
from latlas.data.archives import Files, ending, names_in, sole_archive, tar_ending
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
IMAGES, FILM = "imagefiles:open_images", "imagefiles:open_film"
RECORDINGS, PACKED = "recordings:open_recordings", "packed"
CIFAR, IDX, MAT = "formats:open_cifar", "formats:open_idx", "formats:open_mat"
TABLES = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".jsonl", ".ndjson", ".arrow", ".feather",
          ".ipc", ".db", ".sqlite", ".sqlite3")
BY_SUFFIX = {".bin": CIFAR, ".mat": MAT, ".npy": "arrays:open_array", ".npz": "arrays:open_npz",
             **dict.fromkeys(SOUNDS, RECORDINGS), **dict.fromkeys(TABLES, "tables:open_table")}
#: of text files of rows that have no ending of their own
TEXT = (".data", ".dat", ".txt")
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test",
          "val": "validation", "valid": "validation", "validation": "validation"}
#: sides by their folders, of pairs of images in other words too, and those of domains (trainA)
SIDES = {"A": "A", "B": "B"}
PAIRS = SIDES | dict.fromkeys(("images", "image", "imgs", "img", "inputs"), "A") | dict.fromkeys(
    ("masks", "mask", "labels", "segmentations", "targets"), "B")
DOMAIN = re.compile(rf"({'|'.join(SPLITS)})_?([AB])")
LISTED = 3  # names in an error


def reader_of(path: Path, member: str = "") -> tuple[str, str]:
    """The reader of a file or folder; of a zip of data files also which of these is meant."""
    path = sole_archive(path)
    if path.is_dir():
        return _reader_of_folder(path), ""
    if path.suffix.lower() == ".zip":
        return _reader_of_zip(path, member)
    return _reader_of_file(path), ""


def _reader_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    inner = ending(path.stem) if suffix in (".gz", ".bz2", ".xz") else suffix
    if inner in (*TABLES, *TEXT):
        return BY_SUFFIX[".csv"]
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix]
    if tar_ending(path):
        names = list(names_in(path))
        return CIFAR if any(ending(n) == ".bin" for n in names) else _by_contents(names)
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
    if META in names and _is_packed(path):
        return PACKED
    if any("ubyte" in name for name in names):
        return IDX
    if names & {"data_batch_1.bin", "train.bin", "test_batch.bin", "test.bin"}:
        return CIFAR
    return MAT if names & {"train_32x32.mat", "test_32x32.mat"} else _by_contents(names_in(path))


def _is_packed(path: Path) -> bool:
    """Whether latlas wrote the meta.json of a folder, or most of such a folder is there."""
    if (path / "x.npy").exists() or not (path / META).is_file():
        return True
    try:
        return "format" in json.loads((path / META).read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        return False


def _reader_of_zip(path: Path, member: str) -> tuple[str, str]:
    names = list(names_in(path))
    reader = _by_contents(names)
    data = [n for n in names if ending(n) in (".npz", *TABLES[:-3])]
    if reader == RECORDINGS or not (member or (data and len(data) == len(names))):
        return reader, ""
    exact = [n for n in data if not member or member in (n, Path(n).name, Path(n).stem)]
    if member and len(exact) != 1:
        raise DataError(f"{path}: {unknown('member', member, data)}")
    if len(exact) > 1:
        raise DataError(f"{path} holds {len(data)} data sets; name one, as in "
                        f"{path.name}::{Path(data[0]).stem}. Valid: {', '.join(sorted(data))}")
    return BY_SUFFIX[ending(exact[0])], exact[0]


def _by_contents(names: Iterable[str]) -> str:
    """The reader of a place of images, or of recordings where there are some and no image."""
    endings = set[str]()
    for name in names:  # a large folder is not gone through once an image is seen
        if ending(name) in PICTURES:
            return IMAGES
        endings.add(ending(name))
    if endings & SOUNDS:
        return RECORDINGS
    return BY_SUFFIX[".parquet"] if endings & {".parquet", ".pq"} else IMAGES


def is_image(path: Path) -> bool:
    """Whether a path is one image by its ending."""
    return path.suffix.lower() in PICTURES and path.is_file()


def has_frames(data: bytes) -> bool:
    """Whether a file holds an image of several frames; false for what is no image."""
    try:
        with opened(data) as image:
            return bool(getattr(image, "n_frames", 1) > 1)
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, ...
        return False


def in_splits(files: Files) -> Files:
    """Without what lies beside folders named as splits."""
    for _, inside in _descent(files.titles):
        splits = {n: SPLITS[p[0].lower()] for n, p in inside.items()
                  if len(p) > 1 and p[0].lower() in SPLITS}
        if len({*splits.values()}) > 1 and len(splits) < len(files.titles) < 2 * len(splits):
            chosen = {n: stored for n, stored in zip(files.titles, files.stored, strict=True)
                      if n in splits}
            return files.only(chosen, sorted({*files.stored} - {*chosen.values()}), "splits")
    return files


def without_head(files: Files) -> Files:
    """The files under names without the folders that are around all of them."""
    return files.only(dict(zip(map("/".join, _below_head(files.stored)), files.stored,
                               strict=True)))


def _below_head(names: Iterable[str]) -> list[list[str]]:
    """Names divided at their slashes, without the folders that are around all of them."""
    paths = [n.split("/") for n in names]
    while paths and all(len(p) > 1 and p[0] == paths[0][0] for p in paths):
        paths = [p[1:] for p in paths]
    return paths


def _descent(names: Sequence[str]) -> Iterator[tuple[list[str], dict[str, list[str]]]]:
    """The whole place, then again and again the folder that holds more than half of all; of each
    the path, and the names in it, divided at their slashes."""
    folder, inside = list[str](), {n: n.split("/") for n in names}
    while True:
        yield folder, inside
        heads = Counter(p[0] for p in inside.values() if len(p) > 1)
        head, count = heads.most_common(1)[0] if heads else ("", 0)
        if 2 * count <= len(names):
            return
        folder = [*folder, head]
        inside = {n: p[1:] for n, p in inside.items() if len(p) > 1 and p[0] == head}


def complaint(errors: Mapping[int, str], of: int, what: str, on_error: str,
              where: str = "") -> list[str]:
    """A note that some of so many files are broken and left out, with what is wrong with the first
    of them. DataError, with ``where`` before it, unless they may be skipped and others are left.

    Args:
        errors: by the positions of the files.
    """
    if not errors:
        return []
    n, words = len(errors), "; ".join(errors[i] for i in sorted(errors)[:LISTED])
    words += "; ..." if n > LISTED else ""
    if on_error == "skip" and n < of:
        return [f"left out {n:,} of {of:,} {what}: {words}"]
    way_out = f"; {say_option('on_error', 'skip')} leaves {'it' if n == 1 else 'them'} out"
    raise DataError(f"{where}{words} ({n:,} of {of:,} {what}){way_out if n < of else ''}")


def two_sides(files: Files, pair: str | None, paired: bool | None) -> tuple[
        Files, Files, bool] | None:
    """The sides of a place by its folders, and whether they belong together by their names (as
    ``paired`` says, or the folders do); ``None`` for one side, as with ``pair="none"``."""
    folders = None if pair == "none" else by_folders(files, PAIRS)
    if folders is None:
        if paired is not None:
            raise DataError(f"{files.path}: {say_option('paired')} is for two sides (folders A "
                            "and B, or trainA and trainB), and there is one")
        return None
    a, b, domains = folders
    together = not domains if paired is None else paired
    return (a, matched(a, b, str(files.path)) if together else b, together)


def by_folders(files: Files, words: Mapping[str, str] = SIDES) -> tuple[Files, Files, bool] | None:
    """A and B under names without their folders, and whether those are named as domains, or else
    by one of the ``words``.

    Every name has its address in a side, or two sides are plain in spite of a few that have none:
    beside domains any, beside A and B, which might be classes, files in no folder of their own.
    """
    for head, inside in _descent(files.stored):
        addresses = {n: address for n, p in inside.items() if (address := _address(p, words))}
        domains = {DOMAIN.fullmatch(folder[-1]) is not None for _, folder, _ in addresses.values()}
        sides = {side for side, _, _ in addresses.values()}
        beside = [n for n in files.stored if n not in addresses]
        plain = len(sides) == 2 and len(files.stored) < 2 * len(addresses) and (
            domains == {True} or all(head[:n.count("/")] == n.split("/")[:-1] for n in beside))
        if len(domains) == 1 and (plain or not beside):
            break
    else:
        return None
    if len(sides) == 2:
        a, b = ({title: n for n, (side, _, title) in addresses.items() if side == which}
                for which in "AB")
        named = sorted({folder[-1] for _, folder, _ in addresses.values()})
        notes = () if domains == {True} or named == ["A", "B"] else (
            f"{' and '.join(named)} are taken for the sides A and B of pairs; "
            f"{say_option('pair', 'none')} takes them for one side",)
        return files.only(a, beside, "sides", notes), files.only(b).untold(), domains == {True}
    side, (*above, name), _ = [*addresses.values()][-1]  # is the other one missing, or empty?
    twin = name[:-1] + ("B" if side == "A" else "A")
    if name.endswith(side) and files.has_folder("/".join([*head, *above, twin])):
        raise DataError(f"{files.path}: {twin} holds no images; fill it, or remove it")
    if domains == {True}:
        raise DataError(f"{files.path}: there is {name}, but no {twin} with the images of "
                        f"the other domain; add it, or name {name} itself")
    return None


def _address(path: list[str], words: Mapping[str, str]) -> tuple[str, list[str], str] | None:
    """What a name says: its side, the folder that names it, and the name without that folder."""
    domain = DOMAIN.fullmatch(path[0])
    if domain and len(path) > 1:
        return domain[2], path[:1], "/".join([domain[1], *path[1:]])
    at = int(path[0].lower() in SPLITS)
    side = words.get(path[at], words.get(path[at].lower())) if len(path) > at + 1 else None
    return (side, path[:at + 1], "/".join(path[:at] + path[at + 1:])) if side else None


def matched(a: Files, b: Files, where: str) -> Files:
    """B in the order of A's names, which may differ in their endings alone."""
    keys = list[dict[str, str]]()  # names without their endings, as stored
    for side in (a, b):
        names = dict[str, str]()
        for title, stored in zip(side.titles, side.stored, strict=True):
            first = names.setdefault(title.removesuffix(PurePosixPath(title).suffix), stored)
            if first != stored:
                raise DataError(f"{where}: {first} and {stored} have one name; pairs need "
                                "different ones")
        keys.append(names)
    alone = [sorted(mine.keys() - theirs.keys()) for mine, theirs in (keys, keys[::-1])]
    if any(alone):
        lists = "".join(f"; {len(names):,} only in {side} ({', '.join(names[:LISTED])}"
                       f"{', ...' if len(names) > LISTED else ''})"
                       for side, names in zip("AB", alone, strict=True) if names)
        raise DataError(f"{where}: the names differ{lists}; pairs "
                        f"need equal names ({say_option('paired', 'false')}: two domains; "
                        f"{say_option('pair', 'none')}: one side)")
    return b.only({title: keys[1][key] for title, key in zip(a.titles, keys[0], strict=True)})


def splits_and_folders(titles: list[str]) -> tuple[dict[str, Rows], list[str | None]]:
    """Rows of the splits that names speak of, and the class folder of each."""
    paths = _below_head(titles)
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
