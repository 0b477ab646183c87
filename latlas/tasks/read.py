"""From data to codes and back: encode, reconstruct, denoise. Deterministic: posterior means."""

from __future__ import annotations

from typing import Any

import numpy as np

from latlas.core.distributions import Normal
from latlas.core.model import Model
from latlas.data.dataset import Dataset
from latlas.metrics.latent import channel
from latlas.tasks.common import Array, Progress, check, condition_of, inference, sweep, to_data


def encode(model: Model, data: Dataset, *, batch_size: int = 512,
           progress: Progress | None = None) -> Array:
    """The mean code of every item, (n, latent_dim) float32."""
    check(model, "encode")
    return _over(model, data, _code, batch_size, progress)


def reconstruct(model: Model, data: Dataset, *, batch_size: int = 512,
                progress: Progress | None = None) -> Array:
    """Every item decoded from its mean code, (n, \\*shape) in data units."""
    check(model, "reconstruct")
    return _over(model, data, _round_trip, batch_size, progress)


def denoise(model: Model, data: Dataset, *, batch_size: int = 512,
            progress: Progress | None = None) -> Array:
    """The clean item behind every noisy one: its reconstruction, (n, \\*shape) in data units.

    Meant for models trained to undo noise (Vincent et al. 2008); any encoder and decoder will do.
    """
    return reconstruct(model, data, batch_size=batch_size, progress=progress)


def information(model: Model, data: Dataset) -> Array:
    """How much every dimension of the code carries about an item, (d,).

    An upper bound on I(x; z_j) in nats where the posterior is a normal, whatever the prior;
    otherwise the variance of the code over the data.
    """
    means, log_var = posteriors(model, data)
    return np.var(means, 0, dtype=np.float64) if log_var is None else channel(means, log_var)


def posteriors(model: Model, data: Dataset) -> tuple[Array, Array | None]:
    """Means and log variances of q(z|x), (n, latent_dim) each; ``None`` where it is no normal."""
    check(model, "encode")
    both = _over(model, data, _posterior, 512, None)
    means, log_var = both[:, :model.latent_dim], both[:, model.latent_dim:]
    return means, log_var if log_var.shape[1] else None


def _posterior(model: Any, batch: Any) -> Array:
    """Means and, of a normal posterior, log variances beside them: (n, d) or (n, 2 d)."""
    q = model.encode(batch.x, **condition_of(model, batch))
    parts = [q.mean, q.log_var.expand_as(q.mean)] if isinstance(q, Normal) else [q.mean]
    return np.concatenate([part.float().cpu().numpy() for part in parts], 1)


def squared_errors(model: Model, data: Dataset, *, batch_size: int = 512) -> Array:
    """Mean squared error of every item's reconstruction, (n,), data units², nothing rounded."""
    check(model, "reconstruct")
    return _over(model, data, _error, batch_size, None)


def _error(model: Any, batch: Any) -> Array:
    condition = condition_of(model, batch)
    made = model.decode(model.encode(batch.x, **condition).mean, **condition).mean
    # both mapped before subtracting: the columns of a table have scales of their own
    difference = model.space.to_data(made.float()) - model.space.to_data(batch.x.float())
    return np.asarray(difference.double().square().flatten(1).mean(1).cpu())


def _code(model: Any, batch: Any) -> Array:
    code = model.encode(batch.x, **condition_of(model, batch)).mean
    return np.asarray(code.float().cpu())


def _round_trip(model: Any, batch: Any) -> Array:
    condition = condition_of(model, batch)
    code = model.encode(batch.x, **condition).mean
    return to_data(model.space, model.decode(code, **condition).mean)


def _over(model: Model, data: Dataset, step: Any, batch_size: int,
          progress: Progress | None) -> Array:
    parts, done = [], 0
    with inference(model):
        for batch in sweep(model, data, batch_size):
            parts.append(step(model, batch))
            done += len(batch)
            if progress:
                progress(done, len(data))
    return np.concatenate(parts)
