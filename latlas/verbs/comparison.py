"""Evaluations, and several side by side: in the terminal, in a report, in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from latlas.core.errors import ConfigError
from latlas.metrics.table import KINDS, Metric, number
from latlas.render.html import Cell, Table
from latlas.render.text import drawn
from latlas.verbs.common import Array, Result

if TYPE_CHECKING:
    from rich.table import Table as RichTable

LIKELIHOODS = ("nats", "bits_per_dim", "elbo", "elbo_reconstruction", "elbo_kl")
ARROWS = {"low": "↓", "high": "↑", "fair": "≈", "": ""}


@dataclass(repr=False)
class Evaluation(Result):
    """All metrics of one model on one held-out set.

    Attributes:
        name: of the model or run.
        base_measure: what the likelihood is a likelihood of; ``None`` without one.
        metrics: in the order in which they are printed.
        notes: whole sentences that a reader of the metrics must know.
        settings: draws, samples, features, seed, examples, latents.
        fitted: the metrics of samples from the prior that was fitted to the latents, if any.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".json", ".csv", ".parquet", ".npz")
    name: str
    base_measure: str | None
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    fitted: Evaluation | None = None

    @property
    def columns(self) -> tuple[Evaluation, ...]:
        """Itself, and that of the fitted prior if there is one."""
        return (self,) if self.fitted is None else (self, self.fitted)

    def get(self, key: str) -> Metric | None:
        """The metric of this key, if the model has it."""
        return next((m for m in self.metrics if m.key == key), None)

    def rows(self) -> list[dict[str, str]]:
        """One row per metric, as text."""
        return [{"group": m.kind.heading, "metric": m.kind.title.strip(), "value": m.text(),
                 "control": _control([m]), "training copies": _first([m], "training_copies"),
                 "ceiling": _first([m], "ceiling"), "flag": m.flag, "meaning": m.kind.meaning}
                for m in self.metrics]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back; without the fitted prior's."""
        return {"name": self.name, "base_measure": self.base_measure, "settings": self.settings,
                "notes": list(self.notes), "metrics": [m.to_json() for m in self.metrics]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evaluation:
        """The inverse of :meth:`to_json`."""
        return cls(data["name"], data["base_measure"],
                   tuple(Metric.from_json(m) for m in data["metrics"]), tuple(data["notes"]),
                   data["settings"])

    def facts(self) -> dict[str, Any]:
        return self.to_json() if self.fitted is None else side_by_side(self.columns).facts()

    def text(self) -> str:
        return side_by_side(self.columns).text()

    def table(self) -> dict[str, Array]:
        return side_by_side(self.columns).table()

    def save(self, path: str | Path) -> str:
        return _save(self, path)


@dataclass(frozen=True)
class Line:
    """One metric over all models.

    Attributes:
        cells: what each model's column shows.
        values: each model's metric, ``None`` where it has none.
        best: columns with the best comparable value.
        control: the control's value with its name.
        more: what stands after the control, by column: ``copies``, ``ceiling``.
    """

    key: str
    cells: tuple[str, ...]
    values: tuple[Metric | None, ...]
    best: frozenset[int]
    control: str
    more: dict[str, str]

    @property
    def title(self) -> str:
        """``bits per dimension ↓``."""
        kind = KINDS[self.key]
        return f"{kind.title}\u00a0{ARROWS[kind.better]}".rstrip("\u00a0")


@dataclass(repr=False)
class Comparison(Result):
    """Several evaluations on the same data, in one table."""

    suffixes: ClassVar[tuple[str, ...]] = Evaluation.suffixes
    evaluations: tuple[Evaluation, ...]

    @property
    def names(self) -> list[str]:
        """Column headings; equal names are numbered."""
        names = [e.name for e in self.evaluations]
        return [n if names.count(n) == 1 else f"{n} #{i + 1}" for i, n in enumerate(names)]

    @property
    def base_measure(self) -> str | None:
        """What the compared likelihoods are of: integers if any model's are, else the first."""
        measures = [e.base_measure for e in self.evaluations if e.base_measure]
        return "integers" if "integers" in measures else measures[0] if measures else None

    @property
    def notes(self) -> list[str]:
        """Which likelihoods are not compared, and every model's own notes.

        A note that several models share is said once, with all their names.
        """
        names: dict[str, list[str]] = {}
        for name, e in zip(self.names, self.evaluations, strict=True):
            if self.base_measure and e.base_measure != self.base_measure:
                what = f"a likelihood of {e.base_measure}" if e.base_measure else "no likelihood"
                names.setdefault(f"{what}, not compared with likelihoods of {self.base_measure}.",
                                 []).append(name)
        for name, e in zip(self.names, self.evaluations, strict=True):
            flags = dict.fromkeys(m.flag for m in e.metrics if m.flag)
            for note in (*e.notes, *(f"† marks metrics that are unreliable ({flag}): loose lower "
                                     "bounds." for flag in flags)):
                names.setdefault(note, []).append(name)
        return [f"{', '.join(who)}: {note}" for note, who in names.items()]

    def lines(self) -> list[Line]:
        """Every metric that any model has, in the order of the table of kinds."""
        return [self._line(key) for key in KINDS if any(e.get(key) for e in self.evaluations)]

    def rows(self) -> list[dict[str, str]]:
        """One row per metric, as text, a column for each model."""
        return [{"group": KINDS[line.key].heading, "metric": line.title.strip(),
                 **dict(zip(self.names, line.cells, strict=True)), "control": line.control,
                 "training copies": line.more["copies"], "ceiling": line.more["ceiling"],
                 "meaning": KINDS[line.key].meaning} for line in self.lines()]

    def facts(self) -> dict[str, Any]:
        return {"base_measure": self.base_measure, "notes": self.notes,
                "evaluations": [e.to_json() for e in self.evaluations]}

    def table(self) -> dict[str, Array]:
        """A row per metric; text."""
        rows = self.rows()
        return {column: np.array([row[column] for row in rows]) for column in rows[0]}

    def text(self) -> str:
        return "\n".join([drawn(self.rich()), *self.notes])

    def save(self, path: str | Path) -> str:
        return _save(self, path)

    def rich(self) -> RichTable:
        """A table for the terminal."""
        from rich.table import Table as Grid

        grid = Grid(box=None, header_style="bold", pad_edge=False)
        grid.add_column("")
        extra = self._extra()
        for name in (*self.names, "control", *extra):
            grid.add_column(name, justify="right", overflow="fold")
        group = ""
        for line in self.lines():
            if KINDS[line.key].group != group:
                group = KINDS[line.key].group
                grid.add_row(f"[bold cyan]{KINDS[line.key].heading}[/]")
            cells = [f"[bold green]{c}[/]" if i in line.best else c
                     for i, c in enumerate(line.cells)]
            grid.add_row(line.title, *cells, *(
                f"[dim]{m}[/]" for m in (line.control, *(line.more[name] for name in extra))))
        return grid

    def html(self, keys: Sequence[str] | None = None, *, meaning: bool = True) -> Table:
        """A table for the report; ``keys`` chooses metrics, ``meaning`` explains each."""
        extra = self._extra() if keys is None else []
        body: list[list[Cell]] = []
        group = ""
        for line in (line for line in self.lines() if keys is None or line.key in keys):
            kind = KINDS[line.key]
            if keys is None and kind.group != group:
                group = kind.group
                body.append([Cell(kind.heading)])
            cells = [Cell(text, "best" if i in line.best else
                          "flag" if metric and metric.flag else "")
                     for i, (text, metric) in enumerate(zip(line.cells, line.values, strict=True))]
            value, _, name = line.control.partition(" (")
            body.append([Cell(line.title, below=kind.meaning if meaning else ""), *cells,
                         Cell(value, "control", name.removesuffix(")")),
                         *(Cell(line.more[column], "control") for column in extra)])
        return Table(["", *self.names, "control", *extra], body)

    def _extra(self) -> list[str]:
        """Columns after the control that some metric fills."""
        metrics = [m for e in self.evaluations for m in e.metrics]
        filled = {"copies": any(m.training_copies is not None for m in metrics),
                  "ceiling": any(m.ceiling is not None for m in metrics)}
        return [name for name, some in filled.items() if some]

    def _line(self, key: str) -> Line:
        """Values of another base measure are shown with its name, and take no part in ``best``."""
        metrics, kind = tuple(e.get(key) for e in self.evaluations), KINDS[key]
        comparable = [key not in LIKELIHOODS or e.base_measure == self.base_measure
                      for e in self.evaluations]
        cells, costs = [], {}
        for i, metric in enumerate(metrics):
            if metric is None:
                cells.append("–")
            elif not comparable[i]:
                cells.append(f"{metric.text()} ({self.evaluations[i].base_measure})")
            else:
                cells.append(metric.text() + (" †" if metric.flag else ""))
                if math.isfinite(metric.value):
                    fair = kind.fair if kind.fair is not None else metric.control or 0.0
                    costs[i] = {"low": metric.value, "high": -metric.value, "": 0.0,
                                "fair": abs(metric.value - fair)}[kind.better]
        best = frozenset(i for i, cost in costs.items() if cost == min(costs.values()))
        shared = [m for i, m in enumerate(metrics) if m and comparable[i]]
        return Line(key, tuple(cells), metrics,
                    best if kind.better and len(costs) > 1 else frozenset(), _control(shared),
                    {"copies": _first(shared, "training_copies"),
                     "ceiling": _first(shared, "ceiling")})


def side_by_side(evaluations: Sequence[Evaluation]) -> Comparison:
    """One table over several evaluations.

    Raises:
        ConfigError: none given, or evaluations on different numbers of examples.
    """
    if not evaluations:
        raise ConfigError("nothing to compare: name at least one run")
    sizes = {e.settings.get("examples") for e in evaluations}
    if len(sizes) > 1:
        raise ConfigError(f"evaluations on {' and '.join(map(str, sorted(sizes, key=str)))} "
                          "examples cannot be compared: evaluate all runs on the same data and "
                          "split")
    return Comparison(tuple(evaluations))


def _control(metrics: Sequence[Metric]) -> str:
    """The first model's control, with its name."""
    first = next((m for m in metrics if m.control is not None), None)
    return f"{number(first.control)} ({first.control_name})" if first else ""


def _first(metrics: Sequence[Metric], what: str) -> str:
    """The first model's ``training_copies`` or ``ceiling``."""
    values: list[float] = [getattr(m, what) for m in metrics if getattr(m, what) is not None]
    return number(values[0]) if values else ""


def _save(result: Evaluation | Comparison, path: str | Path) -> str:
    """The facts as ``.json``, or the table by its suffix."""
    from latlas.core.files import save_json
    from latlas.verbs import write

    write.check_suffix(path, Evaluation.suffixes)
    if Path(path).suffix.lower() != ".json":
        return write.write_table(path, result.table())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_json(Path(path), result.facts())
    return f"wrote {path}"
