"""Classes of items by a model that has an output for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from latlas.core.errors import DataError
from latlas.core.model import Model
from latlas.data.dataset import Dataset
from latlas.metrics.likelihood import summary
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
