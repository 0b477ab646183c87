"""Clips: pictures that follow each other in time.

A sub-folder of stills is a clip, its frames in the order of their names with numbers as numbers. A
GIF, an APNG, an animated WebP, or (with imageio-ffmpeg) a video is one too. A folder may hold both.
Folders ``train``, ``test`` and ``validation`` around clips become splits, other folders around
them classes. A clip stays whole in every split.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.core.space import Space
from latlas.data import video
from latlas.data.dataset import Dataset
from latlas.data.files import FILMS, MAY_MOVE, PICTURES, Files, complaint
from latlas.data.labels import encode_labels
from latlas.data.pictures import Reading, Work, arranged, reason
from latlas.data.pixels import Header, has_frames, least_mode, pixels, read_header
from latlas.data.source import Rows, Source, make
from latlas.data.store import Store

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = PICTURES | FILMS
#: frames per second where nothing says so
RATE = 10.0


@dataclass(frozen=True)
class Clip:
    """What a clip is called, and the files of its frames in order, or the one that holds them."""

    name: str
    shown: tuple[str, ...]
    files: tuple[str, ...]
    film: bool = False


@dataclass(frozen=True)
class Head:
    """What is known of a clip before its pixels are kept: a header and milliseconds per frame."""

    headers: tuple[Header, ...]
    durations: tuple[float, ...]


def open_clip(path: Path, *, store: Store | None = None, image_size: int | None = None,
              mode: str | None = None, on_error: str = "raise", levels: int | None = None,
              frames: bool = True, direction: str | None = None) -> Source:
    """One GIF, APNG, animated WebP or video as a source; options as for folders of pictures.

    ``frames`` and ``direction`` are those of a run that it is opened for, and say nothing here.
    """
    how = Reading(image_size, mode, None, None, on_error, levels)
    return read_clips(Files(path, KINDS), store or Store(), how, path.stem)


def read_clips(files: Files, store: Store, how: Reading, name: str) -> Source:
    """Clips of a folder or zip, of one side.

    Raises:
        DataError: no clips, one that cannot be decoded, or whose frames have different sizes.
    """
    how.check()
    found = _clips(files)
    heads, errors = _heads(files, found, how, 1000 / (how.rate or RATE))
    notes = _complaint(files, errors, len(found), how.on_error)
    clips = [clip for clip in found if clip.name in heads]
    work = Work(files, store, how.image_size, how.mode)
    headers = [h for clip in clips for h in heads[clip.name].headers]
    shape, resized = work.plan(headers)
    x, broken = _filled(files, clips, heads, work, shape)
    notes += (*resized, *_complaint(files, broken, len(found), how.on_error))
    space = replace(Space.picture(shape, how.levels or int(np.iinfo(x.dtype).max) + 1),
                    frames=len(x) > len(clips))
    return _source(files, clips, heads, x, space, set(broken), name, notes)


def _source(files: Files, clips: list[Clip], heads: dict[str, Head], x: NDArray[Any], space: Space,
            broken: set[str], name: str, notes: tuple[str, ...]) -> Source:
    """Frames with their clips, durations, labels and splits."""
    sizes = [len(heads[clip.name].durations) for clip in clips]
    number = np.repeat(np.arange(len(clips)), sizes)
    titles = np.array([title for clip, n in zip(clips, sizes, strict=True)
                       for title in _titles(clip, n)])
    durations = np.concatenate([heads[clip.name].durations for clip in clips])
    parts, folders, _ = arranged(files.only(dict.fromkeys(titles, "")), None, None)
    codes, classes = _labels(folders, clips, number)
    good = np.flatnonzero(~np.isin(number, [i for i, c in enumerate(clips) if c.name in broken]))
    data = Dataset(x, replace(space, classes=classes), codes, group=number, names=titles,
                   clip=number, duration=durations.astype(np.float32),
                   rows=good if broken else None)
    return make(name, data, parts={k: np.intersect1d(v, good) for k, v in parts.items()},
                notes=(*notes, *_alone(clips, sizes)))


def _alone(clips: list[Clip], sizes: list[int]) -> tuple[str, ...]:
    """A note of clips that have no neighbours."""
    found = [clip.name for clip, n in zip(clips, sizes, strict=True) if n == 1]
    return (f"{len(found):,} of {len(clips):,} clips hold one frame, which has no neighbour: "
            f"{found[0]}",) if found else ()


def _titles(clip: Clip, n: int) -> list[str]:
    """What every frame is called: its file, or the film and its number there."""
    return [f"{clip.name}/{i:05d}" for i in range(n)] if clip.film else list(clip.shown)


def _labels(folders: list[str | None], clips: list[Clip], number: Rows) -> tuple[
        Rows | None, tuple[str, ...]]:
    """Classes by the folders around clips; a clip's own folder is none."""
    names = [PurePosixPath(clip.name).name for clip in clips]
    around = [f if f is not None and f != names[i] else None
              for f, i in zip(folders, number, strict=True)]
    if None in around:
        return None, ()
    return encode_labels(np.array([f or "" for f in around]), "the folders around clips")


def _clips(files: Files) -> list[Clip]:
    """Stills by their folders, films by themselves, in natural order."""
    stills: dict[str, list[tuple[str, str]]] = {}
    films: list[Clip] = []
    for shown, stored in sorted(zip(files.shown, files.pictures, strict=True),
                                key=lambda pair: natural(pair[0])):
        if _is_film(files, stored):
            films.append(Clip(shown, (shown,), (stored,), True))
        else:
            folder = PurePosixPath(shown).parent.as_posix()
            stills.setdefault(folder, []).append((shown, stored))
    clips = [Clip(name, tuple(shown for shown, _ in pairs), tuple(stored for _, stored in pairs))
             for name, pairs in stills.items()]
    if not clips and not films:
        raise DataError(f"{files.path} holds no clips: sub-folders of frames (.png, .jpg, ...), "
                        "GIF, APNG, animated WebP, or videos")
    return sorted([*clips, *films], key=lambda clip: natural(clip.name))


def natural(name: str) -> list[Any]:
    """A key that sorts numbers in names as numbers.

    >>> sorted(["a10", "a9", "a1b2"], key=natural)
    ['a1b2', 'a9', 'a10']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _is_film(files: Files, name: str) -> bool:
    """A kind of file that is a film, or a picture with several frames."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in FILMS or (suffix in MAY_MOVE and has_frames(files.read(name)))


def _heads(files: Files, clips: list[Clip], how: Reading, usual: float) -> tuple[
        dict[str, Head], dict[str, str]]:
    """Of every clip that can be read, and what is wrong with the others, by name."""
    heads: dict[str, Head] = {}
    errors: dict[str, str] = {}
    for clip in clips:
        try:
            heads[clip.name] = _head(files, clip, usual)
            if how.image_size is None:
                _one_size(clip, heads[clip.name])
        except DataError as error:
            errors[clip.name] = str(error)
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, ...
            errors[clip.name] = f"{clip.name} cannot be decoded: {reason(error)}"
    return {k: v for k, v in heads.items() if k not in errors}, errors


def _head(files: Files, clip: Clip, usual: float) -> Head:
    if not clip.film:
        headers = [_header(files, name) for name in clip.files]
        return Head(tuple(headers), (usual,) * len(headers))
    found = [(Header(image.width, image.height, least_mode(image)), duration)
             for image, duration in frames_of(files, clip)]
    return Head(*(tuple(part) for part in zip(*found, strict=True)))


def _header(files: Files, name: str) -> Header:
    try:
        return read_header(files.read(name))
    except Exception as error:
        raise DataError(f"{name} cannot be decoded: {reason(error)}") from None


def _one_size(clip: Clip, head: Head) -> None:
    sizes = {(h.width, h.height): i for i, h in reversed(list(enumerate(head.headers)))}
    if len(sizes) > 1:
        titles = _titles(clip, len(head.headers))
        said = [f"{titles[i]} ({w}x{h})" for (w, h), i in sorted(sizes.items(),
                                                                 key=lambda item: item[1])[:2]]
        raise DataError(f"{clip.name}: frames of one clip differ in size, {' and '.join(said)}; "
                        "image_size= resizes them")


def _complaint(files: Files, errors: dict[str, str], of: int, on_error: str) -> tuple[str, ...]:
    """A note of what was left out.

    Raises:
        DataError: nothing may be left out, or nothing would be left.
    """
    if not errors:
        return ()
    first = next(iter(errors.values()))
    return (complaint(first, len(errors), of, "clips", on_error, f"{files.path}: "),)


def _filled(files: Files, clips: list[Clip], heads: dict[str, Head], work: Work,
            shape: tuple[int, int, int]) -> tuple[NDArray[Any], dict[str, str]]:
    """All frames (N, C, H, W), clip by clip, and what went wrong with which."""
    n, done, errors = sum(len(heads[clip.name].durations) for clip in clips), 0, {}
    x = work.store.allocate((n, *shape), np.uint16 if work.mode == "I;16" else np.uint8)
    for clip in clips:
        last = done + len(heads[clip.name].durations)
        try:
            for row, (image, _) in zip(range(done, last), frames_of(files, clip), strict=True):
                x[row] = pixels(image, work.mode, work.size)
        except Exception as error:
            errors[clip.name] = f"{clip.name} cannot be decoded: {reason(error)}"
            x[done:last] = 0
        done = last
        work.store.done(done, n)
    return x, errors


def frames_of(files: Files, clip: Clip) -> Iterator[tuple[Image, float]]:
    """The frames of a clip, upright, and how many milliseconds each is shown (0 of stills)."""
    from PIL import Image as pil
    from PIL import ImageOps

    if clip.film and PurePosixPath(clip.files[0]).suffix.lower() in video.KINDS:
        yield from video.frames(files, clip.files[0])
        return
    for name in clip.files:
        with pil.open(io.BytesIO(files.read(name))) as image:
            for i in range(getattr(image, "n_frames", 1) if clip.film else 1):
                image.seek(i)
                image.load()
                yield ImageOps.exif_transpose(image), float(image.info.get("duration", 0) or 0)
