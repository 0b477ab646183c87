"""Plots as PNG bytes. Matplotlib is imported when a plot is drawn.

Colours are Okabe and Ito's, which stay apart for colour-blind readers (but for their yellow, which
vanishes on white); kinds differ in their marker too. Every plot can be drawn for a dark page.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#882255", "#8c8c8c",
           "#7a4fbf", "#6b8e23")
MARKERS = "osD^vP<Xp>"
DPI = 144


@contextmanager
def _canvas(dark: bool, size: tuple[float, float]) -> Iterator[tuple[Any, io.BytesIO]]:
    """A figure that no window or global state knows of, and the PNG that is there in the end. No
    box, thin grid, transparent ground, ink that suits the page."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink, faint = ("#d8dce2", "#3a4048") if dark else ("#2a2f36", "#dfe3e8")
    style: Any = {
        "font.size": 10, "font.family": "DejaVu Sans", "axes.edgecolor": faint,
        "axes.labelcolor": ink, "text.color": ink, "xtick.color": ink, "ytick.color": ink,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": faint, "grid.linewidth": 0.7, "axes.axisbelow": True,
        "legend.frameon": False, "figure.facecolor": "none", "axes.facecolor": "none",
        "savefig.facecolor": "none", "axes.titlesize": 10, "axes.titleweight": "bold"}
    png = io.BytesIO()
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, png
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})


def curves(series: Mapping[str, tuple[Array, Array]], *, x: str = "examples seen", y: str = "",
           dark: bool = False) -> bytes:
    """Lines by name, each ((n,), (n,)).

    ``validation/loss`` is the held-out twin of ``loss``: of its colour, dashed and thicker. The
    fall of the first steps does not stretch the vertical axis.
    """
    terms = list(dict.fromkeys(name.removeprefix("validation/") for name in series))
    with _canvas(dark, (7.2, 3.4)) as (figure, png):
        axes = figure.subplots()
        for name, (a, b) in series.items():
            term = name.removeprefix("validation/")
            line, width, label = ("-", 1.3, name) if name == term else (
                "--", 2.2, f"{term}, held out")
            axes.plot(a, b, color=COLOURS[terms.index(term) % len(COLOURS)], linestyle=line,
                      linewidth=width, marker="o" if len(a) == 1 else None, label=label)
        axes.set(xlabel=x, ylabel=y)
        lines = [line for line in series.values() if len(line[0])]
        later = np.concatenate([np.empty(0), *(b[a >= 0.04 * a.max()] for a, b in lines)])
        if len(later) and np.ptp(later):
            margin = 0.06 * np.ptp(later)
            axes.set_ylim(min(b.min() for _, b in lines) - margin, later.max() + margin)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(loc="best")
    return png.getvalue()


def scatter(points: Array, labels: Array | None = None, names: Sequence[str] = (), *,
            x: str = "", y: str = "", dark: bool = False) -> bytes:
    """(n, 2) points, coloured by integer ``labels`` with ``names``."""
    with _canvas(dark, (6.2, 5.6)) as (figure, png):
        axes = figure.subplots()
        for i, kind in enumerate([None] if labels is None else np.unique(labels).tolist()):
            chosen = points if kind is None else points[labels == kind]
            name = str(names[kind]) if kind is not None and kind < len(names) else str(kind)
            axes.scatter(*chosen.T[:2], s=_dot(len(points)), color=COLOURS[i % len(COLOURS)],
                         marker=MARKERS[i % len(MARKERS)] if len(points) < 3000 else "o",
                         label=name, alpha=0.8, linewidths=0)
        axes.set(xlabel=x, ylabel=y)
        if labels is not None and len(names) <= 24:
            axes.legend(markerscale=1.4, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png.getvalue()


def overlay(sets: Mapping[str, Array], *, x: str = "", y: str = "", dark: bool = False) -> bytes:
    """Several sets of (n, 2) points in one plot, by name."""
    with _canvas(dark, (5.6, 5.0)) as (figure, png):
        axes = figure.subplots()
        for i, (name, points) in enumerate(sets.items()):
            axes.scatter(*points.T[:2], s=_dot(len(points)), color=COLOURS[i], label=name,
                         alpha=0.65, linewidths=0, marker=MARKERS[i])
        axes.set(xlabel=x, ylabel=y)
        axes.legend(markerscale=2)
    return png.getvalue()


def pairs(sets: Mapping[str, Array], columns: Sequence[str], *, most: int = 4,
          dark: bool = False) -> bytes:
    """Every pair of the first ``most`` columns of (n, d) sets; histograms on the diagonal."""
    k = min(most, len(columns))
    with _canvas(dark, (1.0 + 1.9 * k, 0.9 + 1.75 * k)) as (figure, png):
        grid = figure.subplots(k, k, squeeze=False)
        for (row, column), axes in np.ndenumerate(grid):
            every = np.concatenate([np.asarray(v)[:, column] for v in sets.values()])
            edges = np.histogram_bin_edges(every[np.isfinite(every)], 30)
            for i, (name, values) in enumerate(sets.items()):
                if row == column:
                    _histogram(axes, values[:, row], edges, i, name, density=True)
                else:
                    axes.scatter(values[:, column], values[:, row], s=_dot(len(values)) * 0.6,
                                 color=COLOURS[i], linewidths=0, alpha=0.5)
            # names at the left and bottom edge alone
            axes.set(xlabel=columns[column] if row == k - 1 else "",
                     ylabel=columns[row] if column == 0 else "")
            axes.locator_params(nbins=4)
            axes.tick_params(labelbottom=row == k - 1, labelleft=column == 0 and row > 0,
                             labelsize=7)
        if len(sets) > 1:
            figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center",
                          ncols=len(sets))
    return png.getvalue()


def plane(values: Array, image: Array | None = None, *, span: float, label: str,
          middle: float | None = None, x: str = "", y: str = "", dark: bool = False) -> bytes:
    """A square of cells (s, s) by colour, −span … span between the centres of the outermost.

    Colours reach to the 98% quantile, so that one extreme cell leaves some for the others.

    Args:
        image: RGBA (H, W, 4) laid over the square, transparent where the colour is to show.
        middle: the value at which two hues meet; ``None`` for one scale from 0.
    """
    from matplotlib.colors import TwoSlopeNorm

    edge = span * len(values) / max(len(values) - 1, 1)
    top = float(np.quantile(values[np.isfinite(values)], 0.98)) if values.size else 1.0
    hues: dict[str, Any] = {"cmap": "viridis", "vmin": 0.0, "vmax": top or 1.0}
    if middle is not None:
        hues = {"cmap": "PuOr_r", "norm": TwoSlopeNorm(middle, 0.0, max(2 * middle, top))}
    angle = np.linspace(0, 2 * np.pi, 200)
    with _canvas(dark, (7.0, 5.6)) as (figure, png):
        axes = figure.subplots()
        cells = axes.imshow(values, extent=(-edge, edge, -edge, edge), **hues)
        if image is not None:
            axes.imshow(image, extent=(-edge, edge, -edge, edge), interpolation="antialiased")
        axes.plot(2 * np.cos(angle), 2 * np.sin(angle), color=COLOURS[5], linewidth=1.2)
        axes.set(xlabel=x, ylabel=y, aspect="equal")
        axes.grid(visible=False)
        figure.colorbar(cells, label=label, extend="max")
    return png.getvalue()


def geometry_map(*, dark: bool = False, **parts: Any) -> bytes:
    """:func:`draw_geometry` of these parts."""
    with _canvas(dark, (7.6, 5.8)) as (figure, png):
        draw_geometry(figure, dark=dark, **parts)
    return png.getvalue()


def draw_geometry(figure: Any, *, values: Array, extent: Sequence[float], codes: Array,
                  geodesics: Array, lines: Array, titles: Sequence[str],
                  label: Array | None = None, names: Sequence[str] = (),
                  dark: bool = False) -> None:
    """A plane of latents on a figure of matplotlib's: the logarithm of the magnification (s, s) in
    grey, from the lower left, codes (n, 2) by class, geodesics (p, t, 2) and the straight lines
    (p, 2, 2) between the same ends. ``titles`` are those of both axes and of the scale."""
    axes = figure.subplots()
    positive = values[values > 0]
    grey = np.log10(np.maximum(values, positive.min() if len(positive) else 1e-300))
    low, high = np.quantile(grey, [0.01, 0.99])
    cells = axes.imshow(grey, extent=extent, origin="lower", aspect="auto", alpha=0.8, vmin=low,
                        interpolation="bilinear", cmap="Greys_r" if dark else "Greys",
                        vmax=high if high > low else low + 1)
    for i, kind in enumerate([None] if label is None else np.unique(label).tolist()):
        chosen = codes if kind is None else codes[label == kind]
        name = "codes" if kind is None else str(names[kind]) if kind < len(names) else str(kind)
        axes.scatter(*chosen.T, s=0.5 * _dot(len(codes)), color=COLOURS[i % len(COLOURS)],
                     marker=MARKERS[i // len(COLOURS) % len(MARKERS)], label=name, linewidths=0,
                     alpha=0.85)
    edge, ink = ("black", "#ffd27f") if dark else ("white", "#111111")
    for i, (path, line) in enumerate(zip(geodesics, lines, strict=True)):
        axes.plot(*line.T, color=ink, linewidth=0.9, linestyle=(0, (3, 3)),
                  label="" if i else "straight line")
        axes.plot(*path.T, color=edge, linewidth=3.2)
        axes.plot(*path.T, color=ink, linewidth=1.6, label="" if i else "geodesic")
        axes.plot(*path[[0, -1]].T, "o", color=ink, markersize=4, markeredgecolor=edge)
    axes.set(xlabel=titles[0], ylabel=titles[1], xlim=extent[:2], ylim=extent[2:])
    axes.grid(visible=False)
    # below the plane: beside it the legend would come between the two
    figure.colorbar(cells, ax=axes, location="bottom", aspect=40, pad=0.02,
                    label=f"log₁₀ of the {titles[2]}")
    if len(names) <= 24:
        figure.legend(markerscale=1.6, loc="outside right upper", fontsize=8)


def histograms(sets: Mapping[str, Array], *, x: str = "", mark: float | None = None,
               marked: str = "", log: bool = False, dark: bool = False) -> bytes:
    """Shares of (n,) values by name in the same fifty bins, and a dashed line at ``mark``.

    The last bin takes what lies beyond all but 2% of the values of every set, so that a few do not
    flatten the rest. ``log``: bins of equal ratio, for positive values; the first bin too.
    """
    low = min(float(np.quantile(values, 0.02 if log else 0.0)) for values in sets.values())
    top = max(float(np.quantile(values, 0.98)) for values in sets.values())
    top = top if mark is None else max(top, mark + 0.1 * abs(mark))
    edges = np.linspace(low, top if top > low else low + 1, 51)
    if log and 0 < low < top:
        edges = np.geomspace(low, top, 51)
    with _canvas(dark, (7.2, 3.4)) as (figure, png):
        axes = figure.subplots()
        for i, (name, values) in enumerate(sets.items()):
            _histogram(axes, np.clip(values, edges[0], edges[-1]), edges, i, name,
                       weights=np.full(len(values), 1 / len(values)))
        if mark is not None:
            axes.axvline(mark, color=COLOURS[5], linestyle="--", lw=1.6, label=marked)
        axes.set(xlabel=x, ylabel="share", **({"xscale": "log"} if log else {}))
        axes.legend(loc="best")
    return png.getvalue()


def coloured(maps: Array) -> Array:
    """Maps (n, H, W) as pictures (n, 3, H, W) of 8 bits: dark up to 0, bright at the 99.5% quantile
    of all and beyond."""
    from matplotlib import colormaps

    top = float(np.quantile(maps, 0.995)) if maps.size else 1.0
    rgb = colormaps["inferno"](np.clip(maps / (top if top > 0 else 1.0), 0, 1))[..., :3]
    return np.asarray((255 * rgb).round().astype(np.uint8).transpose(0, 3, 1, 2))


def marked(values: Array, marks: Mapping[str, float], *, title: str = "", x: str = "",
           words: Sequence[str] = (), dark: bool = False) -> bytes:
    """How values (n,) are distributed, and where some stand among them, each with its name.

    Numbers are a histogram, on a logarithmic axis where they are positive and skewed; with
    ``words`` the values are their places, and each word has a bar. Shares are on a root scale, so
    that a mark beside few values is seen.
    """
    places = np.array(list(marks.values()))
    with _canvas(dark, (4.6, 2.6)) as (figure, png):
        axes = figure.subplots()
        if words:
            shares = np.bincount(values.astype(np.int64), minlength=len(words))[:len(words)]
            axes.bar(np.arange(len(words)), shares / max(shares.sum(), 1), color=COLOURS[0],
                     alpha=0.45)
            ticks = sorted({int(v) for v in places} | set(range(len(words) if len(words) <= 20
                                                                else 0)))
            axes.set_xticks(ticks, [words[v] for v in ticks], rotation=30 if len(words) > 4 else 0)
        else:
            every = np.concatenate([values, places])
            low, middle, high = np.quantile(values, (0.01, 0.5, 0.99))
            skewed = every.min() > 0 and every.max() - middle > 20 * max(middle - low, 1e-300) and (
                high > low)
            edges = np.geomspace(every.min(), every.max(), 61) if skewed else np.linspace(
                every.min(), every.max() if every.max() > every.min() else every.min() + 1, 61)
            axes.hist(values, bins=edges, weights=np.full(len(values), 1 / len(values)),
                      color=COLOURS[0], alpha=0.45)
            axes.set_xscale("log" if skewed else "linear")
        axes.set_yscale("function", functions=(np.sqrt, np.square))
        top = axes.get_ylim()[1]
        for i, place in enumerate(np.unique(places)):
            name = ", ".join(name for name, at in marks.items() if at == place)
            axes.plot([place, place], [0, 0.55 * top], color=COLOURS[5], lw=1.2)
            axes.annotate(name, (place, (0.6 + 0.1 * (i % 4)) * top), ha="center", fontsize=8)
        axes.set(title=title, xlabel=x, ylabel="share", ylim=(0, top))
    return png.getvalue()


def _histogram(axes: Any, values: Array, edges: Array, i: int, name: str, **options: Any) -> None:
    """The first set of values is filled, the others are outlines."""
    axes.hist(values, bins=edges, color=COLOURS[i], label=name, alpha=1.0 if i else 0.45, lw=1.6,
              histtype="step" if i else "stepfilled", **options)


def _dot(n: int) -> float:
    """Marker area that keeps ``n`` dots apart."""
    return float(np.clip(16000 / max(n, 1), 5, 34))
