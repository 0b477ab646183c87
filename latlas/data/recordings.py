"""Recordings: the wav files of a folder or zip as pictures of sound, of one side or of two.

Each becomes short-time spectra in decibels under its own peak (:mod:`latlas.data.sound`), cut into
windows of a fixed number of frames that lie ``stride`` frames apart; one shorter than a window lies
at as many places within it, between silence. Windows of a recording, and of files that are equal,
share a group and so a split. Sub-folders and tables of labels are as for pictures; ``trainA/`` and
``trainB/`` (or ``A/`` and ``B/``) are two domains. ``PLACE::PATTERN`` takes files by their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, unknown
from latlas.core.space import Sound, Space
from latlas.data.dataset import Dataset
from latlas.data.files import SOUNDS, Files, complaint
from latlas.data.maps import first_is_map
from latlas.data.pictures import arranged, labelled
from latlas.data.sides import SIDES, two_folders
from latlas.data.sound import frames_of, pictured, spectrum
from latlas.data.source import Source, join, make
from latlas.data.store import Store
from latlas.data.wav import Clip, read_wav, resampled

#: samples a second at most, unless told; seconds of a frame, of which the power of two is nearest
MOST, FRAME = 16_000, 0.032
#: frames of a frame's length that overlap, and windows of a window's
OVERLAP, WINDOWS = 4, 8
EIGHT = 8  # sides of pictures that networks halve are multiples of it


@dataclass(frozen=True)
class Listening:
    """How recordings are read; ``None`` chooses by the recordings.

    Attributes:
        rate: samples a second that all are brought to.
        n_fft, hop, floor: see :class:`latlas.core.space.Sound`.
        window: frames of an item; ``stride`` from one to the next.
        label, attributes, on_error: as for pictures.
    """

    rate: int | None = None
    n_fft: int | None = None
    hop: int | None = None
    floor: float = 80.0
    window: int = 64
    stride: int | None = None
    label: str | None = None
    attributes: str | None = None
    on_error: str = "raise"

    def check(self) -> None:
        """Raise DataError for a value that is none."""
        if self.on_error not in ("raise", "skip"):
            raise DataError(unknown("on_error", self.on_error, ["raise", "skip"]))
        if self.rate is not None and self.rate < 1000:
            raise DataError(f"rate={self.rate}: samples a second, at least 1000")
        if self.window < EIGHT or self.window % EIGHT:
            raise DataError(f"window={self.window}: frames of an item, a multiple of {EIGHT}")
        if self.stride is not None and self.stride < 1:
            raise DataError(f"stride={self.stride}: frames from a window to the next, at least 1")
        if not self.floor > 0:
            raise DataError(f"floor={self.floor:g}: decibels under the peak, above 0")

    def sound(self, rates: Sequence[int]) -> Sound:
        """Of recordings with these rates: that of most, at most 16,000 Hz, and frames of 32 ms."""
        found, counts = np.unique(rates, return_counts=True)
        rate = self.rate or min(int(found[counts.argmax()]), MOST)
        n_fft = self.n_fft or 2 ** round(np.log2(FRAME * rate))
        hop = self.hop or n_fft // OVERLAP
        if n_fft < 2 * EIGHT or n_fft % (2 * EIGHT):
            raise DataError(f"n_fft={n_fft}: samples of a frame, a multiple of {2 * EIGHT}")
        if hop < 1 or n_fft % hop or hop == n_fft:
            raise DataError(f"hop={hop}: samples from a frame to the next, which divide "
                            f"n_fft={n_fft} at least once")
        return Sound(rate, n_fft, hop, self.floor)


@dataclass
class Recordings:
    """Wav files of a place, read one by one; ``errors`` holds what is broken, by position."""

    files: Files
    errors: dict[int, str] = field(default_factory=dict)
    hashes: dict[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files.shown)

    @property
    def names(self) -> list[str]:
        """What each is called."""
        return self.files.shown

    def subset(self, index: slice) -> Recordings:
        """Those at these positions."""
        return self.only(self.names[index])

    def only(self, names: Sequence[str]) -> Recordings:
        """Those of these names, in this order."""
        stored = dict(zip(self.files.shown, self.files.pictures, strict=True))
        return Recordings(self.files.only({name: stored[name] for name in names}))

    def read(self, i: int) -> Clip:
        """Recording ``i``.

        Raises:
            DataError: broken, with its name.
        """
        data = self.files.read(self.files.pictures[i])
        self.hashes[i] = hashlib.blake2b(data, digest_size=8).digest()
        try:
            return read_wav(data)
        except DataError as error:
            raise DataError(f"{self.files.pictures[i]} cannot be read: {error}") from None

    @cached_property
    def heads(self) -> dict[int, Clip]:
        """Rate, channels and seconds of all that can be read, by position: clips without sound.

        Raises:
            DataError: none can.
        """
        found = {}
        for i in range(len(self)):
            try:
                found[i] = _head(self.read(i))
            except DataError as error:
                self.errors[i] = str(error)
        if not found:
            raise DataError(f"{self.files.path}: {self.errors[0]}")
        return found

    def whole(self, on_error: str) -> Recordings:
        """Those that can be read.

        Raises:
            DataError: others, unless they may be skipped.
        """
        if len(self.heads) == len(self):
            return self
        self.complaint(on_error)
        return self.only([self.names[i] for i in self.heads])

    def complaint(self, on_error: str) -> str:
        """What is broken, for the notes.

        Raises:
            DataError: the same, unless it may be skipped.
        """
        return complaint(self.errors[min(self.errors)], len(self.errors), len(self), "recordings",
                         on_error, f"{self.files.path}: ")


def _head(clip: Clip) -> Clip:
    return replace(clip, x=np.broadcast_to(np.float64(0), len(clip.x)))


def find_recordings(path: Path, pattern: str = "") -> Recordings:
    """The wav files of a folder, a zip, or a file that is one; those that match a pattern.

    Raises:
        DataError: there are none.
    """
    files = Files(path, SOUNDS)
    if pattern:
        matching = {n: n for n in files.pictures
                    if fnmatch(n, pattern) or fnmatch(PurePosixPath(n).name, pattern)}
        files = files.only(matching)
    if not files.pictures:
        which = f" whose names match {pattern}" if pattern else ""
        raise DataError(f"{path} holds no recordings (.wav){which}")
    return Recordings(files)


def sides_of(found: Recordings) -> list[Recordings] | None:
    """The two domains that folders name, or ``None``."""
    folders = two_folders(found.files)
    return None if folders is None else [Recordings(side.files) for side in folders[0]]


def open_recordings(path: Path, pattern: str = "", /, *, store: Store | None = None,
                    rate: int | None = None, n_fft: int | None = None, hop: int | None = None,
                    floor: float = 80.0, window: int = 64, stride: int | None = None,
                    label: str | None = None, attributes: str | None = None,
                    on_error: str = "raise", paired: bool | None = None,
                    direction: str | None = None) -> Source:
    """Recordings of a folder or zip; see the head of this module, and :class:`Listening`.

    Args:
        paired: ``false`` or nothing: two sides of recordings are domains.
        direction: ``BtoA`` swaps the sides.
    """
    how = Listening(rate, n_fft, hop, floor, window, stride, label, attributes, on_error)
    how.check()
    first_is_map(direction, None)  # the direction is one
    found, kept = find_recordings(path, pattern), store or Store()
    sides = sides_of(found)
    if sides is None:
        return read_recordings(found, kept, how, path.stem)
    if direction == "BtoA":
        sides = sides[::-1]
    sound = how.sound([head.rate for side in sides for head in side.heads.values()])
    how = replace(how, rate=sound.rate)
    both = [read_recordings(side, to, how, f"{path.stem} ({name})") for side, to, name
            in zip(sides, (kept, kept.second), SIDES, strict=True)]
    return join(*both, paired=bool(paired), name=path.stem)


def read_recordings(found: Recordings, store: Store, how: Listening, name: str) -> Source:
    """One side: every window of every recording."""
    heads = found.heads
    sound = how.sound([head.rate for head in heads.values()])
    stride = how.stride or how.window // WINDOWS
    notes = [found.complaint(how.on_error)] if found.errors else []
    notes += _notes(heads, sound, how.window, stride)
    places = [(i, at) for i, head in heads.items()
              for at in starts(_frames(head, sound), how.window, stride)]
    x = store.allocate((len(places), 1, sound.n_fft // 2, how.window), np.uint8)
    for done, cut in enumerate(_windows(found, places, sound, how.window), 1):
        x[done - 1] = cut
        store.done(done, len(places))
    return _source(name, x, np.array([i for i, _ in places]), found, sound, how, tuple(notes))


def _source(name: str, x: NDArray[Any], of: NDArray[np.int64], found: Recordings, sound: Sound,
            how: Listening, notes: tuple[str, ...]) -> Source:
    """Windows, and what is known of the recording ``of`` which each is."""
    parts, folders, table = arranged(found.files, how.label, how.attributes)
    codes, classes, more = labelled(folders, table, np.unique(of), how.label)
    space = Space.picture(x.shape[1:], classes=classes, sound=sound,
                          factors=table.factor_names if table else ())
    first: dict[bytes, int] = {}
    group = np.array([first.setdefault(found.hashes.get(i, b""), i) for i in range(len(found))])
    factors = table.factors[of] if table and table.factors is not None else None
    data = Dataset(x, space, None if codes is None else codes[of], factors, group[of],
                   np.array(found.names)[of])
    rows = {k: np.flatnonzero(np.isin(of, v)) for k, v in parts.items()}
    return make(name, data, parts=rows, notes=(*notes, *more))


def _notes(heads: dict[int, Clip], sound: Sound, window: int, stride: int) -> Iterator[str]:
    """What was decided, for people to read."""
    yield (f"spectra at {sound}; windows of {window} frames "
           f"({window * sound.hop / sound.rate:.2f} s) every {stride}")
    counts = {
        f"resampled to {sound.rate:,} Hz": sum(h.rate != sound.rate for h in heads.values()),
        "made mono, the mean of their channels": sum(h.channels > 1 for h in heads.values()),
        "shorter than a window: silence beside them": sum(
            _frames(h, sound) < window for h in heads.values())}
    yield from (f"{n:,} of {len(heads):,} recordings {what}" for what, n in counts.items() if n)


def _frames(head: Clip, sound: Sound) -> int:
    """Frames of a recording at the common rate."""
    return frames_of(-(-len(head.x) * sound.rate // head.rate), sound.hop)


def starts(frames: int, window: int, stride: int) -> list[int]:
    """Where windows start in a recording, or where one that is shorter starts within a window.

    >>> starts(100, 64, 16), starts(50, 64, 8), starts(64, 64, 8)
    ([0, 16, 32, 36], [0, 8, 14], [0])
    """
    room = abs(frames - window)
    return sorted({*range(0, room, stride), room})


def picture_of(clip: Clip, sound: Sound) -> NDArray[np.uint8]:
    """A whole recording, (1, n_fft // 2, frames)."""
    return pictured(spectrum(resampled(clip.x, clip.rate, sound.rate), sound.n_fft, sound.hop),
                    sound)


def _windows(found: Recordings, places: Sequence[tuple[int, int]], sound: Sound,
             window: int) -> Iterator[NDArray[np.uint8]]:
    """The window at each place: of a recording, from a frame on."""
    last, whole = -1, np.zeros((1, 0, 0), np.uint8)
    for i, at in places:
        if i != last:
            last, whole = i, picture_of(found.read(i), sound)
        short = window - whole.shape[2]
        yield (whole[:, :, at:at + window] if short <= 0
               else np.pad(whole, ((0, 0), (0, 0), (at, short - at))))
