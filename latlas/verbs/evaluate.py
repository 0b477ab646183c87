"""``evaluate``, ``compare``: how good runs are, on held-out data, with controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from latlas.core.errors import ConfigError, say_option, unknown
from latlas.core.files import save_json
from latlas.data.fitting import as_source, default_split
from latlas.metrics.table import GROUPS, KINDS, Metric, number
from latlas.render.html import Cell, Table
from latlas.render.text import drawn
from latlas.run import Run, as_run
from latlas.verbs import common, write
from latlas.verbs.common import Flag, Progress, listed

LIKELIHOODS = ("nats", "bits_per_dim", "elbo", "elbo_reconstruction", "elbo_kl")
ARROWS = {"low": "\u00a0↓", "high": "\u00a0↑", "fair": "\u00a0≈", "": ""}

Draws = Annotated[int, Flag(int, "Draws of z per example for the importance-weighted bound."),
                  common.Bounds(1, 100_000_000)]
Samples = Annotated[int, Flag(int, "Samples drawn to judge their quality, at most."),
                    common.POSITIVE]
Features = Annotated[Any, Flag(
    str, "What sample quality is judged on: auto, classifier, random-conv, spectrum, pixels, "
         "columns, or a TorchScript file.")]
Groups = Annotated[Sequence[str] | None, Flag(
    str, f"Groups of metrics, with commas between: {', '.join(GROUPS)}. Default: all that apply.",
    listed)]
Factors = Annotated[Sequence[str] | None, Flag(
    str, "Names of the known factors that disentanglement is judged by, with commas between. "
         "Default: all but orientation.", listed)]
LatentsOf = Annotated[Literal["auto", "own", "fitted"], Flag(
    Literal["auto", "own", "fitted"],
    "Whose samples are judged: those of the model's own prior, or of the one of `latlas "
    "fit-prior`, of which nothing else is judged; auto: own, and fitted beside it where there is "
    "one.")]
#: a folder that keeps what is known of the real examples; by default RUN/cache, of the first run
CacheFolder = Annotated[Any, Flag(None, "")]


class Metrics(common.Result):
    """Metrics that :meth:`save` writes as JSON, or as a table."""

    row_per_example = False
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".csv", ".parquet", ".npz")

    def save(self, path: str | Path) -> str:
        write.check_suffix(path, self.suffixes)
        if Path(path).suffix.lower() != ".json":
            return super().save(path)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_json(Path(path), self.facts())
        return f"wrote {path}"


@dataclass(repr=False)
class Evaluation(Metrics):
    """All metrics of one model on one held-out set.

    Attributes:
        name: of the model or run.
        base_measure: what the likelihood is a likelihood of; ``None`` without one.
        metrics: in the order in which they are printed.
        notes: whole sentences that a reader of the metrics must know.
        settings: draws, samples, features, seed, examples, latents.
        fitted: the metrics of samples from the prior that was fitted to the latents, if any.
    """

    name: str
    base_measure: str | None
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    fitted: Evaluation | None = None

    @property
    def columns(self) -> tuple[Evaluation, ...]:
        """Itself, and that of the fitted prior."""
        return (self,) if self.fitted is None else (self, self.fitted)

    def get(self, key: str) -> Metric | None:
        """The metric of this key, if the model has it."""
        return next((m for m in self.metrics if m.key == key), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; without the fitted prior's."""
        return {"name": self.name, "base_measure": self.base_measure, "settings": self.settings,
                "notes": list(self.notes), "metrics": [m.to_json() for m in self.metrics]}

    def facts(self) -> dict[str, Any]:
        return self.to_json() if self.fitted is None else side_by_side(self.columns).facts()

    def text(self) -> str:
        return side_by_side(self.columns).text()

    def as_columns(self) -> dict[str, Any]:
        return side_by_side(self.columns).as_columns()


@dataclass(frozen=True)
class Line:
    """One metric over all models.

    Attributes:
        title: ``bits per dimension ↓``.
        cells: what each model's column shows.
        values: each model's metric, ``None`` where it has none.
        best: columns with the best comparable value.
        control: of the first model that has one, with its name; so ``copies`` and ``ceiling``.
    """

    key: str
    title: str
    cells: tuple[str, ...]
    values: tuple[Metric | None, ...]
    best: frozenset[int]
    control: str
    copies: str
    ceiling: str


@dataclass(repr=False)
class Comparison(Metrics):
    """Several evaluations on the same data, in one table."""

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
        """Which likelihoods are not compared, and every model's own notes. A note that several
        models share is said once, with all their names."""
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
        """Every metric that any model has, in the order of the table of kinds. Values of another
        base measure are shown with its name, and take no part in ``best``."""
        lines = []
        for key, kind in KINDS.items():
            metrics = tuple(e.get(key) for e in self.evaluations)
            cells, costs, comparable = [], {}, []
            for i, metric in enumerate(metrics):
                measure = self.evaluations[i].base_measure
                if metric is None:
                    cells.append("–")
                elif key in LIKELIHOODS and measure != self.base_measure:
                    cells.append(f"{metric.text()} ({measure})")
                else:
                    cells.append(metric.text() + (" †" if metric.flag else ""))
                    comparable.append(metric)
                    if math.isfinite(metric.value):
                        fair = kind.fair if kind.fair is not None else metric.control or 0.0
                        costs[i] = {"low": metric.value, "high": -metric.value, "": 0.0,
                                    "fair": abs(metric.value - fair)}[kind.better]
            best = frozenset(i for i, cost in costs.items() if cost == min(costs.values()))
            if any(metrics):
                lines.append(Line(
                    key, kind.title + ARROWS[kind.better], tuple(cells), metrics,
                    best if kind.better and len(costs) > 1 else frozenset(),
                    *(_first(comparable, k) for k in ("control", "training_copies", "ceiling"))))
        return lines

    def facts(self) -> dict[str, Any]:
        return {"base_measure": self.base_measure, "notes": self.notes,
                "evaluations": [e.to_json() for e in self.evaluations]}

    def as_columns(self) -> dict[str, Any]:
        """A row per metric, a column for each model; text."""
        lines = self.lines()
        models = {name: [line.cells[i] for line in lines] for i, name in enumerate(self.names)}
        columns = {"group": [KINDS[line.key].heading for line in lines],
                   "metric": [line.title.strip() for line in lines], **models,
                   "control": [line.control for line in lines],
                   "training copies": [line.copies for line in lines],
                   "ceiling": [line.ceiling for line in lines],
                   "meaning": [KINDS[line.key].meaning for line in lines]}
        return {name: np.array(values) for name, values in columns.items()}

    def text(self) -> str:
        from rich.table import Table as Grid

        table, styles = self.html(meaning=False), {"best": "bold green", "control": "dim"}
        grid = Grid(box=None, header_style="bold", pad_edge=False)
        grid.add_column("")
        for name in table.columns[1:]:
            grid.add_column(name, justify="right", overflow="fold")
        for row in table.rows:
            texts = [f"{c.text} ({c.below})" if c.below else c.text for c in row]
            grid.add_row(*(f"[{styles[c.role]}]{text}[/]" if c.role in styles else text
                           for c, text in zip(row, texts, strict=True)) if len(row) > 1 else
                         [f"[bold cyan]{row[0].text}[/]"])
        return "\n".join([drawn(grid), *self.notes])

    def html(self, keys: Sequence[str] | None = None, *, meaning: bool = True) -> Table:
        """A table for the report; ``keys`` chooses metrics, ``meaning`` explains each."""
        lines = [line for line in self.lines() if keys is None or line.key in keys]
        extra = [k for k in ("copies", "ceiling")
                 if keys is None and any(getattr(line, k) for line in lines)]
        body: list[list[Cell]] = []
        group = ""
        for line in lines:
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
                         *(Cell(getattr(line, k), "control") for k in extra)])
        return Table(["", *self.names, "control", *extra], body)


def side_by_side(evaluations: Sequence[Evaluation]) -> Comparison:
    """One table over several evaluations. ConfigError: none given, or evaluations on different
    numbers of examples."""
    if not evaluations:
        raise ConfigError("nothing to compare: name at least one run")
    sizes = {e.settings.get("examples") for e in evaluations}
    if len(sizes) > 1:
        raise ConfigError(f"evaluations on {' and '.join(sorted(map(str, sizes)))} examples cannot "
                          "be compared: evaluate all runs on the same data and split")
    return Comparison(tuple(evaluations))


def _first(metrics: Sequence[Metric], what: str) -> str:
    """``control`` with its name, ``training_copies`` or ``ceiling`` of the first that has one."""
    for metric in metrics:
        if (value := getattr(metric, what)) is not None:
            return number(value) + (f" ({metric.control_name})" if what == "control" else "")
    return ""


@common.verb
def evaluate(run: common.RunLike, data: common.DataLike = None, *, split: common.Split = None,
             draws: Draws = 100, features: Features = "auto", samples: Samples = 2000,
             metrics: Groups = None, factors: Factors = None, latents: LatentsOf = "auto",
             to: common.Domain = "B", cache: CacheFolder = None, seed: common.Seed = 0,
             out: Annotated[common.Out, common.Output(
                 "", "The metrics: .json, .csv, .parquet, .npz.")] = None,
             progress: Progress | None = None, **read: Any) -> Evaluation:
    """How good is a run? Every metric the model allows on held-out data, each beside a control.

    Args:
        cache: Folder that keeps what is known of the real examples. Default: RUN/cache.
    """
    run = as_run(run)
    for option, names in (("metrics", metrics), ("factors", factors)):
        if isinstance(names, list) and not names:
            raise ConfigError(f"{say_option(option)}: name one, or several with commas between",
                              option=option)
    if to != "B":
        run.require("translate", f"evaluate {say_option('to', to)}")
    _require_groups(run, metrics or ())
    write.check_suffix(out, Evaluation.suffixes)
    options: dict[str, Any] = {
        "test": run.open(data, split, **read), "train": run.training_examples(data, **read),
        "draws": draws, "features": features, "samples": samples, "seed": seed,
        "metrics": metrics or (), "factors": factors or (), "to": to,
        "cache": cache_of(run, cache), "progress": progress}
    result = evaluated(run.model, name=run.name, latents="own" if latents == "auto" else latents,
                     **options)
    if latents == "auto" and "samples" in (metrics or GROUPS) and (
            run.model.fitted_prior is not None):
        result.fitted = evaluated(run.model, name=f"{run.name}, fitted prior", latents="fitted",
                                **options)
    count = run.trained_on(options["test"])
    notes = [f"{count:,} of the {len(options['test']):,} examples were trained on: a model does "
             "better on these than on others."] if count else []
    for evaluation in result.columns if count is not None else ():
        evaluation.settings["trained_on"], evaluation.notes = count, (*evaluation.notes, *notes)
    return result.saved(out)


def evaluated(model: Any, *, train: Any, test: Any, draws: int = 100, features: Any = "auto",
            samples: int = 2000, seed: int = 0, name: str = "", metrics: Sequence[str] = (),
            factors: Sequence[str] = (), latents: str = "own", to: str = "B",
            cache: Path | None = None, progress: Progress | None = None) -> Evaluation:
    """:func:`evaluate` of a model on ``test``; ``train`` is what it was trained on, for the
    controls and the data-copying test.

    Args:
        features: as for :func:`evaluate`, or the function that ``feature_extractor`` gave.
        latents: ``own``, or ``fitted``: only the metrics of samples, drawn from that prior.

    ConfigError: no such group. CapabilityError: one asked for that the model cannot have.
    DataError: disentanglement asked for, and the data have no known factors.
    """
    from latlas.verbs import metric_groups, passes
    from latlas.verbs.passes import which_latents

    latents, run, notes = which_latents(model, latents), Run.of(model), list[str]()
    chosen = ("samples",) if latents == "fitted" else tuple(metrics)
    _require_groups(run, chosen)
    if factors and (not chosen or "disentanglement" in chosen):
        metric_groups.known_factors(test, factors, [])
    elif factors:
        raise ConfigError(f"{say_option('factors', ','.join(factors))} belongs to the metrics "
                          f"of disentanglement, and {', '.join(chosen)} are asked for",
                          option="factors")
    if not chosen:
        chosen = tuple(group for group, capability in GROUPS.items() if run.can(capability)
                       and (group != "disentanglement" or metric_groups.has_factors(test))
                       and (group != "classification" or test.label is not None))
    judge = type(features).__name__ if callable(features) else str(features)
    settings = {"draws": draws, "samples": samples, "features": judge, "seed": seed,
                "examples": len(test), "latents": latents}
    settings |= {"to": to} if run.can("translate") else {}
    groups = {  # generators: only those that are chosen do anything
        "likelihood": metric_groups.likelihood(model, train, test, draws, seed, notes, progress),
        "reconstruction": metric_groups.reconstruction(model, train, test),
        "translation": metric_groups.translation(model, train, test, features, samples, to, seed,
                                                 notes, cache),
        "classification": metric_groups.classification(model, train, test),
        "encoding": metric_groups.encoding(model, test),
        "disentanglement": metric_groups.disentanglement(model, test, factors, seed, notes),
        "latent-space": metric_groups.latent_space(model, test, seed, notes),
        "samples": metric_groups.sample_quality(model, train, test, features, samples, seed,
                                                latents, notes, cache)}
    values = tuple(metric for group in GROUPS if group in chosen for metric in groups[group])
    return Evaluation(name or type(model).__name__.lower(), passes.base_measure_of(model), values,
                      tuple(notes), settings)


def _require_groups(run: Run, groups: Sequence[str]) -> None:
    for group in groups:
        if group not in GROUPS:
            raise ConfigError(unknown("group of metrics", group, GROUPS), option="metrics")
        run.require(GROUPS[group], group)


@common.verb
def compare(runs: Annotated[Any, Flag(tuple[Path, ...], "Run folders.", several=True)],
            data: common.DataLike = None, *, split: common.Split = None, draws: Draws = 100,
            features: Features = "auto", samples: Samples = 2000, metrics: Groups = None,
            factors: Factors = None, latents: LatentsOf = "auto", to: common.Domain = "B",
            cache: CacheFolder = None, seed: common.Seed = 0,
            device: Annotated[str, Flag(str, "auto, cpu, cuda, cuda:1, mps.")] = "auto",
            out: Annotated[common.Out, common.Output(
                "", "The table: .json, .csv, .parquet, .npz.")] = None,
            progress: Progress | None = None, **read: Any) -> Comparison:
    """Several runs in one table, on the same examples: by default those of the first run."""
    if len(runs) < 2:
        raise ConfigError("compare needs two runs or more; `latlas evaluate RUN` is for one",
                          option="runs")
    write.check_suffix(out, Comparison.suffixes)
    opened = [Run(run, device=device) if isinstance(run, str | Path) else as_run(run)
              for run in runs]
    source = as_source(data, opened[0], **read)
    split = split or default_split(source, opened[0])  # type: ignore[assignment]
    evaluations = [evaluate(run, source, split=split, draws=draws, features=features,
                            samples=samples, metrics=metrics, factors=factors, latents=latents,
                            to=to, cache=cache_of(opened[0], cache), seed=seed, progress=progress)
                   for run in opened]
    return side_by_side([column for e in evaluations for column in e.columns]).saved(out)


def cache_of(run: Run, folder: str | Path | None = None) -> Path | None:
    """Where what is known of real examples is kept: in the run's folder, unless one is named."""
    if folder is None:
        return None if run.path is None else run.path / "cache"
    return Path(folder)
