"""``mix``, ``directions``, ``edit``: styles of one image on another, and directions along which
examples change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from latlas.core.errors import ConfigError, say_option, unknown
from latlas.core.options import numbers
from latlas.run import as_run
from latlas.verbs import common, write
from latlas.verbs.common import Array, DataLike, Examples, Flag, Out, Output, RunLike, Seed, Split
from latlas.verbs.generate import can_encode_data, conditions, fits
from latlas.verbs.results import Results, results_of

#: thirds of the layers, the coarsest first
LEVELS = ("coarse", "middle", "fine")
#: directions, where nobody says how many
DIRECTIONS = 8
#: latents that directions are found from, and of them those that are decoded for it
DRAWS, DECODED = 10_000, 1_000


@common.verb
def mix(run: RunLike, rows: Annotated[Any, Flag(str, "Seeds of the images (1,2,5-9).")] = "0-3",
        columns: Annotated[Any, Flag(str, "Seeds of the images that give styles.")] = "10-15", *,
        layers: common.Layers = "coarse", truncation: common.Truncation = 1.0,
        out: Annotated[Out, Output("mix")] = None) -> Examples:
    """Give some styles of the images of the columns to those of the rows.

    The first row and column show the images themselves; the corner is blank (Karras et al. 2019,
    figure 3). From Python the result is (rows + 1, columns + 1, \\*shape).
    """
    from latlas.verbs.passes import decode_styles, styles_of, to_styles

    seeds = common.whole_numbers("rows", rows), common.whole_numbers("columns", columns)
    run = as_run(run)
    run.require("mix")
    if not all(seeds):
        raise ConfigError("mix needs a seed for a row and one for a column at least")
    write.check_examples(out, run.space)
    results = results_of(out, "mix", run, rows=seeds[0], columns=seeds[1], layers=layers,
                         truncation=truncation)
    model = run.model
    count = len(styles_of(model, "mix").layer_sizes)
    own, other = (to_styles(model, latents_of_seeds(model, part), truncation) for part in seeds)
    mixed = np.tile(own[:, None, None], (1, len(other), count, 1))
    mixed[:, :, layer_numbers(layers, count)] = other[None, :, None]
    inside = decode_styles(model, mixed.reshape(-1, *mixed.shape[2:]))
    whole = np.empty((len(own) + 1, len(other) + 1, *inside.shape[1:]), inside.dtype)
    whole[0, 0] = (run.space.levels or 2) - 1
    whole[1:, 0], whole[0, 1:] = decode_styles(model, own), decode_styles(model, other)
    whole[1:, 1:] = inside.reshape(len(own), len(other), *inside.shape[1:])
    return Examples(whole, run.space, columns=whole.shape[1],
                    details={"rows": seeds[0], "layers": layers}).saved(out, results)


@dataclass(eq=False, repr=False)
class Directions(common.Result):
    """Directions of a latent space in which examples change most.

    Attributes:
        space: ``w`` of a model with styles, else ``z``; ``centre`` (d,) the mean of the latents.
        axes: (k, d) unit vectors, the most important first; ``sd`` (k,) of the latents along each.
        share: (k,) of the variance (of the latents, or of the decoded examples).
        edits: (k, steps, \\*shape) one direction at a time; ``None`` before they are decoded.
    """

    suffixes: ClassVar[tuple[str, ...]] = write.EXAMPLES
    row_per_example = False
    space: str
    centre: Array
    axes: Array
    sd: Array
    share: Array
    edits: Examples | None = None

    def facts(self) -> dict[str, Any]:
        return {**(self.edits.facts() if self.edits else {}), "space": self.space,
                "share": self.share}

    def as_columns(self) -> dict[str, Any]:
        return {"sd": self.sd, "share": self.share,
                **{f"{self.space}{i}": column for i, column in enumerate(self.axes.T)}}

    def save(self, path: str | Path) -> str:
        return super().save(path) if self.edits is None else self.edits.save(path)

    def save_in(self, results: Results) -> str:
        assert self.edits is not None
        return self.edits.save_in(results)


@common.verb
def directions(run: RunLike, k: Annotated[int | None, common.POSITIVE] = None, *,
               data: DataLike = None, split: Split = None,
               steps: Annotated[int, Flag(int, "Examples along each, ends included."),
                                 common.Bounds(1, 1_000_000)] = 7,
               span: Annotated[float, Flag(float, "To each side, in standard deviations."),
                                common.AMOUNT] = 3.0,
               layers: common.Layers = "all",
               item: Annotated[int | None, Flag(int, "Seed of the example that is changed. "
                                                     "Default: the mean.", name="--example"),
                                common.SEED]
               = None, label: common.Classes = None, seed: Seed = 0,
               out: Annotated[Out, Output("directions")] = None, **read: Any) -> Directions:
    """Directions in which examples change most, a row for each (Härkönen et al. 2020).

    Principal components of the styles of 10,000 draws; without styles, of the latents of the data,
    where the model encodes; else the principal components of 1,000 decoded draws, and for each the
    direction of z along which it changes, by least squares.

    Args:
        k: How many. Default: 8, or as many as there are.
    """
    from latlas.verbs import passes

    run = as_run(run)
    run.require("decode", "directions")
    if layers != "all":
        run.require("mix", f"directions {say_option('layers')}")
    write.check_examples(out, run.space)
    fits("steps", steps, steps * (k or 1), run.space, out)
    results = results_of(
        out, "directions", run, None, data, k=k, split=split, steps=steps, span=span,
        layers=layers, item=item, label=label, seed=seed, read=read)
    condition = _one_condition(run, label)
    model: Any = run.model
    if run.can("mix"):
        z = passes.latents_of_prior(model, DRAWS, seed)
        result = _principal("w", passes.to_styles(model, z), k)
    elif can_encode_data(run, data):
        result = _principal("z", passes.encoded(model, run.open(data, split, **read)), k)
    else:  # principal components of decoded examples, and the directions of z to them
        k = _at_most(k, min(model.latent_dim, model.space.dims), f"latents of {model.latent_dim} "
                     f"numbers and examples of {model.space.dims}")
        z = passes.latents_of_prior(model, DECODED, seed, condition).astype(np.float64)
        x = passes.decoded(model, z, condition=condition).reshape(len(z), -1).astype(np.float64)
        u, singular, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
        axes = u[:, :k].T @ (z - z.mean(0))
        axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-300)
        covariance = np.cov(z, rowvar=False).reshape(len(z.T), -1)
        spread = np.sqrt(np.einsum("kd,de,ke->k", axes, covariance, axes))
        result = Directions("z", z.mean(0), axes, spread,
                            singular[:k]**2 / max((singular**2).sum(), 1e-300))
    result.edits = edit(run, result, seed=item, steps=steps, span=span, layers=layers, label=label)
    return result.saved(out, results)


def _principal(space: str, latents: Array, k: int | None) -> Directions:
    k = _at_most(k, min(latents.shape), f"{len(latents):,} latents of {latents.shape[1]} numbers")
    z = latents.astype(np.float64)
    centre = z.mean(0)
    _, singular, axes = np.linalg.svd(z - centre, full_matrices=False)
    variance = singular**2 / max(1, len(latents) - 1)
    return Directions(space, centre, axes[:k], np.sqrt(variance[:k]),
                      variance[:k] / max(variance.sum(), 1e-300))


def _at_most(k: int | None, most: int, of: str) -> int:
    """How many directions are looked for among so many."""
    if k is not None and k > most:
        raise ConfigError(f"{say_option('k', k)}: {of} have {most} directions; choose at most "
                          f"{most}", option="k")
    return min(DIRECTIONS, most) if k is None else k


def edit(run: RunLike, directions: Directions, *, seed: int | None = None, steps: int = 7,
         span: float = 3.0, layers: str = "all", label: Any = None) -> Examples:
    """One direction at a time: (k, steps, \\*shape), a row for each, from −span to span.

    Args:
        seed: of the example that is edited; without one the mean of the latents, or a draw where
            the prior has none of the kind.
        span: to each side, in standard deviations along the direction.
        layers: the styles that change, see :func:`layer_numbers`; the others keep theirs.
        label: as for :func:`directions`.
    """
    from latlas.verbs import passes

    run = as_run(run)
    run.require("decode", "edit")
    if layers != "all":
        run.require("mix", f"edit {say_option('layers')}")
    common.POSITIVE.check("steps", steps)
    common.finite("span", span)
    condition, model, styled = _one_condition(run, label), run.model, directions.space == "w"
    if seed is not None:
        z = latents_of_seeds(model, [seed], condition)
        start = np.asarray((passes.to_styles(model, z) if styled else z)[0], np.float64)
    else:
        start = directions.centre if styled else passes.latent_in_support(
            model, directions.centre, condition)
    offsets = np.linspace(-span, span, steps)[None, :, None]
    moves = offsets * (directions.axes * directions.sd[:, None])[:, None]
    if styled:
        count = len(passes.styles_of(model, "directions").layer_sizes)
        w = np.tile(start, (*moves.shape[:2], count, 1))
        w[:, :, layer_numbers(layers, count)] += moves[:, :, None]
        values = passes.decode_styles(model, w.reshape(-1, *w.shape[2:]))
    else:
        values = passes.decoded(model, (start + moves).reshape(-1, len(start)),
                                condition=condition)
    return Examples(values.reshape(*moves.shape[:2], *values.shape[1:]), run.space, columns=steps)


def _one_condition(run: Any, label: Any) -> Any:
    """One class for all examples; ``None`` if none was named."""
    if isinstance(label, (list, tuple)) and len(label) > 1:
        raise ConfigError(f"name one class for all examples, not {', '.join(map(str, label))}",
                          option="label")
    return conditions(run, 1, label)


def layer_numbers(text: str, count: int) -> list[int]:
    """``coarse``, ``middle``, ``fine``, ``all``, or ``0-3,6`` as numbers of layers.

    >>> layer_numbers("fine", 8), layer_numbers("0-2,7", 8)
    ([6, 7], [0, 1, 2, 7])
    """
    if text == "all":
        return list(range(count))
    if text in LEVELS:
        return [int(i) for i in np.array_split(np.arange(count), 3)[LEVELS.index(text)]]
    layers = numbers(text)
    if layers is None:
        raise ConfigError(unknown("layers", text, [*LEVELS, "all", "0-3,6"]), option="layers")
    for layer in layers:
        if layer >= count:
            raise ConfigError(f"no layer {layer}: the model has layers 0 … {count - 1}",
                              option="layers")
    return layers


def latents_of_seeds(model: Any, seeds: Sequence[int], condition: Any = None) -> Array:
    """The latent vector that ``sample`` draws with each seed, (len(seeds), latent_dim)."""
    from latlas.verbs.passes import latents_of_prior

    return np.concatenate([latents_of_prior(model, 1, seed, condition, ("sample", 0))
                           for seed in seeds])
