"""Recordings in wav files: read, brought to one channel and rate, and written."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from scipy.io import wavfile

from latlas.core.errors import DataError

Samples = NDArray[np.float64]
FULL = 32767  # of 16 bits


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

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.x) / self.rate


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
    return _checked(_scaled(np.asarray(x)), int(rate))


def _scaled(x: NDArray[Any]) -> Samples:
    """Full scale to −1 … 1; 8 bits have no sign, 24 bits lie in the upper part of 32."""
    if x.dtype.kind == "f":
        return x.astype(np.float64)
    middle = 128 if x.dtype.kind == "u" else 0
    return (x.astype(np.float64) - middle) / 2.0 ** (8 * x.dtype.itemsize - 1)


def _checked(x: Samples, rate: int) -> Clip:
    if not x.size or rate < 1:
        raise DataError("it holds no samples")
    if not np.isfinite(x).all():
        raise DataError("it holds NaN or infinity")
    return Clip(x if x.ndim == 1 else x.mean(axis=1), rate, 1 if x.ndim == 1 else x.shape[1])


def resampled(x: Samples, rate: int, to: int) -> Samples:
    """Samples (n,) at another rate, ``ceil(n · to / rate)`` of them, by a polyphase filter."""
    if rate == to:
        return x
    both = math.gcd(rate, to)
    made: Samples = signal.resample_poly(x, to // both, rate // both)
    return made


def wav_bytes(x: Samples, rate: int) -> bytes:
    """Samples (n,), full scale −1 … 1, as a wav file of 16 bits."""
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, np.rint(np.clip(x, -1, 1) * FULL).astype(np.int16))
    return buffer.getvalue()
