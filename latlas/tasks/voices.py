"""Recordings of one voice in another: whole clips in, clips of the same length and loudness out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latlas.core.space import LEVELS, Sound, Space
from latlas.data import sound as sounds
from latlas.data.recordings import RecordingFiles, picture_of
from latlas.data.sound import Clip, resampled, wav_bytes
from latlas.tasks.common import Array, Progress, check, inference, noise
from latlas.tasks.output import file_names, write_missing
from latlas.tasks.translate import BLOCK, Translated, given_for, must_reach

#: windows that a contact sheet shows of a recording at most
SHOWN = 4
TINY = 1e-12


def translate_clip(model: Any, clip: Clip, *, to: str = "B") -> Clip:
    """One recording in domain ``to``: as many samples at the same rate, with the same loudness.

    Windows that overlap by half are translated and faded into each other, in decibels. The phase
    is found by :func:`latlas.data.sound.griffin_lim`, and loudness, the root mean square, is that
    of ``clip``, or less where it would go beyond full scale.
    """
    space = given_for(model.space, to)
    assert space.sound is not None  # a run of recordings
    return sounded(_translated(model, picture_of(clip, space.sound), space, to), space.sound, clip)


def sounded(picture: Array, kind: Sound, like: Clip) -> Clip:
    """What a picture (1, bins, frames) shows, with the length, rate and loudness of a recording of
    as many frames."""
    n = -(-len(like.x) * kind.rate // like.rate)
    x = sounds.griffin_lim(sounds.magnitude_of(picture, kind), kind.n_fft, kind.hop, n)
    whole = _of_length(resampled(x, kind.rate, like.rate), len(like.x))
    return Clip(as_loud(whole, like.x), like.rate)


def translate_clips(model: Any, found: RecordingFiles, *, to: str = "B",
                    progress: Progress | None = None) -> Iterator[Clip]:
    """Every recording in domain ``to``, one after the other.

    Raises:
        CapabilityError: the model does not translate; ConfigError: no such domain;
        DataError: a file that cannot be read.
    """
    check(model, "translate")
    must_reach(model, to)
    for i in range(len(found)):
        yield translate_clip(model, found.clip(i), to=to)
        if progress is not None:
            progress(i + 1, len(found))


def translate_wavs(model: Any, found: RecordingFiles, folder: Path, *, to: str = "B",
                   progress: Progress | None = None) -> Translated:
    """A wav file of 16 bits for every recording, by its name; those there already are left."""
    names = file_names(len(found), found.names, ".wav")

    def made(missing: list[int]) -> Iterator[bytes]:
        rest = found.only([found.names[i] for i in missing])
        for clip in translate_clips(model, rest, to=to, progress=progress):
            yield wav_bytes(clip.x, clip.rate)

    return Translated(*write_missing(folder, names, made))


def sheet(model: Any, found: RecordingFiles, *, to: str = "B") -> Array:
    """Rows of spectra, of the input and of the output as it sounds: (n, 2, 1, bins, frames)."""
    kind = given_for(model.space, to).sound
    assert kind is not None
    clips = [found.clip(i) for i in range(len(found))]
    made = list(translate_clips(model, found, to=to))
    pictures = [picture_of(clip, kind) for clip in (*clips, *made)]
    most = min(max(p.shape[2] for p in pictures), SHOWN * given_for(model.space, to).shape[2])
    rows = np.stack([np.pad(p[:, :, :most], ((0, 0), (0, 0), (0, max(0, most - p.shape[2]))))
                     for p in pictures])
    return rows.reshape(2, len(clips), *rows.shape[1:]).swapaxes(0, 1)


def as_loud(x: Array, like: Array) -> Array:
    """``x`` with the root mean square of ``like``; less where it would go beyond full scale.

    >>> as_loud(np.array([1.0, -1.0]), np.array([0.5, 0.5])).tolist()
    [0.5, -0.5]
    """
    mean, wanted = (float(np.sqrt(np.square(v).mean())) for v in (x, like))
    peak = float(np.abs(x).max())
    return x * min(wanted / max(mean, TINY), 1 / max(peak, TINY))


def _of_length(x: Array, n: int) -> Array:
    """Cut, or with silence after it."""
    return np.pad(x[:n], (0, max(0, n - len(x))))


def _translated(model: Any, picture: Array, space: Space, to: str) -> Array:
    """A picture of any number of frames translated, (1, bins, frames), 0 … 255 not rounded."""
    frames, window = picture.shape[2], space.shape[2]
    step = window // 2
    count = max(0, -(-(frames - window) // step)) + 1
    room = window + (count - 1) * step - frames
    padded = np.pad(picture, ((0, 0), (0, 0), (room // 2, room - room // 2)))
    pieces = np.stack([padded[:, :, k * step:k * step + window] for k in range(count)])
    fade = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1)).astype(np.float64)
    total, weight = np.zeros(padded.shape), np.zeros(padded.shape[2])
    for k, made in enumerate(_pieces(model, pieces, space, to)):
        total[:, :, k * step:k * step + window] += made * fade
        weight[k * step:k * step + window] += fade
    return (total / weight)[:, :, room // 2:room // 2 + frames]


def _pieces(model: Any, pieces: Array, space: Space, to: str) -> Iterator[Array]:
    """Windows translated, block by block, in data units that are not rounded."""
    for first in range(0, len(pieces), BLOCK):
        x = torch.from_numpy(pieces[first:first + BLOCK]).to(model.device).float()
        with inference(model):
            made = model.translate(space.to_model(x), to=to,
                                   noise=noise(model, "translate", to, first))
        yield from np.clip(space.to_data(made.float().cpu()).numpy(), 0, LEVELS - 1)
