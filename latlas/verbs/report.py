"""``report``: one HTML file about a run, or several, on the same held-out examples."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from latlas.core.errors import ConfigError, say_option
from latlas.data.pairs import PairDataset, first_side
from latlas.render.html import Notes, Section, page
from latlas.run import Run, as_run
from latlas.verbs.common import (
    DataLike,
    Flag,
    Out,
    Output,
    Progress,
    Result,
    RunLike,
    Seed,
    at_least,
)
from latlas.verbs.evaluate import Comparison, Draws, Samples, cache_of, evaluate, side_by_side

if TYPE_CHECKING:
    from latlas.data.dataset import Dataset
    from latlas.verbs.sections import Subject

HEADLINE = ("bits_per_dim", "nats", "mse", "active_units", "completeness", "frechet", "precision",
            "recall", "two_sample", "data_copying", "l1", "ssim", "cycle")


@dataclass(eq=False, repr=False)
class Report(Result):
    """A page about runs.

    Attributes:
        html: the whole file.
        comparison: the metrics that its tables show.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".html", ".htm")
    html: str
    comparison: Comparison

    def facts(self) -> dict[str, Any]:
        return {"evaluations": self.comparison.names}

    def save(self, path: str | Path) -> str:
        from latlas.verbs import write

        write.check_suffix(path, self.suffixes)
        write.write_bytes(Path(path), self.html.encode("utf-8"))
        return f"wrote {path}"


def report(run: RunLike, *, data: DataLike = None,
           to: Annotated[Literal["A", "B"] | None, Flag(
               Literal["A", "B"], "Domain that a model of two translates to. Default: each it "
                                  "reaches.")] = None,
           draws: Draws = 100, samples: Samples = 2000, seed: Seed = 0,
           out: Annotated[Out, Output("report.html", "An .html file. Default: RUN/report.html.")]
           = None, progress: Progress | None = None, **read: Any) -> Report:
    """One HTML file about a run, images inline: samples, reconstructions, latents, curves, metrics.

    From Python, `.save(path)` writes it.
    """
    from latlas.verbs import write

    run = as_run(run)
    at_least("draws", draws, 1)
    at_least("samples", samples, 1)
    write.check_suffix(out, Report.suffixes)
    if to is not None:
        run.require("translate", "report to")
    command = f"latlas report {run.path}" if run.path is not None else f"latlas.report({run.name})"
    return _report([run], data, read, to=to, command=command, title="", draws=draws,
                   samples=samples, seed=seed, progress=progress).saved(out)


def write_report(runs: Sequence[Any], out: str | Path, data: Any = None, *, draws: int = 100,
                 samples: int = 2000, seed: int = 0, command: str = "", title: str = "",
                 progress: Progress | None = None) -> Comparison:
    """One page about several runs, on the data of the first; returns its table."""
    result = _report([as_run(run) for run in runs], data, {}, to=None, command=command,
                     title=title, draws=draws, samples=samples, seed=seed, progress=progress)
    result.save(out)
    return result.comparison


def _report(runs: Sequence[Run], data: Any, read: dict[str, Any], *, to: str | None, command: str,
            title: str, seed: int, **settings: Any) -> Report:
    """Evaluate the runs, each once for every domain that it translates to, and make the page."""
    from latlas.core.model import Translates
    from latlas.data.fitting import as_source
    from latlas.verbs.sections import Subject

    source, cache = as_source(data, runs[0], **read), cache_of(runs[0])
    train, test = runs[0].open(source, "train"), runs[0].open(source, "test")
    subjects = []
    for run in runs:
        reached = (sorted(run.model.ways, reverse=True)
                   if isinstance(run.model, Translates) else [])
        if to is not None and to not in reached:
            raise ConfigError(f"{say_option('to', to)}: {type(run.model).__name__} translates to "
                              f"{' and '.join(reached)} alone", option="to")
        ways = {}
        for domain in [to] if to else reached or ["B"]:
            result = evaluate(run, source, split="test", to=domain, seed=seed,  # type: ignore[arg-type]
                              cache=cache, **settings)
            ways[domain] = replace(result, name=f"{run.name} to {domain}") if (
                len(reached) > 1) else result
        subjects.append(Subject(run.name, run.model, run.path, next(iter(ways.values())),
                                _facts(run), ways if reached else {}))
    html = build_page(subjects, train=train, test=test, title=title, command=command, seed=seed,
                      cache=cache, to=to or "")
    return Report(html, side_by_side([e for s in subjects if s.evaluation
                                      for e in s.evaluation.columns]))


def _facts(run: Run) -> dict[str, str]:
    """What was set, what was chosen, how long training took."""
    from latlas.core.trees import load_tree

    facts = {"model": run.model_name, "settings": ", ".join(
        f"{f.name}={getattr(run.config, f.name)}" for f in fields(run.config))}
    if run.chosen:
        facts["chosen"] = ", ".join(f"{k}={v}" for k, v in run.chosen.items())
    file = run.path / "model.safetensors" if run.path is not None else None
    if file is not None and file.is_file():  # the finished model says how its training ended
        end = load_tree(file, prefix="no tensor has this name")[1]
        if "images" in end:
            facts["training"] = f"{end['images']:,} examples" + (
                f" in {end['seconds']:,.1f} s" if end.get("seconds") is not None else "")
    return facts


def build_page(subjects: Sequence[Subject], *, train: Dataset, test: Dataset, title: str = "",
               command: str = "", seed: int = 0, facts: Mapping[str, str] | None = None,
               cache: Path | None = None, to: str = "") -> str:
    """One self-contained HTML page, as text: every section that the models' capabilities allow.

    Args:
        subjects: the models; those with an evaluation appear in the tables.
        train, test: the data they are shown on; all that is shown is held out.
        title: of the page; from the models' names if empty.
        command: what made it, as typed; taken from the running program if empty.
        facts: more about how it was made, name to text.
        cache: folder that keeps what is known of the real examples, as for ``evaluate``.
        to: the domain whose translations are shown alone; every one if empty.
    """
    from latlas.verbs import sections

    pairs = test if isinstance(test, PairDataset) else None
    context = sections.Context(first_side(train), first_side(test), seed, cache, to, pairs)
    evaluations = [e for s in subjects if s.evaluation for e in s.evaluation.columns]
    shows = [sections.samples(subjects, context), sections.translations(subjects, context, "B"),
             sections.translations(subjects, context, "A"),
             sections.reconstructions(subjects, context), sections.traversals(subjects, context),
             sections.interpolations(subjects, context), sections.maps(subjects, context),
             sections.latent_planes(subjects, context), sections.loss_curves(subjects, context)]
    parts = [section for section in shows if section is not None]
    if evaluations:
        comparison = side_by_side(evaluations)
        warnings = [n for n in comparison.notes if "not compared" in n or "†" in n]
        best = "" if len(evaluations) == 1 else " Green is best among those that can be compared."
        parts = [
            Section("Summary", "Metrics on held-out data, beside the control that could explain "
                    "them: held-out real data for samples, a diagonal Gaussian for likelihoods, "
                    "the mean example for reconstructions, the median image for translations."
                    f"{best}", [comparison.html(HEADLINE, meaning=False), Notes(warnings)]),
            *parts,
            Section("All metrics", "Each with what it says. ↓ less is better, ↑ more is better, ≈ "
                    "nearer to the control is better. Under copies: the same metric of exact "
                    "copies of training examples; only the metrics of copying give them away.",
                    [comparison.html(), Notes(comparison.notes)])]
    values = dict(facts or {})
    for subject in subjects:
        for key, value in (subject.facts or {}).items():
            values[key if len(subjects) == 1 else f"{subject.name}: {key}"] = value
        if subject.run is not None:
            values[f"{subject.name}: run"] = str(subject.run)
    parts.append(sections.provenance(
        command or " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]), seed, values))
    names = ", ".join(s.name for s in subjects)
    space = first_side(train).space
    what = {"image": "images", "table": "rows", "points": "points"}[space.kind]
    subtitle = (f"{names} trained on {len(train):,} {what} "
                f"({' × '.join(map(str, space.shape))}) and judged on {len(test):,} that "
                "were held out.")
    return page(title or f"{names}: report", subtitle, parts,
                "One file: no script, no network. Made by latlas.")
