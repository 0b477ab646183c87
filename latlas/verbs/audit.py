"""``audit``: what is under-represented in a data set, by a model's latents and as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import CapabilityError, ConfigError, DataError, say_option, unknown
from latlas.data.dataset import encode_labels
from latlas.data.fitting import as_source, fitted, is_arrays, open_examples, part_of
from latlas.data.pairs import first_side
from latlas.data.tables import as_read, kinds_of
from latlas.metrics import isolation, rarity
from latlas.metrics.arrays import nearest
from latlas.metrics.isolation import Axes, Neighbours, loneliness, seldomness
from latlas.run import Run, as_run
from latlas.verbs.audit_result import (
    Audit,
    Cluster,
    Dimension,
    Group,
    either,
    rarest_count,
    rarest_first,
)
from latlas.verbs.common import (
    Array,
    DataLike,
    Flag,
    Out,
    Output,
    Progress,
    RunLike,
    Seed,
    at_least,
)

if TYPE_CHECKING:
    from torch import Tensor

    from latlas.core.model import Model
    from latlas.data.dataset import Dataset

#: images are compared on thumbnails of at most so many pixels a side, and by the axes of so many
THUMBNAIL, FITTED = 32, 10_000
#: range of the outlines of images below which it is rounding
FAINT = 1e-3
#: a dimension whose mean latents have less of its variance than this is inactive
INACTIVE = 0.01
#: common examples shown beside a cluster, steps of the path to it, dimensions named of it
NEAR, STEPS, NAMED = 9, 9, 5


def audit(run: RunLike, data: DataLike = None, *,
          split: Annotated[Literal["train", "validation", "test", "all"], Flag(
              Literal["train", "validation", "test", "all"], "Part of the source.")] = "all",
          group: Annotated[str | None, Flag(
              str, "Factor or column whose values are the groups; more than 20 numbers are cut at "
                   "their quartiles. Default: the labels.")] = None,
          draws: Annotated[int, Flag(
              int, "Draws of z behind the likelihood of groups; 0 leaves it out.")] = 4,
          seed: Seed = 0,
          out: Annotated[Out, Output(
              "audit/", "Folder for report.html, audit.json and examples.csv. Default: RUN/audit.")]
          = None, progress: Progress | None = None, **read: Any) -> Audit:
    """What is under-represented in a data set? How rare each example is by its latent vector and as
    it is, what the rarest share, and per-group performance.

    Any labels of the source, or of a pair (array, labels), are the groups.
    """
    run = as_run(run)
    run.require("encode", "audit")
    at_least("draws", draws, 0)
    examples, label, names = open_grouped(run, data, split, group, read)
    result = audited(run.model, examples, label=label, names=names, draws=draws, seed=seed,
                     progress=progress)
    from latlas.verbs.audit_page import build_page

    options = {"data": data if isinstance(data, str) else "", "split": split,
               "label": read.get("label"), "group": group}
    command = "" if run.path is None else f"latlas audit {run.path}" + "".join(
        f" --{name} {value}" for name, value in options.items() if value)
    result.page = partial(build_page, model=run.model, data=examples, title=f"{run.name}: audit",
                          command=command, seed=seed)
    return result.saved(out)


def open_grouped(run: Run, data: Any, split: str, group: str | None, read: dict[str, Any]) -> tuple[
        Dataset, NDArray[np.int64] | None, tuple[str, ...]]:
    """The examples without their labels, the group of each, the groups' names.

    Args:
        data: labels of a pair (array, labels) may be any numbers or words, one for each example.
        group: a factor or column of the data that groups them; ``None``: their labels.

    Raises:
        ConfigError: no such factor or column. DataError: labels of another number than the
            examples.
    """
    if is_arrays(data):
        x, y = data if isinstance(data, tuple) else (data, None)
        if group is not None:
            raise ConfigError(f"{say_option('group', group)}: arrays have no columns; give "
                              "(array, labels)", option="group")
        examples = open_examples(run, x, split)
        if y is None:
            return examples, None, ()
        if len(np.asarray(y)) != len(examples):
            raise DataError(f"{len(np.asarray(y)):,} labels for {len(examples):,} examples: give "
                            "one for each")
        return examples, *encode_labels(y, "the labels")
    source = as_source(data, run, **read)
    examples = first_side(part_of(source, split))
    if group is None:
        label: Any = examples.take("label")
        names = examples.space.classes or tuple(
            str(k) for k in range(0 if label is None else int(label.max()) + 1))
    elif group in examples.space.factors:
        factors: Any = examples.take("factors")
        label, names = kinds_of(factors[:, examples.space.factors.index(group)],
                                f"factor {group} of {source.name}")
    else:
        columns = as_read(np.asarray(examples.take("x")), examples.space) if (
            examples.space.columns) else {}
        if group not in columns:
            raise ConfigError(unknown("factor or column", group,
                                      [*examples.space.factors, *columns])
                              + " (groups are the labels where none is named)", option="group")
        label, names = kinds_of(columns[group], f"column {group} of {source.name}")
    return (fitted(replace(examples, label=None), run.space, source.name), label, tuple(names))


def audited(model: Model, data: Dataset, *, label: Array | None = None, names: Sequence[str] = (),
            draws: int = 4, seed: int = 0, progress: Progress | None = None) -> Audit:
    """How rare each example is, what the rarest have in common, and per-group performance.

    Rarity is by the distances to the 5th, 10th and 30th neighbour, among the mean latents and among
    the examples as they are, and by a walk over images of like outlines, whichever has the example
    rarer (:doc:`docs/audit.md`).

    Args:
        label: (n,) group of each example, an index into ``names``; below 0 in none.
        draws: of z behind the likelihood of groups; 0 leaves it out.

    Raises:
        CapabilityError: no encoder, or one that needs a condition.
        DataError: fewer than 50 examples, labels of another number, latents that do not vary.
    """
    from latlas.verbs.passes import can
    from latlas.verbs.score import scored as scores_of

    _check(model, len(data), label)
    n = len(data)
    scored, counted = draws > 0 and label is not None and can(model, "score"), 0

    def count(more: int) -> None:
        nonlocal counted
        counted += more
        if progress:
            progress(counted, n * (4 + scored))

    def scored_so_far(now: int, total: int) -> None:
        count(4 * n + now * n // max(total, 1) - counted)

    mean, log_var, error, code, looks, outline = _pass(model, data, count)
    # (d,) of z under q, over all examples: that of the mean latents and that around them
    variance = mean.var(0) + (np.exp(log_var).mean(0) if log_var.size else 0.0)
    rounding = np.square(rarity.TINY * (1 + np.abs(mean.mean(0))))
    active = np.flatnonzero(mean.var(0) > np.maximum(INACTIVE * variance, rounding))
    if not len(active):
        raise DataError(rarity.UNVARIED)
    density = rarity.histogram_density(rarity.standardised(mean[:, active]))
    latents = isolation.half_whitened(mean[:, active] / np.sqrt(variance)[active])
    by_latent, by_example, by_walk = _ranks(latents, looks, outline, count)
    rank = isolation.ranks(either(np.maximum(by_latent, by_example), by_walk))
    weights = rarity.guarded(density, "product")
    nats = scores_of(model, data, draws=draws, seed=seed, progress=scored_so_far).nats if (
        scored) else np.empty(0)
    right = np.empty(0) if label is None or not code.size else _accuracy(
        code, label, names, model.space.classes)
    groups = () if label is None else tuple(_groups(
        rank, weights.weights, label, names, {"error": error, "nats": nats, "accuracy": right}))
    dimensions = tuple(Dimension(int(dim), float(mean[:, dim].std()),
                                 float((q < q.mean() / 10).mean()), int(q.argmin()))
                       for dim, q in zip(active, density.T, strict=True))
    return Audit(mean, rank, by_latent, by_example, by_walk, density, weights, dimensions,
                 _clusters(mean, latents, rank, seed), label, tuple(names), groups,
                 tuple(_notes(active, mean.shape[1], label)), data.take("names"))


def _check(model: Model, n: int, label: Array | None) -> None:
    """Raise an error, before the long work, for what cannot be audited."""
    Run.of(model).require("encode", "audit")
    if model.condition_dim:
        raise CapabilityError(f"{type(model).__name__} encodes examples under a condition; an "
                              "audit needs latents of the examples alone: train vae, ae or pca")
    if n < rarity.LEAST_ITEMS:
        raise DataError(f"{n} examples are too few for an audit, which needs {rarity.LEAST_ITEMS}: "
                        "rarity is judged by the examples around; "
                        f"{say_option('split', 'all')} takes every part of a source")
    if label is not None and len(label) != n:
        raise DataError(f"{len(label):,} labels for {n:,} examples: give one for each")


def _accuracy(predicted: Array, label: Array, names: Sequence[str],
              classes: Sequence[str]) -> Array:
    """1 for every example whose predicted class is its group; empty where groups are no classes."""
    if not set(names) <= set(classes):
        return np.empty(0)
    of_group = np.array([list(classes).index(name) for name in names])
    return np.asarray(predicted == of_group[label], np.float64)


def _pass(model: Any, data: Dataset, count: Callable[[int], None]) -> list[Array]:
    """Mean and log variance of q(z|x), squared error, predicted class, numbers and outlines of
    every example, (n, …) each; without columns where the model cannot tell."""
    from latlas.core.distributions import Normal
    from latlas.verbs.passes import can, evenly_spaced, inference, sweep

    def numbers(value: Tensor | None, n: int) -> Array:
        return np.empty((n, 0)) if value is None else value.double().cpu().numpy()

    parts = []
    with inference(model):
        some = [_looks(batch.x) for batch in sweep(model, evenly_spaced(data, FITTED))]
        flat, outline = (np.concatenate(look) for look in zip(*some, strict=True))
        varies = outline.size and np.ptp(outline, 0).max() > FAINT
        on_axes = Axes.of(flat), (Axes.of(outline) if varies else Axes(outline[0], outline[:0]))
        for batch in sweep(model, data):
            q = model.encode(batch.x)
            error = code = None
            if can(model, "decode"):
                difference = model.decode(q.mean).mean.float() - batch.x.float()
                error = difference.square().flatten(1).mean(1)
            if can(model, "classify"):
                code = model.classify(batch.x).argmax(1)
            log_var = q.log_var.expand_as(q.mean) if isinstance(q, Normal) else None
            parts.append([*(numbers(v, len(batch)) for v in (q.mean, log_var, error, code)),
                          *(axes(look) for axes, look in zip(on_axes, _looks(batch.x),
                                                             strict=True))])
            count(len(batch))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _looks(x: Tensor) -> tuple[Array, Array]:
    """(n, d) numbers of examples, of images as thumbnails, and (n, k) their outlines, else none."""
    from torch.nn.functional import adaptive_avg_pool2d

    from latlas.metrics.outlines import outlines

    if x.dim() != 4:
        return x.flatten(1).cpu().numpy(), np.empty((len(x), 0))
    height, width = (min(side, THUMBNAIL) for side in x.shape[2:])
    small = adaptive_avg_pool2d(x, (height, width))
    return small.flatten(1).cpu().numpy(), outlines(small).cpu().numpy()


def _ranks(latents: Array, looks: Array, outline: Array,
           count: Callable[[int], None]) -> tuple[Array, Array, Array | None]:
    """By latent vector, by example and by walk, (n,) ranks each; no walk where nothing has an
    outline."""
    by_latent, alone = (loneliness(Neighbours.of(view, count=count)) for view in (latents, looks))
    if not outline.size:
        count(len(latents))
        return isolation.ranks(by_latent), isolation.ranks(alone), None
    edges = Neighbours.of(outline, count=count)
    measures = by_latent, np.maximum(alone, loneliness(edges)), seldomness(edges)
    by_latent, by_example, by_walk = (isolation.ranks(measure) for measure in measures)
    return by_latent, by_example, by_walk


def _clusters(mean: Array, latents: Array, rank: Array, seed: int) -> tuple[Cluster, ...]:
    """The rarest, in groups: where each lies, the common examples near it, the path from those."""
    from latlas.verbs.generate import walk

    order = rarest_first(rank)
    rare, common = order[:rarest_count(len(rank))], np.sort(order[len(rank) // 2:])
    number = isolation.groups(latents[rare], seed)
    clusters = []
    for rows in (rare[number == k] for k in range(int(number.max()) + 1)):
        rest = np.delete(mean, rows, 0)
        apart = (mean[rows].mean(0) - rest.mean(0)) / np.maximum(mean.std(0), rarity.TINY)
        most = np.argsort(-np.abs(apart), kind="stable")[:NAMED]
        centre = latents[rows].mean(0, keepdims=True)
        near = common[nearest(centre, latents[common], min(NEAR, len(common)))[1][0]]
        clusters.append(Cluster(rows, tuple((int(d), float(apart[d])) for d in most), near,
                                walk(mean[near].mean(0), mean[rows].mean(0), STEPS)))
    return tuple(clusters)


def _groups(rank: Array, weights: Array, label: Array, names: Sequence[str],
            measures: dict[str, Array]) -> Iterator[Group]:
    rarest = np.zeros(len(rank))
    rarest[rarest_first(rank)[:rarest_count(len(rank))]] = 1
    for code, name in enumerate(names):
        mine = label == code
        if mine.any():
            more = {k: float(v[mine].mean()) if v.size else None for k, v in measures.items()}
            yield Group(str(name), int(mine.sum()), float(mine.mean()), float(rank[mine].mean()),
                        float(rarest[mine].mean()), float(weights[mine].mean()), **more)


def _notes(active: Array, latent_dim: int, label: Array | None) -> Iterator[str]:
    inactive = np.setdiff1d(np.arange(latent_dim), active)
    if len(inactive):
        which = ", ".join(f"z{d}" for d in inactive[:12]) + (" …" if len(inactive) > 12 else "")
        yield (f"{len(inactive)} of {latent_dim} latent dimensions do not vary with the examples "
               f"and are left out: {which}")
    if label is None:
        yield "The examples have no labels: nothing is said of groups."
    elif len(np.unique(label[label >= 0])) == 1:
        yield "All examples are of one group: there is nothing to compare it with."
