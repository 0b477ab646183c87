"""A model's latent space: continuity and information as metrics, a plane of it as a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from latlas.core.model import Model
from latlas.core.noise import derive
from latlas.data.dataset import Dataset
from latlas.metrics.latent_space import (
    arcs,
    continuity,
    elbo_surgery,
    lengths,
    linear_total_correlation,
    neighbour_distance,
    reach,
)
from latlas.metrics.likelihood import summary
from latlas.metrics.table import Metric
from latlas.verbs.common import Array
from latlas.verbs.passes import (
    as_condition,
    can,
    conditions_like,
    decoded,
    encoded,
    evenly_spaced,
    examples_of,
    inference,
    latents_tensor,
    noise,
    posteriors,
)

#: held-out examples that supports, mixtures and neighbours are taken over, at most, and the bytes
#: of them that neighbours are looked for in
EXAMPLES, BYTES = 2000, 100_000_000
#: paths between draws of the prior, and points on each
PATHS, POINTS = 48, 65
#: cells along a side of the map, half its side and the step of its slopes, both in standard
#: deviations of the prior
CELLS, SPAN, STEP = 15, 3.0, 0.05


@dataclass(frozen=True)
class Plane:
    """Where the decoder leads on a plane through the middle of the prior.

    Attributes:
        tiles: (CELLS², \\*shape) decoded examples in data units, from the top left.
        reach: (CELLS, CELLS) distance of each to the support of held-out examples: 1 is its edge.
        slope: (CELLS, CELLS) neighbour distances per standard deviation of the prior.
    """

    tiles: Array
    reach: Array
    slope: Array


def has_latent_space(model: Model) -> bool:
    """Whether draws of a prior can be decoded."""
    return model.prior is not None and can(model, "decode")


def prior_draws(model: Any, n: int, seed: int = 0) -> Array:
    """(n, latent_dim) float64 draws of the model's prior."""
    with inference(model):
        return np.asarray(model.prior.sample(n, noise(model, seed, "prior")).double().cpu())


def latent_metrics(model: Model, test: Dataset, seed: int, notes: list[str]) -> Iterator[Metric]:
    """Continuity of models with a prior and a decoder; what the latents of an encoder hold."""
    few = evenly_spaced(test, EXAMPLES)
    if has_latent_space(model) and len(few) > 1:
        yield from _continuity(model, few, seed)
    if can(model, "encode") and len(few) > model.latent_dim + 1:
        means, log_var = posteriors(model, few)
        if log_var is not None:
            yield from _surgery(model, means, log_var, seed, notes)
        yield Metric("linear_tc", linear_total_correlation(means, log_var))


def plane(model: Model, test: Dataset, extract: Callable[[Array], Array],
          seed: int = 0) -> Plane | None:
    """The plane of the latents' first two principal axes; ``None`` for one latent dimension, or
    examples of which more than half are copies.

    Args:
        extract: examples (n, \\*shape) to the features that the support is one of.
    """
    few = evenly_spaced(test, EXAMPLES)
    near = _grain(model, few)
    if model.latent_dim < 2 or len(few) < 7 or not near:
        return None
    draws = prior_draws(model, EXAMPLES, seed)
    latents = encoded(model, few).astype(np.float64) if can(model, "encode") else draws
    axes = np.linalg.svd(latents - latents.mean(0), full_matrices=False)[2][:2]
    units = axes * (draws @ axes.T).std(0)[:, None]  # one standard deviation along each
    across, up = np.meshgrid(np.linspace(-SPAN, SPAN, CELLS), np.linspace(SPAN, -SPAN, CELLS))
    z = draws.mean(0) + np.c_[across.ravel(), up.ravel()] @ units
    condition = conditions_like(model, few, 1, seed)
    tiles = decoded(model, z, condition=condition)
    at = _means(model, z, condition)
    moved = [np.linalg.norm(_means(model, z + STEP * unit, condition) - at, axis=1)
             for unit in units]
    slope = np.sqrt(np.square(moved).mean(0)) / STEP / near
    away = reach(extract(examples_of(few)), extract(tiles))
    return Plane(tiles, away.reshape(CELLS, CELLS), slope.reshape(CELLS, CELLS))


def _continuity(model: Model, few: Dataset, seed: int) -> Iterator[Metric]:
    near = _grain(model, few)
    if not near:
        return
    draws = prior_draws(model, EXAMPLES, seed)
    paths = arcs(draws[:PATHS], draws[PATHS:2 * PATHS], draws.mean(0), POINTS)
    condition = conditions_like(model, few, PATHS, seed)
    decoded_paths = [_means(model, path, None if condition is None else condition[i:i + 1])
                     for i, path in enumerate(paths)]
    spectrum = continuity(np.stack([lengths(x) for x in decoded_paths]),
                          lengths(paths) / np.sqrt(draws.var(0).mean()), near)
    fade = max(float(np.linalg.norm(x[-1] - x[0])) for x in decoded_paths) / (POINTS - 1)
    yield Metric("slope_median", spectrum.median)
    yield Metric("slope_high", spectrum.high)
    if spectrum.median:
        yield Metric("lipschitz_ratio", spectrum.unevenness)
    yield Metric("largest_jump", spectrum.largest_jump, control=fade / near,
                 control_name="cross-fade")


def _surgery(model: Any, means: Array, log_var: Array, seed: int,
             notes: list[str]) -> Iterator[Metric]:
    """The KL part of the ELBO and what it is made of."""
    def log_prior(z: Array) -> Array:
        with inference(model):
            return np.asarray(model.prior.log_prob(latents_tensor(model, z)).double().cpu())

    has_prior = model.prior is not None
    parts = elbo_surgery(means, log_var, log_prior=log_prior if has_prior else None,
                         seed=derive(seed, "surgery"))
    values = {key: summary(v.sum(1) if v.ndim == 2 else v) for key, v in parts.items()}
    # whether the prior is N(0, I) is told by its density: a verb knows no families
    normal = -0.5 * (np.square(means, dtype=np.float64) + np.log(2 * np.pi)).sum(1)
    if has_prior and not np.allclose(log_prior(means), normal, rtol=1e-4):
        values.pop("dimension_kl")  # part of KL(q(z) ‖ p(z)) under N(0, I) alone
    for key in ("information", "information_upper", "marginal_kl", "total_correlation",
                "dimension_kl"):
        if key in values:
            yield Metric(key, values[key].mean, values[key].standard_error)
    room = np.log(len(means))
    if values["information"].mean > room - 1:
        notes.append(f"The latents hold more of an example than {len(means):,} examples can show "
                     f"(log n = {room:.1f} nats): I(x; z) is a lower bound, KL(q(z) ‖ p(z)) and "
                     "total correlation are upper bounds.")


def _means(model: Any, latents: Array, condition: Tensor | None) -> Array:
    """Means of p(x|z), (n, dims) float32 in model units: data units are rounded in images."""
    z = latents_tensor(model, latents)
    with inference(model):
        x: Tensor = model.decode(z, **as_condition(model, condition, len(z))).mean
        return np.asarray(x.float().flatten(1).cpu())


def _grain(model: Model, few: Dataset) -> float:
    """Median distance of a held-out example to the nearest other, model units."""
    most = max(2, BYTES // (4 * model.space.dims))
    x = model.space.to_model(examples_of(evenly_spaced(few, most)).astype(np.float32))
    return neighbour_distance(np.asarray(x, np.float32).reshape(len(x), -1))
