"""What an audit says: the rarity of examples, clusters of rare ones, groups and their spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from latlas.metrics.rarity import Guarded
from latlas.render.text import counted
from latlas.verbs.common import Array, Result

#: share of the examples that counts as the rarest, and as the commonest
RAREST = 0.05


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
class Audit(Result):
    """What is rare, or under-represented, among n examples.

    Attributes:
        latents: (n, latent_dim) means of q(z|x).
        rarity: (n,) rank of the greatest of the next three, 0 … 1; 1 is the rarest. Near the top
            the walk counts for as much as the two others together.
        by_latent: (n,) rank of how isolated an example is among the model's latents, 0 … 1.
        by_example: (n,) rank of how isolated it is among the examples as they are, 0 … 1.
        by_walk: (n,) rank of how seldom a walk over images of like outlines visits it, 0 … 1;
            ``None`` for what is no image.
        density: (n, k) histogram density of each standardised dimension of ``dimensions``.
        weights: by the product of those densities, with their effective sample.
        clusters: of the rarest 5%, the largest first.
        label: (n,) group of each example, an index into ``names``.
        groups: in the order of ``names``.
        notes: what was left out, and why.
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
    clusters: tuple[Cluster, ...]
    label: Array | None = None
    names: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()
    file_names: Any = None
    page: Callable[[Audit], str] | None = None
    #: measures by which groups are compared: the sign of what is worse
    worse: ClassVar[dict[str, int]] = {"accuracy": -1, "nats": -1, "error": 1, "rarity": 1}

    @property
    def order(self) -> Array:
        """(n,) rows, the rarest first."""
        return rarest_first(self.rarity)

    @property
    def rarest(self) -> Array:
        """Rows of the rarest 5%, the rarest first."""
        return self.order[:rarest_count(len(self.rarity))]

    @property
    def cluster(self) -> Array:
        """(n,) number of the cluster each example is in, −1 for none."""
        numbers = np.full(len(self.rarity), -1, np.int64)
        for number, cluster in enumerate(self.clusters):
            numbers[cluster.examples] = number
        return numbers

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
        as_they_are = either(self.by_example, self.by_walk)
        return float((self.by_latent[rows] >= as_they_are[rows]).mean())

    def table(self) -> dict[str, Array]:
        """One row per example, the rarest first."""
        order = self.order
        titles = np.arange(len(order)) if self.file_names is None else np.asarray(self.file_names)
        columns = {"rank": np.arange(1, len(order) + 1), "example": titles[order],
                   "rarity": self.rarity[order], "by_latent": self.by_latent[order],
                   "by_example": self.by_example[order]}
        if self.by_walk is not None:
            columns["by_walk"] = self.by_walk[order]
        columns |= {"weight": self.weights.weights[order], "cluster": self.cluster[order]}
        if self.label is not None:
            columns["group"] = np.asarray(self.names)[self.label[order]]
        return columns | {f"density_z{d.dim}": self.density[order, i]
                          for i, d in enumerate(self.dimensions)}

    def facts(self) -> dict[str, Any]:
        """All but what is one number per example, which :meth:`table` has."""
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
        from latlas.render.text import table

        lines = [f"{counted(len(self.rarity), 'example')}; the rarest {len(self.rarest):,} in "
                 f"{counted(len(self.clusters), 'group')} of "
                 f"{', '.join(f'{len(c.examples):,}' for c in self.clusters)}", self.weights.words]
        if self.groups:
            heads = {"count": "examples", "rarity": "mean rarity", "rarest": "among the rarest",
                     "lift": "weight lift", "error": "error", "nats": "nats",
                     "accuracy": "accuracy"}
            columns = [k for k in heads if getattr(self.groups[0], k) is not None]
            lines.append(table(["group", *(heads[k] for k in columns)], [
                [g.name, *(f"{getattr(g, k):,}" if k == "count" else f"{getattr(g, k):.4g}"
                           for k in columns)] for g in self.groups]))
        lines += [f"worst by {name}: {s.worst} ({s.value:.4g}; variance between groups "
                  f"{s.variance:.4g})" for name, s in self.spread.items()]
        return "\n".join([*lines, *self.notes])

    def save(self, path: str | Path) -> str:
        """A folder with report.html, audit.json and examples.csv; or the table by its suffix."""
        from latlas.core.files import save_json
        from latlas.verbs import write

        if not write.is_folder(path):
            return write.write_table(path, self.table())
        folder, lines = Path(path), []
        if self.page is not None:
            write.write_bytes(folder / "report.html", self.page(self).encode("utf-8"))
            lines.append(f"wrote {folder / 'report.html'}")
        folder.mkdir(parents=True, exist_ok=True)
        save_json(folder / "audit.json", self.facts())
        return "\n".join([*lines, f"wrote {folder / 'audit.json'}",
                          write.write_table(folder / "examples.csv", self.table())])


def either(alone: Array, by_walk: Array | None) -> Array:
    """The greater of two ranks, where the walk has twice the say near the top."""
    return alone if by_walk is None else np.maximum(alone, (1 + by_walk) / 2)


def rarest_first(rank: Array) -> Array:
    """(n,) rows by their rank in rarity."""
    return np.argsort(-rank, kind="stable")


def rarest_count(n: int) -> int:
    """How many of n examples are the rarest 5%."""
    return max(1, round(RAREST * n))
