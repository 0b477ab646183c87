"""How a model's latent space is: continuity and information as figures, a plane of it as a map."""

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
from latlas.tasks.common import (
    Array,
    as_condition,
    can,
    codes_tensor,
    conditions_like,
    inference,
    items_of,
    noise,
    some_of,
)
from latlas.tasks.figures import Figure
from latlas.tasks.generate import decode
from latlas.tasks.read import encode, posteriors

#: held-out items that supports, mixtures and neighbours are taken over, at most, and the bytes
#: of them that neighbours are looked for in
ITEMS, BYTES = 2000, 100_000_000
#: paths between draws of the prior, and points on each
PATHS, POINTS = 48, 65
#: cells along a side of the map, half its side and the step of its slopes, both in standard
#: deviations of the prior
CELLS, SPAN, STEP = 15, 3.0, 0.05


@dataclass(frozen=True)
class Plane:
    """Where the decoder leads on a plane through the middle of the prior.

    Attributes:
        tiles: (CELLS², \\*shape) decoded items in data units, from the top left.
        reach: (CELLS, CELLS) distance of each to the support of held-out items: 1 is its edge.
        slope: (CELLS, CELLS) neighbour distances per standard deviation of the prior.
    """

    tiles: Array
    reach: Array
    slope: Array


def has_latent_space(model: Model) -> bool:
    """Whether draws of a prior can be decoded."""
    return model.prior is not None and can(model, "decode")


def prior_codes(model: Model, n: int, seed: int = 0) -> Array:
    """(n, latent_dim) float64 draws of the model's prior."""
    held: Any = model
    with inference(model):
        return np.asarray(held.prior.sample(n, noise(model, seed, "prior")).double().cpu())


def latent_figures(model: Model, test: Dataset, seed: int, notes: list[str]) -> Iterator[Figure]:
    """Continuity of models with a prior and a decoder; what the codes of an encoder hold."""
    few = some_of(test, ITEMS)
    if has_latent_space(model) and len(few) > 1:
        yield from _continuity(model, few, seed)
    if can(model, "encode") and len(few) > model.latent_dim + 1:
        yield from _information(model, few, seed, notes)


def plane(model: Model, test: Dataset, extract: Callable[[Array], Array],
          seed: int = 0) -> Plane | None:
    """The plane of the codes' first two principal axes; ``None`` for codes of one dimension, or
    items of which more than half are copies.

    Args:
        extract: items (n, \\*shape) to the features that the support is one of.
    """
    few = some_of(test, ITEMS)
    near = _grain(model, few)
    if model.latent_dim < 2 or len(few) < 7 or not near:
        return None
    codes, steps = _grid(model, few, seed)
    given = conditions_like(model, few, 1, seed)
    tiles = decode(model, codes, condition=given)
    at = _decoded(model, codes, given)
    moved = [np.linalg.norm(_decoded(model, codes + STEP * step, given) - at, axis=1)
             for step in steps]
    slope = np.sqrt(np.square(moved).mean(0)) / STEP / near
    away = reach(extract(items_of(few)), extract(tiles))
    return Plane(tiles, away.reshape(CELLS, CELLS), slope.reshape(CELLS, CELLS))


def _grid(model: Model, few: Dataset, seed: int) -> tuple[Array, Array]:
    """Codes (CELLS², d) from the top left, and one standard deviation along both axes (2, d)."""
    draws = prior_codes(model, ITEMS, seed)
    shown = encode(model, few).astype(np.float64) if can(model, "encode") else draws
    axes = np.linalg.svd(shown - shown.mean(0), full_matrices=False)[2][:2]
    steps = axes * (draws @ axes.T).std(0)[:, None]
    across, up = np.meshgrid(np.linspace(-SPAN, SPAN, CELLS), np.linspace(SPAN, -SPAN, CELLS))
    return draws.mean(0) + np.c_[across.ravel(), up.ravel()] @ steps, steps


def _continuity(model: Model, few: Dataset, seed: int) -> Iterator[Figure]:
    near = _grain(model, few)
    if not near:
        return
    draws = prior_codes(model, ITEMS, seed)
    paths = arcs(draws[:PATHS], draws[PATHS:2 * PATHS], draws.mean(0), POINTS)
    given = conditions_like(model, few, PATHS, seed)
    ways = [_decoded(model, path, None if given is None else given[i:i + 1])
            for i, path in enumerate(paths)]
    found = continuity(np.stack([lengths(way) for way in ways]),
                       lengths(paths) / np.sqrt(draws.var(0).mean()), near)
    fade = max(float(np.linalg.norm(way[-1] - way[0])) for way in ways) / (POINTS - 1)
    yield Figure("slope_median", found.median)
    yield Figure("slope_high", found.high)
    if found.median:
        yield Figure("unevenness", found.unevenness)
    yield Figure("largest_jump", found.largest_jump, control=fade / near,
                 control_name="cross-fade")


def _information(model: Model, few: Dataset, seed: int, notes: list[str]) -> Iterator[Figure]:
    means, log_var = posteriors(model, few)
    if log_var is not None:
        yield from _surgery(model, means, log_var, seed, notes)
    yield Figure("linear_tc", linear_total_correlation(means, log_var))


def _surgery(model: Model, means: Array, log_var: Array, seed: int,
             notes: list[str]) -> Iterator[Figure]:
    parts = elbo_surgery(means, log_var, log_prior=_log_prior(model), seed=derive(seed, "surgery"))
    found = {key: summary(v.sum(1) if v.ndim == 2 else v) for key, v in parts.items()}
    if not _standard(model, means):  # parts of KL(q(z) ‖ p(z)) under N(0, I) alone
        found.pop("dimension_kl")
    for key in ("information", "information_upper", "marginal_kl", "total_correlation",
                "dimension_kl"):
        if key in found:
            yield Figure(key, found[key].mean, found[key].standard_error)
    room = np.log(len(means))
    if found["information"].mean > room - 1:
        notes.append(f"The codes hold more of an item than {len(means):,} items can show "
                     f"(log n = {room:.1f} nats): I(x; z) is a lower bound, KL(q(z) ‖ p(z)) and "
                     "total correlation are upper bounds.")


def _log_prior(model: Model) -> Callable[[Array], Array] | None:
    held: Any = model

    def log_prior(z: Array) -> Array:
        with inference(model):
            return np.asarray(held.prior.log_prob(codes_tensor(model, z)).double().cpu())

    return None if model.prior is None else log_prior


def _standard(model: Model, codes: Array) -> bool:
    """Whether the prior is N(0, I), told by its density: a task knows no families."""
    log_prior = _log_prior(model)
    normal = -0.5 * (np.square(codes, dtype=np.float64) + np.log(2 * np.pi)).sum(1)
    return log_prior is None or np.allclose(log_prior(codes), normal, rtol=1e-4)


def _decoded(model: Model, codes: Array, condition: Tensor | None) -> Array:
    """Means of p(x|z), (n, dims) float32 in model units: data units are rounded in pictures."""
    held: Any = model
    z = codes_tensor(model, codes)
    given = as_condition(model, condition, len(z))
    with inference(model):
        made: Tensor = held.decode(z, **given).mean
        return np.asarray(made.float().flatten(1).cpu())


def _grain(model: Model, few: Dataset) -> float:
    """Median distance of a held-out item to the nearest other, model units."""
    most = max(2, BYTES // (4 * model.space.dims))
    x = model.space.to_model(items_of(some_of(few, most)).astype(np.float32))
    return neighbour_distance(np.asarray(x, np.float32).reshape(len(x), -1))
