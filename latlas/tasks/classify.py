"""Classes of items by a model that has an output for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from latlas.core.errors import DataError
from latlas.core.model import Model
from latlas.data.dataset import Dataset
from latlas.metrics.likelihood import Summary, summary
from latlas.tasks.common import Array, Progress, check, inference, sweep
from latlas.tasks.figures import Figure


def classify(model: Model, data: Dataset, *, batch_size: int = 512,
             progress: Progress | None = None) -> Array:
    """log p(class|x) of every item, (n, classes) float32, nats; the order of ``space.classes``.

    Raises:
        CapabilityError: the model has no output for classes.
    """
    check(model, "classify")
    able: Any = model
    parts, done = [], 0
    with inference(model):
        for batch in sweep(model, data, batch_size):
            parts.append(able.classify(batch.x).float().cpu().numpy())
            done += len(batch)
            if progress:
                progress(done, len(data))
    return np.concatenate(parts)


@dataclass(frozen=True)
class OneClass:
    """How many items are said to be of a class, how many are, and the share of those it gets right.

    ``count`` and ``right`` are ``None`` without labels, ``right`` also where no item is of it.
    """

    name: str
    told: int
    count: int | None = None
    right: float | None = None


@dataclass(frozen=True)
class Told:
    """What a class output says of n items.

    Attributes:
        log_p: (n, classes) nats, as :func:`classify` gives them; ``names`` of the classes.
        label: (n,) codes of their classes, below 0 where it is not known; or ``None``.
    """

    log_p: Array
    names: Sequence[str]
    label: Array | None = None

    @property
    def code(self) -> Array:
        """(n,) the most probable class."""
        return np.asarray(self.log_p.argmax(1))

    @property
    def labelled(self) -> Array:
        """(n,) whether the class of an item is known."""
        return np.zeros(len(self.log_p), bool) if self.label is None else self.label >= 0

    @property
    def accuracy(self) -> Summary | None:
        """Share of the labelled items that it gets right; ``None`` without any."""
        if not self.labelled.any():
            return None
        return summary(np.asarray(self.code == self.label, np.float64)[self.labelled])

    @property
    def cross_entropy(self) -> float | None:
        """Mean −log p of the class of a labelled item, nats."""
        if self.label is None or not self.labelled.any():
            return None
        rows = np.flatnonzero(self.labelled)
        return float(-self.log_p[rows, self.label[rows]].mean())

    @property
    def classes(self) -> tuple[OneClass, ...]:
        """One by one."""
        code = self.code
        told = np.bincount(code, minlength=len(self.names)).tolist()
        if self.label is None or not self.labelled.any():
            return tuple(OneClass(name, n) for name, n in zip(self.names, told, strict=True))
        mine = [self.label == k for k in range(len(self.names))]
        return tuple(
            OneClass(name, n, int(rows.sum()),
                     float((code[rows] == k).mean()) if rows.any() else None)
            for k, (name, n, rows) in enumerate(zip(self.names, told, mine, strict=True)))

    def columns(self, items: Any = None) -> dict[str, Array]:
        """What ``write_table`` takes: a row per item, the class, its label, every probability."""
        names, p = np.asarray(self.names), np.exp(self.log_p)
        found = {"item": np.arange(len(p)) if items is None else np.asarray(items),
                 "class": names[self.code], "probability": p.max(1)}
        if self.label is not None and self.labelled.any():
            found["label"] = np.where(self.labelled, names[self.label], "")
        return found | {f"p_{name}": p[:, k] for k, name in enumerate(self.names)}

    def to_json(self) -> dict[str, Any]:
        """All but what is one number per item."""
        return {"items": len(self.log_p), "labelled": int(self.labelled.sum()),
                "accuracy": None if self.accuracy is None else asdict(self.accuracy),
                "cross_entropy": self.cross_entropy,
                "classes": [asdict(c) for c in self.classes]}


def classification(model: Model, train: Dataset, test: Dataset) -> Iterator[Figure]:
    """Accuracy, that of the worst class, and the cross-entropy of held-out items.

    Raises:
        DataError: the items have no labels.
    """
    label, known = test.take("label"), train.take("label")
    if label is None or known is None:
        raise DataError("figures of classification need labels; name them with label=")
    log_p = classify(model, test)
    right, loss = log_p.argmax(1) == label, -log_p[np.arange(len(label)), label]
    shares = (np.bincount(known, minlength=log_p.shape[1]) + 1) / (len(known) + log_p.shape[1])
    accuracy, entropy = summary(right.astype(np.float64)), summary(loss.astype(np.float64))
    yield Figure("accuracy", accuracy.mean, accuracy.standard_error,
                 float((label == shares.argmax()).mean()), "commonest class")
    yield Figure("accuracy_worst", min(float(right[label == c].mean()) for c in np.unique(label)))
    yield Figure("cross_entropy", entropy.mean, entropy.standard_error,
                 float(-np.log(shares[label]).mean()), "shares of classes")
