"""The HTML report of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from latlas.core.model import Model
from latlas.data.dataset import Dataset
from latlas.data.tables import as_read
from latlas.render import plots
from latlas.render.html import Cell, Facts, Figure, Notes, Row, Section, Table, page
from latlas.verbs.audit_result import RAREST, Audit, Cluster
from latlas.verbs.common import Array
from latlas.verbs.passes import can, decoded, evenly_spaced, examples_of
from latlas.verbs.sections import examples_figure, grid_picture, plot_figure, provenance

#: examples of a gallery, of a cluster's, and dimensions whose latents are drawn
GALLERY, FEW, DRAWN = 64, 25, 4
#: rows and columns of a table that are listed, and columns that tell a group of rows
ROWS, COLUMNS, TELLING = 8, 8, 5
#: what the groups of one kind of data have besides
MORE = {"image": "; the path leads from the common examples to its middle, decoded.",
        "table": ", and for the columns."}
#: points that stand for all examples in a plot
POINTS = 2000


def build_page(audit: Audit, model: Model, data: Dataset, *, title: str, command: str = "",
               seed: int = 0, facts: Mapping[str, str] | None = None) -> str:
    """One self-contained page: galleries, clusters with the path to each, dimensions, groups."""
    parts = [_summary(audit), _galleries(audit, data), _clusters(audit, model, data),
             _dimensions(audit, data), *([_groups(audit)] if audit.groups else []),
             provenance(command, seed, facts or {})]
    what = {"image": "images", "table": "rows", "points": "points"}[data.space.kind]
    subtitle = (f"{len(data):,} {what}: which are rare by the latents of the model or as they are, "
                "what they share, and how groups of them compare.")
    return page(title, subtitle, parts, "One file: no script, no network. Made by latlas.")


def strip(model: Model, cluster: Cluster) -> Array | None:
    """(steps, \\*shape) examples decoded on the path to a cluster; ``None`` without a decoder."""
    return decoded(model, cluster.path) if can(model, "decode") else None


def _summary(audit: Audit) -> Section:
    lines = {"rarest": f"{len(audit.rarest):,} examples, {RAREST:.0%} of all, in "
                       f"{len(audit.clusters)} group{'s' if len(audit.clusters) > 1 else ''}",
             "dimensions": f"{len(audit.dimensions)} that vary with the examples",
             "weights": audit.weights.words.removeprefix("weights: ")}
    lines |= {f"worst by {name}": f"{spread.worst} ({_number(spread.value)}; variance between "
                                  f"groups {_number(spread.variance)})"
              for name, spread in audit.spread.items()}
    return Section("Summary", "", [Facts(lines), Notes(audit.notes)])


def _galleries(audit: Audit, data: Dataset) -> Section:
    ends = {"The rarest": audit.order, "The commonest": audit.order[::-1]}
    figures = [_gallery(data, rows[:GALLERY], title, f"{title.lower()} first")
               for title, rows in ends.items()]
    walk = ("" if audit.by_walk is None else
            ", or where a walk from neighbour to neighbour seldom passes")
    text = ("Rare is what is isolated, by its latent vector or as it is: far from its 5th, 10th or "
            f"30th neighbour{walk}.")
    if data.space.kind != "table":
        return Section("The rarest and the commonest", text, [Row(figures, 2)])
    cells: list[list[Cell]] = []
    names: list[str] = []
    for title, rows in ends.items():  # the first columns that the file had
        columns = as_read(examples_of(data.subset(rows[:ROWS])), data.space)
        names = list(columns)[:COLUMNS]
        cells += [[Cell(title)], *([Cell(_name(data, row)), *(_value(columns[n][i]) for n in names)]
                                   for i, row in enumerate(rows[:ROWS]))]
    return Section("The rarest and the commonest", text,
                   [Row(figures, 2), Table(["row", *names], cells)])


def _clusters(audit: Audit, model: Model, data: Dataset) -> Section:
    parts: list[Row | Table] = []
    table = examples_of(data).astype(np.float64) if data.space.kind == "table" else None
    for number, cluster in enumerate(audit.clusters, 1):
        rows = cluster.examples
        parts.append(Row([
            _gallery(data, rows[:FEW], f"Group {number}",
                     f"{len(rows):,} examples, {len(rows) / len(data):.2%} of all, "
                     f"{audit.share_by_latent(rows):.0%} of them rarer by latent vector than as "
                     "they are; the rarest first"),
            _gallery(data, cluster.common, f"Common examples near group {number}",
                     "the nearest first")], 2))
        if table is not None:
            parts.append(_telling(rows, table, data.space.columns))
        parts.append(Table(["dimension", *(f"z{dim}" for dim, _ in cluster.apart)],
                           [[Cell("standard deviations apart"),
                             *(Cell(f"{value:+.2f}") for _, value in cluster.apart)]]))
        steps = strip(model, cluster) if data.space.kind == "image" else None
        if steps is not None:
            parts.append(Row([Figure(
                grid_picture(steps, data.space, len(steps)), f"To group {number}",
                "from the common examples on the left to its middle on the right")], 1))
    return Section("Groups of rare examples", f"The rarest {RAREST:.0%} by where their latents "
                   "lie. Beside each group the common examples nearest to it. The tables have how "
                   "far its mean is from that of all other examples, for the latent dimensions "
                   "that tell it best" + MORE.get(data.space.kind, "."), parts)


def _telling(rows: Array, x: Array, columns: Sequence[str]) -> Table:
    """The columns in which a group's rows differ most from all others; of words their shares."""
    mine, rest = x[rows].mean(0), np.delete(x, rows, 0).mean(0)
    apart = (mine - rest) / np.maximum(x.std(0), np.finfo(float).tiny)
    most = np.argsort(-np.abs(apart), kind="stable")[:TELLING]
    return Table(["column", "mean of the group", "mean of all others", "standard deviations apart"],
                 [[Cell(columns[i]), Cell(_amount(mine[i])), Cell(_amount(rest[i])),
                   Cell(f"{apart[i]:+.2f}")] for i in most])


def _dimensions(audit: Audit, data: Dataset) -> Section:
    order = np.argsort([-d.thin for d in audit.dimensions], kind="stable")
    figures = []
    for i in order[:DRAWN]:
        dim = audit.dimensions[i].dim
        sets = {"all examples": audit.latents[:, dim],
                "the rarest": audit.latents[audit.rarest, dim]}
        figures.append(plot_figure(plots.histograms, sets, title=f"z{dim}", caption="",
                                   x="latent"))
    rows = [[Cell(f"z{d.dim}"), Cell(_number(d.sd)), Cell(f"{d.thin:.2%}"),
             Cell(_name(data, d.rarest))] for d in (audit.dimensions[i] for i in order)]
    return Section("Dimensions", "Where single latent dimensions are thin: the share of examples "
                   "that lie where there is less than a tenth of the mean density of that "
                   "dimension's histogram, and the example where there is least.",
                   [Row(figures, 2), Table(["dimension", "standard deviation", "share in thin "
                                            "parts", "rarest example"], rows)])


def _groups(audit: Audit) -> Section:
    heads = {"count": "examples", "share": "share", "rarity": "mean rarity",
             "rarest": "among the rarest", "lift": "weight lift", "error": "reconstruction error",
             "nats": "nats", "accuracy": "accuracy"}
    columns = [k for k in heads if getattr(audit.groups[0], k) is not None]
    rows = []
    for group in audit.groups:
        cells = [Cell(group.name)]
        for key in columns:
            value = getattr(group, key)
            worst = key in audit.spread and audit.spread[key].worst == group.name
            cells.append(Cell(f"{value:,}" if key == "count" else f"{value:.2%}" if key in (
                "share", "rarest", "accuracy") else _number(value), "flag" if worst else ""))
        rows.append(cells)
    rows.append([Cell("variance between groups"), *(
        Cell(_number(audit.spread[k].variance) if k in audit.spread else "") for k in columns)])
    return Section("Groups by label", "Mean rarity is 0.5 for examples like all others; "
                   f"{RAREST:.0%} of a group are among the rarest by chance. Weight lift: the mean "
                   "weight of its examples, 1 over all. The worst group of a measure is marked.",
                   [Table(["group", *(heads[k] for k in columns)], rows)])


def _gallery(data: Dataset, rows: Array, title: str, caption: str) -> Figure:
    x = examples_of(data.subset(rows))
    if data.space.kind == "image":
        return examples_figure(x, data.space, title, caption)
    return examples_figure(x, data.space, title, caption, examples_of(evenly_spaced(data, POINTS)),
                           "all examples")


def _name(data: Dataset, row: int) -> str:
    names = data.take("names")
    return str(row if names is None else names[row])


def _value(value: object) -> Cell:
    return Cell("" if value is None else value if isinstance(value, str) else
                _amount(float(str(value))))


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _number(value: float) -> str:
    return f"{value:,.4g}"
