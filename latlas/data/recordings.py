"""Recordings: files of sound as images of it, and the sound of such images.

Each becomes short-time spectra in decibels under its own peak, cut into windows of a fixed number
of frames that lie ``stride`` frames apart; one shorter than a window lies at as many places within
it, between silence. Windows of a recording, and of files that are equal, share a group and so a
split. Folders and tables of labels are as for images, but A and B are two domains.

The spectrum of n samples has ``n_fft // 2 + 1`` bins and ``ceil(n / hop) + 1`` frames; frame k is
centred on sample ``k · hop``, and beyond the ends there is silence.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import LEVELS, Recordings, Sound
from latlas.data.archives import Files
from latlas.data.attributes import annotated
from latlas.data.dataset import Dataset, Source, Store, make
from latlas.data.files import SOUNDS, by_folders, complaint
from latlas.data.soundfiles import HIGHEST, LOWEST, Clip, Samples, read_sound, resampled

Spectrum = NDArray[np.complex128]
#: samples a second at most, unless told; seconds of a frame, of which the power of two is nearest
MOST, FRAME = 16_000, 0.032
OVERLAP, WINDOWS = 4, 8  # frames of a frame's length that overlap, and windows of a window's
EIGHT = 8  # sides of images that networks halve are multiples of it
ROUNDS, MOMENTUM = 100, 0.99  # of Griffin-Lim; the momentum of Perraudin et al. 2013
TINY = 1e-12


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
        _check(self.rate is None or LOWEST <= self.rate <= HIGHEST, "rate", self.rate,
               f"samples a second, {LOWEST:,} to {HIGHEST:,}")
        _check(self.window >= EIGHT and self.window % EIGHT == 0, "window", self.window,
               f"frames of an example, a multiple of {EIGHT}")
        _check(self.stride is None or self.stride >= 1, "stride", self.stride,
               "frames from a window to the next, at least 1")
        _check(self.floor > 0, "floor", f"{self.floor:g}", "decibels under the peak, above 0")

    def sound(self, heads: Collection[Clip]) -> Sound:
        """Of these recordings: the rate of most, at most 16,000 Hz, and frames of 32 ms."""
        rates, counts = np.unique([head.rate for head in heads], return_counts=True)
        rate = self.rate or min(int(rates[counts.argmax()]), MOST)
        n_fft = self.n_fft or 2 ** round(np.log2(FRAME * rate))
        hop = self.hop or n_fft // OVERLAP
        _check(n_fft >= 2 * EIGHT and n_fft % (2 * EIGHT) == 0, "n_fft", n_fft,
               f"samples of a frame, a multiple of {2 * EIGHT}")
        _check(0 < hop < n_fft and n_fft % hop == 0, "hop", hop,
               f"samples from a frame to the next, which divide {say_option('n_fft', n_fft)} at "
               "least once")
        return Sound(rate, n_fft, hop, self.floor)


def _check(fits: bool, option: str, value: Any, words: str) -> None:
    if not fits:
        raise DataError(f"{say_option(option, value)}: {words}")


def open_recordings(path: Path, pattern: str = "", /, *, how: Listening) -> RecordingFiles:
    """The recordings of a folder, a zip, or a file that is one; those that match a pattern."""
    files = Files(path, SOUNDS)
    if pattern:
        files = files.only({n: n for n in files.stored if fnmatch(n, pattern)
                            or fnmatch(PurePosixPath(n).name, pattern)})
    if not files.stored:
        which = f" whose names match {pattern}" if pattern else ""
        raise DataError(f"{path} holds no recordings ({', '.join(sorted(SOUNDS))}){which}")
    return RecordingFiles(files, how)


class RecordingFiles:
    """Recordings of one side of a place, read one by one.

    ``errors`` of what is broken and ``groups``, hashes of the files, are by position.
    """

    def __init__(self, files: Files, how: Listening, notes: Sequence[str] = ()) -> None:
        self.files, self.how, self.notes = files, how, notes
        self.names = files.titles
        self.errors: dict[int, str] = {}
        self.groups: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def only(self, names: Sequence[str]) -> RecordingFiles:
        """Those of these names, in this order."""
        stored = dict(zip(self.names, self.files.stored, strict=True))
        return RecordingFiles(self.files.only({name: stored[name] for name in names}), self.how,
                              self.notes)

    def clip(self, i: int) -> Clip:
        """Recording ``i``; DataError with its name if it is broken."""
        data = self.files.read(self.files.stored[i])
        digest = hashlib.blake2b(data, digest_size=8).digest()
        self.groups[i] = int.from_bytes(digest, "little", signed=True)
        try:
            return read_sound(data)
        except DataError as error:
            raise DataError(f"{self.files.stored[i]} cannot be read: {error}") from None

    @cached_property
    def heads(self) -> dict[int, Clip]:
        """Rate, channels and seconds of all that can be read, by position: clips without sound.
        DataError if none can."""
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
        """Those that can be read; DataError for others, unless they may be skipped."""
        self.notes = self.remarks()
        return self.only([self.names[i] for i in self.heads]) if self.errors else self

    def remarks(self) -> list[str]:
        """What was left out or changed; DataError for broken files unless they may be skipped."""
        heads = list(self.heads.values())
        return complaint(self.errors, len(self), "recordings", self.how.on_error,
                         f"{self.files.path}: ") + counted({
            "without a length in their headers: read to their ends": [h.unbounded for h in heads],
            "followed by bytes that are not read": [h.surplus for h in heads],
            "made mono, the mean of their channels": [h.channels > 1 for h in heads]})

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
        self.how = other.how = replace(self.how, rate=sound.rate)
        return self, other

    def read(self, store: Store, name: str, maps: bool, ids: str | None) -> Source:
        """Every window of every recording, and what is about of the recording."""
        heads, window = list(self.heads.values()), self.how.window
        sound, stride = self.how.sound(heads), self.how.stride or window // WINDOWS
        frames = [frames_of(-(-len(h.x) * sound.rate // h.rate), sound.hop) for h in heads]
        counts = [len(starts(n, window, stride)) for n in frames]
        notes = [*self.remarks(), summary(heads),
                 f"spectra at {sound}; windows of {window} frames "
                 f"({window * sound.hop / sound.rate:.2f} s) every {stride}",
                 *counted({f"resampled to {sound.rate:,} Hz": [h.rate != sound.rate for h in heads],
                           "shorter than a window: silence beside them": [
                               n < window for n in frames]})]
        x = store.gather((sum(counts), 1, sound.n_fft // 2, window), np.uint8, (
            part[None] for i in self.heads
            for part in windows(picture_of(self.clip(i), sound), window, stride)))
        of = np.repeat(list(self.heads), counts)
        data = Dataset(x, Recordings(x.shape[1:], sound=sound),
                       group=np.array([self.groups[i] for i in of], np.int64))
        data, parts, more = annotated(data, self.files, of, self.how.label, self.how.attributes)
        return make(name, data, parts=parts, notes=(*notes, *more, *self.files.left_out()))


def counted(which: Mapping[str, Sequence[bool]]) -> list[str]:
    """How many of the recordings each line is true of, where it is of any."""
    return [f"{sum(true):,} of {len(true):,} recordings {what}" for what, true in which.items()
            if any(true)]


def summary(heads: Sequence[Clip]) -> str:
    """Formats, rates, channels and lengths of recordings, in one line."""
    seconds = [len(head.x) / head.rate for head in heads]
    kinds = ([head.kind for head in heads], [f"{head.rate:,} Hz" for head in heads],
             [f"{head.channels} channel{'s' * (head.channels > 1)}" for head in heads])
    parts = [", ".join(f"{what} ({n:,})" for what, n in Counter(kind).most_common())
             for kind in kinds]
    return (f"recordings: {'; '.join(parts)}; {min(seconds):.2f} to {max(seconds):.2f} s, "
            f"{sum(seconds):,.1f} s in all")


def starts(frames: int, window: int, stride: int) -> list[int]:
    """Where windows start in a recording, or where one that is shorter starts within a window.

    >>> starts(100, 64, 16), starts(50, 64, 8), starts(64, 64, 8)
    ([0, 16, 32, 36], [0, 8, 14], [0])
    """
    room = abs(frames - window)
    return sorted({*range(0, room, stride), room})


def windows(picture: NDArray[Any], window: int, stride: int) -> Iterator[NDArray[Any]]:
    """Those of an image (1, bins, frames) that start at :func:`starts`, (1, bins, window) each."""
    silence = max(0, window - picture.shape[2])
    padded = np.pad(picture, ((0, 0), (0, 0), (silence, silence)))
    for start in starts(picture.shape[2], window, stride):
        at = silence - start if silence else start
        yield padded[:, :, at:at + window]


# ------------------------------------------------------------------ sound, as arrays

def frames_of(n: int, hop: int) -> int:
    """Frames of a sound of ``n`` samples.

    >>> [frames_of(n, 64) for n in (1, 64, 65, 640)]
    [2, 2, 3, 11]
    """
    return -(-n // hop) + 1


def hann(n_fft: int) -> Samples:
    """Hann's, periodic: (n_fft,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)


def spectrum(x: Samples, n_fft: int, hop: int) -> Spectrum:
    """Short-time Fourier transform of samples (n,): (n_fft // 2 + 1, frames)."""
    space = (frames_of(len(x), hop) - 1) * hop - len(x)
    padded = np.pad(x, (n_fft // 2, n_fft // 2 + space))
    pieces = sliding_window_view(padded, n_fft)[::hop]
    return fft.rfft(pieces * hann(n_fft), axis=1).T


def from_spectrum(spectra: Spectrum, n_fft: int, hop: int, n: int) -> Samples:
    """The sound (n,) whose spectrum is nearest in mean square (Griffin & Lim 1984, eq. 6).

    Of a spectrum of a sound it is that sound. ``hop`` divides ``n_fft``.
    """
    weight, overlap = hann(n_fft), n_fft // hop
    pieces = fft.irfft(spectra.T, n_fft, axis=1) * weight
    both = np.stack([pieces, np.broadcast_to(weight**2, pieces.shape)])
    total = np.zeros((2, len(pieces) + overlap - 1, hop))
    for k in range(overlap):  # each frame is a hop later than the one before
        total[:, k:k + len(pieces)] += both[:, :, k * hop:(k + 1) * hop]
    x, weights = total.reshape(2, -1)[:, n_fft // 2:n_fft // 2 + n]
    return x / np.maximum(weights, TINY)


def griffin_lim(magnitude: Samples, n_fft: int, hop: int, n: int, *, phase: Samples | None = None,
                rounds: int = ROUNDS, momentum: float = MOMENTUM) -> Samples:
    """A sound (n,) whose spectrum has nearly this magnitude (bins, frames).

    To and fro between spectra of this magnitude and spectra of sounds, from angles ``phase`` (bins,
    frames) or 0. With ``momentum`` 0 it is Griffin & Lim (1984), whose error never rises; else each
    round goes on beyond its end by that share of the last change (Perraudin et al. 2013,
    algorithm 2), which ends nearer.
    """
    ahead: Any = magnitude if phase is None else magnitude * np.exp(1j * phase)
    before: Any = 0.0

    def sound() -> Samples:
        turned = magnitude * (ahead / np.maximum(np.abs(ahead), TINY))
        return from_spectrum(turned, n_fft, hop, n)

    for _ in range(rounds):
        now = spectrum(sound(), n_fft, hop)
        ahead, before = now + momentum * (now - before), now
    return sound()


def picture_of(clip: Clip, sound: Sound) -> NDArray[np.uint8]:
    """A whole recording as :func:`pictured`."""
    return pictured(spectrum(resampled(clip.x, clip.rate, sound.rate), sound.n_fft, sound.hop),
                    sound)


def pictured(spectra: Spectrum, sound: Sound) -> NDArray[np.uint8]:
    """A spectrum as an image (1, n_fft // 2, frames), 0 … 255: decibels under its own peak.

    High tones are above, 0 is ``sound.floor`` decibels under the peak or less. The highest bin,
    half the rate, is left out, so that the height is a power of two.
    """
    level = np.abs(spectra[:-1])
    decibels = 20 * np.log10(np.maximum(level / max(float(level.max()), TINY), TINY))
    shade = np.clip(1 + decibels / sound.floor, 0, 1)[::-1]
    return np.rint(shade * (LEVELS - 1)).astype(np.uint8)[None]


def magnitude_of(picture: NDArray[Any], sound: Sound) -> Samples:
    """The inverse of :func:`pictured` with a peak of 1: (n_fft // 2 + 1, frames).

    The darkest is silence, and so is the bin that an image leaves out.
    """
    shade = np.asarray(picture[0, ::-1], np.float64) / (LEVELS - 1)
    level = np.where(shade > 0, 10 ** ((shade - 1) * sound.floor / 20), 0.0)
    return np.pad(level, ((0, 1), (0, 0)))
