"""Results of one share of a data set, in Parquet parts that a killed run does not lose.

A data set is cut into blocks of a fixed size, and a shard is every n-th block. What an item gets
depends on its row and the seed, never on the shard, so the parts together are the table that one
run over everything would write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, RunError, unknown
from latlas.core.model import Model
from latlas.core.trees import save_json
from latlas.data.dataset import Dataset
from latlas.tasks.common import Array, Progress
from latlas.tasks.outliers import Judge, counted
from latlas.tasks.output import is_folder, write_table
from latlas.tasks.read import encode
from latlas.tasks.score import BATCH, score

#: items of a part
BLOCK = 8 * BATCH
FORMAT = 1

Columns = dict[str, Array]


@dataclass(frozen=True)
class Verb:
    """What a part can hold.

    Attributes:
        capability: the word a model needs for it.
        columns: (model, items, progress=…, **options) to one value per item and column.
        draws: (model, **options) whether random draws that differ between items are behind the
            values.
        ready: (model, normal, **options) to the options of ``columns``: what is worked out once,
            from the run's held-out items, and serves every part. ``None``: the options as they
            are.
    """

    capability: str
    columns: Callable[..., Columns]
    draws: Callable[..., bool]
    ready: Callable[..., dict[str, Any]] | None = None

    def prepared(self, model: Model, normal: Dataset | None,
                 options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of ``columns``."""
        return self.ready(model, normal, **options) if self.ready else dict(options)


def _scores(model: Model, data: Dataset, *, progress: Progress | None = None,
            **options: Any) -> Columns:
    columns = score(model, data, progress=progress, **options).columns()
    return {name: values for name, values in columns.items() if name != "item"}


def _codes(model: Model, data: Dataset, *, progress: Progress | None = None) -> Columns:
    codes = encode(model, data, progress=progress)
    return {f"z{i}": codes[:, i] for i in range(codes.shape[1])}


def _sampled(model: Model, method: str = "auto", **options: Any) -> bool:
    exact = model.exact_likelihood
    return not (exact and method in ("auto", "exact"))


def _odd(model: Model, data: Dataset, *, judge: Judge, progress: Progress | None = None) -> Columns:
    score = judge.scores(data, counted(progress, len(data)))
    return {"score": score, "flag": score > judge.threshold}


def _judge(model: Model, normal: Dataset | None, **options: Any) -> dict[str, Any]:
    if normal is None:
        raise ConfigError("outliers need the normal items that set the threshold")
    return {"judge": Judge.of(model, normal, **options)}


def _never(model: Model, **options: Any) -> bool:
    return False


VERBS: dict[str, Verb] = {
    "score": Verb("score", _scores, _sampled),
    "encode": Verb("encode", _codes, _never),
    "outliers": Verb("encode", _odd, _never, _judge),
}


def verb(name: str) -> Verb:
    """One of :data:`VERBS`, or a ConfigError that lists them."""
    if name not in VERBS:
        raise ConfigError(unknown("task", name, VERBS))
    return VERBS[name]


@dataclass(frozen=True)
class Shard:
    """Share ``number`` (from 1) of ``count``."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``2/8`` is the second of eight.

        >>> Shard.parse("2/8")
        Shard(number=2, count=8)
        """
        number, slash, count = text.partition("/")
        if not slash or not (number.strip().isdecimal() and count.strip().isdecimal()):
            raise ConfigError(f"shard {text}: write it as i/n, the first of four as 1/4")
        if not 1 <= int(number) <= int(count):
            raise ConfigError(f"shard {text}: of {int(count)} shards the first is 1/{int(count)}, "
                              f"the last {int(count)}/{int(count)}")
        return cls(int(number), int(count))

    def blocks(self, n: int, size: int) -> range:
        """Numbers of the blocks of ``n`` items that are this shard's."""
        return range(self.number - 1, -(-n // size), self.count)

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"


@dataclass(frozen=True)
class Written:
    """What a call has done: parts written and found whole, of those this shard has."""

    written: int
    found: int
    folder: Path


def write_parts(name: str, model: Model, data: Dataset, out: Path | str, shard: Shard, *,
                block: int = BLOCK, normal: Dataset | None = None,
                progress: Progress | None = None, **options: Any) -> Written:
    """Write this shard's parts that are not there yet: OUT/part-BLOCK-shard-I-of-N.parquet.

    A part has a row per item: ``item`` (its name, or its position in ``data``) and the columns of
    the verb. A part that is there is kept if it can be read and holds the right items. Parts are
    written whole, so a run may be killed at any time, and shards may run at once.

    Args:
        name: of :data:`VERBS`; ``options`` are its own.
        block: items of a part, a multiple of 512.
        normal: what ``outliers`` sets its threshold by, the same for every shard.
    Raises:
        ConfigError: a block of another size, or a folder with parts of another model, data set,
            number of shards or choice of options.
    """
    what, folder = verb(name), Path(out)
    _check(folder, block)
    request = {"format": FORMAT, "task": name, "options": options, "shards": shard.count,
               "block": block, "items": len(data), "data": _print_of_items(data),
               "model": _print_of_weights(model),
               "normal items": normal and _print_of_items(normal)}
    _agree(folder, shard, request)
    done, numbers = 0, shard.blocks(len(data), block)
    ready = what.prepared(model, normal, options)
    for count, number in enumerate(numbers):
        rows = slice(number * block, min((number + 1) * block, len(data)))
        target = folder / f"part-{number:06d}-shard-{shard}.parquet"
        items = _items(data, rows)
        if not _holds(target, items):
            step = progress and partial(_shifted, progress, count * block, len(numbers) * block)
            columns = what.columns(model, data.subset(rows), progress=step, **ready)
            write_table(target, {"item": items, **columns})
            done += 1
    return Written(done, len(numbers) - done, folder)


def _check(folder: Path, block: int) -> None:
    if block < BATCH or block % BATCH:
        raise ConfigError(f"block={block}: a multiple of {BATCH}")
    if folder.is_file() or not is_folder(folder):
        raise ConfigError(f"cannot write parts to {folder}: name a folder")


def _agree(folder: Path, shard: Shard, request: Mapping[str, Any]) -> None:
    """Note what the parts of this shard are of; what other shards have noted must be the same."""
    import json

    for path in sorted(folder.glob("shard-*.json")):
        try:
            other = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}; remove it to start afresh") from error
        differs = [key for key in request if other.get(key) != request[key]]
        if differs:
            raise ConfigError(f"{folder} holds parts of other {' and '.join(differs)}: name "
                              "another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    save_json(folder / f"shard-{shard}.json", request)


def _items(data: Dataset, rows: slice) -> Array:
    """Names, or positions in the whole data set."""
    names = data.subset(rows).take("names")
    return np.arange(rows.start, rows.stop) if names is None else np.asarray(names)


def _holds(target: Path, items: Array) -> bool:
    """Whether a part is there, can be read to its end, and is about these items."""
    import polars

    if not target.is_file():
        return False
    try:
        found = polars.read_parquet(target)
        return np.array_equal(found["item"].to_numpy(), items)
    except Exception:  # whatever a parser makes of a broken file: it is written anew
        return False


def _shifted(progress: Progress, before: int, total: int, done: int, items: int) -> None:
    progress(min(before + done, total), total)


def _print_of_weights(model: Model) -> str:
    """A digest of every number the model has learnt."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().numpy().tobytes())
    return digest.hexdigest()


def _print_of_items(data: Dataset) -> str:
    """A digest of 64 items spread over a data set: it may be too large to read for this."""
    at = np.unique(np.linspace(0, len(data) - 1, 64).astype(np.int64)) if len(data) else slice(0)
    return print_of(np.asarray(data.subset(at).take("x")))


def print_of(x: Array) -> str:
    """A digest of an array's numbers and shape."""
    digest = hashlib.blake2b(repr((x.shape, x.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()
