"""``translate``: examples of one domain turned into those of another, in memory or file by file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from latlas.core.errors import ConfigError
from latlas.core.space import PairSpace
from latlas.render.text import counted
from latlas.run import as_run
from latlas.verbs.common import (
    DataLike,
    Domain,
    Flag,
    Out,
    Output,
    Progress,
    RunLike,
    Split,
    Translations,
    at_least,
)

if TYPE_CHECKING:
    from latlas.data.pairs import Data


def translate(run: RunLike, data: DataLike = None, *, split: Split = None, to: Domain = "B",
              n: Annotated[int | None, Flag(int, "Only the first N examples. Default: 16 in a "
                                                 "sheet, else all.")] = None,
              out: Annotated[Out, Output("to-{to}/", (
                  "Where to: folder/ (a PNG for each example, a GIF for each GIF, and a contact "
                  "sheet beside it), .png (the sheet alone), .npz, .npy, of one clip .gif, .apng, "
                  ".webp, .mp4. Default: RUN/to-B/."))] = None,
              progress: Progress | None = None, **read: Any) -> Translations:
    """Turn examples of one domain into those of another.

    The sheet has a row for each example: input, output and, of pairs, the target. A folder is
    written file by file; after an interruption the same command writes what is missing. Recordings
    are translated whole and written as wav files. From Python, without out, the result is an
    array (n, \\*shape of that domain), and of recordings a list of :class:`latlas.data.sound.Clip`.
    """
    from latlas.data.pairs import first_side
    from latlas.verbs import clips, voices, write
    from latlas.verbs.translating import SHEET, must_reach, to_space, translated

    run = as_run(run)
    run.require("translate")
    at_least("n", n, 1)
    path = None if out is None else Path(out)
    assert isinstance(run.space, PairSpace)  # of a model that translates
    whole = run.space.a.sound is not None and (data is None or isinstance(data, str | Path))
    _check_out(path, whole)
    drawn = path is not None and not write.is_folder(path) and path.suffix.lower() == ".png"
    side = "A" if to == "B" else "B"
    if whole:
        recordings = voices.open_recordings(run, data, split, side=side, **read)
        recordings = recordings.only(recordings.names[:n or (SHEET if drawn else None)])
        return voices.translate_recordings(run, recordings, path, to, progress)
    both = run.open(data, split, side=side, **read)
    must_reach(run.model, to)
    clip = first_side(both).clip
    if path is not None:
        clips.check_out(path, first_side(both))
    both = both.subset(slice(0, n or (SHEET if drawn and clip is None else None)))
    examples = first_side(both)
    result = Translations(np.zeros((0, *to_space(run.space, to).shape), np.uint8),
                          to_space(run.space, to), to=to, count=len(examples))
    model = run.model
    if path is None or path.suffix.lower() in (".npz", ".npy"):
        result.values = translated(model, examples, to=to, progress=progress)
        result.names = examples.take("names")
        if path is not None:
            rolled = clips.rolled(result.values, examples)
            names = result.names if rolled is result.values else None
            result.written = (write.write_examples(path, rolled, result.space, names),)
    elif write.is_folder(path):
        _write_folder(result, model, both, path, progress)
    elif drawn:
        result.written = (_draw(model, both, path, to),)
    else:
        clips.translate_film(model, examples, path, to=to, progress=progress)
        result.written = (f"wrote {counted(len(examples), 'frame')} to {path}",)
    return result


def _write_folder(result: Translations, model: Any, both: Data, path: Path,
                  progress: Progress | None) -> None:
    """A file for each example that has none yet, and the contact sheet beside the folder."""
    from latlas.data.pairs import first_side
    from latlas.verbs import clips
    from latlas.verbs.translating import SHEET

    examples, beside = first_side(both), path.with_name(f"{path.name}-sheet.png")
    written, kept = clips.translate_files(model, examples, path, to=result.to, progress=progress)
    what = "file" if any(c.suffix for c in clips.clips_of(examples)) else "image"
    few = both if examples.clip is not None else both.subset(slice(0, SHEET))
    there = f"; {kept:,} were there" if kept else ""
    result.files = {"written": written, "found": kept, "sheet": str(beside)}
    result.written = (f"wrote {counted(written, what)} to {path}{there}",
                      _draw(model, few, beside, result.to))


def _check_out(path: Path | None, recordings: bool) -> None:
    """Raise ConfigError for a name that translations cannot be written to."""
    from latlas.data.files import FILMS
    from latlas.verbs.write import is_folder

    if path is None or is_folder(path) or path.suffix.lower() == ".png":
        return
    if recordings:
        raise ConfigError(f"cannot write {path}: of recordings name a folder/, or a file that "
                          "ends in .png", option="out")
    if path.suffix.lower() not in {".npz", ".npy", ".webp", *FILMS}:
        raise ConfigError(f"cannot write {path}: name a folder/, or a file that ends in .png, "
                          ".npz or .npy, of one clip in .gif, .apng, .webp or .mp4", option="out")


def _draw(model: Any, data: Data, path: Path, to: str) -> str:
    """The contact sheet: a row for each example, of clips a row of frames above what became of
    it."""
    from latlas.data.pairs import first_side
    from latlas.render import imaging
    from latlas.verbs.clips import strips
    from latlas.verbs.translating import sheet
    from latlas.verbs.write import write_bytes

    chosen, frames = (data, 0) if first_side(data).clip is None else strips(data)
    rows = sheet(model, chosen, to=to)
    kinds = rows.shape[1]
    across = frames or max(1, min(4, len(rows) // 4)) * kinds
    if frames:
        rows = rows.reshape(-1, frames, *rows.shape[1:]).swapaxes(1, 2)
    write_bytes(path, imaging.png(imaging.grid(rows.reshape(-1, *rows.shape[-3:]), 256,
                                                 columns=across)))
    titles = "input | output" + " | target" * (kinds == 3)
    return (f"wrote {counted(len(chosen), 'frame' if frames else 'example')} to {path}: "
            f"{titles.replace(' | ', ' above ') if frames else titles}")
