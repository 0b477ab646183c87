"""``project``, ``mix``, ``directions``: codes of given items, styles, and where items change."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from latlas.cli.flags import ITEMS, SOURCE, Device, Items, Json, Label, Run, Seed, Source, at_least
from latlas.cli.make import OutItems, Truncation, _has_codes, names, opened, save, seed_list, target
from latlas.cli.show import counted, counting, emit

Layers = Annotated[str, Parameter(
    help="Layers by their styles: coarse, middle, fine, all, or numbers (0-3,6).")]


def project(run: Run, /, *, items: Items = ITEMS, source: Source = SOURCE,
            n: Annotated[int, Parameter(help="Only the first N items.")] = 8,
            starts: Annotated[int, Parameter(help="Codes that each descent begins from.")] = 8,
            steps: Annotated[int, Parameter(help="Steps of each.")] = 200,
            space: Annotated[Literal["auto", "z", "w"], Parameter(
                help="Codes, or styles; auto: styles where there are any.")] = "auto",
            features: Annotated[str | None, Parameter(
                help="Compare these features too: random-conv, classifier, or a TorchScript "
                     "file.")] = None,
            out: OutItems = None, seed: Seed = 0, device: Device = "auto",
            json: Json = False) -> None:
    """Find the code of given items by descent: the item, the way there, and what was found.

    The error of every item stands beside that of the nearest training item.
    """
    from latlas import api
    from latlas.api.items import require_styles
    from latlas.tasks.project import write_projection

    for option, value in (("--n", n), ("--starts", starts), ("--steps", steps)):
        at_least(option, value, 1)
    path = target(out, run, "projection", "decode", "project")
    require_styles(run, "project --space w", space == "w")
    model = opened(run, device, "decode", "project")
    data = api.open_data(items.data, items.split, like=run, **source.options()).subset(slice(0, n))
    with counting("project") as progress:
        found = api.project(model, data, starts=starts, steps=steps, space=space,
                            features=features, seed=seed, progress=progress)
    line = write_projection(path, found, model)
    emit({"out": str(path), "space": found.space, **found.columns()}, json,
         f"{_errors(found)}\n{line}")


def _errors(found: Any) -> str:
    near = found.nearest
    beside = "" if near is None else (
        f"; of the nearest training items {near.mean():.5f} (what was found is nearer in "
        f"{int((found.error < near).sum())} of {len(near)})")
    return (f"squared error of {counted(len(found.error), 'item')}, model units: "
            f"{found.error.mean():.5f}{beside}")


def mix(run: Run, /, *,
        rows: Annotated[str, Parameter(help="Seeds of the pictures (1,2,5-9).")] = "0-3",
        columns: Annotated[str, Parameter(
            help="Seeds of the pictures that lend styles.")] = "10-15",
        layers: Layers = "coarse", truncation: Truncation = 1.0, out: OutItems = None,
        device: Device = "auto", json: Json = False) -> None:
    """Give some styles of the pictures of the columns to those of the rows.

    The first row and column show the pictures themselves.
    """
    from latlas import api

    chosen = seed_list("--rows", rows), seed_list("--columns", columns)
    path = target(out, run, "mix", "mix")
    model = opened(run, device, "mix")
    made = api.mix(model, *chosen, layers=layers, truncation=truncation)
    save(made.reshape(-1, *made.shape[2:]), model, path, json, columns=made.shape[1],
         rows=chosen[0], layers=layers)


def directions(run: Run, /, *, items: Items = ITEMS, source: Source = SOURCE,
               k: Annotated[int | None, Parameter(
                   help="How many. Default: 8, or as many as there are.")] = None,
               steps: Annotated[int, Parameter(help="Items along each, ends included.")] = 7,
               span: Annotated[float, Parameter(
                   help="To each side, in standard deviations.")] = 3.0,
               layers: Layers = "all",
               item: Annotated[int | None, Parameter(
                   help="Seed of the item that is changed. Default: the mean.")] = None,
               label: Label = None,
               out: OutItems = None, seed: Seed = 0, device: Device = "auto",
               json: Json = False) -> None:
    """Directions in which items change most, a row for each: of the codes, or of the styles."""
    from latlas import api
    from latlas.api.items import require_styles

    for option, value in (("--k", k), ("--steps", steps)):
        at_least(option, value, 1)
    path = target(out, run, "directions", "decode", "directions")
    require_styles(run, "directions --layers", layers != "all")
    model = opened(run, device, "decode", "directions")
    data = None
    if _has_codes(run, items):
        data = api.open_data(items.data, items.split, like=run, **source.options())
    of = names(label)
    found = api.directions(model, k, data=data, label=of, seed=seed)
    made = api.edit(model, found, seed=item, steps=steps, span=span, layers=layers, label=of)
    save(made.reshape(-1, *made.shape[2:]), model, path, json, columns=steps, space=found.space,
         share=found.share)
