"""How improbable rows of a table are, from the columns that are there: members of an ensemble.

Each member gives −log p of a row, or a score that stands for it, for any set of observed columns;
:class:`Ensemble` brings members together, calibrated for the columns that a row has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import logsumexp

from latlas.core.mixed import GAP, MixedRows, patterns
from latlas.metrics.arrays import Array
from latlas.metrics.scales import IQR

LOG_2PI = float(np.log(2 * np.pi))
#: of a Gaussian of rows with gaps: sweeps of expectation and maximisation
SWEEPS = 10
#: rounds of fitting a Gaussian and leaving out the rows that fit worst
ROUNDS = 3
#: rows that neighbours are looked for among; neighbours; rows at a time
MEMORY, NEAREST, CHUNK = 5000, 20, 1024
#: rows that calibrate the scores of a set of columns
CALIBRATING = 300
#: a word that training had not has this share of the rows
UNSEEN = 0.5

#: rows to a number each, (n,), higher is more outlying
Member = Callable[[MixedRows], Array]


@dataclass(frozen=True)
class Frequencies:
    """Independent columns: Laplace's density of numbers t on a robust scale, Σ |t| but for a
    constant; the share of words in training, with half a row of each beside them."""

    log_p: tuple[Array, ...]

    @classmethod
    def of(cls, rows: MixedRows) -> Frequencies:
        """Counted in rows."""
        log_p = []
        for codes, size in zip(rows.codes.T, rows.sizes, strict=True):
            counts = np.bincount(codes[codes != GAP], minlength=size + 1)[:size + 1] + UNSEEN
            log_p.append(np.log(counts / counts.sum()))
        return cls(tuple(log_p))

    def words(self, rows: MixedRows) -> Array:
        """(n, q) −log of each word's share, nats; 0 in a gap."""
        each = [np.where(codes == GAP, 0.0, -log_p[codes])
                for codes, log_p in zip(rows.codes.T, self.log_p, strict=True)]
        return np.stack(each, 1) if each else np.zeros((len(rows), 0))

    def __call__(self, rows: MixedRows) -> Array:
        return np.asarray(np.abs(np.nan_to_num(rows.numbers)).sum(1) + self.words(rows).sum(1))


@dataclass(frozen=True)
class MixedGaussian:
    """log N(numbers) + Σ log P(word | numbers), each of the columns that are there.

    Numbers have a full Gaussian, of which any set of columns has its marginal, exactly. The chance
    of a word is linear in the numbers: the conditional mean of its indicator under the joint
    Gaussian of numbers and indicators, kept within [ε, 1] and normalised; words are independent
    given the numbers. By the tower property this chance is right for any set of numbers that are
    there, but for what is cut at ε.

    Attributes:
        mean: (p + Σ sizes,), covariance of the same size: numbers, then indicators.
        sizes: of the columns of words; least: ε.
    """

    mean: Array
    covariance: Array
    sizes: tuple[int, ...]
    least: float

    @classmethod
    def of(cls, rows: MixedRows, *, trimmed_fraction: float = 0.0,
           jitter: float = 0.0) -> MixedGaussian:
        """Fitted to rows with gaps, by expectation and maximisation (Little & Rubin 2002, section
        11.2.2), anew without the share of rows that fitted worst (concentration steps of Rousseeuw
        & Van Driessen 1999, section 2).

        Args:
            jitter: standard deviation of noise that the numbers are taken to have in addition.
        """
        x = np.concatenate([rows.numbers, rows.one_hot()], 1)
        p, fitting = rows.numbers.shape[1], np.arange(len(x))
        n_fitting = len(x) - int(trimmed_fraction * len(x))
        for _ in range(ROUNDS if trimmed_fraction else 1):
            mean, covariance = moments_with_gaps(x[fitting])
            covariance[np.arange(p), np.arange(p)] += jitter**2
            covariance[:p, :p] = full_rank(covariance[:p, :p], len(fitting) - 2)
            model = cls(mean, covariance, rows.sizes, 1 / (len(fitting) + 2))
            surprise = model(rows)
            fitting = np.sort(np.argpartition(surprise, n_fitting - 1)[:n_fitting])
        return model

    def __call__(self, rows: MixedRows) -> Array:
        """(n,) nats, of numbers on the scale of the fit."""
        p, nats = rows.numbers.shape[1], np.zeros(len(rows))
        sets, which = patterns(~np.isnan(rows.numbers))
        for i, there in enumerate(sets):
            part = np.flatnonzero(which == i)
            centred = rows.numbers[part][:, there] - self.mean[:p][there]
            weights = np.zeros((int(there.sum()), len(self.mean) - p))
            if there.any():
                inside = self.covariance[:p, :p][np.ix_(there, there)]
                factor = cholesky(inside, lower=True)
                white = solve_triangular(factor, centred.T, lower=True)
                nats[part] += 0.5 * (np.square(white).sum(0) + there.sum() * LOG_2PI) + np.log(
                    np.diag(factor)).sum()
                weights = cho_solve((factor, True), self.covariance[:p, p:][there])
            nats[part] += self._words(rows.codes[part], self.mean[p:] + centred @ weights)
        return nats

    def conditional(self, row: MixedRows, j: int) -> tuple[float, float]:
        """Mean and standard deviation of number ``j`` of one row, given the other numbers."""
        there = ~np.isnan(row.numbers[0])
        there[j] = False
        across = self.covariance[:len(there), j][there]
        inside = self.covariance[:len(there), :len(there)][np.ix_(there, there)]
        weights = np.linalg.solve(inside, across)
        mean = self.mean[j] + weights @ (row.numbers[0] - self.mean[:len(there)])[there]
        variance = self.covariance[j, j] - weights @ across
        return float(mean), float(np.sqrt(max(variance, 0.0)))

    def _words(self, codes: Array, chances: Array) -> Array:
        """(n,) −Σ log P(word | numbers) of codes (n, q), nats; chances (n, Σ sizes), not cut."""
        nats, start = np.zeros(len(codes)), 0
        for column, size in zip(codes.T, self.sizes, strict=True):
            shares = np.clip(chances[:, start:start + size], self.least, 1)
            shares = np.concatenate([shares, np.full((len(codes), 1), self.least)], 1)
            log_p = np.log(shares / shares.sum(1, keepdims=True))
            nats -= np.where(column == GAP, 0.0, log_p[np.arange(len(codes)), column])
            start += size
        return nats


def moments_with_gaps(x: Array, sweeps: int = SWEEPS) -> tuple[Array, Array]:
    """Mean (d,) and covariance (d, d), over n − 1, of the Gaussian of rows (n, d) with gaps (NaN),
    by expectation and maximisation; of rows without any those of the rows."""
    there = ~np.isnan(x)
    if there.all():
        return x.mean(0), np.atleast_2d(np.cov(x.T))
    n, d = x.shape
    counts = there.sum(0)
    mean = np.where(counts > 0, np.nansum(x, 0) / np.maximum(counts, 1), 0.0)
    filled = np.where(there, x, mean)
    covariance = np.atleast_2d(np.cov(filled.T))
    ridge = 1e-6 * np.diag(np.maximum(np.diag(covariance), 1e-12))
    sets, which = patterns(there)
    for _ in range(sweeps):
        more = np.zeros((d, d))
        for i, observed in enumerate(sets):
            part = np.flatnonzero(which == i)
            if observed.all():
                continue
            across = (covariance + ridge)[np.ix_(observed, ~observed)]
            inside = (covariance + ridge)[np.ix_(observed, observed)]
            weights = np.linalg.solve(inside, across) if observed.any() else across
            centred = x[np.ix_(part, observed)] - mean[observed]
            filled[np.ix_(part, ~observed)] = mean[~observed] + centred @ weights
            more[np.ix_(~observed, ~observed)] += len(part) * (
                covariance[np.ix_(~observed, ~observed)] - across.T @ weights)
        mean = filled.mean(0)
        centred = filled - mean
        covariance = (centred.T @ centred + more) / max(n - 1, 1)
    return mean, covariance


def full_rank(covariance: Array, rank: int) -> Array:
    """A covariance whose smallest eigenvalues, all beyond ``rank`` but one at least, are their
    mean: probabilistic PCA (Tipping & Bishop 1999, eq. 8) with min(d − 1, rank) axes."""
    d = len(covariance)
    k = max(0, min(d - 1, rank))
    if d < 2 or k == d - 1:
        return covariance
    values, axes = np.linalg.eigh(covariance)
    values[:d - k] = max(values[:d - k].mean(), 1e-12)
    return np.asarray((axes * values) @ axes.T)


@dataclass(frozen=True)
class Nearest:
    """log mean distance to the nearest rows among some that are remembered.

    Squared distances are over the columns that a row has; in a gap of a remembered row stands
    their expectation, by the column's mean and variance. Two words have the squared distance 2, a
    word that training had not from all. A remembered row that is equal counts as the row itself,
    and is left out once.
    """

    x: Array
    more: Array

    @classmethod
    def of(cls, rows: MixedRows, most: int = MEMORY, seed: int = 0) -> Nearest:
        """Remembers up to ``most`` rows, chosen at random."""
        picks = np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])
        some = rows.take(picks)
        x = np.concatenate([some.numbers, some.one_hot()], 1)
        gap = np.isnan(x)
        x[:, gap.all(0)] = 0.0
        return cls(np.where(gap, np.nanmean(x, axis=0), x),
                   np.where(gap, np.nanvar(x, axis=0), 0.0) if gap.any() else np.zeros((0, 0)))

    def squares(self, rows: MixedRows) -> Array:
        """(n, m) squared distances to the remembered rows."""
        x = np.concatenate([rows.numbers, rows.one_hot()], 1)
        there, x = (~np.isnan(x)).astype(np.float64), np.nan_to_num(x)
        theirs = np.square(self.x).sum(1) if there.all() else there @ np.square(self.x).T
        squares = np.square(x).sum(1)[:, None] + theirs - 2 * x @ self.x.T
        sizes = np.array(rows.sizes, np.int64)
        squares += (rows.codes == sizes).sum(1)[:, None]  # a new word is 0 at all words
        if self.more.size:
            squares += there @ self.more.T
        return np.maximum(squares, 0)

    def nearest(self, rows: MixedRows, k: int) -> Array:
        """(n, k) distances, ascending, without the row itself."""
        k = min(k, len(self.x) - 1)
        parts = []
        for start in range(0, len(rows), CHUNK):
            squares = self.squares(rows.take(slice(start, start + CHUNK)))
            near = np.sort(np.partition(squares, k, axis=1)[:, :k + 1], axis=1)
            size = 1e-10 * (1 + np.square(np.nan_to_num(rows.numbers[start:start + CHUNK])).sum(1))
            itself = near[:, :1] < size[:, None]  # but for rounding
            parts.append(np.sqrt(np.where(itself, near[:, 1:], near[:, :-1])))
        return np.concatenate(parts) if parts else np.zeros((0, k))

    def __call__(self, rows: MixedRows) -> Array:
        far = np.minimum(self.nearest(rows, NEAREST), 1e30)
        return np.log(far.mean(1) + 1e-3)


@dataclass(frozen=True)
class DiffusionTime:
    """Control: the mean diffusion time of a row, log E[σ² | x] (DTE-NP, Livernoche et al. 2024).

    Of x = x_i + σ ε with σ² equally likely everywhere, p(σ² | x, x_i) is an inverse gamma density,
    and the mean over the remembered rows is in closed form Σ r_i^(4−d) / Σ r_i^(2−d), but for a
    factor; r_i are the distances to the nearest 50, d the number of columns (at least 5).
    """

    memory: Nearest

    def __call__(self, rows: MixedRows) -> Array:
        log_r = np.log(np.minimum(self.memory.nearest(rows, 50), 1e30) + 1e-6)
        d = max(rows.observed.shape[1], 5)
        return np.asarray(logsumexp((4 - d) * log_r, axis=1) - logsumexp((2 - d) * log_r, axis=1))


@dataclass
class Ensemble:
    """A soft maximum of members, each standardised among training rows that have gaps in the same
    columns: so that a gap in itself makes a row neither more nor less outlying.

    Attributes:
        members: by name, the first word of which is the kind; those of a kind are averaged.
        weights: of each kind in the score.
        calibration: training rows, any number.
    """

    members: Mapping[str, Member]
    weights: Mapping[str, float]
    calibration: MixedRows
    _quartiles: dict[bytes, Array] = field(default_factory=dict, repr=False)

    def deviations(self, rows: MixedRows) -> dict[str, Array]:
        """(n,) of each kind, in robust deviations from the median of training rows."""
        raw = np.stack([member(rows) for member in self.members.values()])
        sets, which = patterns(rows.observed)
        result = np.empty_like(raw)
        for i, there in enumerate(sets):
            part = which == i
            result[:, part] = standardised(raw[:, part], self._quartiles_of(there))
        kinds: dict[str, list[Array]] = {}
        for name, values in zip(self.members, result, strict=True):
            kinds.setdefault(name.split()[0], []).append(values)
        return {kind: np.mean(values, axis=0) for kind, values in kinds.items()}

    def __call__(self, rows: MixedRows) -> Array:
        """(n,) higher is more outlying; a row's own score, whatever stands beside it."""
        return self.combined(self.deviations(rows))

    def combined(self, deviations: Mapping[str, Array]) -> Array:
        """The score of the deviations by kind."""
        weights = np.array([self.weights[name] for name in deviations])
        return soft_maximum(np.stack(list(deviations.values())), weights)

    def _quartiles_of(self, there: Array) -> Array:
        """(3, members) of training rows that have these columns, with gaps in the others."""
        key = np.packbits(there).tobytes()
        if key not in self._quartiles:
            overlap = (self.calibration.observed & there).sum(1)
            rows = np.flatnonzero(overlap == there.sum())
            if len(rows) < 50:  # those that have most of them
                rows = np.argsort(-overlap, kind="stable")[:CALIBRATING // 2]
            if not there.all() and len(rows) > CALIBRATING:
                rows = rows[np.linspace(0, len(rows) - 1, CALIBRATING).astype(np.int64)]
            some = self.calibration.take(rows).only(there)
            raw = np.stack([member(some) for member in self.members.values()])
            self._quartiles[key] = np.percentile(raw, (25, 50, 75), axis=1)
        return self._quartiles[key]


def standardised(scores: Array, reference: Array) -> Array:
    """(members, n) scores in robust deviations from the median; ``reference`` are the quartiles."""
    low, centre, high = reference[..., None]
    return np.asarray((scores - centre) / np.maximum(
        (high - low) / IQR, 1e-12 * np.maximum(1.0, np.abs(centre))))


def soft_maximum(deviations: Array, weights: Array) -> Array:
    """½ log Σ_m w_m exp(2 s_m) of s = sign(t) log(1 + |t|), (members, n) to (n,).

    Near their mean where the members agree. A single member that calls a row an outlier raises the
    score, but by the logarithm of its deviation only, so that it does not outvote the others.
    """
    s = np.sign(deviations) * np.log1p(np.abs(deviations))
    return np.asarray(0.5 * logsumexp(2 * s, axis=0, b=(weights / weights.sum())[:, None]))


def contributions(model: Member, rows: MixedRows, columns: Sequence[int]) -> tuple[Array, Array]:
    """What each column adds to −log p of a row, (n, len(columns)) twice, nats: alone, and after all
    others that are there. Their mean is the Shapley value where columns act in pairs."""
    width = rows.observed.shape[1]
    whole, alone, after = model(rows), [], []
    for column in columns:
        one = np.arange(width) == column
        alone.append(model(rows.only(one)))
        after.append(whole - model(rows.only(~one)))
    return np.stack(alone, 1), np.stack(after, 1)
