"""What does not belong: a score per item, a threshold of known false-alarm rate, a ranking.

A generative model's likelihood alone fails here: a model of clothing finds digits more probable
than clothing, for they are simpler (Nalisnick et al. 2019). ``typicality`` asks instead whether the
model sees an item as it sees normal ones, in several respects at once (the density of states of
Morningstar et al. 2021, with a Gaussian for its density, and the complexity of Serrà et al. 2020
among the statistics).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.distributions import Normal
from latlas.core.errors import CapabilityError, ConfigError, unknown
from latlas.core.model import Model
from latlas.core.noise import SharedNoise, derive
from latlas.data.dataset import Dataset
from latlas.metrics import outliers as figures
from latlas.metrics.outliers import Ranking, Typical
from latlas.report import plots
from latlas.tasks.common import Array, Progress, can, check, inference, sweep

METHODS = ("auto", "nats", "error", "typicality")
#: what a method needs of the model
NEEDED = {"nats": "score", "error": "reconstruct", "typicality": "encode"}
#: what a method's score is, for an axis
SCORES = {"nats": "−log p(x), nats", "error": "squared error of the reconstruction",
          "typicality": "squared distance of the statistics from normal items"}
#: draws of the code behind a likelihood
DRAWS = 16
#: keeps logarithms of errors and lengths finite
TINY = 1e-12
#: called with how many more items are done
Count = Callable[[int], None]
#: fewest held-out items that a Gaussian of the statistics is fitted to
FEWEST = 20


@dataclass(frozen=True)
class Outliers:
    """Scores of n items, higher is odder, and what they are judged by.

    Attributes:
        score: (n,) float64.
        normal: (m,) scores of the run's own held-out items, which set the threshold.
        threshold: what a normal item exceeds with a chance of at most ``false_alarms``.
        method: ``nats``, ``error`` or ``typicality``.
        odd: (n,) bool, which items are outliers in truth; ``None`` if that is not known.
        controls: scores of an isolation forest and of probabilistic PCA, fitted to the run's
            training items.
    """

    score: Array
    normal: Array
    threshold: float
    method: str
    false_alarms: float
    odd: Array | None = None
    controls: dict[str, Array] = field(default_factory=dict)

    @property
    def flag(self) -> Array:
        """(n,) bool: above the threshold."""
        return np.asarray(self.score > self.threshold)

    @property
    def order(self) -> Array:
        """(n,) item numbers, the oddest first."""
        return np.argsort(-self.score, kind="stable")

    def columns(self, names: Any = None) -> dict[str, Array]:
        """What ``write_table`` takes: one row per item, the oddest first."""
        order = self.order
        item = np.arange(len(order)) if names is None else np.asarray(names)
        held = {"rank": np.arange(1, len(order) + 1), "item": item[order],
                "score": self.score[order], "flag": self.flag[order]}
        held |= {} if self.odd is None else {"label": self.odd[order]}
        return held | {f"control {k}": v[order] for k, v in self.controls.items()}

    def rankings(self, k: int | None = None) -> dict[str, Ranking]:
        """Figures of the score and of every control; empty without two kinds of items."""
        if self.odd is None:
            return {}
        every = {self.method: self.score, **self.controls}
        found = {name: figures.ranking(score, self.odd, k) for name, score in every.items()}
        return {name: made for name, made in found.items() if made is not None}


def outliers(model: Model, data: Dataset, *, normal: Dataset, train: Dataset | None = None,
             odd: Array | None = None, false_alarms: float = 0.01, method: str = "auto",
             seed: int = 0, progress: Progress | None = None) -> Outliers:
    """Score and rank the items of ``data``. An item's score depends on that item alone.

    Args:
        normal: items the model has not seen, taken for normal; they set the threshold. For
            ``typicality`` every other one of them is what normal items are like, and the rest
            set the threshold.
        train: what the controls are fitted to; without it there are none.
        odd: (n,) bool, the truth, if known: for the figures alone.
        method: ``nats``, −log p(x); ``error``, the mean squared error of the reconstruction in
            model units; ``typicality``, the squared Mahalanobis distance of the item's statistics
            from those of normal items; ``auto``: ``typicality`` for pictures, otherwise ``nats``
            where the model has a likelihood, else ``error``.

    Raises:
        CapabilityError: the model cannot do what the method needs.
        ConfigError: an unknown method, or too few normal items for ``false_alarms``.
    """
    total = len(data) + len(normal)
    count = counted(progress, total)
    judge = Judge.of(model, normal, false_alarms=false_alarms, method=method, seed=seed,
                     count=count)
    return Outliers(judge.scores(data, count), judge.normal, judge.threshold, judge.method,
                    false_alarms, odd, {} if train is None else _controls(train, data, seed))


@dataclass(frozen=True)
class Judge:
    """A model that has seen what normal items score, and gives any items their own scores.

    Attributes:
        normal: (m,) scores of the normal items that set the threshold.
        typical: what the statistics of normal items are like; of ``typicality`` alone.
    """

    model: Model
    method: str
    seed: int
    normal: Array
    threshold: float
    typical: Typical | None = None

    @classmethod
    def of(cls, model: Model, normal: Dataset, *, false_alarms: float = 0.01,
           method: str = "auto", seed: int = 0, count: Count | None = None) -> Judge:
        """Arguments and errors as those of :func:`outliers`."""
        method = _method(model, method)
        # before the long work: whether there are enough of them
        figures.threshold(np.zeros(_calibrating(method, normal)), false_alarms)
        found = _swept(model, normal, method, seed, count)
        typical = Typical.of(found[0::2]) if method == "typicality" else None
        scores = typical.distance(found[1::2]) if typical else found[:, 0]
        return cls(model, method, seed, scores, figures.threshold(scores, false_alarms), typical)

    def scores(self, data: Dataset, count: Count | None = None) -> Array:
        """(n,) float64, higher is odder; an item's own, whatever stands beside it."""
        found = _swept(self.model, data, self.method, self.seed, count)
        return self.typical.distance(found) if self.typical else found[:, 0]


def histogram(found: Outliers) -> bytes:
    """PNG bytes: scores of held-out normal items, of the items, and the threshold."""
    sets = {"held-out normal items": found.normal}
    if found.odd is None or found.odd.all() or not found.odd.any():
        sets["items"] = found.score
    else:
        sets |= {"items": found.score[~found.odd], "outliers by label": found.score[found.odd]}
    return plots.histograms(sets, x=SCORES[found.method], mark=found.threshold,
                            marked=f"threshold, {found.false_alarms:.3g} false alarms",
                            log=found.method == "typicality")


def _method(model: Model, method: str) -> str:
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    if model.condition_dim:
        raise CapabilityError(f"{type(model).__name__} knows p(x | condition) alone; outliers need "
                              "a model of x: train vae, ae or pca")
    if method == "auto":
        method = "typicality" if model.space.kind == "picture" else (
            "nats" if can(model, "score") else "error")
    check(model, NEEDED[method])
    return method


def _calibrating(method: str, normal: Dataset) -> int:
    """How many of the normal items set the threshold."""
    if method != "typicality":
        return len(normal)
    if len(normal) < FEWEST:
        raise ConfigError(f"typicality needs {FEWEST} held-out normal items, there are "
                          f"{len(normal)}; use method=nats or error, or hold more back")
    return len(normal) // 2


def _swept(model: Model, data: Dataset, method: str, seed: int, count: Count | None) -> Array:
    """(n, p) statistics of every item, float64."""
    take = {"nats": lambda b: [_surprise(model, b, seed)],
            "error": lambda b: [squared_error(model, b, _code(model, b))],
            "typicality": lambda b: list(_statistics(model, b, seed))}[method]
    parts = []
    with inference(model):
        for batch in sweep(model, data):
            parts.append(torch.stack([v.double().cpu() for v in take(batch)], 1).numpy())
            if count:
                count(len(batch))
    return np.concatenate(parts)


def _statistics(model: Any, batch: Batch, seed: int) -> Iterator[Tensor]:
    """How the model sees each item of a batch, (n,) each; :doc:`docs/outliers.md` has the list."""
    if can(model, "score"):
        yield _surprise(model, batch, seed)
    q = model.encode(batch.x)
    if can(model, "reconstruct"):
        yield (squared_error(model, batch, q.mean) + TINY).log()
    if (prior := model.prior) is not None:
        yield -prior.log_prob(q.mean)
    if isinstance(q, Normal):
        yield q.log_var.expand_as(q.mean).sum(1)
    if model.space.levels:
        yield _complexity(model, batch.x)


def _surprise(model: Any, batch: Batch, seed: int) -> Tensor:
    """−log p(x), nats in data units; every item meets the same draws."""
    noise = SharedNoise(derive(seed, "outliers"), model.device)
    nats: Tensor = model.log_likelihood(batch.x, noise=noise, draws=DRAWS)[0]
    return -nats


def _code(model: Any, batch: Batch) -> Tensor:
    mean: Tensor = model.encode(batch.x).mean
    return mean


def squared_error(model: Any, batch: Batch, code: Tensor) -> Tensor:
    """Mean squared error of what the (mean) code is decoded to, model units²."""
    made = model.decode(code).mean
    error: Tensor = (made.float() - batch.x.float()).square().flatten(1).mean(1)
    return error


def _complexity(model: Model, x: Tensor) -> Tensor:
    """log of the bytes that DEFLATE leaves of each picture."""
    whole = model.space.to_data(x).round().cpu().numpy()
    raw = whole.astype(np.uint8 if (model.space.levels or 0) <= 256 else np.uint16)
    sizes = [len(zlib.compress(item.tobytes(), 9)) for item in raw]
    return torch.tensor(sizes, dtype=torch.float64).log()


def _controls(train: Dataset, data: Dataset, seed: int) -> dict[str, Array]:
    """In model units, so that no column of a table rules by its unit."""
    seen, items = (_model_units(part, train) for part in (train, data))
    return {"isolation forest": figures.forest_surprise(seen, items, seed),
            "ppca": figures.ppca_surprise(seen, items)}


def _model_units(data: Dataset, like: Dataset) -> Array:
    x = np.asarray(data.take("x"), np.float32)
    return np.asarray(like.space.to_model(x))


def counted(progress: Progress | None, total: int) -> Count:
    """A function of how many more items are done."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, total)
    return count
