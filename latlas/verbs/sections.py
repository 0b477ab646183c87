"""The page of a report: its sections show what models do, each for the models that can do it."""

import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latlas import __version__
from latlas.core.errors import DataError
from latlas.core.model import Model, Translates
from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.data.pairs import Data, PairDataset, first_side
from latlas.metrics.latent_space import reach
from latlas.metrics.table import KINDS
from latlas.render import imaging, plots
from latlas.render.html import Facts, Figure, Notes, Row, Section, page
from latlas.verbs import generate, metric_groups, passes
from latlas.verbs.common import Array
from latlas.verbs.encode import reconstruct
from latlas.verbs.evaluate import Evaluation, side_by_side
from latlas.verbs.geometry import report_sections
from latlas.verbs.sample_quality import Cache, feature_extractor
from latlas.verbs.translating import sheet

SAMPLES, PAIRS, DIMS, STEPS, PATHS, POINTS = 64, 14, 8, 9, 5, 2000
#: cells along a side of the map, half its side and the step of its slopes, both in standard
#: deviations of the prior
CELLS, SPAN, STEP = 15, 3.0, 0.05
#: what the log has of speed and schedule, which are no terms of the loss
RATES = ("per_second", "learning_rate", "images/s", "lr", "norm")
#: what the summary has of the metrics
HEADLINE = ("bits_per_dim", "nats", "mse", "active_units", "completeness", "frechet", "precision",
            "recall", "two_sample", "data_copying", "l1", "ssim", "cycle")


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
    facts: Mapping[str, str] = field(default_factory=dict)
    ways: Mapping[str, Evaluation] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """The data the report shows the models on, ``train`` and ``test`` of the first side; ``to``,
    ``cache`` and ``pairs``, the held-out examples of two sides, as for :func:`build_page`."""

    train: Dataset
    test: Dataset
    seed: int
    cache: Path | None
    to: str
    pairs: PairDataset | None

    def examples(self, n: int) -> Dataset:
        """The same ``n`` held-out examples for every model, chosen by the seed."""
        order = np.random.default_rng(self.seed).permutation(len(self.test))
        return self.test.subset(order[:n])


def build_page(subjects: Sequence[Subject], *, train: Data, test: Data, title: str = "",
               command: str = "", seed: int = 0, facts: Mapping[str, str] | None = None,
               cache: Path | None = None, to: str = "") -> str:
    """One self-contained HTML page, as text: every section that the models' capabilities allow.

    Args:
        subjects: the models; those with an evaluation appear in the tables.
        train, test: the data they are shown on; all that is shown is held out.
        title: by default from the models' names.
        command: what made it, as typed; by default that of the running program.
        facts: more about how it was made, name to text; ``cache``: as for ``evaluate``.
        to: the domain whose translations are shown alone; every one if empty.
    """
    context = Context(first_side(train), first_side(test), seed, cache, to,
                      test if isinstance(test, PairDataset) else None)
    parts = [section for show in (samples, translations, reconstructions, walks, maps,
                                  latent_planes, report_sections, loss_curves)
             for section in show(subjects, context)]
    evaluations = [e for s in subjects if s.evaluation for e in s.evaluation.columns]
    if evaluations:
        comparison = side_by_side(evaluations)
        warnings = [n for n in comparison.notes if "not compared" in n or "†" in n]
        best = "" if len(evaluations) == 1 else " Green is best among those that can be compared."
        parts = [
            Section("Summary", "Metrics on held-out data, beside the control that could explain "
                    "them: held-out real data for samples, a diagonal Gaussian for likelihoods, "
                    "the mean example for reconstructions, the median image for translations."
                    f"{best}", [comparison.html(HEADLINE, meaning=False), Notes(warnings)]),
            *parts,
            Section("All metrics", "Each with what it says. ↓ less is better, ↑ more is better, ≈ "
                    "nearer to the control is better. Under copies: the same metric of exact "
                    "copies of training examples; only the metrics of copying give them away.",
                    [comparison.html(), Notes(comparison.notes)])]
    values = dict(facts or {})
    for subject in subjects:
        for key, value in subject.facts.items():
            values[key if len(subjects) == 1 else f"{subject.name}: {key}"] = value
        if subject.run is not None:
            values[f"{subject.name}: run"] = str(subject.run)
    command = command or " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    parts.append(provenance(command, seed, values))
    names, space = ", ".join(s.name for s in subjects), context.train.space
    what = {"image": "images", "table": "rows", "points": "points"}[space.kind]
    subtitle = (f"{names} trained on {len(train):,} {what} "
                f"({' × '.join(map(str, space.shape))}) and judged on {len(test):,} that "
                "were held out.")
    return page(title or f"{names}: report", subtitle, parts,
                "One file: no script, no network. Made by latlas.")


def samples(subjects: Sequence[Subject], context: Context) -> Iterator[Section]:
    """Real examples first, then each model's samples."""
    able, space = [s for s in subjects if passes.can(s.model, "sample")], context.test.space
    if not able:
        return
    n = min(SAMPLES if space.kind == "image" else POINTS, len(context.test))
    real, figures = passes.examples_of(context.examples(n)), []
    if space.kind == "image":
        figures.append(examples_figure(real, space, "Real data", "held-out examples"))
    for subject, latents in ((s, p) for s in able for p in passes.latents_available(s.model)):
        values = passes.drawn_examples(
            subject.model, n, seed=context.seed, latents=latents,
            condition=passes.sample_conditions(subject.model, context.test, n, context.seed))
        caption = "samples" if latents == "own" else "samples from the fitted prior"
        figures.append(examples_figure(values, space, subject.name, caption, real))
    yield Section("Samples", "New examples drawn from each model, beside real ones it never saw. "
                  "Nothing is picked by hand.", [Row(figures)])


def translations(subjects: Sequence[Subject], context: Context) -> Iterator[Section]:
    """Held-out examples, under them their translations and, of pairs, the targets; metrics."""
    pairs = context.pairs
    for to in "BA":
        able = [s for s in subjects if isinstance(s.model, Translates) and to in s.model.ways]
        if not able or context.to not in ("", to) or (to == "A" and pairs is None):
            continue
        data: Any = context.test if pairs is None else pairs if to == "B" else pairs.swapped()
        order = np.random.default_rng(context.seed).permutation(len(data))
        figures = []
        for subject in able:
            rows = sheet(subject.model, data.subset(order[:PAIRS]), to=to).swapaxes(0, 1)
            picture = imaging.grid(rows.reshape(-1, *rows.shape[2:]), 256, columns=rows.shape[1],
                                    gutter=imaging.FAINT)
            figures.append(Figure(imaging.png(picture), subject.name, f"to {to}",
                                  rows=["input", "output", "target"][:len(rows)]))
        evaluations = [s.ways[to] for s in able if to in s.ways]
        tables = [side_by_side(evaluations).html(meaning=False)] if evaluations else []
        yield Section(f"Translations to {to}", "Held-out examples of one domain as those of the "
                      "other.", [Row(figures, 1), *tables])


def reconstructions(subjects: Sequence[Subject], context: Context) -> Iterator[Section]:
    """One row of held-out examples, under it each model's reconstruction of them."""
    able, space = [s for s in subjects if passes.can(s.model, "reconstruct")], context.test.space
    if not able:
        return
    data = context.examples(PAIRS if space.kind == "image" else POINTS)
    real, values = passes.examples_of(data), [reconstruct(s.model, data).values for s in able]
    if space.kind == "image":
        figures = [Figure(grid_picture(np.concatenate([real, *values]), space, len(data)),
                          rows=["data", *(s.name for s in able)])]
    else:
        figures = [examples_figure(x, space, s.name, "reconstructions", real)
                   for s, x in zip(able, values, strict=True)]
    yield Section("Reconstructions", "Held-out examples through the encoder and back: what the "
                  "latent vector keeps.", [Row(figures)])


def walks(subjects: Sequence[Subject], context: Context) -> Iterator[Section]:
    """Of images: one latent dimension changed a row; paths between pairs of held-out examples."""
    able, space = [s for s in subjects if passes.can(s.model, "reconstruct")], context.test.space
    if not able or space.kind != "image":
        return
    figures = []
    for subject in able:
        data = context.examples(POINTS)
        latents = passes.encoded(subject.model, data).astype(np.float64)
        dims = np.argsort(-passes.information(subject.model, data), kind="stable")[:DIMS]
        condition = passes.sample_conditions(subject.model, context.test, 1, context.seed)
        centre = passes.latent_in_support(subject.model, latents.mean(0), condition)
        values = passes.decode_traversal(subject.model, centre, latents.std(0), dims, steps=STEPS,
                                 condition=condition)
        figures.append(Figure(grid_picture(values.reshape(-1, *space.shape), space, STEPS),
                              subject.name, f"the {len(dims)} most active of {latents.shape[1]} "
                              "dimensions", rows=[f"z{d}" for d in dims]))
    yield Section("Traversal", "Each row varies one latent dimension by −3 … 3 standard "
                  "deviations around the mean latent vector and leaves the others; the dimension "
                  "that carries most about the examples comes first.", [Row(figures)])
    if len(context.test) < 2 * PATHS:
        return
    data = context.examples(len(context.test))
    label, order = data.take("label"), list(range(len(data)))
    chosen: list[int] = []
    while order and len(chosen) < 2 * PATHS:  # pairs of different labels where there are any
        first = order.pop(0)
        other = next((j for j in order if label is None or label[j] != label[first]), None)
        if other is not None:
            order.remove(other)
            chosen += [first, other]
    ends, figures = data.subset(np.array(chosen, np.int64)), []
    for subject in able:
        z = passes.encoded(subject.model, ends)
        condition = passes.sample_conditions(subject.model, ends, 1)
        ways = [generate.walk(z[i], z[i + 1], STEPS) for i in range(0, len(z), 2)]
        values = passes.decoded(subject.model, np.concatenate(ways), condition=condition)
        figures.append(Figure(grid_picture(values, space, STEPS), subject.name,
                              "paths between latent vectors"))
    yield Section("Interpolation", "Each row walks in a straight line from the latent vector of "
                  "one held-out example to that of another. In a good latent space what lies "
                  "between looks like data too.", [Row(figures)])


def maps(subjects: Sequence[Subject], context: Context) -> Iterator[Section]:
    """The latents' two principal components, coloured by label, and as thumbnails."""
    able = [s for s in subjects if passes.can(s.model, "encode")]
    figures: list[Figure] = []
    for subject in able:
        data = context.examples(POINTS)
        points, share = principal_plane(passes.encoded(subject.model, data))
        label: Any = data.take("label")
        names = list(data.space.classes) or ([] if label is None else
                                             [str(i) for i in range(int(label.max()) + 1)])
        axes = {a: f"component {i + 1} ({share[i]:.0%} of the variance)"
                for i, a in enumerate(("x", "y"))}
        caption = f"{len(points):,} latent vectors" + (", by label" if label is not None else "")
        figures.append(plot_figure(plots.scatter, points, label, names, title=subject.name,
                                   caption=caption, **axes))
        if context.test.space.kind == "image" and subject is able[-1]:
            mosaic = imaging.mosaic(points, passes.examples_of(data), data.space.levels)
            figures.append(Figure(imaging.png(mosaic), subject.name,
                                  "the examples themselves, at the same places"))
    if able:
        yield Section("Map of the latents", "Every held-out example at the first two principal "
                      "components of its latent vector. Labels colour it; no model saw them here "
                      "unless it is conditional on them.", [Row(figures, 2)])


def latent_planes(subjects: Sequence[Subject], context: Context) -> Iterator[Section]:
    """A plane through each latent space: what is decoded there, and how it changes."""
    space, extract, rows = context.test.space, None, []
    for subject in (s for s in subjects if metric_groups.has_latent_space(s.model)):
        try:
            extract = extract or feature_extractor("auto", context.train, context.seed,
                                                   cache=Cache(context.cache))
            places = plane(subject.model, context.test, extract, context.seed)
        except DataError:  # too few examples for features or a support
            continue
        if places is None:
            continue
        (tiles, distance, slope), figures = places, []
        over = imaging.tiles(tiles, space.levels, CELLS) if space.kind == "image" else None
        for key, values, label, middle in (
                ("completeness", distance, "distance to the support", 1.0),
                ("lipschitz_ratio", slope, "slope of the decoder", None)):
            metric = subject.evaluation.get(key) if subject.evaluation is not None else None
            figures.append(plot_figure(
                plots.plane, values, over, title=subject.name, label=label, middle=middle,
                caption=KINDS[key].title + (f": {metric.text()}" if metric else ""),
                x="first principal axis", y="second principal axis", span=SPAN))
        rows.append(Row(figures, 2))
    if rows:
        yield Section("The latent space", "The plane of the latents' first two principal axes "
                      "through the middle of the prior, in its standard deviations; 86% of the "
                      "draws fall within the circle. Completeness: distance of what is decoded "
                      "there to the held-out examples, 1 at the edge of their support; orange lies "
                      "outside. Continuity: how fast the decoded example changes, in distances "
                      "between neighbouring held-out examples per standard deviation.", rows)


def plane(model: Model, test: Dataset, extract: Callable[[Array], Array],
          seed: int = 0) -> tuple[Array, Array, Array] | None:
    """Where the decoder leads on the plane of the latents' first two principal axes through the
    middle of the prior: (CELLS², \\*shape) decoded examples in data units, from the top left;
    (CELLS, CELLS) distance of each to the support of held-out examples in the features of
    ``extract``, 1 at its edge; (CELLS, CELLS) slope, neighbour distances per standard deviation.
    ``None`` for one latent dimension, or if more than half of the examples are copies.
    """
    few = passes.evenly_spaced(test, metric_groups.EXAMPLES)
    near = metric_groups.neighbour_distance(model, few)
    if model.latent_dim < 2 or len(few) < 7 or not near:
        return None
    draws = metric_groups.prior_draws(model, metric_groups.EXAMPLES, seed)
    latents = draws
    if passes.can(model, "encode"):
        latents = passes.encoded(model, few).astype(np.float64)
    axes = np.linalg.svd(latents - latents.mean(0), full_matrices=False)[2][:2]
    units = axes * (draws @ axes.T).std(0)[:, None]  # one standard deviation along each
    across, up = np.meshgrid(np.linspace(-SPAN, SPAN, CELLS), np.linspace(SPAN, -SPAN, CELLS))
    z = draws.mean(0) + np.c_[across.ravel(), up.ravel()] @ units
    condition = passes.sample_conditions(model, few, 1, seed)
    tiles = passes.decoded(model, z, condition=condition)
    at = metric_groups.decoder_means(model, z, condition)
    changes = [metric_groups.decoder_means(model, z + STEP * unit, condition) - at
               for unit in units]
    slope = np.sqrt(np.square(np.linalg.norm(changes, axis=2)).mean(0)) / STEP / near
    away = reach(extract(passes.examples_of(few)), extract(tiles))
    return tiles, away.reshape(CELLS, CELLS), slope.reshape(CELLS, CELLS)


def loss_curves(subjects: Sequence[Subject], context: Context) -> Iterator[Section]:
    """What each run logged: the loss, its terms, norms of gradients, what samples measured."""
    figures = []
    for subject in subjects:
        history = read_metrics(subject.run) if subject.run else {}
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
    if figures:
        yield Section("Loss curves", "The training loss and its terms against examples seen, and "
                      "the same on held-out data, dashed. A model in closed form has none.",
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
    return {k: (v[:, 0], v[:, 1]) for k, v in columns.items() if len(v)}


def principal_plane(latents: Array) -> tuple[Array, Array]:
    """Latents on their first two principal axes (n, 2), and the share of variance of each."""
    centred = latents - latents.mean(0)
    _, singular, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    if len(singular) < 2:
        return np.c_[centred[:, :1], np.zeros(len(latents))], np.array([1.0, 0.0])
    return centred @ axes[:2].T, (singular**2 / max((singular**2).sum(), 1e-300))[:2]


def provenance(command: str, seed: int, facts: Mapping[str, str]) -> Section:
    """How a page was made; facts whose name ends in "run" are set in code, as the command is."""
    versions = (f"latlas {__version__}, torch {torch.__version__}, numpy {np.__version__}, "
                f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    values = {"command": command, "seed": str(seed), **facts, "versions": versions}
    code = frozenset(k for k in values if k == "command" or k.endswith(": run"))
    return Section("How it was made", "", [Facts(values, code)])


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
