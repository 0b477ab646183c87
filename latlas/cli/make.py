"""``sample``, ``decode``, ``interpolate``, ``traverse``: items out of codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from latlas.cli.flags import (
    ITEMS,
    SOURCE,
    Device,
    Given,
    Items,
    Json,
    Label,
    Run,
    Seed,
    Source,
    at_least,
    listed,
)
from latlas.cli.show import emit
from latlas.core.errors import ConfigError

OutItems = Annotated[Path | None, Parameter(
    help="Where to: .png (grid), .gif, folder/ (a file each), .npz, .npy, .csv, .parquet. "
         "Default: in the run folder.")]
Truncation = Annotated[float, Parameter(
    help="How far styles are taken from their mean: below 1 likelier pictures, less varied.")]
Steps = Annotated[int, Parameter(help="Items on the way, ends included.")]


def sample(run: Run, /, *, n: Annotated[int, Parameter(help="How many.")] = 64,
           label: Label = None,
           given: Given = None,
           draw: Annotated[bool | None, Parameter(
               negative="--mean", help="Draw from p(x|z), or take its mean. Default: the mean of "
                                       "pictures, a draw of tables and points.")] = None,
           prior: Annotated[Literal["auto", "own", "fitted"], Parameter(
               help="What codes are drawn from: the model's own prior, or the one of `latlas "
                    "fit-prior`; auto: the fitted one where there is one.")] = "auto",
           seeds: Annotated[str | None, Parameter(
               help="One item of each of these seeds instead (1,2,5-9).")] = None,
           truncation: Truncation = 1.0, out: OutItems = None, seed: Seed = 0,
           device: Device = "auto", json: Json = False) -> None:
    """Draw new items."""
    from latlas import api
    from latlas.api.items import require_styles

    at_least("--n", n, 1)
    chosen = None if seeds is None else seed_list("--seeds", seeds)
    path = target(out, run, "samples", "sample")
    require_styles(run, "sample --truncation", truncation != 1)
    model = opened(run, device, "sample")
    items = api.sample(model, n, seed=seed, seeds=chosen, label=names(label), given=given,
                       mean=None if draw is None else not draw, prior=prior,
                       truncation=truncation)
    several = len(names(label) or ())  # a column for each class
    save(items, model, path, json,
         columns=several if 1 < several < len(items) else None)


def decode(run: Run, codes: Annotated[Path, Parameter(
               help="Codes (n, latent_dim): .npz, .npy, .csv or .parquet, as `encode` writes.")],
           /, *, label: Label = None, given: Given = None, out: OutItems = None,
           device: Device = "auto", json: Json = False) -> None:
    """Turn codes into items."""
    from latlas import api
    from latlas.cli.codes import read_codes

    array, path = read_codes(codes), target(out, run, "decoded", "decode")
    model = opened(run, device, "decode")
    items = api.decode(model, array, label=names(label), given=given)
    save(items, model, path, json)


def interpolate(run: Run, /, *, items: Items = ITEMS, source: Source = SOURCE,
                start: Annotated[int | None, Parameter(
                    help="Row of the first item in the data. Default: drawn by the seed.")] = None,
                end: Annotated[int | None, Parameter(help="Row of the last item.")] = None,
                steps: Steps = 16,
                path: Annotated[Literal["line", "circle"], Parameter(
                    help="Straight, or along the great circle.")] = "line",
                space: Annotated[Literal["z", "w"], Parameter(
                    help="What is walked through: codes, or the styles made from them.")] = "z",
                label: Label = None, given: Given = None, out: OutItems = None, seed: Seed = 0,
                device: Device = "auto", json: Json = False) -> None:
    """Walk from one item to another through the codes."""
    from latlas import api
    from latlas.api.items import require_styles

    at_least("--steps", steps, 2)
    file = target(out, run, "interpolation", "decode", "interpolate")
    require_styles(run, "interpolate --space w", space == "w")
    model = opened(run, device, "decode", "interpolate")
    classes = names(label)
    a, b = _ends(run, model, items, source, start, end, seed, classes)
    made = api.interpolate(model, a, b, steps=steps, path=path, space=space, label=classes,
                           given=given)
    save(made, model, file, json, columns=steps)


def traverse(run: Run, /, *, items: Items = ITEMS, source: Source = SOURCE,
             dims: Annotated[str | None, Parameter(
                 help="Dimensions of the code, with commas between. Default: the ten most "
                      "active.")] = None,
             span: Annotated[float, Parameter(
                 help="To each side, in standard deviations of the codes.")] = 3.0,
             steps: Steps = 9, label: Label = None, given: Given = None, out: OutItems = None,
             device: Device = "auto", json: Json = False) -> None:
    """Vary one number of the code at a time: a row per dimension, most active first."""
    from latlas import api

    at_least("--steps", steps, 2)
    path = target(out, run, "traverse", "decode", "traverse")
    model = opened(run, device, "decode", "traverse")
    codes = _codes_of_data(run, model, items, source)
    chosen = whole_numbers("--dims", dims) if dims else _active(model, codes)
    made = api.traverse(model, dims=chosen, span=span, steps=steps, codes=codes,
                        label=names(label), given=given)
    save(made.reshape(-1, *made.shape[2:]), model, path, json, columns=steps, dims=chosen)


def opened(run: Path, device: str, capability: str, task: str | None = None) -> Any:
    """The model on its device, after the check that it can do this."""
    from latlas import api
    from latlas.api.items import require

    require(run, capability, task)
    return api.load(run, device=device)


def save(items: Any, model: Any, path: Path | str, json: bool, *, labels: Any = None,
         columns: int | None = None, **more: Any) -> None:
    """Write items by suffix and say so."""
    from latlas.tasks.output import write_items

    line = write_items(path, items, model.space, labels, columns=columns)
    emit({"out": str(path), "n": len(items), "shape": list(items.shape), **more}, json, line)


def target(out: Path | None, run: Path, stem: str, capability: str,
           task: str | None = None) -> Path:
    """The file asked for, or one in the run folder: a picture, or a table for other data.

    What the model cannot do and a name that cannot be written are said before anything is loaded.
    """
    from latlas.api.items import known, require

    require(run, capability, task)
    space = known(run).space
    from latlas.tasks.output import check_items  # brings torch: not before the run is found

    path = out or run / f"{stem}{'.png' if space.kind == 'picture' else '.csv'}"
    check_items(path, space)
    return path


def names(label: str | None) -> list[str] | None:
    """``"3,5"`` as class names."""
    if label is not None and not listed(label):
        raise ConfigError(f"--label {label}: name a class, or several with commas between")
    return None if label is None else list(listed(label))


def seed_list(option: str, text: str) -> list[int]:
    """``"1,2,5-9"`` as numbers."""
    from latlas.core.ranges import numbers

    found = numbers(text)
    if found is None:
        raise ConfigError(f"{option} {text}: write whole numbers, ranges by a dash, with commas "
                          "between (1,2,5-9), at most a million")
    return found


def whole_numbers(option: str, text: str) -> list[int]:
    """``"0,3,1"`` as numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text}: write whole numbers with commas between") from None


def _ends(run: Path, model: Any, items: Items, source: Source, start: int | None,
          end: int | None, seed: int, label: list[str] | None) -> tuple[Any, Any]:
    """Codes of two rows of the data, drawn by the seed if not named; of the prior without data."""
    from latlas.api.items import require

    if (start is None) != (end is None):
        raise ConfigError("give both --start and --end, or neither")
    if start is None and not _has_codes(run, items):
        return _random_codes(model, seed, label)
    require(run, "encode", "interpolate --start")
    return _codes_of_rows(run, model, items, source, start, end, seed)


def _codes_of_rows(run: Path, model: Any, items: Items, source: Source, start: int | None,
                   end: int | None, seed: int) -> tuple[Any, Any]:
    import numpy as np

    from latlas import api

    data = api.open_data(items.data, items.split, like=run, **source.options())
    drawn = np.random.default_rng(seed).integers(len(data), size=2).tolist()
    rows = drawn if start is None or end is None else [
        _row("--start", start, len(data)), _row("--end", end, len(data))]
    codes = api.encode(model, data.subset(np.asarray(rows, np.int64)))
    return codes[0], codes[1]


def _has_codes(run: Path, items: Items) -> bool:
    """The model has an encoder, and there is data to encode."""
    from latlas.api.items import known

    about = known(run)
    named = items.data is not None or about.spec is not None
    return named and "encode" in (about.provides or ())


def _row(option: str, row: int, n: int) -> int:
    if not 0 <= row < n:
        raise ConfigError(f"{option} {row}: the data have rows 0 … {n - 1}")
    return row


def _random_codes(model: Any, seed: int, label: list[str] | None) -> tuple[Any, Any]:
    """Two codes that samples are made of, of the first and the last class where any are named."""
    from latlas import api

    codes = api.prior_codes(model, 2, seed=seed, label=label and [label[0], label[-1]])
    return codes[0], codes[1]


def _codes_of_data(run: Path, model: Any, items: Items, source: Source) -> Any:
    """Codes of at most 2,000 items; none for a model without an encoder or data at hand."""
    from latlas import api

    if not _has_codes(run, items):
        return None
    data = api.open_data(items.data, items.split, like=run, **source.options())
    return api.encode(model, data.subset(slice(0, 2000)))


def _active(model: Any, codes: Any) -> list[int]:
    """The ten most active dimensions of the code."""
    from latlas.tasks.generate import most_active

    order = range(model.latent_dim) if codes is None else most_active(codes)
    return [int(d) for d in order][:10]
