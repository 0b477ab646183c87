"""Clips: images that follow each other in time.

A sub-folder of stills is a clip, its frames in the order of their names with numbers as numbers. A
GIF, an APNG, an animated WebP, or (with imageio-ffmpeg, ``pip install latlas[video]``) a video is
one too. A folder may hold both. Folders ``train``, ``test`` and ``validation`` around clips become
splits, other folders around them classes. A clip stays whole in every split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option
from latlas.core.space import Images
from latlas.data import files as places
from latlas.data import images
from latlas.data.dataset import Dataset, Rows, Source, Store, chunks, encode_labels, make
from latlas.data.imagefiles import FolderReading, fit_for
from latlas.data.splits import hash_rows

if TYPE_CHECKING:
    from PIL.Image import Image

VIDEOS = places.FILMS - {".apng", ".gif"}
#: frames per second where nothing says so
RATE = 10.0


class Clip(NamedTuple):
    """A clip by its name, the files of its frames in order (or the one that holds them), what each
    frame is called, and, once it was looked into, their heads and milliseconds."""

    name: str
    files: tuple[str, ...]
    titles: Sequence[str]
    film: bool = False
    headers: Sequence[images.Header] = ()
    durations: Sequence[float] = ()


def open_clips(path: Path, *, how: FolderReading) -> Clips:
    """The clips of a folder or archive."""
    return Clips(places.Files(path, places.PICTURES | places.FILMS), how)


def open_film(path: Path, *, image_size: int | None = None, mode: str | None = None,
              on_error: str = "raise", levels: int | None = None, frames: bool = True,
              fit: str | None = None) -> Clips:
    """One GIF, APNG, animated WebP or video; ``frames`` is that of a run, and says nothing here."""
    how = FolderReading(image_size, mode, on_error=on_error, levels=levels, fit=fit)
    return open_clips(path, how=how)


@dataclass(frozen=True)
class Clips:
    """The clips of one side of a place."""

    files: places.Files
    how: FolderReading
    side: str = ""

    def __post_init__(self) -> None:
        self._refuse("label", self.how.label not in (None, "none"))
        self._refuse("attributes", self.how.attributes)

    def _refuse(self, option: str, value: Any) -> None:
        if value:
            raise DataError(f"{option}= is for images by themselves; leave it out, or "
                            f"{say_option('frames', 'true')}")

    def as_side(self, name: str) -> Clips:
        """The same as A or B of a run."""
        return replace(self, side=name)

    def sides(self, pair: str | None, paired: bool | None) -> tuple[Clips, Clips, bool] | None:
        """What the folders say."""
        self._refuse("pair", pair == "side")
        two = places.two_sides(self.files, pair, paired)
        return two and (Clips(two[0], self.how), Clips(two[1], self.how), two[2])

    def read(self, store: Store, name: str, maps: bool, ids: str | None) -> Source:
        """Frames with their clips, durations, labels and splits."""
        self._refuse("maps", maps)
        files = self.files.in_splits()
        if files is not self.files:
            return Clips(files, self.how, self.side).read(store, name, maps, ids)
        how, every = self.how, self.clips()
        results, notes = self._tried(every, self._with_heads, len(every))
        clips: list[Clip] = list(results.values())
        shape, mode, size, resized = self._plan([h for clip in clips for h in clip.headers])
        lengths = [len(clip.titles) for clip in clips]
        number = np.repeat(np.arange(len(clips)), lengths)
        x = store.allocate((len(number), *shape), np.uint16 if mode == "I;16" else np.uint8)
        stops = dict(zip((clip.name for clip in clips), np.cumsum(lengths), strict=True))

        def fill(clip: Clip) -> None:
            stop = int(stops[clip.name])
            rows = x[stop - len(clip.titles):stop]
            rows[:] = 0
            for row, (image, _) in zip(rows, frames_of(self.files, clip), strict=True):
                row[:] = images.pixels(image, mode, size)
            store.done(stop, len(x))

        filled, broken = self._tried(clips, fill, len(every))
        good = np.flatnonzero(np.isin(number, list(filled)))
        notes += [*resized, *broken, *self.files.left_out()]
        single = [clip.name for clip in clips if len(clip.titles) == 1]
        if single:
            notes.append(f"{len(single):,} of {len(clips):,} clips hold one frame, which has no "
                         f"neighbour: {single[0]}")
        titles = [title for clip in clips for title in clip.titles]
        parts, folders = places.splits_and_folders(titles)
        own = [PurePosixPath(clip.name).name for clip in clips]  # a clip's own folder is no class
        around = [f if f != own[i] else None for f, i in zip(folders, number, strict=True)]
        codes, classes = (None, ()) if None in around else encode_labels(
            np.array([f or "" for f in around]), "the folders around clips")
        space = Images(shape, how.levels or images.LEVELS.get(mode, 256), classes=classes,
                       frames=len(x) > len(clips))
        durations = np.concatenate([clip.durations for clip in clips]).astype(np.float32)
        data = Dataset(x, space, codes, group=clip_hashes(x, number), clip=number,
                       names=np.array(titles), duration=durations, rows=good if broken else None)
        return make(name, data, parts={k: np.intersect1d(v, good) for k, v in parts.items()},
                    notes=tuple(notes))

    def _plan(self, headers: list[images.Header]) -> tuple[
            tuple[int, int, int], str, images.Size | None, list[str]]:
        """As :func:`latlas.data.images.plan`; a run that is to be fitted decides by itself."""
        size, mode = fit_for(self.how.fit, self.side)
        planned = images.plan(headers, self.how.image_size, mode or self.how.mode)
        if size is None:
            return planned
        mode = planned[1] if mode is None else mode
        return (images.CHANNELS[mode], *size), mode, size, images.changes(headers, size, mode)

    def clips(self) -> list[Clip]:
        """Stills by their folders, films by themselves, in natural order."""
        stills: dict[str, list[tuple[str, str]]] = {}
        clips: list[Clip] = []
        for title, stored in sorted(zip(self.files.titles, self.files.stored, strict=True),
                                    key=lambda pair: natural(pair[0])):
            suffix = PurePosixPath(stored).suffix.lower()
            if suffix in places.FILMS or (suffix in places.MAY_MOVE
                                          and places.has_frames(self.files.read(stored))):
                clips.append(Clip(title, (stored,), (title,), True))
            else:
                stills.setdefault(PurePosixPath(title).parent.as_posix(), []).append(
                    (stored, title))
        if not stills and not clips:
            raise DataError(f"{self.files.path} holds no clips: sub-folders of frames (.png, .jpg, "
                            "...), GIF, APNG, animated WebP, or videos")
        clips[:0] = [Clip(name, tuple(file for file, _ in pairs), [title for _, title in pairs])
                     for name, pairs in stills.items()]
        return sorted(clips, key=lambda clip: natural(clip.name))

    def _with_heads(self, clip: Clip) -> Clip:
        """The clip with what is known of every frame before pixels are kept."""
        headers, durations, titles = [], [], clip.titles
        if clip.film:
            for image, duration in frames_of(self.files, clip):
                headers.append(images.Header(image.width, image.height, least_mode(image)))
                durations.append(duration)
            titles = [f"{clip.name}/{i:05d}" for i in range(len(headers))]
        for name in () if clip.film else clip.files:
            try:
                headers.append(images.read_header(self.files.read(name)))
            except Exception as error:
                raise DataError(f"{name} cannot be decoded: {images.reason(error)}") from None
            durations.append(1000 / (self.how.rate or RATE))
        if not headers:
            raise DataError(f"{clip.name} holds no frames")
        first: dict[tuple[int, int], str] = {}  # of every size the first frame, in their order
        for header, title in zip(headers, titles, strict=True):
            first.setdefault((header.width, header.height), title)
        if len(first) > 1 and self.how.image_size is None and not self.how.fit:
            two = " and ".join(f"{title} ({w}x{h})" for (w, h), title in list(first.items())[:2])
            raise DataError(f"{clip.name}: frames of one clip differ in size, {two}; "
                            f"{say_option('image_size')} resizes them")
        return clip._replace(titles=titles, headers=headers, durations=durations)

    def _tried(self, clips: Sequence[Clip], task: Callable[[Clip], Any], of: int) -> tuple[
            dict[int, Any], list[str]]:
        """Results of a task by the positions of clips, and a note where it failed."""
        results, errors = {}, {}
        for i, clip in enumerate(clips):
            try:
                results[i] = task(clip)
            except DataError as error:
                errors[i] = str(error)
            except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, ...
                errors[i] = f"{clip.name} cannot be decoded: {images.reason(error)}"
        return results, places.complaint(errors, of, "clips", self.how.on_error,
                                         f"{self.files.path}: ")


def least_mode(image: Image) -> str:
    """``L``, ``RGB`` or ``RGBA``: the least that keeps what is seen, pixel by pixel.

    A frame of a film may come with colours or transparency that none of its pixels has.
    """
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., 3] < 255).any():
        return "RGBA"
    return "L" if (rgba[..., 0] == rgba[..., 1]).all() and (
        rgba[..., 1] == rgba[..., 2]).all() else "RGB"


def natural(name: str) -> list[Any]:
    """A key that sorts numbers in names as numbers.

    >>> sorted(["a10", "a9", "a1b2"], key=natural)
    ['a1b2', 'a9', 'a10']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def frames_of(files: places.Files, clip: Clip) -> Iterator[tuple[Image, float]]:
    """The frames of a clip, upright, and how many milliseconds each is shown (0 of stills)."""
    from PIL import Image as pil
    from PIL import ImageOps

    if clip.film and PurePosixPath(clip.files[0]).suffix.lower() in VIDEOS:
        name, ffmpeg = clip.files[0], video_library(clip.files[0])
        if files.in_archive:
            raise DataError(f"{files.path}: {name} is a video in an archive; unpack it first")
        stream = ffmpeg.read_frames(str(files.root / name))
        try:
            about = next(stream)
            for raw in stream:
                yield pil.frombytes("RGB", about["size"], raw), 1000 / about["fps"]
        finally:
            stream.close()
        return
    for name in clip.files:
        with images.opened(files.read(name)) as image:
            for i in range(getattr(image, "n_frames", 1) if clip.film else 1):
                image.seek(i)
                image.load()
                yield ImageOps.exif_transpose(image), float(image.info.get("duration", 0) or 0)


def video_library(name: str) -> Any:
    """imageio-ffmpeg, to read or write ``name``; DataError if it is not installed."""
    try:
        return import_module("imageio_ffmpeg")
    except ImportError:
        raise DataError(f"{name} is a video: install imageio-ffmpeg (pip install 'latlas[video]'), "
                        f"or unpack its frames (ffmpeg -i {name} FOLDER/%05d.png) and name "
                        "the folder") from None


def clip_hashes(x: NDArray[Any], clip: Rows) -> Rows:
    """(N,) of each frame a hash of the contents of its clip."""
    keys = np.concatenate([hash_rows(chunk) for chunk in chunks(x)])
    numbers, place = np.unique(clip, return_inverse=True)
    total = np.zeros(len(numbers), np.uint64)
    np.add.at(total, place, keys)
    return total[place].view(np.int64)


def as_clips(data: Dataset, clip: Rows) -> Dataset:
    """Frames in an array with the number (N,) of the clips they are of."""
    place = np.arange(len(clip)) - np.searchsorted(clip, clip)
    names = np.array([f"{c:05d}/{i:05d}" for c, i in zip(clip, place, strict=True)])
    return replace(data, group=clip_hashes(data.x, clip), names=names, clip=clip,
                   duration=np.full(len(clip), 1000 / RATE, np.float32),
                   space=data.space.replace(frames=bool(place.any())))
