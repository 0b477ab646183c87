"""``classify``: which class items are of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from latlas.cli.flags import ITEMS, LABELLED, Device, Items, Json, Labelled, Run
from latlas.cli.read import both
from latlas.cli.show import counted, counting, emit, table


def classify(run: Run, /, *, items: Items = ITEMS, source: Labelled = LABELLED,
             out: Annotated[Path | None, Parameter(
                 help="A row per item: .csv, .parquet, .npz. Default: RUN/classes.csv.")] = None,
             device: Device = "auto", json: Json = False) -> None:
    """The class of every item and the probability of each, by a model with an output for classes;
    with labels its accuracy, class by class."""
    from latlas.tasks.classify import Told
    from latlas.tasks.classify import classify as ask
    from latlas.tasks.output import check_table, write_table

    path = out or run / "classes.csv"
    check_table(path)
    model, data = both(run, items, source, device, "classify")
    with counting("classify") as progress:
        told = Told(ask(model, data, progress=progress), model.space.classes, data.take("label"))
    line = write_table(path, told.columns(data.take("names")))
    emit({**told.to_json(), "out": str(path)}, json, "\n".join([*_text(told), line]))


def _text(told: Any) -> list[str]:
    n = counted(len(told.code), "item")
    if told.accuracy is None:
        return [f"{n}, without labels", table(["class", "told"], [
            [c.name, f"{c.told:,}"] for c in told.classes])]
    rows = [[c.name, f"{c.told:,}", f"{c.count:,}", "" if c.right is None else f"{c.right:.4f}"]
            for c in told.classes]
    return [f"{n}: accuracy {told.accuracy.mean:.4f} ± {told.accuracy.standard_error:.4f}, "
            f"cross-entropy {told.cross_entropy:.4g} nats",
            table(["class", "told", "items", "right"], rows)]
