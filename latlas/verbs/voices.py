"""Recordings of one voice in another: whole clips in, clips of the same length and loudness out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latlas.core.errors import DataError, say_option
from latlas.core.space import LEVELS, Sound, Space
from latlas.data import sound as sounds
from latlas.data.pairs import first_side
from latlas.data.recordings import Listening, RecordingFiles, picture_of
from latlas.data.recordings import open_recordings as open_files
from latlas.data.sound import Clip, resampled, wav_bytes
from latlas.render import imaging
from latlas.render.text import counted
from latlas.run import Run
from latlas.verbs.common import Array, Progress, Translations
from latlas.verbs.passes import inference, noise
from latlas.verbs.translating import BLOCK, SHEET, from_space, must_reach, to_space
from latlas.verbs.write import file_names, is_folder, write_bytes, write_missing

#: windows that a contact sheet shows of a recording at most
SHOWN = 4
TINY = 1e-12


def translate_clip(model: Any, clip: Clip, *, to: str = "B") -> Clip:
    """One recording in domain ``to``: as many samples at the same rate, with the same loudness.

    Windows that overlap by half are translated and faded into each other, in decibels. The phase
    is found by :func:`latlas.data.sound.griffin_lim`, and loudness, the root mean square, is that
    of ``clip``, or less where it would go beyond full scale.
    """
    space = from_space(model.space, to)
    assert space.sound is not None  # a run of recordings
    return sounded(_translated(model, picture_of(clip, space.sound), space, to), space.sound, clip)


def sounded(picture: Array, kind: Sound, like: Clip) -> Clip:
    """What an image (1, bins, frames) shows, with the length, rate and loudness of a recording of
    as many frames."""
    n = -(-len(like.x) * kind.rate // like.rate)
    x = sounds.griffin_lim(sounds.magnitude_of(picture, kind), kind.n_fft, kind.hop, n)
    whole = _of_length(resampled(x, kind.rate, like.rate), len(like.x))
    return Clip(as_loud(whole, like.x), like.rate)


def translate_clips(model: Any, recordings: RecordingFiles, *, to: str = "B",
                    progress: Progress | None = None) -> Iterator[Clip]:
    """Every recording in domain ``to``, one after the other.

    Raises:
        ConfigError: no such domain; DataError: a file that cannot be read.
    """
    must_reach(model, to)
    for i in range(len(recordings)):
        yield translate_clip(model, recordings.clip(i), to=to)
        if progress is not None:
            progress(i + 1, len(recordings))


def translate_recordings(run: Run, recordings: RecordingFiles, path: Path | None, to: str,
                         progress: Progress | None = None) -> Translations:
    """Recordings as wav files of 16 bits in a folder, by their names (those there already are
    left), and a sheet of spectra beside it, or the sheet alone; without a path as clips."""
    model = run.model
    into = to_space(run.space, to)
    result = Translations(np.zeros((0, *into.shape), np.uint8), into,
                          to=to, count=len(recordings))
    if path is None:
        result.clips = list(translate_clips(model, recordings, to=to, progress=progress))
        return result
    beside = path
    if is_folder(path):
        def files(missing: list[int]) -> Iterator[bytes]:
            rest = recordings.only([recordings.names[i] for i in missing])
            for clip in translate_clips(model, rest, to=to, progress=progress):
                yield wav_bytes(clip.x, clip.rate)

        names = file_names(len(recordings), recordings.names, ".wav")
        written, kept = write_missing(path, names, files)
        there = f"; {kept:,} were there" if kept else ""
        result.written = (f"wrote {counted(written, 'recording')} to {path}{there}",)
        result.files = {"written": written, "found": kept}
        beside = path.with_name(f"{path.name}-sheet.png")
    few = recordings.only(recordings.names[:SHEET])
    rows = sheet(model, few, to=to)
    write_bytes(beside, imaging.png(imaging.grid(rows.reshape(-1, *rows.shape[2:]), columns=4)))
    line = f"wrote {counted(len(rows), 'recording')} to {beside}: input | output"
    result.written, result.files["sheet"] = (*result.written, line), str(beside)
    return result


def open_recordings(run: Run, data: Any = None, split: str | None = None, *, side: str = "A",
                    **options: Any) -> RecordingFiles:
    """Whole recordings of a side: of a source of one side all, of two those of that domain.

    Args:
        data: a wav file, a folder or zip, or two of them; ``None`` is what the run was trained on.
        split: as in :meth:`latlas.run.Run.open`.

    Raises:
        DataError: no recordings there, nothing that has a place, or a broken file, unless
            ``on_error`` is ``skip``.
    """
    spec: Mapping[str, Any] = (run.data or {}) if data is None else (
        data if isinstance(data, Mapping) else {"source": data})
    number = ("AB".index(side) + (spec.get("direction") == "BtoA")) % 2
    place = spec.get("source")
    if isinstance(place, list | tuple) and len(place) == 2:
        place = place[number]
    place = place.get("source") if isinstance(place, Mapping) else place
    if not isinstance(place, str | Path):
        raise DataError("recordings are translated whole: name a wav file, or a folder or zip of "
                        f"them ({say_option('data')})")
    name, _, pattern = str(place).partition("::")
    path = Path(name).expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", what=str(path))
    recordings = open_files(path, pattern, how=Listening(on_error=options.get("on_error", "raise")))
    sides = recordings.sides()
    recordings = recordings if sides is None else sides[:2][number]
    if data is not None and split in (None, "all"):
        return recordings.whole()
    names = first_side(run.open(data, split, side=side, **options)).take("names")
    assert names is not None  # windows know their recordings
    return recordings.only(list(dict.fromkeys(str(name) for name in names)))


def sheet(model: Any, recordings: RecordingFiles, *, to: str = "B") -> Array:
    """Rows of spectra, of the input and of the output as it sounds: (n, 2, 1, bins, frames)."""
    kind = from_space(model.space, to).sound
    assert kind is not None
    clips = [recordings.clip(i) for i in range(len(recordings))]
    both = [picture_of(clip, kind)
            for clip in (*clips, *translate_clips(model, recordings, to=to))]
    most = min(max(p.shape[2] for p in both), SHOWN * from_space(model.space, to).shape[2])
    rows = np.stack([np.pad(p[:, :, :most], ((0, 0), (0, 0), (0, max(0, most - p.shape[2]))))
                     for p in both])
    return rows.reshape(2, len(clips), *rows.shape[1:]).swapaxes(0, 1)


def as_loud(x: Array, like: Array) -> Array:
    """``x`` with the root mean square of ``like``; less where it would go beyond full scale.

    >>> as_loud(np.array([1.0, -1.0]), np.array([0.5, 0.5])).tolist()
    [0.5, -0.5]
    """
    mean, target = (float(np.sqrt(np.square(v).mean())) for v in (x, like))
    peak = float(np.abs(x).max())
    return x * min(target / max(mean, TINY), 1 / max(peak, TINY))


def _of_length(x: Array, n: int) -> Array:
    """Cut, or with silence after it."""
    return np.pad(x[:n], (0, max(0, n - len(x))))


def _translated(model: Any, picture: Array, space: Space, to: str) -> Array:
    """An image of any number of frames translated, (1, bins, frames), 0 … 255 not rounded."""
    frames, window = picture.shape[2], space.shape[2]
    step = window // 2
    count = max(0, -(-(frames - window) // step)) + 1
    room = window + (count - 1) * step - frames
    padded = np.pad(picture, ((0, 0), (0, 0), (room // 2, room - room // 2)))
    pieces = np.stack([padded[:, :, k * step:k * step + window] for k in range(count)])
    fade = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1)).astype(np.float64)
    total, weight = np.zeros(padded.shape), np.zeros(padded.shape[2])
    for k, piece in enumerate(_pieces(model, pieces, space, to)):
        total[:, :, k * step:k * step + window] += piece * fade
        weight[k * step:k * step + window] += fade
    return (total / weight)[:, :, room // 2:room // 2 + frames]


def _pieces(model: Any, pieces: Array, space: Space, to: str) -> Iterator[Array]:
    """Windows translated, block by block, in data units that are not rounded."""
    for first in range(0, len(pieces), BLOCK):
        x = torch.from_numpy(pieces[first:first + BLOCK]).to(model.device).float()
        with inference(model):
            out = model.translate(space.to_model(x), to=to,
                                  noise=noise(model, "translate", to, first))
        yield from np.clip(space.to_data(out.float().cpu()).numpy(), 0, LEVELS - 1)
