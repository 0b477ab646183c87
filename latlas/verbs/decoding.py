"""From latent vectors to examples: draws of the prior, decoding, styles, walks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.core.errors import CapabilityError, ConfigError, unknown
from latlas.core.model import HasLayers, HasStyles, Model, SamplesLatents
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.verbs.common import Array, one_of
from latlas.verbs.passes import (
    as_condition,
    can,
    inference,
    latents_tensor,
    noise,
    rows,
    to_data,
)

LATENTS = ("auto", "own", "fitted")
#: examples that are decoded at once
BATCH = 512


def latents_of_prior(model: Model, n: int, seed: int = 0, condition: Any = None) -> Array:
    """:func:`prior_latents` of a model; ``condition`` one for each, or one for all."""
    with inference(model):
        drawn = drawn_latents(model, n, noise(model, seed, "directions"),
                              as_condition(model, condition, n))
    if drawn is None:
        raise ConfigError(f"{type(model).__name__.lower()} has no prior of latents; name data to "
                          "encode")
    return np.asarray(drawn.float().cpu())


def drawn_examples(model: Any, n: int, *, seed: int = 0, condition: Any = None,
                   batch_size: int = BATCH, mean: bool | None = None, latents: str = "auto",
                   truncation: float = 1.0) -> Array:
    """``n`` new examples, (n, *shape) in data units; the same for the same seed and batch size.

    Latent vectors are decoded here, so that all families draw alike. A model without a likelihood
    has no noise of its own to draw, and its samples are means.

    Args:
        condition: what a conditional model needs: one class code, (n,) codes or (n, C + 1, H, W).
        mean, latents, truncation: as for :func:`sample`.
    """
    prior = which_latents(model, latents)
    mean = shows_means(model.space) if mean is None else mean
    conditions = as_condition(model, condition, n)
    parts = [nothing(model.space)]
    with inference(model):
        for i in range(0, n, batch_size):
            size, source = min(batch_size, n - i), noise(model, seed, "sample", i)
            own = rows(conditions, slice(i, i + batch_size))
            z = (model.fitted_prior.sample(size, source) if prior == "fitted" else
                 drawn_latents(model, size, source, own))
            if z is None:
                values = model.sample(size, noise=source, **own)
            elif truncation != 1:
                values = model.decode_w(model.to_w(z, truncation)).mean
            else:
                p = model.decode(z, **own)
                values = p.mean if mean else p.sample(source)
            parts.append(to_data(model.space, values))
    return np.concatenate(parts[1:] or parts)


def drawn_latents(model: Any, n: int, source: Noise,
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


def decoded(model: Any, latents: Any, *, condition: Any = None, batch_size: int = BATCH) -> Array:
    """The mean example at each latent vector (n, latent_dim): (n, *shape) in data units."""
    z = latents_tensor(model, latents)
    conditions = as_condition(model, condition, len(z))
    parts = [nothing(model.space)]
    with inference(model):
        for i in range(0, len(z), batch_size):
            own = rows(conditions, slice(i, i + batch_size))
            parts.append(to_data(model.space, model.decode(z[i:i + batch_size], **own).mean))
    return np.concatenate(parts[1:] or parts)


def varied(model: Any, centre: Array, unit: Array, dims: Array, *, span: float = 3.0,
           steps: int = 9, condition: Any = None) -> Array:
    """One latent dimension varied at a time, (len(dims), steps, \\*shape) in data units.

    Args:
        centre: (latent_dim,) the latent vector that is varied.
        unit: (latent_dim,) of ``span``, to each side.
    """
    grid = np.tile(centre, (len(dims), steps, 1))
    offsets, layered = np.linspace(-span, span, steps), isinstance(model, HasLayers)
    for row, dim in enumerate(dims):
        grid[row, :, dim] += offsets * unit[dim]
        if layered:  # layers below follow, or an upper one would move nothing
            ends = np.cumsum([np.prod(shape) for shape in model.latent_shapes])
            with inference(model):
                layer = int(np.searchsorted(ends, dim, side="right"))
                lower = model.fill_lower_layers(latents_tensor(model, grid[row]), layer)
                grid[row] = np.asarray(lower.cpu())
    values = decoded(model, grid.reshape(-1, model.latent_dim), condition=condition)
    return values.reshape(len(dims), steps, *model.space.shape)


def latents_available(model: Model) -> tuple[str, ...]:
    """``own``, and ``fitted`` where a prior was fitted to the latents."""
    return ("own", "fitted") if model.fitted_prior is not None else ("own",)


def which_latents(model: Model, latents: str = "auto") -> str:
    """``own`` or ``fitted``.

    Raises:
        CapabilityError: the fitted ones of a model without. ConfigError: an unknown word.
    """
    if latents not in LATENTS:
        raise ConfigError(unknown("prior of latents", latents, LATENTS), option="latents")
    available = latents_available(model)
    if latents == "fitted" and latents not in available:
        raise CapabilityError(f"{type(model).__name__.lower()} has no fitted prior",
                              hint="`latlas fit-prior RUN` fits one", option="latents")
    return available[-1] if latents == "auto" else latents


def shows_means(space: Space) -> bool:
    """Images are judged and shown without pixel noise; tables and points as they are drawn."""
    return space.kind == "image"


def styles_of(model: Model, verb: str) -> HasStyles:
    """The model, if it has styles.

    Raises:
        CapabilityError: if it has none; ``verb`` is what was asked for.
    """
    if not isinstance(model, HasStyles):
        raise CapabilityError(f"{type(model).__name__.lower()} has no styles; `{verb}` needs a "
                              "model whose layers have some, such as style-gan")
    return model


def to_styles(model: Model, latents: Any, truncation: float = 1.0) -> Array:
    """The style of every latent vector, (n, latent_dim) to (n, d_w) float32."""
    styled = styles_of(model, "w")
    with inference(model):
        return np.asarray(styled.to_w(latents_tensor(model, latents), truncation).float().cpu())


def decode_styles(model: Model, w: Any, batch_size: int = 64) -> Array:
    """Styles (n, d_w) or (n, layers, d_w) to examples (n, *shape) in data units."""
    styled = styles_of(model, "w")
    tensor = torch.as_tensor(np.asarray(w, np.float32), device=model.device)
    with inference(model):
        parts = [to_data(model.space, styled.decode_w(part).mean)
                 for part in tensor.split(batch_size) if len(part)]
    return np.concatenate(parts) if parts else nothing(model.space)


def activity(latents: Array) -> Array:
    """The variance of every dimension's mean over the data (Burda et al. 2016, §4.3)."""
    return np.asarray(np.var(latents, axis=0, dtype=np.float64))


def most_active(latents: Array) -> Array:
    """Dimensions in order of :func:`activity`, most active first."""
    return np.argsort(-activity(latents), kind="stable")


def walk(start: Any, end: Any, steps: int, method: str = "linear") -> Array:
    """Latents (steps, d) from ``start`` to ``end``, both included; as for :func:`interpolate`.

    slerp turns the direction and interpolates the norm.

    Raises:
        ConfigError: another method, fewer than two steps, or vectors of different widths.
    """
    a, b = np.asarray(start, np.float64).ravel(), np.asarray(end, np.float64).ravel()
    one_of("method", method, ("linear", "slerp"))
    if steps < 2 or a.shape != b.shape:
        raise ConfigError(f"a walk needs two steps or more and two latent vectors of one width; "
                          f"got {steps} steps, widths {len(a)} and {len(b)}")
    share = np.linspace(0, 1, steps)[:, None]
    norm_a, norm_b = np.linalg.norm(a), np.linalg.norm(b)
    if method == "linear" or norm_a == 0 or norm_b == 0:  # no direction to turn from
        return np.asarray((1 - share) * a + share * b)
    first, last = a / norm_a, b / norm_b
    cosine = float(np.clip(first @ last, -1, 1))
    across = last - cosine * first  # at right angles to the first, in the plane of both
    if np.linalg.norm(across) < 1e-9:  # parallel or opposite: any plane will do, take a fixed one
        across = np.eye(len(first))[np.argmin(np.abs(first))]
        across = across - (across @ first) * first
    length, angle = np.linalg.norm(across), float(np.arccos(cosine))
    toward = across / length if length else across
    norms = (1 - share) * norm_a + share * norm_b
    return np.asarray(norms * (np.cos(share * angle) * first + np.sin(share * angle) * toward))


def likely(model: Model, latent: Array, condition: Any = None) -> Array:
    """The latent vector (latent_dim,), or a draw where the prior has none of the kind, as between
    the clusters of a ``gan``; of a condition, or the first of several."""
    from latlas.verbs.passes import as_condition, inference, latents_tensor, noise

    prior = model.prior
    with inference(model):
        if prior is None or prior.log_prob(latents_tensor(model, latent[None])).item() > -np.inf:
            return latent
        first = None if condition is None else np.ravel(condition)[:1]
        drawn = drawn_latents(model, 1, noise(model, 0, "centre"), as_condition(model, first, 1))
    return latent if drawn is None else np.asarray(drawn[0].double().cpu())


def nothing(space: Space) -> Array:
    return np.zeros((0, *space.shape), np.float32 if space.levels is None else np.uint8)


