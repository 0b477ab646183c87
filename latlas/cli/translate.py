"""``translate``: items of one domain as those of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from latlas.cli.flags import ITEMS, SOURCE, Device, Items, Json, Run, Source, at_least
from latlas.cli.make import opened
from latlas.cli.show import counted, counting, emit
from latlas.core.errors import ConfigError

#: items of the contact sheet
SHEET = 16


def translate(run: Run, /, *, items: Items = ITEMS, source: Source = SOURCE,
              to: Annotated[Literal["A", "B"], Parameter(help="Domain of the result.")] = "B",
              n: Annotated[int | None, Parameter(
                  help="Only the first N items. Default: 16 in a picture, else all.")] = None,
              out: Annotated[Path | None, Parameter(
                  help="Where to: folder/ (a PNG for each item, and a contact sheet beside it), "
                       ".png (the sheet alone), .npz, .npy. Default: RUN/to-B/.")] = None,
              device: Device = "auto", json: Json = False) -> None:
    """Turn items of one domain into those of another.

    The sheet has a row for each item: input, output and, of pairs, what was wanted. A folder is
    written file by file; after an interruption the same command writes what is missing.
    """
    from latlas.api.items import open_items, require
    from latlas.tasks.output import is_folder

    at_least("--n", n, 1)
    require(run, "translate")
    path = out or run / f"to-{to}"
    if not is_folder(path) and path.suffix.lower() not in (".png", ".npz", ".npy"):
        raise ConfigError(f"cannot write {path}: name a folder/, or a file that ends in .png, "
                          ".npz or .npy")
    data = open_items(run, items.data, items.split, side="A" if to == "B" else "B",
                      **source.options())
    sheet = path.suffix.lower() == ".png"
    data = data.subset(slice(0, n or (SHEET if sheet else None)))
    model = opened(run, device, "translate")
    lines, facts = _written(model, data, path, to)
    emit({"out": str(path), "to": to, "n": len(data), **facts}, json, lines)


def _written(model: Any, data: Any, path: Path, to: str) -> tuple[str, dict[str, Any]]:
    """Write it; what to say of it, and the same as numbers."""
    from latlas.tasks.output import is_folder, write_items
    from latlas.tasks.translate import made_for, translate, translate_files

    if is_folder(path):
        with counting("translate") as progress:
            done = translate_files(model, data, path, to=to, progress=progress)
        beside = path.with_name(f"{path.name}-sheet.png")
        said = _draw(model, data.subset(slice(0, SHEET)), beside, to)
        there = f"; {done.found:,} were there" if done.found else ""
        return (f"wrote {counted(done.written, 'picture')} to {path}{there}\n{said}",
                {"written": done.written, "found": done.found, "sheet": str(beside)})
    if path.suffix.lower() == ".png":
        return _draw(model, data, path, to), {}
    with counting("translate") as progress:
        made = translate(model, data, to=to, progress=progress)
    return write_items(path, made, made_for(model.space, to), data.take("names")), {}


def _draw(model: Any, data: Any, path: Path, to: str) -> str:
    """The contact sheet."""
    from latlas.report import pictures
    from latlas.tasks.output import write_bytes
    from latlas.tasks.translate import sheet

    rows = sheet(model, data, to=to)
    across = max(1, min(4, len(rows) // 4))
    write_bytes(path, pictures.png(pictures.grid(rows.reshape(-1, *rows.shape[2:]), 256,
                                                 columns=across * rows.shape[1])))
    titles = "input | output" + " | target" * (rows.shape[1] == 3)
    return f"wrote {counted(len(rows), 'item')} to {path}: {titles}"
