"""What styles are for: mixing those of two pictures, and directions along which pictures change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, unknown
from latlas.core.model import HasStyles, Model
from latlas.core.ranges import numbers
from latlas.data.dataset import Dataset
from latlas.tasks.common import Array, as_condition, can, check, inference, noise
from latlas.tasks.generate import (
    check_truncation,
    decode,
    decode_styles,
    drawn_codes,
    likely,
    styles_of,
    to_styles,
)
from latlas.tasks.read import encode

#: thirds of the layers, the coarsest first
LEVELS = ("coarse", "middle", "fine")
#: directions, where nobody says how many
FOUND = 8
#: codes that directions are found from, and of them those that are decoded for it
DRAWS, DECODED = 10_000, 1_000


def mix(model: Model, rows: Sequence[int], columns: Sequence[int], *, layers: str = "coarse",
        truncation: float = 1.0) -> Array:
    """The picture of each row with some styles of each column: (rows + 1, columns + 1, \\*shape).

    The first column and row show the pictures themselves; the corner is blank. (Karras et al.
    2019, figure 3.)

    Args:
        rows, columns: seeds of the codes.
        layers: which styles come from the column: ``coarse``, ``middle``, ``fine``, or numbers of
            layers, ``0-3,6``.

    Raises:
        CapabilityError: a model without styles; ConfigError: no such layers, or no seeds.
    """
    held = styles_of(model, "mix")
    taken = chosen_layers(layers, len(held.layer_sizes))
    check_truncation(model, truncation)
    if not len(rows) or not len(columns):
        raise ConfigError("mix needs a seed for a row and one for a column at least")
    own, given = (to_styles(model, codes_of_seeds(model, seeds), truncation)
                  for seeds in (rows, columns))
    mixed = np.repeat(own[:, None, None], len(held.layer_sizes), 2)
    mixed = np.repeat(mixed, len(columns), 1)
    mixed[:, :, taken] = given[None, :, None]
    made = decode_styles(model, mixed.reshape(-1, *mixed.shape[2:]))
    whole = np.empty((len(rows) + 1, len(columns) + 1, *made.shape[1:]), made.dtype)
    whole[0, 0] = (model.space.levels or 2) - 1
    whole[1:, 0], whole[0, 1:] = decode_styles(model, own), decode_styles(model, given)
    whole[1:, 1:] = made.reshape(len(rows), len(columns), *made.shape[1:])
    return whole


def chosen_layers(text: str, count: int) -> list[int]:
    """``coarse``, ``middle``, ``fine``, ``all``, or ``0-3,6`` as numbers of layers.

    >>> chosen_layers("fine", 8), chosen_layers("0-2,7", 8)
    ([6, 7], [0, 1, 2, 7])
    """
    if text == "all":
        return list(range(count))
    if text in LEVELS:
        return [int(i) for i in np.array_split(np.arange(count), 3)[LEVELS.index(text)]]
    found = numbers(text)
    if found is None:
        raise ConfigError(unknown("layers", text, [*LEVELS, "all", "0-3,6"]))
    wrong = [i for i in found if i >= count]
    if wrong:
        raise ConfigError(f"no layer {wrong[0]}: the model has layers 0 … {count - 1}")
    return found


def codes_of_seeds(model: Model, seeds: Sequence[int], condition: Any = None) -> Array:
    """The code that ``sample`` draws with each seed, (len(seeds), latent_dim)."""
    given = as_condition(model, condition, 1)
    with inference(model):
        drawn = [drawn_codes(model, 1, noise(model, seed, "sample", 0), given) for seed in seeds]
    return np.concatenate([z.float().cpu().numpy() for z in drawn if z is not None])


@dataclass(frozen=True)
class Directions:
    """Directions of a space of codes in which pictures change most.

    Attributes:
        space: ``w`` of a model with styles, else ``z``.
        centre: (d,) mean of the codes.
        axes: (k, d) unit vectors, the most important first.
        sd: (k,) standard deviation of the codes along each.
        share: (k,) of the variance (of the codes, or of the decoded items).
    """

    space: str
    centre: Array
    axes: Array
    sd: Array
    share: Array


def directions(model: Model, k: int | None = None, *, data: Dataset | None = None,
               seed: int = 0, condition: Any = None) -> Directions:
    """The ``k`` most important directions (Härkönen et al. 2020); 8, or all of fewer, by default.

    Principal components of the styles of 10,000 draws; without styles, of the codes of ``data``,
    where the model encodes and data are given; else the principal components of 1,000 decoded
    draws, and for each the direction of z along which it changes, by least squares.

    Args:
        condition: what a conditional model needs, one for all.

    Raises:
        ConfigError: no direction, or more than there are.
    """
    if k is not None and k < 1:
        raise ConfigError(f"k={k}: at least one direction")
    if isinstance(model, HasStyles):
        return _principal("w", to_styles(model, codes_of_prior(model, DRAWS, seed)), k)
    if data is not None and can(model, "encode"):
        return _principal("z", encode(model, data), k)
    return _regressed(model, k, seed, condition)


def edits(model: Model, found: Directions, *, seed: int | None = None, steps: int = 7,
          span: float = 3.0, layers: str = "all", condition: Any = None) -> Array:
    """One direction at a time: (k, steps, \\*shape), a row for each, from −span to span.

    Args:
        seed: of the code that is edited; without one the mean of the codes, see :func:`likely`.
        span: to each side, in standard deviations along the direction.
        layers: the styles that change, see :func:`chosen_layers`; the others keep theirs.
        condition: as for :func:`directions`.
    """
    if steps < 1 or not np.isfinite(span):
        raise ConfigError(f"steps={steps}, span={span}: at least one step, and a finite span")
    start = _start(model, found, seed, condition)
    offsets = np.linspace(-span, span, steps)[None, :, None]
    moves = offsets * (found.axes * found.sd[:, None])[:, None]
    if found.space == "z":
        if layers != "all":
            styles_of(model, "layers")
        items = decode(model, (start + moves).reshape(-1, len(start)), condition=condition)
    else:
        items = _styled(model, start, moves, layers)
    return items.reshape(*moves.shape[:2], *items.shape[1:])


def codes_of_prior(model: Model, n: int, seed: int = 0, condition: Any = None) -> Array:
    """(n, latent_dim) draws of what samples are decoded from, of a condition each or one for all.

    Raises:
        CapabilityError: a model whose samples come from no code.
    """
    with inference(model):
        drawn = drawn_codes(model, n, noise(model, seed, "directions"),
                            as_condition(model, condition, n))
    if drawn is None:
        check(model, "decode")
        raise ConfigError(f"{type(model).__name__.lower()} has no prior of codes; name data to "
                          "encode")
    return np.asarray(drawn.float().cpu())


def _start(model: Model, found: Directions, seed: int | None, condition: Any) -> Array:
    if seed is None:
        return found.centre if found.space == "w" else likely(model, found.centre, condition)
    z = codes_of_seeds(model, [seed], condition)
    return np.asarray((to_styles(model, z) if found.space == "w" else z)[0], np.float64)


def _styled(model: Model, start: Array, moves: Array, layers: str) -> Array:
    count = len(styles_of(model, "directions").layer_sizes)
    w = np.broadcast_to(start, (*moves.shape[:2], count, len(start))).copy()
    w[:, :, chosen_layers(layers, count)] += moves[:, :, None]
    return decode_styles(model, w.reshape(-1, *w.shape[2:]))


def _at_most(k: int | None, most: int, of: str) -> int:
    """How many directions are looked for among so many."""
    if k is not None and k > most:
        raise ConfigError(f"k={k}: {of} have {most} directions; choose at most {most}")
    return min(FOUND, most) if k is None else k


def _principal(space: str, codes: Array, k: int | None) -> Directions:
    k = _at_most(k, min(codes.shape), f"{len(codes):,} codes of {codes.shape[1]} numbers")
    wide = codes.astype(np.float64)
    centre = wide.mean(0)
    _, singular, axes = np.linalg.svd(wide - centre, full_matrices=False)
    variance = singular**2 / max(1, len(codes) - 1)
    return Directions(space, centre, axes[:k], np.sqrt(variance[:k]),
                      variance[:k] / max(variance.sum(), 1e-300))


def _regressed(model: Model, k: int | None, seed: int, condition: Any) -> Directions:
    """Principal components of decoded items, and the least-squares directions of z to them."""
    k = _at_most(k, min(model.latent_dim, model.space.dims),
                 f"codes of {model.latent_dim} numbers and items of {model.space.dims}")
    z = codes_of_prior(model, DECODED, seed, condition).astype(np.float64)
    x = decode(model, z, condition=condition).reshape(len(z), -1).astype(np.float64)
    left, singular, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    axes = left[:, :k].T @ (z - z.mean(0))
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-300)
    spread = np.sqrt(np.einsum("kd,de,ke->k", axes, np.cov(z, rowvar=False).reshape(
        len(z.T), -1), axes))
    return Directions("z", z.mean(0), axes, spread,
                      singular[:k]**2 / max((singular**2).sum(), 1e-300))
