"""Examples of one domain as those of another, the passes behind ``translate``: images, clips of
frames in the form and at the rate of what they were made of, and whole recordings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor

from latlas.core.errors import ConfigError, DataError, say_option
from latlas.core.space import LEVELS, PairSpace, Sound, Space
from latlas.data.batches import Sweep
from latlas.data.clips import VIDEOS
from latlas.data.dataset import Dataset
from latlas.data.images import to_ids
from latlas.data.pairs import Data, PairDataset, first_side
from latlas.data.recordings import (
    Listening,
    RecordingFiles,
    griffin_lim,
    magnitude_of,
    picture_of,
)
from latlas.data.recordings import open_recordings as open_files
from latlas.data.soundfiles import Clip, resampled, sound_bytes
from latlas.render import films, imaging
from latlas.render.text import counted
from latlas.run import Run
from latlas.verbs import write
from latlas.verbs.common import Array, Progress
from latlas.verbs.names import file_name
from latlas.verbs.passes import examples_of, inference, joined, noise, to_data
from latlas.verbs.results import Results

#: examples that are in memory at a time
BLOCK = 64
#: examples of the contact sheet; of clips how many, and frames of each
SHEET, CLIPS, FRAMES = 16, 4, 8
#: windows that a contact sheet shows of a recording at most
WINDOWS = 4
TINY = 1e-12


def domains(space: PairSpace, to: str) -> tuple[Space, Space]:
    """The space of what is given for a translation to A or B, and that of what it gives."""
    return (space.a, space.b) if to == "B" else (space.b, space.a)


def must_reach(model: Any, to: str) -> None:
    """Raise ConfigError if a model does not translate to this domain."""
    if to not in model.ways:
        raise ConfigError(f"{say_option('to', to)}: {type(model).__name__} translates "
                          f"to {' and '.join(model.ways)} alone", option="to")


def translations(model: Any, data: Dataset, to: str, size: int = BLOCK,
                 progress: Progress | None = None, before: int = 0) -> Iterator[Tensor]:
    """Examples in domain ``to``, in model units, block by block: memory holds one block.
    Noise is that of a block's place; ``before`` is how many examples come before the data.
    ConfigError: no such domain, or examples of another shape than those of the domain before."""
    must_reach(model, to)
    space, count = domains(model.space, to)[0], before
    if tuple(data.space.shape) != tuple(space.shape):
        raise ConfigError(f"examples of shape {tuple(data.space.shape)} cannot be translated to "
                          f"{to}: the model's {'B' if to == 'A' else 'A'} is of "
                          f"{tuple(space.shape)}")
    for batch in Sweep(replace(data, space=space), size, model.device):
        with inference(model):
            x = model.translate(batch.x, to=to, noise=noise(model, "translate", to, count))
        count += len(batch)
        if progress is not None:
            progress(count, len(data))
        yield x


def translated(model: Any, data: Dataset, *, to: str = "B", batch_size: int = BLOCK,
               progress: Progress | None = None) -> Array:
    """:func:`translations` joined, (n, \\*shape of that domain) in data units."""
    into = domains(model.space, to)[1]
    return joined([to_data(into, x) for x in translations(model, data, to, batch_size, progress)],
                  into)


def sheet(model: Any, data: Data, *, to: str = "B") -> Array:
    """Rows of input, output and, of pairs, the target: (n, 2 or 3, 4, H, W) RGBA 0 … 255.

    ``data`` are what is translated; of two sides the first is. Maps of classes are in shades.
    """
    inputs, (before, into), columns = first_side(data), domains(model.space, to), []
    sides = [(examples_of(inputs), before), (translated(model, inputs, to=to), into)]
    if isinstance(data, PairDataset) and data.aligned:
        sides.append((examples_of(data.b), into))
    for x, space in sides:
        levels = space.levels
        if space.ids:
            shades = np.linspace(0, 255, max(2, len(space.ids))).astype(np.uint8)
            x, levels = shades[x.argmax(1)][:, None], 256
        columns.append(imaging.to_rgba(x, levels).transpose(0, 3, 1, 2))
    return np.stack(columns, 1)


@dataclass(frozen=True)
class ClipFrames:
    """What a clip is called, and where its frames are in a data set."""

    name: str
    frames: slice

    @property
    def suffix(self) -> str:
        """The ending of its file, empty for a folder of frames."""
        suffix = PurePosixPath(self.name).suffix.lower()
        return suffix if suffix in films.FORMS or suffix in VIDEOS else ""


def clips_of(data: Dataset) -> list[ClipFrames]:
    """The clips of a data set in order; none of examples that are no frames."""
    number, names = data.take("clip"), data.take("names")
    if number is None or not len(number):
        return []
    bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(number)]
    return [ClipFrames(f"{i:05d}" if names is None else
                       PurePosixPath(str(names[start])).parent.as_posix(), slice(start, stop))
            for i, (start, stop) in enumerate(pairwise(bounds))]


def translate_files(model: Any, data: Dataset, results: Results, *, to: str = "B",
                    progress: Progress | None = None) -> tuple[int, int]:
    """A PNG for every image, by its name, a film of the same form for every film; how many files
    were written, and how many were there: those are left as they are. Frames keep the folders of
    their clips, and maps of classes are written as ids. Memory holds one block of examples, of a
    film all of one, whatever their number.
    """
    into = domains(model.space, to)[1]
    clips = [clip for clip in clips_of(data) if clip.suffix]
    single = np.ones(len(data), bool)
    for clip in clips:
        single[clip.frames] = False
    stills = data.subset(np.flatnonzero(single))

    def images(missing: list[int]) -> Iterator[bytes]:
        positions = set(missing)
        for start in sorted({i - i % BLOCK for i in missing}):  # whole blocks have the same noise
            block = stills.subset(slice(start, start + BLOCK))
            x, = translations(model, block, to, before=start)
            for i, example in enumerate(to_data(into, x), start):
                if i in positions:
                    yield (imaging.png(to_ids(example[None], into)[0]) if into.ids else
                           write.picture(example, into))
            if progress is not None:
                progress(start + len(block), len(stills))

    names = write.image_names(len(stills), stills.take("names"))
    places = [file_name(clip.name, clip.suffix) for clip in clips]
    results.claim([*names, *places])
    written, there = results.write(names, images)
    missing = [(clip, results.folder / place) for clip, place in zip(clips, places, strict=True)
               if not (results.folder / place).exists()]
    for clip, target in missing:
        frames = data.subset(clip.frames)
        films.write_film(target, translated(model, frames, to=to), into, frames.take("duration"))
        if progress is not None:
            progress(clip.frames.stop, len(data))
    return written + len(missing), there + len(clips) - len(missing)


def translate_examples(result: Any, model: Any, both: Any, path: Path | None, form: str,
                       results: Results | None, progress: Progress | None) -> None:
    """An array, a file for each example that has none yet and a contact sheet, or one film; all is
    noted in a :class:`latlas.verbs.translate.Translations`."""
    examples, to = first_side(both), result.to
    clips = clips_of(examples)
    result.count = len(examples)
    if path is None or form in (".npz", ".npy"):
        result.values = translated(model, examples, to=to, progress=progress)
        result.names = examples.take("names")
        if path is not None:
            values, names = result.values, result.names
            lengths = {clip.frames.stop - clip.frames.start for clip in clips}
            if len(lengths) == 1:  # (n, t, *shape)
                values, names = values.reshape(-1, lengths.pop(), *values.shape[1:]), None
            result.written = (write.write_examples(path, values, result.space, names),)
    elif results is not None:
        counts = translate_files(model, examples, results, to=to, progress=progress)
        what = "file" if any(clip.suffix for clip in clips) else "image"
        beside = result.note_files(results, *counts, what)
        few = both if clips else both.subset(slice(0, SHEET))
        result.written = (*result.written, _draw(model, few, beside, to))
        result.files["sheet"] = str(beside)
    elif form == ".png":
        result.written = (_draw(model, both, path, to),)
    else:
        films.write_film(path, translated(model, examples, to=to, progress=progress), result.space,
                         examples.take("duration"))
        result.written = (f"wrote {counted(len(examples), 'frame')} to {path}",)


def _draw(model: Any, data: Any, path: Path, to: str) -> str:
    """The contact sheet: a row for each example; of the first few clips a row of their first
    frames above what became of them."""
    frames, clips = 0, clips_of(first_side(data))[:CLIPS]
    if clips:
        frames = min([FRAMES, *(clip.frames.stop - clip.frames.start for clip in clips)])
        data = data.subset(np.concatenate([
            np.arange(clip.frames.start, clip.frames.start + frames) for clip in clips]))
    rows = sheet(model, data, to=to)
    kinds = rows.shape[1]
    if frames:
        rows = rows.reshape(-1, frames, *rows.shape[1:]).swapaxes(1, 2)
    across = frames or max(1, min(4, len(data) // 4)) * kinds
    write.write_bytes(path, imaging.png(imaging.grid(rows.reshape(-1, *rows.shape[-3:]), 256,
                                                       columns=across)))
    titles = ["input", "output", "target"][:kinds]
    return (f"wrote {counted(len(data), 'frame' if frames else 'example')} to {path}: "
            f"{(' above ' if frames else ' | ').join(titles)}")


def open_recordings(run: Run, data: Any = None, split: str | None = None, *, side: str = "A",
                    **options: Any) -> RecordingFiles:
    """Whole recordings of a side: of a source of one side all, of two those of that domain.

    Args:
        data: a file of sound, a folder or zip, or two of them; ``None`` is what the run was
            trained on.
        split: as in :meth:`latlas.run.Run.open`.

    DataError: no recordings there, nothing that has a place, or a broken file, unless ``on_error``
    is ``skip``.
    """
    spec: Mapping[str, Any] = (run.data or {}) if data is None else (
        data if isinstance(data, Mapping) else {"source": data})
    number = ("AB".index(side) + (spec.get("direction") == "BtoA")) % 2
    place = spec.get("source")
    if isinstance(place, list | tuple) and len(place) == 2:
        place = place[number]
    place = place.get("source") if isinstance(place, Mapping) else place
    if not isinstance(place, str | Path):
        raise DataError("recordings are translated whole: name a file of sound, or a folder or "
                        f"zip of them ({say_option('data')})")
    name, _, pattern = str(place).partition("::")
    path = Path(name).expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", what=str(path))
    how = Listening(on_error=options.get("on_error", "raise"))
    recordings = open_files(path, pattern, how=how)
    if (sides := recordings.sides()) is not None:
        recordings = sides[:2][number]
    if data is not None and split in (None, "all"):
        return recordings.whole()
    names = first_side(run.open(data, split, side=side, **options)).take("names")
    assert names is not None  # windows know their recordings
    return recordings.only(list(dict.fromkeys(str(name) for name in names)))


def translate_clips(model: Any, recordings: RecordingFiles, to: str = "B",
                    progress: Progress | None = None) -> Iterator[Clip]:
    """Every recording in domain ``to``, one after the other; DataError for a file that cannot be
    read."""
    must_reach(model, to)
    for i in range(len(recordings)):
        yield translate_clip(model, recordings.clip(i), to=to)
        if progress is not None:
            progress(i + 1, len(recordings))


def translate_clip(model: Any, clip: Clip, *, to: str = "B") -> Clip:
    """One recording in domain ``to``: as many samples at the same rate, with the same loudness.

    The phase is found by :func:`latlas.data.recordings.griffin_lim`, and loudness, the root mean
    square, is that of ``clip``, or less where it would go beyond full scale.
    """
    sound = domains(model.space, to)[0].sound
    assert sound is not None  # a run of recordings
    picture = translated_picture(model, picture_of(clip, sound), to)
    return sounded(picture, sound, clip)


def translated_picture(model: Any, picture: Array, to: str) -> Array:
    """An image (1, bins, frames) of any number of frames translated, 0 … 255 not rounded.

    Windows that overlap by half are translated and faded into each other, in decibels.
    """
    space = domains(model.space, to)[0]
    frames, window = picture.shape[2], space.shape[2]
    step = window // 2
    count = max(0, -(-(frames - window) // step)) + 1
    room = window + (count - 1) * step - frames
    padded = np.pad(picture, ((0, 0), (0, 0), (room // 2, room - room // 2)))
    windows = np.stack([padded[:, :, k * step:k * step + window] for k in range(count)])
    fade = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1)).astype(np.float64)
    total, weight, k = np.zeros(padded.shape), np.zeros(padded.shape[2]), 0
    for x in translations(model, Dataset(windows, space), to):
        for part in np.clip(space.to_data(x.float().cpu()).numpy(), 0, LEVELS - 1):
            total[:, :, k * step:k * step + window] += part * fade
            weight[k * step:k * step + window] += fade
            k += 1
    return (total / weight)[:, :, room // 2:room // 2 + frames]


def sounded(picture: Array, sound: Sound, like: Clip) -> Clip:
    """What an image (1, bins, frames) shows, with the length, rate and loudness of a recording of
    as many frames; less loud where it would go beyond full scale."""
    n = len(like.x)
    x = griffin_lim(magnitude_of(picture, sound), sound.n_fft, sound.hop,
                    -(-n * sound.rate // like.rate))
    x = resampled(x, sound.rate, like.rate)[:n]
    x = np.pad(x, (0, n - len(x)))
    mean, target = (float(np.sqrt(np.square(v).mean())) for v in (x, like.x))
    peak = float(np.abs(x).max())
    return Clip(x * min(target / max(mean, TINY), 1 / max(peak, TINY)), like.rate)


def translate_recordings(result: Any, model: Any, recordings: RecordingFiles, path: Path | None,
                         results: Results | None, progress: Progress | None) -> None:
    """Files of the kind and rate of the input in a folder, by their names (those there already are
    left), and a sheet of spectra beside it, of the input and of the output as it sounds, or the
    sheet alone; without a path clips. All is noted in a
    :class:`latlas.verbs.translate.Translations`."""
    to, result.count = result.to, len(recordings)
    if path is None:
        result.clips = list(translate_clips(model, recordings, to, progress))
        return
    sheet, space = path, domains(model.space, to)[0]
    assert space.sound is not None  # a run of recordings
    if results is not None:
        def sounds(missing: list[int]) -> Iterator[bytes]:
            rest = recordings.only([recordings.names[i] for i in missing])
            for i, clip in zip(missing, translate_clips(model, rest, to, progress), strict=True):
                yield sound_bytes(clip.x, clip.rate, endings[i].lower())

        endings = [PurePosixPath(name).suffix for name in recordings.names]
        names = [file_name(name, ending.lower())
                 for name, ending in zip(recordings.names, endings, strict=True)]
        sheet = result.note_files(results, *results.write(names, sounds), "recording")
    few = recordings.only(recordings.names[:SHEET])
    clips = [few.clip(i) for i in range(len(few))]
    both = [picture_of(clip, space.sound) for clip in (*clips, *translate_clips(model, few, to))]
    most = min(max(p.shape[2] for p in both), WINDOWS * space.shape[2])
    rows = np.stack([np.pad(p[:, :, :most], ((0, 0), (0, 0), (0, max(0, most - p.shape[2]))))
                     for p in both]).reshape(2, len(few), *both[0].shape[:2], most)
    grid = imaging.grid(rows.swapaxes(0, 1).reshape(-1, *rows.shape[2:]), columns=4)
    write.write_bytes(sheet, imaging.png(grid))
    line = f"wrote {counted(len(few), 'recording')} to {sheet}: input | output"
    result.written, result.files["sheet"] = (
        *recordings.notes, *result.written, line), str(sheet)
