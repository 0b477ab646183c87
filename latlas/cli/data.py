"""``data info`` and ``data pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from latlas.cli.flags import LABELLED, Json, Labelled
from latlas.cli.show import counting, emit, table

Source = Annotated[str, Parameter(help="A name (digits, moons …), file or folder.")]


def info(source: Source, other: Annotated[str | None, Parameter(
        help="A second source: the other domain.")] = None, /, *, options: Labelled = LABELLED,
         json: Json = False) -> None:
    """What is in a source? Counts, shape, levels, classes, splits, memory."""
    from latlas import data

    named = source if other is None else (source, other)
    found = data.info(data.open_source(named, **options.options()))
    emit(found, json, _lines(found))


def pack(source: Source, out: Annotated[Path, Parameter(help="A new folder.")], /, *,
         options: Labelled = LABELLED,
         json: Json = False) -> None:
    """Pack a source into a folder that opens at once and needs no memory."""
    from latlas import data

    with counting("pack") as progress:
        packed = data.pack(source, out, progress=progress, **options.options())
    n = sum(len(part) for part in packed.parts.values())
    emit({"out": str(out), "n": n, "shape": next(iter(packed.parts.values())).x.shape[1:]}, json,
         f"packed {n:,} items into {out}")


def _lines(found: dict[str, Any], indent: str = "") -> str:
    width = max((len(str(k)) for k in found), default=0)
    return "\n".join(_line(k, v, indent, width) for k, v in found.items())


def _line(key: Any, value: Any, indent: str, width: int) -> str:
    if isinstance(value, dict) and value:
        return f"{indent}{key}\n{_lines(value, indent + '  ')}"
    if key == "columns" and value:
        return f"{indent}{key}\n{_columns(value)}"
    return f"{indent}{key!s:<{width}}  {_value(value)}"


def _columns(found: list[dict[str, Any]]) -> str:
    """A line per column; missing values are named where there are any."""
    rows = [(c["name"], f"{c['mean']:.4g}", f"{c['sd']:.4g}", c["missing"] or "") for c in found]
    text = table(("name", "mean", "sd", "missing"), rows)
    return "\n".join(f"  {line}" for line in text.splitlines())


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, dict):
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool) or value is None:
        return "none" if value is None else str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value)
