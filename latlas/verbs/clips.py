"""Translated clips, each in the form and at the rate of what it was made of."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from latlas.core.errors import ConfigError, RunError
from latlas.core.space import Space
from latlas.data.clips import VIDEOS, video_library
from latlas.data.dataset import Dataset
from latlas.data.maps import to_ids
from latlas.data.pairs import Data, first_side
from latlas.render import imaging
from latlas.verbs.common import Array, Progress
from latlas.verbs.translating import blocks, to_space, translated
from latlas.verbs.write import file_names, is_folder, picture, whole, write_bytes, write_missing

#: how a film is written, by its ending; beyond these are videos
FORMS = {".gif": "GIF", ".apng": "PNG", ".png": "PNG", ".webp": "WEBP"}
#: milliseconds that a frame is shown where nothing says so
USUAL = 100.0
#: frames that a film's palette is chosen by, at most, and its colours
PALETTE_OF, COLOURS = 16, 256


@dataclass(frozen=True)
class Clip:
    """What a clip is called, and where its frames are in a data set."""

    name: str
    frames: slice

    @property
    def suffix(self) -> str:
        """The ending of its file, empty for a folder of frames."""
        suffix = PurePosixPath(self.name).suffix.lower()
        return suffix if suffix in FORMS or suffix in VIDEOS else ""


def clips_of(data: Dataset) -> list[Clip]:
    """The clips of a data set in order; none of examples that are no frames."""
    number = data.take("clip")
    if number is None or not len(number):
        return []
    bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(number)]
    names = data.take("names")
    titles = [PurePosixPath(str(names[i])).parent.as_posix() if names is not None else f"{c:05d}"
              for c, i in enumerate(bounds[:-1])]
    return [Clip(title, slice(a, b)) for title, a, b in zip(titles, bounds, bounds[1:],
                                                            strict=False)]


def check_out(path: Path, data: Dataset) -> None:
    """Raise ConfigError for a film that cannot hold what is translated: ask before long work."""
    suffix, clips = path.suffix.lower(), clips_of(data)
    if is_folder(path) or suffix not in {*FORMS, *VIDEOS} - {".png"}:
        return
    if len(clips) != 1:
        count = f"{len(clips):,} clips" if clips else "no frames of a clip"
        raise ConfigError(f"cannot write {path}: {suffix} holds one clip, and there are {count}; "
                          "name a folder/", option="out")


def translate_files(model: Any, data: Dataset, folder: Path, *, to: str = "B",
                    progress: Progress | None = None) -> tuple[int, int]:
    """A PNG for every image, by its name, a film of the same form for every film; how many files
    were written, and how many were there: those are left as they are.

    Frames keep the folders of their clips. Memory holds one block of examples, of a film all of
    one, whatever their number; maps of classes are written as ids.
    """
    into = to_space(model.space, to)
    films = [clip for clip in clips_of(data) if clip.suffix]
    single = np.ones(len(data), bool)
    for clip in films:
        single[clip.frames] = False
    stills = data.subset(np.flatnonzero(single))

    def files(missing: list[int]) -> Iterator[bytes]:
        for block in blocks(model, stills.subset(np.array(missing, np.int64)), to,
                            progress=progress):
            for x in block:
                yield imaging.png(to_ids(x[None], into)[0]) if into.ids else picture(x, into)

    names = file_names(len(stills), stills.take("names"), folders=stills.clip is not None)
    written, kept = write_missing(folder, names, files)
    missing = [clip for clip in films if not (folder / clip.name).exists()]
    for clip in missing:
        translate_film(model, data.subset(clip.frames), folder / clip.name, to=to)
        if progress is not None:
            progress(clip.frames.stop, len(data))
    return written + len(missing), kept + len(films) - len(missing)


def translate_film(model: Any, data: Dataset, target: Path, *, to: str = "B",
                   progress: Progress | None = None) -> None:
    """One clip to one file, whose ending says the form; frames last as long as those given."""
    frames = translated(model, data, to=to, progress=progress)
    durations = data.take("duration")
    each = np.full(len(frames), USUAL) if durations is None else np.asarray(durations, np.float64)
    write_film(target, frames, to_space(model.space, to), each)


def write_film(target: Path, frames: Array, space: Space, durations: Array) -> None:
    """Frames (t, C, H, W) in data units, each shown so many milliseconds.

    A GIF has one palette for all its frames, so that what stays the same keeps its colour.
    """
    rgba = imaging.to_rgba(frames, space.levels)
    if target.suffix.lower() in VIDEOS:
        _write_video(target, imaging.checkerboard(rgba)[..., :3], float(durations.mean()))
        return
    form, buffer = FORMS[target.suffix.lower()], io.BytesIO()
    images = [Image.fromarray(frame if (rgba[..., 3] < 255).any() else frame[..., :3].copy())
              for frame in rgba]
    images = _paletted(images) if form == "GIF" and images[0].mode == "RGB" else images
    lossless: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    images[0].save(buffer, form, save_all=True, append_images=images[1:], loop=0,
                   duration=np.rint(durations).astype(int).tolist(), **lossless)
    write_bytes(target, buffer.getvalue())


def rolled(x: Array, data: Dataset) -> Array:
    """Frames as clips (n, t, \\*shape), where there are clips, all of one length."""
    lengths = {clip.frames.stop - clip.frames.start for clip in clips_of(data)}
    return x.reshape(-1, lengths.pop(), *x.shape[1:]) if len(lengths) == 1 else x


def strips(data: Data, clips: int = 4, frames: int = 8) -> tuple[Data, int]:
    """The first few frames of the first few clips, and how many of each."""
    some = clips_of(first_side(data))[:clips]
    each = min([frames, *(clip.frames.stop - clip.frames.start for clip in some)])
    rows = [np.arange(clip.frames.start, clip.frames.start + each) for clip in some]
    return data.subset(np.concatenate(rows)), each


def _paletted(images: list[Image.Image]) -> list[Image.Image]:
    some = images[::-(-len(images) // PALETTE_OF)]
    sheet = Image.fromarray(np.concatenate([np.asarray(image) for image in some]))
    palette = sheet.quantize(COLOURS, dither=Image.Dither.NONE)
    return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]


def _write_video(target: Path, frames: Array, milliseconds: float) -> None:
    height, width = frames.shape[1:3]
    codec = {"codec": "libvpx-vp9"} if target.suffix.lower() == ".webm" else {}
    ffmpeg = video_library(target.name)
    with whole(target) as part:
        stream = ffmpeg.write_frames(str(part), (width, height), fps=1000 / (milliseconds or USUAL),
                                     macro_block_size=2, **codec)
        stream.send(None)  # it waits for the first frame
        for frame in frames:
            stream.send(np.ascontiguousarray(frame))
        stream.close()
        if not part.exists() or not part.stat().st_size:
            raise RunError(f"cannot save {target}: ffmpeg wrote nothing; choose .mp4")
