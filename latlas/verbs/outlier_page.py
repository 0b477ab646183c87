"""The page of the most outlying rows of a table: reasons, and the distributions behind them."""

from __future__ import annotations

from typing import Any

import numpy as np

from latlas.core.mixed import GAP
from latlas.render import html, plots
from latlas.verbs.outlier_data import REASONS
from latlas.verbs.table_outliers import written

#: rows of the page, and columns whose distributions are drawn
ROWS, COLUMNS = 25, 12


def build_page(result: Any) -> str:
    """One file, of :class:`latlas.verbs.outliers.Outliers`: the first rows with their reasons, and
    each column that is one."""
    first = result.order[:ROWS]
    named = result.as_columns()
    head = ["rank", "example", "score", *(f"reason {i + 1}" for i in range(REASONS))]
    rows = [[html.Cell(f"{named[h][i]:.3f}" if h == "score" else str(named[h][i]),
                       "flag" if h == "score" and result.flag[row] else "") for h in head]
            for i, row in enumerate(first)]
    sections = [
        html.Section("Rows", "The most outlying first; a score in colour is above the threshold. "
                     "Nats are how much less probable a value is than one that is usual in its "
                     "column, alone and beside the row's other values.", [html.Table(head, rows)]),
        html.Section("Distributions", "Shares of the training rows on a root scale; lines are the "
                     "rows above, by rank.", [html.Row(_figures(result, first))])]
    return html.page("Outliers", result.text().split("\n")[0], sections,
                     "One file: no script, no network. Made by latlas.")


def _figures(result: Any, first: Any) -> list[html.Figure]:
    """Of each column that is a reason its values in training, and those of the rows."""
    normality = result.normality
    assert normality is not None and result.examples is not None
    train, rows = normality.rows, normality.read(result.examples.subset(first))
    ranks: dict[str, list[int]] = {}
    for rank, row in enumerate(first):
        for reason in result.reasons[row]:
            ranks.setdefault(reason.column, []).append(rank)
    figures, p = [], train.numbers.shape[1]
    for name in sorted(ranks, key=lambda n: ranks[n][0])[:COLUMNS]:
        j = train.names.index(name)
        column = next(c for c in normality.fields if c.name == name)
        if j < p:
            words: tuple[str, ...] = ()
            values, own = (r.numbers[:, j] + column.offset for r in (train, rows))
            values, axis = values[~np.isnan(values)], "days since 1970" * (column.kind == "date")
        else:
            words, axis = normality.words_of(column), ""
            values, own = train.codes[:, j - p], rows.codes[:, j - p]
            values = values[values != GAP]
        marks = {str(rank + 1): float(own[rank]) for rank in ranks[name][:8]}
        caption = "; ".join(f"{rank + 1}: " + (written(
            rows.numbers[rank, j], column) if j < p else words[int(own[rank])])
            for rank in ranks[name][:8])
        light, dark = (plots.marked(values, marks, x=axis, words=words, dark=d)
                       for d in (False, True))
        figures.append(html.Figure(light, name, caption, dark))
    return figures
