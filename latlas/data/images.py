"""The images of a folder or zip, of one side or of two.

Images of one size keep it; otherwise each is resized (shorter side, then centre crop) to
``image_size``, by default the median shorter side, at most 256. Equal files share a group.
Sub-folders are splits, classes and sides; with ``pair=side`` every file is a pair, A its left half
and B its right one. ``label=COLUMN`` takes labels from an attribute table instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import Images
from latlas.data import pixels
from latlas.data.dataset import Dataset, Source, Store, make
from latlas.data.files import Files, complaint, matched, same_group, two_sides
from latlas.data.tables import annotated

PIECE = 32  # images one thread takes at a time


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
        mode = pixels.IDS if maps else how.mode
        headers = [] if how.image_size and mode else list(self.headers.values())
        shape, mode, size, notes = pixels.plan(headers, how.image_size, mode)
        kind = np.uint16 if mode == "I;16" else np.uint8
        # one number a pixel is kept in memory until the channels of maps are about
        x: NDArray[Any] = (Store() if maps else store).allocate((n, *shape), kind)
        digests = [i.to_bytes(9, "big") for i in range(n)]
        for count, (i, result) in enumerate(self._each(lambda data: (
                hashlib.blake2b(data, digest_size=8).digest(),
                pixels.decode(data, mode, size, self.half))), 1):
            x[i] = 0
            if result is not None and result[1].shape != x.shape[1:]:
                self._note(i, f"size {result[1].shape[1:]} is unlike its header")
            elif result is not None:
                digests[i], x[i] = result
            store.done(count, n)
        notes += complaint(self.errors, n, "images", how.on_error)
        good = np.array([i for i in range(n) if i not in self.errors], np.int64)
        if maps:
            x[list(self.errors)] = x[good[0]]  # black is an id like any other
            x, space = pixels.one_hot(x, store, ids, name)
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
    def headers(self) -> dict[int, pixels.Header]:
        """The heads of all files that have one, by position."""
        headers = dict(self._each(lambda data: pixels.read_header(data, self.half)))
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
                self._note(i, pixels.reason(error))

        pieces = [range(i, min(i + PIECE, n)) for i in range(0, n, PIECE)]
        with ThreadPoolExecutor(min(16, cpu_count() or 1)) as pool:
            for piece in pool.map(lambda rows: [(i, tried(i)) for i in rows], pieces):
                yield from piece

    def _note(self, i: int, error: str) -> None:
        self.errors[i] = f"{self.files.stored[i]} cannot be decoded: {error}"
