"""``weights``: how often each item should come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from latlas.cli.flags import ITEMS, LABELLED, Device, Items, Json, Labelled, Run
from latlas.cli.show import counted, counting, emit


def weights(run: Run, /, *, items: Items = ITEMS, source: Labelled = LABELLED,
            method: Annotated[Literal["auto", "own", "product", "maximum"], Parameter(
                help="By the densities of the code's dimensions: the inverse of their product, or "
                     "of the least (maximum). own: as the model itself was trained. auto: own "
                     "where there is one, else product.")] = "auto",
            within: Annotated[Literal["auto", "class", "all"], Parameter(
                help="Densities among the items of each class, or of all together. auto: by class "
                     "where there are labels.")] = "auto",
            share: Annotated[float | None, Parameter(
                help="Effective sample size that is kept, as a share of the items. Default: "
                     "0.2.")] = None,
            clip: Annotated[float | None, Parameter(
                help="Largest weight, times their mean. Default: 20.")] = None,
            bins: Annotated[int | None, Parameter(
                help="Bins of a dimension's histogram. Default: 10.")] = None,
            alpha: Annotated[float | None, Parameter(
                help="Added to every density. Default: the least that keeps the share.")] = None,
            dimensions: Annotated[bool, Parameter(
                help="Also a column per dimension: how rare the item is in it, nats.")] = False,
            out: Annotated[Path | None, Parameter(
                help="A row per item: .csv, .parquet, .npz. Default: RUN/weights.parquet.")] = None,
            device: Device = "auto", json: Json = False) -> None:
    """Weights by which rare items come more often, for training a model of any kind.

    Items are all of --data, or those the run was trained on.
    """
    from latlas import api
    from latlas.api.items import require
    from latlas.tasks.output import check_table, write_table

    path = out or run / "weights.parquet"
    check_table(path)
    require(run, "encode", "weights")
    data = api.open_data(items.data, items.split or ("all" if items.data else "train"), like=run,
                         **source.options())
    with counting("encode") as progress:
        found = api.weights(api.load(run, device=device), data, method=method, within=within,
                            share=share, clip=clip, bins=bins, alpha=alpha, progress=progress)
    line = write_table(path, found.columns(data.take("names"), dimensions))
    emit({"items": len(found.weight), "method": found.method,
          "effective_share": found.effective_share, "greatest": float(found.weight.max()),
          "out": str(path)}, json,
         f"{counted(len(found.weight), 'item')}, method {found.method}\n{found.words}\n{line}")
