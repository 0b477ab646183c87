"""Results of one share of a data set, in Parquet parts that a killed run does not lose.

A data set is cut into blocks of a fixed size, and a shard is every n-th block. What an example gets
depends on its row and the seed, never on the shard, so the parts together are the table that one
run over everything would write.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, RunError, say_option
from latlas.core.files import save_json
from latlas.core.model import Model
from latlas.data.dataset import Dataset
from latlas.data.keys import digest_of, keys_of
from latlas.verbs.common import Array, Progress
from latlas.verbs.estimators import BATCH
from latlas.verbs.results import ShardParts, model_digest
from latlas.verbs.write import FRAMES, check_suffix, is_folder, write_table

FORMAT = 1
#: examples of a part where nobody says how many, and at most
BLOCK, MOST = 4096, 1 << 30
Columns = Callable[[Dataset, Progress | None], dict[str, Array]]


def share_of(text: str) -> tuple[int, int]:
    """Number, from 1, and count of the shares.

    >>> share_of("2/8")
    (2, 8)
    """
    number, slash, count = text.partition("/")
    if not slash or not (number.strip().isdecimal() and count.strip().isdecimal()):
        raise ConfigError(f"{say_option('shard', text)}: write it as i/n, the first of four "
                          "as 1/4", option="shard")
    if not 1 <= int(number) <= int(count):
        raise ConfigError(f"{say_option('shard', text)}: of {int(count)} shards the first is "
                          f"1/{int(count)}, the last {int(count)}/{int(count)}", option="shard")
    return int(number), int(count)


def check_output(shard: str | None, out: Path | str | None, block: int,
                 suffixes: Sequence[str] = FRAMES) -> None:
    """Raise ConfigError, before the long work, for a shard, folder or file that cannot be."""
    if shard is None:
        check_suffix(out, suffixes)
        if block != BLOCK:
            raise ConfigError(f"{say_option('block', block)} belongs to {say_option('shard')}",
                              option="block")
        return
    share_of(shard)
    if out is None:
        raise ConfigError(f"{say_option('shard')} needs a folder, the same for every shard",
                          option="out", hint=f"name it with {say_option('out', 'FOLDER')}")
    if block % BATCH or not 0 < block <= MOST:
        raise ConfigError(f"{say_option('block', block)}: a multiple of {BATCH}", option="block")
    if Path(out).is_file() or not is_folder(out):
        raise ConfigError(f"cannot write parts to {out}: name a folder", option="out")


def write_parts(verb: str, model: Model, data: Dataset, columns: Columns, *, shard: str,
                out: Path | str | None, block: int = 8 * BATCH, reference: Dataset | None = None,
                progress: Progress | None = None, **options: Any) -> ShardParts:
    """Write this shard's parts that are not there yet: OUT/part-BLOCK-shard-I-of-N.parquet.

    A part has a row per example: ``example`` (its name, or its position in the data) and the
    columns of the verb; it is kept if it can be read and holds the right examples. Parts are
    written whole, so a run may be killed at any time, and shards may run at once.

    Args:
        columns: (examples, progress) to one value per example and column.
        block: examples of a part, a multiple of 512.
        reference: what ``outliers`` sets its threshold by, the same for every shard.

    ConfigError: a folder with parts of another model, data set, number of shards or options.
    """
    import polars

    (number, count), folder = share_of(shard), Path(str(out))
    request = {
        "format": FORMAT, "verb": verb, "options": options, "shards": count, "block": block,
        "examples": len(data), "data": digest_of(keys_of(data)),
        "model": model_digest(model, own=True),
        "reference examples": reference and digest_of(keys_of(reference))}
    for path in sorted(folder.glob("shard-*.json")):  # what other shards noted must be the same
        try:
            other = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}", hint="remove it to start afresh") \
                from error
        differs = [key for key in request if other.get(key) != request[key]]
        if differs:
            raise ConfigError(f"{folder} holds parts of other {' and '.join(differs)}: name "
                              "another folder, or remove it", option="out")
    folder.mkdir(parents=True, exist_ok=True)
    save_json(folder / f"shard-{number}-of-{count}.json", request)
    blocks, written = range(number - 1, -(-len(data) // block), count), 0
    for place, start in enumerate(row * block for row in blocks):
        part = data.subset(slice(start, min(start + block, len(data))))
        names = part.take("names")
        titles = start + np.arange(len(part)) if names is None else np.asarray(names)
        target = folder / f"part-{blocks[place]:06d}-shard-{number}-of-{count}.parquet"
        with suppress(Exception):  # whatever a parser makes of a broken part: it is written anew
            if target.is_file() and np.array_equal(
                    polars.read_parquet(target)["example"].to_numpy(), titles):
                continue

        def step(now: int, _: int, before: int = place * block) -> None:
            if progress:
                progress(min(before + now, len(blocks) * block), len(blocks) * block)

        write_table(target, {"example": titles, **columns(part, step)})
        written += 1
    return ShardParts(written, len(blocks) - written, folder, shard)
