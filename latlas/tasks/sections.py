"""The sections of a report that show what models do. Each appears for the models that can."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlas.core.errors import DataError
from latlas.core.model import Model
from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.report import pictures, plots
from latlas.report.html import Figure, Row, Section
from latlas.tasks.cache import Cache
from latlas.tasks.common import Array, can, conditions_like, items_of
from latlas.tasks.compare import compare
from latlas.tasks.figures import KINDS
from latlas.tasks.generate import decode, priors_of, sample, traverse, walk
from latlas.tasks.latent_space import CELLS, SPAN, has_latent_space, plane
from latlas.tasks.read import encode, information, reconstruct
from latlas.tasks.translate import sheet

if TYPE_CHECKING:
    from latlas.tasks.evaluate import Evaluation

SAMPLES, PAIRS, DIMS, STEPS, PATHS = 64, 14, 8, 9, 5
POINTS = 2000


@dataclass(frozen=True)
class Subject:
    """A model the report is about.

    Attributes:
        run: its folder, for the loss curves.
        evaluation: its figures; ``fitted`` those of samples from its fitted prior.
        ways: of a model that translates, its figures by the domain it translates to.
        facts: how it was made, name to text.
    """

    name: str
    model: Model
    run: Path | None = None
    evaluation: Evaluation | None = None
    facts: Mapping[str, str] | None = None
    fitted: Evaluation | None = None
    ways: Mapping[str, Evaluation] = field(default_factory=dict)

    @property
    def evaluations(self) -> list[Evaluation]:
        """Those that there are."""
        return [e for e in (self.evaluation, self.fitted) if e is not None]


@dataclass(frozen=True)
class Context:
    """The data the report shows the models on; ``cache`` as for ``evaluate``.

    Attributes:
        to: the domain whose translations are shown alone; every one if empty.
        pairs: the held-out items with both their sides, where there are two; ``train`` and
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
        """Of the items."""
        return self.test.space

    @cached_property
    def extract(self) -> Callable[[Array], Array]:
        """Items to the features that supports are drawn in, made once for all models."""
        from latlas.tasks.quality import feature_extractor

        return feature_extractor("auto", self.train, self.seed, cache=Cache(self.cache))

    def items(self, n: int) -> Dataset:
        """The same ``n`` held-out items for every model, chosen by the seed."""
        order = np.random.default_rng(self.seed).permutation(len(self.test))
        return self.test.subset(order[:n])


def samples(subjects: Sequence[Subject], context: Context) -> Section | None:
    """Real items first, then each model's."""
    able = [s for s in subjects if can(s.model, "sample")]
    if not able:
        return None
    n = min(SAMPLES if context.space.kind == "picture" else POINTS, len(context.test))
    real = items_of(context.items(n))
    figures = [items_figure(real, context.space, "Real data", "held-out items")]
    for subject, prior in ((s, p) for s in able for p in priors_of(s.model)):
        made = sample(subject.model, n, seed=context.seed, prior=prior,
                      condition=conditions_like(subject.model, context.test, n, context.seed))
        caption = "samples" if prior == "own" else "samples from the fitted prior"
        figures.append(items_figure(made, context.space, subject.name, caption, real))
    figures = figures if context.space.kind == "picture" else figures[1:]
    return Section("Samples", "New items drawn from each model, beside real ones it never saw. "
                   "Nothing is picked by hand.", [Row(figures)])


def reconstructions(subjects: Sequence[Subject], context: Context) -> Section | None:
    """One row of held-out items, under it each model's reconstruction of them."""
    able = [s for s in subjects if can(s.model, "reconstruct")]
    if not able:
        return None
    text = "Held-out items through the encoder and back: what the code keeps."
    if context.space.kind != "picture":
        return Section("Reconstructions", text, [Row([
            items_figure(reconstruct(s.model, context.items(POINTS)), context.space, s.name,
                   "reconstructions", items_of(context.items(POINTS))) for s in able])])
    data = context.items(PAIRS)
    stack = [items_of(data), *(reconstruct(s.model, data) for s in able)]
    picture = grid_picture(np.concatenate(stack), context.space, len(stack[0]))
    rows = ["data", *(s.name for s in able)]
    return Section("Reconstructions", text, [Row([Figure(picture, rows=rows)])])


def translations_to_b(subjects: Sequence[Subject], context: Context) -> Section | None:
    """Held-out items of A as items of B; see :func:`_translations`."""
    return _translations(subjects, context, "B")


def translations_to_a(subjects: Sequence[Subject], context: Context) -> Section | None:
    """Held-out items of B as items of A; see :func:`_translations`."""
    return _translations(subjects, context, "A")


def traversals(subjects: Sequence[Subject], context: Context) -> Section | None:
    """Each row changes one dimension of the code, the most active first."""
    able = [s for s in subjects if can(s.model, "reconstruct")]
    if not able or context.space.kind != "picture":
        return None
    figures = [_traversal(s, context) for s in able]
    return Section("Traversal", "Each row varies one dimension of the code by −3 … 3 standard "
                   "deviations around the mean code and leaves the others; the dimension that "
                   "carries most about the items comes first.", [Row(figures)])


def interpolations(subjects: Sequence[Subject], context: Context) -> Section | None:
    """Straight paths between the codes of pairs of held-out items."""
    able = [s for s in subjects if can(s.model, "reconstruct")]
    if not able or context.space.kind != "picture" or len(context.test) < 2 * PATHS:
        return None
    ends = _ends(context)
    figures = [Figure(grid_picture(_paths(s.model, ends), context.space, STEPS), s.name,
                      "paths between codes") for s in able]
    return Section("Interpolation", "Each row walks in a straight line from the code of one "
                   "held-out item to that of another. In a good latent space what lies between "
                   "looks like data too.", [Row(figures)])


def maps(subjects: Sequence[Subject], context: Context) -> Section | None:
    """The codes' two principal components, coloured by label, and as thumbnails."""
    able = [s for s in subjects if can(s.model, "encode")]
    if not able:
        return None
    figures: list[Figure] = []
    for subject in able:
        data = context.items(POINTS)
        plane, share = principal_plane(encode(subject.model, data))
        figures.append(_map(subject.name, plane, share, data))
        if context.space.kind == "picture" and subject is able[-1]:
            figures.append(_thumbnails(subject.name, plane, data))
    return Section("Map of the codes", "Every held-out item at the first two principal components "
                   "of its code. Labels colour it; no model saw them here unless it is "
                   "conditional on them.", [Row(figures, 2)])


def latent_planes(subjects: Sequence[Subject], context: Context) -> Section | None:
    """A plane through each latent space: what is decoded there, and how it changes."""
    rows = [row for s in subjects if has_latent_space(s.model)
            if (row := _planes(s, context)) is not None]
    if not rows:
        return None
    return Section("The latent space", "The plane of the codes' first two principal axes through "
                   "the middle of the prior, in its standard deviations; 86% of the draws fall "
                   "within the circle. Completeness: distance of what is decoded there to the "
                   "held-out items, 1 at the edge of their support; orange lies outside. "
                   "Continuity: how fast the decoded item changes, in distances between "
                   "neighbouring held-out items per standard deviation.", rows)


def loss_curves(subjects: Sequence[Subject], context: Context) -> Section | None:
    """What each run logged while it trained."""
    figures = []
    for subject in subjects:
        history = read_metrics(subject.run) if subject.run else {}
        for title, chosen in _families(history).items():
            figures.append(plot_figure(plots.curves, chosen, title=subject.name, caption=title))
    if not figures:
        return None
    return Section("Loss curves", "The training loss and its terms against items seen, and the "
                   "same on held-out data, dashed. A model in closed form has none.",
                   [Row(figures, 2)])


def read_metrics(run: Path) -> dict[str, tuple[Array, Array]]:
    """RUN/metrics.jsonl as name to (items seen, values); a torn last line is left out."""
    file = run / "metrics.jsonl"
    found: dict[str, list[tuple[float, float]]] = {}
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        entry = _entry(line)
        for name, value in entry.items():
            if name not in ("images", "seconds") and isinstance(value, int | float):
                found.setdefault(name, []).append((entry.get("images", 0), value))
    return {name: _columns(pairs) for name, pairs in found.items()}


def principal_plane(codes: Array) -> tuple[Array, Array]:
    """(n, d) codes on their first two principal axes (n, 2), and the share of variance of each."""
    centred = codes - codes.mean(0)
    _, singular, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    if len(singular) < 2:
        return np.c_[centred[:, :1], np.zeros(len(codes))], np.array([1.0, 0.0])
    return centred @ axes[:2].T, (singular**2 / max((singular**2).sum(), 1e-300))[:2]


def _translations(subjects: Sequence[Subject], context: Context, to: str) -> Section | None:
    """Held-out items, under them their translations and, of pairs, what was wanted; figures."""
    able = [s for s in subjects if can(s.model, "translate") and to in getattr(s.model, "ways")]  # noqa: B009
    if not able or context.to not in ("", to) or (to == "A" and context.pairs is None):
        return None
    judged = [s.ways[to] for s in able if to in s.ways]
    return Section(f"Translations to {to}", "Held-out items of one domain as those of the other.",
                   [Row([_translated(s, to, context) for s in able], 1),
                    *([compare(judged).html(meaning=False)] if judged else [])])


def _translated(subject: Subject, to: str, context: Context) -> Figure:
    both = context.pairs if context.pairs is None or to == "B" else context.pairs.swapped()
    data = both or context.test
    order = np.random.default_rng(context.seed).permutation(len(data))
    rows = sheet(subject.model, data.subset(order[:PAIRS]), to=to).swapaxes(0, 1)
    picture = pictures.grid(rows.reshape(-1, *rows.shape[2:]), 256, columns=rows.shape[1],
                            gutter=pictures.FAINT)
    return Figure(pictures.png(picture), subject.name, f"to {to}",
                  rows=["given", "made", "wanted"][:len(rows)])


def _traversal(subject: Subject, context: Context) -> Figure:
    codes = encode(subject.model, context.items(POINTS))
    carried = information(subject.model, context.items(POINTS))
    dims = np.argsort(-carried, kind="stable")[:DIMS]
    shown = traverse(subject.model, dims=dims, codes=codes, steps=STEPS,
                     condition=conditions_like(subject.model, context.test, 1, context.seed))
    caption = f"the {len(dims)} most active of {codes.shape[1]} dimensions"
    return Figure(grid_picture(shown.reshape(-1, *context.space.shape), context.space, STEPS),
                  subject.name, caption, rows=[f"z{d}" for d in dims])


def _planes(subject: Subject, context: Context) -> Row | None:
    try:
        found = plane(subject.model, context.test, context.extract, context.seed)
    except DataError:  # too few items for features or a support
        return None
    if found is None:
        return None
    space = context.space
    over = (pictures.tiles(found.tiles, space.levels, CELLS) if space.kind == "picture"
            else None)
    axes = {"x": "first principal axis", "y": "second principal axis", "span": SPAN}
    return Row([plot_figure(plots.plane, values, over, title=subject.name, caption=caption,
                            label=label, middle=middle, **axes)
                for values, caption, label, middle in (
        (found.reach, _with(subject, "completeness"), "distance to the support", 1.0),
        (found.slope, _with(subject, "unevenness"), "slope of the decoder", None))], 2)


def _with(subject: Subject, key: str) -> str:
    """``completeness 0.81``, if it has been evaluated."""
    figure = subject.evaluation.get(key) if subject.evaluation is not None else None
    title = KINDS[key].title
    return title if figure is None else f"{title}: {figure.text()}"


def _ends(context: Context) -> Dataset:
    """Pairs of held-out items, of different labels where there are any; ends alternate."""
    data = context.items(len(context.test))
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


def _paths(model: Model, ends: Dataset) -> Array:
    codes = encode(model, ends)
    ways = [walk(codes[i], codes[i + 1], STEPS) for i in range(0, len(codes), 2)]
    given = conditions_like(model, ends, 1)
    return decode(model, np.concatenate(ways), condition=given)


def _map(name: str, plane: Array, share: Array, data: Dataset) -> Figure:
    label: Any = data.take("label")
    names = list(data.space.classes) or ([] if label is None else
                                         [str(i) for i in range(int(label.max()) + 1)])
    axes = {a: f"component {i + 1} ({share[i]:.0%} of the variance)"
            for i, a in enumerate(("x", "y"))}
    return plot_figure(plots.scatter, plane, label, names, title=name,
                 caption=f"{len(plane):,} codes" + (", by label" if label is not None else ""),
                 **axes)


def _thumbnails(name: str, plane: Array, data: Dataset) -> Figure:
    picture = pictures.mosaic(plane, items_of(data), data.space.levels)
    return Figure(pictures.png(picture), name, "the items themselves, at the same places")


def items_figure(x: Array, space: Space, title: str, caption: str,
                 real: Array | None = None, behind: str = "real") -> Figure:
    """Pictures as a grid; tables and points as a plot over the real ones, named ``behind``."""
    if space.kind == "picture":
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
    """PNG bytes of pictures side by side, parted by faint gutters."""
    return pictures.png(pictures.grid(x, space.levels, columns=columns, gutter=pictures.FAINT))


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    values = np.array(pairs, np.float64)
    values = values[np.isfinite(values).all(1)]
    return values[:, 0], values[:, 1]


def _families(history: Mapping[str, tuple[Array, Array]]) -> dict[str, dict[str, Any]]:
    """The loss with its held-out twin in one plot, its terms in another; of two players the sizes
    of their gradients and how their samples came along."""
    shown = {k: v for k, v in history.items() if len(v[0])}
    loss = {k: v for k, v in shown.items() if k.rsplit("/", 1)[-1] == "loss"}
    terms = {k: v for k, v in shown.items() if k.startswith("validation/") or "/" not in k}
    terms = {k: v for k, v in terms.items() if k not in loss and not _rate(k)}
    terms = terms if len({k.rsplit("/", 1)[-1] for k in terms}) > 1 else {}
    found = {"loss": loss, "terms of the loss": terms,
             "norm of the gradients": _inside("gradient/", shown)}
    found |= {f"samples, {k}": {k: v} for k, v in _inside("samples/", shown).items()}
    return {title: chosen for title, chosen in found.items() if chosen}


def _inside(prefix: str, history: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in history.items() if k.startswith(prefix)}


def _rate(name: str) -> bool:
    """Speed and schedule, which are no terms of the loss."""
    return any(word in name for word in ("per_second", "learning_rate", "images/s", "lr", "norm"))
