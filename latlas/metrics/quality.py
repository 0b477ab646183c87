"""All metrics of sample quality, each beside its held-out control and that of training copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from latlas.core.errors import DataError
from latlas.metrics.arrays import Array, Float, Index, matrix
from latlas.metrics.frechet import frechet_distance
from latlas.metrics.kernel import kernel_distance
from latlas.metrics.latent_space import completeness
from latlas.metrics.memorisation import memorisation
from latlas.metrics.modes import (
    Mask,
    class_diversity,
    class_shares,
    mode_divergence,
    modes_covered,
)
from latlas.metrics.precision_recall import density_coverage, precision_recall
from latlas.metrics.sliced import sliced_wasserstein
from latlas.metrics.two_sample import nearest_neighbour_test

Row = dict[str, float]


@dataclass(frozen=True)
class Seen:
    """A set of examples as it is judged.

    Attributes:
        features: (n, d).
        mode: (n,) class code that each is taken for, where the data have classes.
        inside: (n,) whether it lies within that mode, where modes have an edge.
        label: (n,) class code of its own: of real examples the true one, of samples the one asked
        for.
    """

    features: Array
    mode: Index | None = None
    inside: Mask | None = None
    label: Index | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Index | slice) -> Seen:
        """Some of them."""
        parts: Any = {"mode": self.mode, "inside": self.inside, "label": self.label}
        return replace(self, features=self.features[rows],
                       **{k: None if v is None else v[rows] for k, v in parts.items()})


def control_split(n: int, seed: int = 0) -> tuple[Index, Index]:
    """Rows 0 … n−1 in two random halves: (to train a feature network on, held-out control)."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[n // 2:]), np.sort(order[:n // 2])


def quality(samples: Array, train: Array, test: Array, extract: Callable[[Array], Array], *,
            control: Index | None = None, k: int = 3, seed: int = 0) -> dict[str, Row]:
    """Every metric of samples (``latlas.metrics.table``) for three sets against the test examples,
    equal numbers all.

    - ``samples``: what the model made; copying is looked for in all of ``train``.
    - ``held-out``: real examples of ``train`` (rows ``control``), copying looked for in the rest:
      the best any model can get.
    - ``training copies``: exact copies of training examples: excellent in all but the copying
    columns.

    With a classifier for features, train it on the half that is not the control::

        fit, control = control_split(len(train))
        extract = features("classifier", space, train[fit], labels[fit])
        rows = quality(samples, train, test, extract, control=control)

    Args:
        samples, train, test: (m, \\*shape), (t, \\*shape), (n, \\*shape) in data units.
        extract: examples to features (n, d).
        control: rows of ``train`` for the held-out control; ``None`` takes a random half.
        k: neighbours of precision and recall; density and coverage use 5.
    Returns:
        Row name to the metric's key to value. ``frechet`` is NaN where there are not more examples
        than features. ``examples`` is their number in each set.
    """
    inputs = (Seen(extract(x)) for x in (samples, train, test))
    return judge(*inputs, control=control, k=k, seed=seed)


def judge(samples: Seen, train: Seen, test: Seen, *, control: Index | None = None, k: int = 3,
          seed: int = 0) -> dict[str, Row]:
    """:func:`quality` of sets whose features, and modes where there are any, are known.

    With modes and the training examples' labels those of modes are added: modes
    reached and their frequencies against those of the training labels, and the diversity within
    each beside the test examples'.
    """
    control = control_split(len(train), seed)[1] if control is None else np.asarray(control)
    n = _size(len(samples), len(test), len(control))
    rng = np.random.default_rng(seed)
    features = matrix(train.features, "training features")
    real = test.take(_draw(rng, len(test), n))
    rest = np.delete(features, control, axis=0)
    sets = {
        "samples": (samples.take(slice(0, n)), features),
        "held-out": (train.take(control[_draw(rng, len(control), n)]), rest),
        "training copies": (train.take(_draw(rng, len(train), n)), features),
    }
    rows = {name: _row(matrix(fake.features, f"{name} features"), real.features, nearby, k, seed)
            for name, (fake, nearby) in sets.items()}
    if samples.mode is None or train.label is None:
        return rows
    shares, conditional = class_shares(train.label), samples.label is not None
    return {name: row | _mode_row(sets[name][0], real, shares, conditional)
            for name, row in rows.items()}


def _mode_row(fake: Seen, real: Seen, shares: Float, conditional: bool) -> Row:
    """``asked``: samples have labels, so every set is held against its own."""
    if fake.mode is None or real.mode is None:
        return {}
    reached = fake.mode if fake.inside is None else fake.mode[fake.inside]
    row = {"modes": float(modes_covered(reached, shares)),
           "mode_kl": mode_divergence(fake.mode, shares),
           "diversity": class_diversity(fake.features, fake.mode, real.features, real.mode)}
    if fake.inside is not None:
        row["high_quality"] = float(fake.inside.mean())
    if conditional and fake.label is not None and (labelled := fake.label >= 0).any():
        row["label_accuracy"] = float((fake.mode == fake.label)[labelled].mean())
    return row


def _size(samples: int, test: int, control: int) -> int:
    n = min(samples, test, control)
    if n < 6:
        raise DataError(f"sample quality needs at least 6 examples a side, got {samples} samples, "
                        f"{test} test examples and {control} held-out training examples")
    return n


def _draw(rng: np.random.Generator, total: int, n: int) -> Index:
    return np.sort(rng.permutation(total)[:n])


def _row(fake: Array, real: Array, train: Array, k: int, seed: int) -> Row:
    support, balls = precision_recall(real, fake, k), density_coverage(real, fake)
    test, copied = nearest_neighbour_test(real, fake, seed=seed), memorisation(fake, train, real)
    return {
        "frechet": frechet_distance(fake, real) if len(real) > real.shape[1] else float("nan"),
        "kernel": kernel_distance(fake, real),
        "sliced": sliced_wasserstein(fake, real, seed=seed),
        "precision": support.precision, "recall": support.recall,
        "density": balls.density, "coverage": balls.coverage,
        "completeness": completeness(real, fake),
        "two_sample": test.accuracy, "two_sample_p": test.p_value,
        "data_copying": copied.z, "near_copies": copied.near_copies, "nearest_ratio": copied.ratio,
        "authenticity": copied.authenticity, "examples": float(len(real)),
    }
