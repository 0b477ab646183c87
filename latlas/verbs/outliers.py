"""``outliers``: what does not belong: a score per example, a threshold of known false-positive
rate, a ranking.

A generative model's likelihood alone fails here: a model of clothing finds digits more probable
than clothing, for they are simpler (Nalisnick et al. 2019). ``typicality`` asks instead whether the
model sees an example as it sees normal ones, in several respects at once (the density of states of
Morningstar et al. 2021, with a Gaussian for its density, and the complexity of Serrà et al. 2020
among the statistics).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from latlas.core.errors import ConfigError, say_option, unknown
from latlas.data.fitting import as_source, default_split, fitted, is_arrays, part_of
from latlas.data.pairs import first_side
from latlas.metrics.outliers import Ranking, forest_surprise, ppca_surprise, ranking
from latlas.render.text import counted
from latlas.run import Run, as_run
from latlas.verbs.common import (
    Array,
    BlockSize,
    DataLike,
    Flag,
    Out,
    Output,
    Progress,
    Result,
    RunLike,
    Seed,
    Shard,
    ShardParts,
    Split,
    at_least,
)

if TYPE_CHECKING:
    from latlas.data.dataset import Dataset

#: what a method's score is, for an axis
SCORES = {"nats": "−log p(x), nats", "error": "squared error of the reconstruction",
          "typicality": "squared distance of the statistics from normal examples"}
#: images of the gallery
GALLERY = 64


@dataclass(eq=False, repr=False)
class Outliers(Result):
    """Scores of n examples, higher is more outlying, and what they are compared with.

    Attributes:
        score: (n,) float64.
        reference: (m,) scores of normal examples held out in training, which set the threshold.
        threshold: what a normal example exceeds with a chance of at most ``fpr``.
        method: ``nats``, ``error`` or ``typicality``.
        truth: (n,) bool, which examples are outliers by their label; ``None`` if that is not known.
        controls: scores of an isolation forest and of probabilistic PCA, fitted to the run's
            training examples.
        examples: the examples; ``k`` of the precision among the first k.
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

    @property
    def flag(self) -> Array:
        """(n,) bool: above the threshold."""
        return np.asarray(self.score > self.threshold)

    @property
    def order(self) -> Array:
        """(n,) rows, the most outlying first."""
        return np.argsort(-self.score, kind="stable")

    def rankings(self, k: int | None = None) -> dict[str, Ranking]:
        """Metrics of the score and of every control; empty without two kinds of examples."""
        if self.truth is None:
            return {}
        every = {self.method: self.score, **self.controls}
        ranked = {name: ranking(score, self.truth, k) for name, score in every.items()}
        return {name: r for name, r in ranked.items() if r is not None}

    def table(self) -> dict[str, Array]:
        """One row per example, the most outlying first."""
        order = self.order
        names = None if self.examples is None else self.examples.take("names")
        example = np.arange(len(order)) if names is None else np.asarray(names)
        columns = {"rank": np.arange(1, len(order) + 1), "example": example[order],
                   "score": self.score[order], "flag": self.flag[order]}
        if self.truth is not None:
            columns["label"] = self.truth[order]
        return columns | {f"control {k}": v[order] for k, v in self.controls.items()}

    def facts(self) -> dict[str, Any]:
        return {"examples": len(self.score), "method": self.method, "threshold": self.threshold,
                "fpr": self.fpr, "reference": len(self.reference),
                "flagged": int(self.flag.sum()),
                "rankings": {name: asdict(r) for name, r in self.rankings(self.k).items()}}

    def text(self) -> str:
        from latlas.render.text import table

        flagged, n = int(self.flag.sum()), len(self.score)
        line = (f"{counted(n, 'example')}, {flagged:,} flagged ({flagged / n:.2%}): {self.method} "
                f"above {self.threshold:.4g}, which at most {self.fpr:.3g} of normal examples "
                f"exceed (by {len(self.reference):,} held out)")
        rankings = self.rankings(self.k)
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

    def histogram(self) -> bytes:
        """PNG bytes: scores of held-out normal examples, of the examples, and the threshold."""
        from latlas.render import plots

        sets = {"held-out normal examples": self.reference}
        if self.truth is None or self.truth.all() or not self.truth.any():
            sets["examples"] = self.score
        else:
            sets |= {"examples": self.score[~self.truth],
                     "outliers by label": self.score[self.truth]}
        return plots.histograms(sets, x=SCORES[self.method], mark=self.threshold,
                                marked=f"threshold, false-positive rate {self.fpr:.3g}",
                                log=self.method == "typicality")

    def save(self, path: str | Path) -> str:
        """The table; beside it a histogram with the threshold, and of images the first ones."""
        from latlas.verbs.write import write_examples, write_plot, write_table

        def beside(what: str) -> Path:
            return Path(path).with_name(f"{Path(path).stem}-{what}.png")

        lines = [write_table(path, self.table()),
                 write_plot(beside("histogram"), self.histogram())]
        if self.examples is not None and self.examples.space.kind == "image":
            x = np.asarray(self.examples.take("x"))[self.order[:GALLERY]]
            lines.append(write_examples(beside("first"), x, self.examples.space))
        return "\n".join(lines)


def outliers(run: RunLike, data: DataLike = None, *, split: Split = None,
             outlier_label: str | None = None, fpr: float = 0.01,
             method: Literal["auto", "nats", "error", "typicality"] = "auto",
             reference: Annotated[Any, Flag(str, "Source of normal examples that set the "
                                                 "threshold. Default: those the run held "
                                                 "out.")] = None,
             controls: Annotated[Any, Flag(
                 bool, "Also an isolation forest and PPCA, fitted to the training examples.",
                 negative="--no-controls")] = True,
             k: int | None = None, shard: Shard = None, block: BlockSize = 4096, seed: Seed = 0,
             out: Annotated[Out, Output(
                 "outliers.csv", "Examples by rank: .csv, .parquet, .npz; plots beside it. "
                 "Default: RUN/outliers.csv. With --shard a folder.")] = None,
             progress: Progress | None = None, **read: Any) -> Outliers | ShardParts:
    """Rank what does not belong. Every example has a score, which depends on that example alone,
    and a flag above a threshold of known false-positive rate.

    Beside the table: a histogram with the threshold, and for images the most outlying ones. A
    shard has only the scores and flags of its examples, in their own order. From Python, data may
    be (array, labels) with label 1 for outliers, and controls the data that they are fitted to.

    Args:
        outlier_label: Classes of the data that are outliers, commas between, for the metrics.
            Default: 1 where they are 0 and 1.
        fpr: Share of normal examples above the threshold (false-positive rate).
        method: nats: −log p(x); error: mean squared error of the reconstruction, model units;
            typicality: squared Mahalanobis distance of the example's statistics from those of
            normal ones; auto: typicality for images, else nats where the model has a likelihood.
        k: Precision among the first K. Default: as many as there are outliers.

    Raises:
        CapabilityError: the model cannot do what the method needs.
        ConfigError: an unknown method or class, or too few normal examples for ``fpr``.
    """
    from latlas.verbs import shards
    from latlas.verbs.normality import NEEDED, Normality, method_of

    run = as_run(run)
    at_least("k", k, 1)
    if method in NEEDED:
        run.require(NEEDED[method], "outliers")
    method = method_of(run, method)  # type: ignore[assignment]
    run.require(NEEDED[method], "outliers")
    shards.check_output(shard, out, block)
    examples, truth = open_with_truth(run, data, split, outlier_label, **read)
    train = None
    if shard is None and controls is not False:
        train = open_with_truth(run, None, "train")[0] if controls is True else run.open(controls)
    normal = reference_examples(run, reference)
    normality = Normality.of(run.model, normal, fpr=fpr, method=method, seed=seed,
                             progress=progress and _shifted(progress, 0, len(examples)))
    if shard is not None:
        return shards.write_parts(
            "outliers", run.model, examples, normality.columns, shard=shard, out=out, block=block,
            reference=normal, progress=progress, method=method, fpr=fpr, seed=seed)
    scores = normality.scores(examples, progress and _shifted(progress, len(normal), len(normal)))
    return Outliers(scores, normality.reference, normality.threshold, method, fpr, truth,
                    {} if train is None else _baselines(train, examples, seed), examples,
                    k).saved(out)


def _baselines(train: Dataset, examples: Dataset, seed: int) -> dict[str, Array]:
    """Scores of the controls, in model units, so that no column of a table rules by its unit."""
    reference, new = (np.asarray(train.space.to_model(np.asarray(part.take("x"), np.float32)))
                      for part in (train, examples))
    return {"isolation forest": forest_surprise(reference, new, seed),
            "ppca": ppca_surprise(reference, new)}


def _shifted(progress: Progress, before: int, more: int) -> Progress:
    """Progress over one of two sets: so many examples come before, so many more in all."""
    return lambda count, total: progress(before + count, total + more)


def reference_examples(run: Run, data: Any = None) -> Dataset:
    """What outliers are compared with: by default what the run held out while training."""
    return open_with_truth(run, data, "validation" if data is None else None)[0]


def open_with_truth(run: Run, data: Any = None, split: str | None = None,
                    outlier_label: str | None = None,
                    **read: Any) -> tuple[Dataset, Array | None]:
    """The examples of :meth:`Run.open` without their labels, and which of them are outliers.

    Args:
        data: labels of a pair (array, labels) are true or 1 for outliers.
        outlier_label: classes that are outliers, commas between, in the words of ``data``, which
            need not be the run's. ``None`` takes ``1`` where the classes are 0 and 1.

    Raises:
        ConfigError: no such class.
    """
    if is_arrays(data):
        x, labels = data if isinstance(data, tuple) else (data, None)
        examples = run.open(x, split)
        if labels is None:
            return examples, None
        truth = np.asarray(labels)
        if truth.shape != (len(examples),) or not np.isin(truth, (0, 1)).all():
            from latlas.core.errors import DataError

            raise DataError(f"labels of outliers must be {len(examples)} numbers that are 0 or 1 "
                            "(1: outlier)")
        return examples, truth.astype(bool)
    source = as_source(data, run, **read)
    examples = first_side(part_of(source, split or default_split(source, run)))
    label, classes = examples.take("label"), examples.space.classes
    return (fitted(replace(examples, label=None), run.space, source.name),
            _truth(label, classes, outlier_label))


def _truth(label: Any, classes: Sequence[str], outlier_label: str | None) -> Array | None:
    if outlier_label is not None and label is None:
        raise ConfigError(f"{say_option('outlier_label', outlier_label)}: the data have no labels; "
                          f"name their column with {say_option('label')}", option="outlier_label")
    if label is None or (outlier_label is None and set(classes) != {"0", "1"}):
        return None
    names = [name.strip() for name in (outlier_label or "1").split(",")]
    for name in names:
        if name not in classes:
            raise ConfigError(unknown("class", name, classes), option="outlier_label")
    return np.isin(label, [list(classes).index(name) for name in names])
