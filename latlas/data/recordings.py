"""Recordings: the wav files of a folder or zip as images of sound, of one side or of two.

Each becomes short-time spectra in decibels under its own peak (:mod:`latlas.data.sound`), cut into
windows of a fixed number of frames that lie ``stride`` frames apart; one shorter than a window lies
at as many places within it, between silence. Windows of a recording, and of files that are equal,
share a group and so a split. Sub-folders and tables of labels are as for images; ``trainA/`` and
``trainB/`` (or ``A/`` and ``B/``) are two domains. ``PLACE::PATTERN`` takes files by their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import Recordings, Sound
from latlas.data.dataset import Dataset, Source, make
from latlas.data.files import SOUNDS, Files, by_folders, complaint
from latlas.data.sound import Clip, frames_of, pictured, read_wav, resampled, spectrum
from latlas.data.storage import Store
from latlas.data.tables import attributes_of

#: samples a second at most, unless told; seconds of a frame, of which the power of two is nearest
MOST, FRAME = 16_000, 0.032
#: frames of a frame's length that overlap, and windows of a window's
OVERLAP, WINDOWS = 4, 8
EIGHT = 8  # sides of images that networks halve are multiples of it


@dataclass(frozen=True)
class Listening:
    """How recordings are read; ``None`` chooses by the recordings.

    Attributes:
        rate: samples a second that all are brought to.
        n_fft, hop, floor: see :class:`latlas.core.space.Sound`.
        window: frames of an example; ``stride`` from one to the next.
        label, attributes, on_error: as for images.
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

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise DataError(unknown("on_error", self.on_error, ["raise", "skip"]))
        if self.rate is not None and self.rate < 1000:
            raise DataError(f"{say_option('rate', self.rate)}: samples a second, at least 1000")
        if self.window < EIGHT or self.window % EIGHT:
            raise DataError(f"{say_option('window', self.window)}: frames of an example, a "
                            f"multiple of {EIGHT}")
        if self.stride is not None and self.stride < 1:
            raise DataError(f"{say_option('stride', self.stride)}: frames from a window to the "
                            "next, at least 1")
        if not self.floor > 0:
            raise DataError(f"{say_option('floor', f'{self.floor:g}')}: decibels under the peak, "
                            "above 0")

    def sound(self, heads: Sequence[Clip]) -> Sound:
        """Of these recordings: the rate of most, at most 16,000 Hz, and frames of 32 ms."""
        rates, counts = np.unique([head.rate for head in heads], return_counts=True)
        rate = self.rate or min(int(rates[counts.argmax()]), MOST)
        n_fft = self.n_fft or 2 ** round(np.log2(FRAME * rate))
        hop = self.hop or n_fft // OVERLAP
        if n_fft < 2 * EIGHT or n_fft % (2 * EIGHT):
            raise DataError(f"{say_option('n_fft', n_fft)}: samples of a frame, a multiple of "
                            f"{2 * EIGHT}")
        if hop < 1 or n_fft % hop or hop == n_fft:
            raise DataError(f"{say_option('hop', hop)}: samples from a frame to the next, which "
                            "divide "
                            f"{say_option('n_fft', n_fft)} at least once")
        return Sound(rate, n_fft, hop, self.floor)


def open_recordings(path: Path, pattern: str = "", /, *, how: Listening) -> RecordingFiles:
    """The wav files of a folder, a zip, or a file that is one; those that match a pattern.

    Raises:
        DataError: there are none.
    """
    files = Files(path, SOUNDS)
    if pattern:
        files = files.only({n: n for n in files.pictures if fnmatch(n, pattern)
                            or fnmatch(PurePosixPath(n).name, pattern)})
    if not files.pictures:
        which = f" whose names match {pattern}" if pattern else ""
        raise DataError(f"{path} holds no recordings (.wav){which}")
    return RecordingFiles(files, how)


class RecordingFiles:
    """Wav files of one side of a place, read one by one; ``errors`` holds what is broken, by
    position."""

    def __init__(self, files: Files, how: Listening) -> None:
        self.files, self.how = files, how
        self.errors: dict[int, str] = {}
        self.digests: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.files.titles)

    @property
    def names(self) -> list[str]:
        """What each is called."""
        return self.files.titles

    def only(self, names: Sequence[str]) -> RecordingFiles:
        """Those of these names, in this order."""
        stored = dict(zip(self.files.titles, self.files.pictures, strict=True))
        return RecordingFiles(self.files.only({name: stored[name] for name in names}), self.how)

    def clip(self, i: int) -> Clip:
        """Recording ``i``.

        Raises:
            DataError: broken, with its name.
        """
        data = self.files.read(self.files.pictures[i])
        self.digests[i] = hashlib.blake2b(data, digest_size=8).digest()
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
        heads = {}
        for i in range(len(self)):
            try:
                clip = self.clip(i)
                heads[i] = replace(clip, x=np.broadcast_to(np.float64(0), len(clip.x)))
            except DataError as error:
                self.errors[i] = str(error)
        if not heads:
            raise DataError(f"{self.files.path}: {self.errors[0]}")
        return heads

    def whole(self) -> RecordingFiles:
        """Those that can be read.

        Raises:
            DataError: others, unless they may be skipped.
        """
        if len(self.heads) == len(self):
            return self
        self._complaint()
        return self.only([self.names[i] for i in self.heads])

    def _complaint(self) -> str:
        return complaint(self.errors[min(self.errors)], len(self.errors), len(self), "recordings",
                         self.how.on_error, f"{self.files.path}: ")

    def sides(self, pair: str | None = None, paired: bool | None = None) -> tuple[
            RecordingFiles, RecordingFiles, bool] | None:
        """The two domains that folders name."""
        two = by_folders(self.files)
        return two and (RecordingFiles(two[0], self.how), RecordingFiles(two[1], self.how),
                        bool(paired))

    def together(self, other: RecordingFiles, aligned: bool) -> tuple[
            RecordingFiles, RecordingFiles]:
        """Both at one rate."""
        sound = self.how.sound([*self.heads.values(), *other.heads.values()])
        for side in (self, other):
            side.how = replace(self.how, rate=sound.rate)
        return self, other

    def read(self, store: Store, name: str, maps: bool, ids: str | None) -> Source:
        """Every window of every recording, and what is about of the recording."""
        heads, window = self.heads, self.how.window
        sound, stride = self.how.sound(list(heads.values())), self.how.stride or window // WINDOWS
        frames = {i: frames_of(-(-len(head.x) * sound.rate // head.rate), sound.hop)
                  for i, head in heads.items()}
        notes = [self._complaint()] if self.errors else []
        notes.append(f"spectra at {sound}; windows of {window} frames "
                     f"({window * sound.hop / sound.rate:.2f} s) every {stride}")
        counts = {f"resampled to {sound.rate:,} Hz": [h.rate != sound.rate for h in heads.values()],
                  "made mono, the mean of their channels": [h.channels > 1 for h in heads.values()],
                  "shorter than a window: silence beside them": [
                      n < window for n in frames.values()]}
        notes += [f"{sum(which):,} of {len(heads):,} recordings {what}"
                  for what, which in counts.items() if any(which)]
        places = [(i, at) for i in heads for at in starts(frames[i], window, stride)]
        x = store.allocate((len(places), 1, sound.n_fft // 2, window), np.uint8)
        last, picture = -1, np.zeros((1, 0, 0), np.uint8)
        for row, (i, at) in enumerate(places):
            if i != last:
                last, picture = i, picture_of(self.clip(i), sound)
            short = window - picture.shape[2]
            x[row] = (picture[:, :, at:at + window] if short <= 0
                      else np.pad(picture, ((0, 0), (0, 0), (at, short - at))))
            store.done(row + 1, len(places))
        of = np.array([i for i, _ in places])
        about = attributes_of(self.files, self.how.label, self.how.attributes, np.unique(of))
        first: dict[bytes, int] = {}
        group = np.array([first.setdefault(self.digests.get(i, b""), i) for i in range(len(self))])
        space = Recordings(x.shape[1:], sound=sound, classes=about.classes,
                           factors=about.factor_names)
        data = Dataset(x, space, None if about.label is None else about.label[of],
                       None if about.factors is None else about.factors[of], group[of],
                       np.array(self.names)[of])
        rows = {k: np.flatnonzero(np.isin(of, v)) for k, v in about.parts.items()}
        return make(name, data, parts=rows, notes=(*notes, *about.notes))


def starts(frames: int, window: int, stride: int) -> list[int]:
    """Where windows start in a recording, or where one that is shorter starts within a window.

    >>> starts(100, 64, 16), starts(50, 64, 8), starts(64, 64, 8)
    ([0, 16, 32, 36], [0, 8, 14], [0])
    """
    room = abs(frames - window)
    return sorted({*range(0, room, stride), room})


def picture_of(clip: Clip, sound: Sound) -> NDArray[Any]:
    """A whole recording, (1, n_fft // 2, frames)."""
    return pictured(spectrum(resampled(clip.x, clip.rate, sound.rate), sound.n_fft, sound.hop),
                    sound)
