"""What the loop tells while it runs; the bar of the command line is one listener."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol


class Progress(Protocol):
    """Hears how training goes; must return at once."""

    def begin(self, total: int, done: int, note: str) -> None: ...

    def advance(self, images: int) -> None: ...

    def terms(self, values: dict[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def end(self, note: str) -> None: ...


class Silent:
    """Says nothing."""

    def begin(self, total: int, done: int, note: str) -> None: ...

    def advance(self, images: int) -> None: ...

    def terms(self, values: dict[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def end(self, note: str) -> None: ...


class Bar:
    """A rich progress bar on stderr: share, images/s, time left, loss terms.

    Where stderr is no terminal it prints a line every ten seconds instead.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._total, self._done, self._drawn = 0, 0, 0.0
        self._begun, self._first = 0.0, 0
        self._words = ""

    def begin(self, total: int, done: int, note: str) -> None:
        self._total, self._first, self._begun = total, done, time.monotonic()
        print(note, file=sys.stderr)
        if sys.stderr.isatty():
            self._bar = _rich_bar()
            self._task = self._bar.add_task("train", total=total, completed=done, words="",
                                            rate="")
            self._bar.start()

    def advance(self, images: int) -> None:
        now = time.monotonic()
        if now - self._drawn < (0.2 if self._bar else 10.0):
            return
        self._drawn, self._done = now, images
        rate = (images - self._first) / max(1e-9, now - self._begun)
        if self._bar:
            self._bar.update(self._task, completed=images, words=self._words,
                             rate=f"{rate:,.0f} images/s")
        elif images > self._first:
            left = (self._total - images) / max(1e-9, rate)
            line = (f"{min(1, images / self._total):5.1%}  {rate:,.0f} images/s  "
                    f"{max(0, left):,.0f} s left  {self._words}")
            print(line.rstrip(), file=sys.stderr, flush=True)

    def terms(self, values: dict[str, float]) -> None:
        self._words = "  ".join(f"{k} {v:.4g}" for k, v in values.items())

    def note(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")

    def end(self, note: str) -> None:
        if self._bar:
            self._bar.update(self._task, completed=self._done, words=self._words)
            self._bar.stop()
            self._bar = None
        elif self._words:  # where the bar did not show them to the end
            note = f"{note}: {self._words}"
        print(note, file=sys.stderr, flush=True)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()


def _rich_bar() -> Any:
    from rich import progress as rich
    from rich.console import Console
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TaskProgressColumn(),
               rich.TextColumn("{task.fields[rate]}"), rich.TimeRemainingColumn(),
               rich.TextColumn("{task.fields[words]}"))
    return rich.Progress(*columns, console=Console(stderr=True))
