"""``audit``: what is under-represented in a data set, by a model's latents and as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from latlas.core.errors import CapabilityError, DataError, say_number, say_option
from latlas.core.files import save_json
from latlas.metrics import outliers, rarity
from latlas.metrics.arrays import nearest
from latlas.metrics.rarity import Guarded
from latlas.render.text import counted, table
from latlas.run import Run, as_run
from latlas.verbs import common, write
from latlas.verbs.common import Array, Flag, Progress

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.data.dataset import Dataset

#: a dimension whose mean latents have less of its variance than this is inactive
INACTIVE = 0.01
#: common examples shown beside a cluster, steps of the path to it, dimensions named of it
NEAR, STEPS, NAMED = 9, 9, 5


@dataclass(frozen=True)
class Dimension:
    """One latent dimension.

    Attributes:
        dim: its number.
        sd: standard deviation of the mean latents along it.
        thin: share of the examples that lie where less than a tenth of the mean density is.
        rarest: the example that lies where there is least.
    """

    dim: int
    sd: float
    thin: float
    rarest: int


@dataclass(frozen=True)
class Cluster:
    """Rare examples that lie together.

    Attributes:
        examples: their rows, the rarest first.
        apart: dimension and difference of their mean latent vector from that of all other
            examples, in standard deviations of the latents, the greatest first.
        common: rows of the common examples nearest to their centre.
        path: (steps, latent_dim) latents from the centre of those to that of the cluster.
    """

    examples: Array
    apart: tuple[tuple[int, float], ...]
    common: Array
    path: Array


@dataclass(frozen=True)
class Group:
    """Examples that share a label.

    Attributes:
        share: of all examples.
        rarity: the mean rarity, ½ for a group like all others.
        rarest: share of the group that is among the rarest 5% of all examples.
        lift: mean weight of its examples where the mean over all is 1.
        error: mean squared error of the reconstruction, model units².
        nats: mean log-likelihood per example, nats in data units.
        accuracy: share that the model's class output gets right.
    """

    name: str
    count: int
    share: float
    rarity: float
    rarest: float
    lift: float
    error: float | None = None
    nats: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Spread:
    """How one measure differs between groups: the worst of them, and the variance of the means."""

    worst: str
    value: float
    variance: float


@dataclass(eq=False, repr=False)
class Audit(common.Result):
    """What is rare, or under-represented, among n examples.

    Attributes:
        latents: (n, latent_dim) means of q(z|x).
        rarity: (n,) rank of the greatest of the next three, 0 … 1; 1 is the rarest. Near the top
            the walk counts for as much as the two others together.
        by_latent, by_example: (n,) rank of how isolated an example is among the latents, and among
            the examples as they are, 0 … 1.
        by_walk: (n,) rank of how seldom a walk over images of like outlines visits it, 0 … 1.
        density: (n, k) histogram density of each standardised dimension of ``dimensions``.
        weights: by the product of those densities, with their effective sample.
        clusters: of the rarest 5%, the largest first.
        label: (n,) group of each example, an index into ``names``; ``groups`` in their order.
        file_names: (n,) of the examples, if they have any.
        page: gives the HTML report.
    """

    latents: Array
    rarity: Array
    by_latent: Array
    by_example: Array
    by_walk: Array | None
    density: Array
    weights: Guarded
    dimensions: tuple[Dimension, ...]
    label: Array | None = None
    names: tuple[str, ...] = ()
    file_names: Any = None
    clusters: tuple[Cluster, ...] = ()
    groups: tuple[Group, ...] = ()
    page: Callable[[Audit], str] | None = None
    #: share of the examples that counts as the rarest, and as the commonest
    RAREST: ClassVar[float] = 0.05
    #: measures by which groups are compared: the sign of what is worse
    worse: ClassVar[dict[str, int]] = {"accuracy": -1, "nats": -1, "error": 1, "rarity": 1}

    @property
    def order(self) -> Array:
        """(n,) rows, the rarest first."""
        return np.argsort(-self.rarity, kind="stable")

    @property
    def rarest(self) -> Array:
        """Rows of the rarest 5%, the rarest first."""
        return self.order[:max(1, round(self.RAREST * len(self.rarity)))]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and why."""
        notes, width = [], self.latents.shape[1]
        inactive = sorted(set(range(width)) - {d.dim for d in self.dimensions})
        if inactive:
            which = ", ".join(f"z{d}" for d in inactive[:12]) + (" …" if inactive[12:] else "")
            notes.append(f"{len(inactive)} of {width} latent dimensions do not vary with the "
                         f"examples and are left out: {which}")
        if self.label is None:
            notes.append("The examples have no labels: nothing is said of groups.")
        elif len(np.unique(self.label[self.label >= 0])) == 1:
            notes.append("All examples are of one group: there is nothing to compare it with.")
        return tuple(notes)

    @property
    def spread(self) -> dict[str, Spread]:
        """Of accuracy, nats, error and rarity, where there are two groups or more."""
        spreads: dict[str, Spread] = {}
        for name, sign in self.worse.items() if len(self.groups) > 1 else ():
            if getattr(self.groups[0], name) is not None:
                values = np.array([getattr(group, name) for group in self.groups], np.float64)
                worst = int(np.argmax(sign * values))
                spreads[name] = Spread(self.groups[worst].name, float(values[worst]),
                                       float(values.var()))
        return spreads

    def share_by_latent(self, rows: Array) -> float:
        """Share of some examples that are rarer by their latents than as they are."""
        as_they_are = with_walk(self.by_example, self.by_walk)
        return float((self.by_latent[rows] >= as_they_are[rows]).mean())

    def as_columns(self) -> dict[str, Any]:
        """One row per example, the rarest first; those in no cluster are in number −1."""
        order, cluster = self.order, np.full(len(self.rarity), -1, np.int64)
        for number, rows in enumerate(c.examples for c in self.clusters):
            cluster[rows] = number
        titles = common.titles(self.file_names, len(order))
        columns = {"rank": np.arange(1, len(order) + 1), "example": titles[order],
                   "rarity": self.rarity[order], "by_latent": self.by_latent[order],
                   "by_example": self.by_example[order]}
        if self.by_walk is not None:
            columns["by_walk"] = self.by_walk[order]
        columns |= {"weight": self.weights.weights[order], "cluster": cluster[order]}
        if self.label is not None:
            columns["group"] = np.asarray(self.names)[self.label[order]]
        return columns | {f"density_z{d.dim}": self.density[order, i]
                          for i, d in enumerate(self.dimensions)}

    def facts(self) -> dict[str, Any]:
        """All but what is one number per example, which :meth:`as_columns` has."""
        return {"examples": len(self.rarity), "rarest": self.rarest.tolist(),
                "commonest": self.order[::-1][:len(self.rarest)].tolist(),
                "effective_share": self.weights.share, "alpha": self.weights.alpha,
                "dimensions": [asdict(d) for d in self.dimensions],
                "clusters": [{"count": len(c.examples), "examples": c.examples.tolist(),
                              "by_latent": self.share_by_latent(c.examples),
                              "apart": [{"dim": d, "sd": v} for d, v in c.apart],
                              "common": c.common.tolist()} for c in self.clusters],
                "groups": [asdict(g) for g in self.groups],
                "spread": {name: asdict(s) for name, s in self.spread.items()},
                "notes": list(self.notes)}

    def text(self) -> str:
        lines = [f"{counted(len(self.rarity), 'example')}; the rarest {len(self.rarest):,} in "
                 f"{counted(len(self.clusters), 'group')} of "
                 f"{', '.join(f'{len(c.examples):,}' for c in self.clusters)}", self.weights.words]
        if self.groups:
            heads = {"count": "examples", "rarity": "mean rarity", "rarest": "among the rarest",
                     "lift": "weight lift", "error": "error", "nats": "nats",
                     "accuracy": "accuracy"}
            columns = [k for k in heads if getattr(self.groups[0], k) is not None]
            lines.append(table(["group", *(heads[k] for k in columns)], [
                [g.name, *(f"{getattr(g, k):,}" if k == "count" else say_number(getattr(g, k), 4)
                           for k in columns)] for g in self.groups]))
        lines += [f"worst by {name}: {s.worst} ({say_number(s.value, 4)}; variance between groups "
                  f"{say_number(s.variance, 4)})" for name, s in self.spread.items()]
        return "\n".join([*lines, *self.notes])

    def save(self, path: str | Path) -> str:
        """A folder with report.html, audit.json and examples.csv; or the table by its suffix."""
        if not write.is_folder(path):
            return write.write_table(path, self.as_columns())
        folder, lines = Path(path), []
        folder.mkdir(parents=True, exist_ok=True)
        if self.page is not None:
            write.write_bytes(folder / "report.html", self.page(self).encode("utf-8", "replace"))
            lines.append(f"wrote {folder / 'report.html'}")
        save_json(folder / "audit.json", self.facts())
        return "\n".join([*lines, f"wrote {folder / 'audit.json'}",
                          write.write_table(folder / "examples.csv", self.as_columns())])


@common.verb
def audit(run: common.RunLike, data: common.DataLike = None, *,
          split: Annotated[Literal["train", "validation", "test", "all"], Flag(
              Literal["train", "validation", "test", "all"], "Part of the source.")] = "all",
          group: Annotated[str | None, Flag(
              str, "Factor or column whose values are the groups; more than 20 numbers are cut at "
                   "their quartiles. Default: the labels.")] = None,
          draws: Annotated[int, Flag(
              int, "Draws of z behind the likelihood of groups; 0 leaves it out."),
              common.Bounds(0, 100_000_000)] = 4,
          seed: common.Seed = 0,
          out: Annotated[common.Out, common.Output(
              "audit/", "Folder for report.html, audit.json and examples.csv. Default: RUN/audit.")]
          = None, progress: Progress | None = None, **read: Any) -> Audit:
    """What is under-represented in a data set? How rare each example is by its latent vector and as
    it is, what the rarest share, and per-group performance.

    Any labels of the source, or of a pair (array, labels), are the groups.
    """
    run = as_run(run)
    run.require("encode", "audit")
    from latlas.verbs import auditing

    examples, label, names = auditing.open_grouped(run, data, split, group, read)
    result = audited(run.model, examples, label=label, names=names, draws=draws, seed=seed,
                     progress=progress)
    options = {"data": data if isinstance(data, str) else "", "split": split,
               "label": read.get("label"), "group": group}
    command = "" if run.path is None else f"latlas audit {run.path}" + "".join(
        f" --{name} {value}" for name, value in options.items() if value)
    result.page = partial(auditing.build_page, model=run.model, data=examples,
                          title=f"{run.name}: audit", command=command, seed=seed)
    return result.saved(out)


def audited(model: Model, data: Dataset, *, label: Array | None = None, names: Sequence[str] = (),
            draws: int = 4, seed: int = 0, progress: Progress | None = None) -> Audit:
    """:func:`audit` of a model.

    Rarity is by the distances to the 5th, 10th and 30th neighbour, among the mean latents and among
    the examples as they are, and by a walk over images of like outlines, whichever has the example
    rarer (:doc:`docs/audit.md`).

    Args:
        label: (n,) group of each example, an index into ``names``; below 0 in none.
        draws: of z behind the likelihood of groups; 0 leaves it out.

    CapabilityError: no encoder, or one that needs a condition. DataError: fewer than 50 examples,
    latents that do not vary.
    """
    from latlas.verbs.auditing import views_of
    from latlas.verbs.score import scored

    n, processed, run = len(data), 0, Run.of(model)
    run.require("encode", "audit")
    if model.condition_dim:
        raise CapabilityError(f"{type(model).__name__} encodes examples under a condition; an "
                              "audit needs latents of the examples alone: train vae, ae or pca")
    if n < rarity.LEAST_ITEMS:
        raise DataError(f"{n} examples are too few for an audit, which needs {rarity.LEAST_ITEMS}: "
                        "rarity is judged by the examples around; "
                        f"{say_option('split', 'all')} takes every part of a source")
    likelihood = draws > 0 and label is not None and run.can("score")

    def count(more: int) -> None:
        nonlocal processed
        processed += more
        if progress:
            progress(processed, n * (4 + likelihood))

    mean, log_var, error, predicted, looks, outlines = views_of(model, data, count)
    # (d,) of z under q, over all examples: that of the mean latents and that around them
    variance = mean.var(0) + (np.exp(log_var).mean(0) if log_var.size else 0.0)
    rounding = np.square(rarity.TINY * (1 + np.abs(mean.mean(0))))
    active = np.flatnonzero(mean.var(0) > np.maximum(INACTIVE * variance, rounding))
    if not len(active):
        raise DataError(rarity.UNVARIED)
    density = rarity.densities(mean[:, active])
    latents = outliers.half_whitened(mean[:, active] / np.sqrt(variance)[active])
    by_latent, by_example, by_walk = _ranks(latents, looks, outlines, count)
    result = Audit(
        mean, outliers.ranks(with_walk(np.maximum(by_latent, by_example), by_walk)), by_latent,
        by_example, by_walk, density, rarity.guarded(density, "product"),
        tuple(Dimension(int(dim), float(mean[:, dim].std()), float((q < q.mean() / 10).mean()),
                        int(q.argmin())) for dim, q in zip(active, density.T, strict=True)),
        label, tuple(names), data.take("names"))
    nats = scored(model, data, draws=draws, seed=seed, progress=lambda now, total: count(
        4 * n + now * n // max(total, 1) - processed)).nats if likelihood else np.empty(0)
    result.clusters = tuple(_clusters(result, latents, seed))
    if label is not None:
        result.groups = tuple(_groups(result, label, model.space.classes, predicted, {
            "error": error, "nats": nats}))
    return result


def _ranks(latents: Array, looks: Array, outlines: Array,
           count: Callable[[int], None]) -> tuple[Array, Array, Array | None]:
    """By latent vector, by example and by walk, (n,) each; no walk where nothing has an outline."""
    by_latent, by_example = (outliers.loneliness(outliers.Neighbours.of(view, count=count))
                             for view in (latents, looks))
    by_walk = None
    if outlines.size:
        edges = outliers.Neighbours.of(outlines, count=count)
        by_example = np.maximum(by_example, outliers.loneliness(edges))
        by_walk = outliers.ranks(outliers.seldomness(edges))
    else:
        count(len(latents))
    return outliers.ranks(by_latent), outliers.ranks(by_example), by_walk


def with_walk(rank: Array, by_walk: Array | None) -> Array:
    """The greater of two ranks, where the walk has twice the say near the top."""
    return rank if by_walk is None else np.maximum(rank, (1 + by_walk) / 2)


def _clusters(result: Audit, latents: Array, seed: int) -> Iterator[Cluster]:
    """The rarest, in groups: where each lies, the common examples near it, the path from those."""
    from latlas.verbs.generate import walk

    mean, rare, common_half = result.latents, result.rarest, np.sort(
        result.order[len(result.rarity) // 2:])
    number = outliers.groups(latents[rare], seed)
    for rows in (rare[number == k] for k in range(int(number.max()) + 1)):
        rest = np.delete(mean, rows, 0)
        apart = (mean[rows].mean(0) - rest.mean(0)) / np.maximum(mean.std(0), rarity.TINY)
        most = np.argsort(-np.abs(apart), kind="stable")[:NAMED]
        centre = latents[rows].mean(0, keepdims=True)
        near = common_half[nearest(centre, latents[common_half], min(NEAR, len(common_half)))[1][0]]
        yield Cluster(rows, tuple((int(d), float(apart[d])) for d in most), near,
                      walk(mean[near].mean(0), mean[rows].mean(0), STEPS))


def _groups(result: Audit, label: Array, classes: Sequence[str], predicted: Array,
            measures: dict[str, Array]) -> Iterator[Group]:
    rarest = np.zeros(len(label))
    rarest[result.rarest] = 1
    if predicted.size and set(result.names) <= set(classes):  # else groups are no classes
        of_group = np.array([list(classes).index(name) for name in result.names])
        measures = measures | {"accuracy": np.asarray(predicted == of_group[label], np.float64)}
    for code, name in enumerate(result.names):
        mine = label == code
        if mine.any():
            more = {k: float(v[mine].mean()) for k, v in measures.items() if v.size}
            yield Group(str(name), int(mine.sum()), float(mine.mean()),
                        float(result.rarity[mine].mean()), float(rarest[mine].mean()),
                        float(result.weights.weights[mine].mean()), **more)
