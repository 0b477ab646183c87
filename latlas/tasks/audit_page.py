"""The HTML report of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from latlas.core.model import Model
from latlas.data.dataset import Dataset
from latlas.data.tables import as_read
from latlas.report import plots
from latlas.report.html import Cell, Facts, Figure, Notes, Row, Section, Table, page
from latlas.tasks.audit import RAREST, Audit, Cluster, Group, strip
from latlas.tasks.common import Array, items_of
from latlas.tasks.page import versions
from latlas.tasks.sections import grid_picture, items_figure, plot_figure

#: items of a gallery, of a cluster's, and dimensions whose codes are drawn
GALLERY, FEW, DRAWN = 64, 25, 4
#: rows and columns of a table that are listed, and columns that tell a group of rows
ROWS, COLUMNS, TELLING = 8, 8, 5
#: what the groups of one kind of data have besides
MORE = {"picture": "; the way leads from the common items to its middle, decoded.",
        "table": ", and for the columns."}
#: points that stand for all items in a plot
POINTS = 2000


def build_page(found: Audit, model: Model, data: Dataset, *, title: str, command: str = "",
               seed: int = 0, facts: Mapping[str, str] | None = None) -> str:
    """One self-contained page: galleries, clusters with the way to each, dimensions, groups."""
    parts = [_summary(found), _galleries(found, data), _clusters(found, model, data),
             _dimensions(found, data), *([_groups(found)] if found.groups else []),
             Section("How it was made", "", [Facts(
                 {"command": command, "seed": str(seed), **(facts or {}), "versions": versions()},
                 frozenset({"command"}))])]
    subtitle = (f"{len(data):,} {_words(data)}: which are rare by the codes of the model or as "
                "they are, what they share, and how groups of them fare.")
    return page(title, subtitle, parts, "One file: no script, no network. Made by latlas.")


def _words(data: Dataset) -> str:
    return {"picture": "pictures", "table": "rows", "points": "points"}[data.space.kind]


def _summary(found: Audit) -> Section:
    weights = found.weights
    lines = {"rarest": f"{len(found.rarest):,} items, {RAREST:.0%} of all, in "
                       f"{len(found.clusters)} group{'s' if len(found.clusters) > 1 else ''}",
             "dimensions": f"{len(found.dimensions)} that vary with the items",
             "weights": weights.words.removeprefix("weights: ")}
    lines |= {f"worst by {name}": f"{spread.worst} ({_number(spread.value)}; variance between "
                                  f"groups {_number(spread.variance)})"
              for name, spread in found.spread.items()}
    return Section("Summary", "", [Facts(lines), Notes(found.notes)])


def _galleries(found: Audit, data: Dataset) -> Section:
    figures = [_shown(data, found.order[:GALLERY], "The rarest", "the rarest first"),
               _shown(data, found.order[::-1][:GALLERY], "The commonest", "the commonest first")]
    walk = ("" if found.by_walk is None else
            ", or where a walk from neighbour to neighbour seldom comes by")
    text = ("Rare is what stands alone, by its code or as it is: far from its 5th, 10th or 30th "
            f"neighbour{walk}.")
    listed = [_listed(found, data)] if data.space.kind == "table" else []
    return Section("The rarest and the commonest", text, [Row(figures, 2), *listed])


def _listed(found: Audit, data: Dataset) -> Table:
    """The first rows at either end, with the first columns that the file had."""
    rows: list[list[Cell]] = []
    names: list[str] = []
    for title, some in (("The rarest", found.order[:ROWS]),
                        ("The commonest", found.order[::-1][:ROWS])):
        columns = as_read(items_of(data.subset(some)), data.space)
        names = list(columns)[:COLUMNS]
        rows += [[Cell(title)], *([Cell(_name(data, row)), *(_value(columns[n][i]) for n in names)]
                                  for i, row in enumerate(some))]
    return Table(["row", *names], rows)


def _value(value: object) -> Cell:
    return Cell("" if value is None else value if isinstance(value, str) else
                _amount(float(str(value))))


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _clusters(found: Audit, model: Model, data: Dataset) -> Section:
    rows: list[Row | Table] = []
    table = items_of(data).astype(np.float64) if data.space.kind == "table" else None
    for number, cluster in enumerate(found.clusters, 1):
        rows.append(Row(_cluster(number, cluster, found, data), 2))
        rows += [] if table is None else [_telling(cluster, table, data.space.columns)]
        rows.append(_apart(cluster))
        way = strip(model, cluster) if data.space.kind == "picture" else None
        if way is not None:
            rows.append(Row([_way(number, way, data)], 1))
    return Section("Groups of rare items", f"The rarest {RAREST:.0%} by where their codes lie. "
                   "Beside each group the common items nearest to it. The tables have how far its "
                   "mean is from that of all other items, for the dimensions of the code that tell "
                   "it best" + MORE.get(data.space.kind, "."), rows)


def _cluster(number: int, cluster: Cluster, found: Audit, data: Dataset) -> list[Figure]:
    share, coded = len(cluster.items) / len(data), found.coded(cluster.items)
    return [_shown(data, cluster.items[:FEW], f"Group {number}",
                   f"{len(cluster.items):,} items, {share:.2%} of all, {coded:.0%} of them rarer "
                   "by code than as they are; the rarest first"),
            _shown(data, cluster.common, f"Common items near group {number}", "the nearest first")]


def _way(number: int, way: Array, data: Dataset) -> Figure:
    return Figure(grid_picture(way, data.space, len(way)), f"To group {number}",
                  "from the common items on the left to its middle on the right")


def _apart(cluster: Cluster) -> Table:
    cells = [Cell(f"{value:+.2f}") for _, value in cluster.apart]
    return Table(["dimension", *(f"z{dim}" for dim, _ in cluster.apart)],
                 [[Cell("standard deviations apart"), *cells]])


def _telling(cluster: Cluster, x: Array, columns: Sequence[str]) -> Table:
    """The columns in which a group's rows differ most from all others; of words their shares."""
    mine, rest = x[cluster.items].mean(0), np.delete(x, cluster.items, 0).mean(0)
    apart = (mine - rest) / np.maximum(x.std(0), np.finfo(float).tiny)
    most = np.argsort(-np.abs(apart), kind="stable")[:TELLING]
    return Table(["column", "mean of the group", "mean of all others", "standard deviations apart"],
                 [[Cell(columns[i]), Cell(_amount(mine[i])), Cell(_amount(rest[i])),
                   Cell(f"{apart[i]:+.2f}")] for i in most])


def _dimensions(found: Audit, data: Dataset) -> Section:
    order = np.argsort([-d.thin for d in found.dimensions], kind="stable")
    figures = []
    for i in order[:DRAWN]:
        dim = found.dimensions[i].dim
        sets = {"all items": found.codes[:, dim], "the rarest": found.codes[found.rarest, dim]}
        figures.append(plot_figure(plots.histograms, sets, title=f"z{dim}", caption="", x="code"))
    rows = [[Cell(f"z{d.dim}"), Cell(_number(d.sd)), Cell(f"{d.thin:.2%}"),
             Cell(_name(data, d.rarest))] for d in (found.dimensions[i] for i in order)]
    return Section("Dimensions", "Where single dimensions of the code are thin: the share of items "
                   "that lie where there is less than a tenth of the mean density of that "
                   "dimension's histogram, and the item where there is least.",
                   [Row(figures, 2), Table(["dimension", "standard deviation", "share in thin "
                                            "parts", "rarest item"], rows)])


def _groups(found: Audit) -> Section:
    heads = {"count": "items", "share": "share", "rarity": "mean rarity",
             "rarest": "among the rarest", "lift": "weight lift", "error": "reconstruction error",
             "nats": "nats", "accuracy": "accuracy"}
    kept = [k for k in heads if getattr(found.groups[0], k) is not None]
    worst = {name: spread.worst for name, spread in found.spread.items()}
    rows = [[Cell(group.name), *(_cell(group, k, worst) for k in kept)] for group in found.groups]
    spread = [Cell("variance between groups"), *(
        Cell(_number(found.spread[k].variance) if k in found.spread else "") for k in kept)]
    return Section("Groups by label", "Mean rarity is 0.5 for items like all others; "
                   f"{RAREST:.0%} of a group are among the rarest by chance. Weight lift: the mean "
                   "weight of its items, 1 over all. The worst group of a measure is marked.",
                   [Table(["group", *(heads[k] for k in kept)], [*rows, spread])])


def _cell(group: Group, key: str, worst: Mapping[str, str]) -> Cell:
    value = getattr(group, key)
    shares = ("share", "rarest", "accuracy")
    text = f"{value:,}" if key == "count" else (
        f"{value:.2%}" if key in shares else _number(value))
    return Cell(text, "flag" if worst.get(key) == group.name else "")


def _shown(data: Dataset, rows: Array, title: str, caption: str) -> Figure:
    if data.space.kind == "picture":
        return items_figure(items_of(data.subset(rows)), data.space, title, caption)
    some = np.unique(np.linspace(0, len(data) - 1, min(POINTS, len(data))).astype(np.int64))
    return items_figure(items_of(data.subset(rows)), data.space, title, caption,
                        items_of(data.subset(some)), "all items")


def _name(data: Dataset, row: int) -> str:
    names = data.take("names")
    return str(row if names is None else names[row])


def _number(value: float) -> str:
    return f"{value:,.4g}"
