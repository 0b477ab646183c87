"""One picture file to pixels, by Pillow: modes, depths, orientation, transparency.

Any transparency makes RGBA, any colour RGB, else grey (L); 16-bit grey stays 16-bit. A picture
with transparency that is asked for as RGB or L is laid on white. Pictures are turned as their EXIF
orientation says. Of a file with several frames the first counts.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.data.resize import resize_picture

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS = {"1": 1, "L": 1, "I;16": 1, "RGB": 3, "RGBA": 4}
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
TURNED = 5  # EXIF orientations from here on swap width and height


@dataclass(frozen=True)
class Header:
    """What the head of a file says: size after turning, and the mode that keeps everything."""

    width: int
    height: int
    mode: str


def read_header(data: bytes) -> Header:
    """Size and mode, without decoding pixels. Raises what Pillow raises."""
    from PIL import Image as pil

    with pil.open(io.BytesIO(data)) as image:
        width, height = image.size
        if image.format in ("JPEG", "MPO", "WEBP") and _orientation(image) >= TURNED:
            width, height = height, width
        return Header(width, height, _full_mode(image))


def _orientation(image: Image) -> int:
    return int(image.getexif().get(0x0112, 1))


def _full_mode(image: Image) -> str:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return "RGBA"
    if image.mode in DEEP:
        return "I;16"
    if image.mode == "F":
        raise ValueError("floating-point pixels; save them as .npy")
    return image.mode if image.mode in ("1", "L") else "RGB"


def common_mode(headers: list[Header]) -> str:
    """The least mode that keeps what every picture has."""
    modes = {h.mode for h in headers}
    order = ("RGBA", "RGB", "I;16", "L", "1")
    return next(mode for mode in order if mode in modes)


def decode(data: bytes, mode: str, size: int | None) -> NDArray[Any]:
    """Pixels (C, H, W) in one of the modes of ``CHANNELS``. Raises what Pillow raises."""
    from PIL import Image as pil
    from PIL import ImageOps

    with pil.open(io.BytesIO(data)) as image:
        if size:
            image.draft(None, (2 * size, 2 * size))  # JPEG: decode at a fraction of the size
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F":
            raise ValueError("floating-point pixels; save them as .npy")
        converted = _converted(upright, mode)
    small = converted if size is None else resize_picture(converted, size)
    return _planes(small, mode)


def _converted(image: Image, mode: str) -> Image:
    from PIL import Image as pil

    if image.mode in DEEP:
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        if mode == "I;16":
            return pil.fromarray(deep.astype(np.float32))  # Pillow resizes floats, not 16 bit
        image = pil.fromarray((deep >> 8).astype(np.uint8))
    elif mode == "I;16":
        return pil.fromarray(np.asarray(image.convert("L")).astype(np.float32) * 257)
    if mode in ("L", "RGB") and _full_mode(image) == "RGBA":
        rgba = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", rgba.size, "white"), rgba)
    return image if image.mode == mode else image.convert(mode)


def _planes(image: Image, mode: str) -> NDArray[Any]:
    pixels = np.asarray(image)
    if mode == "I;16":
        pixels = np.clip(np.rint(pixels), 0, 65535).astype(np.uint16)
    if mode == "1":
        pixels = pixels.astype(np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
