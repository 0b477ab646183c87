"""Images in files, by Pillow: one, or those of a folder or zip, of one side or of two.

Any transparency makes RGBA, any colour RGB, else grey (L); 16-bit grey stays 16-bit. RGB or L of
an image with transparency is laid on white. Images are turned as their EXIF orientation says; of
several frames the first counts. Class ids (mode ``ids``) are the numbers of a grey image or of a
palette, as they stand. Images of one size keep it; otherwise each is resized (shorter side, by
Lanczos' filter, then centre crop) to ``image_size``, by default the median shorter side, at most
256. Equal files share a group. Sub-folders are splits, classes and sides; with ``pair=side`` every
file is a pair, A its left half and B its right one. ``label=COLUMN`` takes labels from an attribute
table instead.

A map of classes has one id per pixel in the file and one channel per class for a model: 255 where
a pixel belongs to the class, else 0. ``Images.ids`` keeps the number each channel has in the file.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import Images, Space
from latlas.data.dataset import Dataset, Source, Store, chunks, make
from latlas.data.files import Files, complaint, matched, same_group, two_sides
from latlas.data.tables import annotated

if TYPE_CHECKING:
    from PIL.Image import Image

IDS = "ids"
CHANNELS = {"1": 1, "L": 1, "I;16": 1, IDS: 1, "RGB": 3, "RGBA": 4}
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
TURNED = 5  # EXIF orientations from here on swap width and height
LARGEST_DEFAULT = 256
PIECE = 32  # images one thread takes at a time
MOST_IDS, ON = 256, 255


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        mode: ``L``, ``RGB`` or ``RGBA``; by default the least that keeps what the files hold.
        label: a column of the attribute table; ``none`` for no labels. Of two sides it is of A.
        attributes: the attribute table, if it is not beside the images.
        on_error: ``raise`` (after all were tried, naming the first) or ``skip``.
    """

    image_size: int | None = None
    mode: str | None = None
    label: str | None = None
    attributes: str | None = None
    on_error: str = "raise"
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in (None, "L", "RGB", "RGBA"):
            raise DataError(unknown("mode", str(self.mode), ["L", "RGB", "RGBA"]))
        if self.on_error not in ("raise", "skip"):
            raise DataError(unknown("on_error", self.on_error, ["raise", "skip"]))
        if self.image_size is not None and self.image_size < 1:
            raise DataError(f"{say_option('image_size', self.image_size)} is not a size; give at "
                            "least 1")


@dataclass(frozen=True)
class FolderReading(Reading):
    """How a place of images is read.

    Attributes:
        frames: sub-folders, GIFs and the like are clips (:mod:`latlas.data.clips`), of ``rate``
            frames per second where nothing says so.
    """

    frames: bool | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate is not None and not 0 < self.rate <= 1000:
            raise DataError(f"{say_option('rate', f'{self.rate:g}')} is no number of frames per "
                            "second; give one over 0, at most 1,000")


def open_images(path: Path, *, how: FolderReading) -> ImageFiles:
    """The images of a folder or zip."""
    return ImageFiles(Files(path), how)


def open_two_folders(a: Path, b: Path, *, how: Reading) -> tuple[ImageFiles, ImageFiles]:
    """Pairs in two folders or zips of images with equal names."""
    one, two = Files(a).without_head(), Files(b).without_head()
    return ImageFiles(one, how), ImageFiles(matched(one, two, f"{a} and {b}"), how)


class ImageFiles:
    """The images of one side of a place, or the left or right ``half`` (0, 1) of each; ``errors``
    holds what is wrong with some, by position."""

    def __init__(self, files: Files, how: Reading, half: int | None = None) -> None:
        self.files, self.how, self.half = files, how, half
        self.errors: dict[int, str] = {}
        if not files.stored:
            data = (".npz", ".npy", ".csv", ".tsv", ".parquet", ".mat")
            other = next((n for n in files.names if n.endswith(data)), None)
            raise DataError(f"{files.path} holds no images (.png, .jpg, .tif, ...)" + (
                f"; name the file itself if you mean {other}" if other else ""))

    def sides(self, pair: str | None, paired: bool | None) -> tuple[
            ImageFiles, ImageFiles, bool] | None:
        """Left and right halves, or what the folders say."""
        if pair not in (None, "side", "none"):
            raise DataError(unknown("pair", str(pair), ["side", "none"]))
        if pair == "side":
            a, b = (ImageFiles(self.files, self.how, half) for half in (0, 1))
            return a, b, paired is not False
        two = two_sides(self.files, pair, paired)
        return two and (ImageFiles(two[0], self.how), ImageFiles(two[1], self.how), two[2])

    def together(self, other: ImageFiles, aligned: bool) -> tuple[ImageFiles, ImageFiles]:
        """Both as they are read beside each other: labels that were asked for are those of A.
        DataError for a pair whose images would not lie on each other."""
        how = other.how if other.how.label is None else replace(
            other.how, label="none", attributes=None)
        second = ImageFiles(other.files, how, other.half)
        for i in sorted(self.headers.keys() & second.headers.keys()
                        if aligned and self.half is None else ()):
            one, two = self.headers[i], second.headers[i]
            names = (f"{self.files.path}: {self.files.stored[i]} ({one.width}x{one.height}) and "
                     f"{second.files.stored[i]} ({two.width}x{two.height})")
            if self.how.image_size is None and (one.width, one.height) != (two.width, two.height):
                raise DataError(f"{names} differ in size; {say_option('image_size')} resizes both")
            skew = abs(one.width * two.height - two.width * one.height)
            if skew > max(one.width, one.height, two.width, two.height):  # over a rounded pixel
                raise DataError(f"{names} differ in proportions, so their cuts would not lie on "
                                "each other; bring them to one form first")
        return self, second

    def read(self, store: Store, name: str, maps: bool, ids: str | None) -> Source:
        """Images with their labels, splits and groups."""
        how, n = self.how, len(self.files.stored)
        mode = IDS if maps else how.mode
        headers = [] if how.image_size and mode else list(self.headers.values())
        shape, mode, size, notes = plan(headers, how.image_size, mode)
        kind = np.uint16 if mode == "I;16" else np.uint8
        # one number a pixel is kept in memory until the channels of maps are about
        x: NDArray[Any] = (Store() if maps else store).allocate((n, *shape), kind)
        digests = [i.to_bytes(9, "big") for i in range(n)]
        for count, (i, result) in enumerate(self._each(lambda data: (
                hashlib.blake2b(data, digest_size=8).digest(),
                decode(data, mode, size, self.half))), 1):
            x[i] = 0
            if result is not None and result[1].shape != x.shape[1:]:
                self.errors[i] = (f"{self.files.stored[i]} cannot be decoded: size "
                                  f"{result[1].shape[1:]} is unlike its header")
            elif result is not None:
                digests[i], x[i] = result
            store.done(count, n)
        notes += complaint(self.errors, n, "images", how.on_error)
        good = np.array([i for i in range(n) if i not in self.errors], np.int64)
        if maps:
            x[list(self.errors)] = x[good[0]]  # black is an id like any other
            x, space = one_hot(x, store, ids, name)
        else:
            space = Images(shape, how.levels or (
                2 if mode == "1" else int(np.iinfo(x.dtype).max) + 1))
            if how.levels is not None and not int(x.max()) < how.levels <= 65536:
                raise DataError(f"{self.files.path}: {say_option('levels', how.levels)}, but the "
                                f"largest pixel value is {x.max()}")
        group = same_group(digests)
        data = Dataset(x, space, group=None if len(np.unique(group)) == n else group,
                       rows=good if self.errors else None)
        data, parts, more = annotated(data, self.files, np.arange(n), how.label, how.attributes)
        return make(name, data, parts=parts, notes=(*notes, *more))

    @cached_property
    def headers(self) -> dict[int, Header]:
        """The heads of all files that have one, by position."""
        headers = dict(self._each(lambda data: read_header(data, self.half)))
        if not any(headers.values()):
            raise DataError(f"{self.files.path}: {self.errors[min(self.errors)]}")
        return {i: headers[i] for i in sorted(headers) if headers[i]}

    def _each(self, task: Callable[[bytes], Any]) -> Iterator[tuple[int, Any]]:
        """Run a task on every file, in threads; what it raises is kept as that file's error."""
        n = len(self.files.stored)

        def tried(i: int) -> Any:
            try:
                return None if i in self.errors else task(self.files.read(self.files.stored[i]))
            except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, ...
                self.errors[i] = f"{self.files.stored[i]} cannot be decoded: {reason(error)}"

        pieces = [range(i, min(i + PIECE, n)) for i in range(0, n, PIECE)]
        with ThreadPoolExecutor(min(16, cpu_count() or 1)) as pool:
            for piece in pool.map(lambda rows: [(i, tried(i)) for i in rows], pieces):
                yield from piece


class Header(NamedTuple):
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
    from PIL import Image as pil

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
    if image.mode in DEEP:
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)  # Pillow resizes floats, not these
        image = pil.fromarray(deep.astype(np.float32) if mode == "I;16" else
                              (deep >> 8).astype(np.uint8))
    elif mode == "I;16":
        image = pil.fromarray(np.asarray(image.convert("L")).astype(np.float32) * 257)
    if mode in ("L", "RGB") and _full_mode(image) == "RGBA":
        rgba = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", rgba.size, "white"), rgba)
    image = image if mode in ("I;16", image.mode) else image.convert(mode)
    planes = np.asarray(image if size is None else resize_picture(image, size))
    if mode == "I;16":
        planes = np.clip(np.rint(planes), 0, 65535).astype(np.uint16)
    if mode == "1":
        planes = planes.astype(np.uint8)
    return planes[None] if planes.ndim == 2 else np.moveaxis(planes, -1, 0)


def reason(error: Exception) -> str:
    """Why an image cannot be decoded, in one line."""
    text = str(error).split("\n")[0]
    if "cannot identify image file" in text:
        return "not an image, or damaged at its head"
    return text or type(error).__name__


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
