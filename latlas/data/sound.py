"""Recordings in wav files, sound as an image and back: spectra, and the phase that they leave out.

All functions are pure, on arrays. The spectrum of n samples has ``n_fft // 2 + 1`` bins and
``ceil(n / hop) + 1`` frames; frame k is centred on sample ``k · hop``, and beyond the ends there is
silence.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.signal
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft
from scipy.io import wavfile

from latlas.core.errors import DataError
from latlas.core.space import LEVELS, Sound

Samples = NDArray[np.float64]
Spectrum = NDArray[np.complex128]
FULL = 32767  # of 16 bits
#: of Griffin-Lim: how often, and how much of the last change is added again (Perraudin et al. 2013)
ROUNDS, MOMENTUM = 100, 0.99
TINY = 1e-12


@dataclass(frozen=True)
class Clip:
    """A recording of one channel.

    Attributes:
        x: (n,) float64, full scale −1 … 1.
        rate: samples a second.
        channels: how many there were in the file; ``x`` is their mean.
    """

    x: Samples
    rate: int
    channels: int = 1


def read_wav(data: bytes) -> Clip:
    """The bytes of a wav file of 8, 16, 24 or 32 bits or of floats.

    Raises:
        DataError: damaged, cut off, empty, or holding NaN or infinity; it does not name the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Chunk", wavfile.WavFileWarning)
            warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
            rate, x = wavfile.read(io.BytesIO(data))
    except wavfile.WavFileWarning:
        raise DataError("it ends before the end that its head names") from None
    except ValueError as error:
        raise DataError(str(error).split("\n")[0] or "not a wav file") from None
    except Exception:  # struct.error, UnboundLocalError, ...
        raise DataError("it is cut off, or no wav file") from None
    if not x.size or rate < 1:
        raise DataError("it holds no samples")
    if x.dtype.kind != "f":  # 8 bits have no sign, 24 bits lie in the upper part of 32
        middle = 128 if x.dtype.kind == "u" else 0
        x = (x.astype(np.float64) - middle) / 2.0 ** (8 * x.dtype.itemsize - 1)
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise DataError("it holds NaN or infinity")
    return Clip(x if x.ndim == 1 else x.mean(axis=1), int(rate), 1 if x.ndim == 1 else x.shape[1])


def resampled(x: Samples, rate: int, to: int) -> Samples:
    """Samples (n,) at another rate, ``ceil(n · to / rate)`` of them, by a polyphase filter."""
    if rate == to:
        return x
    both = math.gcd(rate, to)
    return scipy.signal.resample_poly(x, to // both, rate // both)


def wav_bytes(x: Samples, rate: int) -> bytes:
    """Samples (n,), full scale −1 … 1, as a wav file of 16 bits."""
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, np.rint(np.clip(x, -1, 1) * FULL).astype(np.int16))
    return buffer.getvalue()


def frames_of(n: int, hop: int) -> int:
    """Frames of a sound of ``n`` samples.

    >>> [frames_of(n, 64) for n in (1, 64, 65, 640)]
    [2, 2, 3, 11]
    """
    return -(-n // hop) + 1


def window(n_fft: int) -> Samples:
    """Hann's, periodic: (n_fft,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)


def spectrum(x: Samples, n_fft: int, hop: int) -> Spectrum:
    """Short-time Fourier transform of samples (n,): (n_fft // 2 + 1, frames)."""
    space = (frames_of(len(x), hop) - 1) * hop - len(x)
    padded = np.pad(x, (n_fft // 2, n_fft // 2 + space))
    pieces = sliding_window_view(padded, n_fft)[::hop]
    return fft.rfft(pieces * window(n_fft), axis=1).T


def from_spectrum(spectra: Spectrum, n_fft: int, hop: int, n: int) -> Samples:
    """The sound (n,) whose spectrum is nearest in mean square (Griffin & Lim 1984, eq. 6).

    Of a spectrum of a sound it is that sound. ``hop`` divides ``n_fft``.
    """
    weight = window(n_fft)
    pieces = fft.irfft(spectra.T, n_fft, axis=1) * weight
    sums = []
    for part in (pieces, np.broadcast_to(weight**2, pieces.shape)):  # each hop later, added up
        total = np.zeros((len(part) + n_fft // hop - 1, hop))
        for k in range(n_fft // hop):
            total[k:k + len(part)] += part[:, k * hop:(k + 1) * hop]
        sums.append(total.ravel())
    x: Samples = sums[0] / np.maximum(sums[1], TINY)
    return x[n_fft // 2:n_fft // 2 + n]


def griffin_lim(magnitude: Samples, n_fft: int, hop: int, n: int, *, phase: Samples | None = None,
                rounds: int = ROUNDS, momentum: float = MOMENTUM) -> Samples:
    """A sound (n,) whose spectrum has nearly this magnitude (bins, frames).

    To and fro between spectra of this magnitude and spectra of sounds. With ``momentum`` 0 it is
    Griffin & Lim (1984), whose error never rises; else each round goes on beyond
    its end by that share of the last change (Perraudin et al. 2013, algorithm 2), which ends
    nearer.

    Args:
        phase: angles (bins, frames) to start from; ``None``: none, all 0.
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
