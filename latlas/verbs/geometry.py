"""``geometry``: the metric that a decoder gives the latent space, its geodesics, the decoder as a
chart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from latlas.core.errors import ConfigError, DataError, say_notes, say_option
from latlas.render import html, plots
from latlas.run import as_run
from latlas.verbs import common, write
from latlas.verbs.common import Array, DataLike, Flag, Out, Output, Progress, RunLike, Seed, Split
from latlas.verbs.generate import can_encode_data, conditions
from latlas.verbs.latent_metric import MetricKind, in_model_units, metric_of

if TYPE_CHECKING:
    from latlas.geometry.charts import ChartChecks
    from latlas.geometry.metric import Metric

#: codes that are looked at; cells along a side of the map; numbers of the Jacobians of the codes
#: whose chart is checked; codes that are checked at most
CODES, CELLS, JACOBIANS, CHECKED = 1000, 48, 1 << 26, 600
#: scalars of an example whose geometry a report shows, at most; of a larger one pairs, segments,
#: cells and numbers are these, so that it takes minutes
REPORTED, PAIRS, FEWER = 4096, 12, (3, 16, 24, 1 << 24)
#: what every number says
MEANINGS = {
    "geodesic_over_line": "length of a geodesic by that of the straight line of latents (median "
                          "pair); 1 where the latent space is flat",
    "length_error": "what a length may be wrong by, relative (largest)",
    "magnification_ratio": "95% by 5% quantile of the magnification at the codes; 1 where latents "
                           "are spread evenly",
    "condition_number": "longest by shortest stretch of a direction (median); 1 where angles are "
                        "kept",
    "full_rank": "share of codes where the decoder moves in every latent direction",
    "rank": "of the Jacobian (median)",
    "orientation_flips": "share of codes beside a fold of the decoder",
    "overlaps": "share of codes whose place another part of the latent space covers too",
    "smoothness_order": "2 where the decoder has two derivatives, 1 at edges, 0 at jumps (median)",
    "latent_error": "root mean square of E(D(z)) − z in standard deviations of the latents; 0 if "
                    "the encoder inverts the decoder",
    "data_error": "root mean square of D(E(x)) − x by that of x − mean; 0 if the chart reaches the "
                  "data"}


@dataclass(eq=False, repr=False)
class LatentGeometry(common.Result):
    """What was measured of a latent space.

    Attributes:
        name: of the run; ``kind`` of the metric.
        metrics: numbers by name, as in :data:`MEANINGS`.
        pairs: a row per pair: start and end among the codes, length, its error, length of the
            straight line, Euclidean distance of the latents.
        codes: (n, d) latents; ``label`` (n,) their classes, ``classes`` the names.
        paths: (p, t, d) geodesics, at equal distances.
        centre, axes: (d,) and (2, d), of the plane of the map: z = centre + u · axes.
        extent: of the map in u: left, right, bottom, top.
        magnification: (s, s) on the plane, from the lower left; ``None`` for one latent dimension.
        checks: of the chart at some codes.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".html", ".htm", ".png", ".csv", ".parquet", ".npz")
    name: str
    kind: str
    metrics: dict[str, float]
    pairs: dict[str, Array]
    codes: Array
    label: Array | None
    classes: tuple[str, ...]
    paths: Array
    centre: Array
    axes: Array
    extent: tuple[float, float, float, float]
    magnification: Array | None
    checks: "ChartChecks"
    titles: tuple[str, str, str]

    def facts(self) -> dict[str, Any]:
        return {"run": self.name, "metric": self.kind, "codes": len(self.codes),
                "pairs": len(self.paths), **self.metrics}

    def as_columns(self) -> dict[str, Any]:
        return self.pairs

    def text(self) -> str:
        lines = [f"{self.name}: {self.kind} metric, {len(self.codes):,} codes, {len(self.paths)} "
                 "geodesics"]
        return "\n".join([*lines, *(f"  {k:<20} {v:>10.4g}  {MEANINGS[k]}"
                                    for k, v in self.metrics.items())])

    def plot(self, dark: bool = False) -> bytes:
        """PNG of the map; DataError for one latent dimension, which has none."""
        return plots.geometry_map(dark=dark, **self._parts())

    def figure(self) -> Any:
        """The map as a figure of matplotlib's; DataError for one latent dimension."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.6, 5.8), layout="constrained")
        plots.draw_geometry(figure, **self._parts())
        return figure

    def section(self) -> html.Section:
        """Of a page: the map, the numbers and what they say."""
        figures = [] if self.magnification is None else [html.Figure(
            self.plot(), self.name, f"{self.kind} metric: geodesics over straight lines",
            dark=self.plot(dark=True))]
        rows = [[html.Cell(k.replace("_", " ")), html.Cell(f"{v:.4g}"), html.Cell(MEANINGS[k])]
                for k, v in self.metrics.items()]
        return html.Section(
            f"Geometry of the latent space: {self.name}", "Lengths are those of decoded curves. "
            "Dark is where a small step of the latents changes the decoded example much: geodesics "
            "go round it where they can.", [html.Row(figures, 1), html.Table(
                ("metric", "value", "what it says"), rows)])

    def save(self, path: str | Path) -> str:
        suffix = write.check_suffix(path, self.suffixes)
        if suffix in (".html", ".htm"):
            page = html.page(f"{self.name}: geometry of the latent space",
                             f"{len(self.codes):,} codes, {self.kind} metric", [self.section()],
                             "One file: no script, no network. Made by latlas.")
            write.write_bytes(Path(path), page.encode("utf-8", "replace"))
            return f"wrote {path}"
        return write.write_plot(Path(path), self.plot()) if suffix == ".png" else (
            write.write_table(path, self.as_columns()))

    def _parts(self) -> dict[str, Any]:
        """What the map shows."""
        if self.magnification is None:
            raise DataError("a map needs two latent dimensions, and this model has one; save the "
                            "table (.csv) or the page (.html)", option="out")
        to_plane = np.linalg.pinv(self.axes)
        paths = (self.paths - self.centre) @ to_plane
        return {"values": self.magnification, "extent": self.extent, "label": self.label,
                "codes": (self.codes - self.centre) @ to_plane, "names": self.classes,
                "geodesics": paths, "lines": paths[:, [0, -1]], "titles": self.titles}


@common.verb
def measure_geometry(
        run: RunLike, *, data: DataLike = None, split: Split = None,
        metric: MetricKind = "pullback",
        pairs: Annotated[int | None, Flag(int, "Geodesics between pairs of codes. Default: 12, of "
                                               "examples of more than 4,096 numbers 3."),
                         common.Bounds(1, 100_000)] = None,
        members: Annotated[int, Flag(int, "Decoders of the ensemble."), common.Bounds(2, 1000)] = 8,
        n: Annotated[int, Flag(int, "Codes at most."), common.Bounds(2, 1_000_000)] = CODES,
        chart: Annotated[int | None, Flag(int, "Of an atlas. Default: the chart in charge of most "
                                               "examples."), common.Bounds(0)] = None,
        space: Literal["z", "w"] = "z", label: common.Classes = None, seed: Seed = 0,
        out: Annotated[Out, Output("geometry.html", "An .html page, a .png map, or a .csv, "
                                                    ".parquet or .npz of the pairs. Default: "
                                                    "RUN/geometry.html.")] = None,
        progress: Progress | None = None, **read: Any) -> LatentGeometry:
    """How does the decoder stretch the latent space? Map, geodesics, checks of it as a chart.

    The map shows the magnification √det G on the plane of two latents, or of the codes' first two
    principal axes, with the codes by class and geodesics over straight lines. Codes are those of
    data, or draws of the prior where nothing encodes. Lengths are in model units (images in
    [−1, 1], columns standardised).

    Args:
        space: Of latents z, or of w, the styles that are made from z.
    """
    from latlas.verbs.passes import latents_of_prior

    run = as_run(run)
    run.require("decode", "geometry")
    if space == "w":
        run.require("mix", f"geometry {say_option('space', 'w')}")
    write.check_suffix(out, LatentGeometry.suffixes)
    model, examples = run.model, None
    if can_encode_data(run, data) and space == "z":
        examples = run.open(data, split, **read).subset(slice(0, n))
        return measure(model, run.name, examples, metric=metric, pairs=pairs, members=members,
                       condition=_condition(run, label, examples, seed), seed=seed,
                       chart=chart, progress=progress).saved(out)
    if metric == "ensemble":
        raise ConfigError(f"{say_option('metric', 'ensemble')} trains decoders on the codes of "
                          "data, and there are none: the model needs an encoder, and data",
                          option="metric")
    codes = latents_of_prior(model, n, seed, conditions(run, n, label), ("geometry",))
    return measure(model, run.name, None, codes, metric=metric, pairs=pairs, space=space,
                   condition=_condition(run, label, None, seed), seed=seed,
                   progress=progress).saved(out)


def measure(model: Any, name: str, examples: Any = None, codes: Array | None = None, *,
            metric: str = "pullback", pairs: int | None = None, members: int = 8, space: str = "z",
            condition: Any = None, chart: int | None = None, seed: int = 0,
            progress: Progress | None = None) -> LatentGeometry:
    """As :func:`measure_geometry`, of a model and examples, or of codes (n, latent_dim) alone.

    Raises:
        DataError: fewer than 2 codes, or a decoder that is constant.
    """
    from latlas import geometry
    from latlas.core.model import Charts
    from latlas.verbs import passes

    if isinstance(model, Charts):
        model, examples, name = _one_chart(model, examples, chart, name)
    elif chart is not None:
        raise ConfigError(f"{say_option('chart', chart)}: the model has one chart alone",
                          option="chart")
    label = None if examples is None else examples.take("label")
    if codes is None:
        codes = passes.encoded(model, examples)
    codes = np.asarray(codes if space == "z" else passes.to_styles(model, codes), np.float64)
    if len(codes) < 2:
        raise DataError(f"geometry needs 2 codes or more, got {len(codes)}")
    x = None if examples is None else in_model_units(model, examples)
    chosen = metric_of(metric, model, codes, x, space=space, condition=condition, members=members,
                       seed=seed, progress=progress)
    plain = geometry.pullback(model, space=space, condition=condition)
    width = len(plain.embed(geometry.metric.latents(codes[:1]))[0])
    # metrics that know where the data are rise within a step
    pairs, segments, cells, numbers = _effort(width, pairs, 32 if chosen.codes is None else 64)
    rng = np.random.default_rng(seed)
    i = rng.integers(len(codes), size=pairs)
    j = (i + rng.integers(1, len(codes), size=pairs)) % len(codes)
    paths = geometry.geodesics(chosen, codes[i], codes[j], segments=segments)
    few = np.linspace(0, len(codes) - 1, max(2, min(len(codes), CHECKED, numbers // (
        codes.shape[1] * width)))).astype(int)
    checks = geometry.chart_checks(
        plain, codes[few], x=None if x is None else x[few], seed=seed,
        encode=None if examples is None else geometry.encoder_of(model, condition=condition))
    centre, axes, titles = _plane(codes)
    extent, magnification = _magnification(chosen, codes, centre, axes, cells)
    g = axes[:codes.shape[1]] @ chosen.tensors(codes[few]) @ axes[:codes.shape[1]].T
    low, high = np.quantile(np.sqrt(np.linalg.det(g).clip(min=0)), [0.05, 0.95])
    metrics = {"geodesic_over_line": _middle(paths.length / paths.line),
               "length_error": np.nanmax(paths.error / paths.length),
               "magnification_ratio": high / low if low else np.inf, **_of_checks(checks)}
    table = {"start": i, "end": j, "length": paths.length, "error": paths.error,
             "line_length": paths.line,
             "latent_distance": np.linalg.norm(codes[i] - codes[j], axis=1)}
    return LatentGeometry(
        name, metric, {k: float(v) for k, v in metrics.items() if not np.isnan(v)}, table, codes,
        label, () if examples is None else tuple(examples.space.classes),
        geometry.resample(paths.latents, chosen, 65), centre, axes, extent, magnification, checks,
        (*titles, f"{metric} magnification"))


def _effort(width: int, pairs: int | None, segments: int) -> tuple[int, int, int, int]:
    """Pairs, segments of a geodesic, cells along the map and numbers of the Jacobians that are
    checked, of examples of so many numbers."""
    if width <= REPORTED:
        return pairs or PAIRS, segments, CELLS, JACOBIANS
    pairs, segments, cells, numbers = pairs or FEWER[0], *FEWER[1:]
    say_notes([f"examples of {width:,} numbers: {pairs} geodesics of {segments} segments, a map of "
               f"{cells} x {cells}; {say_option('pairs', 'N')} for more geodesics"])
    return pairs, segments, cells, numbers


def _of_checks(checks: "ChartChecks") -> dict[str, Any]:
    return {"condition_number": np.median(checks.condition),
            "full_rank": np.isfinite(checks.condition).mean(), "rank": np.median(checks.rank),
            "orientation_flips": checks.flips.mean(), "overlaps": checks.overlaps.mean(),
            "smoothness_order": _middle(checks.order),
            "latent_error": np.sqrt(np.square(checks.latent_error).mean()),
            "data_error": np.sqrt(np.square(checks.data_error).mean())}


def _magnification(metric: "Metric", codes: Array, centre: Array, axes: Array,
                   cells: int) -> tuple[tuple[float, float, float, float], Array | None]:
    """Extent of the map of the codes, and the magnification (cells, cells) on it; ``None`` for one
    latent dimension."""
    if codes.shape[1] < 2:
        return (0.0, 0.0, 0.0, 0.0), None
    flat = (codes - centre) @ np.linalg.pinv(axes)
    margin = 0.12 * np.ptp(flat, axis=0) + 1e-9
    low, high = flat.min(0) - margin, flat.max(0) + margin
    grid = np.stack(np.meshgrid(*np.linspace(low, high, cells).T), 2).reshape(-1, 2)
    values = metric.on_plane(centre, axes).magnification(grid).reshape(cells, cells)
    return (float(low[0]), float(high[0]), float(low[1]), float(high[1])), values


def report_sections(subjects: Sequence[Any], context: Any) -> Iterator[html.Section]:
    """Of a report: for models that encode and decode, unless one example is too large for it to be
    quick, or the decoder is constant."""
    from latlas.verbs.passes import can, sample_conditions

    for subject in subjects:
        model = subject.model
        if not can(model, "reconstruct") or model.space.dims > REPORTED:
            continue
        examples = context.examples(CHECKED)
        try:
            yield measure(model, subject.name, examples, pairs=8, seed=context.seed,
                          condition=sample_conditions(model, examples, 1)).section()
        except DataError:  # constant, or too few examples
            continue


def _one_chart(model: Any, examples: Any, chart: int | None, name: str) -> tuple[Any, Any, str]:
    """One chart of an atlas as a model, the examples that it is in charge of, and its name."""
    from latlas.geometry.atlas import OneChart
    from latlas.verbs.passes import in_order, inference

    if examples is None:
        raise DataError("the charts of an atlas are measured at the codes of data, and there are "
                        "none; name some", option="data")
    with inference(model):
        parts = [model.encode_chart(batch.x) for batch in in_order(model, examples)]
    charts = np.concatenate([np.asarray(part[0].cpu()) for part in parts])
    count = np.bincount(charts, minlength=model.n_charts)
    chart = int(count.argmax()) if chart is None else chart
    if chart >= model.n_charts:
        raise ConfigError(f"{say_option('chart', chart)}: the atlas has charts 0 … "
                          f"{model.n_charts - 1}", option="chart")
    say_notes([f"chart {chart} of {model.n_charts}, in charge of {count[chart]:,} of "
               f"{len(charts):,} examples (by chart: {', '.join(map(str, count))})"])
    return (OneChart(model, chart, parts[0][1].shape[1]),
            examples.subset(np.flatnonzero(charts == chart)), f"{name}, chart {chart}")


def _condition(run: Any, label: Any, examples: Any, seed: int) -> Any:
    """One condition for all, (1, …), as named or of an example; ``None`` of other models."""
    from latlas.verbs.passes import broadcast_condition, sample_conditions

    if not run.model.condition_dim:
        conditions(run, 1, label)  # refuses a label that serves nothing
        return None
    if label is None and examples is not None:
        return sample_conditions(run.model, examples, 1, seed)
    if label is None:
        label = [run.space.classes[0]] if run.space.classes else None
    return broadcast_condition(run.model, conditions(run, 1, label), 1).get("condition")


def _plane(codes: Array) -> tuple[Array, Array, tuple[str, str]]:
    """Centre (d,) and orthonormal axes (2, d) of the map, and their titles."""
    d = codes.shape[1]
    if d <= 2:
        return np.zeros(d), np.eye(2, d), ("latent dimension 0", "latent dimension 1")
    _, size, axes = np.linalg.svd(codes - codes.mean(0), full_matrices=False)
    share = size**2 / max((size**2).sum(), 1e-300)
    return codes.mean(0), axes[:2], (f"first principal axis ({share[0]:.0%} of the variance)",
                                     f"second principal axis ({share[1]:.0%} of the variance)")


def _middle(values: Array) -> float:
    """Median of those that are numbers; NaN of none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")
