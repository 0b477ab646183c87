"""``classify``: classes of examples, by a model that has an output for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from latlas.metrics.likelihood import Summary, summary
from latlas.render.text import counted
from latlas.run import as_run
from latlas.verbs.common import (
    Array,
    DataLike,
    Out,
    Output,
    Progress,
    Result,
    RunLike,
    Split,
)

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.data.dataset import Dataset


@dataclass(frozen=True)
class ClassCount:
    """How many examples are predicted to be of a class, how many are, and the share of those that
    the prediction gets right.

    ``count`` and ``accuracy`` are ``None`` without labels, ``accuracy`` also where no example is of
    the class.
    """

    name: str
    predicted: int
    count: int | None = None
    accuracy: float | None = None


@dataclass(eq=False, repr=False)
class Predictions(Result):
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
        if not self.labelled.any():
            return None
        return summary(np.asarray(self.code == self.label, np.float64)[self.labelled])

    @property
    def cross_entropy(self) -> float | None:
        """Mean −log p of the class of a labelled example, nats."""
        if self.label is None or not self.labelled.any():
            return None
        rows = np.flatnonzero(self.labelled)
        return float(-self.log_p[rows, self.label[rows]].mean())

    @property
    def by_class(self) -> tuple[ClassCount, ...]:
        """One by one."""
        code, counts = self.code, []
        for k, name in enumerate(self.classes):
            predicted = int((code == k).sum())
            if self.label is None or not self.labelled.any():
                counts.append(ClassCount(name, predicted))
                continue
            rows = self.label == k
            counts.append(ClassCount(name, predicted, int(rows.sum()),
                                     float((code[rows] == k).mean()) if rows.any() else None))
        return tuple(counts)

    def table(self) -> dict[str, Array]:
        """A row per example: the class, its label, every probability."""
        classes, p = np.asarray(self.classes), np.exp(self.log_p)
        columns = {"example": np.arange(len(p)) if self.names is None else np.asarray(self.names),
                   "class": classes[self.code], "probability": p.max(1)}
        if self.label is not None and self.labelled.any():
            columns["label"] = np.where(self.labelled, classes[self.label], "")
        return columns | {f"p_{name}": p[:, k] for k, name in enumerate(self.classes)}

    def facts(self) -> dict[str, Any]:
        return {"examples": len(self.log_p), "labelled": int(self.labelled.sum()),
                "accuracy": None if self.accuracy is None else asdict(self.accuracy),
                "cross_entropy": self.cross_entropy,
                "classes": [asdict(c) for c in self.by_class]}

    def text(self) -> str:
        from latlas.render.text import table

        n = counted(len(self.log_p), "example")
        if self.accuracy is None:
            return f"{n}, without labels\n" + table(["class", "predicted"], [
                [c.name, f"{c.predicted:,}"] for c in self.by_class])
        rows = [[c.name, f"{c.predicted:,}", f"{c.count:,}",
                 "" if c.accuracy is None else f"{c.accuracy:.4f}"] for c in self.by_class]
        return (f"{n}: accuracy {self.accuracy.mean:.4f} ± {self.accuracy.standard_error:.4f}, "
                f"cross-entropy {self.cross_entropy:.4g} nats\n"
                + table(["class", "predicted", "examples", "accuracy"], rows))


def classify(run: RunLike, data: DataLike = None, *, split: Split = None,
             out: Annotated[Out, Output("classes.csv", "A row per example: .csv, .parquet, .npz. "
                                                       "Default: RUN/classes.csv.")] = None,
             progress: Progress | None = None, **read: Any) -> Predictions:
    """The class of every example and the probability of each, by a model with an output for
    classes; with labels its accuracy, class by class."""
    from latlas.verbs import write

    run = as_run(run)
    run.require("classify")
    write.check_suffix(out)
    examples = run.open(data, split, **read)
    return Predictions(log_probabilities(run.model, examples, progress), run.space.classes,
                       examples.take("label"), examples.take("names")).saved(out)


def log_probabilities(model: Model, data: Dataset, progress: Progress | None = None) -> Array:
    """log p(class|x) of every example, (n, classes) float32, nats; the order of
    ``space.classes``."""
    from latlas.verbs.passes import over

    return over(model, data, lambda model, batch: model.classify(batch.x).float().cpu().numpy(),
                progress)
