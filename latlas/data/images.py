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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
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
ORIENTATION, TURNED = 0x0112, range(5, 9)  # the EXIF tag; these swap width and height
#: formats whose head says mode and orientation, and the size before turning
HEADS = ("AVIF", "JPEG", "MPO", "PNG", "WEBP")
#: where a PNG may keep an orientation; Pillow decodes all of one that has none to look for it
PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
AVIF = (b"avif", b"avis")
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
LARGE, SHARE = 89_478_485, 4  # pixels that Pillow warns of; part of the memory an image may take
MOST_IDS, ON = 256, 255
MODES, LARGEST_DEFAULT = ("L", "RGB", "RGBA"), 256
Size = tuple[int, int]  # height and width
_lock = threading.RLock()


class Header(NamedTuple):
    """What a file says: size after turning, the mode that keeps everything, once decoded whether
    there are further frames, and of a frame of a clip its milliseconds."""

    width: int
    height: int
    mode: str
    more: bool = False
    duration: float = 0


class Fit(dict[str, tuple[str | None, Size]]):
    """Mode (``None``: the least that keeps all) and size of a run's examples, by their sides."""

    def of(self, side: str) -> tuple[str | None, Size]:
        """Those of a side, or of the first where that one is not named."""
        return self[side] if side in self else next(iter(self.values()))


def fit_of(spaces: dict[str, Space]) -> Fit:
    """What the images of a run, by their sides, are brought to."""
    fit = Fit()
    for side, space in spaces.items():
        if isinstance(space, Images) and space.sound is None:
            modes = {1: {k: m for m, k in LEVELS.items()}.get(space.levels or 0, "L"), 3: "RGB",
                     4: "RGBA"}
            mode = None if space.ids else modes.get(space.shape[0])
            fit[side] = mode, (space.shape[1], space.shape[2])
    return fit


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        mode: ``L``, ``RGB`` or ``RGBA``; by default the least that keeps what the files hold.
        label: a column of the attribute table; ``none`` for no labels. Of two sides it is of A.
        attributes: the attribute table, if it is not beside the images.
        on_error: ``raise`` (after all were tried) or ``skip``.
        fit: of a run, what its examples are; it goes before size and mode.
        frames: sub-folders, GIFs and the like are clips (:mod:`latlas.data.clips`), of ``rate``
            frames per second where nothing says so.
    """

    image_size: int | None = None
    mode: str | None = None
    label: str | None = None
    attributes: str | None = None
    on_error: str = "raise"
    levels: int | None = None
    fit: Fit | None = None
    frames: bool | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in (None, *MODES):
            raise DataError(unknown("mode", str(self.mode), MODES))
        if self.on_error not in ("raise", "skip"):
            raise DataError(unknown("on_error", self.on_error, ["raise", "skip"]))
        if self.image_size is not None and self.image_size < 1:
            raise DataError(f"{say_option('image_size', self.image_size)} is not a size; give at "
                            "least 1")
        if self.rate is not None and not 0 < self.rate <= 1000:
            raise DataError(f"{say_option('rate', f'{self.rate:g}')} is no number of frames per "
                            "second; give one over 0, at most 1,000")

    def plan(self, headers: Callable[[], list[Header]], side: str, maps: bool) -> tuple[
            str, Size, list[str]]:
        """Mode and size of all images, and what to say. Unless options or the run say so, these are
        the least mode that keeps what every image has, and their size or the median shorter side.
        ``headers`` are read if they are needed."""
        mode, size = self.fit.of(side) if self.fit else (None, None)
        mode = IDS if maps else mode or self.mode
        if size is None and self.image_size is not None:
            size = self.image_size, self.image_size
        if mode and size:
            return mode, size, []
        heads = headers()
        sizes, modes = [(h.height, h.width) for h in heads], {h.mode for h in heads}
        mode = mode or next(mode for mode in ("RGBA", "RGB", "I;16", "L", "1") if mode in modes)
        if size is None and len({*sizes}) == 1:
            return mode, sizes[0], []
        mode = "L" if mode == "1" else mode  # grey levels between ink and paper
        if size is not None:
            return mode, size, []
        shorter = min(int(np.median([min(size) for size in sizes])), LARGEST_DEFAULT)
        return mode, (shorter, shorter), [
            f"{len({*sizes})} sizes: resized to {shorter}x{shorter} (the median shorter side, at "
            f"most {LARGEST_DEFAULT}); {say_option('image_size', 'N')} chooses another"]

    def changes(self, headers: list[Header], size: Size | None, mode: str) -> list[str]:
        """What is said of images that were brought to a size, or to a mode that was asked for or
        that others have."""
        moded = mode != IDS and (self.fit or self.mode or len({h.mode for h in headers}) > 1)
        groups: dict[str, list[Header]] = {}
        for h in headers:
            resized, converted = size not in (None, (h.height, h.width)), moded and mode != h.mode
            words = [f"resized to {size[1]}x{size[0]}"] if size and resized else []
            words += [f"converted to {WORDS.get(mode, mode)}"] if converted else []
            groups.setdefault(" and ".join(words), []).append(h)
        groups.pop("", None)
        notes = []
        for change, some in groups.items():
            sizes, n = sorted({f"{h.width}x{h.height}" for h in some}), len(some)
            several = len(sizes) > 1
            of = [f"{len(sizes):,} sizes" if several else sizes[0]] * ("resized" in change)
            of += [" or ".join(sorted({WORDS.get(h.mode, h.mode) for h in some}))] * (
                "converted" in change)
            notes.append(f"{n:,} image{'s' * (n > 1)} of {(' and ' if several else ' ').join(of)} "
                         f"{'were' if n > 1 else 'was'} {change}")
        if mode == "RGBA" and moded and not (self.fit or self.mode):
            notes.append("some images are transparent, so all are read with transparency; "
                         f"{say_option('mode', 'RGB')} leaves it out")
        return notes

    def in_levels(self, x: NDArray[Any], mode: str, name: Any) -> tuple[NDArray[Any], Images]:
        """Pixels and their space, of the levels that were asked for."""
        own = LEVELS.get(mode, 256)
        levels = own if self.levels is None else self.levels
        if levels != own and not (1 if mode == "1" else int(x.max())) < levels <= 65536:
            raise DataError(f"{name}: {say_option('levels', levels)}, but the largest pixel value "
                            f"is {x.max()}")
        if levels != own and mode == "1":  # ink and paper are the ends of any range
            x = (x > 0) * (np.uint8 if levels <= 256 else np.uint16)(levels - 1)
        return x, Images(x.shape[1:], levels)


@contextmanager
def opened(data: bytes) -> Iterator[Image]:
    """An image that is open, but not decoded; one that is very large has others wait for it.
    Raises what Pillow raises."""
    from PIL import Image as pil
    from PIL import features

    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in AVIF and not features.check("avif"):
        raise ValueError("AVIF needs Pillow 11.3 or later (pip install -U pillow)")
    if brand in HEIF:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise ValueError("HEIF needs pillow-heif (pip install 'latlas[heif]')") from None
        register_heif_opener()
    with _unlimited():
        image = pil.open(io.BytesIO(data))
    with image:
        width, height = image.size
        need = width * height * (1 if len(image.getbands()) == 1 and image.mode != "I" else 4)
        if need > available_memory() / SHARE:
            raise ValueError(f"{width}x{height} pixels take {need / 1e9:.3g} GB of memory, more "
                             "than there is for one image; make it smaller")
        with _unlimited() if width * height > LARGE else nullcontext():
            yield image


@contextmanager
def _unlimited() -> Iterator[None]:
    """Pillow without its limit on pixels, which is one for all threads: one at a time."""
    from PIL import Image as pil

    with _lock:
        limit, pil.MAX_IMAGE_PIXELS = pil.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            pil.MAX_IMAGE_PIXELS = limit


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """What Pillow raises as a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # OSError, SyntaxError, ValueError, ...
        reason = str(error).split("\n")[0] or type(error).__name__
        if "cannot identify image file" in reason:
            reason = "not an image, or damaged at its head"
        raise DataError(f"{name} cannot be decoded: {reason}") from None


def read_header(data: bytes, half: int | None = None) -> Header:
    """Size and mode, of the left or right ``half`` (0, 1), without decoding pixels where the head
    of the file says both. Raises what Pillow raises."""
    from PIL import ImageOps

    with opened(data) as image:
        if image.format in HEADS:
            marked = image.format != "PNG" or any(mark in data for mark in PNG_EXIF)
            turned = marked and image.getexif().get(ORIENTATION) in TURNED
            size = image.size[::-1] if turned else image.size
        else:
            image.load()
            size = ImageOps.exif_transpose(image).size
        start, stop = columns_of(size[0], half)
        return Header(stop - start, size[1], full_mode(image))


def columns_of(width: int, half: int | None) -> tuple[int, int]:
    """First column, and the one after the last, of a half or of the whole."""
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


def decode(data: bytes, mode: str, size: Size | None = None, half: int | None = None) -> tuple[
        NDArray[Any], Header]:
    """Pixels (C, H, W) in one of the modes of ``CHANNELS``, and what the file said. Raises what
    Pillow raises."""
    from PIL import ImageOps

    with opened(data) as image:
        whole = image.size
        if size and half is None and mode != IDS:
            image.draft(None, (2 * max(size), 2 * max(size)))  # JPEG: at a fraction of the size
        drafted = image.size != whole
        turned = drafted and image.getexif().get(ORIENTATION) in TURNED
        image.load()
        upright = ImageOps.exif_transpose(image)
        if half is not None:
            start, stop = columns_of(upright.width, half)
            upright = upright.crop((start, 0, stop, upright.height))
        width, height = upright.size if not drafted else whole[::-1] if turned else whole
        more = image.format != "MPO" and getattr(image, "is_animated", False)  # MPO: previews
        return pixels(upright, mode, size), Header(width, height, full_mode(image), more)


def pixels(image: Image, mode: str, size: Size | None) -> NDArray[Any]:
    """Pixels (C, H, W) of an image that is open and upright."""
    from PIL import Image as pil

    full, deep, largest = full_mode(image), mode == "I;16", 255 if mode == IDS else 65535
    if mode == IDS and image.mode not in ("1", "L", "P", *DEEP):
        raise ValueError(f"{image.mode} colours, not class ids; save it in grey or with a palette")
    if mode == IDS or full == "I;16":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > largest:
            raise ValueError(f"whole numbers from {values.min()} to {values.max()}; "
                             f"{WORDS[IDS if mode == IDS else full]} goes from 0 to {largest}")
        image = pil.fromarray(values.astype(np.float32) if deep else
                              (values if mode == IDS else values >> 8).astype(np.uint8))
    elif full == "RGBA" != mode:
        rgba = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", rgba.size, "white"), rgba)
    if not deep:
        image = image.convert({"1": "L", IDS: "L"}.get(mode, mode))
    elif full != "I;16":
        image = pil.fromarray(np.asarray(image.convert("L")).astype(np.float32) * 257)
    planes = np.asarray(resize(image, size, nearest=mode == IDS))
    if deep:
        planes = np.clip(np.rint(planes), 0, 65535).astype(np.uint16)  # Lanczos' filter overshoots
    if mode == "1":
        planes = (planes >= ON / 2).astype(np.uint8)
    return planes[None] if planes.ndim == 2 else np.moveaxis(planes, -1, 0)


def resize(image: Image, size: Size | None, nearest: bool = False) -> Image:
    """The largest centre in the proportions of a size (height, width), brought to that size by the
    ``nearest`` pixels or by Lanczos' filter."""
    from PIL.Image import Resampling

    if size is None or image.size == size[::-1]:
        return image
    (width, height), (high, wide) = image.size, size
    across, down = min(width, height * wide / high), min(height, width * high / wide)
    x, y = (width - across) / 2, (height - down) / 2
    return image.resize((wide, high), Resampling.NEAREST if nearest else Resampling.LANCZOS,
                        box=(x, y, x + across, y + down))


def resize_planes(x: NDArray[Any], size: int, nearest: bool = False) -> NDArray[Any]:
    """Images (n, C, H, W) as (n, C, size, size), plane by plane; integers within their type."""
    from PIL import Image as pil

    if x.shape[2:] == (size, size):
        return x
    planes = x.reshape(-1, *x.shape[2:]).astype(np.float32)
    out = np.stack([np.asarray(resize(pil.fromarray(p), (size, size), nearest)) for p in planes])
    if x.dtype.kind != "f":
        out = np.clip(np.rint(out), 0, float(np.iinfo(x.dtype).max))
    return out.reshape(*x.shape[:2], size, size).astype(x.dtype)


def to_levels(x: NDArray[Any], old: int, new: int) -> NDArray[Any]:
    """Integers 0 … old−1 as 0 … new−1, by the value range; 16 bits become 8 as Pillow does it."""
    if (old, new) == (65536, 256):
        return (x >> 8).astype(np.uint8)
    kind = np.uint8 if new <= 256 else np.uint16
    table = np.rint(np.arange(old) * ((new - 1) / (old - 1)))
    return table.astype(kind)[x.astype(np.int64)]


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
