"""Outliers of tables: an ensemble that is calibrated for the columns that a row has, and reasons.

The members are those of :mod:`latlas.metrics.surprise`, fitted to the run's training rows, and the
run's own likelihood. A reason is a column, with the nats that it adds to −log p of its row beyond
what it usually adds, alone and after all others (docs/outliers.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from latlas.core.mixed import GAP, MixedRows
from latlas.core.space import Column, Table
from latlas.data.values import DAY, feature_rows, mixed_rows
from latlas.metrics import outliers as scoring
from latlas.metrics.scales import NormalScores
from latlas.metrics.surprise import (
    DiffusionTime,
    Ensemble,
    Frequencies,
    MixedGaussian,
    Nearest,
    contributions,
)
from latlas.verbs.common import Array, Progress
from latlas.verbs.outlier_data import REASONS

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.data.dataset import Dataset

#: of the members in the score
WEIGHTS = {"columns": 1.0, "gaussian": 1.0, "nearest": 1.0, "model": 1.0}
#: share of the training rows, the worst-fitting, that the Gaussian leaves out; the noise it adds
TRIMMED, JITTER = 0.1, 0.03
#: draws of the latent vector behind a likelihood; rows at a time
DRAWS, CHUNK = 8, 2048
#: fewest nats of a reason, and training rows that say how much a column usually adds
LEAST, USUAL = 0.5, 500
#: a value of a column of words
NEW = "a word that training had not"


@dataclass(frozen=True)
class Scaled:
    """A member of numbers on their normal scores."""

    member: Any
    scale: NormalScores

    def __call__(self, rows: MixedRows) -> Array:
        return np.asarray(self.member(rows.with_numbers(self.scale(rows.numbers))))


@dataclass(frozen=True)
class Likelihood:
    """−log p(x) by a model, nats; every row meets the same draws."""

    model: Model
    seed: int = 0

    def __call__(self, rows: MixedRows) -> Array:
        import torch

        from latlas.core.noise import SharedNoise, derive
        from latlas.verbs.passes import inference

        space: Any = self.model.space
        x = feature_rows(rows, space.fields, fill=not getattr(self.model, "takes_gaps", False))
        nats = []
        with inference(self.model):
            for part in torch.from_numpy(x).split(CHUNK):
                noise = SharedNoise(derive(self.seed, "outliers"), self.model.device)
                nats.append(-self.model.log_likelihood(  # type: ignore[operator]
                    space.to_model(part).to(self.model.device), noise=noise, draws=DRAWS)[0])
        return np.asarray(torch.cat(nats).double().cpu().numpy()) if nats else np.zeros(0)


class Reason(NamedTuple):
    """Why a row is an outlier: a column, its nats beyond the usual ones, and both in words."""

    column: str
    nats: float
    words: str

    def __str__(self) -> str:
        return f"{self.column} {self.nats:.1f} nats: {self.words}"


class TableNormality:
    """What is usual in a table: the ensemble, fitted to training rows, and a threshold.

    Attributes:
        reference: (m,) scores of the rows that set the threshold: normal rows that were held out,
            with ``contamination`` the training rows.

    ConfigError: too few normal rows for ``fpr``.
    """

    def __init__(self, train: Dataset, normal: Dataset, *, model: Model | None = None,
                 fpr: float = 0.01, contamination: float | None = None, seed: int = 0,
                 progress: Progress | None = None) -> None:
        assert isinstance(train.space, Table)
        if contamination is None:  # before the long work: are there enough of them?
            scoring.threshold(np.zeros(len(normal)), fpr)
        else:
            scoring.contamination_threshold(np.zeros(1), contamination)
        self.fields = tuple(c for c in train.space.fields if c.learnt)
        self.rows = rows = self.read(train)
        self.scale = scale = NormalScores.of(rows.numbers)
        scaled = rows.with_numbers(scale(rows.numbers))
        self.frequencies = Frequencies.of(scaled)
        self.gaussian = MixedGaussian.of(scaled, trimmed_fraction=TRIMMED, jitter=JITTER)
        self.memory = Nearest.of(scaled, seed=seed)
        members: dict[str, Any] = {
            "columns": Scaled(self.frequencies, scale), "gaussian": Scaled(self.gaussian, scale),
            "nearest": Scaled(self.memory, scale)}
        if model is not None:
            members["model"] = Likelihood(model, seed)
        self.ensemble = Ensemble(members, WEIGHTS, rows)
        self.reference = self.scores(normal, progress)
        self.threshold = scoring.threshold(self.reference, fpr) if contamination is None else (
            scoring.contamination_threshold(self.reference, contamination))

    def read(self, data: Dataset) -> MixedRows:
        """Examples by kinds of columns, with their gaps."""
        return mixed_rows(np.asarray(data.take("x")), self.fields)

    def scores(self, data: Dataset, progress: Progress | None = None) -> Array:
        """(n,) float64, higher is more outlying; a row's own, whatever stands beside it."""
        rows = self.read(data)
        parts = []
        for start in range(0, len(rows), 16 * CHUNK):
            parts.append(self.ensemble(rows.take(slice(start, start + 16 * CHUNK))))
            if progress:
                progress(min(start + 16 * CHUNK, len(rows)), len(rows))
        return np.concatenate(parts) if parts else np.zeros(0)

    def columns(self, data: Dataset, progress: Progress | None = None) -> dict[str, Array]:
        """Scores, and flags above the threshold."""
        score = self.scores(data, progress)
        return {"score": score, "flag": score > self.threshold}

    def controls(self, data: Dataset) -> dict[str, Array]:
        """Scores by distances alone: the nearest rows, and the mean diffusion time (DTE-NP)."""
        rows = self.read(data)
        return {"nearest neighbours": Scaled(self.memory, self.scale)(rows),
                "dte-np": Scaled(DiffusionTime(self.memory), self.scale)(rows)}

    # -------------------------------------------------------------- reasons

    def reasons(self, data: Dataset) -> list[list[Reason]]:
        """Of each row up to three columns, the one with the most nats first."""
        rows = self.read(data)
        columns = range(len(rows.names))
        member = Scaled(self.gaussian, self.scale)
        step = max(1, len(self.rows) // USUAL)
        usual = self.rows.take(slice(None, None, step))
        base = [np.nanmedian(np.where(usual.observed, part, np.nan), axis=0) for part in
                contributions(member, usual, columns)]
        alone, after = (part - np.nan_to_num(typical) for part, typical in zip(
            contributions(member, rows, columns), base, strict=True))
        nats = np.where(rows.observed, (alone + after) / 2, -np.inf)
        result = []
        for i, order in enumerate(np.argsort(-nats, axis=1)[:, :REASONS]):
            row = rows.take([i])
            result.append([Reason(rows.names[j], float(nats[i, j]), self._words(
                row, int(j), alone[i, j] >= after[i, j] / 3)) for j in order if nats[i, j] > LEAST])
        return result

    def _words(self, row: MixedRows, j: int, by_itself: bool) -> str:
        """A value, and what is usual: of all rows, or of those with the same other values."""
        p = row.numbers.shape[1]
        column = next(c for c in self.fields if c.name == row.names[j])
        if j >= p:
            return self._of_word(row, j - p, column)
        value, present = row.numbers[0, j], self.rows.numbers[:, j]
        low, high, most, least = np.nanquantile(present, (0.025, 0.975, 0.95, 0.05))
        text = written(value, column)
        if value > high:
            return f"{text} where 95 % lie under {written(most, column)}"
        if value < low:
            return f"{text} where 95 % lie above {written(least, column)}"
        if by_itself:
            return f"{text} where few values lie"
        mean, sd = self.gaussian.conditional(
            replace(row, numbers=self.scale(row.numbers)), j)
        ends = np.zeros((2, p))
        ends[:, j] = mean - 1.96 * sd, mean + 1.96 * sd
        bottom, top = self.scale.inverse(ends)[:, j]
        return (f"{text} where the other columns suggest {written(bottom, column)} … "
                f"{written(top, column)}")

    def words_of(self, column: Column) -> tuple[str, ...]:
        """Of a column of words those of training, and what stands for a new one."""
        words = column.categories if column.kind == "category" else ("false", "true")
        return (*words, "(new)")

    def _of_word(self, row: MixedRows, j: int, column: Column) -> str:
        code = int(row.codes[0, j])
        words = self.words_of(column)
        if code == len(words) - 1:
            return NEW
        every = self.rows.codes[:, j]
        share = float((every == code).sum() / max((every != GAP).sum(), 1))
        return f"{words[code]}, as {share:.2g} of the rows are" if share < 0.01 else (
            f"{words[code]}, as {share:.0%} of the rows are")


def written(value: float, column: Column) -> str:
    """A number as a person writes it: dates as dates, thousands with commas."""
    if column.kind == "date":
        moment = np.datetime64(int(value * DAY), "us")
        return str(moment.astype("datetime64[D]" if column.dtype == "Date" else "datetime64[m]"))
    if column.kind == "integer":
        return f"{round(value) + column.offset:,}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
