"""Likelihoods of a table's columns by their kinds: one mechanism that every model of tables reads.

A column of real numbers or dates has a Gaussian, one of 0 and 1 a Bernoulli distribution, one of
words a categorical one, a count a negative binomial, whole numbers of few levels a discretised
logistic one. A gap is left out: as the columns are independent given the latents, that is the
marginal of the columns that are there. Where gaps are modelled, each has a chance of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.distributions import LOG_2PI
from latlas.core.noise import Noise
from latlas.core.space import PERIODS, Column, Table

LAWS = ("gaussian", "bernoulli", "categorical", "count", "ordinal")
#: log means of counts stay within so much of that of training
REACH = 8.0


@dataclass(frozen=True)
class Part:
    """Where a column stands in a row.

    Attributes:
        start, stop: of the numbers that have a likelihood, one but for words.
        gap: the number that says whether the value is missing; ``None`` if none does.
    """

    column: Column
    start: int
    stop: int
    gap: int | None


class Layout:
    """Where the columns of a table stand in a row, and the likelihood of each.

    Attributes:
        parts: the columns that are learnt, in order.
        modelled: gaps have a likelihood of their own.
        plain: all columns are real numbers without gaps, each a number of its own.
    """

    def __init__(self, space: Table, modelled: bool = False) -> None:
        self.parts, self.modelled = tuple(_parts(space)), modelled
        self.scale = torch.tensor(space.scale, dtype=torch.float64).expand(space.dims)
        self.location = torch.tensor(space.location, dtype=torch.float64).expand(space.dims)
        #: of each likelihood which columns have it, and where their numbers begin
        self.columns = {law: [i for i, part in enumerate(self.parts) if part.column.law == law]
                        for law in LAWS}
        self.starts = {law: [self.parts[i].start for i in columns]
                       for law, columns in self.columns.items()}
        self.plain = all(p.column.law == "gaussian" and len(p.column.features) == 1
                         for p in self.parts)
        self.density = self.starts["gaussian"]
        #: of each number the column that it stands for, but for those that say what is missing
        self.owner = torch.tensor([i for i, p in enumerate(self.parts)
                                   for _ in range(len(p.column.features))])
        self.has_words = torch.tensor([p.column.law == "categorical" for p in self.parts])
        self.says_gap = torch.zeros(space.dims, dtype=torch.bool)
        self.says_gap[[p.gap for p in self.parts if p.gap is not None]] = True
        #: numbers that say what is missing, of which nothing is made
        self.silent = [] if modelled else [p.gap for p in self.parts if p.gap is not None]
        self.log_volume = float(self.scale[self.density].log().sum())

    def data(self, x: Tensor, at: Any) -> Tensor:
        """Some numbers of rows in model units, (…, d), in data units."""
        return x[..., at] * self.scale[at].to(x) + self.location[at].to(x)

    def model(self, v: Tensor, at: Any) -> Tensor:
        """The inverse, of those numbers alone."""
        return (v - self.location[at].to(v)) / self.scale[at].to(v)

    def observed(self, x: Tensor) -> Tensor:
        """(…, columns) which values of rows (…, d) in model units are there. A gap is NaN, or said
        by the number for it."""
        there = ~x[..., [part.start for part in self.parts]].isnan()
        gaps = [(i, part.gap) for i, part in enumerate(self.parts) if part.gap is not None]
        if gaps:
            columns, at = map(list, zip(*gaps, strict=True))
            there[..., columns] &= self.data(x, at).nan_to_num(1.0) <= 0.5
        return there

    def visible(self, x: Tensor) -> Tensor:
        """Rows in model units as a network reads them: 0, the training mean, in a gap, and unless
        gaps are modelled for the numbers that say what is missing."""
        there = self.observed(x)[..., self.owner.to(x.device)]
        gap = self.says_gap.to(x.device)
        there = there & ~gap if not self.modelled else there | gap
        return torch.where(there, x.nan_to_num(0.0), 0.0)

    def levels(self, part: Part) -> slice:
        """The words of a column, a gap among them where it is modelled."""
        return slice(part.start, part.stop + (self.modelled and part.gap is not None))


def _parts(space: Table) -> Iterator[Part]:
    start = 0
    for column in space.fields:
        if column.learnt:
            stop = start + len(column.features)
            size = len(column.categories) if column.law == "categorical" else 1
            yield Part(column, start, start + size, stop - 1 if column.gaps else None)
            start = stop


@dataclass
class ByColumn:
    """p(x | output): independent columns, each with the likelihood of its kind.

    Attributes:
        output: (*batch, d) of a decoder: means of Gaussians and locations of levels in model units;
            logits; log means of counts beside those of training.
        log_var: (d,) log σ² of Gaussians and 2 log s of levels in model units; of counts −2 log r,
            whose variance is μ + μ²/r.
    """

    output: Tensor
    log_var: Tensor
    layout: Layout

    def log_probs(self, x: Tensor) -> Tensor:
        """(*batch, columns) nats of each value of rows (n, d), 0 for a gap: densities in model
        units, chances of words, counts and levels."""
        layout, there = self.layout, self.layout.observed(x)
        output, x = self.output.float(), x.float().nan_to_num(0.0)
        shape = torch.broadcast_shapes(output.shape[:-1], x.shape[:-1])
        nats = output.new_zeros(*shape, len(layout.parts))
        for law in ("gaussian", "bernoulli", "count", "ordinal"):
            at = layout.starts[law]
            if at:
                nats[..., layout.columns[law]] = getattr(self, f"_{law}")(
                    x, output[..., at], self.log_var[at].float(), at)
        for i in layout.columns["categorical"]:
            levels = layout.levels(layout.parts[i])
            chosen = layout.data(x, levels).round()
            log_p = F.log_softmax(output[..., levels], -1)
            of_word = (log_p * chosen).sum(-1)
            # a word that training had not is as improbable as the least probable one
            nats[..., i] = torch.where(chosen.sum(-1) > 0.5, of_word, log_p.amin(-1))
        if not layout.modelled:
            return torch.where(there, nats, 0.0)
        nats = torch.where(there | layout.has_words.to(there.device), nats, 0.0)
        for i, part in enumerate(layout.parts):
            if part.gap is not None and part.column.law != "categorical":
                o = output[..., part.gap]
                nats[..., i] += (~there[..., i]).float() * o - F.softplus(o)
        return nats

    def log_prob(self, x: Tensor) -> Tensor:
        """(*batch,) nats of rows (n, d), of the values that are there."""
        return self.log_probs(x).sum(-1)

    def _gaussian(self, x: Tensor, o: Tensor, log_var: Tensor, at: Any) -> Tensor:
        return -0.5 * ((x[..., at] - o).square() * (-log_var).exp() + log_var + LOG_2PI)

    def _bernoulli(self, x: Tensor, o: Tensor, log_var: Tensor, at: Any) -> Tensor:
        return self.layout.data(x, at).round() * o - F.softplus(o)

    def _count(self, x: Tensor, o: Tensor, log_var: Tensor, at: Any) -> Tensor:
        """Negative binomial of mean μ and size r: Γ(v+r)/(Γ(r) v!) (r/(r+μ))^r (μ/(r+μ))^v."""
        v, size = self.layout.data(x, at).round().clamp(min=0), (-log_var / 2).exp()
        odds = self._log_mean(o, at) + log_var / 2  # log μ/r
        return (torch.lgamma(v + size) - torch.lgamma(size) - torch.lgamma(v + 1)
                - size * F.softplus(odds) - v * F.softplus(-odds))

    def _ordinal(self, x: Tensor, o: Tensor, log_var: Tensor, at: Any) -> Tensor:
        """A bin of a logistic density for each whole number (Salimans et al. 2017, eq. 2)."""
        layout, inverse = self.layout, (-log_var / 2).exp()
        step = (1 / layout.scale[at]).to(o)
        centred = layout.model(layout.data(x, at).round(), at) - o
        upper, lower = (centred + step / 2) * inverse, (centred - step / 2) * inverse
        return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(
            -(step * inverse)))

    def _log_mean(self, o: Tensor, at: Any) -> Tensor:
        mean = self.layout.location[at].to(o).clamp(min=1e-3)
        return mean.log() + REACH * torch.tanh(o / REACH)

    @property
    def mean(self) -> Tensor:
        """(*batch, d) expectations in model units; of words their chances."""
        return self._rows(None)

    def sample(self, noise: Noise) -> Tensor:
        """(*batch, d) draws in model units."""
        return self._rows(noise)

    def _rows(self, noise: Noise | None) -> Tensor:
        """Draws, without noise expectations."""
        layout, output = self.layout, self.output.float()
        x, batch = torch.zeros_like(output), max(0, output.dim() - 2)
        normal = noise.normal(*x.shape, batch=batch).to(x) if noise else x
        u = (noise.uniform(*x.shape, batch=batch).to(x) if noise else x + 0.5).clamp(
            1e-6, 1 - 1e-6)
        sd = (self.log_var.float() / 2).exp()
        at = layout.starts["gaussian"]
        x[..., at] = output[..., at] + sd[at] * normal[..., at]
        chance = torch.sigmoid(output)
        chance = (u < chance).to(x) if noise else chance
        at = layout.starts["bernoulli"]
        x[..., at] = layout.model(chance[..., at], at)
        at = layout.starts["count"]
        counts = self._log_mean(output[..., at], at).exp()
        x[..., at] = layout.model(_draw_counts(counts, 1 / sd[at], u[..., at]) if noise and at
                                  else counts, at)
        at = layout.starts["ordinal"]
        level = layout.data(output + sd * torch.logit(u), at)
        x[..., at] = layout.model(level.round() if noise else level, at)
        for i in layout.columns["categorical"]:
            levels = layout.levels(layout.parts[i])
            shares = F.softmax(output[..., levels], -1)
            if noise:  # the largest of logits and Gumbel noise
                gumbel = output[..., levels] - (-u[..., levels].log()).log()
                shares = F.one_hot(gumbel.argmax(-1), shares.shape[-1]).to(x)
            x[..., levels] = layout.model(shares, levels)
        for part in layout.parts:
            for j, wave in enumerate(part.column.parts):
                angle = 2 * torch.pi / PERIODS[wave] * (layout.data(x, part.start) % PERIODS[wave])
                for k, value in enumerate((angle.sin(), angle.cos()), part.start + 1 + 2 * j):
                    x[..., k] = layout.model(value, k)
            words = part.column.law == "categorical"
            if part.gap is not None and not (words and layout.modelled):
                missing = chance[..., part.gap] if layout.modelled else x.new_zeros(x.shape[:-1])
                x[..., part.gap] = layout.model(missing, part.gap)
        return x


def _draw_counts(mean: Tensor, size: Tensor, u: Tensor) -> Tensor:
    """Negative binomial numbers whose distribution function first reaches ``u``."""
    odds = mean.log() - size.log()
    log_p, total, value = -size * F.softplus(odds), torch.zeros_like(mean), torch.zeros_like(mean)
    widest = (mean + 12 * (mean + mean.square() / size).sqrt()).max()
    for k in range(int(widest.clamp(max=5000)) + 12):
        total = total + log_p.exp()
        value = torch.where(u > total, float(k + 1), value)
        log_p = log_p + torch.log((size + k) / (k + 1)) - F.softplus(-odds)
    return value
