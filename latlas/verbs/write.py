"""Arrays to files, by the file's suffix; written beside the target and renamed when whole."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latlas.core import files
from latlas.core.errors import ConfigError, RunError, say_option
from latlas.core.space import Space, Table
from latlas.render import imaging, plots
from latlas.render.text import counted
from latlas.verbs.names import file_names

if TYPE_CHECKING:
    import polars

Array = NDArray[Any]
FRAMES = (".csv", ".parquet", ".npz")
TABLES = (*FRAMES, ".npy")
LATENTS = (".png", *TABLES)
EXAMPLES = (".png", ".gif", *TABLES)


def write_examples(path: Path | str, values: Array, space: Space, names: Any = None, *,
                   columns: int | None = None) -> str:
    """Examples (n, *shape) in data units, by suffix; returns what was written, in one line.

    ``.png``: a grid of images (``columns`` wide), or a scatter plot of points and tables;
    ``.gif``: an animation; a folder (no suffix, or a trailing slash): one PNG per example at its
    own size; ``.npz``, ``.npy``: the numbers; ``.csv``, ``.parquet``: one row per example, of a
    table the columns that its file had.

    Raises:
        ConfigError: another suffix, or one that does not suit the data.
        RunError: the file cannot be written; what was there before is intact.
    """
    check_examples(path, space)
    target, suffix = Path(path), Path(path).suffix.lower()
    what, note = "example", imaging.note(space.shape[0])
    if is_folder(path):
        what, files = "image", zip(image_names(len(values), names), values, strict=True)
        if target.is_dir():
            for name, example in files:
                write_bytes(target / name, picture(example, space))
        else:  # into a folder beside it first, so that a crash leaves no half of a set
            with whole(target) as part:
                for name, example in files:
                    (part / name).parent.mkdir(parents=True, exist_ok=True)
                    (part / name).write_bytes(picture(example, space))
    elif suffix in (".csv", ".parquet"):
        return write_table(target, example_columns(values, space, names))
    elif suffix in (".npz", ".npy"):
        return _numbers(target, suffix, "x", values, names)
    elif space.kind != "image":
        titles = _column_names(space, int(np.prod(values.shape[1:])))
        return _scatter(target, values.reshape(len(values), -1), titles)
    else:
        write_bytes(target, imaging.gif(values, space.levels) if suffix == ".gif" else
                    imaging.png(imaging.grid(values, space.levels, columns=columns)))
    return f"wrote {counted(len(values), what)} to {target}{f' ({note})' if note else ''}"


def check_examples(path: Path | str | None, space: Space) -> None:
    """Raise ConfigError for a name that :func:`write_examples` would refuse: ask before long
    work."""
    if path is None:
        return
    folder = is_folder(path)
    suffix = "" if folder else check_suffix(path, EXAMPLES, folder=True)
    if space.kind != "image" and (folder or suffix == ".gif"):
        what = "a folder" if folder else ".gif"
        raise ConfigError(f"cannot write {path}: {what} holds images, not {space.words}; valid "
                          f"endings are .png, {', '.join(TABLES)}", option="out")


def check_suffix(path: Path | str | None, valid: Sequence[str] = FRAMES, *,
                 folder: bool = False) -> str:
    """The suffix of a name, in small letters; ask before long work.

    Raises:
        ConfigError: it is none of these; ``folder`` says that a folder would do too.
    """
    suffix = "" if path is None else Path(path).suffix.lower()
    if path is not None and suffix not in valid:
        also = ", or a folder (a name that ends in /)" if folder else ""
        raise ConfigError(f"cannot write {Path(path)}: valid endings are "
                          f"{', '.join(valid)}{also}")
    return suffix


def write_latents(path: Path | str, latents: Array, names: Any = None) -> str:
    """Latents (n, d), by suffix: ``.csv``, ``.parquet`` (columns z0, z1, …), ``.npz``, ``.npy``,
    or a plot of the first few as ``.png``."""
    target, suffix = Path(path), check_suffix(path, LATENTS)
    titles = [f"z{i}" for i in range(latents.shape[1])]
    if suffix == ".png":
        return _scatter(target, latents, titles)
    if suffix in (".npz", ".npy"):
        return _numbers(target, suffix, "latents", latents, names)
    return write_table(target, {**_named(names), **dict(zip(titles, latents.T, strict=True))})


def write_table(path: Path | str, columns: Mapping[str, Any]) -> str:
    """Columns of equal length as ``.csv``, ``.parquet`` or ``.npz``."""
    target, suffix = Path(path), check_suffix(path)
    with whole(target) as part:
        if suffix == ".npz":
            arrays: dict[str, Any] = {k: as_array(v) for k, v in columns.items()}
            np.savez_compressed(part, **arrays)
        else:
            frame = as_frame(columns)
            # polars' own writers know no paths but UTF-8, and errors of another kind
            buffer = io.BytesIO()
            if suffix == ".csv":  # a time of day without the zeros of its fraction
                frame.write_csv(buffer, time_format="%H:%M:%S%.f")
            else:
                frame.write_parquet(buffer)
            part.write_bytes(buffer.getbuffer())
    return f"wrote {len(next(iter(columns.values())))} rows to {target}"


def as_frame(columns: Mapping[str, Any]) -> polars.DataFrame:
    """Arrays and series as a frame of polars; series keep their types."""
    import polars

    return polars.DataFrame({readable(k): v if isinstance(v, polars.Series) else
                             [readable(t) for t in np.asarray(v).tolist()]
                             if np.asarray(v).dtype.kind in "UO" else np.asarray(v)
                             for k, v in columns.items()})


def as_array(column: Any) -> Array:
    """An array, or a series as one: of words, or of values some of which are missing, objects."""
    if hasattr(column, "null_count") and (column.null_count() or column.dtype == str):
        return np.array(column.to_list(), object)
    return np.asarray(column)


def example_columns(values: Array, space: Space, names: Any = None) -> dict[str, Any]:
    """A row per example: of a table the columns that its file had, as series of their types, else
    an array per number."""
    flat = values.reshape(len(values), -1)
    if isinstance(space, Table) and len(space.columns) == flat.shape[1]:
        from latlas.data.values import frame_of

        return {**_named(names), **{s.name: s for s in frame_of(flat, space)}}
    titles = _column_names(space, flat.shape[1])
    return {**_named(names), **dict(zip(titles, flat.T, strict=True))}


def readable(value: Any) -> Any:
    """Text that any file can hold: bytes of a file's name that are no UTF-8 as question marks."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def write_plot(target: Path, data: bytes) -> str:
    """A plot of :mod:`latlas.render.plots` as a PNG on white."""
    plot, buffer = Image.open(io.BytesIO(data)).convert("RGBA"), io.BytesIO()
    ground = Image.new("RGBA", plot.size, "white")
    Image.alpha_composite(ground, plot).convert("RGB").save(buffer, "PNG", optimize=True)
    write_bytes(target, buffer.getvalue())
    return f"wrote {target}"


def is_folder(path: Path | str) -> bool:
    """A name that ends in a slash, has no suffix, or is a folder already."""
    return str(path).endswith(("/", os.sep)) or not Path(path).suffix or Path(path).is_dir()


def check_place(path: Path | str | None, data: Any = None) -> None:
    """Raise RunError, before long work, where nothing can be written: a folder that is read-only,
    a disk that is full, a file in the way; ConfigError where it would replace a file of ``data``.
    """
    if path is None:
        return
    for source in data if isinstance(data, tuple | list) else (data,):
        if isinstance(source, str | Path) and Path(path).is_file() and Path(source).is_file() and (
                Path(path).samefile(source)):
            raise ConfigError(f"{say_option('out', path)}: it is the data, which would be replaced",
                              option="out", hint="name another file")
    place = Path(path).absolute()
    place = place if is_folder(path) and place.is_dir() else place.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise RunError(f"cannot save {path}: {error.strerror}", option="out",
                       hint=f"name another place: {say_option('out', 'PATH')}") from None


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """:func:`latlas.core.files.whole` in a folder that is made if it is not there."""
    with files.whole(target) as part:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part


def write_bytes(target: Path, data: bytes) -> None:
    """One file, by rename."""
    with whole(target) as part:
        part.write_bytes(data)


def picture(example: Array, space: Space) -> bytes:
    """One example at its own size: 16 bits a gray pixel where the data has more than 256 levels."""
    if (space.levels or 256) > 256 and len(example) == 1:
        return imaging.png(example[0].astype(np.uint16))
    rgba = imaging.to_rgba(example[None], space.levels)[0]
    return imaging.png(rgba[..., 0] if len(example) == 1 else rgba)


def image_names(n: int, names: Any) -> list[str]:
    """Of PNG files for n examples: by their own names, numbered where they have none."""
    return [f"{i:05d}.png" for i in range(n)] if names is None else file_names(names)


def _column_names(space: Space, width: int) -> list[str]:
    """Of a table its own; else numbered: p0, p1, … of pixels, x0, x1, … of others."""
    if len(space.columns) == width:
        return list(space.columns)
    return [f"{'p' if space.kind == 'image' else 'x'}{i}" for i in range(width)]


def _scatter(target: Path, values: Array, titles: Sequence[str]) -> str:
    """Two columns as a scatter plot, more as the pairs of the first few; white ground."""
    write_plot(target, plots.scatter(values, x=titles[0], y=titles[1]) if values.shape[1] == 2
               else plots.pairs({"": values}, titles))
    some = f" (columns {', '.join(titles[:4])} of {len(titles)})" if len(titles) > 4 else ""
    return f"wrote {len(values)} points to {target}{some}"


def _numbers(target: Path, suffix: str, key: str, values: Array, names: Any) -> str:
    with whole(target) as part:
        if suffix == ".npy":
            np.save(part, values)
        else:
            arrays: dict[str, Any] = {key: values, **_named(names)}
            np.savez_compressed(part, **arrays)
    return f"wrote {len(values)} rows to {target}"


def _named(names: Any) -> dict[str, Array]:
    return {} if names is None else {"name": np.asarray(names).astype(str)}
