"""Evaluations side by side, with the controls; on the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latlas.core.errors import ConfigError
from latlas.report.html import Cell, Table
from latlas.tasks.figures import KINDS, Figure, number

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from latlas.tasks.evaluate import Evaluation

LIKELIHOODS = ("nats", "bits_per_dim", "elbo", "elbo_reconstruction", "elbo_kl")
ARROWS = {"low": "↓", "high": "↑", "fair": "≈", "": ""}


@dataclass(frozen=True)
class Line:
    """One figure over all models.

    Attributes:
        cells: what each model's column shows.
        values: each model's figure, ``None`` where it has none.
        best: columns with the best comparable value.
        control: the control's figure with its name; ``memoriser`` that of copies.
        ceiling: of the best there could be.
    """

    key: str
    cells: tuple[str, ...]
    values: tuple[Figure | None, ...]
    best: frozenset[int]
    control: str
    memoriser: str
    ceiling: str = ""

    @property
    def title(self) -> str:
        """``bits per dimension ↓``."""
        kind = KINDS[self.key]
        return f"{kind.title}\u00a0{ARROWS[kind.good]}".rstrip("\u00a0")

    @property
    def beside(self) -> dict[str, str]:
        """What stands after the control, by column."""
        return {"copies": self.memoriser, "ceiling": self.ceiling}


@dataclass(frozen=True)
class Comparison:
    """Several evaluations on the same data, in one table."""

    evaluations: tuple[Evaluation, ...]

    @property
    def names(self) -> list[str]:
        """Column headings; equal names are numbered."""
        given = [e.name for e in self.evaluations]
        return [n if given.count(n) == 1 else f"{n} #{i + 1}" for i, n in enumerate(given)]

    @property
    def base_measure(self) -> str | None:
        """What the compared likelihoods are of: integers if any model's are, else the first."""
        held = [e.base_measure for e in self.evaluations if e.base_measure]
        return "integers" if "integers" in held else held[0] if held else None

    @property
    def notes(self) -> list[str]:
        """Which likelihoods are not compared, and every model's own notes."""
        lines = [self._apart(name, e) for name, e in zip(self.names, self.evaluations, strict=True)
                 if e.base_measure != self.base_measure and self.base_measure]
        for name, evaluation in zip(self.names, self.evaluations, strict=True):
            lines += [f"{name}: {note}" for note in evaluation.notes]
            flags = dict.fromkeys(f.flag for f in evaluation.figures if f.flag)
            lines += [f"{name}: † marks figures that are unreliable ({flag}): loose lower bounds."
                      for flag in flags]
        return _grouped(lines)

    def lines(self) -> list[Line]:
        """Every figure that any model has, in the order of the table of kinds."""
        return [self._line(key) for key in KINDS
                if any(e.get(key) for e in self.evaluations)]

    def rows(self) -> list[dict[str, str]]:
        """One dictionary per figure: group, figure, each model, control, memoriser, meaning."""
        return [{"group": KINDS[line.key].group, "figure": line.title.strip(),
                 **dict(zip(self.names, line.cells, strict=True)), "control": line.control,
                 "copies of training items": line.memoriser, "ceiling": line.ceiling,
                 "meaning": KINDS[line.key].says}
                for line in self.lines()]

    def to_json(self) -> dict[str, Any]:
        """Every evaluation, and what is compared."""
        return {"base_measure": self.base_measure, "notes": self.notes,
                "evaluations": [e.to_json() for e in self.evaluations]}

    def text(self) -> RichTable:
        """A table for the terminal."""
        from rich.table import Table as Drawn

        table = Drawn(box=None, header_style="bold", pad_edge=False)
        table.add_column("")
        for name in (*self.names, "control", *self._beside()):
            table.add_column(name, justify="right", overflow="fold")
        group = ""
        for line in self.lines():
            if KINDS[line.key].group != group:
                group = KINDS[line.key].group
                table.add_row(f"[bold cyan]{group}[/]")
            table.add_row(*self._rich(line))
        return table

    def html(self, keys: Sequence[str] | None = None, *, meaning: bool = True) -> Table:
        """A table for the report; ``keys`` chooses figures, ``meaning`` explains each."""
        beside = self._beside() if keys is None else []
        head = ["", *self.names, "control", *beside]
        body: list[list[Cell]] = []
        group = ""
        for line in (line for line in self.lines() if keys is None or line.key in keys):
            if keys is None and KINDS[line.key].group != group:
                group = KINDS[line.key].group
                body.append([Cell(group)])
            body.append(self._cells(line, meaning, beside))
        return Table(head, body)

    def _beside(self) -> list[str]:
        """Columns after the control that some figure fills."""
        figures = [f for e in self.evaluations for f in e.figures]
        held = {"copies": any(f.memoriser is not None for f in figures),
                "ceiling": any(f.ceiling is not None for f in figures)}
        return [name for name, filled in held.items() if filled]

    def _rich(self, line: Line) -> list[str]:
        cells = [f"[bold green]{c}[/]" if i in line.best else c for i, c in enumerate(line.cells)]
        more = [line.control, *(line.beside[name] for name in self._beside())]
        return [line.title, *cells, *(f"[dim]{m}[/]" for m in more)]

    def _cells(self, line: Line, meaning: bool, beside: Sequence[str]) -> list[Cell]:
        cells = [Cell(text, "best" if i in line.best else _role(figure))
                 for i, (text, figure) in enumerate(zip(line.cells, line.values, strict=True))]
        extra = [Cell(line.beside[name], "control") for name in beside]
        says = KINDS[line.key].says if meaning else ""
        value, _, name = line.control.partition(" (")
        control = Cell(value, "control", name.removesuffix(")"))
        return [Cell(line.title, below=says), *cells, control, *extra]

    def _line(self, key: str) -> Line:
        figures = tuple(e.get(key) for e in self.evaluations)
        shared = [f for i, f in enumerate(figures) if f and self._comparable(key, i)]
        cells = tuple(self._cell(key, i, f) for i, f in enumerate(figures))
        return Line(key, cells, figures, self._best(key, figures), _control(shared),
                    _first(shared, "memoriser"), _first(shared, "ceiling"))

    def _cell(self, key: str, column: int, figure: Figure | None) -> str:
        if figure is None:
            return "–"
        if not self._comparable(key, column):
            return f"{figure.text()} ({self.evaluations[column].base_measure})"
        return figure.text() + (" †" if figure.flag else "")

    def _comparable(self, key: str, column: int) -> bool:
        return key not in LIKELIHOODS or self.evaluations[column].base_measure == self.base_measure

    def _best(self, key: str, figures: Sequence[Figure | None]) -> frozenset[int]:
        """Columns nearest to what is good; none if there is nothing to choose from."""
        cost = _cost(key)
        known = {i: cost(f) for i, f in enumerate(figures)
                 if f and self._comparable(key, i) and math.isfinite(f.value)}
        if len(known) < 2 or not KINDS[key].good:
            return frozenset()
        lowest = min(known.values())
        return frozenset(i for i, value in known.items() if value == lowest)

    def _apart(self, name: str, evaluation: Evaluation) -> str:
        measure = evaluation.base_measure
        what = f"a likelihood of {measure}" if measure else "no likelihood"
        return f"{name}: {what}, not compared with likelihoods of {self.base_measure}."


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """One table over several evaluations.

    Raises:
        ConfigError: none given, or evaluations on different numbers of items.
    """
    if not evaluations:
        raise ConfigError("nothing to compare: name at least one run")
    items = {e.settings.get("items") for e in evaluations}
    if len(items) > 1:
        raise ConfigError(f"evaluations on {' and '.join(map(str, sorted(items, key=str)))} items "
                          "cannot be compared: evaluate all runs on the same data and split")
    return Comparison(tuple(evaluations))


def row_of(figure: Figure) -> dict[str, str]:
    """One figure as text, for tables of a single model."""
    kind = figure.kind
    return {"group": kind.group, "figure": kind.title.strip(), "value": figure.text(),
            "control": _control([figure]),
            "copies of training items": _first([figure], "memoriser"),
            "ceiling": _first([figure], "ceiling"), "flag": figure.flag, "meaning": kind.says}


def _cost(key: str) -> Callable[[Figure], float]:
    """What is smallest for the best value."""
    kind = KINDS[key]
    if kind.good == "fair":
        return lambda f: abs(f.value - (kind.fair if kind.fair is not None else f.control or 0.0))
    return (lambda f: f.value) if kind.good == "low" else (lambda f: -f.value)


def _control(figures: Sequence[Figure]) -> str:
    held = next((f for f in figures if f.control is not None), None)
    return f"{number(held.control)} ({held.control_name})" if held else ""


def _first(figures: Sequence[Figure], what: str) -> str:
    """The first model's ``memoriser`` or ``ceiling``."""
    held: list[float] = [getattr(f, what) for f in figures if getattr(f, what) is not None]
    return number(held[0]) if held else ""


def _role(figure: Figure | None) -> str:
    return "flag" if figure and figure.flag else ""


def _grouped(lines: Sequence[str]) -> list[str]:
    """A note that several models share is said once, with all their names."""
    names: dict[str, list[str]] = {}
    for line in lines:
        name, mark, rest = line.partition(": ")
        names.setdefault(rest if mark else line, []).append(name if mark else "")
    return [f"{', '.join(who)}: {text}" if who[0] else text for text, who in names.items()]
