"""Clips: images that follow each other in time.

A sub-folder of stills is a clip, its frames in the order of their names with numbers as numbers. A
GIF, an APNG, an animated WebP, or (with imageio-ffmpeg, ``pip install latlas[video]``) a video is
one too. A folder may hold both. Folders ``train``, ``test`` and ``validation`` around clips become
splits, other folders around them classes. A clip stays whole in every split.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from latlas.core.errors import DataError, say_option
from latlas.core.space import Images
from latlas.data.dataset import Dataset, Rows, Source, encode_labels, make
from latlas.data.files import (
    FILMS,
    MAY_MOVE,
    PICTURES,
    Files,
    complaint,
    splits_and_folders,
    two_sides,
)
from latlas.data.images import FolderReading, plan
from latlas.data.pixels import Header, has_frames, least_mode, pixels, read_header, reason
from latlas.data.storage import Array, Store

if TYPE_CHECKING:
    from PIL.Image import Image

VIDEOS = FILMS - {".apng", ".gif"}
#: frames per second where nothing says so
RATE = 10.0


class Clip(NamedTuple):
    """What a clip is called, and the files of its frames in order, or the one that holds them."""

    name: str
    titles: tuple[str, ...]
    files: tuple[str, ...]
    film: bool = False


class Head(NamedTuple):
    """What is known of every frame of a clip before pixels are kept; how long it is titles, ms."""

    headers: list[Header]
    durations: list[float]
    titles: Sequence[str]


def open_clips(path: Path, *, how: FolderReading) -> Clips:
    """The clips of a folder or zip."""
    return Clips(Files(path, PICTURES | FILMS), how)


def open_film(path: Path, *, image_size: int | None = None, mode: str | None = None,
              on_error: str = "raise", levels: int | None = None, frames: bool = True) -> Clips:
    """One GIF, APNG, animated WebP or video; ``frames`` is that of a run, and says nothing here."""
    return open_clips(path, how=FolderReading(image_size, mode, on_error=on_error, levels=levels))


@dataclass(frozen=True)
class Clips:
    """The clips of one side of a place."""

    files: Files
    how: FolderReading

    def __post_init__(self) -> None:
        self._refuse("label", self.how.label not in (None, "none"))
        self._refuse("attributes", self.how.attributes)

    def _refuse(self, option: str, value: Any) -> None:
        if value:
            raise DataError(f"{option}= is for images by themselves; leave it out, or "
                            f"{say_option('frames', 'true')}")

    def sides(self, pair: str | None, paired: bool | None) -> tuple[Clips, Clips, bool] | None:
        """What the folders say."""
        self._refuse("pair", pair == "side")
        two = two_sides(self.files, pair, paired)
        return two and (Clips(two[0], self.how), Clips(two[1], self.how), two[2])

    def read(self, store: Store, name: str, maps: bool, ids: str | None) -> Source:
        """Frames with their clips, durations, labels and splits.

        Raises:
            DataError: no clips, one that cannot be decoded, or whose frames have different sizes.
        """
        self._refuse("maps", maps)
        how, every = self.how, self.clips()
        heads, errors = self._tried(every, lambda clip: _head(self.files, clip, how))
        notes = self._complaint(errors, len(every))
        clips = [clip for clip in every if clip.name in heads]
        shape, mode, size, resized = plan(
            [h for clip in clips for h in heads[clip.name].headers], how.image_size, how.mode)
        lengths = [len(heads[clip.name].titles) for clip in clips]
        number = np.repeat(np.arange(len(clips)), lengths)
        x = store.allocate((len(number), *shape), np.uint16 if mode == "I;16" else np.uint8)
        ends = dict(zip((clip.name for clip in clips), np.cumsum(lengths).tolist(), strict=True))

        def fill(clip: Clip) -> None:
            rows = range(ends[clip.name] - len(heads[clip.name].titles), ends[clip.name])
            x[rows.start:rows.stop] = 0
            for row, (image, _) in zip(rows, frames_of(self.files, clip), strict=True):
                x[row] = pixels(image, mode, size)
            store.done(rows.stop, len(x))

        _, broken = self._tried(clips, fill)
        good = np.flatnonzero(~np.isin(number, [i for i, c in enumerate(clips)
                                                if c.name in broken]))
        notes += [*resized, *self._complaint(broken, len(every))]
        single = [clip.name for clip, length in zip(clips, lengths, strict=True) if length == 1]
        if single:
            notes.append(f"{len(single):,} of {len(clips):,} clips hold one frame, which has no "
                         f"neighbour: {single[0]}")
        titles = [title for clip in clips for title in heads[clip.name].titles]
        parts, folders = splits_and_folders(titles)
        own = [PurePosixPath(clip.name).name for clip in clips]  # a clip's own folder is no class
        around = [f if f != own[i] else None for f, i in zip(folders, number, strict=True)]
        codes, classes = (None, ()) if None in around else encode_labels(
            np.array([f or "" for f in around]), "the folders around clips")
        space = Images(shape, how.levels or int(np.iinfo(x.dtype).max) + 1, classes=classes,
                       frames=len(x) > len(clips))
        durations = np.concatenate([heads[clip.name].durations for clip in clips])
        data = Dataset(x, space, codes, group=number, names=np.array(titles), clip=number,
                       duration=durations.astype(np.float32), rows=good if broken else None)
        return make(name, data, parts={k: np.intersect1d(v, good) for k, v in parts.items()},
                    notes=tuple(notes))

    def clips(self) -> list[Clip]:
        """Stills by their folders, films by themselves, in natural order."""
        stills: dict[str, list[tuple[str, str]]] = {}
        films: list[Clip] = []
        for title, stored in sorted(zip(self.files.titles, self.files.pictures, strict=True),
                                    key=lambda pair: natural(pair[0])):
            suffix = PurePosixPath(stored).suffix.lower()
            if suffix in FILMS or (suffix in MAY_MOVE and has_frames(self.files.read(stored))):
                films.append(Clip(title, (title,), (stored,), True))
            else:
                stills.setdefault(PurePosixPath(title).parent.as_posix(), []).append(
                    (title, stored))
        if not stills and not films:
            raise DataError(f"{self.files.path} holds no clips: sub-folders of frames (.png, .jpg, "
                            "...), GIF, APNG, animated WebP, or videos")
        folders = [Clip(name, tuple(title for title, _ in pairs), tuple(file for _, file in pairs))
                   for name, pairs in stills.items()]
        return sorted([*folders, *films], key=lambda clip: natural(clip.name))

    def _tried(self, clips: Sequence[Clip], task: Callable[[Clip], Any]) -> tuple[
            dict[str, Any], dict[str, str]]:
        """Results and errors of a task, by the names of clips."""
        results, errors = {}, {}
        for clip in clips:
            try:
                results[clip.name] = task(clip)
            except DataError as error:
                errors[clip.name] = str(error)
            except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, ...
                errors[clip.name] = f"{clip.name} cannot be decoded: {reason(error)}"
        return results, errors

    def _complaint(self, errors: dict[str, str], of: int) -> list[str]:
        return [complaint(next(iter(errors.values())), len(errors), of, "clips",
                          self.how.on_error, f"{self.files.path}: ")] if errors else []


def _head(files: Files, clip: Clip, how: FolderReading) -> Head:
    headers, durations = [], []
    titles: Sequence[str] = clip.titles
    if clip.film:
        for image, duration in frames_of(files, clip):
            headers.append(Header(image.width, image.height, least_mode(image)))
            durations.append(duration)
        titles = [f"{clip.name}/{i:05d}" for i in range(len(headers))]
    for name in () if clip.film else clip.files:
        try:
            headers.append(read_header(files.read(name)))
        except Exception as error:
            raise DataError(f"{name} cannot be decoded: {reason(error)}") from None
        durations.append(1000 / (how.rate or RATE))
    if not headers:
        raise DataError(f"{clip.name} holds no frames")
    sizes = {(h.width, h.height): i for i, h in reversed(list(enumerate(headers)))}
    if len(sizes) > 1 and how.image_size is None:
        two = [f"{titles[i]} ({w}x{h})" for (w, h), i in sorted(sizes.items(),
                                                                key=lambda pair: pair[1])[:2]]
        raise DataError(f"{clip.name}: frames of one clip differ in size, {' and '.join(two)}; "
                        f"{say_option('image_size')} resizes them")
    return Head(headers, durations, titles)


def natural(name: str) -> list[Any]:
    """A key that sorts numbers in names as numbers.

    >>> sorted(["a10", "a9", "a1b2"], key=natural)
    ['a1b2', 'a9', 'a10']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def frames_of(files: Files, clip: Clip) -> Iterator[tuple[Image, float]]:
    """The frames of a clip, upright, and how many milliseconds each is titles (0 of stills).

    Raises:
        DataError: a video, and its reader is not installed, or it lies in a zip.
    """
    from PIL import Image as pil
    from PIL import ImageOps

    if clip.film and PurePosixPath(clip.files[0]).suffix.lower() in VIDEOS:
        name, ffmpeg = clip.files[0], video_library(clip.files[0])
        if files.archive is not None:
            raise DataError(f"{files.path}: {name} is a video in a zip; unpack it first")
        stream = ffmpeg.read_frames(str(files.root / name))
        try:
            about = next(stream)
            for raw in stream:
                yield pil.frombytes("RGB", about["size"], raw), 1000 / about["fps"]
        finally:
            stream.close()
        return
    for name in clip.files:
        with pil.open(io.BytesIO(files.read(name))) as image:
            for i in range(getattr(image, "n_frames", 1) if clip.film else 1):
                image.seek(i)
                image.load()
                yield ImageOps.exif_transpose(image), float(image.info.get("duration", 0) or 0)


def video_library(name: str) -> Any:
    """imageio-ffmpeg, to read or write ``name``.

    Raises:
        DataError: it is not installed.
    """
    try:
        return import_module("imageio_ffmpeg")
    except ImportError:
        raise DataError(f"{name} is a video: install imageio-ffmpeg (pip install 'latlas[video]'), "
                        f"or unpack its frames (ffmpeg -i {name} FOLDER/%05d.png) and name "
                        "the folder") from None


# ------------------------------------------------------------------ clips in arrays

def unrolled(arrays: Sequence[Array]) -> tuple[list[Array], Rows]:
    """Clips (n, t, ...) as frames (n · t, ...), and the number of the clip of each frame."""

    def frames(clips: Array) -> Array:
        if not 4 <= len(clips.shape) <= 5:
            raise DataError(f"{clips.name} holds examples of shape {clips.shape[1:]}, not clips: "
                            f"{say_option('frames', 'true')} wants (n, t, H, W), (n, t, H, W, C) "
                            "or (n, t, C, H, W)")
        shape = clips.shape[0] * clips.shape[1], *clips.shape[2:]
        return Array(clips.name, shape, clips.dtype, lambda: (
            piece.reshape(-1, *shape[1:]) for piece in clips.pieces()))

    flat = [frames(a) for a in arrays]
    lengths = [t for n, t in (a.shape[:2] for a in arrays) for _ in range(n)]
    return flat, np.repeat(np.arange(len(lengths)), lengths)


def as_clips(data: Dataset, clip: Rows) -> Dataset:
    """Frames with the number (N,) of the clips they are of."""
    place = np.arange(len(clip)) - np.searchsorted(clip, clip)
    names = np.array([f"{c:05d}/{i:05d}" for c, i in zip(clip, place, strict=True)])
    return replace(data, group=clip, names=names, clip=clip,
                   duration=np.full(len(clip), 1000 / RATE, np.float32),
                   space=data.space.replace(frames=bool(place.any())))
