"""Sound as a picture and back: short-time spectra, and the phase that a picture leaves out.

All functions are pure, on arrays. The spectrum of n samples has ``n_fft // 2 + 1`` bins and
``ceil(n / hop) + 1`` frames; frame k is centred on sample ``k · hop``, and beyond the ends there is
silence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

from latlas.core.space import LEVELS, Sound

Samples = NDArray[np.float64]
Spectrum = NDArray[np.complex128]
#: of Griffin-Lim: how often, and how much of the last change is added again (Perraudin et al. 2013)
ROUNDS, MOMENTUM = 100, 0.99
TINY = 1e-12


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


def signal(spectra: Spectrum, n_fft: int, hop: int, n: int) -> Samples:
    """The sound (n,) whose spectrum is nearest in mean square (Griffin & Lim 1984, eq. 6).

    Of a spectrum of a sound it is that sound. ``hop`` divides ``n_fft``.
    """
    weight = window(n_fft)
    pieces = fft.irfft(spectra.T, n_fft, axis=1) * weight
    total = _overlapped(pieces, hop) / np.maximum(
        _overlapped(np.broadcast_to(weight**2, pieces.shape), hop), TINY)
    return total[n_fft // 2:n_fft // 2 + n]


def _overlapped(pieces: Samples, hop: int) -> Samples:
    """Pieces (frames, n_fft), each ``hop`` later than the one before, added up."""
    count, n_fft = pieces.shape
    total = np.zeros((count + n_fft // hop - 1, hop))
    for k in range(n_fft // hop):
        total[k:k + count] += pieces[:, k * hop:(k + 1) * hop]
    return total.ravel()


def griffin_lim(magnitude: Samples, n_fft: int, hop: int, n: int, *, phase: Samples | None = None,
                rounds: int = ROUNDS, momentum: float = MOMENTUM) -> Samples:
    """A sound (n,) whose spectrum has nearly this magnitude (bins, frames).

    To and fro between spectra of this magnitude and spectra of sounds. With ``momentum`` 0 it is
    Griffin & Lim (1984), whose :func:`inconsistency` never rises; else each round goes on beyond
    its end by that share of the last change (Perraudin et al. 2013, algorithm 2), which ends
    nearer.

    Args:
        phase: angles (bins, frames) to start from; ``None``: none, all 0.
    """
    ahead: Any = magnitude if phase is None else magnitude * np.exp(1j * phase)
    before: Any = 0.0
    for _ in range(rounds):
        found = spectrum(signal(_turned(magnitude, ahead), n_fft, hop, n), n_fft, hop)
        ahead, before = found + momentum * (found - before), found
    return signal(_turned(magnitude, ahead), n_fft, hop, n)


def _turned(magnitude: Samples, like: Spectrum) -> Spectrum:
    """This magnitude with the phase of ``like``."""
    return magnitude * (like / np.maximum(np.abs(like), TINY))


def inconsistency(x: Samples, magnitude: Samples, n_fft: int, hop: int) -> float:
    """How far a sound's magnitude is from the one wanted, as a share of it (spectral convergence).

    ‖ |STFT(x)| − M ‖ / ‖M‖, in the Euclidean norm.
    """
    gap = np.abs(spectrum(x, n_fft, hop)) - magnitude
    return float(np.linalg.norm(gap) / max(float(np.linalg.norm(magnitude)), TINY))


def pictured(spectra: Spectrum, sound: Sound) -> NDArray[np.uint8]:
    """A spectrum as a picture (1, n_fft // 2, frames), 0 … 255: decibels under its own peak.

    High tones are above, 0 is ``sound.floor`` decibels under the peak or less. The highest bin,
    half the rate, is left out, so that the height is a power of two.
    """
    level = np.abs(spectra[:-1])
    decibels = 20 * np.log10(np.maximum(level / max(float(level.max()), TINY), TINY))
    shade = np.clip(1 + decibels / sound.floor, 0, 1)[::-1]
    return np.rint(shade * (LEVELS - 1)).astype(np.uint8)[None]


def magnitude_of(picture: NDArray[Any], sound: Sound) -> Samples:
    """The inverse of :func:`pictured` with a peak of 1: (n_fft // 2 + 1, frames).

    The darkest is silence, and so is the bin that a picture leaves out.
    """
    shade = np.asarray(picture[0, ::-1], np.float64) / (LEVELS - 1)
    level = np.where(shade > 0, 10 ** ((shade - 1) * sound.floor / 20), 0.0)
    return np.pad(level, ((0, 1), (0, 0)))
