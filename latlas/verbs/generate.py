"""``sample``, ``decode``, ``interpolate``, ``traverse``: new examples out of latent vectors."""

import functools
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from latlas.core.errors import CapabilityError, ConfigError, say_notes, say_option
from latlas.run import Run, as_run
from latlas.verbs import common, write
from latlas.verbs.common import Array, DataLike, Examples, Flag, Out, Output, RunLike, Seed, Split
from latlas.verbs.encode import read_latents
from latlas.verbs.latent_metric import CODES, MetricKind, atlas_walk, geodesic_walk
from latlas.verbs.results import results_of

#: examples whose latents set the spans of a traversal
ENCODED = 2000


def fits(option: str, value: int, count: int, space: Any, out: Any = None) -> None:
    """Raise ConfigError for more examples than the memory that is free can hold, or than can be
    shown in one image."""
    from latlas.data.streams import claim

    width = 4 if space.kind != "image" else 1 if (space.levels or 256) <= 256 else 2
    size = 2 * width * count * math.prod(space.shape)  # in parts, and joined
    if space.kind == "image" and out is not None and Path(out).suffix.lower() in (".png", ".gif"):
        size += 8 * count * math.prod(max(64, side) for side in space.shape[1:])
    claim(size, f"{say_option(option, value)}: a result of {count:,} examples",
          way_out="ask for fewer", error=functools.partial(ConfigError, option=option))


@common.verb
def sample(run: RunLike, n: Annotated[int, Flag(int, "How many."), common.Bounds(0)] = 64, *,
           label: common.Classes = None, given: common.GivenImages = None,
           mean: Annotated[bool | None, Flag(
               bool, "The mean of p(x|z), or a draw from it. Default: the mean of images, a draw "
               "of tables and points.", negative="--draw")] = None,
           latents: Literal["auto", "own", "fitted"] = "auto",
           seeds: Annotated[Any, Flag(str, "One example of each of these seeds instead "
                                           "(1,2,5-9).")] = None,
           truncation: common.Truncation = 1.0, seed: Seed = 0,
           out: Annotated[Out, Output("samples")] = None) -> Examples:
    """Draw new samples.

    Args:
        latents: Drawn from the model's own prior, or from the one fitted at the end of training or
            by `latlas fit-prior`; auto: the fitted one where there is one.
    """
    from latlas.verbs import passes

    run = as_run(run)
    run.require("sample")
    common.Bounds(0 if seeds is None and run.path is None else 1).check("n", n)
    numbers = None if seeds is None else common.whole_numbers("seeds", seeds)
    if truncation != 1:
        run.require("mix", f"sample {say_option('truncation')}")
    say_notes(run.warnings())
    write.check_examples(out, run.space)
    fits("n", n, n if numbers is None else len(numbers), run.space, out)
    results = results_of(
        out, "sample", run, given=given, n=None if numbers else n, label=label, mean=mean,
        latents=latents, seeds=numbers, truncation=truncation, seed=None if numbers else seed)
    condition = conditions(run, n if numbers is None else len(numbers), label, given)
    draws = [(n, seed, condition)] if numbers is None else [
        (1, number, None if condition is None else condition[i:i + 1])
        for i, number in enumerate(numbers)]
    values = passes.joined([passes.drawn_examples(
        run.model, count, seed=number, condition=own, mean=mean, latents=latents,
        truncation=truncation) for count, number, own in draws], run.space)
    classes = label if isinstance(label, (list, tuple)) else ()  # a column for each class
    return Examples(values, run.space,
                    columns=len(classes) if 1 < len(classes) < len(values) else None).saved(
                        out, results)


@common.verb
def decode(run: RunLike, latents: Annotated[Any, Flag(
               Path, "Latents (n, latent_dim): .npz, .npy, .csv or .parquet, as `encode` "
                     "writes.")], *,
           label: common.Classes = None, given: common.GivenImages = None,
           out: Annotated[Out, Output("decoded")] = None) -> Examples:
    """Turn latent vectors into examples: the mean of p(x|z) of each."""
    from latlas.verbs import passes

    z = read_latents(latents)
    run = as_run(run)
    run.require("decode")
    write.check_examples(out, run.space)
    results = results_of(out, "decode", run, np.atleast_2d(z), latents, label=label,
                         given=given)
    condition = conditions(run, len(np.atleast_2d(z)), label, given)
    return Examples(passes.decoded(run.model, z, condition=condition), run.space).saved(
        out, results)


@common.verb
def interpolate(run: RunLike, start: Annotated[Any, Flag(
                    int, "Row of the first example in the data. Default: drawn by the seed."),
                    common.Bounds(0)]
                = None, end: Annotated[Any, Flag(int, "Row of the last example."),
                                       common.Bounds(0)] = None, *,
                data: DataLike = None, split: Split = None,
                steps: Annotated[int, Flag(int, "Examples on the way, ends included."),
                                 common.Bounds(2, 1_000_000)] = 16,
                method: Literal["linear", "slerp", "geodesic"] = "linear",
                metric: MetricKind = "pullback",
                space: Literal["z", "w", "noise"] = "z",
                label: common.Classes = None, given: common.GivenImages = None, seed: Seed = 0,
                out: Annotated[Out, Output("interpolation")] = None, **read: Any) -> Examples:
    """Walk from one example to another through the latent space.

    From Python, start and end may be latent vectors (latent_dim,). Several classes share the walk:
    each has a stretch of it. Of the images given the first serves all steps.

    Args:
        method: A straight line, or slerp, the great circle that keeps to the shell where a
            high-dimensional normal prior has its mass (White 2016, arXiv:1609.04468); or geodesic,
            the shortest curve in a metric, at equal distances.
        space: Walk through z; or through w, the styles that are made from z; or through the noise
            that a flow makes z from, where slerp stays among what the model samples.
    """
    from latlas.verbs import passes

    run = as_run(run)
    run.require("decode", "interpolate")
    if space == "w":
        run.require("mix", f"interpolate {say_option('space', 'w')}")
    write.check_examples(out, run.space)
    fits("steps", steps, steps, run.space, out)
    results = results_of(
        out, "interpolate", run, None, data, start=start, end=end, given=given, split=split,
        steps=steps, method=method, metric=metric, space=space, label=label, seed=seed, read=read)
    first, last = _ends(run, start, end, data, split, read, seed, label)
    condition = conditions(run, 1 if given is not None else steps, label, given)
    if given is None and isinstance(label, (list, tuple)):
        condition = condition[np.argsort(np.arange(steps) % len(label), kind="stable")]
    if space == "w":
        first, last = passes.to_styles(run.model, np.stack([np.ravel(first), np.ravel(last)]))
    if method == "geodesic":
        values = _along_geodesic(run, first, last, steps, metric, space, label, given, seed,
                                 condition, data, split, read)
    elif space == "w":
        values = passes.decode_styles(run.model, walk(first, last, steps, method))
    elif space == "noise":
        ends = passes.transported(run.model, np.stack([np.ravel(first), np.ravel(last)]), 1.0, 0.0)
        noise = walk(ends[0], ends[1], steps, method)
        path = passes.transported(run.model, noise, 0.0, 1.0, condition)
        values = passes.decoded(run.model, path, condition=condition)
    else:
        values = passes.decoded(run.model, walk(first, last, steps, method), condition=condition)
    return Examples(values, run.space, columns=steps).saved(out, results)


def _along_geodesic(run: Run, first: Array, last: Array, steps: int, metric: str, space: str,
                    label: Any, given: Any, seed: int, condition: Any, data: Any, split: Any,
                    read: dict[str, Any]) -> Array:
    """(steps, *shape) examples in data units, at equal distances."""
    from latlas.core.model import Charts
    from latlas.verbs import passes

    if space == "noise":
        raise ConfigError(f"{say_option('space', 'noise')} has no metric; walk through z",
                          option="space")
    if isinstance(label, (list, tuple)) and len(label) > 1:
        raise ConfigError(f"{say_option('method', 'geodesic')} is of one decoder, so of one class; "
                          "name one", option="label")
    examples, atlas = None, isinstance(run.model, Charts)
    if (atlas or metric != "pullback") and can_encode_data(run, data):
        examples = run.open(data, split, **read).subset(slice(0, CODES))
    if atlas:
        return passes.to_data(run.space, atlas_walk(run.model, first, last, steps, examples))
    one = passes.broadcast_condition(run.model, conditions(run, 1, label, given), 1)
    z = geodesic_walk(run.model, first, last, steps, metric, examples, space=space, seed=seed,
                      **one)
    return (passes.decode_styles(run.model, z) if space == "w" else
            passes.decoded(run.model, z, condition=condition))


def _ends(run: Run, start: Any, end: Any, data: Any, split: Any, read: dict[str, Any], seed: int,
          label: Any) -> tuple[Array, Array]:
    """Two latent vectors: as given, of two rows of the data, or drawn where nothing is encoded."""
    from latlas.verbs.passes import encoded

    if (start is None) != (end is None):
        raise ConfigError(f"give both {say_option('start')} and {say_option('end')}, or neither",
                          option="start")
    if start is not None and np.ndim(start) > 0 and np.ndim(end) > 0:
        return np.asarray(start), np.asarray(end)
    if start is None and not can_encode_data(run, data):
        ends = [label[0], label[-1]] if isinstance(label, (list, tuple)) and label else label
        z = prior_latents(run, 2, seed=seed, label=ends)
        return z[0], z[1]
    run.require("encode", f"interpolate {say_option('start')}")
    examples = run.open(data, split, **read)
    rows = np.random.default_rng(seed).integers(len(examples), size=2).tolist()
    if start is not None:
        rows = [int(start), int(end)]
        for option, row in zip(("start", "end"), rows, strict=True):
            if not 0 <= row < len(examples):
                raise ConfigError(f"{say_option(option, row)}: the data have rows 0 … "
                                  f"{len(examples) - 1}", option=option)
    z = encoded(run.model, examples.subset(np.asarray(rows, np.int64)))
    return z[0], z[1]


def walk(start: Any, end: Any, steps: int, method: str = "linear") -> Array:
    """Latents (steps, d) from ``start`` to ``end``, both included; as for :func:`interpolate`.

    slerp turns the direction and interpolates the norm.

    ConfigError: another method, fewer than two steps, or vectors of different widths.
    """
    a, b = np.asarray(start, np.float64).ravel(), np.asarray(end, np.float64).ravel()
    common.one_of("method", method, ("linear", "slerp"))
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


@common.verb
def traverse(run: RunLike, *, data: DataLike = None, split: Split = None,
             dims: Annotated[Any, Flag(str, "Latent dimensions, with commas between. Default: the "
                                            "ten most active.")] = None,
             span: Annotated[float, Flag(float, "To each side, in standard deviations of the "
                                                "latents."), common.AMOUNT] = 3.0,
             steps: Annotated[int, Flag(int, "Examples along each, ends included."),
                                 common.Bounds(1, 1_000_000)] = 9,
             start: Annotated[Any, Flag(None, "")] = None,
             latents: Annotated[Any, Flag(None, "")] = None,
             label: common.Classes = None, given: common.GivenImages = None,
             out: Annotated[Out, Output("traverse")] = None, **read: Any) -> Examples:
    """Vary one latent dimension at a time: a row for each dimension, most active first.

    From Python the result is (dims, steps, \\*shape).

    Args:
        start: Latent vector (latent_dim,) that is varied. Default: the mean of the latents.
        latents: (n, latent_dim) of data, which set centre, spans and order. Default: those of the
            run's data, where there are any.
    """
    from latlas.verbs import passes

    run = as_run(run)
    run.require("decode", "traverse")
    common.Bounds(1 if run.path is None else 2).check("steps", steps)
    write.check_examples(out, run.space)
    results = results_of(
        out, "traverse", run, None if latents is None else np.atleast_2d(latents), data,
        split=split, dims=dims, span=span, steps=steps, start=start, label=label,
        given=given, read=read)
    if latents is None and can_encode_data(run, data):
        examples = run.open(data, split, **read).subset(slice(0, ENCODED))
        latents = passes.encoded(run.model, examples)
    model, width = run.model, run.model.latent_dim
    if latents is None:
        centre, unit, order = np.zeros(width), np.ones(width), np.arange(width)
    else:  # active is a dimension whose mean varies over the data (Burda et al. 2016, §4.3)
        z = np.asarray(latents, np.float64)
        centre, unit, order = z.mean(0), z.std(0), np.argsort(-z.var(0), kind="stable")
    rows = order if run.path is None else order[:10]
    if dims is not None:
        rows = np.asarray(common.whole_numbers("dims", dims), np.int64)
    for dim in rows:
        if not 0 <= dim < width:
            raise ConfigError(f"no dimension {dim}: the latents have dimensions 0 … {width - 1}",
                              option="dims")
    fits("steps", steps, len(rows) * steps, run.space, out)
    condition = conditions(run, 1 if given is not None else len(rows) * steps, label, given)
    centre = (passes.latent_in_support(model, centre, condition) if start is None else
              np.asarray(start, np.float64).ravel())
    values = passes.decode_traversal(model, centre, unit, rows, span=span, steps=steps,
                                     condition=condition)
    return Examples(values, run.space, columns=steps,
                    details={"dims": [int(d) for d in rows]}).saved(out, results)


def prior_latents(run: RunLike, n: int, *, seed: int = 0, label: Any = None) -> Array:
    """Latents that samples are decoded from, (n, latent_dim), for walks and edits.

    Args:
        label: as for :func:`sample`: of a ``conditional-gan`` latents differ by class.

    CapabilityError: a model whose samples come from no latent vector.
    """
    from latlas.verbs.passes import latents_of_prior

    run = as_run(run)
    run.require("decode", "latents of the prior")
    return latents_of_prior(run.model, n, seed, conditions(run, n, label))


def can_encode_data(run: Run, data: Any) -> bool:
    """The model has an encoder, and there are data to encode; CapabilityError for data that were
    named and cannot be encoded."""
    if data is not None:
        run.require("encode", say_option("data"))
    return run.can("encode") and (data is not None or run.data is not None)


def conditions(run: Run, n: int, label: Any, given: Any = None) -> Any:
    """What a conditional model is given for each of ``n`` examples; ``None`` if nothing is named.

    Args:
        label: a class name, or several that take turns; ``given`` images whose part is known,
            which take turns.

    CapabilityError: the model takes no condition, or another. ConfigError: no such class.
    """
    if label is None and given is None:
        return None
    model, option = run.model, "label" if given is None else "given"
    if not model.condition_dim:
        raise CapabilityError(f"{run.model_name} is not conditional; leave out "
                              f"`{option}`, or train a model that is: "
                              "conditional-gan, conditional-vae", option=option)
    takes, what = (("given", "a part of an image") if model.takes_condition == "part" else
                   ("label", "a label"))
    if takes != option:
        raise CapabilityError(f"this {run.model_name} is conditioned on {what}: name it with "
                              f"`{takes}`, not `{option}`", option=option)
    if given is None:
        if isinstance(label, (list, tuple)) and not label:
            raise ConfigError("`label`: name a class, or several with commas between",
                              option="label")
        from latlas.data.fitting import class_codes

        return np.resize(class_codes(run.space, label), n)
    from latlas.data.batches import Sweep
    from latlas.verbs.passes import batch_condition

    images = run.open(given)
    batch = next(iter(Sweep(images.subset(np.arange(n) % len(images)), n)))
    return batch_condition(model, batch)["condition"]
