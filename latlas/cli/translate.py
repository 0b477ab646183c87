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
                  help="Where to: folder/ (a PNG for each item, a GIF for each GIF, and a contact "
                       "sheet beside it), .png (the sheet alone), .npz, .npy, of one clip .gif, "
                       ".apng, .webp, .mp4. Default: RUN/to-B/.")] = None,
              device: Device = "auto", json: Json = False) -> None:
    """Turn items of one domain into those of another.

    The sheet has a row for each item: input, output and, of pairs, what was wanted. A folder is
    written file by file; after an interruption the same command writes what is missing. Recordings
    are translated whole and written as wav files.
    """
    from latlas.api.items import open_items, require
    from latlas.api.voices import hears
    from latlas.data.files import FILMS
    from latlas.data.pairs import first_side
    from latlas.tasks.clips import check_out
    from latlas.tasks.output import is_folder
    from latlas.tasks.translate import must_reach

    at_least("--n", n, 1)
    require(run, "translate")
    path = out or run / f"to-{to}"
    if hears(run):
        return _heard(run, items, source.options(), path, to, n, device, json)
    valid = {".png", ".npz", ".npy", ".webp", *FILMS}
    if not is_folder(path) and path.suffix.lower() not in valid:
        raise ConfigError(f"cannot write {path}: name a folder/, or a file that ends in .png, "
                          ".npz or .npy, of one clip in .gif, .apng, .webp or .mp4")
    model = opened(run, device, "translate")
    must_reach(model, to)
    data = open_items(run, items.data, items.split, side="A" if to == "B" else "B",
                      **source.options())
    sheet, clip = path.suffix.lower() == ".png", first_side(data).clip
    check_out(path, first_side(data))
    data = data.subset(slice(0, n or (SHEET if sheet and clip is None else None)))
    lines, facts = _written(model, data, path, to)
    emit({"out": str(path), "to": to, "n": len(data), **facts}, json, lines)


def _heard(run: Path, items: Items, options: dict[str, Any], path: Path, to: str, n: int | None,
           device: str, json: bool) -> None:
    """Recordings as wav files in a folder, and a sheet of spectra, or the sheet alone."""
    from latlas.api.voices import open_clips
    from latlas.tasks.output import is_folder
    from latlas.tasks.voices import translate_wavs

    sheet = not is_folder(path)
    if sheet and path.suffix.lower() != ".png":
        raise ConfigError(f"cannot write {path}: of recordings name a folder/, or a file that ends "
                          "in .png")
    found = open_clips(run, items.data, items.split, side="A" if to == "B" else "B", **options)
    found = found.only(found.names[:n or (SHEET if sheet else None)])
    model, lines, facts = opened(run, device, "translate"), [], {}
    if not sheet:
        with counting("translate") as progress:
            done = translate_wavs(model, found, path, to=to, progress=progress)
        there = f"; {done.found:,} were there" if done.found else ""
        lines = [f"wrote {counted(done.written, 'recording')} to {path}{there}"]
        facts = {"written": done.written, "found": done.found}
    beside = path if sheet else path.with_name(f"{path.name}-sheet.png")
    lines.append(_spectra(model, found.only(found.names[:SHEET]), beside, to))
    emit({"out": str(path), "to": to, "n": len(found), **facts, "sheet": str(beside)}, json,
         "\n".join(lines))


def _spectra(model: Any, found: Any, path: Path, to: str) -> str:
    """The contact sheet of recordings."""
    from latlas.report import pictures
    from latlas.tasks.output import write_bytes
    from latlas.tasks.voices import sheet

    rows = sheet(model, found, to=to)
    write_bytes(path, pictures.png(pictures.grid(rows.reshape(-1, *rows.shape[2:]), columns=4)))
    return f"wrote {counted(len(rows), 'recording')} to {path}: input | output"


def _written(model: Any, data: Any, path: Path, to: str) -> tuple[str, dict[str, Any]]:
    """Write it; what to say of it, and the same as numbers."""
    from latlas.data.pairs import first_side
    from latlas.tasks.clips import rolled, translate_film
    from latlas.tasks.output import is_folder, write_items
    from latlas.tasks.translate import made_for, translate

    if is_folder(path):
        return _filled(model, data, path, to)
    if path.suffix.lower() == ".png":
        return _draw(model, data, path, to), {}
    data = first_side(data)
    with counting("translate") as progress:
        if path.suffix.lower() not in (".npz", ".npy"):
            translate_film(model, data, path, to=to, progress=progress)
            return f"wrote {counted(len(data), 'frame')} to {path}", {}
        made = translate(model, data, to=to, progress=progress)
    clips = rolled(made, data)
    names = data.take("names") if clips is made else None
    return write_items(path, clips, made_for(model.space, to), names), {}


def _filled(model: Any, data: Any, folder: Path, to: str) -> tuple[str, dict[str, Any]]:
    """A file for every item, a film for every film, and the contact sheet."""
    from latlas.data.pairs import first_side
    from latlas.tasks.clips import clips_of, translate_clips
    from latlas.tasks.translate import translate_files

    both, data = data, first_side(data)
    films = [clip for clip in clips_of(data) if clip.suffix]
    with counting("translate") as progress:
        write = translate_clips if films else translate_files
        done = write(model, data, folder, to=to, progress=progress)
    beside = folder.with_name(f"{folder.name}-sheet.png")
    said = _draw(model, both if data.clip is not None else both.subset(slice(0, SHEET)), beside, to)
    there = f"; {done.found:,} were there" if done.found else ""
    what = "file" if films else "picture"
    return (f"wrote {counted(done.written, what)} to {folder}{there}\n{said}",
            {"written": done.written, "found": done.found, "sheet": str(beside)})


def _draw(model: Any, data: Any, path: Path, to: str) -> str:
    """The contact sheet: a row for each item, of clips a row of frames above what became of it."""
    from latlas.data.pairs import first_side
    from latlas.report import pictures
    from latlas.tasks.clips import strips
    from latlas.tasks.output import write_bytes
    from latlas.tasks.translate import sheet

    chosen, frames = (data, 0) if first_side(data).clip is None else strips(data)
    rows = sheet(model, chosen, to=to)
    kinds = rows.shape[1]
    across = frames or max(1, min(4, len(rows) // 4)) * kinds
    if frames:
        rows = rows.reshape(-1, frames, *rows.shape[1:]).swapaxes(1, 2)
    write_bytes(path, pictures.png(pictures.grid(rows.reshape(-1, *rows.shape[-3:]), 256,
                                                 columns=across)))
    titles = "input | output" + " | target" * (kinds == 3)
    return (f"wrote {counted(len(chosen), 'frame' if frames else 'item')} to {path}: "
            f"{titles.replace(' | ', ' above ') if frames else titles}")
