"""Images in files: one, several, or those of a folder or archive, of one side or of two.

Images of one size keep it; otherwise each is resized (:mod:`latlas.data.images`) to ``image_size``,
by default the median shorter side, at most 256. Equal files have one key. Sub-folders are splits,
classes and sides; with ``pair=side`` every file is a pair, A its left half and B its right one.
``label=COLUMN`` takes labels from an attribute table instead. Labels of StyleGAN's
``dataset.json`` are read where it lies; its sub-folders are no classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from os import cpu_count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import Images, Space
from latlas.data.dataset import Dataset, Source, Store, encode_labels, make
from latlas.data.files import Files, complaint, matched, two_sides
from latlas.data.images import (
    CHANNELS,
    IDS,
    LARGE,
    LEVELS,
    Header,
    Size,
    changes,
    decode,
    one_hot,
    plan,
    read_header,
    reason,
)
from latlas.data.tables import annotated

PIECE = 32  # images one thread takes at a time
MODES = ("L", "RGB", "RGBA")
STYLE_GAN = "dataset.json"
#: of attribute tables, which are no files left out where one is asked for
ATTRIBUTES = (".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        mode: ``L``, ``RGB`` or ``RGBA``; by default the least that keeps what the files hold.
        label: a column of the attribute table; ``none`` for no labels. Of two sides it is of A.
        attributes: the attribute table, if it is not beside the images.
        on_error: ``raise`` (after all were tried, naming the first) or ``skip``.
        fit: of a run, what its examples are (:func:`fit_of`); it goes before size and mode.
    """

    image_size: int | None = None
    mode: str | None = None
    label: str | None = None
    attributes: str | None = None
    on_error: str = "raise"
    levels: int | None = None
    fit: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in (None, *MODES):
            raise DataError(unknown("mode", str(self.mode), MODES))
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


def open_images(path: Path | Sequence[Path], *, how: FolderReading) -> ImageFiles:
    """The images of a folder or archive, or those that are named one by one."""
    return ImageFiles(Files(path), how)


def open_two_folders(a: Path, b: Path, *, how: Reading) -> tuple[ImageFiles, ImageFiles]:
    """Pairs in two folders or zips of images with equal names."""
    one, two = Files(a).without_head(), Files(b).without_head()
    return ImageFiles(one, how), ImageFiles(matched(one, two, f"{a} and {b}"), how)


def fit_of(spaces: dict[str, Space]) -> str:
    """The size and mode of a run's examples, by their sides, as text: ``A=L:32x48``."""
    words = []
    for side, space in spaces.items():
        if isinstance(space, Images) and space.sound is None:
            modes = {1: {k: m for m, k in LEVELS.items()}.get(space.levels or 0, "L"), 3: "RGB",
                     4: "RGBA"}
            mode = "" if space.ids else modes.get(space.shape[0], "")
            words.append(f"{side}={mode}:{space.shape[1]}x{space.shape[2]}")
    return ",".join(words)


def fit_for(fit: str | None, side: str) -> tuple[Size | None, str | None]:
    """Size and mode of a side, of the side that is named first where that one is not."""
    parts = dict(part.split("=") for part in fit.split(",")) if fit else {}
    if not parts:
        return None, None
    mode, size = parts.get(side, next(iter(parts.values()))).split(":")
    height, width = (int(number) for number in size.split("x"))
    return (height, width), mode or None


def are_sheets(path: Path | Sequence[Path], like: Path | Sequence[Path]) -> bool:
    """Whether all images have the proportions of those ``like`` them, which are two halves side by
    side."""
    try:
        sheet = ImageFiles(Files(like), Reading()).first
        heads = ImageFiles(Files(path), Reading()).headers.values()
    except (DataError, OSError):
        return False
    return all(abs(h.width * sheet.height - sheet.width * h.height) <= max(*h[:2], *sheet[:2])
               for h in heads)


class ImageFiles:
    """The images of one ``side`` of a place, or the left or right ``half`` (0, 1) of each;
    ``errors`` holds what is wrong with some, by position."""

    def __init__(self, files: Files, how: Reading, half: int | None = None,
                 side: str = "") -> None:
        self.files, self.how, self.half, self.side = files, how, half, side
        self.errors: dict[int, str] = {}
        if not files.stored:
            data = (".npz", ".npy", ".csv", ".tsv", ".parquet", ".mat")
            other = next((n for n in files.names if n.endswith(data)), None)
            raise DataError(f"{files.path} holds no images (.png, .jpg, .tif, ...)" + (
                f"; name the file itself if you mean {other}" if other else ""))

    def as_side(self, name: str) -> ImageFiles:
        """The same as A or B of a run."""
        return ImageFiles(self.files, self.how, self.half, name)

    def sides(self, pair: str | None, paired: bool | None) -> tuple[
            ImageFiles, ImageFiles, bool] | None:
        """Left and right halves, or what the folders say."""
        if pair not in (None, "side", "none"):
            raise DataError(unknown("pair", str(pair), ["side", "none"]))
        if pair == "side":
            files = self.files.in_splits()
            a, b = (ImageFiles(part, self.how, half)
                    for half, part in enumerate((files, files.untold())))
            return a, b, paired is not False
        two = two_sides(self.files, pair, paired)
        return two and (ImageFiles(two[0], self.how), ImageFiles(two[1], self.how), two[2])

    def together(self, other: ImageFiles, aligned: bool) -> tuple[ImageFiles, ImageFiles]:
        """Both as they are read beside each other: labels that were asked for are those of A.
        DataError for a pair whose images would not lie on each other."""
        how = other.how if other.how.label is None else replace(
            other.how, label="none", attributes=None)
        second = ImageFiles(other.files, how, other.half, other.side)
        for i in sorted(self.headers.keys() & second.headers.keys()
                        if aligned and self.half is None and not self.how.fit else ()):
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
        """Images with their labels, splits and keys."""
        files = self.files.in_splits()
        if files is not self.files:
            return ImageFiles(files, self.how, self.half, self.side).read(store, name, maps, ids)
        how, n = self.how, len(files.stored)
        shape, mode, size, notes = self._plan(maps)
        kind = np.uint16 if mode == "I;16" else np.uint8
        # one number a pixel is kept in memory until the channels of maps are about
        x: NDArray[Any] = (Store() if maps else store).allocate((n, *shape), kind)
        digests, heads = [i.to_bytes(8, "big") for i in range(n)], dict[int, Header]()
        for count, (i, result) in enumerate(self._each(lambda data: (
                hashlib.blake2b(data, digest_size=8).digest(),
                *decode(data, mode, size, self.half))), 1):
            x[i] = 0
            if result is not None and result[1].shape != x.shape[1:]:
                self.errors[i] = (f"{files.stored[i]} cannot be decoded: size "
                                  f"{result[1].shape[1:]} is unlike its header")
            elif result is not None:
                digests[i], x[i], heads[i] = result
            store.done(count, n)
        notes += complaint(self.errors, n, "images", how.on_error)
        notes += self._remarks(heads, size, mode)
        good = np.array([i for i in range(n) if i not in self.errors], np.int64)
        if maps:
            x[list(self.errors)] = x[good[0]]  # black is an id like any other
            x, space = one_hot(x, store, ids, name)
        else:
            x, space = self._levels(x, mode)
        keys = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
        data = Dataset(x, space, key=keys, rows=good if self.errors else None)
        return self._annotated(name, data, notes)

    def _plan(self, maps: bool) -> tuple[tuple[int, int, int], str, Size | None, list[str]]:
        """As :func:`latlas.data.images.plan`; a run that is to be fitted decides by itself."""
        size, mode = fit_for(self.how.fit, self.side)
        mode = IDS if maps else mode or self.how.mode
        if size is None or mode is None:
            known = self.how.image_size and mode
            planned = plan([] if known else list(self.headers.values()), self.how.image_size, mode)
            if size is None:
                return planned
            mode = planned[1]
        return (CHANNELS[mode], *size), mode, size, []

    def _remarks(self, heads: dict[int, Header], size: Size | None, mode: str) -> list[str]:
        """What is said of images that were brought to a size or mode that was given or others have,
        of several frames, or large."""
        how = self.how
        every = [heads[i] for i in sorted(heads)]
        told = how.fit or how.mode or len({h.mode for h in every}) > 1
        notes = changes(every, size if how.fit or how.image_size else None, mode if told else IDS)
        moving = [i for i, h in heads.items() if h.more]
        if moving:
            notes.append(f"{len(moving):,} file{'s' * (len(moving) > 1)} of several frames, of "
                         f"which the first was read: {self.files.stored[moving[0]]}; "
                         f"{say_option('frames', 'true')} reads all")
        large = [i for i, h in heads.items() if h.width * h.height > LARGE]
        if large:
            h = heads[large[0]]
            notes.append(f"{len(large):,} image{'s' * (len(large) > 1)} of more than {LARGE:,} "
                         f"pixels: {self.files.stored[large[0]]} ({h.width}x{h.height})")
        return notes

    def _levels(self, x: NDArray[Any], mode: str) -> tuple[NDArray[Any], Images]:
        """Pixels and their space, of the levels that were asked for."""
        levels, given = LEVELS.get(mode, 256), self.how.levels
        if given is None or given == levels:
            return x, Images(x.shape[1:], levels)
        if mode == "1" and 1 < given <= 65536:  # ink and paper are the ends of any range
            kind = np.uint8 if given <= 256 else np.uint16
            return (x > 0) * kind(given - 1), Images(x.shape[1:], given)
        if not int(x.max()) < given <= 65536:
            raise DataError(f"{self.files.path}: {say_option('levels', given)}, but the largest "
                            f"pixel value is {x.max()}")
        return x, Images(x.shape[1:], given)

    def _annotated(self, name: str, data: Dataset, notes: list[str]) -> Source:
        """The source with labels of folders, of StyleGAN's list, or of an attribute table."""
        how, files = self.how, self.files
        table = how.attributes is not None or how.label not in (None, "none")
        labels = None if table else self._style_gan_labels()
        data, parts, more = annotated(data, files, np.arange(len(files.stored)),
                                      "none" if labels else how.label, how.attributes)
        notes += more
        if labels and labels[1] and how.label != "none":
            data = data.with_labels(*labels)
        others = files.left_out(ATTRIBUTES if table else (".json",) if labels else ())
        return make(name, data, parts=parts, notes=(*notes, *others))

    def _style_gan_labels(self) -> tuple[NDArray[np.int64] | None, tuple[str, ...]] | None:
        """Labels in the list that StyleGAN's tools write beside images, ``None`` without one."""
        lists = [n for n in self.files.names if PurePosixPath(n).name == STYLE_GAN]
        if len(lists) != 1:
            return None
        try:
            content = json.loads(self.files.read(lists[0]))
            pairs = content["labels"]
            labels = {str(name): label for name, label in pairs or ()}
        except (ValueError, TypeError, KeyError):
            return None  # of another kind
        folder = lists[0].removesuffix(STYLE_GAN)
        names = [stored.removeprefix(folder) for stored in self.files.stored]
        if not labels or not any(n in labels for n in names):
            return None, ()
        absent = [n for n in names if n not in labels]
        if absent:
            raise DataError(f"{self.files.path}: {lists[0]} has no label for {len(absent):,} of "
                            f"{len(names):,} images ({absent[0]}); add them, or leave labels out "
                            f"with {say_option('label', 'none')}")
        return encode_labels(np.array([labels[n] for n in names]),
                             f"{self.files.path}: {lists[0]}")

    @property
    def first(self) -> Header:
        """The head of the first image."""
        return read_header(self.files.read(self.files.stored[0]))

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
