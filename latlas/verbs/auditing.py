"""What an audit looks at, the data and a model's views of them; and its HTML report."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from latlas.core.distributions import Normal
from latlas.core.errors import ConfigError, DataError, say_option, unknown
from latlas.core.model import Model
from latlas.data.dataset import Dataset, encode_labels
from latlas.data.fitting import (
    as_source,
    conform,
    is_arrays,
    open_examples,
    with_own_labels,
)
from latlas.data.frames import is_frame
from latlas.data.pairs import first_side
from latlas.data.tables import as_read, kinds_of
from latlas.metrics.features import outlines
from latlas.metrics.outliers import Axes
from latlas.render import plots
from latlas.render.html import Cell, Facts, Figure, Notes, Row, Section, Table, page
from latlas.run import Run
from latlas.verbs.common import Array
from latlas.verbs.passes import can, decoded, evenly_spaced, examples_of, in_order, inference
from latlas.verbs.sections import examples_figure, grid_picture, plot_figure, provenance

#: images are compared on thumbnails of at most so many pixels a side, and by the axes of so many
THUMBNAIL, FITTED = 32, 10_000
#: range of the outlines of images below which it is rounding
FAINT = 1e-3
#: examples of a gallery, of a cluster's, and dimensions whose latents are drawn
GALLERY, FEW, DRAWN = 64, 25, 4
#: rows and columns of a table that are listed, and columns that tell a group of rows
ROWS, COLUMNS, TELLING = 8, 8, 5
#: what the groups of one kind of data have besides
MORE = {"image": "; the path leads from the common examples to its middle, decoded.",
        "table": ", and for the columns."}
#: points that stand for all examples in a plot
POINTS = 2000


def open_grouped(run: Run, data: Any, split: str, group: str | None,
                 read: dict[str, Any]) -> tuple[Dataset, Array | None, tuple[str, ...]]:
    """The examples without their labels, the group of each, the groups' names.

    Args:
        data: labels of a pair (array, labels) may be any numbers or words, one for each example.
        group: a factor or column of the data that groups them; ``None``: their labels.

    ConfigError: no such factor or column. DataError: labels of another number than the examples.
    """
    if is_arrays(data) and not is_frame(data):
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
    source = with_own_labels(as_source(data, run, **read), run)
    examples = first_side(source.split(split))
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
    return (conform(replace(examples, label=None), run.space, source.name), label, tuple(names))


def views_of(model: Any, data: Dataset, count: Callable[[int], None]) -> list[Array]:
    """Mean and log variance of q(z|x), squared error, predicted class, numbers and outlines of
    every example, (n, …) each; without columns where the model cannot tell."""
    def numbers(value: Tensor | None, n: int) -> Array:
        return np.empty((n, 0)) if value is None else value.double().cpu().numpy()

    def looks(x: Tensor) -> tuple[Array, Array]:
        """(n, d) numbers, of images as thumbnails, and (n, k) their outlines, else none."""
        if x.dim() != 4:
            return x.flatten(1).cpu().numpy(), np.empty((len(x), 0))
        height, width = (min(side, THUMBNAIL) for side in x.shape[2:])
        small = adaptive_avg_pool2d(x, (height, width))
        return small.flatten(1).cpu().numpy(), outlines(small).cpu().numpy()

    parts = []
    with inference(model):
        some = [looks(batch.x) for batch in in_order(model, evenly_spaced(data, FITTED))]
        flat, outline = (np.concatenate(look) for look in zip(*some, strict=True))
        varies = outline.size and np.ptp(outline, 0).max() > FAINT
        axes = Axes.of(flat), Axes.of(outline) if varies else Axes(outline[0], outline[:0])
        for batch in in_order(model, data):
            q = model.encode(batch.x)
            error = code = None
            if can(model, "decode"):
                difference = model.decode(q.mean).mean.float() - batch.x.float()
                error = difference.square().flatten(1).mean(1)
            if can(model, "classify"):
                code = model.classify(batch.x).argmax(1)
            log_var = q.log_var.expand_as(q.mean) if isinstance(q, Normal) else None
            parts.append([*(numbers(v, len(batch)) for v in (q.mean, log_var, error, code)),
                          *(on(look) for on, look in zip(axes, looks(batch.x), strict=True))])
            count(len(batch))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


# ------------------------------------------------------------------------------ the report

def build_page(audit: Any, model: Model, data: Dataset, *, title: str, command: str = "",
               seed: int = 0) -> str:
    """One self-contained page about an ``Audit``: galleries, clusters with the path to each,
    dimensions, groups."""
    n = len(audit.clusters)
    lines = {"rarest": f"{len(audit.rarest):,} examples, {audit.RAREST:.0%} of all, in "
                       f"{n} group{'s' if n > 1 else ''}",
             "dimensions": f"{len(audit.dimensions)} that vary with the examples",
             "weights": audit.weights.words.removeprefix("weights: ")}
    lines |= {f"worst by {name}": f"{spread.worst} ({spread.value:,.4g}; variance between groups "
                                  f"{spread.variance:,.4g})"
              for name, spread in audit.spread.items()}
    figures, cells, names = [], list[list[Cell]](), list[str]()
    titles: Any = data.take("names") if data.names is not None else range(len(data))
    for end, rows in {"The rarest": audit.order, "The commonest": audit.order[::-1]}.items():
        figures.append(_gallery(data, rows[:GALLERY], end, f"{end.lower()} first"))
        if data.space.kind == "table":  # the first columns that the file had
            columns = as_read(examples_of(data.subset(rows[:ROWS])), data.space)
            names = list(columns)[:COLUMNS]
            cells.append([Cell(end)])
            for i, row in enumerate(rows[:ROWS]):
                values = [columns[name][i] for name in names]
                cells.append([Cell(str(titles[row])), *(
                    Cell("" if v is None else v if isinstance(v, str) else _amount(float(str(v))))
                    for v in values)])
    walk = ("" if audit.by_walk is None else
            ", or where a walk from neighbour to neighbour seldom passes")
    thinnest = sorted(audit.dimensions, key=lambda d: -d.thin)
    histograms = [plot_figure(plots.histograms, {
        "all examples": audit.latents[:, d.dim], "the rarest": audit.latents[audit.rarest, d.dim]},
        title=f"z{d.dim}", caption="", x="latent") for d in thinnest[:DRAWN]]
    dimensions = Table(
        ["dimension", "standard deviation", "share in thin parts", "rarest example"],
        [[Cell(f"z{d.dim}"), Cell(f"{d.sd:,.4g}"), Cell(f"{d.thin:.2%}"),
          Cell(str(titles[d.rarest]))] for d in thinnest])
    parts = [
        Section("Summary", "", [Facts(lines), Notes(audit.notes)]),
        Section("The rarest and the commonest", "Rare is what is isolated, by its latent vector or "
                f"as it is: far from its 5th, 10th or 30th neighbour{walk}.",
                [Row(figures, 2), *([Table(["row", *names], cells)] if cells else [])]),
        _clusters(audit, model, data),
        Section("Dimensions", "Where single latent dimensions are thin: the share of examples that "
                "lie where there is less than a tenth of the mean density of that dimension's "
                "histogram, and the example where there is least.",
                [Row(histograms, 2), dimensions]),
        *([_groups(audit)] if audit.groups else []), provenance(command, seed, {})]
    what = {"image": "images", "table": "rows", "points": "points"}[data.space.kind]
    subtitle = (f"{len(data):,} {what}: which are rare by the latents of the model or as they are, "
                "what they share, and how groups of them compare.")
    return page(title, subtitle, parts, "One file: no script, no network. Made by latlas.")


def _clusters(audit: Any, model: Model, data: Dataset) -> Section:
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
        if table is not None:  # the columns in which its rows differ most; of words their shares
            mine, rest = table[rows].mean(0), np.delete(table, rows, 0).mean(0)
            apart = (mine - rest) / np.maximum(table.std(0), np.finfo(float).tiny)
            parts.append(Table(
                ["column", "mean of the group", "mean of all others", "standard deviations apart"],
                [[Cell(data.space.columns[i]), Cell(_amount(mine[i])), Cell(_amount(rest[i])),
                  Cell(f"{apart[i]:+.2f}")]
                 for i in np.argsort(-np.abs(apart), kind="stable")[:TELLING]]))
        parts.append(Table(["dimension", *(f"z{dim}" for dim, _ in cluster.apart)],
                           [[Cell("standard deviations apart"),
                             *(Cell(f"{value:+.2f}") for _, value in cluster.apart)]]))
        if data.space.kind == "image" and can(model, "decode"):
            steps = decoded(model, cluster.path)
            parts.append(Row([Figure(
                grid_picture(steps, data.space, len(steps)), f"To group {number}",
                "from the common examples on the left to its middle on the right")], 1))
    return Section("Groups of rare examples", f"The rarest {audit.RAREST:.0%} by where their "
                   "latents lie. Beside each group the common examples nearest to it. The tables "
                   "have how far its mean is from that of all other examples, for the latent "
                   "dimensions that tell it best" + MORE.get(data.space.kind, "."), parts)


def _groups(audit: Any) -> Section:
    heads = {"count": "examples", "share": "share", "rarity": "mean rarity",
             "rarest": "among the rarest", "lift": "weight lift", "error": "reconstruction error",
             "nats": "nats", "accuracy": "accuracy"}
    columns = [k for k in heads if getattr(audit.groups[0], k) is not None]
    spread, rows = audit.spread, []
    for group in audit.groups:
        cells = [Cell(group.name)]
        for key in columns:
            value = getattr(group, key)
            form = ",d" if key == "count" else ".2%" if key in (
                "share", "rarest", "accuracy") else ",.4g"
            worst = key in spread and spread[key].worst == group.name
            cells.append(Cell(f"{value:{form}}", "flag" if worst else ""))
        rows.append(cells)
    rows.append([Cell("variance between groups"), *(
        Cell(f"{spread[k].variance:,.4g}" if k in spread else "") for k in columns)])
    return Section("Groups by label", "Mean rarity is 0.5 for examples like all others; "
                   f"{audit.RAREST:.0%} of a group are among the rarest by chance. Weight lift: "
                   "the mean weight of its examples, 1 over all. The worst group of a measure is "
                   "marked.", [Table(["group", *(heads[k] for k in columns)], rows)])


def _gallery(data: Dataset, rows: Array, title: str, caption: str) -> Figure:
    x = examples_of(data.subset(rows))
    behind = x if data.space.kind == "image" else examples_of(evenly_spaced(data, POINTS))
    return examples_figure(x, data.space, title, caption, behind, "all examples")


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
