"""``encode``, ``reconstruct``, ``denoise``, ``classify``: what a model makes of given examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from latlas.core.errors import DataError
from latlas.render.text import counted, table
from latlas.run import as_run
from latlas.verbs import common, write
from latlas.verbs.common import Array, DataLike, Examples, Out, Output, Progress, RunLike, Split
from latlas.verbs.results import ShardParts, results_of

if TYPE_CHECKING:
    from latlas.metrics.likelihood import Summary

#: examples that an image shows of many
GRID = 64


@dataclass(eq=False, repr=False)
class Latents(common.ArrayResult):
    """The mean latent vector of every example; an array to NumPy.

    Attributes:
        values: (n, latent_dim) float32; ``names`` (n,) of the examples' files, if any.
    """

    suffixes: ClassVar[tuple[str, ...]] = write.LATENTS
    values: Array
    names: Any = None

    def facts(self) -> dict[str, Any]:
        return {"n": len(self.values), "latent_dim": self.values.shape[1]}

    def as_columns(self) -> dict[str, Any]:
        return {f"z{i}": column for i, column in enumerate(self.values.T)}

    def save(self, path: str | Path) -> str:
        return write.write_latents(path, self.values, self.names)


@common.verb
def encode(run: RunLike, data: DataLike = None, *, split: Split = None, n: common.FirstN = None,
           shard: common.Shard = None, block: common.BlockSize = 4096,
           out: Annotated[Out, Output("latents.npz", "Where to: .csv, .parquet, .npz, .npy, .png. "
                                                     "Default: RUN/latents.npz.")] = None,
           progress: Progress | None = None, **read: Any) -> Latents | ShardParts:
    """Turn examples into latent vectors: the mean of q(z|x) of each."""
    from latlas.verbs import shards
    from latlas.verbs.passes import encoded

    run = as_run(run)
    run.require("encode")
    shards.check_output(shard, out, block, Latents.suffixes)
    examples = run.open(data, split, **read).subset(slice(0, n))
    model = run.model
    if shard is None:
        return Latents(encoded(model, examples, progress), examples.take("names")).saved(out)
    return shards.write_parts(
        "encode", model, examples,
        lambda part, count: Latents(encoded(model, part, count)).as_columns(),
        shard=shard, out=out, block=block, progress=progress)


@common.verb
def reconstruct(run: RunLike, data: DataLike = None, *, split: Split = None,
                n: common.FirstN = None, out: Annotated[Out, Output("reconstruct")] = None,
                progress: Progress | None = None, **read: Any) -> Examples:
    """Encode and decode: what the model keeps of each example.

    An image shows 64 examples unless N is given, every row of originals with its reconstructions
    below.
    """
    return _round_trip("reconstruct", run, data, split, n, out, progress, read)


@common.verb
def denoise(run: RunLike, data: DataLike = None, *, split: Split = None, n: common.FirstN = None,
            out: Annotated[Out, Output("denoise")] = None, progress: Progress | None = None,
            **read: Any) -> Examples:
    """Clean noisy examples, with a model trained to undo noise (Vincent et al. 2008).

    An image shows 64 examples unless N is given, every row of noisy ones with the clean ones
    below.
    """
    return _round_trip("denoise", run, data, split, n, out, progress, read)


def _round_trip(verb: str, run: Any, data: Any, split: Any, n: int | None, out: Out,
                progress: Progress | None, read: dict[str, Any]) -> Examples:
    from latlas.verbs.passes import batch_condition, examples_of, map_batches, to_data

    run = as_run(run)
    run.require(verb)
    write.check_examples(out, run.space)
    grid = out is not None and Path(out).suffix.lower() == ".png" and run.space.kind == "image"
    examples = run.open(data, split, **read).subset(slice(0, n or (GRID if grid else None)))

    def round_trip(model: Any, batch: Any) -> Array:
        condition = batch_condition(model, batch)
        z = model.encode(batch.x, **condition).mean
        return to_data(model.space, model.decode(z, **condition).mean)

    results = results_of(out, verb, run, examples, data)
    values = map_batches(run.model, examples, round_trip, progress)
    return Examples(values, run.space, examples.take("names"),
                    originals=examples_of(examples) if grid else None).saved(out, results)


def read_latents(latents: Any) -> Array:
    """(n, latent_dim) float32 from an array, a frame, or a file as :func:`encode` writes them; of
    frames and tables the columns z0, z1, …, or all. DataError: no such file, no numbers in it, or
    another shape."""
    from latlas.data.frames import is_frame, read_frame

    file = isinstance(latents, str | Path)
    if not file and not is_frame(latents):
        return np.asarray(latents, np.float32)
    path = Path(latents) if file else "the frame"
    suffix = Path(latents).suffix.lower() if file else ""
    if file and suffix not in write.TABLES:
        raise DataError(f"{path}: latents are read from {', '.join(sorted(write.TABLES))}")
    try:
        if suffix in (".npz", ".npy"):
            array: Any = np.load(path, allow_pickle=False)
            if suffix == ".npz":
                with array as arrays:
                    array = arrays["latents" if "latents" in arrays.files else arrays.files[0]]
        else:
            import polars

            frame = read_frame(latents, "the frame").data if not file else (
                polars.read_csv if suffix == ".csv" else polars.read_parquet)(path)
            numbered = [c for c in frame.columns if c[:1] == "z" and c[1:].isdigit()]
            array = frame.select(numbered or frame.columns).to_numpy()
        values = np.array(array, np.float32)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # whatever a parser makes of a broken file
        raise DataError(f"{path} cannot be read as latents: {error}") from error
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(f"{path} holds an array of shape {values.shape}"
                        f"{'' if values.ndim != 2 else ' with NaN or infinity'}; latents are "
                        "finite numbers (n, latent_dim)")
    return values


@dataclass(frozen=True)
class ClassCount:
    """How many examples are predicted to be of a class; with labels, how many are, and the share of
    those that the prediction gets right (``None`` of no example)."""

    name: str
    predicted: int
    count: int | None = None
    accuracy: float | None = None


@dataclass(eq=False, repr=False)
class Predictions(common.Result):
    """What a class output says of n examples.

    Attributes:
        log_p: (n, classes) log p(class|x), nats; ``classes`` their names.
        label: (n,) codes of the examples' classes, below 0 where it is not known; or ``None``.
        names: (n,) of the examples' files, if they have any.
    """

    log_p: Array
    classes: Sequence[str]
    label: Array | None = None
    names: Any = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.log_p, dtype)

    @property
    def code(self) -> Array:
        """(n,) the most probable class."""
        return np.asarray(self.log_p.argmax(1))

    @property
    def labelled(self) -> Array:
        """(n,) whether the class of an example is known."""
        return np.zeros(len(self.log_p), bool) if self.label is None else self.label >= 0

    @property
    def accuracy(self) -> Summary | None:
        """Share of the labelled examples that it gets right; ``None`` without any."""
        from latlas.metrics.likelihood import summary

        if not self.labelled.any():
            return None
        return summary(np.asarray(self.code == self.label, np.float64)[self.labelled])

    @property
    def cross_entropy(self) -> float | None:
        """Mean −log p of the class of a labelled example, nats."""
        rows = np.flatnonzero(self.labelled)
        return None if self.label is None or not len(rows) else float(
            -self.log_p[rows, self.label[rows]].mean())

    @property
    def by_class(self) -> tuple[ClassCount, ...]:
        """One by one."""
        code, counts = self.code, []
        for k, name in enumerate(self.classes):
            predicted, count, accuracy = int((code == k).sum()), None, None
            if self.labelled.any():
                rows = np.asarray(self.label == k)
                count = int(rows.sum())
                accuracy = float((code[rows] == k).mean()) if count else None
            counts.append(ClassCount(name, predicted, count, accuracy))
        return tuple(counts)

    def as_columns(self) -> dict[str, Any]:
        """A row per example: the class, its label, every probability."""
        classes, p = np.asarray(self.classes), np.exp(self.log_p)
        columns = {"example": common.titles(self.names, len(p)), "class": classes[self.code],
                   "probability": p.max(1)}
        if self.label is not None and self.labelled.any():
            columns["label"] = np.where(self.labelled, classes[self.label], "")
        return columns | {f"p_{name}": p[:, k] for k, name in enumerate(self.classes)}

    def facts(self) -> dict[str, Any]:
        return {"examples": len(self.log_p), "labelled": int(self.labelled.sum()),
                "accuracy": None if self.accuracy is None else asdict(self.accuracy),
                "cross_entropy": self.cross_entropy,
                "classes": [asdict(c) for c in self.by_class]}

    def text(self) -> str:
        n, accuracy = counted(len(self.log_p), "example"), self.accuracy
        if accuracy is None:
            return f"{n}, without labels\n" + table(["class", "predicted"], [
                [c.name, f"{c.predicted:,}"] for c in self.by_class])
        rows = [[c.name, f"{c.predicted:,}", f"{c.count:,}",
                 "" if c.accuracy is None else f"{c.accuracy:.4f}"] for c in self.by_class]
        return (f"{n}: accuracy {accuracy.mean:.4f} ± {accuracy.standard_error:.4f}, "
                f"cross-entropy {self.cross_entropy:.4g} nats\n"
                + table(["class", "predicted", "examples", "accuracy"], rows))


@common.verb
def classify(run: RunLike, data: DataLike = None, *, split: Split = None,
             out: Annotated[Out, Output("classes.csv", "A row per example: .csv, .parquet, .npz. "
                                                       "Default: RUN/classes.csv.")] = None,
             progress: Progress | None = None, **read: Any) -> Predictions:
    """The class of every example and the probability of each, by a model with an output for
    classes; with labels its accuracy, class by class."""
    from latlas.verbs.passes import log_probabilities

    run = as_run(run)
    run.require("classify")
    write.check_suffix(out)
    examples = run.open(data, split, **read)
    return Predictions(log_probabilities(run.model, examples, progress), run.space.classes,
                       examples.take("label"), examples.take("names")).saved(out)
