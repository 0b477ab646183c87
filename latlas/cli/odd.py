"""``outliers``: which items do not belong."""

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
)
from latlas.cli.read import check_parts, write_shard
from latlas.cli.show import counted, counting, emit, table

GALLERY = 64


def outliers(run: Run, /, *, items: Items = ITEMS, source: Labelled = LABELLED,
             odd: Annotated[str | None, Parameter(
                 help="Classes of the data that are outliers, commas between, for the figures. "
                      "Default: 1 where they are 0 and 1.")] = None,
             false_alarms: Annotated[float, Parameter(
                 help="Share of normal items above the threshold.")] = 0.01,
             method: Annotated[Literal["auto", "nats", "error", "typicality"], Parameter(
                 help="auto: typicality for pictures, else nats where the model has a "
                      "likelihood.")] = "auto",
             normal: Annotated[str | None, Parameter(
                 help="Source of normal items that set the threshold. Default: those the run held "
                      "out.")] = None,
             controls: Annotated[bool, Parameter(
                 help="Also an isolation forest and PPCA, fitted to the training items.")] = True,
             k: Annotated[int | None, Parameter(
                 help="Precision among the first K. Default: as many as there are "
                      "outliers.")] = None,
             out: Annotated[Path | None, Parameter(
                 help="Items by rank: .csv, .parquet, .npz; plots beside it. Default: "
                      "RUN/outliers.csv. With --shard a folder.")] = None,
             parts: Parts = WHOLE, seed: Seed = 0, device: Device = "auto",
             json: Json = False) -> None:
    """Rank what does not belong. Every item has a score, and a flag above a threshold of known
    false-alarm rate.

    Beside the table: a histogram with the threshold, and for pictures the oddest ones. A shard
    has only the scores and flags of its items, in their own order.
    """
    from latlas import api
    from latlas.tasks.output import check_table

    at_least("--k", k, 1)
    path, sharded = out or run / "outliers.csv", check_parts(parts, out)
    if not sharded:
        check_table(path)
    model = api.load(run, device=device)
    data, marks = _opened(model, items, source, odd)
    if sharded:
        write_shard("outliers", model, data, parts, out, json, normal=_normal(model, normal),
                    method=method, false_alarms=false_alarms, seed=seed)
        return
    with counting("outliers") as progress:
        found = api.outliers(model, data, false_alarms=false_alarms, method=method,
                             normal=normal, controls=controls, seed=seed, progress=progress)
    _show(_marked(found, marks), data, path, k, json)


def _opened(model: Any, items: Items, source: Labelled, odd: str | None) -> tuple[Any, Any]:
    from latlas.api.items import open_marked

    return open_marked(model, items.data, items.split, odd=odd, **source.options())


def _normal(model: Any, normal: str | None) -> Any:
    from latlas.api.items import normal_items

    return normal_items(model, normal)


def _marked(found: Any, marks: Any) -> Any:
    from dataclasses import replace

    return replace(found, odd=marks)


def _show(found: Any, data: Any, path: Path, k: int | None, json: bool) -> None:
    from latlas.tasks.outliers import histogram
    from latlas.tasks.output import write_items, write_plot, write_table

    names, x = data.take("names"), data.take("x")
    lines = [write_table(path, found.columns(names)),
             write_plot(_beside(path, "histogram"), histogram(found))]
    if data.space.kind == "picture":
        oddest = x[found.order[:GALLERY]]
        lines.append(write_items(_beside(path, "oddest"), oddest, data.space))
    emit(_summary(found, path, k), json, "\n".join([_text(found, k), *lines]))


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}-{what}.png")


def _summary(found: Any, path: Path, k: int | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {"items": len(found.score), "method": found.method, "threshold": found.threshold,
            "false_alarms": found.false_alarms, "normal": len(found.normal),
            "flagged": int(found.flag.sum()), "out": str(path),
            "rankings": {name: asdict(r) for name, r in found.rankings(k).items()}}


def _text(found: Any, k: int | None) -> str:
    flagged, n = int(found.flag.sum()), len(found.score)
    lines = [f"{counted(n, 'item')}, {flagged:,} flagged ({flagged / n:.2%}): {found.method} above "
             f"{found.threshold:.4g}, which at most {found.false_alarms:.3g} of normal items "
             f"exceed (by {len(found.normal):,} held out)"]
    rankings = found.rankings(k)
    if rankings:
        count = next(iter(rankings.values())).k
        lines.append(table(["", "ROC AUC", "average precision", f"precision at {count}"], [
            [name, f"{r.auroc:.3f}", f"{r.average_precision:.3f}", f"{r.precision:.3f}"]
            for name, r in rankings.items()]))
    elif found.controls:
        lines.append(_agreement(found))
    return "\n".join(lines)


def _agreement(found: Any) -> str:
    """Without labels: how many of the flagged items the controls put as far up."""
    flagged = found.order[:max(1, int(found.flag.sum()))]
    shares = {name: len(set(flagged) & set((-score).argsort()[:len(flagged)])) / len(flagged)
              for name, score in found.controls.items()}
    return f"of the {counted(len(flagged), 'oddest item')}, " + ", ".join(
        f"{share:.0%} are also the oddest by {name}" for name, share in shares.items())
