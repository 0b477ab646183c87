"""``encode``, ``reconstruct``, ``denoise``: what a model makes of items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    at_least,
)
from latlas.cli.make import OutItems, save, target
from latlas.cli.show import counted, counting, emit
from latlas.core.errors import ConfigError

Count = Annotated[int | None, Parameter(
    help="Only the first N items. Default: 64 in a picture, else all.")]
GRID = 64


def encode(run: Run, /, *, items: Items = ITEMS, source: Labelled = LABELLED,
           n: Annotated[int | None, Parameter(help="Only the first N items.")] = None,
           out: Annotated[Path | None, Parameter(
               help="Where to: .csv, .parquet, .npz, .npy, .png. Default: RUN/codes.npz.")] = None,
           parts: Parts = WHOLE, device: Device = "auto", json: Json = False) -> None:
    """Turn items into codes."""
    from latlas import api
    from latlas.tasks.output import check_codes, write_codes

    at_least("--n", n, 1)
    path, sharded = out or run / "codes.npz", check_parts(parts, out)
    if not sharded:
        check_codes(path)
    model, data = both(run, items, source, device, "encode")
    data = data.subset(slice(0, n))
    if sharded:
        write_shard("encode", model, data, parts, out, json)
        return
    with counting("encode") as progress:
        codes = api.encode(model, data, progress=progress)
    line = write_codes(path, codes, data.take("names"))
    emit({"out": str(path), "n": len(codes), "latent_dim": codes.shape[1]}, json, line)


def reconstruct(run: Run, /, *, items: Items = ITEMS, source: Labelled = LABELLED,
                n: Count = None, out: OutItems = None, device: Device = "auto",
                json: Json = False) -> None:
    """Encode and decode: what the model keeps of each item.

    In a picture every row of originals has its reconstructions below.
    """
    _round_trip("reconstruct", run, items, source, n, out, device, json)


def denoise(run: Run, /, *, items: Items = ITEMS, source: Labelled = LABELLED,
            n: Count = None, out: OutItems = None, device: Device = "auto",
            json: Json = False) -> None:
    """Clean noisy items. In a picture every row of noisy items has the clean ones below."""
    _round_trip("denoise", run, items, source, n, out, device, json)


def _round_trip(verb: str, run: Path, items: Items, source: Labelled, n: int | None,
                out: Path | None, device: str, json: bool) -> None:
    from latlas import api

    at_least("--n", n, 1)
    path = target(out, run, verb, verb)
    model, data = both(run, items, source, device, verb)
    drawn = path.suffix.lower() == ".png" and model.space.kind == "picture"
    data = data.subset(slice(0, n or (GRID if drawn else None)))
    with counting(verb) as progress:
        made = getattr(api, verb)(model, data, progress=progress)
    if drawn:
        _compared(data.take("x"), made, model, path, json)
    else:
        save(made, model, path, json, labels=data.take("names"))


def both(run: Path, items: Items, source: Labelled, device: str,
         capability: str) -> tuple[Any, Any]:
    """Model and items, after the check; the data before the weights."""
    from latlas import api
    from latlas.api.items import require

    require(run, capability)
    data = api.open_data(items.data, items.split, like=run, **source.options())
    return api.load(run, device=device), data


def write_shard(verb: str, model: Any, data: Any, parts: Parts, out: Path | None, json: bool,
                **options: Any) -> None:
    """One share of the items, in parts."""
    from latlas.tasks import shards

    share, folder = shards.Shard.parse(parts.shard or "1/1"), _folder(out)
    with counting(verb) as progress:
        done = shards.write_parts(verb, model, data, folder, share, block=parts.block,
                                  progress=progress, **options)
    emit({"out": str(folder), "shard": parts.shard, "written": done.written,
          "found": done.found}, json,
         f"shard {parts.shard}: wrote {counted(done.written, 'part')} to {folder}"
         + (f"; {done.found:,} were there" if done.found else ""))


def check_parts(parts: Parts, out: Path | None) -> bool:
    """Whether one share is asked for; ConfigError, before the long work, for one that cannot be."""
    from latlas.tasks.shards import Shard

    if parts.shard is not None:
        Shard.parse(parts.shard)
        _folder(out)
    return parts.shard is not None


def _folder(out: Path | None) -> Path:
    if out is None:
        raise ConfigError("--shard needs --out FOLDER, the same for every shard")
    return out


def _compared(before: Any, after: Any, model: Any, path: Path, json: bool) -> None:
    """A picture with rows of eight originals and of what became of them, in turn."""
    import numpy as np

    from latlas.tasks.output import write_items

    n, columns = len(after), min(8, len(after))
    rows = [_whole(x, i, columns) for i in range(0, n, columns) for x in (before, after)]
    write_items(path, np.concatenate(rows), model.space, columns=columns)
    emit({"out": str(path), "n": n, "shape": list(after.shape)}, json,
         f"wrote {n:,} item{'' if n == 1 else 's'} to {path}, every row under its originals")


def _whole(items: Any, first: int, columns: int) -> Any:
    """One row, filled with black at the end."""
    import numpy as np

    row = items[first:first + columns]
    blank = np.zeros((columns - len(row), *row.shape[1:]), row.dtype)
    return np.concatenate([row, blank]) if len(blank) else row
