"""What commands print: a result as text or as JSON on stdout, everything else on stderr."""

from __future__ import annotations

import json as jsonlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def emit(result: Any, json: bool, text: str) -> None:
    """The result on stdout: as one JSON object, or as text. A number that is not finite is null."""
    print(jsonlib.dumps(plain(result), indent=2) if json else text)


def tell(text: str) -> None:
    """A remark, on stderr."""
    print(text, file=sys.stderr)


def plain(value: Any) -> Any:
    """JSON's own types: arrays as lists, infinities and NaN as null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr for tasks that call it with (done, all); nothing without a
    terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
