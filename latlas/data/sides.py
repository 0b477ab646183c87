"""Folders and zips of pictures, of one side or of two.

Two sides are found by their folders: ``A`` and ``B`` with equal names (also ``A/train`` or
``train/A``) are pairs, ``trainA`` and ``trainB`` (and ``testA``, ``testB``) are two domains. With
``pair=side`` every file is a pair, A its left half and B its right one. Anything else has one side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from latlas.core.errors import DataError, unknown
from latlas.data.clips import KINDS, read_clips
from latlas.data.files import PICTURES, Files
from latlas.data.maps import first_is_map
from latlas.data.pictures import PARTS, Reading, Work, prepare, read_pictures
from latlas.data.source import Source, join
from latlas.data.store import Store

SIDES = ("A", "B")
PARTED = re.compile(rf"({'|'.join(PARTS)})_?([AB])")
LISTED = 3  # names in an error


@dataclass(frozen=True)
class Side:
    """Pictures of one side, under names without the side's folder."""

    name: str
    files: Files
    half: int | None = None


def open_pictures(path: Path, *, store: Store | None = None, image_size: int | None = None,
                  mode: str | None = None, label: str | None = None,
                  attributes: str | None = None, on_error: str = "raise",
                  levels: int | None = None, pair: str | None = None,
                  paired: bool | None = None, direction: str | None = None,
                  maps: str | None = None, ids: str | None = None,
                  frames: bool | None = None, rate: float | None = None) -> Source:
    """Pictures of a folder or zip; see the head of this module for what has two sides.

    Args:
        mode, label, attributes, on_error: see :class:`latlas.data.pictures.Reading`; labels are
            those of the side that is translated.
        pair: ``side``: A and B side by side in every file; ``none``: one side whatever the folders.
        paired: whether A and B belong together by their names, if the folders do not say so.
        direction: ``BtoA`` swaps the sides.
        maps: ``A`` or ``B``: the side whose pixels are class ids; ``ids`` are those of its
            channels (``0,1,2``), by default those that occur.
        frames: sub-folders, GIFs and the like are clips (:mod:`latlas.data.clips`), of ``rate``
            frames per second where nothing says so.
    """
    how = Reading(image_size, mode, label, attributes, on_error, levels, frames=bool(frames),
                  rate=rate)
    is_map = first_is_map(direction, maps)
    files = Files(path, KINDS if frames else PICTURES)
    found = _found(files, pair, paired)
    if how.frames:
        _fit_for_frames(how, pair, maps)
    if found is None and how.frames:
        return read_clips(files, store or Store(), how, path.stem)
    if found is None:
        alone = replace(how, maps=is_map, ids=ids if is_map else None)
        kept = store or Store()
        return read_pictures(prepare(files, kept, alone), kept, alone, path.stem)
    sides, together = found
    return read_sides(sides, store or Store(), how, paired=together, direction=direction,
                      maps=maps, ids=ids, name=path.stem)


def open_two(a: Path, b: Path, *, store: Store | None = None, image_size: int | None = None,
             mode: str | None = None, label: str | None = None, attributes: str | None = None,
             on_error: str = "raise", levels: int | None = None, direction: str | None = None,
             maps: str | None = None, ids: str | None = None) -> Source:
    """Pairs in two folders or zips of pictures with equal names; options as for one."""
    first_is_map(direction, maps)
    sides = [Side(name, _without_head(Files(path)))
             for name, path in zip(SIDES, (a, b), strict=True)]
    how = Reading(image_size, mode, label, attributes, on_error, levels)
    return read_sides(_matched(sides, f"{a} and {b}"), store or Store(), how, paired=True,
                      direction=direction, maps=maps, ids=ids, name=f"{a.stem}-{b.stem}")


def read_sides(sides: Sequence[Side], store: Store, how: Reading, *, paired: bool,
               direction: str | None, maps: str | None, ids: str | None, name: str) -> Source:
    """Both sides in the order asked for, joined."""
    ordered = sides[::-1] if direction == "BtoA" else sides
    stores = store, store.second
    hows = [replace(_of_side(how, i), half=side.half, maps=side.name == maps,
                    ids=ids if side.name == maps else None) for i, side in enumerate(ordered)]
    if how.frames:
        return join(*(read_clips(side.files, kept, own, f"{name} ({side.name})") for side, kept, own
                      in zip(ordered, stores, hows, strict=True)), paired=paired, name=name)
    works = [prepare(side.files, kept, own)
             for side, kept, own in zip(ordered, stores, hows, strict=True)]
    if paired and sides[0].half is None:
        _same_cuts(works[0], works[1], how.image_size)
    a, b = (read_pictures(work, kept, own, f"{name} ({side.name})") for work, kept, own, side
            in zip(works, stores, hows, ordered, strict=True))
    return join(a, b, paired=paired, name=name)


def _fit_for_frames(how: Reading, pair: str | None, maps: str | None) -> None:
    """Raise DataError for an option that only single pictures take."""
    given = {"pair": pair == "side", "maps": maps, "label": how.label not in (None, "none"),
             "attributes": how.attributes}
    for option, value in given.items():
        if value:
            raise DataError(f"{option}= is for pictures by themselves; leave it out, or "
                            "frames=true")


def _of_side(how: Reading, i: int) -> Reading:
    """Labels that were asked for are those of the first side."""
    return how if i == 0 or how.label is None else replace(how, label="none", attributes=None)


def _same_cuts(a: Work, b: Work, size: int | None) -> None:
    """Raise DataError for a pair whose pictures would not lie on each other."""
    for i in sorted(a.headers.keys() & b.headers.keys()):
        one, two = a.headers[i], b.headers[i]
        names = f"{a.files.pictures[i]} ({one.width}x{one.height}) and {b.files.pictures[i]} " \
                f"({two.width}x{two.height})"
        if size is None and (one.width, one.height) != (two.width, two.height):
            raise DataError(f"{a.files.path}: {names} differ in size; image_size= resizes both")
        skew = abs(one.width * two.height - two.width * one.height)
        if skew > max(one.width, one.height, two.width, two.height):  # more than a pixel rounded
            raise DataError(f"{a.files.path}: {names} differ in proportions, so their cuts would "
                            "not lie on each other; bring them to one form first")


def _found(files: Files, pair: str | None, paired: bool | None) -> tuple[
        Sequence[Side], bool] | None:
    """The two sides of a place, and whether they belong together; ``None`` for one side."""
    if pair not in (None, "side", "none"):
        raise DataError(unknown("pair", str(pair), ["side", "none"]))
    if pair == "side":
        return [Side(name, files, half) for half, name in enumerate(SIDES)], paired is not False
    folders = None if pair == "none" else two_folders(files)
    if folders is None:
        if paired is not None:
            raise DataError(f"{files.path}: paired= is for two sides (folders A and B, or trainA "
                            "and trainB), and there is one")
        return None
    sides, domains = folders
    together = not domains if paired is None else paired
    return (_matched(sides, str(files.path)) if together else sides), together


def two_folders(files: Files) -> tuple[Sequence[Side], bool] | None:
    """The sides as the folders name them, and whether they are named as domains."""
    paths = [n.split("/") for n in files.pictures]
    above = 0
    while not all(_address(p[above:]) for p in paths):
        if not paths or not all(len(p) > above + 1 and p[above] == paths[0][above] for p in paths):
            return None
        above += 1
    found = [a for a in (_address(p[above:]) for p in paths) if a]
    domains = {parted for _, _, parted in found}
    if len(domains) != 1:
        return None
    named: dict[str, dict[str, str]] = {}
    for (side, name, _), stored in zip(found, files.pictures, strict=True):
        named.setdefault(side, {})[name] = stored
    if len(named) == 1:
        _lonely(files, paths[-1][:above + 1], next(iter(named)), domains == {True})
        return None
    return [Side(k, files.only(named[k])) for k in SIDES], domains == {True}


def _address(path: list[str]) -> tuple[str, str, bool] | None:
    """Side, name without it, and whether the folder is one such as ``trainA``."""
    if len(path) < 2:
        return None
    parted = PARTED.fullmatch(path[0])
    if parted:
        return parted[2], "/".join([parted[1], *path[1:]]), True
    if path[0] in SIDES:
        return path[0], "/".join(path[1:]), False
    if path[0].lower() in PARTS and path[1] in SIDES and len(path) > 2:
        return path[1], "/".join([path[0], *path[2:]]), False
    return None


def _lonely(files: Files, folder: list[str], side: str, domains: bool) -> None:
    """Raise DataError for a side whose counterpart is missing or empty."""
    other = "B" if side == "A" else "A"
    twin = folder[-1].replace(side, other) if folder[-1].endswith(side) else folder[-1]
    there = twin != folder[-1] and files.has_folder("/".join([*folder[:-1], twin]))
    if there:
        raise DataError(f"{files.path}: {twin} holds no pictures; fill it, or remove it")
    if domains:
        raise DataError(f"{files.path}: there is {folder[-1]}, but no {twin} with the pictures of "
                        f"the other domain; add it, or name {folder[-1]} itself")


def _matched(sides: Sequence[Side], where: str) -> Sequence[Side]:
    """Both sides in the order of A's names, which may differ in their endings alone."""
    a, b = (_keys(side, where) for side in sides)
    if a.keys() != b.keys():
        raise DataError(f"{where}: the names differ{_only('A', a, b)}{_only('B', b, a)}; pairs "
                        "need equal names (paired=false: two domains; pair=none: one side)")
    chosen = {shown: b[key][1] for key, (shown, _) in a.items()}
    return [sides[0], replace(sides[1], files=sides[1].files.only(chosen))]


def _keys(side: Side, where: str) -> dict[str, tuple[str, str]]:
    """What a picture is called without its ending, to its name with it and its place."""
    found: dict[str, tuple[str, str]] = {}
    for shown, stored in zip(side.files.shown, side.files.pictures, strict=True):
        key = PurePosixPath(shown).with_suffix("").as_posix()
        if key in found:
            raise DataError(f"{where}: {found[key][1]} and {stored} have one name; pairs need "
                            "different ones")
        found[key] = shown, stored
    return found


def _only(name: str, mine: dict[str, tuple[str, str]], theirs: dict[str, tuple[str, str]]) -> str:
    lost = sorted(mine.keys() - theirs.keys())
    more = ", ..." if len(lost) > LISTED else ""
    return f"; {len(lost):,} only in {name} ({', '.join(lost[:LISTED])}{more})" if lost else ""


def _without_head(files: Files) -> Files:
    """The pictures under names without the folders that are around all of them."""
    paths = [n.split("/") for n in files.pictures]
    above = 0
    while paths and all(len(p) > above + 1 and p[above] == paths[0][above] for p in paths):
        above += 1
    return files.only({"/".join(p[above:]): stored
                       for p, stored in zip(paths, files.pictures, strict=True)})
