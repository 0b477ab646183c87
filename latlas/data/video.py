"""Frames of video files, by imageio-ffmpeg if it is installed (``pip install latlas[video]``)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from latlas.core.errors import DataError
from latlas.data.files import FILMS, Files

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = FILMS - {".apng", ".gif"}


def library(name: str) -> Any:
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


def frames(files: Files, name: str) -> Iterator[tuple[Image, float]]:
    """RGB frames of a video, and how many milliseconds each is shown.

    Raises:
        DataError: the reader is not installed, or the video lies in a zip.
    """
    from PIL import Image as pil

    ffmpeg = library(name)
    if files.archive is not None:
        raise DataError(f"{files.path}: {name} is a video in a zip; unpack it first")
    stream = ffmpeg.read_frames(str(files.root / name))
    try:
        about = next(stream)
        for raw in stream:
            yield pil.frombytes("RGB", about["size"], raw), 1000 / about["fps"]
    finally:
        stream.close()
