"""Pixels of one image file (by Pillow) or of an array: modes, depths, size, maps of classes.

Any transparency makes RGBA, any colour RGB, else grey (L); 16-bit grey stays 16-bit. RGB or L of
an image with transparency is laid on white. Images are turned as their EXIF orientation says; of
several frames the first counts. Class ids (mode ``ids``) are the numbers of a grey image or of a
palette, as they stand. The resize rule: shorter side to the size asked for (Lanczos, antialiased),
then centre crop.

A map of classes has one id per pixel in the file and one channel per class for a model: 255 where
a pixel belongs to the class, else 0. ``Images.ids`` keeps the number each channel has in the file.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option
from latlas.core.space import Images, Space
from latlas.data.dataset import Store, chunks

if TYPE_CHECKING:
    from PIL.Image import Image

IDS = "ids"
CHANNELS = {"1": 1, "L": 1, "I;16": 1, IDS: 1, "RGB": 3, "RGBA": 4}
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
TURNED = 5  # EXIF orientations from here on swap width and height
LARGEST_DEFAULT = 256
MOST_IDS, ON = 256, 255


@dataclass(frozen=True)
class Header:
    """What the head of a file says: size after turning, and the mode that keeps everything."""

    width: int
    height: int
    mode: str


def read_header(data: bytes, half: int | None = None) -> Header:
    """Size and mode, of the left or right ``half`` (0, 1), without decoding pixels. Raises what
    Pillow raises."""
    from PIL import Image as pil

    with pil.open(io.BytesIO(data)) as image:
        width, height = image.size
        if image.format in ("JPEG", "MPO", "WEBP") and image.getexif().get(0x0112, 1) >= TURNED:
            width, height = height, width
        start, stop = _span(width, half)
        return Header(stop - start, height, _full_mode(image))


def _span(width: int, half: int | None) -> tuple[int, int]:
    """First and last column of a half, or of the whole."""
    if half is None:
        return 0, width
    if width % 2:
        raise ValueError(f"{width} pixels wide, which is odd: it has no two halves "
                         f"({say_option('pair', 'side')})")
    return half * width // 2, (half + 1) * width // 2


def _full_mode(image: Image) -> str:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return "RGBA"
    if image.mode in DEEP:
        return "I;16"
    if image.mode == "F":
        raise ValueError("floating-point pixels; save them as .npy")
    return image.mode if image.mode in ("1", "L") else "RGB"


def least_mode(image: Image) -> str:
    """``L``, ``RGB`` or ``RGBA``: the least that keeps what is seen, pixel by pixel.

    A frame of a film may come with colours or transparency that none of its pixels has.
    """
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., 3] < 255).any():
        return "RGBA"
    return "L" if (rgba[..., 0] == rgba[..., 1]).all() and (
        rgba[..., 1] == rgba[..., 2]).all() else "RGB"


def has_frames(data: bytes) -> bool:
    """Whether a file holds an image of several frames; false for what is no image."""
    from PIL import Image as pil

    try:
        with pil.open(io.BytesIO(data)) as image:
            return bool(getattr(image, "n_frames", 1) > 1)
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, ...
        return False


def plan(headers: list[Header], size: int | None, mode: str | None) -> tuple[
        tuple[int, int, int], str, int | None, list[str]]:
    """The shape that images get, their mode (by default the least that keeps what every image has),
    the size they are brought to, and what to say."""
    modes = {h.mode for h in headers}
    mode = mode or next(mode for mode in ("RGBA", "RGB", "I;16", "L", "1") if mode in modes)
    sizes, notes = {(h.height, h.width) for h in headers}, []
    if size is None and len(sizes) == 1:
        return (CHANNELS[mode], *sizes.pop()), mode, None, []
    if size is None:
        size = min(int(np.median([min(h.width, h.height) for h in headers])), LARGEST_DEFAULT)
        notes = [f"{len(sizes)} sizes: resized to {size}x{size} (the median shorter "
                 f"side, at most {LARGEST_DEFAULT}); choose with image_size"]
    mode = "L" if mode == "1" else mode
    return (CHANNELS[mode], size, size), mode, size, notes


def decode(data: bytes, mode: str, size: int | None, half: int | None = None) -> NDArray[Any]:
    """Pixels (C, H, W) in one of the modes of ``CHANNELS``. Raises what Pillow raises."""
    from PIL import Image as pil
    from PIL import ImageOps

    with pil.open(io.BytesIO(data)) as image:
        if size and half is None and mode != IDS:
            image.draft(None, (2 * size, 2 * size))  # JPEG: decode at a fraction of the size
        image.load()
        upright = ImageOps.exif_transpose(image)
        if half is not None:
            start, stop = _span(upright.width, half)
            upright = upright.crop((start, 0, stop, upright.height))
        return pixels(upright, mode, size)


def pixels(image: Image, mode: str, size: int | None) -> NDArray[Any]:
    """:func:`decode` of an image that is open and upright."""
    if image.mode == "F":
        raise ValueError("floating-point pixels; save them as .npy")
    if mode == IDS:
        if image.mode not in ("1", "L", "P", *DEEP):
            raise ValueError(f"{image.mode} colours, not class ids; save it in grey or with a "
                             "palette")
        ids = np.asarray(image)[None]
        if ids.min() < 0 or ids.max() > np.iinfo(np.uint8).max:
            raise ValueError(f"class ids up to {ids.max()}; number the classes from 0 to 255")
        ids = ids.astype(np.uint8)
        return ids if size is None else nearest_planes(ids, size)
    image = _converted(image, mode)
    planes = np.asarray(image if size is None else resize_picture(image, size))
    if mode == "I;16":
        planes = np.clip(np.rint(planes), 0, 65535).astype(np.uint16)
    if mode == "1":
        planes = planes.astype(np.uint8)
    return planes[None] if planes.ndim == 2 else np.moveaxis(planes, -1, 0)


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


def resize_picture(image: Image, size: int) -> Image:
    """A Pillow image as size × size: shorter side to ``size``, then the centre."""
    from PIL import Image as pil

    width, height = image.size
    if (width, height) == (size, size):
        return image
    short = min(width, height)
    x, y = (width - short) / 2, (height - short) / 2
    box = (x, y, x + short, y + short)  # what a crop afterwards would keep
    return image.resize((size, size), pil.Resampling.LANCZOS, box=box)


def resize_planes(x: NDArray[Any], size: int) -> NDArray[Any]:
    """Images (n, C, H, W) as (n, C, size, size), plane by plane; integers within their type."""
    from PIL import Image as pil

    if x.shape[2:] == (size, size):
        return x
    planes = x.reshape(-1, *x.shape[2:]).astype(np.float32)
    out = np.stack([np.asarray(resize_picture(pil.fromarray(p), size)) for p in planes])
    out = out if x.dtype.kind == "f" else np.clip(np.rint(out), 0, float(np.iinfo(x.dtype).max))
    return out.reshape(*x.shape[:2], size, size).astype(x.dtype)


def nearest_planes(x: NDArray[Any], size: int) -> NDArray[Any]:
    """Class ids (..., H, W) as (..., size, size): the same cut, the nearest id."""
    height, width = x.shape[-2:]
    short = min(height, width)
    steps = (np.arange(size) + 0.5) * short / size
    rows = ((height - short) / 2 + steps).astype(np.int64)
    columns = ((width - short) / 2 + steps).astype(np.int64)
    return np.ascontiguousarray(x[..., rows[:, None], columns])


def reason(error: Exception) -> str:
    """Why an image cannot be decoded, in one line."""
    text = str(error).split("\n")[0]
    if "cannot identify image file" in text:
        return "not an image, or damaged at its head"
    return text or type(error).__name__


def one_hot(ids: NDArray[Any], store: Store, channels: str | None, name: str) -> tuple[
        NDArray[np.uint8], Images]:
    """Ids (N, 1, H, W) as channels (N, K, H, W) of 0 and 255, in the order of the ids: those in
    ``channels``, commas between, by default those that occur."""
    if ids.ndim != 4 or ids.shape[1] != 1:
        raise DataError(f"{name} holds examples of shape {ids.shape[1:]}; a map of classes has one "
                        "id per pixel (N, H, W)")
    table = np.unique(np.concatenate([np.unique(part) for part in chunks(ids)]))
    if not np.array_equal(table, np.rint(table)) or table[0] < 0 or table[-1] > 65535:
        raise DataError(f"{name} holds numbers from {table[0]:g} to {table[-1]:g}, not class ids; "
                        f"number the classes 0, 1, 2, …, or leave out {say_option('maps')}")
    table = table.astype(np.int64)
    if channels is not None:
        occurring = table
        try:
            table = np.unique([int(part) for part in channels.split(",")])
        except ValueError:
            raise DataError(f"{say_option('ids', channels)} is no list of class ids; write it as "
                            "0,1,2") from None
        strange = np.setdiff1d(occurring, table)
        if len(strange):
            raise DataError(f"{name} holds the class id {strange[0]}, which is none of "
                            f"{say_option('ids', channels)}")
    if len(table) > MOST_IDS:
        raise DataError(f"{name} holds {len(table):,} different class ids, at most {MOST_IDS} are "
                        f"taken; is it an image rather than a map? Then leave out "
                        f"{say_option('maps')}")
    belongs = (part == table[:, None, None].astype(ids.dtype) for part in chunks(ids))
    x = store.gather((len(ids), len(table), *ids.shape[2:]), np.uint8,
                     (part * np.uint8(ON) for part in belongs))
    return x, Images(x.shape[1:], ids=tuple(table.tolist()))


def to_ids(x: NDArray[Any], space: Space) -> NDArray[Any]:
    """Channels (n, K, H, W), of any numbers, as ids (n, H, W) of the likeliest class."""
    kind = np.uint8 if max(space.ids, default=0) < 256 else np.uint16
    return np.array(space.ids, kind)[x.argmax(axis=1)]
