"""What a model makes of normal examples that it has not seen, and any example's own score."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from latlas.core.errors import ConfigError, say_option
from latlas.metrics import outliers as scoring
from latlas.verbs.common import Array, Progress

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.data.dataset import Dataset

#: draws of the latent vector behind a likelihood
DRAWS = 16
#: keeps logarithms of errors finite
TINY = 1e-12
#: fewest held-out examples that a Gaussian of the statistics is fitted to
FEWEST = 20


class Normality:
    """What a model makes of normal examples that it has not seen, and any example's own score.

    For ``typicality`` a Gaussian is fitted to every other one of them; the rest set the threshold.

    Attributes:
        reference: (m,) scores of the normal examples that set the threshold.
        threshold: by ``fpr``; without one it is to be set by :meth:`take_contamination`.
        typical: the Gaussian of the statistics; of ``typicality`` alone.

    ConfigError: too few normal examples.
    """

    def __init__(self, model: Model, normal: Dataset, *, fpr: float | None, method: str,
                 seed: int = 0, progress: Progress | None = None) -> None:
        self.model, self.method, self.seed = model, method, seed
        self.typical: scoring.Typical | None = None
        setting = len(normal)
        if method == "typicality":
            if setting < FEWEST:
                raise ConfigError(f"typicality needs {FEWEST} held-out normal examples, there are "
                                  f"{setting}; use {say_option('method', 'nats')} or error, or "
                                  "hold more back")
            setting //= 2
        if fpr is not None:  # before the long work: are there enough of them?
            scoring.threshold(np.zeros(setting), fpr)
        values = self._statistics(normal, progress)
        if method == "typicality":
            self.typical = scoring.Typical.of(values[0::2])
        self.reference = values[:, 0] if self.typical is None else self.typical.distance(
            values[1::2])
        self.threshold = np.inf if fpr is None else scoring.threshold(self.reference, fpr)

    def take_contamination(self, train: Any, share: float) -> None:
        """The threshold that this share of the training examples exceeds."""
        self.reference = self.scores(train)
        self.threshold = scoring.contamination_threshold(self.reference, share)

    def scores(self, data: Dataset, progress: Progress | None = None) -> Array:
        """(n,) float64, higher is more outlying; an example's own, whatever stands beside it."""
        values = self._statistics(data, progress)
        return values[:, 0] if self.typical is None else self.typical.distance(values)

    def columns(self, data: Dataset, progress: Progress | None = None) -> dict[str, Array]:
        """Scores, and flags above the threshold."""
        score = self.scores(data, progress)
        return {"score": score, "flag": score > self.threshold}

    def controls(self, data: Dataset) -> dict[str, Array]:
        """Scores of more controls: none."""
        return {}

    def _statistics(self, data: Dataset, progress: Progress | None) -> Array:
        """How the model sees every example, (n, p) float64; docs/outliers.md has the list of those
        of ``typicality``. Every example meets the same draws."""
        import torch

        from latlas.core.distributions import Normal
        from latlas.core.noise import SharedNoise, derive
        from latlas.verbs.passes import can, map_batches

        def step(model: Any, batch: Any) -> Array:
            values, typicality = [], self.method == "typicality"
            if self.method == "nats" or (typicality and can(model, "score")):
                noise = SharedNoise(derive(self.seed, "outliers"), model.device)
                values.append(-model.log_likelihood(batch.x, noise=noise, draws=DRAWS)[0])
            q: Any = None if self.method == "nats" else model.encode(batch.x)
            if q is not None and can(model, "reconstruct"):
                x = model.decode(q.mean).mean
                error = (x.float() - batch.x.float()).square().flatten(1).mean(1)
                values.append((error + TINY).log() if typicality else error)
            if typicality and (prior := model.prior) is not None:
                values.append(-prior.log_prob(q.mean))
            if typicality and isinstance(q, Normal):
                values.append(q.log_var.expand_as(q.mean).sum(1))
            if typicality and model.space.levels:  # log of the bytes that DEFLATE leaves of each
                whole = model.space.to_data(batch.x).round().cpu().numpy()
                raw = whole.astype(np.uint8 if model.space.levels <= 256 else np.uint16)
                sizes = [len(zlib.compress(example.tobytes(), 9)) for example in raw]
                values.append(torch.tensor(sizes, dtype=torch.float64).log())
            return np.asarray(torch.stack([v.double().cpu() for v in values], 1))

        return map_batches(self.model, data, step, progress)


def nats_maps(model: Model, examples: Dataset, normal: Dataset) -> Array | None:
    """(n, H, W) of images: −log p(pixel | mean latents), nats, summed over channels, less its mean
    over up to 256 normal examples: where each is other than the model expects. ``None`` for a
    model whose decoder has no likelihood."""
    from latlas.core.distributions import PointMass, log_probs
    from latlas.core.noise import SharedNoise, derive
    from latlas.verbs.passes import can, evenly_spaced, map_batches

    if model.space.kind != "image" or not can(model, "reconstruct") or not can(model, "score"):
        return None

    def step(model: Any, batch: Any) -> Array:
        noise = SharedNoise(derive("nats maps"), model.device)
        x = model.preprocess(batch.x, noise).reshape(batch.x.shape)
        p = model.decode(model.encode(batch.x).mean)
        if isinstance(p, PointMass):
            return np.zeros((len(x), 0, 0))
        return np.asarray(-log_probs(p, x.float()).sum(1).cpu().numpy())

    maps = map_batches(model, examples, step)
    return maps - map_batches(model, evenly_spaced(normal, 256), step).mean(0) if (
        maps.size) else None
