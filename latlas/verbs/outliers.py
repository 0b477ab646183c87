"""``outliers``: what does not belong: a score per example, a threshold of known false-positive
rate, a ranking.

Likelihood alone fails: a model of clothing finds digits more probable than clothing, for they are
simpler (Nalisnick et al. 2019). ``typicality`` asks whether the model sees an example as it sees
normal ones: density of states (Morningstar et al. 2021), complexity (Serrà et al. 2020).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np

from latlas.core.errors import CapabilityError, say_number, say_option
from latlas.core.space import Images, Table
from latlas.metrics import outliers as scoring
from latlas.render import plots
from latlas.render.text import counted, table
from latlas.run import Run, as_run
from latlas.verbs import common, write
from latlas.verbs.common import Array, Flag, Progress
from latlas.verbs.normality import Normality, nats_maps
from latlas.verbs.outlier_data import REASONS, Opened, open_with_truth
from latlas.verbs.results import ShardParts

if TYPE_CHECKING:
    from latlas.data.dataset import Dataset
    from latlas.verbs.table_outliers import Reason, TableNormality

#: what a method needs of the model, and what its score is, for an axis
NEEDED = {"nats": "score", "error": "reconstruct", "typicality": "encode"}
METHODS = ("auto", "ensemble", *NEEDED)
SCORES = {"ensemble": "score of the ensemble", "nats": "−log p(x), nats",
          "error": "squared error of the reconstruction",
          "typicality": "squared distance of the statistics from normal examples"}
#: images of the gallery; rows of a table whose reasons are said
GALLERY, FIRST = 64, 5
#: rows at most that have reasons
REASONED = 1000


@dataclass(eq=False, repr=False)
class Outliers(common.Result):
    """Scores of n examples, higher is more outlying, and what they are compared with.

    Attributes:
        score: (n,) float64.
        reference: (m,) scores of normal examples held out in training, which set the threshold.
        threshold: what a normal example exceeds with a chance of at most ``fpr``.
        method: ``ensemble``, ``nats``, ``error`` or ``typicality``.
        truth: (n,) bool, which examples are outliers by their label; ``None`` if that is not known.
        controls: scores of an isolation forest and of probabilistic PCA, of tables of nearest
            neighbours, fitted to the run's training examples.
        examples: the examples; ``k`` of the precision among the first k.
        contamination: the share of the training rows above the threshold, where that set it.
        reasons: of each example, of tables by the ensemble; none of those far down the ranking.
        original: the table's own columns by name, in the order of the examples.
        normality: what is usual in the table.
        maps: of the first images (k, H, W) where they are other than expected, nats a pixel.
    """

    score: Array
    reference: Array
    threshold: float
    method: str
    fpr: float
    truth: Array | None = None
    controls: dict[str, Array] = field(default_factory=dict)
    examples: Dataset | None = None
    k: int | None = None
    contamination: float | None = None
    reasons: list[list[Reason]] = field(default_factory=list)
    original: dict[str, Any] = field(default_factory=dict)
    normality: TableNormality | None = None
    maps: Array | None = None

    @property
    def flag(self) -> Array:
        """(n,) bool: above the threshold."""
        return np.asarray(self.score > self.threshold)

    @property
    def order(self) -> Array:
        """(n,) rows, the most outlying first."""
        return np.argsort(-self.score, kind="stable")

    def rankings(self) -> dict[str, scoring.Ranking]:
        """Metrics of the score and of every control; empty without two kinds of examples."""
        if self.truth is None:
            return {}
        ranked = {name: scoring.ranking(score, self.truth, self.k)
                  for name, score in {self.method: self.score, **self.controls}.items()}
        return {name: r for name, r in ranked.items() if r is not None}

    def as_columns(self) -> dict[str, Any]:
        """One row per example, the most outlying first."""
        order = self.order
        names = None if self.examples is None else self.examples.take("names")
        columns = {"rank": np.arange(1, len(order) + 1),
                   "example": common.titles(names, len(order))[order],
                   "score": self.score[order], "flag": self.flag[order]}
        if self.truth is not None:
            columns["label"] = self.truth[order]
        for i in range(REASONS if self.reasons else 0):
            columns[f"reason {i + 1}"] = np.array([str(self.reasons[row][i]) if i < len(
                self.reasons[row]) else "" for row in order], str)
        controls = {f"control {k}": v[order] for k, v in self.controls.items()}
        taken = {"label", *columns, *controls}
        return columns | {f"{name} (data)" if name in taken else name: series[order]
                          for name, series in self.original.items()} | controls

    @property
    def expected(self) -> tuple[float, float]:
        """Shares between which that of the flagged lies in 95 of 100 cases if all examples are as
        those that set the threshold: the beta-binomial of both samples."""
        from scipy.stats import betabinom

        m, n, over = len(self.reference), len(self.score), int(
            (self.reference > self.threshold).sum())
        low, high = betabinom.interval(0.95, n, over + 1, max(m - over, 1))
        return float(low / n), float(high / n)

    def completed(self, run: Run, normality: Normality | TableNormality, opened: Opened,
                  normal: Dataset, train: Dataset | None, controlled: bool, seed: int) -> Self:
        """With the controls fitted to ``train``, if any, maps of images, and reasons of rows."""
        examples = opened.examples
        if controlled and train is not None:
            self.controls = _baselines(train, examples, seed) | normality.controls(examples)
        self.maps = nats_maps(run.model, examples.subset(self.order[:GALLERY]), normal)
        if isinstance(normality, Normality):
            return self
        self.normality, rows = normality, self.order[:REASONED]
        first = normality.reasons(opened.examples.subset(rows))
        place = dict(zip(rows.tolist(), first, strict=True))
        self.reasons = [place.get(i, []) for i in range(len(self.score))]
        if opened.source is not None and opened.source.frame is not None:
            frame = opened.source.frame.data[opened.examples.index]
            self.original = {series.name: series for series in frame}
        return self

    def facts(self) -> dict[str, Any]:
        return {"examples": len(self.score), "method": self.method, "threshold": self.threshold,
                "fpr": self.fpr, "reference": len(self.reference),
                "flagged": int(self.flag.sum()), "expected": list(self.expected),
                **({} if self.contamination is None else {"contamination": self.contamination}),
                "rankings": {name: asdict(r) for name, r in self.rankings().items()}}

    def text(self) -> str:
        flagged, n, rankings = int(self.flag.sum()), len(self.score), self.rankings()
        low, high = self.expected
        rule = (f"which at most {self.fpr:.3g} of normal examples exceed (by "
                f"{len(self.reference):,} held out)" if self.contamination is None else
                f"which {self.contamination:.3g} of the training examples exceed")
        line = (f"{counted(n, 'example')}, {flagged:,} flagged ({flagged / n:.2%}; of examples as "
                f"those that set the threshold {low:.2%} … {high:.2%}): {self.method} above "
                f"{say_number(self.threshold, 4)}, {rule}")
        if self.reasons:
            names = self.as_columns()["example"]
            line += "".join(f"\n{names[i]}: " + ("; ".join(map(str, self.reasons[row])) or "-")
                            for i, row in enumerate(self.order[:FIRST]))
        if rankings:
            k = next(iter(rankings.values())).k
            return line + "\n" + table(["", "ROC AUC", "average precision", f"precision at {k}"], [
                [name, f"{r.auroc:.3f}", f"{r.average_precision:.3f}", f"{r.precision:.3f}"]
                for name, r in rankings.items()])
        if not self.controls:
            return line
        # without labels: how many of the flagged examples the controls rank as high
        first = self.order[:max(1, flagged)]
        shares = {name: len(set(first) & set((-score).argsort()[:len(first)])) / len(first)
                  for name, score in self.controls.items()}
        return f"{line}\nof the {counted(len(first), 'first example')}, " + ", ".join(
            f"{share:.0%} are also the first by {name}" for name, share in shares.items())

    def save(self, path: str | Path) -> str:
        """The table; beside it a histogram with the threshold, of images the first ones, of tables
        a page with the distributions behind the reasons."""
        def beside(what: str, ending: str = ".png") -> Path:
            return Path(path).with_name(f"{Path(path).stem}-{what}{ending}")

        sets = {"held-out normal examples": self.reference, "examples": self.score}
        if self.truth is not None and self.truth.any() and not self.truth.all():
            sets |= {"examples": self.score[~self.truth],
                     "outliers by label": self.score[self.truth]}
        histogram = plots.histograms(sets, x=SCORES[self.method], mark=self.threshold,
                                     marked="threshold, " + (
                                         f"false-positive rate {self.fpr:.3g}"
                                         if self.contamination is None else
                                         f"contamination {self.contamination:.3g}"),
                                     log=self.method == "typicality")
        lines = [write.write_table(path, self.as_columns()),
                 write.write_plot(beside("histogram"), histogram)]
        if self.normality is not None:
            from latlas.verbs.outlier_page import build_page

            page = beside("reasons", ".html")
            write.write_bytes(page, build_page(self).encode("utf-8", "replace"))
            lines.append(f"wrote {page}")
        if self.examples is not None and self.examples.space.kind == "image":
            x = np.asarray(self.examples.take("x"))[self.order[:GALLERY]]
            lines.append(write.write_examples(beside("first"), x, self.examples.space))
            if self.maps is not None:
                shape = (3, *self.maps.shape[1:])
                lines.append(write.write_examples(beside("nats"), plots.coloured(self.maps),
                                                  Images(shape)))
        return "\n".join(lines)


@common.verb
def outliers(run: common.RunLike, data: common.DataLike = None, *, split: common.Split = None,
             outlier_label: str | None = None, fpr: Annotated[float, common.AMOUNT] = 0.01,
             contamination: Annotated[float | None, common.AMOUNT] = None,
             method: Literal["auto", "ensemble", "nats", "error", "typicality"] = "auto",
             reference: Annotated[Any, Flag(str, "Source of normal examples for the threshold. "
                                                 "Default: those the run held out.")] = None,
             controls: Annotated[Any, Flag(
                 bool, "Also fit an isolation forest and PPCA; to tables neighbours and DTE-NP.",
                 negative="--no-controls")] = True,
             k: Annotated[int | None, common.POSITIVE] = None,
             shard: common.Shard = None, block: common.BlockSize = 4096,
             seed: common.Seed = 0, out: Annotated[common.Out, common.Output(
                 "outliers.csv", "Examples by rank: .csv, .parquet, .npz; plots beside it. "
                 "Default: RUN/outliers.csv. With --shard a folder.")] = None,
             progress: Progress | None = None, **read: Any) -> Outliers | ShardParts:
    """Rank what does not belong. Every example has a score, which depends on that example alone,
    and a flag above a threshold of known false-positive rate.

    Beside the table: a histogram; the most outlying images, and maps of nats that say where; for
    tables a page with reasons. A shard has only scores and flags, in their own order. From Python,
    data may be (array, labels) with label 1 for outliers, controls the data to fit them to.

    Args:
        outlier_label: Classes of the data that are outliers, commas between, for the metrics.
            Default: 1 where they are 0 and 1.
        fpr: Share of normal examples above the threshold (false-positive rate).
        contamination: Instead: share of the training examples, outliers among them, above it.
        method: ensemble (tables): four members, calibrated for gaps; nats: −log p(x); error: mean
            squared error of the reconstruction; typicality (images): squared Mahalanobis distance
            of an example's statistics from normal ones; auto: by the kind of data.
        k: Precision among the first K. Default: as many as there are outliers.

    Raises:
        CapabilityError: the model cannot do what the method needs.
        ConfigError: an unknown method or class, or too few normal examples for ``fpr``.
    """
    from latlas.verbs import shards

    run, fitted_to = as_run(run), None if isinstance(controls, bool) else controls
    chosen, train = method_of(run, method, fitted_to is not None), None
    shards.check_output(shard, out, block)
    lenient, controlled = chosen == "ensemble", shard is None and controls is not False
    opened = open_with_truth(run, data, split, outlier_label, lenient=lenient, **read)
    if lenient or contamination is not None or controlled:
        train = open_with_truth(run, fitted_to, None if fitted_to is not None else "train",
                                lenient=lenient).examples
    normal = open_with_truth(run, reference, None if reference is not None else "validation",
                             lenient=lenient).examples
    counts = Counts(progress, len(opened.examples))
    normality = normality_of(run, train, normal, method=chosen, fpr=fpr, seed=seed,
                             contamination=contamination, progress=counts.first)
    if shard is not None:
        return shards.write_parts(
            "outliers", run.model, opened.examples, normality.columns, shard=shard, out=out,
            block=block, reference=normal, progress=progress, method=chosen, fpr=fpr,
            contamination=contamination, seed=seed)
    score = normality.scores(opened.examples, counts.second)
    result = Outliers(score, normality.reference, normality.threshold, chosen, fpr, opened.truth,
                      {}, opened.examples, k, contamination)
    return result.completed(run, normality, opened, normal, train, controlled, seed).saved(out)


@dataclass
class Counts:
    """The progress of two sweeps, one after the other, as that of one; the second is of so many
    examples, the first says of how many it is."""

    progress: Progress | None
    second_of: int
    first_of: int = 0

    def first(self, count: int, total: int) -> None:
        self.first_of = total
        self.second(count - total, self.second_of)

    def second(self, count: int, total: int) -> None:
        if self.progress:
            self.progress(self.first_of + count, self.first_of + total)


def normality_of(run: Run, train: Dataset | None, normal: Dataset, *, method: str, fpr: float,
                 contamination: float | None = None, seed: int = 0,
                 progress: Progress | None = None) -> Normality | TableNormality:
    """What is usual by a method: of the ensemble fitted to ``train``; ``normal`` sets the
    threshold, with a contamination ``train``."""
    if method == "ensemble":
        from latlas.verbs.table_outliers import TableNormality

        assert train is not None
        # with a contamination the training rows set the threshold
        return TableNormality(train, normal if contamination is None else train, fpr=fpr,
                              model=run.model if run.can("score") else None, seed=seed,
                              contamination=contamination, progress=progress)
    normality = Normality(run.model, normal, fpr=fpr if contamination is None else None,
                          method=method, seed=seed, progress=progress)
    if contamination is not None:
        normality.take_contamination(train, contamination)
    return normality


def _baselines(train: Dataset, examples: Dataset, seed: int) -> dict[str, Array]:
    """Scores of the controls, in model units, so that no column of a table rules by its unit."""
    def numbers(part: Dataset) -> Array:
        x, space = np.asarray(part.take("x")), part.space
        if isinstance(space, Table):
            from latlas.data.values import fill_gaps

            x = fill_gaps(x, space.fields)
        return np.asarray(space.to_model(np.asarray(x, np.float32)))

    reference, new = numbers(train), numbers(examples)
    return {"isolation forest": scoring.forest_surprise(reference, new, seed),
            "ppca": scoring.ppca_surprise(reference, new)}


def method_of(run: Run, method: str, fitted_to: bool = False) -> str:
    """``auto`` is ``typicality`` for images; the ensemble for tables, where the training examples
    can be opened or other data are given to fit it to; otherwise ``nats`` where the model has a
    likelihood, else ``error``. ConfigError: an unknown method. CapabilityError: a model of
    p(x | condition), or one that cannot do what the method needs."""
    common.one_of("method", method, METHODS)
    if method in NEEDED:
        run.require(NEEDED[method], "outliers")
    if run.conditional:
        raise CapabilityError(f"{run.model_name} knows p(x | condition) alone; outliers need a "
                              "model of x: train vae, ae or pca")
    table, fitted = isinstance(run.space, Table), run.data is not None or fitted_to
    if method == "ensemble" and not (table and fitted):
        raise CapabilityError(f"{say_option('method', 'ensemble')} is for runs of a table whose "
                              "training data can be opened", option="method")
    if method == "auto":
        method = "typicality" if run.space.kind == "image" else "ensemble" if table and fitted \
            else "nats" if run.can("score") else "error"
        if method in NEEDED:
            run.require(NEEDED[method], "outliers")
    return method
