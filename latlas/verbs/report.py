"""``report``: one HTML file about a run, or several, on the same held-out examples."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from latlas.core.errors import ConfigError, say_option
from latlas.data.fitting import as_source
from latlas.run import as_run
from latlas.verbs import common, write
from latlas.verbs.common import Flag, Progress
from latlas.verbs.evaluate import Comparison, Draws, Samples, cache_of, evaluate, side_by_side


@dataclass(eq=False, repr=False)
class Report(common.Result):
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
        write.check_suffix(path, self.suffixes)
        write.write_bytes(Path(path), self.html.encode("utf-8", "replace"))
        return f"wrote {path}"


@common.verb
def report(run: common.RunLike, *, data: common.DataLike = None,
           to: Annotated[Literal["A", "B"] | None, Flag(
               Literal["A", "B"], "Domain that a model of two translates to. Default: each it "
                                  "reaches.")] = None,
           draws: Draws = 100, samples: Samples = 2000, seed: common.Seed = 0,
           out: Annotated[common.Out, common.Output(
               "report.html", "An .html file. Default: RUN/report.html.")] = None,
           progress: Progress | None = None, **read: Any) -> Report:
    """One HTML file about a run, images inline: samples, reconstructions, latents, curves, metrics.

    From Python, `.save(path)` writes it.
    """
    run = as_run(run)
    write.check_suffix(out, Report.suffixes)
    if to is not None:
        run.require("translate", "report to")
    command = f"latlas report {run.path}" if run.path is not None else f"latlas.report({run.name})"
    return write_report([run], out, data, draws=draws, samples=samples, seed=seed, command=command,
                        to=to, progress=progress, **read)


def write_report(runs: Sequence[Any], out: str | Path | None, data: Any = None, *,
                 draws: int = 100, samples: int = 2000, seed: int = 0, command: str = "",
                 title: str = "", to: str | None = None, progress: Progress | None = None,
                 **read: Any) -> Report:
    """One page about several runs, on the data of the first; each is evaluated once for every
    domain that it translates to."""
    from latlas.core.model import Translates
    from latlas.verbs.sections import Subject, build_page

    opened = [as_run(run) for run in runs]
    source, cache = as_source(data, opened[0], **read), cache_of(opened[0])
    train, test = opened[0].open(source, "train"), opened[0].open(source, "test")
    subjects = []
    for run in opened:
        reached = (sorted(run.model.ways, reverse=True)
                   if isinstance(run.model, Translates) else [])
        if to is not None and to not in reached:
            raise ConfigError(f"{say_option('to', to)}: {type(run.model).__name__} translates to "
                              f"{' and '.join(reached)} alone", option="to")
        ways = {}
        for domain in [to] if to else reached or ["B"]:
            result = evaluate(run, source, split="test", to=domain, draws=draws,  # type: ignore[arg-type]
                              samples=samples, seed=seed, cache=cache, progress=progress)
            ways[domain] = replace(result, name=f"{run.name} to {domain}") if (
                len(reached) > 1) else result
        facts = {"model": run.model_name, "settings": ", ".join(
            f"{f.name}={getattr(run.config, f.name)}" for f in fields(run.config))}
        if run.chosen:
            facts["chosen"] = ", ".join(f"{k}={v}" for k, v in run.chosen.items())
        if run.ending:  # the finished model says how its training ended
            facts["training"] = run.ending.summary().removeprefix("finished ")
            if notes := run.warnings():
                facts["note"] = notes[0]
        subjects.append(Subject(run.name, run.model, run.path, next(iter(ways.values())), facts,
                                ways if reached else {}))
    html = build_page(subjects, train=train, test=test, title=title, command=command, seed=seed,
                      cache=cache, to=to or "")
    return Report(html, side_by_side([e for s in subjects if s.evaluation
                                      for e in s.evaluation.columns])).saved(out)
