"""New items: draws, decoded codes, paths between codes, walks along each dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from latlas.core.errors import CapabilityError, ConfigError, unknown
from latlas.core.model import HasLayers, HasStyles, Model, prior_of
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.tasks.common import (
    Array,
    as_condition,
    can,
    check,
    codes_tensor,
    inference,
    noise,
    rows,
    to_data,
)

Path = Literal["line", "circle"]
PRIORS = ("auto", "own", "fitted")


def sample(model: Model, n: int, *, seed: int = 0, condition: Any = None,
           batch_size: int = 512, mean: bool | None = None, prior: str = "auto",
           truncation: float = 1.0) -> Array:
    """``n`` new items, (n, \\*shape) in data units; the same for the same seed and batch size.

    Args:
        condition: what a conditional model needs: one class code, (n,) codes or (n, C + 1, H, W).
        mean: the mean of p(x|z) rather than a draw from it. By default pictures are means,
            without pixel noise; tables and points are drawn: they are nothing without theirs.
        prior: that codes are drawn from: the model's ``own``, the one ``fitted`` to its codes
            after training, or ``auto``: the fitted one where there is one.
        truncation: how far styles are taken from their mean, ψ; of a model that has styles.

    Raises:
        CapabilityError: if the model draws no samples, or has no fitted prior, or no styles.
        ConfigError: a negative ``n``, or no such prior.
    """
    check(model, "sample")
    chosen = which_prior(model, prior)
    check_truncation(model, truncation)
    if n < 0:
        raise ConfigError(f"n={n}: at least 0")
    mean = shows_means(model.space) if mean is None else mean
    given = as_condition(model, condition, n)
    with inference(model):
        parts = [_draw(model, min(batch_size, n - i), noise(model, seed, "sample", i),
                       rows(given, slice(i, i + batch_size)), mean, chosen, truncation)
                 for i in range(0, n, batch_size)]
    return np.concatenate(parts) if parts else _nothing(model)


def sample_seeds(model: Model, seeds: Sequence[int], *, condition: Any = None,
                 **settings: Any) -> Array:
    """One item of each seed, (len(seeds), \\*shape), whatever the other seeds are.

    ``settings`` as for :func:`sample`; of a ``condition`` every item has its own, or all share one.
    """
    given = as_condition(model, condition, len(seeds)).get("condition")
    parts = [sample(model, 1, seed=seed, condition=None if given is None else given[i:i + 1],
                    **settings) for i, seed in enumerate(seeds)]
    return np.concatenate(parts) if parts else _nothing(model)


def priors_of(model: Model) -> tuple[str, ...]:
    """``own``, and ``fitted`` where there is one."""
    return ("own", "fitted") if hasattr(model, "fitted_prior") else ("own",)


def which_prior(model: Model, asked: str = "auto") -> str:
    """``own`` or ``fitted``.

    Raises:
        CapabilityError: the fitted one of a model without.
        ConfigError: an unknown name.
    """
    if asked not in PRIORS:
        raise ConfigError(unknown("prior", asked, PRIORS))
    found = priors_of(model)
    if asked == "fitted" and asked not in found:
        raise CapabilityError(f"{type(model).__name__.lower()} has no fitted prior; "
                              "`latlas fit-prior RUN` makes one")
    return found[-1] if asked == "auto" else asked


def shows_means(space: Space) -> bool:
    """Pictures are judged and shown without pixel noise; tables and points as they are drawn."""
    return space.kind == "picture"


def decode(model: Model, codes: Any, *, condition: Any = None, batch_size: int = 512,
           mean: bool = True, seed: int = 0) -> Array:
    """The item at each code, (n, \\*shape) in data units. ``codes`` is (n, latent_dim)."""
    check(model, "decode")
    z = codes_tensor(model, codes)
    given = as_condition(model, condition, len(z))
    with inference(model):
        parts = [_decode(model, z[i:i + batch_size], rows(given, slice(i, i + batch_size)),
                         None if mean else noise(model, seed, "decode", i))
                 for i in range(0, len(z), batch_size)]
    return np.concatenate(parts) if parts else _nothing(model)


def interpolate(model: Model, start: Any, end: Any, steps: int = 8, path: Path = "line", *,
                space: str = "z", condition: Any = None) -> Array:
    """Items on the way from one code to another, ends included: (steps, \\*shape).

    Args:
        start, end: codes (latent_dim,).
        path: ``line``, or ``circle``, the great circle that keeps to the shell where a
            high-dimensional normal prior has its mass (White 2016, arXiv:1609.04468).
        space: ``z``, or ``w``: from the style of one code to that of the other.
    """
    if space not in ("z", "w"):
        raise ConfigError(unknown("space", space, ["z", "w"]))
    if space == "w":
        first, last = to_styles(model, np.stack([np.ravel(start), np.ravel(end)]))
        return decode_styles(model, walk(first, last, steps, path))
    return decode(model, walk(start, end, steps, path), condition=condition)


def styles_of(model: Model, task: str) -> HasStyles:
    """The model, if it has styles.

    Raises:
        CapabilityError: if it has none; ``task`` is what was asked for.
    """
    if not isinstance(model, HasStyles):
        raise CapabilityError(f"{type(model).__name__.lower()} has no styles; `{task}` needs a "
                              "model whose layers have some, such as style-gan")
    return model


def check_truncation(model: Model, truncation: float) -> None:
    """Raise CapabilityError for another one than 1 of a model without styles, ConfigError for
    what is no finite number."""
    if not np.isfinite(truncation):
        raise ConfigError(f"truncation={truncation}: a finite number, 1 for none")
    if truncation != 1:
        styles_of(model, "truncation")


def to_styles(model: Model, codes: Any, truncation: float = 1.0) -> Array:
    """The style of every code, (n, latent_dim) to (n, d_w) float32."""
    held = styles_of(model, "w")
    with inference(model):
        return np.asarray(held.to_w(codes_tensor(model, codes), truncation).float().cpu())


def decode_styles(model: Model, w: Any, batch_size: int = 64) -> Array:
    """Styles (n, d_w) or (n, layers, d_w) to items (n, \\*shape) in data units."""
    held = styles_of(model, "w")
    given = torch.as_tensor(np.asarray(w, np.float32), device=model.device)
    with inference(model):
        parts = [to_data(model.space, held.decode_w(part).mean)
                 for part in given.split(batch_size) if len(part)]
    return np.concatenate(parts) if parts else _nothing(model)


def traverse(model: Model, *, code: Any = None, dims: Any = None, span: float = 3.0,
             steps: int = 7, codes: Any = None, condition: Any = None) -> Array:
    """One dimension of the code varied at a time: (len(dims), steps, \\*shape), rows are dims.

    Args:
        code: (latent_dim,) where the walk starts; the mean of ``codes``, or zeros, see
            :func:`likely`.
        dims: which dimensions; all by default, most active first when ``codes`` are given.
        span: −span … span, in standard deviations of that dimension over ``codes`` if given, in
            units of the code otherwise.
        codes: (n, latent_dim) codes of data.
    """
    if steps < 1 or not np.isfinite(span):
        raise ConfigError(f"steps={steps}, span={span}: at least one step, and a finite span")
    centre, unit, order = _frame(model, code, codes, condition)
    chosen = order if dims is None else np.asarray(dims, np.int64)
    _check_dims(chosen, model.latent_dim)
    grid = np.tile(centre, (len(chosen), steps, 1))
    offsets = np.linspace(-span, span, steps)
    for row, dim in enumerate(chosen):
        grid[row, :, dim] += offsets * unit[dim]
    rows = [_settled(model, row, dim) for row, dim in zip(grid, chosen, strict=True)]
    items = decode(model, np.concatenate(rows) if rows else grid.reshape(-1, model.latent_dim),
                   condition=condition)
    return items.reshape(len(chosen), steps, *model.space.shape)


def _settled(model: Model, codes: Array, dim: int) -> Array:
    """Codes (n, latent_dim) of which ``dim`` was moved: in a model of several layers those below
    it follow, or an upper one would move nothing."""
    if not isinstance(model, HasLayers):
        return codes
    ends = np.cumsum([np.prod(shape) for shape in model.latent_shapes])
    with inference(model):
        layer = int(np.searchsorted(ends, dim, side="right"))
        return np.asarray(model.fill_lower_layers(codes_tensor(model, codes), layer).cpu())


def activity(codes: Array) -> Array:
    """The variance of every dimension's mean code over the data (Burda et al. 2016, §4.3)."""
    return np.asarray(np.var(codes, axis=0, dtype=np.float64))


def most_active(codes: Array) -> Array:
    """Dimensions in order of :func:`activity`, most active first."""
    return np.argsort(-activity(codes), kind="stable")


def walk(start: Any, end: Any, steps: int, path: str = "line") -> Array:
    """Codes (steps, d) from ``start`` to ``end``, both included.

    Raises:
        ConfigError: for another path, fewer than two steps, or codes of different widths.
    """
    a, b = np.asarray(start, np.float64).ravel(), np.asarray(end, np.float64).ravel()
    if path not in ("line", "circle"):
        raise ConfigError(unknown("path", path, ["line", "circle"]))
    if steps < 2 or a.shape != b.shape:
        raise ConfigError(f"a path needs two steps or more and two codes of one width; got {steps} "
                          f"steps, widths {len(a)} and {len(b)}")
    share = np.linspace(0, 1, steps)[:, None]
    return (1 - share) * a + share * b if path == "line" else _circle(a, b, share)


def _circle(a: Array, b: Array, share: Array) -> Array:
    """Slerp of the directions, straight interpolation of the norms."""
    norm_a, norm_b = np.linalg.norm(a), np.linalg.norm(b)
    if norm_a == 0 or norm_b == 0:  # no direction to turn from
        return np.asarray((1 - share) * a + share * b)
    first = a / norm_a
    toward, angle = _turn(first, b / norm_b)
    norms = (1 - share) * norm_a + share * norm_b
    return np.asarray(norms * (np.cos(share * angle) * first + np.sin(share * angle) * toward))


def _turn(first: Array, last: Array) -> tuple[Array, float]:
    """The unit vector at right angles to ``first`` in the plane of both, and the angle."""
    cosine = float(np.clip(first @ last, -1, 1))
    across = last - cosine * first
    if np.linalg.norm(across) < 1e-9:  # parallel or opposite: any plane will do, take a fixed one
        across = np.eye(len(first))[np.argmin(np.abs(first))]
        across = across - (across @ first) * first
    length = np.linalg.norm(across)
    return (across / length if length else across), float(np.arccos(cosine))


def _frame(model: Model, code: Any, codes: Any,
           condition: Any) -> tuple[Array, Array, Array]:
    """Centre, unit of each dimension, and order of dimensions of a traversal."""
    d = model.latent_dim
    if codes is None:
        centre, unit, order = np.zeros(d), np.ones(d), np.arange(d)
    else:
        known = np.asarray(codes, np.float64)
        centre, unit, order = known.mean(0), known.std(0), most_active(known)
    if code is not None:
        return np.asarray(code, np.float64).ravel(), unit, order
    return likely(model, centre, condition), unit, order


def likely(model: Model, code: Array, condition: Any = None) -> Array:
    """The code (latent_dim,), or a draw where the prior has no such code, as between the clusters
    of a ``gan``; of a condition, or the first of several."""
    prior = prior_of(model)
    with inference(model):
        if prior is None or prior.log_prob(codes_tensor(model, code[None])).item() > -np.inf:
            return code
        first = None if condition is None else np.ravel(condition)[:1]
        drawn = drawn_codes(model, 1, noise(model, 0, "centre"), as_condition(model, first, 1))
    return code if drawn is None else np.asarray(drawn[0].double().cpu())


def _check_dims(dims: Array, latent_dim: int) -> None:
    wrong = [int(d) for d in dims if not 0 <= d < latent_dim]
    if wrong:
        raise ConfigError(f"no dimension {wrong[0]}: the code has dimensions 0 … {latent_dim - 1}")


def _draw(model: Any, n: int, draws: Noise, condition: dict[str, Tensor], mean: bool,
          prior: str, truncation: float) -> Array:
    """Latent-variable models' codes are decoded here, so that all families draw alike; a model
    without a likelihood has no noise of its own to draw, and its samples are means."""
    z = model.fitted_prior.sample(n, draws) if prior == "fitted" else drawn_codes(
        model, n, draws, condition)
    if z is None:
        return to_data(model.space, model.sample(n, noise=draws, **condition))
    if truncation != 1:
        return to_data(model.space, model.decode_w(model.to_w(z, truncation)).mean)
    pixels = model.decode(z, **condition)
    return to_data(model.space, pixels.mean if mean else pixels.sample(draws))


def drawn_codes(model: Any, n: int, draws: Noise,
                condition: dict[str, Tensor] | None = None) -> Tensor | None:
    """Codes (n, latent_dim): the model's own ``sample_latents(n, noise=…)``, or draws from its
    ``prior``, or from the standard normal that a likelihood without one is about; else ``None``.

    ``condition``, a keyword argument or none, is for codes that differ by class."""
    if not can(model, "decode"):
        return None
    if hasattr(model, "sample_latents"):
        own: Tensor = model.sample_latents(n, noise=draws, **(condition or {}))
        return own
    if (prior := prior_of(model)) is not None:
        return prior.sample(n, draws)
    return draws.normal(n, model.latent_dim) if can(model, "score") else None


def _decode(model: Any, z: Tensor, condition: dict[str, Tensor], draws: Noise | None) -> Array:
    pixels = model.decode(z, **condition)
    return to_data(model.space, pixels.mean if draws is None else pixels.sample(draws))


def _nothing(model: Model) -> Array:
    kind = np.float32 if model.space.levels is None else np.uint8
    return np.zeros((0, *model.space.shape), kind)
