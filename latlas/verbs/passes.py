"""Passes of a model over data: inference mode, batches, conditions, units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.core.distributions import Normal
from latlas.core.errors import ConfigError
from latlas.core.model import Batch, Model, Observes
from latlas.core.noise import Noise, derive
from latlas.core.space import Space
from latlas.data.batches import Sweep
from latlas.data.dataset import Dataset
from latlas.metrics.latent_space import channel
from latlas.run import provides_of
from latlas.verbs.common import Array, Progress


def can(model: Model, capability: str) -> bool:
    """Whether this model satisfies the protocols behind a capability."""
    return capability in provides_of(model)


def base_measure_of(model: Model) -> str | None:
    """What the model's likelihood is a likelihood of; ``None`` without one.

    All densities over the data's own continuous units are ``data units``. log p(x|c) of a
    conditional model has a base measure of its own: c may tell much of x.
    """
    base_measure = model.base_measure if can(model, "score") else None
    if not base_measure:
        return None
    base_measure = "data units" if base_measure.endswith(" units") else base_measure
    return f"{base_measure} given a condition" if model.condition_dim else base_measure


@contextmanager
def inference(model: Model, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode, no gradients; the mode before is put back.

    With ``gradients`` tensors may still take part in one that is asked for inside.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad() if gradients else torch.inference_mode():
            yield
    finally:
        model.train(training)


def noise(model: Model, *parts: int | str) -> Noise:
    """Draws on the model's device that depend on ``parts`` alone."""
    return Noise(derive(*parts), model.device)


def sweep(model: Model, data: Dataset, batch_size: int = 512) -> Iterator[Batch]:
    """The examples once, in order, in model units, on the model's device.

    Raises:
        ConfigError: if the examples do not have the shape the model was trained on.
    """
    if tuple(data.space.shape) != tuple(model.space.shape):
        raise ConfigError(f"the examples have shape {tuple(data.space.shape)}, the model was "
                          f"trained on {tuple(model.space.shape)}")
    yield from Sweep(in_units_of(model.space, data), batch_size, model.device)


def in_units_of(space: Space, data: Dataset) -> Dataset:
    """The same data set under the units the model learnt: its location and scale, not its own."""
    return replace(data, space=space)


def first_row(batch: Batch) -> int:
    """Row of the first example in its data set: what seeds a batch's draws, so that they are the
    same whichever part of the data set is looked at."""
    return 0 if batch.index is None or not len(batch.index) else int(batch.index[0])


def condition_of(model: Model, batch: Batch) -> dict[str, Tensor]:
    """``{"condition": …}`` for a conditional model, ``{}`` for any other.

    What a model hides at random depends on the rows of the batch alone.
    """
    conditions = model.conditioning(batch, noise(model, "condition", first_row(batch)))
    return {} if conditions is None else {"condition": conditions}


def as_condition(model: Model, condition: Any, n: int) -> dict[str, Tensor]:
    """A condition given by the user as keyword argument: one for all ``n`` examples, or one each.

    Args:
        condition: ``None``, an int class code, (n,) codes, or (n, C + 1, H, W).
    """
    if condition is None:
        return {}
    conditions = torch.as_tensor(np.asarray(condition) if not isinstance(condition, Tensor)
                            else condition, device=model.device)
    conditions = conditions[None] if conditions.dim() == 0 else conditions
    conditions = conditions.expand(n, *conditions.shape[1:]) if len(conditions) == 1 else conditions
    if len(conditions) != n:
        raise ConfigError(f"{len(conditions)} conditions for {n} examples: give one, or one for "
                          "each")
    return {"condition": conditions}


def rows(condition: Mapping[str, Tensor], part: slice) -> dict[str, Tensor]:
    """The rows of a condition that belong to one batch."""
    return {k: v[part] for k, v in condition.items()}


def examples_of(data: Dataset) -> Array:
    """All its examples, (n, *shape), as they are stored."""
    return np.asarray(data.take("x"))


def some_of(data: Dataset, most: int) -> Dataset:
    """Up to ``most`` examples spread evenly over a data set."""
    rows = np.linspace(0, len(data) - 1, min(most, len(data))).astype(np.int64)
    return data.subset(np.unique(rows))


def to_data(space: Space, x: Tensor) -> Array:
    """Model units to the file's: images uint8 (uint16 above 256 levels), the rest float32."""
    v: Array = space.to_data(x.detach().float().cpu()).numpy()
    if space.levels is None:
        return v.astype(np.float32, copy=False)
    kind = np.uint8 if space.levels <= 256 else np.uint16
    whole: Array = np.clip(np.rint(v), 0, space.levels - 1).astype(kind)
    return whole


def conditions_like(model: Model, data: Dataset, n: int, seed: int = 0) -> Tensor | None:
    """What a conditional model needs for ``n`` examples like these, else ``None``."""
    picks = np.random.default_rng(derive(seed, "conditions")).integers(len(data), size=n)
    conditions = [condition_of(model, b) for b in sweep(model, data.subset(picks), max(n, 1))]
    return conditions[0].get("condition") if conditions else None


def latents_tensor(model: Model, latents: Any) -> Tensor:
    """Latent vectors given by a person as a float tensor (n, latent_dim) on the model's device.

    Raises:
        ConfigError: if their width is not the model's.
    """
    z = torch.as_tensor(np.asarray(latents, np.float32), device=model.device)
    z = z[None] if z.dim() == 1 else z
    if z.shape[-1] != model.latent_dim:
        raise ConfigError(f"the latents have {z.shape[-1]} dimensions, the model "
                          f"{model.latent_dim}")
    return z


def over(model: Model, data: Dataset, step: Callable[[Any, Batch], Array],
         progress: Progress | None = None, batch_size: int = 512) -> Array:
    """``step(model, batch)`` of all batches in order, joined; in inference mode."""
    parts, count = [], 0
    with inference(model):
        for batch in sweep(model, data, batch_size):
            parts.append(step(model, batch))
            count += len(batch)
            if progress:
                progress(count, len(data))
    return np.concatenate(parts)


def encoded(model: Model, data: Dataset, progress: Progress | None = None) -> Array:
    """The mean latent vector of every example, (n, latent_dim) float32."""
    def mean(model: Any, batch: Any) -> Array:
        q = model.encode(batch.x, **condition_of(model, batch))
        return np.asarray(q.mean.float().cpu())

    return over(model, data, mean, progress)


def posteriors(model: Model, data: Dataset) -> tuple[Array, Array | None]:
    """Means and log variances of q(z|x), (n, latent_dim) each; ``None`` where it is no normal."""
    def both(model: Any, batch: Any) -> Array:
        q = model.encode(batch.x, **condition_of(model, batch))
        parts = [q.mean, q.log_var.expand_as(q.mean)] if isinstance(q, Normal) else [q.mean]
        return np.concatenate([part.float().cpu().numpy() for part in parts], 1)

    joined = over(model, data, both)
    means, log_var = joined[:, :model.latent_dim], joined[:, model.latent_dim:]
    return means, log_var if log_var.shape[1] else None


def information(model: Model, data: Dataset) -> Array:
    """How much every latent dimension carries about an example, (d,).

    An upper bound on I(x; z_j) in nats where the posterior is a normal, whatever the prior;
    otherwise the variance of the latent over the data.
    """
    means, log_var = posteriors(model, data)
    return np.var(means, 0, dtype=np.float64) if log_var is None else channel(means, log_var)


def squared_errors(model: Model, data: Dataset) -> Array:
    """Mean squared error of every example's reconstruction, (n,), data units², not rounded."""
    def error(model: Any, batch: Any) -> Array:
        condition = condition_of(model, batch)
        x = model.decode(model.encode(batch.x, **condition).mean, **condition).mean
        # both mapped before subtracting: the columns of a table have scales of their own
        difference = model.space.to_data(x.float()) - model.space.to_data(batch.x.float())
        return np.asarray(difference.double().square().flatten(1).mean(1).cpu())

    return over(model, data, error)


def draw_latents(model: Any, data: Dataset, draws: int = 1, *, seed: int = 0) -> Array:
    """z ~ q(z|x), (draws · n, latent_dim) float32, one draw of every example after the other.

    A model that scores a binarised or dequantised x (``preprocess``) is given one, drawn anew for
    every draw. An autoencoder's latent vector is a point: all its draws are equal.
    """
    parts = []
    with inference(model):
        for draw in range(draws):
            for number, batch in enumerate(sweep(model, data)):
                source = noise(model, seed, "codes", draw, number)
                x = model.preprocess(batch.x, source) if isinstance(model, Observes) else batch.x
                z = model.encode(x, **condition_of(model, batch)).sample(source)
                parts.append(np.asarray(z.float().cpu()))
    return np.concatenate(parts)
