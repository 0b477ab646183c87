"""Pixels of images: what a file holds, by Pillow, upright and in one mode and size.

Any transparency makes RGBA, any colour RGB, else grey (L); 16-bit grey stays 16-bit. RGB or L of
an image with transparency is laid on white. Images are turned as their EXIF orientation says; of
several frames the first counts. Class ids (mode ``ids``) are the numbers of a grey image or of a
palette, as they stand. A resize takes the centre in the proportions that are wanted, by Lanczos'
filter. Another number of levels is reached by the value range: black stays black, white white.

A map of classes has one id per pixel in the file and one channel per class for a model: 255 where
a pixel belongs to the class, else 0. ``Images.ids`` keeps the number each channel has in the file.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option
from latlas.core.space import Images, Space
from latlas.data.dataset import Store, available_memory, chunks

if TYPE_CHECKING:
    from PIL.Image import Image

IDS = "ids"
CHANNELS = {"1": 1, "L": 1, "I;16": 1, IDS: 1, "RGB": 3, "RGBA": 4}
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
#: what the modes are called, and how many levels they have if not 256
WORDS = {"1": "1-bit", "L": "8-bit grey", "I;16": "16-bit grey", IDS: "class ids"}
LEVELS = {"1": 2, "I;16": 65536}
ORIENTATION, TURNED = 0x0112, 5  # the EXIF tag; from here on width and height are swapped
#: formats whose head says size and mode, and those of which it says the size before turning
HEADS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
TURNS = ("AVIF", "JPEG", "MPO", "PNG", "WEBP")
#: where a PNG may keep an orientation; Pillow decodes all of one that has none to look for it
PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
LARGEST_DEFAULT = 256
LARGE, SHARE = 89_478_485, 4  # pixels that Pillow warns of; part of the memory an image may take
MOST_IDS, ON = 256, 255
Size = tuple[int, int]  # height and width
_one_large, _guard, _openings = threading.RLock(), threading.Lock(), [0, None]


class Header(NamedTuple):
    """What a file says: size after turning, the mode that keeps everything, and, once decoded,
    whether there are further frames."""

    width: int
    height: int
    mode: str
    more: bool = False


@contextmanager
def opened(data: bytes) -> Iterator[Image]:
    """An image that is open, but not decoded; one that is very large has others wait for it.
    Raises what Pillow raises."""
    from PIL import Image as pil

    _register(data)
    with _unlimited():
        image = pil.open(io.BytesIO(data))
    with image:
        width, height = image.size
        need = width * height * (1 if len(image.getbands()) == 1 and image.mode != "I" else 4)
        if need > available_memory() / SHARE:
            raise ValueError(f"{width}x{height} pixels take {need / 1e9:.3g} GB of memory, more "
                             "than there is for one image; make it smaller")
        with _one_large if width * height > LARGE else nullcontext(), _unlimited():
            yield image


@contextmanager
def _unlimited() -> Iterator[None]:
    """Pillow's own limit on pixels is not asked, in any thread."""
    from PIL import Image as pil

    with _guard:
        if not _openings[0]:
            _openings[1], pil.MAX_IMAGE_PIXELS = pil.MAX_IMAGE_PIXELS, None
        _openings[0] += 1  # type: ignore[operator]
    try:
        yield
    finally:
        with _guard:
            _openings[0] -= 1  # type: ignore[operator]
            if not _openings[0]:
                pil.MAX_IMAGE_PIXELS = _openings[1]


def _register(data: bytes) -> None:
    """Have Pillow know HEIF if the data are; ValueError if it cannot read them."""
    from PIL import features

    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis") and not features.check("avif"):
        raise ValueError("AVIF needs Pillow 11.3 or later (pip install -U pillow)")
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise ValueError("HEIF needs pillow-heif (pip install 'latlas[heif]')") from None
        register_heif_opener()


def read_header(data: bytes, half: int | None = None) -> Header:
    """Size and mode, of the left or right ``half`` (0, 1), without decoding pixels where the head
    of the file says both. Raises what Pillow raises."""
    from PIL import ImageOps

    with opened(data) as image:
        width, height = image.size
        known = image.format in HEADS
        if known and (image.format != "PNG" or any(mark in data for mark in PNG_EXIF)):
            turn = image.getexif().get(ORIENTATION, 1)
            known = turn == 1 or image.format in TURNS
            if known and turn in range(TURNED, 9):
                width, height = height, width
        if known:
            mode = full_mode(image)
        else:
            image.load()
            mode = full_mode(image)
            width, height = ImageOps.exif_transpose(image).size
        start, stop = _span(width, half)
        return Header(stop - start, height, mode)


def _span(width: int, half: int | None) -> tuple[int, int]:
    """First and last column of a half, or of the whole."""
    if half is None:
        return 0, width
    if width % 2:
        raise ValueError(f"{width} pixels wide, which is odd: it has no two halves "
                         f"({say_option('pair', 'side')})")
    return half * width // 2, (half + 1) * width // 2


def full_mode(image: Image) -> str:
    """The mode of those we know that keeps all that an image holds."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return "RGBA"
    if image.mode in DEEP:
        return "I;16"
    if image.mode == "F":
        raise ValueError("floating-point pixels; save them as .npy")
    return image.mode if image.mode in ("1", "L") else "RGB"


def plan(headers: list[Header], size: int | None, mode: str | None) -> tuple[
        tuple[int, int, int], str, Size | None, list[str]]:
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
    return (CHANNELS[mode], size, size), mode, (size, size), notes


def changes(headers: list[Header], size: Size | None, mode: str) -> list[str]:
    """What is said of images that are brought to another size or mode."""
    resized = [size is not None and (h.height, h.width) != size for h in headers]
    converted = [mode not in (h.mode, IDS) for h in headers]
    to_size = "" if size is None else f"resized to {size[1]}x{size[0]}"
    to_mode = f"converted to {WORDS.get(mode, mode)}"
    if any(resized) and resized == converted:
        return [_told(headers, resized, True, True, f"{to_size} and {to_mode}")]
    return [_told(headers, which, which is resized, which is converted, what)
            for which, what in ((resized, to_size), (converted, to_mode)) if any(which)]


def _told(headers: list[Header], which: list[bool], size: bool, mode: bool, what: str) -> str:
    """One sentence about those ``which`` are changed."""
    some = [h for h, changed in zip(headers, which, strict=True) if changed]
    sizes, modes = {(h.width, h.height) for h in some}, {h.mode for h in some}
    words = []
    if size:
        width, height = next(iter(sizes))
        words.append(f"{width}x{height}" if len(sizes) == 1 else f"{len(sizes):,} sizes")
    if mode:
        words.append(" or ".join(sorted(WORDS.get(m, m) for m in modes)))
    n, of = len(some), (" " if len(sizes) == 1 else " and ").join(words)
    return f"{n:,} image{'s' * (n > 1)} of {of} {'were' if n > 1 else 'was'} {what}"


def decode(data: bytes, mode: str, size: Size | None, half: int | None = None) -> tuple[
        NDArray[Any], Header]:
    """Pixels (C, H, W) in one of the modes of ``CHANNELS``, and what the file said. Raises what
    Pillow raises."""
    from PIL import ImageOps

    with opened(data) as image:
        whole = image.size
        if size and half is None and mode != IDS:
            image.draft(None, (2 * max(size), 2 * max(size)))  # JPEG: at a fraction of the size
        drafted = image.size != whole
        turned = drafted and image.getexif().get(ORIENTATION, 1) in range(TURNED, 9)
        image.load()
        upright = ImageOps.exif_transpose(image)
        if half is not None:
            start, stop = _span(upright.width, half)
            upright = upright.crop((start, 0, stop, upright.height))
        width, height = upright.size if not drafted else whole[::-1] if turned else whole
        more = image.format != "MPO" and getattr(image, "is_animated", False)  # MPO: previews
        header = Header(width, height, full_mode(image), more)
        return pixels(upright, mode, size), header


def pixels(image: Image, mode: str, size: Size | None) -> NDArray[Any]:
    """Pixels of an image that is open and upright."""
    if mode == IDS:
        return _class_ids(image, size)
    image = _plain(image, mode)
    planes = np.asarray(image if size is None else resize_picture(image, size))
    if mode == "I;16":
        planes = np.clip(np.rint(planes), 0, 65535).astype(np.uint16)  # Lanczos' filter overshoots
    if mode == "1":
        planes = (planes >= ON / 2).astype(np.uint8)
    return planes[None] if planes.ndim == 2 else np.moveaxis(planes, -1, 0)


def _plain(image: Image, mode: str) -> Image:
    """An image in ``L``, ``RGB`` or ``RGBA``; for ``1`` in L, for ``I;16`` in floats that can be
    resized."""
    from PIL import Image as pil

    deep = mode == "I;16"
    plain = "L" if mode in ("1", "I;16") else mode
    if full_mode(image) == "I;16":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"whole numbers from {values.min()} to {values.max()}; bring them to "
                             "16 bits, 0 to 65535")
        image = pil.fromarray(values.astype(np.float32) if deep else
                              (values >> 8).astype(np.uint8))
        return image if deep or plain == "L" else image.convert(plain)
    if plain in ("L", "RGB") and full_mode(image) == "RGBA":
        rgba = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", rgba.size, "white"), rgba)
    image = image if image.mode == plain else image.convert(plain)
    return pil.fromarray(np.asarray(image).astype(np.float32) * 257) if deep else image


def _class_ids(image: Image, size: Size | None) -> NDArray[np.uint8]:
    if image.mode not in ("1", "L", "P", *DEEP):
        raise ValueError(f"{image.mode} colours, not class ids; save it in grey or with a palette")
    ids = np.asarray(image)[None]
    if ids.min() < 0 or ids.max() > np.iinfo(np.uint8).max:
        raise ValueError(f"class ids up to {ids.max()}; number the classes from 0 to 255")
    ids = ids.astype(np.uint8)
    return ids if size is None else nearest_planes(ids, size)


def to_levels(x: NDArray[Any], old: int, new: int) -> NDArray[Any]:
    """Integers 0 … old−1 as 0 … new−1, by the value range; 16 bits become 8 as Pillow does it."""
    if (old, new) == (65536, 256):
        return (x >> 8).astype(np.uint8)
    kind = np.uint8 if new <= 256 else np.uint16
    table = np.rint(np.arange(old) * ((new - 1) / (old - 1)))
    return table.astype(kind)[x.astype(np.int64)]


def reason(error: Exception) -> str:
    """Why an image cannot be decoded, in one line."""
    text = str(error).split("\n")[0]
    if "cannot identify image file" in text:
        return "not an image, or damaged at its head"
    return text or type(error).__name__


def resize_picture(image: Image, size: int | Size) -> Image:
    """A Pillow image as (height, width), or as size × size: the largest centre of these
    proportions, resized."""
    from PIL import Image as pil

    high, wide = (size, size) if isinstance(size, int) else size
    if image.size == (wide, high):
        return image
    x, y, width, height = _centre(*image.size, high, wide)
    return image.resize((wide, high), pil.Resampling.LANCZOS, box=(x, y, x + width, y + height))


def _centre(width: int, height: int, high: int, wide: int) -> tuple[float, float, float, float]:
    """Left, top, width and height of the largest centre in the proportions of high × wide."""
    across, down = (float(width), width * high / wide) if width * high <= height * wide else (
        height * wide / high, float(height))
    return (width - across) / 2, (height - down) / 2, across, down


def resize_planes(x: NDArray[Any], size: int) -> NDArray[Any]:
    """Images (n, C, H, W) as (n, C, size, size), plane by plane; integers within their type."""
    from PIL import Image as pil

    if x.shape[2:] == (size, size):
        return x
    planes = x.reshape(-1, *x.shape[2:]).astype(np.float32)
    out = np.stack([np.asarray(resize_picture(pil.fromarray(p), size)) for p in planes])
    out = out if x.dtype.kind == "f" else np.clip(np.rint(out), 0, float(np.iinfo(x.dtype).max))
    return out.reshape(*x.shape[:2], size, size).astype(x.dtype)


def nearest_planes(x: NDArray[Any], size: int | Size) -> NDArray[Any]:
    """Class ids (..., H, W) as (..., height, width): the same cut, the nearest id."""
    high, wide = (size, size) if isinstance(size, int) else size
    left, top, width, height = _centre(x.shape[-1], x.shape[-2], high, wide)
    rows = (top + (np.arange(high) + 0.5) * height / high).astype(np.int64)
    columns = (left + (np.arange(wide) + 0.5) * width / wide).astype(np.int64)
    return np.ascontiguousarray(x[..., rows[:, None], columns])


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
