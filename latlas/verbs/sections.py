"""The sections of a report that show what models do. Each appears for the models that can."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from latlas import __version__
from latlas.core.errors import DataError
from latlas.core.model import Model, Translates
from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.metrics.table import KINDS
from latlas.render import imaging, plots
from latlas.render.html import Facts, Figure, Row, Section
from latlas.verbs.common import Array
from latlas.verbs.comparison import Evaluation, side_by_side
from latlas.verbs.decoding import (
    decoded,
    drawn_examples,
    latents_available,
    likely,
    varied,
    walk,
)
from latlas.verbs.encode import reconstruct
from latlas.verbs.latent_space import CELLS, SPAN, has_latent_space, plane
from latlas.verbs.passes import can, conditions_like, encoded, examples_of, information
from latlas.verbs.sample_quality import Cache, feature_extractor
from latlas.verbs.translating import sheet

SAMPLES, PAIRS, DIMS, STEPS, PATHS = 64, 14, 8, 9, 5
POINTS = 2000
#: what the log has of speed and schedule, which are no terms of the loss
RATES = ("per_second", "learning_rate", "images/s", "lr", "norm")


@dataclass(frozen=True)
class Subject:
    """A model the report is about.

    Attributes:
        run: its folder, for the loss curves.
        evaluation: its metrics, with those of its fitted prior if there is one.
        facts: how it was trained, name to text.
        ways: of a model that translates, its metrics by the domain it translates to.
    """

    name: str
    model: Model
    run: Path | None = None
    evaluation: Evaluation | None = None
    facts: Mapping[str, str] | None = None
    ways: Mapping[str, Evaluation] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """The data the report shows the models on; ``cache`` as for ``evaluate``.

    Attributes:
        to: the domain whose translations are shown alone; every one if empty.
        pairs: the held-out examples with both their sides, where there are two; ``train`` and
            ``test`` are A's.
    """

    train: Dataset
    test: Dataset
    seed: int = 0
    cache: Path | None = None
    to: str = ""
    pairs: PairDataset | None = None

    @property
    def space(self) -> Space:
        """Of the examples."""
        return self.test.space

    @cached_property
    def extract(self) -> Callable[[Array], Array]:
        """Examples to the features that supports are drawn in, one function for all models."""
        return feature_extractor("auto", self.train, self.seed, cache=Cache(self.cache))

    def examples(self, n: int) -> Dataset:
        """The same ``n`` held-out examples for every model, chosen by the seed."""
        order = np.random.default_rng(self.seed).permutation(len(self.test))
        return self.test.subset(order[:n])


def samples(subjects: Sequence[Subject], context: Context) -> Section | None:
    """Real examples first, then each model's samples."""
    able = [s for s in subjects if can(s.model, "sample")]
    if not able:
        return None
    n = min(SAMPLES if context.space.kind == "image" else POINTS, len(context.test))
    real = examples_of(context.examples(n))
    figures = [examples_figure(real, context.space, "Real data", "held-out examples")]
    for subject, latents in ((s, p) for s in able for p in latents_available(s.model)):
        values = drawn_examples(
            subject.model, n, seed=context.seed, latents=latents,
            condition=conditions_like(subject.model, context.test, n, context.seed))
        caption = "samples" if latents == "own" else "samples from the fitted prior"
        figures.append(examples_figure(values, context.space, subject.name, caption, real))
    figures = figures if context.space.kind == "image" else figures[1:]
    return Section("Samples", "New examples drawn from each model, beside real ones it never saw. "
                   "Nothing is picked by hand.", [Row(figures)])


def reconstructions(subjects: Sequence[Subject], context: Context) -> Section | None:
    """One row of held-out examples, under it each model's reconstruction of them."""
    able = [s for s in subjects if can(s.model, "reconstruct")]
    if not able:
        return None
    text = "Held-out examples through the encoder and back: what the latent vector keeps."
    data = context.examples(PAIRS if context.space.kind == "image" else POINTS)
    values = [reconstruct(s.model, data).values for s in able]
    if context.space.kind != "image":
        return Section("Reconstructions", text, [Row([
            examples_figure(x, context.space, s.name, "reconstructions", examples_of(data))
            for s, x in zip(able, values, strict=True)])])
    picture = grid_picture(np.concatenate([examples_of(data), *values]), context.space, len(data))
    rows = ["data", *(s.name for s in able)]
    return Section("Reconstructions", text, [Row([Figure(picture, rows=rows)])])


def translations(subjects: Sequence[Subject], context: Context, to: str) -> Section | None:
    """Held-out examples, under them their translations and, of pairs, the targets; metrics."""
    able = [s for s in subjects if isinstance(s.model, Translates) and to in s.model.ways]
    if not able or context.to not in ("", to) or (to == "A" and context.pairs is None):
        return None
    pairs = context.pairs
    data: Any = (context.test if pairs is None else pairs if to == "B" else pairs.swapped())
    order = np.random.default_rng(context.seed).permutation(len(data))
    figures = []
    for subject in able:
        rows = sheet(subject.model, data.subset(order[:PAIRS]), to=to).swapaxes(0, 1)
        picture = imaging.grid(rows.reshape(-1, *rows.shape[2:]), 256, columns=rows.shape[1],
                                gutter=imaging.FAINT)
        figures.append(Figure(imaging.png(picture), subject.name, f"to {to}",
                              rows=["input", "output", "target"][:len(rows)]))
    evaluations = [s.ways[to] for s in able if to in s.ways]
    return Section(f"Translations to {to}", "Held-out examples of one domain as those of the "
                   "other.", [Row(figures, 1), *([side_by_side(evaluations).html(meaning=False)]
                                                 if evaluations else [])])


def traversals(subjects: Sequence[Subject], context: Context) -> Section | None:
    """Each row changes one latent dimension, the most active first."""
    able = [s for s in subjects if can(s.model, "reconstruct")]
    if not able or context.space.kind != "image":
        return None
    figures = []
    for subject in able:
        data = context.examples(POINTS)
        latents = encoded(subject.model, data).astype(np.float64)
        dims = np.argsort(-information(subject.model, data), kind="stable")[:DIMS]
        condition = conditions_like(subject.model, context.test, 1, context.seed)
        values = varied(subject.model, likely(subject.model, latents.mean(0), condition),
                        latents.std(0), dims, steps=STEPS, condition=condition)
        figures.append(Figure(
            grid_picture(values.reshape(-1, *context.space.shape), context.space, STEPS),
            subject.name, f"the {len(dims)} most active of {latents.shape[1]} dimensions",
            rows=[f"z{d}" for d in dims]))
    return Section("Traversal", "Each row varies one latent dimension by −3 … 3 standard "
                   "deviations around the mean latent vector and leaves the others; the dimension "
                   "that carries most about the examples comes first.", [Row(figures)])


def interpolations(subjects: Sequence[Subject], context: Context) -> Section | None:
    """Straight paths between the latent vectors of pairs of held-out examples."""
    able = [s for s in subjects if can(s.model, "reconstruct")]
    if not able or context.space.kind != "image" or len(context.test) < 2 * PATHS:
        return None
    ends, figures = _ends(context), []
    for subject in able:
        z, condition = encoded(subject.model, ends), conditions_like(subject.model, ends, 1)
        ways = [walk(z[i], z[i + 1], STEPS) for i in range(0, len(z), 2)]
        values = decoded(subject.model, np.concatenate(ways), condition=condition)
        figures.append(Figure(grid_picture(values, context.space, STEPS), subject.name,
                              "paths between latent vectors"))
    return Section("Interpolation", "Each row walks in a straight line from the latent vector of "
                   "one held-out example to that of another. In a good latent space what lies "
                   "between looks like data too.", [Row(figures)])


def maps(subjects: Sequence[Subject], context: Context) -> Section | None:
    """The latents' two principal components, coloured by label, and as thumbnails."""
    able = [s for s in subjects if can(s.model, "encode")]
    if not able:
        return None
    figures: list[Figure] = []
    for subject in able:
        data = context.examples(POINTS)
        points, share = principal_plane(encoded(subject.model, data))
        label: Any = data.take("label")
        names = list(data.space.classes) or ([] if label is None else
                                             [str(i) for i in range(int(label.max()) + 1)])
        axes = {a: f"component {i + 1} ({share[i]:.0%} of the variance)"
                for i, a in enumerate(("x", "y"))}
        caption = f"{len(points):,} latent vectors" + (", by label" if label is not None else "")
        figures.append(plot_figure(plots.scatter, points, label, names, title=subject.name,
                                   caption=caption, **axes))
        if context.space.kind == "image" and subject is able[-1]:
            mosaic = imaging.mosaic(points, examples_of(data), data.space.levels)
            figures.append(Figure(imaging.png(mosaic), subject.name,
                                  "the examples themselves, at the same places"))
    return Section("Map of the latents", "Every held-out example at the first two principal "
                   "components of its latent vector. Labels colour it; no model saw them here "
                   "unless it is conditional on them.", [Row(figures, 2)])


def latent_planes(subjects: Sequence[Subject], context: Context) -> Section | None:
    """A plane through each latent space: what is decoded there, and how it changes."""
    rows = [row for s in subjects if has_latent_space(s.model)
            if (row := _planes(s, context)) is not None]
    if not rows:
        return None
    return Section("The latent space", "The plane of the latents' first two principal axes through "
                   "the middle of the prior, in its standard deviations; 86% of the draws fall "
                   "within the circle. Completeness: distance of what is decoded there to the "
                   "held-out examples, 1 at the edge of their support; orange lies outside. "
                   "Continuity: how fast the decoded example changes, in distances between "
                   "neighbouring held-out examples per standard deviation.", rows)


def _planes(subject: Subject, context: Context) -> Row | None:
    try:
        places = plane(subject.model, context.test, context.extract, context.seed)
    except DataError:  # too few examples for features or a support
        return None
    if places is None:
        return None
    space, captions = context.space, []
    over = imaging.tiles(places.tiles, space.levels, CELLS) if space.kind == "image" else None
    for key in ("completeness", "lipschitz_ratio"):
        metric = subject.evaluation.get(key) if subject.evaluation is not None else None
        captions.append(KINDS[key].title + (f": {metric.text()}" if metric else ""))
    axes = {"x": "first principal axis", "y": "second principal axis", "span": SPAN}
    return Row([plot_figure(plots.plane, values, over, title=subject.name, caption=caption,
                            label=label, middle=middle, **axes)
                for values, caption, label, middle in (
        (places.reach, captions[0], "distance to the support", 1.0),
        (places.slope, captions[1], "slope of the decoder", None))], 2)


def loss_curves(subjects: Sequence[Subject], context: Context) -> Section | None:
    """What each run logged while it trained: the loss with its held-out twin in one plot, its
    terms in another; the norms of gradients, and what was measured of samples."""
    figures = []
    for subject in subjects:
        history = read_metrics(subject.run) if subject.run else {}
        history = {k: v for k, v in history.items() if len(v[0])}
        loss = {k: v for k, v in history.items() if k.rsplit("/", 1)[-1] == "loss"}
        terms = {k: v for k, v in history.items()
                 if (k.startswith("validation/") or "/" not in k) and k not in loss
                 and not any(word in k for word in RATES)}
        several = len({k.rsplit("/", 1)[-1] for k in terms}) > 1
        inside = {prefix: {k.removeprefix(prefix): v for k, v in history.items()
                           if k.startswith(prefix)} for prefix in ("gradient/", "samples/")}
        charts = {"loss": loss, "terms of the loss": terms if several else {},
                  "norm of the gradients": inside["gradient/"]}
        charts |= {f"samples, {k}": {k: v} for k, v in inside["samples/"].items()}
        figures += [plot_figure(plots.curves, series, title=subject.name, caption=title)
                    for title, series in charts.items() if series]
    if not figures:
        return None
    return Section("Loss curves", "The training loss and its terms against examples seen, and the "
                   "same on held-out data, dashed. A model in closed form has none.",
                   [Row(figures, 2)])


def read_metrics(run: Path) -> dict[str, tuple[Array, Array]]:
    """RUN/metrics.jsonl as name to (examples seen, values); a torn last line is left out."""
    file = run / "metrics.jsonl"
    series: dict[str, list[tuple[float, float]]] = {}
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        for name, value in entry.items() if isinstance(entry, dict) else ():
            if name not in ("images", "seconds") and isinstance(value, int | float):
                series.setdefault(name, []).append((entry.get("images", 0), value))
    columns = {k: np.array(v, np.float64) for k, v in series.items()}
    columns = {k: v[np.isfinite(v).all(1)] for k, v in columns.items()}
    return {k: (v[:, 0], v[:, 1]) for k, v in columns.items()}


def principal_plane(latents: Array) -> tuple[Array, Array]:
    """Latents on their first two principal axes (n, 2), and the share of variance of each."""
    centred = latents - latents.mean(0)
    _, singular, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    if len(singular) < 2:
        return np.c_[centred[:, :1], np.zeros(len(latents))], np.array([1.0, 0.0])
    return centred @ axes[:2].T, (singular**2 / max((singular**2).sum(), 1e-300))[:2]


def provenance(command: str, seed: int, facts: Mapping[str, str]) -> Section:
    """How a page was made; facts whose name ends in "run" are set in code, as the command is."""
    versions = []
    for name in ("latlas", "torch", "numpy"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} {__version__ if name == 'latlas' else '?'}")
    versions += [f"Python {platform.python_version()}", f"{platform.system()} {platform.machine()}"]
    values = {"command": command, "seed": str(seed), **facts, "versions": ", ".join(versions)}
    code = frozenset(k for k in values if k == "command" or k.endswith(": run"))
    return Section("How it was made", "", [Facts(values, code)])


def _ends(context: Context) -> Dataset:
    """Pairs of held-out examples, of different labels where there are any; ends alternate."""
    data = context.examples(len(context.test))
    label = data.take("label")
    order = list(range(len(data)))
    chosen: list[int] = []
    while order and len(chosen) < 2 * PATHS:
        first = order.pop(0)
        other = next((j for j in order if label is None or label[j] != label[first]), None)
        if other is not None:
            order.remove(other)
            chosen += [first, other]
    return data.subset(np.array(chosen, np.int64))


def examples_figure(x: Array, space: Space, title: str, caption: str,
                    real: Array | None = None, behind: str = "real") -> Figure:
    """Images as a grid; tables and points as a plot over the real ones, named ``behind``."""
    if space.kind == "image":
        return Figure(grid_picture(x, space), title, caption)
    flat = {behind: real if real is not None else x, title: x}
    sets = {k: np.asarray(v).reshape(len(v), -1) for k, v in flat.items()}
    columns = list(space.columns) or [f"x{i}" for i in range(space.dims)]
    if space.dims == 2:
        return plot_figure(plots.overlay, sets, x=columns[0], y=columns[1], title=title,
                           caption=caption)
    return plot_figure(plots.pairs, sets, columns, title=title, caption=caption)


def plot_figure(draw: Callable[..., bytes], *args: Any, title: str, caption: str,
                **options: Any) -> Figure:
    """A plot in both colour schemes."""
    return Figure(draw(*args, **options), title, caption, dark=draw(*args, dark=True, **options))


def grid_picture(x: Array, space: Space, columns: int | None = None) -> bytes:
    """PNG bytes of images side by side, parted by faint gutters."""
    return imaging.png(imaging.grid(x, space.levels, columns=columns, gutter=imaging.FAINT))
