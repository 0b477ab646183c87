"""``score``, ``evaluate``, ``compare``, ``report``: figures about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from latlas.cli.flags import (
    ITEMS,
    LABELLED,
    WHOLE,
    Device,
    Items,
    Json,
    Labelled,
    Parts,
    Run,
    Seed,
    at_least,
    listed,
)
from latlas.cli.read import both, check_parts, write_shard
from latlas.cli.show import counted, counting, drawn, emit, plain
from latlas.core.errors import ConfigError

Draws = Annotated[int, Parameter(help="Draws of z per item for the importance-weighted bound.")]
Features = Annotated[str, Parameter(
    help="What sample quality is judged on: auto, classifier, random-conv, spectrum, pixels, "
         "columns, or a TorchScript file.")]
_METHODS = {"iw": "importance-weighted bound", "elbo": "evidence lower bound",
            "naive": "naive sampling from the prior", "ais": "annealed importance sampling"}
Metrics = Annotated[str, Parameter(
    help="Groups of figures, with commas between: likelihood, reconstruction, translation, "
         "classification, code, disentanglement, latent, samples. Default: all that apply.")]
To = Annotated[Literal["A", "B"], Parameter(help="Domain that a model of two translates to.")]
Factors = Annotated[str, Parameter(
    help="Names of the known factors that disentanglement is judged by, with commas between. "
         "Default: all but orientation.")]
Samples = Annotated[int, Parameter(help="Samples drawn to judge their quality, at most.")]


def score(run: Run, /, *, items: Items = ITEMS, source: Labelled = LABELLED,
          draws: Annotated[int | None, Parameter(
              help="Draws of z per item. Default: 100 for iw, 10,000 for naive, 16 chains for "
                   "ais, 1 for elbo.")] = None,
          method: Annotated[Literal["auto", "exact", "elbo", "iw", "naive", "ais"], Parameter(
              help="auto: exact where the model can, else iw; ais with --observation-sd.")]
          = "auto",
          temperatures: Annotated[int | None, Parameter(
              help="ais: steps from the prior to the posterior. Default: 1,000.")] = None,
          leapfrog: Annotated[int | None, Parameter(
              help="ais: leapfrog steps at each temperature. Default: 10.")] = None,
          observation_sd: Annotated[float | None, Parameter(
              help="For a decoder without a likelihood, by ais or naive: standard deviation of x "
                   "around decode(z), in model units.")] = None,
          n: Annotated[int | None, Parameter(help="Only the first N items.")] = None,
          precision: Annotated[Literal["fp32", "bf16"], Parameter(
              help="Number format of the networks; bf16 is faster where the processor has it.")]
          = "fp32",
          out: Annotated[Path | None, Parameter(
              help="A row per item: .csv, .parquet, .npz; with --shard a folder.")] = None,
          parts: Parts = WHOLE, seed: Seed = 0, device: Device = "auto",
          json: Json = False) -> None:
    """Log-likelihood of every item, in nats and bits per dimension, with its standard error and
    effective sample size."""
    from latlas import api
    from latlas.tasks.output import check_table, write_table

    at_least("--n", n, 1)
    sharded = check_parts(parts, out)
    if out and not sharded:
        check_table(out)
    model, data = both(run, items, source, device,
                       "score" if observation_sd is None else "decode")
    data = data.subset(slice(0, n))
    asked: dict[str, Any] = {
        "draws": draws, "method": method, "seed": seed, "precision": precision,
        "temperatures": temperatures, "leapfrog": leapfrog, "observation_sd": observation_sd}
    if sharded:
        write_shard("score", model, data, parts, out, json, **asked)
        return
    with counting("score") as progress:
        scores = api.score(model, data, progress=progress, **asked)
    line = write_table(out, scores.columns(data.take("names"))) if out else ""
    emit({**_summary(scores), "out": out and str(out)}, json, _lines(scores, line))


def _summary(scores: Any) -> dict[str, Any]:
    import numpy as np

    finite = np.isfinite(scores.ess).all()
    drawn = scores.draws > 1
    return {"items": len(scores.nats), "method": scores.method, "draws": scores.draws,
            "nats": scores.mean, "standard_error": scores.standard_error,
            "bits_per_dim": float(scores.bits_per_dim.mean()), "footing": scores.footing,
            "se_median": float(np.median(scores.se)) if drawn else None,
            "ess_median": float(np.median(scores.ess)) if finite else None,
            "acceptance": scores.acceptance,
            "unreliable": int(scores.unreliable.sum())}


def _lines(scores: Any, written: str) -> str:
    s = _summary(scores)
    how = _METHODS.get(s["method"], s["method"]) + (
        f", {counted(s['draws'], 'draw')}" if s["draws"] else "")
    spread = f" ± {s['standard_error']:.3f}" if s["items"] > 1 else ""
    lines = [f"log-likelihood {s['nats']:.3f}{spread} nats per item ({how}; "
             f"{counted(s['items'], 'item')}; of {s['footing'] or 'no stated footing'})"]
    if s["footing"] == "integers":
        lines.append(f"bits per dimension {s['bits_per_dim']:.4f}")
    if s["se_median"] is not None:
        lines.append(f"standard error of an item's figure over the draws: median "
                     f"{s['se_median']:.3f} nats")
    if s["ess_median"] is not None:
        lines.append(f"effective sample size: median {s['ess_median']:.1f}; "
                     f"{counted(s['unreliable'], 'item')} under 10")
    if scores.method == "ais":
        lines.append(f"moves accepted: {s['acceptance']:.1%}")
    return "\n".join([*lines, *([written] if written else [])])


def evaluate(run: Run, /, *, items: Items = ITEMS, source: Labelled = LABELLED,
             draws: Draws = 100, features: Features = "auto", samples: Samples = 2000,
             metrics: Metrics = "", factors: Factors = "", to: To = "B",
             out: Annotated[Path | None, Parameter(
                 help="The figures as .json, .csv or .parquet.")] = None,
             seed: Seed = 0, device: Device = "auto", json: Json = False) -> None:
    """How good is a run? Every figure the model allows on held-out data, each beside a control."""
    _compare([run], items, source, out, device, json, draws=draws, features=features,
             samples=samples, seed=seed, metrics=listed(metrics), factors=listed(factors), to=to)


def compare(runs: Annotated[tuple[Path, ...], Parameter(
                help="Run folders.", consume_multiple=True)], /, *,
            items: Items = ITEMS, source: Labelled = LABELLED,
            draws: Draws = 100, features: Features = "auto", samples: Samples = 2000,
            metrics: Metrics = "", factors: Factors = "", to: To = "B",
            out: Annotated[Path | None, Parameter(
                help="The table as .json, .csv or .parquet.")] = None,
            seed: Seed = 0, device: Device = "auto", json: Json = False) -> None:
    """Several runs in one table, on the same items: by default those of the first run."""
    if len(runs) < 2:
        raise ConfigError("compare needs two runs or more; `latlas evaluate RUN` is for one")
    _compare(list(runs), items, source, out, device, json, draws=draws, features=features,
             samples=samples, seed=seed, metrics=listed(metrics), factors=listed(factors), to=to)


def report(run: Run, /, *, out: Annotated[Path | None, Parameter(
               help="An .html file. Default: RUN/report.html.")] = None,
           data: Annotated[str | None, Parameter(
               help="Source. Default: what the run was trained on.")] = None,
           to: Annotated[Literal["A", "B"] | None, Parameter(
               help="Domain that a model of two translates to. Default: each it reaches.")] = None,
           draws: Draws = 100, seed: Seed = 0, json: Json = False) -> None:
    """One HTML file about a run, pictures inline: samples, reconstructions, codes, curves,
    figures."""
    from latlas.api.reporting import write
    from latlas.tasks.output import check_table

    path = out or run / "report.html"
    check_table(path, (".html", ".htm"))
    with counting("likelihood") as progress:
        write([run], path, data, draws=draws, seed=seed, to=to, command=f"latlas report {run}",
              progress=progress)
    emit({"out": str(path)}, json, f"wrote {path}")


def _compare(runs: list[Path], items: Items, options: Labelled, out: Path | None, device: str,
             json: bool, **settings: Any) -> None:
    from latlas import api
    from latlas.api.items import default_split, known
    from latlas.tasks.output import FRAMES, check_table

    if out:
        check_table(out, (".json", *FRAMES))
    source = api.open_source_for(runs[0], items.data, **options.options())
    split = items.split or default_split(source, known(runs[0]))
    found = []
    for run in runs:
        with counting(f"{run}: likelihood") as progress:
            found.extend(api.evaluate_priors(
                api.load(run, device=device), source, split, name=run.name,
                cache=runs[0] / "cache", progress=progress, **settings))
    _show(found, out, json)


def _show(found: list[Any], out: Path | None, json: bool) -> None:
    """One evaluation or several: the table, or JSON, and a file if asked."""
    from latlas.tasks.compare import compare as tabulate

    table = tabulate(found)
    result = found[0].to_json() if len(found) == 1 else table.to_json()
    if out:
        _save(out, table, result)
    emit(result, json, "" if json else _text(table, out))


def _text(table: Any, out: Path | None) -> str:
    written = [f"wrote {out}"] if out else []
    return "\n".join([drawn(table.text()), *table.notes, *written])


def _save(out: Path, table: Any, result: dict[str, Any]) -> None:
    from latlas.core.trees import save_json
    from latlas.tasks.output import write_table

    if out.suffix.lower() == ".json":
        out.parent.mkdir(parents=True, exist_ok=True)
        save_json(out, plain(result))
        return
    rows = table.rows()
    write_table(out, {key: [row[key] for row in rows] for key in rows[0]})
