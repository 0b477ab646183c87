"""``audit``: what a data set holds little of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from latlas.cli.flags import LABELLED, Device, Json, Labelled, Run, Seed, Split, at_least
from latlas.cli.show import counted, counting, emit, table


def audit(run: Run, /, *, data: Annotated[str | None, Parameter(
              help="Source to audit. Default: what the run was trained on.")] = None,
          split: Annotated[Split, Parameter(help="Part of the source.")] = "all",
          source: Labelled = LABELLED,
          group: Annotated[str | None, Parameter(
              help="Factor or column whose values are the groups; more than 20 numbers are cut at "
                   "their quartiles. Default: the labels.")] = None,
          draws: Annotated[int, Parameter(
              help="Draws of z behind the likelihood of groups; 0 leaves it out.")] = 4,
          out: Annotated[Path | None, Parameter(
              help="Folder for report.html, audit.json and items.csv. Default: RUN/audit.")] = None,
          seed: Seed = 0, device: Device = "auto", json: Json = False) -> None:
    """What does a data set hold little of? How rare each item is by its code, what the rarest
    share, and how groups of items fare."""
    from latlas.api.auditing import audited, write

    at_least("--draws", draws, 0)
    folder = out or run / "audit"
    with counting("audit") as progress:
        found, model, items = audited(run, data, split, group=group, draws=draws, seed=seed,
                                      progress=progress, device=device, **source.options())
    given = {"data": data, "split": split, "label": source.label, "group": group}
    asked = "".join(f" --{name} {value}" for name, value in given.items() if value)
    lines = write(found, model, items, folder, title=f"{run.resolve().name}: audit", seed=seed,
                  command=f"latlas audit {run}{asked}")
    emit({**found.to_json(), "out": str(folder)}, json, "\n".join([*_text(found), *lines]))


def _text(found: Any) -> list[str]:
    lines = [f"{counted(len(found.rarity), 'item')}; the rarest {len(found.rarest):,} in "
             f"{counted(len(found.clusters), 'group')} of "
             f"{', '.join(f'{len(c.items):,}' for c in found.clusters)}", found.weights.words]
    if found.groups:
        lines.append(_groups(found))
    lines += [f"worst by {name}: {s.worst} ({s.value:.4g}; variance between groups "
              f"{s.variance:.4g})" for name, s in found.spread.items()]
    return [*lines, *found.notes]


def _groups(found: Any) -> str:
    heads = {"count": "items", "rarity": "mean rarity", "rarest": "among the rarest",
             "lift": "weight lift", "error": "error", "nats": "nats", "accuracy": "accuracy"}
    kept = [k for k in heads if getattr(found.groups[0], k) is not None]
    return table(["group", *(heads[k] for k in kept)], [
        [g.name, *(f"{getattr(g, k):,}" if k == "count" else f"{getattr(g, k):.4g}"
                   for k in kept)] for g in found.groups])
