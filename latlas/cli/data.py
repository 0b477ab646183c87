"""``data info`` and ``data pack``: what is in a source, and a copy of it that opens at once."""

from pathlib import Path
from typing import Annotated, Any

from latlas import data
from latlas.cli.train import Message
from latlas.core.errors import LatlasError
from latlas.render.text import table
from latlas.verbs.common import Flag, Progress, verb

SourceName = Annotated[Any, Flag(str, "A name (digits, moons …), file or folder.")]


@verb
def info(source: SourceName, other: Annotated[Any, Flag(
             str, "A second source: the other domain.", positional=True)] = None, *,
         advice: Annotated[bool, Flag(bool, "Which model to train on it, and how long here, by "
                                            "timing one for some seconds.",
                                      negative="--no-advice")] = True,
         **read: Any) -> Message:
    """What is in a source? Counts, shape, levels, classes, splits, memory; and which model?"""
    opened = data.open_source(source if other is None else (source, other), **read)
    values = data.info(opened)
    if not advice:
        return Message(values, _lines(values))
    from latlas.advice import advise

    try:
        advised = advise(source, other, source=opened, **read)
        facts, text = advised.facts(), advised.text()
    except LatlasError as error:
        facts, text = None, f"none: {error}"
    return Message({**values, "advice": facts}, "\n".join([
        _lines(values), "which model?", *(f"  {line}" for line in text.splitlines())]))


@verb
def pack(source: SourceName, out: Annotated[Any, Flag(Path, "A new folder.")],
         progress: Progress | None = None, **read: Any) -> Message:
    """Pack a source into a folder that opens at once and needs no memory."""
    packed = data.pack(source, out, progress=progress, **read)
    side = packed.a if isinstance(packed, data.PairSource) else packed
    n = len(side.base)
    return Message({"out": str(Path(out)), "n": n, "shape": side.base.x.shape[1:]},
                f"packed {n:,} examples into {Path(out)}")


def _lines(values: dict[str, Any], indent: str = "") -> str:
    width = max((len(str(k)) for k in values), default=0)
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{key}\n{_lines(value, indent + '  ')}")
        elif key == "columns" and value:
            names = ("name", "kind", "missing", "distinct", "mean", "sd")
            rows = [["" if c[k] is None or (k == "missing" and not c[k]) else (
                f"{c[k]:.4g}" if isinstance(c[k], float) else str(c[k])) for k in names]
                for c in value]
            text = table(names, rows)
            lines.append("\n".join([f"{indent}{key}", *(f"  {t}" for t in text.splitlines())]))
        elif key in ("notes", "problems") and value:
            lines.append("\n".join([f"{indent}{key}", *(f"{indent}  {v}" for v in value)]))
        else:
            lines.append(f"{indent}{key!s:<{width}}  {_value(value)}")
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, dict):
        return "none"
    return f"{value:g}" if isinstance(value, float) else (
        f"{value:,}" if isinstance(value, int) else str(value))
