"""What a run logs and shows while it trains."""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from latlas.core.errors import ConfigError, RunError, say_number
from latlas.core.files import whole

#: seconds by which speed and time left are judged
RECENT = 30.0


class Progress:
    """What training reports; shows nothing, :class:`Bar` does. Must return at once.

    ``share`` is that of the run which is done, 0 … 1, by its schedule; ``n`` the size of the
    training set.
    """

    def begin(self, note: str, n: int, images: int = 0, share: float = 0.0) -> None: ...
    def advance(self, images: int, share: float) -> None: ...
    def terms(self, values: dict[str, float]) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def end(self, note: str) -> None: ...


class Bar(Progress):
    """A rich progress bar on stderr: share, examples, epochs, examples/s, time left, loss terms.
    Where stderr is no terminal it prints a line at the first step and every ten seconds.

    A roll-back takes the run back, and the bar stands still until it is where it was. Speed and
    time left are those of the last half minute.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.n = clock, 1
        self.recent: deque[tuple[float, int, float]] = deque()  # seconds, examples, share
        self._bar: Any = None
        self._share, self._refreshed = 0.0, -math.inf
        self._text = ""

    def begin(self, note: str, n: int, images: int = 0, share: float = 0.0) -> None:
        self.n, self._share = n, share
        self.recent.append((self.clock(), images, share))
        print(note, file=sys.stderr)
        if sys.stderr.isatty():
            from rich import progress as rich
            from rich.console import Console
            from rich.table import Column
            # of a narrow terminal the last terms of the loss are cut, not the share
            self._bar = rich.Progress(
                rich.BarColumn(10, table_column=Column(min_width=10)),
                rich.TextColumn("{task.percentage:5.1f}%", table_column=Column(min_width=6)),
                rich.TextColumn("{task.description}", table_column=Column(
                    no_wrap=True, overflow="ellipsis", ratio=1)),
                console=Console(stderr=True), expand=True)
            self._bar.add_task("", total=1.0, completed=share)
            self._bar.start()

    def advance(self, images: int, share: float) -> None:
        now = self.clock()
        self._share = max(self._share, share)
        if now - self._refreshed < (0.2 if self._bar else 10.0):
            return
        self._refreshed = now
        self.recent.append((now, images, share))
        while len(self.recent) > 2 and now - self.recent[1][0] >= RECENT:
            self.recent.popleft()
        line = self.line()
        if self._bar:
            self._bar.update(0, completed=self._share, description=line)
        else:
            print(f"{self._share:6.1%}  {line}", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Examples, epochs, and by what was reached of late the speed and the time left."""
        (begun, first, before), (now, images, share) = self.recent[0], self.recent[-1]
        parts = [f"{images:,} examples ({say_number(images / self.n)} epochs)"]
        if images > first and share > before and now > begun:
            seconds = round((1 - share) * (now - begun) / (share - before))
            parts += [f"{say_number((images - first) / (now - begun))}/s",
                      f"{timedelta(seconds=seconds)} left"]
        return "  ".join([*parts, self._text]).rstrip()

    def terms(self, values: dict[str, float]) -> None:
        self._text = "  ".join(f"{k} {say_number(v, 4)}" for k, v in values.items())

    def note(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")

    def end(self, note: str) -> None:
        if self._bar:
            self._bar.update(0, completed=self._share, description=self.line())
            self._bar.stop()
            self._bar = None
        if self._text:  # which a bar may have cut
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
