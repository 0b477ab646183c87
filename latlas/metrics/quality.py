"""Metrics of samples: copies of training examples, modes of data whose classes are known, and all
metrics of quality, each beside its held-out control and that of training copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import rankdata

from latlas.core.errors import DataError
from latlas.metrics import distances
from latlas.metrics.arrays import Array, Float, Index, blocks, matrix, nearest, pair
from latlas.metrics.latent_space import completeness

Mask = NDArray[np.bool_]
Row = dict[str, float]
#: standard deviations around its centre that belong to a mode
REACH = 3.0
#: rounds of k-means for the cells of C_T; examples of either side that a cell needs
ROUNDS, LEAST = 10, 20


def memorisation(samples: Array, train: Array, held_out: Array, *, cells: int | None = None,
                 seed: int = 0) -> Row:
    """How near samples are to the training examples, beside held-out data, by the metrics' keys:
    ``data_copying`` (C_T), ``near_copies``, ``nearest_ratio``, ``authenticity`` (Alaa et al. 2022).

    A copying model cannot pass: its distances are zero, whatever the features. The ratio is NaN if
    the held-out median is 0. The authenticity of fresh real data does not reach 1: compare with it.

    Args:
        samples, train, held_out: features (m, d) of what the model made, (t, d) of all that it was
            trained on, (n, d) of real examples that it never saw.
        cells: regions of C_T; ``None`` means one for every 100 held-out examples, 1 … 10.
    """
    samples, train = pair(samples, train, ("samples", "training data"))
    held_out, train = pair(held_out, train, ("held-out data", "training data"))
    near, row = (v[:, 0] for v in nearest(samples, train))
    near_held, row_held = (v[:, 0] for v in nearest(held_out, train))

    # the cell of each training example: k-means by Lloyd's iteration from random examples
    count = min(cells or int(np.clip(len(held_out) // 100, 1, 10)), len(train))
    centres = train[np.random.default_rng(seed).choice(len(train), count, False)].astype(np.float64)
    for _ in range(ROUNDS):
        cell = nearest(train, centres)[1][:, 0]
        for k in np.unique(cell):
            centres[k] = train[cell == k].mean(0, dtype=np.float64)
    cell = nearest(train, centres)[1][:, 0]

    used, back = np.unique(row, return_inverse=True)
    # the two nearest training examples of a training example are itself (or a copy), the next
    spacing = nearest(train[used], train, 2)[0][:, 1]
    median = float(np.median(near_held))
    return {"data_copying": data_copying(near, near_held, cell[row], cell[row_held]),
            "near_copies": float((near <= np.quantile(near_held, 0.01)).mean()),
            "nearest_ratio": float(np.median(near)) / median if median > 0 else float("nan"),
            "authenticity": float((near > spacing[back]).mean())}


def data_copying(samples: Array, held_out: Array, sample_cell: Array | None = None,
                 held_out_cell: Array | None = None) -> float:
    """Data-copying statistic C_T (Meehan et al. 2020) from nearest-train distances.

    In every cell the Mann-Whitney statistic of the two sets of distances, standardised,
    Z = (U − mn/2) / sqrt(mn(m + n + 1)/12) with correction for ties; C_T is their mean weighted by
    the share of held-out examples: about N(0, 1) for one cell and fresh draws, far below 0 for
    copies. Cells with fewer than 20 samples or held-out examples are left out; if none is left the
    whole space is one cell.

    Args:
        samples, held_out: (m,) and (n,) distances to the nearest training example.
        sample_cell, held_out_cell: (m,) and (n,) cell numbers; ``None`` puts all in one cell.
    """
    def standardised(a: Array, b: Array) -> float:
        n, m = len(a), len(b)
        ranks = rankdata(np.concatenate([a, b]))
        u = ranks[:n].sum() - n * (n + 1) / 2
        _, ties = np.unique(ranks, return_counts=True)
        tied = (ties.astype(np.float64) ** 3 - ties).sum() / ((n + m) * (n + m - 1))
        variance = n * m / 12 * (n + m + 1 - tied)
        return float((u - n * m / 2) / np.sqrt(variance)) if variance > 0 else 0.0

    weights, scores = [], []
    for cell in () if held_out_cell is None else np.unique(held_out_cell):
        a, b = samples[sample_cell == cell], held_out[held_out_cell == cell]
        if min(len(a), len(b)) >= LEAST:
            weights.append(len(b))
            scores.append(standardised(a, b))
    return float(np.average(scores, weights=weights)) if scores else standardised(samples, held_out)


@dataclass(frozen=True)
class Balls:
    """Every class as a ball of three standard deviations around its mean: codes (k,), means (k, d),
    and the standard deviation (k,) over all coordinates.

    For modes that are Gaussians, such as those of ``ring`` and ``grid``, whose standard measure
    this is (Srivastava et al. 2017; Lin et al. 2018). In the plane 98.9% of a Gaussian lies inside.
    """

    codes: Index
    centres: Float
    sd: Float

    @classmethod
    def fit(cls, x: Array, label: Index) -> Balls:
        """From examples (n, d) and their class codes (n,), negative ones of no class."""
        x = matrix(x, "examples")
        codes = np.unique(label[label >= 0])
        if not len(codes):
            raise DataError("modes need labelled examples, and none has a label")
        members = [x[label == code].astype(np.float64) for code in codes]
        return cls(codes, np.stack([m.mean(0) for m in members]),
                   np.array([np.sqrt(m.var(0).mean() * len(m) / max(1, len(m) - 1))
                             for m in members]))

    def tell(self, x: Array) -> tuple[Index, Mask]:
        """(n,) class whose centre is nearest, and whether the example lies in that ball."""
        distance, row = (v[:, 0] for v in nearest(matrix(x, "examples", 1), self.centres))
        return self.codes[row], distance <= REACH * self.sd[row]


def class_shares(label: Index) -> Float:
    """(k,) share of every class code among labelled examples; negative codes are left out."""
    counts = np.bincount(label[label >= 0])
    return np.asarray(counts / max(1, counts.sum()))


def modes_covered(mode: Index, shares: Float) -> int:
    """How many classes with a share in the data (k,) occur among the modes of samples (n,)."""
    return len(np.intersect1d(mode, np.flatnonzero(shares)))


def mode_divergence(mode: Index, shares: Float) -> float:
    """KL of the frequencies of modes among samples (n,) from those of the data (k,), nats.

    Σ p log(p / q), p of the samples (the "reverse" KL of Lin et al. 2018, appendix). About
    (k − 1) / 2n for n fresh examples, infinite for a mode that the data do not have.
    """
    frequency = np.bincount(mode, minlength=len(shares)) / max(1, len(mode))
    real = np.pad(shares, (0, len(frequency) - len(shares)))
    return max(0.0, float(rel_entr(frequency, real).sum()))


def class_diversity(fake: Array, fake_mode: Index, real: Array, real_mode: Index) -> float:
    """Mean distance of two samples of one mode, over that of two real examples; mean over modes.

    From features and the modes of either. 1 for samples as varied as the data within every mode, 0
    where each mode is one example over and over. Modes with fewer than two examples on a side are
    left out; NaN if none is left.
    """
    ratios = []
    for code in np.unique(real_mode):
        mine, theirs = fake[fake_mode == code], real[real_mode == code]
        if min(len(mine), len(theirs)) > 1 and (apart := mean_distance(theirs)) > 0:
            ratios.append(mean_distance(mine) / apart)
    return float(np.mean(ratios)) if ratios else float("nan")


def mean_distance(x: Array) -> float:
    """Mean Euclidean distance of two different rows of (n, d), n ≥ 2."""
    x = matrix(x, "examples")
    total = sum(np.sqrt(square).sum() for _, _, square in blocks(x, x))
    return float(total / (len(x) * (len(x) - 1)))


@dataclass(frozen=True)
class Seen:
    """A set of n examples as it is judged: features (n, d), the class code (n,) that each is taken
    for, whether it lies inside that mode, and its label: the true one of real examples, the one
    that a sample was drawn for."""

    features: Array
    mode: Index | None = None
    inside: Mask | None = None
    label: Index | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Index | slice) -> Seen:
        """Some of them."""
        parts: Any = (None if v is None else v[rows] for v in (self.mode, self.inside, self.label))
        return Seen(self.features[rows], *parts)


def control_split(n: int, seed: int = 0) -> tuple[Index, Index]:
    """Rows 0 … n−1 in two random halves: (to train a feature network on, held-out control)."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[n // 2:]), np.sort(order[:n // 2])


def quality(samples: Array, train: Array, test: Array, extract: Callable[[Array], Array], *,
            control: Index | None = None, k: int = 3, seed: int = 0) -> dict[str, Row]:
    """Every metric of samples by its key: three sets of equal size against the test examples.

    - ``samples``: what the model made; copying is looked for in all of ``train``.
    - ``held-out``: real examples of ``train`` (rows ``control``), copying looked for in the rest:
      the best any model can get.
    - ``training copies``: exact copies of training examples, excellent in all but the copying
      columns.

    Args:
        samples, train, test: (m, \\*shape), (t, \\*shape), (n, \\*shape) in data units.
        extract: examples to features (n, d).
        control: rows of ``train`` for the held-out control, ``None`` for a random half. A
            classifier for features must have learnt from others: see :func:`control_split`.
        k: neighbours of precision and recall; density and coverage use 5.
    Returns:
        Row name to the metric's key to value. ``frechet`` is NaN where there are not more examples
        than features. ``examples`` is their number in each set.
    """
    inputs = (Seen(extract(x)) for x in (samples, train, test))
    return judge(*inputs, control=control, k=k, seed=seed)


def check_sizes(samples: int, test: int, control: int) -> int:
    """The examples of each set that are compared; DataError for too few."""
    n = min(samples, test, control)
    if n < 6:
        raise DataError(f"sample quality needs at least 6 examples a side, got {samples} samples, "
                        f"{test} test examples and {control} held-out training examples")
    return n


def judge(samples: Seen, train: Seen, test: Seen, *, control: Index | None = None, k: int = 3,
          seed: int = 0) -> dict[str, Row]:
    """:func:`quality` of sets whose features, and modes where there are any, are known.

    With modes and the training examples' labels the metrics of modes are added: modes reached and
    their frequencies against those of the training labels, and the diversity within each beside
    the test examples'. Where samples have labels every set is compared with its own.
    """
    control = control_split(len(train), seed)[1] if control is None else np.asarray(control)
    n = check_sizes(len(samples), len(test), len(control))
    rng = np.random.default_rng(seed)

    def draw(total: int) -> Index:
        return np.sort(rng.permutation(total)[:n])

    features = matrix(train.features, "training features")
    real = test.take(draw(len(test)))
    rows = {}
    for name, fake, nearby in (
            ("samples", samples.take(slice(0, n)), features),
            ("held-out", train.take(control[draw(len(control))]), np.delete(features, control, 0)),
            ("training copies", train.take(draw(len(train))), features)):
        x = matrix(fake.features, f"{name} features")
        precision, recall = distances.precision_recall(real.features, x, k)
        density, coverage = distances.density_coverage(real.features, x)
        accuracy, p_value = distances.nearest_neighbour_test(real.features, x, seed=seed)
        frechet = distances.frechet_distance(x, real.features) if n > x.shape[1] else float("nan")
        rows[name] = {
            "frechet": frechet, "kernel": distances.kernel_distance(x, real.features),
            "sliced": distances.sliced_wasserstein(x, real.features, seed=seed),
            "precision": precision, "recall": recall, "density": density, "coverage": coverage,
            "completeness": completeness(real.features, x),
            "two_sample": accuracy, "two_sample_p": p_value,
            **memorisation(x, nearby, real.features), "examples": float(n)}
        if (samples.mode is None or fake.mode is None or real.mode is None
                or train.label is None):
            continue
        shares = class_shares(train.label)
        reached = fake.mode if fake.inside is None else fake.mode[fake.inside]
        rows[name] |= {
            "modes": float(modes_covered(reached, shares)),
            "mode_kl": mode_divergence(fake.mode, shares),
            "diversity": class_diversity(fake.features, fake.mode, real.features, real.mode)}
        if fake.inside is not None:
            rows[name]["high_quality"] = float(fake.inside.mean())
        if samples.label is not None and fake.label is not None and (fake.label >= 0).any():
            right = (fake.mode == fake.label)[fake.label >= 0]
            rows[name]["label_accuracy"] = float(right.mean())
    return rows
