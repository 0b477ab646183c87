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
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import cpu_count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.data import files as places
from latlas.data import images
from latlas.data.archives import Files
from latlas.data.attributes import annotated
from latlas.data.clips import RATE, Clip, clip_hashes, clips_of, film_frames, film_headers
from latlas.data.dataset import Dataset, Rows, Source, Store, encode_labels, make
from latlas.data.files import FILMS, PICTURES, in_splits
from latlas.data.images import LARGE, Header, Reading, Size

PIECE = 32  # files one thread takes at a time
STYLE_GAN = "dataset.json"
#: of attribute tables, which are no files left out where one is asked for
ATTRIBUTES = (".csv", ".tsv", ".parquet", ".txt")


def open_images(path: Path | Sequence[Path], *, how: Reading) -> ImageFiles:
    """The images or clips of a folder or archive, or those that are named one by one."""
    return ImageFiles(_files(path, how), how)


def _files(path: Path | Sequence[Path], how: Reading) -> Files:
    return Files(path, PICTURES | FILMS if how.frames else PICTURES)


def open_film(path: Path, *, how: Reading) -> ImageFiles:
    """The clip of a GIF, APNG, animated WebP or video."""
    return open_images(path, how=replace(how, frames=True))


def open_two_folders(a: Path, b: Path, *, how: Reading) -> tuple[ImageFiles, ImageFiles]:
    """Pairs in two folders or archives of images with equal names."""
    one, two = (places.without_head(_files(path, how)) for path in (a, b))
    return ImageFiles(one, how), ImageFiles(places.matched(one, two, f"{a} and {b}"), how)


def are_sheets(path: Path | Sequence[Path], like: Path | Sequence[Path]) -> bool:
    """Whether all images have the proportions of the first of those ``like`` them, which are two
    halves side by side."""
    try:
        sheets = Files(like, PICTURES)
        sheet = images.read_header(sheets.read(sheets.stored[0]))
        heads = chained(open_images(path, how=Reading()).headers)
    except (DataError, OSError, IndexError):
        return False
    return all(abs(h.width * sheet.height - sheet.width * h.height) <= max(*h[:2], *sheet[:2])
               for h in heads)


def sizes_in(path: Path | Sequence[Path], mode: str | None = None, most: int = 300) -> tuple[
        int, tuple[int, int, int]]:
    """How many images there are, and the shape that they would get, by the heads of some."""
    everything = open_images(path, how=Reading(mode=mode, on_error="skip"))
    stored = everything.files.stored
    some = stored[::-(-len(stored) // most)]
    heads = []
    for name in some:
        with suppress(DataError, OSError), images.decoding(name):
            heads.append(images.read_header(everything.files.read(name)))
    if not heads:
        return 0, (0, 0, 0)
    mode, size, _ = everything.how.plan(lambda: heads, "", False)
    return len(stored), (images.CHANNELS[mode], *size)


def chained(heads: dict[int, list[Header]]) -> list[Header]:
    """Those of all clips."""
    return [head for some in heads.values() for head in some]


@dataclass
class ImageFiles:
    """The images of one ``side`` of a place, or the left or right ``half`` (0, 1) of each, or its
    clips; ``errors`` holds what is wrong with some, by position."""

    files: Files
    how: Reading
    half: int | None = None
    side: str = ""
    errors: dict[int, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not self.files.stored:
            data = (".npz", ".npy", ".csv", ".tsv", ".parquet", ".mat", ".zip")
            other = next((n for n in self.files.names if n.endswith(data)), None)
            kind = "clips: sub-folders of frames (.png, .jpg, ...), GIF, APNG, animated WebP, or " \
                "videos" if self.how.frames else "images (.png, .jpg, .tif, ...)"
            raise DataError(f"{self.files.path} holds no {kind}" + (
                f"; name the file itself if you mean {other}" if other else ""))

    def as_side(self, name: str) -> ImageFiles:
        """The same as A or B of a run."""
        return replace(self, side=name)

    def sides(self, pair: str | None, paired: bool | None) -> tuple[
            ImageFiles, ImageFiles, bool] | None:
        """Left and right halves, or what the folders say."""
        if pair not in (None, "side", "none"):
            raise DataError(unknown("pair", str(pair), ["side", "none"]))
        if pair == "side":
            self._refuse_frames("pair")
            files = in_splits(self.files)
            return (replace(self, files=files, half=0),
                    replace(self, files=files.untold(), half=1), paired is not False)
        two = places.two_sides(self.files, pair, paired)
        return two and (replace(self, files=two[0]), replace(self, files=two[1]), two[2])

    def _refuse_frames(self, option: str) -> None:
        if self.how.frames:
            raise DataError(f"{option}= is for images by themselves; leave it out, or "
                            f"{say_option('frames', 'true')}")

    def together(self, other: ImageFiles, aligned: bool) -> tuple[ImageFiles, ImageFiles]:
        """Both as they are read beside each other: labels that were asked for are those of A.
        DataError for a pair whose images would not lie on each other."""
        if other.how.label is not None:
            other = replace(other, how=replace(other.how, label="none", attributes=None))
        if not aligned or self.half is not None or self.how.fit or self.how.frames:
            return self, other
        for i in sorted(self.headers.keys() & other.headers.keys()):
            (one,), (two,) = self.headers[i], other.headers[i]
            names = (f"{self.files.path}: {self.files.stored[i]} ({one.width}x{one.height}) and "
                     f"{other.files.stored[i]} ({two.width}x{two.height})")
            if self.how.image_size is None and one[:2] != two[:2]:
                raise DataError(f"{names} differ in size; {say_option('image_size')} resizes both")
            skew = abs(one.width * two.height - two.width * one.height)
            if skew > max(*one[:2], *two[:2]):  # over a rounded pixel
                raise DataError(f"{names} differ in proportions, so their cuts would not lie on "
                                "each other; bring them to one form first")
        return self, other

    @cached_property
    def clips(self) -> list[Clip]:
        """The clips of the place; an image by itself is one of a single frame."""
        if self.how.frames:
            return clips_of(self.files)
        return [Clip(stored, [stored], [title])
                for title, stored in zip(self.files.titles, self.files.stored, strict=True)]

    @cached_property
    def headers(self) -> dict[int, list[Header]]:
        """The heads of the frames of every clip that has them, by position."""
        headers = dict(self._tried(self._heads_of))
        if not headers:
            self._complaint()
        return headers

    def _heads_of(self, i: int) -> list[Header]:
        """Of the frames of a clip; DataError if they differ in size and none is asked for."""
        clip, heads = self.clips[i], list[Header]()
        if clip.film:
            return film_headers(self.files, clip.files[0])
        for stored in clip.files:
            with images.decoding(stored):
                heads.append(images.read_header(self.files.read(stored), self.half))
        other = next((k for k, head in enumerate(heads) if head[:2] != heads[0][:2]), None)
        if other is not None and self.how.image_size is None and not self.how.fit:
            two = " and ".join(f"{clip.titles[k]} ({heads[k].width}x{heads[k].height})"
                               for k in (0, other))
            raise DataError(f"{clip.name}: frames of one clip differ in size, {two}; "
                            f"{say_option('image_size')} resizes them")
        return [head._replace(duration=1000 / (self.how.rate or RATE)) for head in heads]

    def read(self, store: Store, name: str, maps: bool, ids: str | None) -> Source:
        """Images or frames with their labels, splits, keys and clips."""
        files = in_splits(self.files)
        if files is not self.files:
            return replace(self, files=files).read(store, name, maps, ids)
        how, clips = self.how, self.clips
        if maps:
            self._refuse_frames("maps")
        mode, size, notes = how.plan(lambda: chained(self.headers), self.side, maps)
        lengths = {i: len(heads) for i, heads in self.headers.items()} if how.frames else (
            dict.fromkeys(range(len(clips)), 1))
        stops = dict(zip(lengths, np.cumsum([*lengths.values()]).tolist(), strict=True))
        of = np.repeat([*lengths], [*lengths.values()])  # the clip of each frame
        # one number a pixel is kept in memory until the channels of maps are about
        x: NDArray[Any] = (Store() if maps else store).allocate(
            (len(of), images.CHANNELS[mode], *size), np.uint16 if mode == "I;16" else np.uint8)
        keys, heads = np.arange(len(of), dtype=np.uint64), dict[int, list[Header]]()

        def fill(i: int) -> list[Header]:
            headers, rows = [], range(stops[i] - lengths[i], stops[i])
            for row, frame in zip(rows, self._frames(clips[i], mode, size), strict=True):
                x[row], header, keys[row] = frame
                headers.append(header)
            return headers

        for i, headers in self._tried(fill):
            heads[i] = self.headers[i] if how.frames else headers
            store.done(stops[i], len(of))
        notes += [*how.changes(chained(heads), None if notes else size, mode),
                  *self._complaint(), *self._remarks(heads)]
        good = np.flatnonzero(np.isin(of, [*heads]))
        x[np.delete(np.arange(len(of)), good)] = x[good[0]] if maps else 0  # black is an id, too
        x, space = images.one_hot(x, store, ids, name) if maps else how.in_levels(
            x, mode, files.path)
        data = Dataset(x, space, key=None if how.frames else keys,
                       rows=good if self.errors else None)
        return self._annotated(name, data, of, notes)

    def _frames(self, clip: Clip, mode: str, size: Size) -> Iterator[
            tuple[NDArray[Any], Header, int]]:
        """The pixels of each frame of a clip, its head, and a hash of the file that is its own."""
        if clip.film:
            for image, _ in film_frames(self.files, clip.files[0]):
                yield images.pixels(image, mode, size), Header(*image.size, mode), 0
            return
        for stored in clip.files:
            data = self.files.read(stored)
            key = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            yield *images.decode(data, mode, size, self.half), key

    def _remarks(self, heads: dict[int, list[Header]]) -> list[str]:
        """What is said of films, of large images, and of clips of one frame."""
        names = {i: self.clips[i].name for i in heads}
        notes, moving = [], [names[i] for i, (head, *_) in heads.items() if head.more]
        if moving and not self.how.frames:
            notes.append(f"{len(moving):,} file{'s' * (len(moving) > 1)} of several frames, of "
                         f"which the first was read: {moving[0]}; {say_option('frames', 'true')} "
                         "reads all")
        large = [f"{names[i]} ({head.width}x{head.height})" for i, (head, *_) in heads.items()
                 if head.width * head.height > LARGE]
        if large:
            notes.append(f"{len(large):,} image{'s' * (len(large) > 1)} of more than {LARGE:,} "
                         f"pixels: {large[0]}")
        single = [names[i] for i in heads if len(heads[i]) == 1]
        if single and self.how.frames:
            notes.append(f"{len(single):,} of {len(heads):,} clips hold one frame, which has no "
                         f"neighbour: {single[0]}")
        return notes

    def _annotated(self, name: str, data: Dataset, of: Rows, notes: list[str]) -> Source:
        """The source with labels of folders, of StyleGAN's list, or of an attribute table, and with
        what is about frames."""
        how, files, clips = self.how, self.files, self.clips
        if how.frames:  # a clip's own folder is no class
            files = files.only({clip.name: clip.files[0] for clip in clips})
        table = how.attributes is not None or how.label not in (None, "none")
        labels = None if table else self._style_gan_labels()
        data, parts, more = annotated(data, files, of, "none" if labels else how.label,
                                      how.attributes)
        if labels and labels[0] is not None and how.label != "none":
            data = data.with_labels(labels[0][of], labels[1])
        others = files.left_out(ATTRIBUTES if table else (".json",) if labels else ())
        if how.frames:
            titles, durations = list[str](), list[float]()
            for i in dict.fromkeys(of.tolist()):
                heads = self.headers[i]
                titles += clips[i].titles or [f"{clips[i].name}/{k:05d}" for k in range(len(heads))]
                durations += [head.duration for head in heads]
            clip = np.unique(of, return_inverse=True)[1]
            data = replace(data, clip=clip, group=clip_hashes(data.x, clip), names=np.array(titles),
                           duration=np.array(durations, np.float32),
                           space=data.space.replace(frames=bool((np.diff(clip) == 0).any())))
        return make(name, data, parts=parts, notes=(*notes, *more, *others))

    def _style_gan_labels(self) -> tuple[NDArray[np.int64] | None, tuple[str, ...]] | None:
        """Labels in the list that StyleGAN's tools write beside images, ``None`` without one."""
        try:
            (path,) = [n for n in self.files.names if PurePosixPath(n).name == STYLE_GAN]
            listed = json.loads(self.files.read(path))["labels"] or ()
            labels = {str(n): label for n, label in listed}
        except (ValueError, TypeError, KeyError):  # none, several, or of another kind
            return None
        names = [n.removeprefix(path.removesuffix(STYLE_GAN)) for n in self.files.stored]
        absent, where = [n for n in names if n not in labels], f"{self.files.path}: {path}"
        if len(absent) == len(names):
            return None, ()
        if absent:
            raise DataError(f"{where} has no label for {len(absent):,} of {len(names):,} images "
                            f"({absent[0]}); add them, or leave labels out with "
                            f"{say_option('label', 'none')}")
        return encode_labels(np.array([labels[n] for n in names]), where)

    def _complaint(self) -> list[str]:
        return places.complaint(self.errors, len(self.clips), "clips" if self.how.frames else
                                "images", self.how.on_error, f"{self.files.path}: ")

    def _tried(self, task: Callable[[int], list[Header]]) -> Iterator[tuple[int, list[Header]]]:
        """Positions of clips that have no error yet, in order, and what a task makes of each, in
        threads; what it raises becomes the error of the clip."""
        def attempt(i: int) -> tuple[int, list[Header]] | None:
            try:
                with images.decoding(self.clips[i].name):
                    return i, task(i)
            except DataError as error:
                self.errors[i] = str(error)
                return None

        todo = [i for i in range(len(self.clips)) if i not in self.errors]
        pieces = [todo[k:k + PIECE] for k in range(0, len(todo), PIECE)]
        with ThreadPoolExecutor(min(16, cpu_count() or 1)) as pool:
            for results in pool.map(lambda piece: [attempt(i) for i in piece], pieces):
                yield from (result for result in results if result)
