"""What normal examples score, and the score of any other: the model behind ``outliers``."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.core.distributions import Normal
from latlas.core.errors import CapabilityError, ConfigError, say_option
from latlas.core.model import Batch, Model
from latlas.core.noise import SharedNoise, derive
from latlas.data.dataset import Dataset
from latlas.metrics.outliers import Typical, threshold
from latlas.run import Run
from latlas.verbs.common import Array, Progress, one_of
from latlas.verbs.passes import can, over

#: what a method needs of the model
NEEDED = {"nats": "score", "error": "reconstruct", "typicality": "encode"}
#: draws of the latent vector behind a likelihood
DRAWS = 16
#: keeps logarithms of errors and lengths finite
TINY = 1e-12
#: fewest held-out examples that a Gaussian of the statistics is fitted to
FEWEST = 20


def method_of(run: Run, method: str) -> str:
    """``auto`` is ``typicality`` for images, otherwise ``nats`` where the model has a likelihood,
    else ``error``.

    Raises:
        ConfigError: an unknown method. CapabilityError: a model of p(x | condition).
    """
    one_of("method", method, ("auto", *NEEDED))
    if run.conditional:
        raise CapabilityError(f"{run.model_name} knows p(x | condition) alone; outliers need a "
                              "model of x: train vae, ae or pca")
    if method != "auto":
        return method
    return "typicality" if run.space.kind == "image" else (
        "nats" if run.can("score") else "error")


@dataclass(frozen=True)
class Normality:
    """What a model makes of normal examples, and any example's own score beside them.

    Attributes:
        reference: (m,) scores of the normal examples that set the threshold.
        typical: what the statistics of normal examples are like; of ``typicality`` alone.
    """

    model: Model
    method: str
    seed: int
    reference: Array
    threshold: float
    typical: Typical | None = None

    @classmethod
    def of(cls, model: Model, normal: Dataset, *, fpr: float, method: str, seed: int = 0,
           progress: Progress | None = None) -> Normality:
        """Measured on examples the model has not seen, taken for normal.

        For ``typicality`` every other one of them is what normal examples are like, and the rest
        set the threshold.

        Raises:
            ConfigError: too few normal examples.
        """
        setting = len(normal)
        if method == "typicality":
            if setting < FEWEST:
                raise ConfigError(f"typicality needs {FEWEST} held-out normal examples, there are "
                                  f"{setting}; use {say_option('method', 'nats')} or error, or "
                                  "hold more back")
            setting //= 2
        threshold(np.zeros(setting), fpr)  # before the long work: whether there are enough of them
        statistics = _statistics_of(model, normal, method, seed, progress)
        typical = Typical.of(statistics[0::2]) if method == "typicality" else None
        scores = typical.distance(statistics[1::2]) if typical else statistics[:, 0]
        return cls(model, method, seed, scores, threshold(scores, fpr), typical)

    def scores(self, data: Dataset, progress: Progress | None = None) -> Array:
        """(n,) float64, higher is more outlying; an example's own, whatever stands beside it."""
        statistics = _statistics_of(self.model, data, self.method, self.seed, progress)
        return self.typical.distance(statistics) if self.typical else statistics[:, 0]

    def columns(self, data: Dataset, progress: Progress | None = None) -> dict[str, Array]:
        """Scores, and flags above the threshold."""
        score = self.scores(data, progress)
        return {"score": score, "flag": score > self.threshold}


def _statistics_of(model: Model, data: Dataset, method: str, seed: int,
                   progress: Progress | None) -> Array:
    """(n, p) statistics of every example, float64."""
    def step(model: Any, batch: Batch) -> Array:
        if method == "nats":
            values = [_surprise(model, batch, seed)]
        elif method == "error":
            values = [squared_error(model, batch, model.encode(batch.x).mean)]
        else:
            values = list(_statistics(model, batch, seed))
        return np.asarray(torch.stack([v.double().cpu() for v in values], 1))

    return over(model, data, step, progress)


def _statistics(model: Any, batch: Batch, seed: int) -> Iterator[Tensor]:
    """How the model sees each example of a batch, (n,) each; docs/outliers.md has the list."""
    if can(model, "score"):
        yield _surprise(model, batch, seed)
    q = model.encode(batch.x)
    if can(model, "reconstruct"):
        yield (squared_error(model, batch, q.mean) + TINY).log()
    if (prior := model.prior) is not None:
        yield -prior.log_prob(q.mean)
    if isinstance(q, Normal):
        yield q.log_var.expand_as(q.mean).sum(1)
    if model.space.levels:  # log of the bytes that DEFLATE leaves of each image
        whole = model.space.to_data(batch.x).round().cpu().numpy()
        raw = whole.astype(np.uint8 if model.space.levels <= 256 else np.uint16)
        sizes = [len(zlib.compress(example.tobytes(), 9)) for example in raw]
        yield torch.tensor(sizes, dtype=torch.float64).log()


def _surprise(model: Any, batch: Batch, seed: int) -> Tensor:
    """−log p(x), nats in data units; every example meets the same draws."""
    noise = SharedNoise(derive(seed, "outliers"), model.device)
    nats: Tensor = model.log_likelihood(batch.x, noise=noise, draws=DRAWS)[0]
    return -nats


def squared_error(model: Any, batch: Batch, latent: Tensor) -> Tensor:
    """Mean squared error of what the (mean) latent vector is decoded to, model units²."""
    x = model.decode(latent).mean
    error: Tensor = (x.float() - batch.x.float()).square().flatten(1).mean(1)
    return error
