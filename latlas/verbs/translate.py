"""``translate``: examples of one domain turned into those of another, in memory or file by file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from latlas.core.errors import ConfigError
from latlas.run import as_run
from latlas.verbs import common, write
from latlas.verbs.common import DataLike, Examples, Flag, Out, Output, Progress, RunLike, Split
from latlas.verbs.results import Results, results_of


@dataclass(eq=False, repr=False)
class Translations(Examples):
    """Translated examples; of those that went to files only how many.

    Attributes:
        to: the domain; ``count`` how many examples were translated, or their files were there.
        clips: recordings in place of ``values``.
        files: facts about the files that were written.
    """

    to: str = "B"
    count: int = 0
    clips: Any = None
    files: dict[str, Any] = field(default_factory=dict)

    __repr__ = common.Result.__repr__

    def facts(self) -> dict[str, Any]:
        return {"to": self.to, "n": self.count, **self.files}

    def __len__(self) -> int:
        return len(self.values) if self.clips is None else len(self.clips)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index] if self.clips is None else self.clips[index]

    def note_files(self, results: Results, written: int, there: int, what: str) -> Path:
        """Say what was written to a folder, and what was there; the place of the sheet."""
        self.files = {"written": written, "found": there}
        self.written = (results.line(written, there, what),)
        return results.folder.with_name(f"{results.folder.name}-sheet.png")


@common.verb
def translate(run: RunLike, data: DataLike = None, *, split: Split = None,
              to: common.Domain = "B",
              n: Annotated[int | None, Flag(int, "Only the first N examples. Default: 16 in a "
                                                 "sheet, else all."), common.POSITIVE] = None,
              out: Annotated[Out, Output("to-{to}/", (
                  "Where to: folder/ (a PNG for each example, a GIF for each GIF, and a contact "
                  "sheet beside it), .png (the sheet alone), .npz, .npy, of one clip .gif, .apng, "
                  ".webp, .mp4. Default: RUN/to-B/."))] = None,
              progress: Progress | None = None, **read: Any) -> Translations:
    """Turn examples of one domain into those of another.

    The sheet has a row for each example: input, output and, of pairs, the target. A folder is
    written file by file; after an interruption the same command writes what is missing. Recordings
    are translated whole and written as files of the same kind. From Python, without out, the
    result is an array of n examples of that domain, and of recordings a list of clips.
    """
    from latlas.data.files import FILMS
    from latlas.data.pairs import first_side
    from latlas.verbs import translating

    run = as_run(run)
    run.require("translate")
    path = None if out is None else Path(out)
    whole = run.space.a.sound is not None and (data is None or isinstance(data, str | Path))
    form = "" if path is None else "folder" if write.is_folder(path) else path.suffix.lower()
    if whole and form not in ("", "folder", ".png"):
        raise ConfigError(f"cannot write {path}: of recordings name a folder/, or a file that "
                          "ends in .png", option="out")
    if form not in {"", "folder", ".png", ".npz", ".npy", ".webp", *FILMS}:
        raise ConfigError(f"cannot write {path}: name a folder/, or a file that ends in .png, "
                          ".npz or .npy, of one clip in .gif, .apng, .webp or .mp4", option="out")
    side, into = "A" if to == "B" else "B", translating.domains(run.space, to)[1]
    result = Translations(np.zeros((0, *into.shape), np.uint8), into, to=to)
    if whole:
        recordings = translating.open_recordings(run, data, split, side=side, **read)
        names = recordings.names[:n or (translating.SHEET if form == ".png" else None)]
        recordings = recordings.only(names)
        results = results_of(out, "translate", run, recordings, data, to=to)
        translating.translate_recordings(result, run.model, recordings, path, results, progress)
        return result
    both = run.open(data, split, side=side, **read)
    translating.must_reach(run.model, to)
    if form not in ("", "folder", ".png", ".npz", ".npy"):
        clips = translating.clips_of(first_side(both))
        if len(clips) != 1:
            count = f"{len(clips):,} clips" if clips else "no frames of a clip"
            raise ConfigError(f"cannot write {path}: {form} holds one clip, and there are "
                              f"{count}; name a folder/", option="out")
    sheet_alone = form == ".png" and first_side(both).clip is None
    both = both.subset(slice(0, n or (translating.SHEET if sheet_alone else None)))
    results = results_of(out, "translate", run, first_side(both), data, to=to)
    translating.translate_examples(result, run.model, both, path, form, results, progress)
    return result
