"""Tables and numbers as plain text."""

import sys
from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns aligned by spaces, numbers to the right."""
    cells = [[str(c) for c in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        padded = [c.rjust(w) if c.lstrip("-−+.")[:1].isdigit() else c.ljust(w)
                  for c, w in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def counted(n: int, what: str) -> str:
    """``1 example``, ``1,797 examples``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def drawn(rich_table: Any) -> str:
    """A rich table as text: as wide as the terminal, or as it needs where there is none."""
    from io import StringIO

    from rich.console import Console

    tty, text = sys.stdout.isatty(), StringIO()
    Console(file=text, force_terminal=tty, width=None if tty else 200).print(rich_table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
