"""Frames as a film: GIF, APNG, WebP, or a video by ffmpeg, each frame shown for its own time."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latlas.core.errors import RunError
from latlas.core.files import whole
from latlas.core.space import Space
from latlas.data.clips import VIDEOS, video_library
from latlas.render import imaging

#: how a film is written, by its ending; beyond these are videos
FORMS = {".gif": "GIF", ".apng": "PNG", ".png": "PNG", ".webp": "WEBP"}
#: milliseconds that a frame is shown where nothing says so
FRAME_TIME = 100.0
#: frames that a film's palette is chosen by, at most, and its colours
PALETTE_OF, COLOURS = 16, 256


def write_film(target: Path, frames: NDArray[Any], space: Space, durations: Any = None) -> None:
    """Frames (t, C, H, W) in data units, each shown so many milliseconds, in the form that the
    ending says.

    A GIF has one palette for all its frames, so that what stays the same keeps its colour. A video
    has the mean time. RunError: the file cannot be written.
    """
    times = np.full(len(frames), FRAME_TIME if durations is None else durations, float)
    rgba = imaging.to_rgba(frames, space.levels)
    with whole(target) as part:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix.lower() in VIDEOS:
            _write_video(target, part, imaging.checkerboard(rgba)[..., :3],
                         1000 / (float(times.mean()) or FRAME_TIME))
            return
        form = FORMS[target.suffix.lower()]
        opaque = (rgba[..., 3] == 255).all()
        images = [Image.fromarray(frame[..., :3].copy() if opaque else frame) for frame in rgba]
        if form == "GIF" and opaque:
            some = images[::-(-len(images) // PALETTE_OF)]
            palette = Image.fromarray(np.concatenate([np.asarray(image) for image in some])
                                      ).quantize(COLOURS, dither=Image.Dither.NONE)
            images = [image.quantize(palette=palette, dither=Image.Dither.NONE)
                      for image in images]
        lossless: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
        images[0].save(part, form, save_all=True, append_images=images[1:], loop=0,
                       duration=np.rint(times).astype(int).tolist(), **lossless)


def _write_video(target: Path, part: Path, frames: NDArray[Any], rate: float) -> None:
    """RGB frames (t, H, W, 3), so many a second."""
    height, width = frames.shape[1:3]
    codec = {"codec": "libvpx-vp9"} if target.suffix.lower() == ".webm" else {}
    stream = video_library(target.name).write_frames(
        str(part), (width, height), fps=rate, macro_block_size=2, **codec)
    stream.send(None)  # it waits for the first frame
    for frame in frames:
        stream.send(np.ascontiguousarray(frame))
    stream.close()
    if not part.exists() or not part.stat().st_size:
        raise RunError(f"cannot save {target}: ffmpeg wrote nothing; choose .mp4")
