"""``encode``, ``reconstruct``, ``denoise``: from data to latents and back, by posterior means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from latlas.run import as_run
from latlas.verbs.common import (
    Array,
    Block,
    DataLike,
    Examples,
    First,
    Out,
    Output,
    Parts,
    Progress,
    Result,
    RunLike,
    Shard,
    Split,
    at_least,
)

#: examples that an image shows of many
GRID = 64


@dataclass(eq=False, repr=False)
class Latents(Result):
    """The mean latent vector of every example; an array to NumPy.

    Attributes:
        values: (n, latent_dim) float32; ``names`` (n,) of the examples' files, if any.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".png", ".csv", ".parquet", ".npz", ".npy")
    values: Array
    names: Any = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.values, dtype) if copy else np.asarray(self.values, dtype)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Array:
        return self.values[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.values.shape

    def facts(self) -> dict[str, Any]:
        return {"n": len(self.values), "latent_dim": self.values.shape[1]}

    def table(self) -> dict[str, Array]:
        return {f"z{i}": column for i, column in enumerate(self.values.T)}

    def save(self, path: str | Path) -> str:
        from latlas.verbs.write import write_latents

        return write_latents(path, self.values, self.names)


def encode(run: RunLike, data: DataLike = None, *, split: Split = None, n: First = None,
           shard: Shard = None, block: Block = 4096,
           out: Annotated[Out, Output("latents.npz", "Where to: .csv, .parquet, .npz, .npy, .png. "
                                                     "Default: RUN/latents.npz.")] = None,
           progress: Progress | None = None, **read: Any) -> Latents | Parts:
    """Turn examples into latent vectors: the mean of q(z|x) of each."""
    from latlas.verbs import shards
    from latlas.verbs.passes import encoded

    run = as_run(run)
    run.require("encode")
    at_least("n", n, 1)
    shards.check_output(shard, out, block, Latents.suffixes)
    examples = run.open(data, split, **read).subset(slice(0, n))
    model = run.model
    if shard is None:
        return Latents(encoded(model, examples, progress), examples.take("names")).saved(out)
    return shards.write_parts(
        "encode", model, examples, lambda part, count: Latents(
            encoded(model, part, count)).table(),
        shard=shard, out=out, block=block, progress=progress)


def reconstruct(run: RunLike, data: DataLike = None, *, split: Split = None,
                n: First = None, out: Annotated[Out, Output("reconstruct")] = None,
                progress: Progress | None = None, **read: Any) -> Examples:
    """Encode and decode: what the model keeps of each example.

    An image shows 64 examples unless N is given, every row of originals with its reconstructions
    below.
    """
    return _round_trip("reconstruct", run, data, split, n, out, progress, read)


def denoise(run: RunLike, data: DataLike = None, *, split: Split = None, n: First = None,
            out: Annotated[Out, Output("denoise")] = None, progress: Progress | None = None,
            **read: Any) -> Examples:
    """Clean noisy examples, with a model trained to undo noise (Vincent et al. 2008).

    An image shows 64 examples unless N is given, every row of noisy ones with the clean ones
    below.
    """
    return _round_trip("denoise", run, data, split, n, out, progress, read)


def _round_trip(verb: str, run: Any, data: Any, split: Any, n: int | None, out: Out,
                progress: Progress | None, read: dict[str, Any]) -> Examples:
    from latlas.verbs import write
    from latlas.verbs.passes import condition_of, examples_of, over, to_data

    run = as_run(run)
    run.require(verb)
    at_least("n", n, 1)
    write.check_examples(out, run.space)
    examples = run.open(data, split, **read)
    drawn = out is not None and Path(out).suffix.lower() == ".png" and run.space.kind == "image"
    examples = examples.subset(slice(0, n or (GRID if drawn else None)))

    def round_trip(model: Any, batch: Any) -> Array:
        condition = condition_of(model, batch)
        z = model.encode(batch.x, **condition).mean
        return to_data(model.space, model.decode(z, **condition).mean)

    values = over(run.model, examples, round_trip, progress)
    return Examples(values, run.space, examples.take("names"),
                    originals=examples_of(examples) if drawn else None).saved(out)


def read_latents(latents: Any) -> Array:
    """(n, latent_dim) float32 from an array, or a file as :func:`encode` writes them.

    Raises:
        DataError: no such file, no numbers in it, or another shape.
    """
    from latlas.core.errors import DataError

    if not isinstance(latents, (str, Path)):
        return np.asarray(latents, np.float32)
    path, suffix = Path(latents), Path(latents).suffix.lower()
    readers: dict[str, Callable[[], Any]] = {
        ".npy": lambda: np.load(path, allow_pickle=False), ".npz": lambda: _from_npz(path),
        ".csv": lambda: _from_table(path), ".parquet": lambda: _from_table(path)}
    if suffix not in readers:
        raise DataError(f"{path}: latents are read from {', '.join(sorted(readers))}")
    try:
        values = np.asarray(readers[suffix](), np.float32)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # whatever a parser makes of a broken file
        raise DataError(f"{path} cannot be read as latents: {error}") from error
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(f"{path} holds an array of shape {values.shape}"
                        f"{'' if values.ndim != 2 else ' with NaN or infinity'}; latents are "
                        "finite numbers (n, latent_dim)")
    return values


def _from_npz(path: Path) -> Array:
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["latents" if "latents" in file.files else file.files[0]])


def _from_table(path: Path) -> Array:
    """The columns z0, z1, … of a table, or all of it."""
    import polars

    frame = polars.read_csv(path) if path.suffix.lower() == ".csv" else polars.read_parquet(path)
    numbered = [c for c in frame.columns if c[:1] == "z" and c[1:].isdigit()]
    return np.asarray(frame.select(numbered or frame.columns).to_numpy())
