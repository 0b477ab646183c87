"""``runs``: what was trained below a folder, and what of it can go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from latlas.core.errors import LatlasError, RunError, say_number, say_option
from latlas.core.files import CHECKPOINT, MODEL, alone
from latlas.core.record import RUN, read_run
from latlas.data.streams import say_size
from latlas.render.text import table
from latlas.run import PRIOR, Run
from latlas.verbs.common import Flag, Result, verb

NAMED = Flag(tuple[Path, ...], "Run folder to delete; may be repeated.", repeated=True)


@dataclass(frozen=True)
class RunFacts:
    """One run folder.

    Attributes:
        state: ``finished``, ``unfinished`` (the same command goes on), ``not begun``, or
            ``damaged``.
        loss: of held-out data: of the weights that are kept, or the last in the log; ``None``
            without.
        size: bytes on disk.
        note: why it is damaged, or may be under-trained.
    """

    path: str
    model: str
    data: str
    state: str
    images: int
    loss: float | None
    size: int
    prior: bool
    note: str


@dataclass(eq=False, repr=False)
class Runs(Result):
    """The runs below a folder, by their path, and the folders that were deleted."""

    row_per_example = False
    runs: tuple[RunFacts, ...]
    deleted: tuple[str, ...] = ()
    freed: int = 0

    def facts(self) -> dict[str, Any]:
        return {"runs": [vars(run) for run in self.runs], "deleted": list(self.deleted),
                "freed": self.freed}

    def as_columns(self) -> dict[str, Any]:
        return {name: np.array([getattr(run, name) for run in self.runs])
                for name in RunFacts.__dataclass_fields__}

    def text(self) -> str:
        lines = [f"deleted {path}" for path in self.deleted]
        if self.deleted:
            lines.append(f"{say_size(self.freed)} freed")
        if not self.runs:
            return "\n".join([*lines, "no runs here; `latlas train vae --data digits` trains one"])
        rows = [(run.path, run.model, run.data, run.state, f"{run.images:,}",
                 "" if run.loss is None else say_number(run.loss, 5), "yes" if run.prior else "",
                 say_size(run.size)) for run in self.runs]
        notes = [f"{run.path}: {run.note}" for run in self.runs if run.note]
        return "\n".join([*lines, table(
            ("run", "model", "data", "state", "examples", "held-out loss", "prior", "size"), rows),
            *notes])


@verb
def runs(folder: Annotated[Path, Flag(Path, "Folder to look in, and below.", positional=True)] =
         Path("runs"), *, delete: Annotated[tuple[Path, ...], NAMED] = ()) -> Runs:
    """List the runs below a folder: model, data, state, held-out loss and size; delete some.

    Nothing but a run folder is ever deleted, and none that is being trained.
    """
    folder = Path(folder)
    if not folder.is_dir() and not delete and folder != Path("runs"):
        raise RunError(f"{folder} is no folder", what=str(folder))
    victims = [_checked(Path(path)) for path in _paths(delete)]  # all of them before any goes
    freed = sum(map(_size, victims))
    for path in victims:
        with alone(path):
            shutil.rmtree(path)
    below = sorted(_run_folders(folder)) if folder.is_dir() else []
    return Runs(tuple(map(describe, below)), tuple(map(str, victims)), freed)


def describe(path: Path) -> RunFacts:
    """What a run folder says of itself, without reading weights; of a damaged one why it is."""
    size, prior = _size(path), (path / PRIOR / MODEL).is_file()
    try:
        record = read_run(path)
    except LatlasError as error:
        return RunFacts(str(path), "", "", "damaged", 0, None, size, prior, str(error))
    source = (record.get("data") or {}).get("source")
    data = ", ".join(Path(str(part.get("source") if isinstance(part, dict) else part)).name
                     for part in (source if isinstance(source, list) else [source]) if part)
    images, loss = _last_line(path)
    state = "finished" if (path / MODEL).is_file() else (
        "unfinished" if (path / CHECKPOINT).is_file() else "not begun")
    note = ""
    if state == "finished":
        try:
            run = Run(path, record=record) if ":" not in record["model"] else None
            if run is not None and run.ending is not None:
                images, loss, note = run.ending.images, run.ending.best, "; ".join(
                    run.ending.warnings())
        except LatlasError as error:
            state, note = "damaged", str(error)
    return RunFacts(str(path), str(record.get("model", "")), data or "in memory", state, images,
                    loss, size, prior, note)


def _run_folders(folder: Path) -> Iterator[Path]:
    """Folders with a run.json; what lies in a run (its prior) is part of it."""
    if (folder / RUN).is_file():
        yield folder
        return
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            yield from _run_folders(child)


def _paths(delete: Any) -> Sequence[Any]:
    return [delete] if isinstance(delete, str | Path) else list(delete)


def _checked(path: Path) -> Path:
    """The folder of a run that may go; RunError for anything else."""
    if not (path / RUN).is_file():
        raise RunError(f"{say_option('delete', path)}: that is no run folder (it has no {RUN}); "
                       "nothing was deleted", what=str(path), option="delete")
    if path.is_symlink():
        raise RunError(f"{say_option('delete', path)}: that is a link; name the folder itself",
                       what=str(path), option="delete")
    with alone(path):  # it is not being trained
        return path


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _last_line(path: Path) -> tuple[int, float | None]:
    """Examples seen and the last held-out loss, by the log; a torn line counts as none."""
    images, loss = 0, None
    log = path / "metrics.jsonl"
    for line in log.read_text("utf-8", "replace").splitlines() if log.is_file() else ():
        try:
            entry = json.loads(line)
            images, loss = int(entry["images"]), entry.get("validation/loss", loss)
        except (ValueError, KeyError, TypeError):
            continue
    return images, loss


