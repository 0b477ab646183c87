"""What a data set holds little of, as a model's codes tell: items, groups of them, given groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.distributions import Normal
from latlas.core.errors import CapabilityError, DataError
from latlas.core.model import Model
from latlas.data.dataset import Dataset
from latlas.metrics import isolation, rarity
from latlas.metrics.arrays import nearest
from latlas.metrics.isolation import Axes, Neighbours, loneliness, seldomness
from latlas.metrics.outlines import outlines
from latlas.metrics.rarity import Guarded
from latlas.tasks.common import Array, Progress, can, check, inference, some_of, sweep
from latlas.tasks.generate import decode, walk
from latlas.tasks.outliers import Count, counted, squared_error
from latlas.tasks.score import score

#: pictures are compared on thumbnails of at most so many pixels a side, and by the axes of so many
THUMBNAIL, FITTED = 32, 10_000
#: range of the outlines of pictures below which it is rounding
FAINT = 1e-3
#: share of the items that counts as the rarest, and as the commonest
RAREST = 0.05
#: a dimension whose mean code has less of its variance than this says nothing of an item
SILENT = 0.01
#: draws of the code behind a likelihood
DRAWS = 4
#: common items shown beside a cluster, steps of the way to it, dimensions named of it
NEAR, STEPS, NAMED = 9, 9, 5


@dataclass(frozen=True)
class Dimension:
    """One dimension of the code.

    Attributes:
        dim: its number; ``sd`` the standard deviation of the mean codes along it.
        thin: share of the items that lie where less than a tenth of the mean density is.
        rarest: the item that lies where there is least.
    """

    dim: int
    sd: float
    thin: float
    rarest: int


@dataclass(frozen=True)
class Cluster:
    """Rare items that lie together.

    Attributes:
        items: their rows, the rarest first.
        apart: dimension and difference of their mean code from that of all other items, in
            standard deviations of the codes, the greatest first.
        common: rows of the common items nearest to their centre.
        way: (STEPS, latent_dim) codes from the centre of those to that of the cluster.
    """

    items: Array
    apart: tuple[tuple[int, float], ...]
    common: Array
    way: Array


@dataclass(frozen=True)
class Group:
    """Items that share a label.

    Attributes:
        share: of all items; ``rarity`` the mean rarity, ½ for a group like all others.
        rarest: share of the group that is among the rarest 5% of all items.
        lift: mean weight of its items where the mean over all is 1.
        error: mean squared error of the reconstruction, model units².
        nats: mean log-likelihood per item, nats in data units.
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


@dataclass(frozen=True)
class Audit:
    """What is rare among n items.

    Attributes:
        codes: (n, latent_dim) mean codes.
        rarity: (n,) rank of the greatest of the next three, 0 … 1; 1 is the rarest. Near the top
            the walk counts for as much as the two others together.
        by_code: (n,) how alone an item stands in the model's codes, 0 … 1.
        by_item: (n,) how alone it stands among the items as they are, 0 … 1.
        by_walk: (n,) how seldom a walk over pictures of like outlines comes by it, 0 … 1; ``None``
            for what is no picture.
        density: (n, k) histogram density of each standardised dimension of ``dimensions``.
        weights: by the product of those densities, with their effective sample.
        clusters: of the rarest 5%, the largest first.
        label, names: (n,) group of each item and the groups' names; ``groups`` in that order.
        notes: what was left out, and why.
    """

    codes: Array
    rarity: Array
    by_code: Array
    by_item: Array
    by_walk: Array | None
    density: Array
    weights: Guarded
    dimensions: tuple[Dimension, ...]
    clusters: tuple[Cluster, ...]
    label: Array | None = None
    names: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def order(self) -> Array:
        """(n,) rows, the rarest first."""
        return _rarest_first(self.rarity)

    @property
    def rarest(self) -> Array:
        """Rows of the rarest 5%, the rarest first."""
        return self.order[:rarest_count(len(self.rarity))]

    @property
    def cluster(self) -> Array:
        """(n,) number of the cluster each item is in, −1 for none."""
        found = np.full(len(self.rarity), -1, np.int64)
        for number, cluster in enumerate(self.clusters):
            found[cluster.items] = number
        return found

    @property
    def spread(self) -> dict[str, Spread]:
        """Of accuracy, nats, error and rarity, where there are two groups or more."""
        if len(self.groups) < 2:
            return {}
        worse = {"accuracy": -1, "nats": -1, "error": 1, "rarity": 1}
        return {name: _spread(self.groups, name, sign) for name, sign in worse.items()
                if getattr(self.groups[0], name) is not None}

    def coded(self, rows: Array) -> float:
        """Share of some items that are rarer by their codes than as they are."""
        by_item = _either(self.by_item, self.by_walk)
        return float((self.by_code[rows] >= by_item[rows]).mean())

    def columns(self, names: Any = None) -> dict[str, Array]:
        """What ``write_table`` takes: one row per item, the rarest first."""
        order = self.order
        item = np.arange(len(order)) if names is None else np.asarray(names)
        found = {"rank": np.arange(1, len(order) + 1), "item": item[order],
                 "rarity": self.rarity[order], "by_code": self.by_code[order],
                 "by_item": self.by_item[order]}
        if self.by_walk is not None:
            found["by_walk"] = self.by_walk[order]
        found |= {"weight": self.weights.weights[order], "cluster": self.cluster[order]}
        if self.label is not None:
            found["group"] = np.asarray(self.names)[self.label[order]]
        return found | {f"density_z{d.dim}": self.density[order, i]
                        for i, d in enumerate(self.dimensions)}

    def to_json(self) -> dict[str, Any]:
        """All but what is one number per item, which :meth:`columns` has."""
        return {"items": len(self.rarity), "rarest": self.rarest.tolist(),
                "commonest": self.order[::-1][:len(self.rarest)].tolist(),
                "effective_share": self.weights.share, "alpha": self.weights.alpha,
                "dimensions": [asdict(d) for d in self.dimensions],
                "clusters": [{"count": len(c.items), "items": c.items.tolist(),
                              "by_code": self.coded(c.items),
                              "apart": [{"dim": d, "sd": v} for d, v in c.apart],
                              "common": c.common.tolist()} for c in self.clusters],
                "groups": [asdict(g) for g in self.groups],
                "spread": {name: asdict(s) for name, s in self.spread.items()},
                "notes": list(self.notes)}


@dataclass(frozen=True)
class _Seen:
    """What one pass over the items tells, (n, …) each; empty where the model cannot tell."""

    mean: Array
    log_var: Array
    error: Array
    told: Array
    item: Array
    outline: Array


def audit(model: Model, data: Dataset, *, label: Array | None = None, names: Sequence[str] = (),
          draws: int = DRAWS, seed: int = 0, progress: Progress | None = None) -> Audit:
    """How rare each item is, what the rarest have in common, and how given groups fare.

    Rarity is by the distances to the 5th, 10th and 30th neighbour, in the mean codes and among the
    items as they are, and by a walk over pictures of like outlines, whichever has the item rarer
    (:doc:`docs/audit.md`).

    Args:
        label: (n,) group of each item, an index into ``names``; below 0 in none.
        draws: of z behind the likelihood of groups; 0 leaves it out.

    Raises:
        CapabilityError: no encoder, or one that needs a condition.
        DataError: fewer than 50 items, labels of another number, codes that do not vary.
    """
    _checked(model, data, label)
    scored = draws > 0 and label is not None and can(model, "score")
    count = counted(progress, len(data) * (4 + scored))
    seen = _look(model, data, count)
    kept = _speaking(seen)
    density = rarity.histogram_density(rarity.standardised(seen.mean[:, kept]))
    codes = isolation.half_whitened(seen.mean[:, kept] / np.sqrt(_variance(seen))[kept])
    by_code, by_item, by_walk = _rare(codes, seen, count)
    rank = isolation.ranks(_either(np.maximum(by_code, by_item), by_walk))
    weights = rarity.guarded(density, "product")
    nats = _nats(model, data, draws, seed, count) if scored else np.empty(0)
    held = {"error": seen.error, "nats": nats, "accuracy": _right(model, seen, label, names)}
    return Audit(seen.mean, rank, by_code, by_item, by_walk, density, weights,
                 _dimensions(seen.mean, kept, density), _clusters(seen.mean, codes, rank, seed),
                 label, tuple(names), tuple(_groups(rank, weights.weights, label, names, held)),
                 tuple(_notes(kept, seen.mean.shape[1], label)))


def strip(model: Model, cluster: Cluster) -> Array | None:
    """(STEPS, \\*shape) items decoded along the way to a cluster; ``None`` without a decoder."""
    return decode(model, cluster.way) if can(model, "decode") else None


def _rare(codes: Array, seen: _Seen, count: Count) -> tuple[Array, Array, Array | None]:
    """By code, by item and by walk, (n,) ranks each; no walk where nothing has an outline."""
    by_code, alone = (loneliness(Neighbours.of(view, count=count)) for view in (codes, seen.item))
    if not seen.outline.size:
        count(len(codes))
        return isolation.ranks(by_code), isolation.ranks(alone), None
    outline = Neighbours.of(seen.outline, count=count)
    measures = by_code, np.maximum(alone, loneliness(outline)), seldomness(outline)
    by_code, by_item, by_walk = (isolation.ranks(measure) for measure in measures)
    return by_code, by_item, by_walk


def _either(alone: Array, by_walk: Array | None) -> Array:
    """The greater of two ranks, where the walk has twice the say near the top."""
    return alone if by_walk is None else np.maximum(alone, (1 + by_walk) / 2)


def _rarest_first(rank: Array) -> Array:
    """(n,) rows by their rank in rarity."""
    return np.argsort(-rank, kind="stable")


def rarest_count(n: int) -> int:
    """How many of n items are the rarest 5%."""
    return max(1, round(RAREST * n))


def _checked(model: Model, data: Dataset, label: Array | None) -> None:
    check(model, "encode")
    if model.condition_dim:
        raise CapabilityError(f"{type(model).__name__} encodes items under a condition; an audit "
                              "needs codes of the items alone: train vae, ae or pca")
    if len(data) < rarity.LEAST_ITEMS:
        raise DataError(f"{len(data)} items are too few for an audit, which needs "
                        f"{rarity.LEAST_ITEMS}: rarity is judged by the items around; --split all "
                        "takes every part of a source")
    if label is not None and len(label) != len(data):
        raise DataError(f"{len(label):,} labels for {len(data):,} items: give one for each")


def _look(model: Model, data: Dataset, count: Count) -> _Seen:
    parts = []
    with inference(model):
        some = [_looks(batch.x) for batch in sweep(model, some_of(data, FITTED))]
        flat, outline = (np.concatenate(look) for look in zip(*some, strict=True))
        none = Axes(outline[0], outline[:0])
        on = Axes.of(flat), Axes.of(outline) if _varies(outline) else none
        for batch in sweep(model, data):
            told = [_numbers(value, len(batch)) for value in _told(model, batch)]
            looks = [axes(look) for axes, look in zip(on, _looks(batch.x), strict=True)]
            parts.append([*told, *looks])
            count(len(batch))
    joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return _Seen(*joined)


def _told(model: Any, batch: Batch) -> Iterator[Tensor | None]:
    q = model.encode(batch.x)
    yield q.mean
    yield q.log_var.expand_as(q.mean) if isinstance(q, Normal) else None
    yield squared_error(model, batch, q.mean) if can(model, "decode") else None
    yield model.classify(batch.x).argmax(1) if can(model, "classify") else None


def _looks(x: Tensor) -> tuple[Array, Array]:
    """(n, d) numbers of items, of pictures as thumbnails, and (n, k) their outlines, else none."""
    if x.dim() != 4:
        return x.flatten(1).cpu().numpy(), np.empty((len(x), 0))
    height, width = (min(side, THUMBNAIL) for side in x.shape[2:])
    small = F.adaptive_avg_pool2d(x, (height, width))
    return small.flatten(1).cpu().numpy(), outlines(small).cpu().numpy()


def _varies(outline: Array) -> bool:
    return bool(outline.size) and bool(np.ptp(outline, 0).max() > FAINT)


def _numbers(value: Tensor | None, n: int) -> Array:
    return np.empty((n, 0)) if value is None else value.double().cpu().numpy()


def _variance(seen: _Seen) -> Array:
    """(d,) of z under q, over all items: that of the mean codes and that around them."""
    noise = np.exp(seen.log_var).mean(0) if seen.log_var.size else 0.0
    return np.asarray(seen.mean.var(0) + noise)


def _speaking(seen: _Seen) -> Array:
    """Numbers of the dimensions that vary with the items."""
    rounding = np.square(rarity.TINY * (1 + np.abs(seen.mean.mean(0))))
    kept = seen.mean.var(0) > np.maximum(SILENT * _variance(seen), rounding)
    if not kept.any():
        raise DataError(rarity.UNVARIED)
    return np.flatnonzero(kept)


def _nats(model: Model, data: Dataset, draws: int, seed: int, count: Count) -> Array:
    done = 0

    def tick(now: int, total: int) -> None:
        nonlocal done
        more = now * len(data) // max(total, 1) - done
        done += more
        count(more)
    return score(model, data, draws=draws, seed=seed, progress=tick).nats


def _right(model: Model, seen: _Seen, label: Array | None, names: Sequence[str]) -> Array:
    """(n,) whether the class output is the item's label; empty where that cannot be said."""
    classes = list(model.space.classes)
    if label is None or not seen.told.size or not set(names) <= set(classes):
        return np.empty(0)
    wanted = np.array([classes.index(name) for name in names])[label]
    return np.asarray(seen.told == wanted, np.float64)


def _dimensions(mean: Array, kept: Array, density: Array) -> tuple[Dimension, ...]:
    sd = mean.std(0)
    return tuple(Dimension(int(dim), float(sd[dim]), float((q < q.mean() / 10).mean()),
                           int(q.argmin())) for dim, q in zip(kept, density.T, strict=True))


def _clusters(mean: Array, codes: Array, rank: Array, seed: int) -> tuple[Cluster, ...]:
    order = _rarest_first(rank)
    rare, common = order[:rarest_count(len(rank))], np.sort(order[len(rank) // 2:])
    found = isolation.groups(codes[rare], seed)
    return tuple(_cluster(rare[found == k], common, mean, codes)
                 for k in range(int(found.max()) + 1))


def _cluster(items: Array, common: Array, mean: Array, codes: Array) -> Cluster:
    rest = np.delete(mean, items, 0)
    apart = (mean[items].mean(0) - rest.mean(0)) / np.maximum(mean.std(0), rarity.TINY)
    named = np.argsort(-np.abs(apart), kind="stable")[:NAMED]
    centre = codes[items].mean(0, keepdims=True)
    near = common[nearest(centre, codes[common], min(NEAR, len(common)))[1][0]]
    way = walk(mean[near].mean(0), mean[items].mean(0), STEPS)
    return Cluster(items, tuple((int(d), float(apart[d])) for d in named), near, way)


def _groups(rank: Array, weights: Array, label: Array | None, names: Sequence[str],
            held: dict[str, Array]) -> Iterator[Group]:
    if label is None:
        return
    rarest = np.zeros(len(rank))
    rarest[_rarest_first(rank)[:rarest_count(len(rank))]] = 1
    for code, name in enumerate(names):
        mine = label == code
        if mine.any():
            more = {k: float(v[mine].mean()) if v.size else None for k, v in held.items()}
            yield Group(str(name), int(mine.sum()), float(mine.mean()), float(rank[mine].mean()),
                        float(rarest[mine].mean()), float(weights[mine].mean()), **more)


def _spread(groups: Sequence[Group], name: str, sign: int) -> Spread:
    values = np.array([getattr(group, name) for group in groups], np.float64)
    worst = int(np.argmax(sign * values))
    return Spread(groups[worst].name, float(values[worst]), float(values.var()))


def _notes(kept: Array, latent_dim: int, label: Array | None) -> Iterator[str]:
    silent = np.setdiff1d(np.arange(latent_dim), kept)
    if len(silent):
        listed = ", ".join(f"z{d}" for d in silent[:12]) + (" …" if len(silent) > 12 else "")
        yield (f"{len(silent)} of {latent_dim} dimensions of the code do not vary with the items "
               f"and are left out: {listed}")
    if label is None:
        yield "The items have no labels: nothing is said of given groups."
    elif len(np.unique(label[label >= 0])) == 1:
        yield "All items are of one group: there is nothing to compare it with."
