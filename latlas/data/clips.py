"""Clips: images that follow each other in time.

A sub-folder of stills is a clip, its frames in the order of their names with numbers as numbers. A
GIF, an APNG, an animated WebP, or (with imageio-ffmpeg, ``pip install latlas[video]``) a video is
one too. A folder may hold both. A clip stays whole in every split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.data import images
from latlas.data.archives import Files, ending
from latlas.data.dataset import Dataset, Rows, chunks
from latlas.data.files import FILMS, MAY_MOVE, has_frames
from latlas.data.splits import hash_rows

if TYPE_CHECKING:
    from PIL.Image import Image

VIDEOS = FILMS - {".apng", ".gif"}
#: frames per second where nothing says so
RATE = 10.0


class Clip(NamedTuple):
    """The files of a clip's frames in order, and what these are called; or the one file of all."""

    name: str
    files: list[str]
    titles: list[str]
    film: bool = False


def clips_of(files: Files) -> list[Clip]:
    """Stills by their folders, films by themselves, in natural order."""
    stills, films = dict[str, Clip](), list[Clip]()
    for title, stored in sorted(zip(files.titles, files.stored, strict=True),
                                key=lambda pair: natural(pair[0])):
        if ending(stored) in FILMS or (ending(stored) in MAY_MOVE
                                       and has_frames(files.read(stored))):
            films.append(Clip(title, [stored], [], True))
        else:
            name = PurePosixPath(title).parent.as_posix()
            clip = stills.setdefault(name, Clip(name, [], []))
            clip.files.append(stored)
            clip.titles.append(title)
    return sorted([*stills.values(), *films], key=lambda clip: natural(clip.name))


def natural(name: str) -> list[Any]:
    """A key that sorts numbers in names as numbers: ``a9`` before ``a10``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def film_frames(files: Files, name: str) -> Iterator[tuple[Image, float]]:
    """The frames of a film, upright, and how many milliseconds each is shown."""
    from PIL import Image as pil
    from PIL import ImageOps

    if ending(name) not in VIDEOS:
        with images.opened(files.read(name)) as image:
            for i in range(getattr(image, "n_frames", 1)):
                image.seek(i)
                image.load()
                yield ImageOps.exif_transpose(image), float(image.info.get("duration", 0) or 0)
        return
    ffmpeg = video_library(name)
    if files.in_archive:
        raise DataError(f"{files.path}: {name} is a video in an archive; unpack it first")
    stream = ffmpeg.read_frames(str(files.root / name))
    try:
        about = next(stream)
        for raw in stream:
            yield pil.frombytes("RGB", about["size"], raw), 1000 / about["fps"]
    finally:
        stream.close()


def film_headers(files: Files, name: str) -> list[images.Header]:
    """What each frame of a film is. Its mode is ``L``, ``RGB`` or ``RGBA``, the least that keeps
    what is seen: a frame may come with colours or transparency that none of its pixels has."""
    headers = []
    for image, duration in film_frames(files, name):
        rgba = np.asarray(image.convert("RGBA"))
        mode = "L" if (rgba[..., :1] == rgba[..., :3]).all() else "RGB"
        mode = "RGBA" if rgba[..., 3].min() < images.ON else mode
        headers.append(images.Header(*image.size, mode, duration=duration))
    if not headers:
        raise DataError(f"{name} holds no frames")
    return headers


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
