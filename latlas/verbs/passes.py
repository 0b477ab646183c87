"""What verbs do with a model, batch by batch in inference mode: encode, decode and draw."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.core.devices import numerics
from latlas.core.distributions import Normal
from latlas.core.errors import CapabilityError, ConfigError, unknown
from latlas.core.model import (
    Batch,
    HasFlow,
    HasLayers,
    HasStyles,
    Model,
    Observes,
    SamplesLatents,
)
from latlas.core.noise import Noise, derive
from latlas.core.space import Space
from latlas.data.batches import Sweep
from latlas.data.dataset import Dataset
from latlas.metrics.latent_space import channel
from latlas.run import provides_of
from latlas.verbs.common import Array, Progress

LATENTS = ("auto", "own", "fitted")
#: examples that are decoded at once
BATCH = 512


def can(model: Model, capability: str) -> bool:
    """Whether this model satisfies the protocols behind a capability."""
    return capability in provides_of(model)


def base_measure_of(model: Model) -> str | None:
    """What the model's likelihood is a likelihood of; ``None`` without one. log p(x|c) of a
    conditional model has a base measure of its own: c may tell much of x."""
    base_measure = model.base_measure if can(model, "score") else None
    if not base_measure:
        return None
    base_measure = "data units" if base_measure.endswith(" units") else base_measure
    return f"{base_measure} given a condition" if model.condition_dim else base_measure


@contextmanager
def inference(model: Model, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode, no gradients (with ``gradients`` none but those asked for inside); the mode
    before is put back."""
    training = model.training
    model.eval()
    try:
        with numerics(), torch.no_grad() if gradients else torch.inference_mode():
            yield
    finally:
        model.train(training)


def noise(model: Model, *parts: int | str) -> Noise:
    """Draws on the model's device that depend on ``parts`` alone."""
    return Noise(derive(*parts), model.device)


def in_order(model: Model, data: Dataset, batch_size: int = BATCH) -> Iterator[Batch]:
    """The examples once, in order, in model units, on the model's device. ConfigError: if the
    examples do not have the shape the model was trained on."""
    if tuple(data.space.shape) != tuple(model.space.shape):
        raise ConfigError(f"the examples have shape {tuple(data.space.shape)}, the model was "
                          f"trained on {tuple(model.space.shape)}")
    # location and scale are those the model learnt, not the data's own
    yield from Sweep(replace(data, space=model.space), batch_size, model.device)


def map_batches(model: Model, data: Dataset, step: Callable[[Any, Batch], Array],
         progress: Progress | None = None, batch_size: int = BATCH) -> Array:
    """``step(model, batch)`` of all batches in order, joined; in inference mode."""
    parts, count = [], 0
    with inference(model):
        for batch in in_order(model, data, batch_size):
            parts.append(step(model, batch))
            count += len(batch)
            if progress:
                progress(count, len(data))
    return np.concatenate(parts)


def examples_of(data: Dataset) -> Array:
    """All its examples, (n, *shape), as they are stored."""
    return np.asarray(data.take("x"))


def evenly_spaced(data: Dataset, most: int) -> Dataset:
    """Up to ``most`` examples spread evenly over a data set."""
    rows = np.linspace(0, len(data) - 1, min(most, len(data))).astype(np.int64)
    return data.subset(np.unique(rows))


def batch_condition(model: Model, batch: Batch) -> dict[str, Tensor]:
    """``{"condition": …}`` for a conditional model, ``{}`` for any other. What a model hides at
    random depends on the rows of the batch alone, whichever part of the data set is looked at."""
    first = 0 if batch.index is None or not len(batch.index) else int(batch.index[0])
    conditions = model.conditioning(batch, noise(model, "condition", first))
    return {} if conditions is None else {"condition": conditions}


def sample_conditions(model: Model, data: Dataset, n: int, seed: int = 0) -> Tensor | None:
    """What a conditional model needs for ``n`` examples like these, else ``None``."""
    picks = np.random.default_rng(derive(seed, "conditions")).integers(len(data), size=n)
    batch = next(iter(in_order(model, data.subset(picks), max(n, 1))))
    return batch_condition(model, batch).get("condition")


def to_data(space: Space, x: Tensor) -> Array:
    """Model units to the file's: images uint8 (uint16 above 256 levels), the rest float32."""
    v: Array = space.to_data(x.detach().float().cpu()).numpy()
    if space.levels is None:
        return v.astype(np.float32, copy=False)
    dtype = np.uint8 if space.levels <= 256 else np.uint16
    return np.clip(np.rint(v), 0, space.levels - 1).astype(dtype)


def joined(parts: Sequence[Array], space: Space) -> Array:
    """Batches of examples as one array (n, *shape), which may be empty."""
    empty = np.zeros((0, *space.shape), np.float32 if space.levels is None else np.uint8)
    return np.concatenate(parts) if len(parts) else empty


def encoded(model: Model, data: Dataset, progress: Progress | None = None) -> Array:
    """The mean latent vector of every example, (n, latent_dim) float32."""
    return map_batches(model, data, lambda model, batch: np.asarray(
        model.encode(batch.x, **batch_condition(model, batch)).mean.float().cpu()), progress)


def posteriors(model: Model, data: Dataset) -> tuple[Array, Array | None]:
    """Means and log variances of q(z|x), (n, latent_dim) each; ``None`` where it is no normal."""
    def both(model: Any, batch: Batch) -> Array:
        q = model.encode(batch.x, **batch_condition(model, batch))
        parts = [q.mean, q.log_var.expand_as(q.mean)] if isinstance(q, Normal) else [q.mean]
        return np.concatenate([part.float().cpu().numpy() for part in parts], 1)

    means, log_var = np.split(map_batches(model, data, both), [model.latent_dim], 1)
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
    def error(model: Any, batch: Batch) -> Array:
        condition = batch_condition(model, batch)
        x = model.decode(model.encode(batch.x, **condition).mean, **condition).mean
        # both mapped before subtracting: the columns of a table have scales of their own
        difference = model.space.to_data(x.float()) - model.space.to_data(batch.x.float())
        return np.asarray(difference.double().square().flatten(1).mean(1).cpu())

    return map_batches(model, data, error)


def sample_posterior(model: Any, data: Dataset, draws: int = 1, *, seed: int = 0) -> Array:
    """z ~ q(z|x), (draws · n, latent_dim) float32, one draw of every example after the other.

    A model that scores a binarised or dequantised x (``preprocess``) is given one, drawn anew for
    every draw. An autoencoder's latent vector is a point: all its draws are equal.
    """
    parts = []
    with inference(model):
        for draw in range(draws):
            for number, batch in enumerate(in_order(model, data)):
                source = noise(model, seed, "codes", draw, number)
                x = model.preprocess(batch.x, source) if isinstance(model, Observes) else batch.x
                z = model.encode(x, **batch_condition(model, batch)).sample(source)
                parts.append(np.asarray(z.float().cpu()))
    return np.concatenate(parts)


def log_probabilities(model: Model, data: Dataset, progress: Progress | None = None) -> Array:
    """log p(class|x) of every example, (n, classes) float32, nats; the order of
    ``space.classes``."""
    return map_batches(model, data, lambda model, batch: np.asarray(
        model.classify(batch.x).float().cpu()), progress)


def latents_tensor(model: Model, latents: Any) -> Tensor:
    """Latent vectors given by a person as a float tensor (n, latent_dim) on the model's device.
    ConfigError: if their width is not the model's."""
    z = torch.as_tensor(np.asarray(latents, np.float32), device=model.device)
    z = z[None] if z.dim() == 1 else z
    if z.shape[-1] != model.latent_dim:
        raise ConfigError(f"the latents have {z.shape[-1]} dimensions, the model "
                          f"{model.latent_dim}")
    return z


def broadcast_condition(model: Model, condition: Any, n: int) -> dict[str, Tensor]:
    """A condition given by the user as keyword argument: one for all ``n`` examples, or one each.

    Args:
        condition: ``None``, an int class code, (n,) codes, or (n, C + 1, H, W).
    """
    if condition is None:
        return {}
    values = condition if isinstance(condition, Tensor) else np.asarray(condition)
    conditions = torch.atleast_1d(torch.as_tensor(values, device=model.device))
    if len(conditions) not in (1, n):
        raise ConfigError(f"{len(conditions)} conditions for {n} examples: give one, or one for "
                          "each")
    return {"condition": conditions.expand(n, *conditions.shape[1:])}


def decoded(model: Any, latents: Any, *, condition: Any = None) -> Array:
    """The mean example at each latent vector (n, latent_dim): (n, *shape) in data units."""
    z, parts = latents_tensor(model, latents), []
    conditions = broadcast_condition(model, condition, len(z))
    with inference(model):
        for i in range(0, len(z), BATCH):
            rows = slice(i, i + BATCH)
            p = model.decode(z[rows], **{k: v[rows] for k, v in conditions.items()})
            parts.append(to_data(model.space, p.mean))
    return joined(parts, model.space)


def drawn_examples(model: Any, n: int, *, seed: int = 0, condition: Any = None,
                   batch_size: int = BATCH, mean: bool | None = None, latents: str = "auto",
                   truncation: float = 1.0) -> Array:
    """``n`` new examples, (n, *shape) in data units; the same for the same seed and batch size.

    Latent vectors are decoded here, so that all families draw alike. A model without a likelihood
    has no noise of its own to draw, and its samples are means.

    Args:
        condition: what a conditional model needs: one class code, (n,) codes or (n, C + 1, H, W).
        mean, latents, truncation: as for :func:`latlas.sample`.
    """
    prior, parts = which_latents(model, latents), []
    mean = model.space.kind == "image" if mean is None else mean
    conditions = broadcast_condition(model, condition, n)
    with inference(model):
        for i in range(0, n, batch_size):
            size, source = min(batch_size, n - i), noise(model, seed, "sample", i)
            own = {k: v[i:i + batch_size] for k, v in conditions.items()}
            z = (model.fitted_prior.sample(size, source, **own) if prior == "fitted" else
                 sample_prior_latents(model, size, source, own))
            if z is None:
                values = model.sample(size, noise=source, **own)
            elif truncation != 1:
                values = model.decode_w(model.to_w(z, truncation)).mean
            else:
                p = model.decode(z, **own)
                values = p.mean if mean else p.sample(source)
            parts.append(to_data(model.space, values))
    return joined(parts, model.space)


def sample_prior_latents(model: Any, n: int, source: Noise,
                  condition: dict[str, Tensor] | None = None) -> Tensor | None:
    """Latents (n, latent_dim): the model's own ``sample_latents(n, noise=…)``, or draws from its
    ``prior``, or from the standard normal that a likelihood without one is about; else ``None``.

    ``condition``, a keyword argument or none, is for latents that differ by class."""
    if not can(model, "decode"):
        return None
    if isinstance(model, SamplesLatents):
        return model.sample_latents(n, noise=source, **(condition or {}))
    if (prior := model.prior) is not None:
        return prior.sample(n, source)
    return source.normal(n, model.latent_dim) if can(model, "score") else None


def latents_of_prior(model: Model, n: int, seed: int = 0, condition: Any = None,
                     purpose: tuple[int | str, ...] = ("directions",)) -> Array:
    """:func:`latlas.prior_latents` of a model; ``condition`` one for each, or one for all."""
    with inference(model):
        z = sample_prior_latents(model, n, noise(model, seed, *purpose),
                                 broadcast_condition(model, condition, n))
    if z is None:
        raise ConfigError(f"{type(model).__name__.lower()} has no prior of latents; name data to "
                          "encode")
    return np.asarray(z.float().cpu())


def latents_available(model: Model) -> tuple[str, ...]:
    """``own``, and ``fitted`` where a prior was fitted to the latents."""
    return ("own", "fitted") if model.fitted_prior is not None else ("own",)


def which_latents(model: Model, latents: str = "auto") -> str:
    """``own`` or ``fitted``. CapabilityError: the fitted ones of a model without. ConfigError: an
    unknown word."""
    if latents not in LATENTS:
        raise ConfigError(unknown("prior of latents", latents, LATENTS), option="latents")
    available = latents_available(model)
    if latents == "fitted" and latents not in available:
        raise CapabilityError(f"{type(model).__name__.lower()} has no fitted prior",
                              hint="`latlas fit-prior RUN` fits one", option="latents")
    return available[-1] if latents == "auto" else latents


def decode_traversal(model: Any, centre: Array, unit: Array, dims: Array, *, span: float = 3.0,
           steps: int = 9, condition: Any = None) -> Array:
    """One latent dimension varied at a time, (len(dims), steps, \\*shape) in data units.

    Args:
        centre: (latent_dim,) the latent vector that is varied.
        unit: (latent_dim,) of ``span``, to each side.
    """
    grid, layered = np.tile(centre, (len(dims), steps, 1)), isinstance(model, HasLayers)
    for row, dim in enumerate(dims):
        grid[row, :, dim] += np.linspace(-span, span, steps) * unit[dim]
        if layered:  # layers below follow, or an upper one would move nothing
            ends = np.cumsum([np.prod(shape) for shape in model.latent_shapes])
            layer = int(np.searchsorted(ends, dim, side="right"))
            with inference(model):
                lower = model.fill_lower_layers(latents_tensor(model, grid[row]), layer)
                grid[row] = np.asarray(lower.cpu())
    values = decoded(model, grid.reshape(-1, model.latent_dim), condition=condition)
    return values.reshape(len(dims), steps, *model.space.shape)


def latent_in_support(model: Model, latent: Array, condition: Any = None) -> Array:
    """The latent vector (latent_dim,), or a draw where the prior has none of the kind, as between
    the clusters of a ``gan``; of a condition, or the first of several."""
    prior = model.prior
    with inference(model):
        if prior is None or prior.log_prob(latents_tensor(model, latent[None])).item() > -np.inf:
            return latent
        first = None if condition is None else np.ravel(condition)[:1]
        z = sample_prior_latents(model, 1, noise(model, 0, "centre"),
                                 broadcast_condition(model, first, 1))
    return latent if z is None else np.asarray(z[0].double().cpu())


def styles_of(model: Model, verb: str) -> HasStyles:
    """The model, if it has styles, else a CapabilityError; ``verb`` is what was asked for."""
    if not isinstance(model, HasStyles):
        raise CapabilityError(f"{type(model).__name__.lower()} has no styles; `{verb}` needs a "
                              "model whose layers have some, such as style-gan")
    return model


def to_styles(model: Model, latents: Any, truncation: float = 1.0) -> Array:
    """The style of every latent vector, (n, latent_dim) to (n, d_w) float32."""
    styled = styles_of(model, "w")
    with inference(model):
        return np.asarray(styled.to_w(latents_tensor(model, latents), truncation).float().cpu())


def transported(model: Model, latents: Any, start: float, end: float,
                condition: Any = None) -> Array:
    """Latents (n, latent_dim) carried by the model's flow from time ``start`` to ``end``; from 1 to
    0 they become noise. CapabilityError: a model without a flow."""
    if not isinstance(model, HasFlow):
        raise CapabilityError(f"{type(model).__name__.lower()} has no flow between noise and "
                              "latents, as latent-flow has; walk through z", option="space")
    z = latents_tensor(model, latents)
    with inference(model):
        return np.asarray(model.transport(z, start, end, **broadcast_condition(
            model, condition, len(z))).float().cpu())


def decode_styles(model: Model, w: Any, batch_size: int = 64) -> Array:
    """Styles (n, d_w) or (n, layers, d_w) to examples (n, *shape) in data units."""
    styled = styles_of(model, "w")
    tensor = torch.as_tensor(np.asarray(w, np.float32), device=model.device)
    with inference(model):
        return joined([to_data(model.space, styled.decode_w(part).mean)
                       for part in tensor.split(batch_size) if len(part)], model.space)
