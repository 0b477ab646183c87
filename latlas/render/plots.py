"""Plots as PNG bytes. Matplotlib is imported when a plot is drawn.

Colours are Okabe and Ito's, which stay apart for colour-blind readers (but for their yellow, which
vanishes on white); kinds differ in their marker too. Every plot can be drawn for a dark page.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#882255", "#8c8c8c",
           "#7a4fbf", "#6b8e23")
MARKERS = "osD^vP<Xp>"
DPI = 144


def style(dark: bool) -> dict[str, Any]:
    """Matplotlib settings: no box, thin grid, transparent ground, ink that suits the page."""
    ink, faint = ("#d8dce2", "#3a4048") if dark else ("#2a2f36", "#dfe3e8")
    return {"font.size": 10, "font.family": "DejaVu Sans", "axes.edgecolor": faint,
            "axes.labelcolor": ink, "text.color": ink, "xtick.color": ink, "ytick.color": ink,
            "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
            "grid.color": faint, "grid.linewidth": 0.7, "axes.axisbelow": True,
            "legend.frameon": False, "figure.facecolor": "none", "axes.facecolor": "none",
            "savefig.facecolor": "none", "axes.titlesize": 10, "axes.titleweight": "bold"}


def curves(series: Mapping[str, tuple[Array, Array]], *, x: str = "examples seen", y: str = "",
           log_x: bool = False, dark: bool = False, size: tuple[float, float] = (7.2, 3.4)
           ) -> bytes:
    """Lines by name, each ((n,), (n,)). Names with ``validation`` are dashed and thicker."""
    def draw(axes: Any) -> None:
        terms = list(dict.fromkeys(map(_term, series)))
        for name, (a, b) in series.items():
            prefixed = name != _term(name)
            axes.plot(a, b, color=COLOURS[terms.index(_term(name)) % len(COLOURS)],
                      linestyle="--" if prefixed else "-", linewidth=2.2 if prefixed else 1.3,
                      marker="o" if len(a) == 1 else None, label=_title(name))
        axes.set(xlabel=x, ylabel=y, **({"xscale": "log"} if log_x else {}))
        axes.set_ylim(*_limits(list(series.values())))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(loc="best")
    return _one(draw, dark, size)


def _term(name: str) -> str:
    """``validation/loss`` is the held-out twin of ``loss`` and takes its colour."""
    return name.removeprefix("validation/")


def _title(name: str) -> str:
    return name if name == _term(name) else f"{_term(name)}, held out"


def _limits(series: Sequence[tuple[Array, Array]]) -> tuple[float | None, float | None]:
    """Bottom and top that the fall of the first steps does not stretch."""
    later = np.concatenate([b[a >= 0.04 * a.max()] for a, b in series if len(a)] or [np.empty(0)])
    if not len(later) or np.ptp(later) == 0:
        return None, None
    lowest, margin = min(b.min() for _, b in series if len(b)), 0.06 * np.ptp(later)
    return float(lowest - margin), float(later.max() + margin)


def scatter(points: Array, labels: Array | None = None, names: Sequence[str] = (), *,
            x: str = "", y: str = "", dark: bool = False,
            size: tuple[float, float] = (6.2, 5.6)) -> bytes:
    """(n, 2) points, coloured by integer ``labels`` with ``names``."""
    def draw(axes: Any) -> None:
        _dots(axes, points, labels, names)
        axes.set(xlabel=x, ylabel=y)
        if labels is not None and len(names) <= 24:
            axes.legend(markerscale=1.4, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _one(draw, dark, size)


def overlay(sets: Mapping[str, Array], *, x: str = "", y: str = "", dark: bool = False,
            size: tuple[float, float] = (5.6, 5.0)) -> bytes:
    """Several sets of (n, 2) points in one plot, by name."""
    def draw(axes: Any) -> None:
        for i, (name, points) in enumerate(sets.items()):
            axes.scatter(*points.T[:2], s=_dot(len(points)), color=COLOURS[i], label=name,
                         alpha=0.65, linewidths=0, marker=MARKERS[i])
        axes.set(xlabel=x, ylabel=y)
        axes.legend(markerscale=2)
    return _one(draw, dark, size)


def pairs(sets: Mapping[str, Array], columns: Sequence[str], *, most: int = 4,
          dark: bool = False) -> bytes:
    """Every pair of the first ``most`` columns of (n, d) sets; histograms on the diagonal."""
    k = min(most, len(columns))

    def draw(figure: Any) -> None:
        axes = figure.subplots(k, k, squeeze=False)
        for row in range(k):
            for column in range(k):
                _panel(axes[row, column], sets, row, column)
                _outer(axes[row, column], row, column, k, columns)
        if len(sets) > 1:
            figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center",
                          ncols=len(sets))
    return _figure(draw, dark, (1.0 + 1.9 * k, 0.9 + 1.75 * k))


def bars(values: Mapping[str, float], *, y: str = "", dark: bool = False,
         size: tuple[float, float] = (7.2, 2.6)) -> bytes:
    """One bar per name."""
    def draw(axes: Any) -> None:
        axes.bar(list(values), list(values.values()), color=COLOURS[0], width=0.75)
        axes.set(ylabel=y)
        axes.grid(axis="x", visible=False)
    return _one(draw, dark, size)


def plane(values: Array, picture: Array | None = None, *, span: float, label: str,
          middle: float | None = None, x: str = "", y: str = "", dark: bool = False,
          size: tuple[float, float] = (7.0, 5.6)) -> bytes:
    """A square of cells (s, s) by colour, −span … span between the centres of the outermost.

    Args:
        image: RGBA (H, W, 4) laid over the square, transparent where the colour is to show.
        middle: the value at which two hues meet; ``None`` for one scale from 0.
    """
    edge = span * len(values) / max(len(values) - 1, 1)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        image = axes.imshow(values, extent=(-edge, edge, -edge, edge), **_hues(values, middle))
        if picture is not None:
            axes.imshow(picture, extent=(-edge, edge, -edge, edge), interpolation="antialiased")
        angle = np.linspace(0, 2 * np.pi, 200)
        axes.plot(2 * np.cos(angle), 2 * np.sin(angle), color=COLOURS[5], linewidth=1.2)
        axes.set(xlabel=x, ylabel=y, aspect="equal")
        axes.grid(visible=False)
        figure.colorbar(image, label=label, extend="max")
    return _figure(draw, dark, size)


def _hues(values: Array, middle: float | None) -> dict[str, Any]:
    """Colours up to the 98% quantile, so that one odd cell leaves some for the others."""
    from matplotlib.colors import TwoSlopeNorm

    top = float(np.quantile(values[np.isfinite(values)], 0.98)) if values.size else 1.0
    if middle is None:
        return {"cmap": "viridis", "vmin": 0.0, "vmax": top or 1.0}
    return {"cmap": "PuOr_r", "norm": TwoSlopeNorm(middle, 0.0, max(2 * middle, top))}


def histograms(sets: Mapping[str, Array], *, x: str = "", mark: float | None = None,
               marked: str = "", log: bool = False, dark: bool = False,
               size: tuple[float, float] = (7.2, 3.4)) -> bytes:
    """Shares of (n,) values by name in the same fifty bins, and a dashed line at ``mark``.

    The last bin takes what lies beyond nearly all values, so that a few do not flatten the rest.
    ``log``: bins of equal ratio, for positive values.
    """
    def draw(axes: Any) -> None:
        edges = _edges(list(sets.values()), mark, log)
        for i, (name, values) in enumerate(sets.items()):
            axes.hist(np.clip(values, edges[0], edges[-1]), bins=edges, color=COLOURS[i],
                      label=name, weights=np.full(len(values), 1 / len(values)),
                      histtype="step" if i else "stepfilled", alpha=1.0 if i else 0.45, lw=1.6)
        if mark is not None:
            axes.axvline(mark, color=COLOURS[5], linestyle="--", lw=1.6, label=marked)
        axes.set(xlabel=x, ylabel="share", **({"xscale": "log"} if log else {}))
        axes.legend(loc="best")
    return _one(draw, dark, size)


def _edges(sets: Sequence[Array], mark: float | None, log: bool) -> Array:
    """To where each set has all but 2% of its values, and if ``log`` also from there."""
    low = min(float(np.quantile(values, 0.02 if log else 0.0)) for values in sets)
    top = max(float(np.quantile(values, 0.98)) for values in sets)
    top = top if mark is None else max(top, mark + 0.1 * abs(mark))
    if log and 0 < low < top:
        return np.geomspace(low, top, 51)
    return np.linspace(low, top if top > low else low + 1, 51)


def _panel(axes: Any, sets: Mapping[str, Array], row: int, column: int) -> None:
    every = np.concatenate([np.asarray(v)[:, column] for v in sets.values()])
    edges = np.histogram_bin_edges(every[np.isfinite(every)], 30)
    for i, (name, values) in enumerate(sets.items()):
        if row == column:
            axes.hist(values[:, row], bins=edges, color=COLOURS[i], label=name, density=True,
                      histtype="step" if i else "stepfilled", alpha=1.0 if i else 0.45, lw=1.6)
        else:
            axes.scatter(values[:, column], values[:, row], s=_dot(len(values)) * 0.6,
                         color=COLOURS[i], linewidths=0, alpha=0.5)


def _outer(axes: Any, row: int, column: int, k: int, columns: Sequence[str]) -> None:
    """Names at the left and bottom edge alone."""
    axes.set(xlabel=columns[column] if row == k - 1 else "", ylabel=columns[row] if column == 0
             else "")
    axes.locator_params(nbins=4)
    axes.tick_params(labelbottom=row == k - 1, labelleft=column == 0 and row > 0, labelsize=7)


def _dots(axes: Any, points: Array, labels: Array | None, names: Sequence[str]) -> None:
    kinds = [None] if labels is None else sorted(set(np.asarray(labels).tolist()))
    size = _dot(len(points))
    for i, kind in enumerate(kinds):
        chosen = points if kind is None or labels is None else points[labels == kind]
        name = str(names[kind]) if kind is not None and kind < len(names) else str(kind)
        axes.scatter(*chosen.T[:2], s=size, color=COLOURS[i % len(COLOURS)], label=name,
                     marker=MARKERS[i % len(MARKERS)] if len(points) < 3000 else "o",
                     alpha=0.8, linewidths=0)


def _dot(n: int) -> float:
    """Marker area that keeps ``n`` dots apart."""
    return float(np.clip(16000 / max(n, 1), 5, 34))


def _one(draw: Any, dark: bool, size: tuple[float, float]) -> bytes:
    return _figure(lambda figure: draw(figure.subplots()), dark, size)


def _figure(draw: Any, dark: bool, size: tuple[float, float]) -> bytes:
    """Draw on a figure that no window or global state knows of."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    settings: Any = style(dark)
    with rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
