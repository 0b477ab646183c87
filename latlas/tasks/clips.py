"""Translated clips, each in the form and at the rate of what it was made of."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from latlas.core.errors import ConfigError, RunError
from latlas.core.space import Space
from latlas.data.clips import VIDEOS, video_library
from latlas.data.dataset import Dataset
from latlas.data.pairs import Data, first_side
from latlas.report import pictures
from latlas.tasks.common import Array, Progress
from latlas.tasks.output import is_folder, whole, write_bytes
from latlas.tasks.translate import Translated, made_for, translate, translate_files

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
        found = PurePosixPath(self.name).suffix.lower()
        return found if found in FORMS or found in VIDEOS else ""


def clips_of(data: Dataset) -> list[Clip]:
    """The clips of a data set in order; none of items that are no frames."""
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
        held = f"{len(clips):,} clips" if clips else "no frames of a clip"
        raise ConfigError(f"cannot write {path}: {suffix} holds one clip, and there are {held}; "
                          "name a folder/")


def translate_clips(model: Any, data: Dataset, folder: Path, *, to: str = "B",
                    progress: Progress | None = None) -> Translated:
    """Stills into folders of the same names, frame by frame; films into films of the same form.

    Memory holds some frames, of a film all of one. What is there already is left as it is.
    """
    clips = clips_of(data)
    films = [clip for clip in clips if clip.suffix]
    stills = np.ones(len(data), bool)
    for clip in films:
        stills[clip.frames] = False
    done = translate_files(model, data.subset(np.flatnonzero(stills)), folder, to=to,
                           progress=progress)
    missing = [clip for clip in films if not (folder / clip.name).exists()]
    for clip in missing:
        translate_film(model, data.subset(clip.frames), folder / clip.name, to=to)
        if progress is not None:
            progress(clip.frames.stop, len(data))
    return Translated(done.written + len(missing), done.found + len(films) - len(missing))


def translate_film(model: Any, data: Dataset, target: Path, *, to: str = "B",
                   progress: Progress | None = None) -> None:
    """One clip to one file, whose ending says the form; frames are shown as long as given."""
    made = translate(model, data, to=to, progress=progress)
    durations = data.take("duration")
    shown = np.full(len(made), USUAL) if durations is None else np.asarray(durations, np.float64)
    write_film(target, made, made_for(model.space, to), shown)


def write_film(target: Path, frames: Array, space: Space, durations: Array) -> None:
    """Frames (t, C, H, W) in data units, each shown so many milliseconds.

    A GIF has one palette for all its frames, so that what stays the same keeps its colour.
    """
    rgba = pictures.to_rgba(frames, space.levels)
    if target.suffix.lower() in VIDEOS:
        _write_video(target, pictures.checkerboard(rgba)[..., :3], float(durations.mean()))
        return
    form, buffer = FORMS[target.suffix.lower()], io.BytesIO()
    images = [Image.fromarray(frame if (rgba[..., 3] < 255).any() else frame[..., :3].copy())
              for frame in rgba]
    images = _paletted(images) if form == "GIF" and images[0].mode == "RGB" else images
    lossless: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    images[0].save(buffer, form, save_all=True, append_images=images[1:], loop=0,
                   duration=np.rint(durations).astype(int).tolist(), **lossless)
    write_bytes(target, buffer.getvalue())


def rolled(made: Array, data: Dataset) -> Array:
    """Frames as clips (n, t, \\*shape), where there are clips, all of one length."""
    lengths = {clip.frames.stop - clip.frames.start for clip in clips_of(data)}
    return made.reshape(-1, lengths.pop(), *made.shape[1:]) if len(lengths) == 1 else made


def strips(data: Data, clips: int = 4, frames: int = 8) -> tuple[Data, int]:
    """The first few frames of the first few clips, and how many of each."""
    found = clips_of(first_side(data))[:clips]
    each = min([frames, *(clip.frames.stop - clip.frames.start for clip in found)])
    rows = [np.arange(clip.frames.start, clip.frames.start + each) for clip in found]
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
