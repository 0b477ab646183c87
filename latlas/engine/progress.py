"""What a run logs and shows while it trains."""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from latlas.core.errors import ConfigError, RunError
from latlas.core.files import whole


class Progress:
    """What training reports; shows nothing, :class:`Bar` does. Must return at once."""

    def begin(self, total: int, done: int, note: str) -> None: ...
    def advance(self, images: int) -> None: ...
    def plan(self, total: int) -> None: ...
    def terms(self, values: dict[str, float]) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def end(self, note: str) -> None: ...


class Bar(Progress):
    """A rich progress bar on stderr: share, examples/s, time left, loss terms. Where stderr is no
    terminal it prints a line every ten seconds instead."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._total = self._images = self._first = 0
        self._start = self._last = 0.0
        self._text = ""

    def begin(self, total: int, done: int, note: str) -> None:
        self._total, self._first, self._start = total, done, time.monotonic()
        print(note, file=sys.stderr)
        if sys.stderr.isatty():
            from rich import progress as rich
            from rich.console import Console
            self._bar = rich.Progress(
                rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TaskProgressColumn(),
                rich.TextColumn("{task.fields[rate]}"), rich.TimeRemainingColumn(),
                rich.TextColumn("{task.fields[text]}"), console=Console(stderr=True))
            self._bar.add_task("train", total=total, completed=done, text="", rate="")
            self._bar.start()

    def advance(self, images: int) -> None:
        now = time.monotonic()
        if now - self._last < (0.2 if self._bar else 10.0):
            return
        self._last, self._images = now, images
        rate = (images - self._first) / max(1e-9, now - self._start)
        if self._bar:
            self._bar.update(0, completed=images, text=self._text, rate=f"{rate:,.0f} examples/s")
        elif images > self._first:
            seconds = (self._total - images) / max(1e-9, rate)
            line = (f"{min(1, images / self._total):5.1%}  {rate:,.0f} examples/s  "
                    f"{max(0, seconds):,.0f} s left  {self._text}")
            print(line.rstrip(), file=sys.stderr, flush=True)

    def plan(self, total: int) -> None:
        self._total = total
        if self._bar:
            self._bar.update(0, total=total)

    def terms(self, values: dict[str, float]) -> None:
        self._text = "  ".join(f"{k} {v:.4g}" for k, v in values.items())

    def note(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")

    def end(self, note: str) -> None:
        if self._bar:
            self._bar.update(0, completed=self._images, text=self._text)
            self._bar.stop()
            self._bar = None
        elif self._text:  # where the bar did not show them to the end
            note = f"{note}: {self._text}"
        print(note, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()


class Log:
    """metrics.jsonl, TensorBoard events where asked for, and the progress bar.

    Attributes:
        run: id of the run.
        values: what was written since they were last cleared.
        earlier_seconds: training time of the run before this process.
    """

    def __init__(self, folder: Path, progress: Progress, *, is_main: bool = True,
                 tensorboard: bool = False, run: str = "") -> None:
        self.folder, self.progress, self.is_main, self.run = folder, progress, is_main, run
        self.file = folder / "metrics.jsonl"
        self.values: dict[str, float] = {}
        self.earlier_seconds, self.start = 0.0, time.monotonic()
        self.events: Any = None
        if tensorboard and is_main:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ConfigError("tensorboard=true needs the extra: pip install "
                                  "'latlas[tensorboard]'", option="tensorboard") from error
            self.events = SummaryWriter(str(folder / "tensorboard"))  # type: ignore

    @property
    def seconds(self) -> float:
        """Training time of the run, over all processes one after the other."""
        return self.earlier_seconds + time.monotonic() - self.start

    def write(self, images: int, values: Mapping[str, float]) -> None:
        """Metrics after so many examples."""
        self.values |= values
        self._append({"images": images, "seconds": round(self.seconds, 3), **values})
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(name, value, images)

    def warn(self, images: int, *texts: str) -> None:
        """Show a warning and write it down."""
        for text in texts:
            self.progress.warn(text)
            self._append({"images": images, "alarm": text})

    def close(self) -> None:
        """After the last event."""
        if self.events is not None:
            self.events.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, which only the first process writes."""
        if not self.is_main:
            return
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.file}: {error}; what was saved before is "
                           "intact") from error

    def rewind(self, images: int) -> None:
        """Drop what was written after so many examples, from where training goes on, and a line
        that a crash has cut off; what is kept replaces the file at once."""
        self.values.clear()
        if not self.is_main or not self.file.is_file():
            return
        lines = []
        for line in self.file.read_text("utf-8", "replace").splitlines():
            with suppress(ValueError, KeyError, TypeError):
                if json.loads(line)["images"] <= images:
                    lines.append(line + "\n")
        with whole(self.file) as part:
            part.write_text("".join(lines), "utf-8")
