"""Probabilistic PCA of a table's columns by their kinds, with gaps.

Real numbers and dates have the marginal of those that are there, N(μ_o, W_o W_oᵀ + σ² I). Words,
counts and levels have chances given them, from E[x_j | x_o], which is linear in x_o.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latlas.core.columns import Layout
from latlas.core.distributions import LOG_2PI, Normal
from latlas.core.errors import DataError
from latlas.metrics.surprise import moments_with_gaps

#: the chance of a word that is linear in the numbers is at least this
LEAST = 1e-3


@dataclass
class ColumnDensity:
    """x = W z + μ + σ ε over rows (n, d) in model units, float64; W is (d, k)."""

    layout: Layout
    mean: Tensor
    weight: Tensor
    noise_variance: Tensor

    def posterior(self, x: Tensor) -> Normal:
        """p(z | x_o) of all numbers that are there: M = σ² I + W_oᵀ W_o (section 3.3), and of
        σ² M⁻¹ the diagonal."""
        centred = with_gaps(x, self.layout) - self.mean
        mean = centred.new_zeros(len(x), self.weight.shape[1])
        log_var = torch.zeros_like(mean)
        for rows, there in _sets(~centred.isnan()):
            mean[rows], inverse = self.latents(centred[rows][:, there], there)
            log_var[rows] = (self.noise_variance * inverse.diagonal()).log()
        return Normal(mean.float(), log_var.float())

    def latents(self, centred: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the latents (n, k) given some numbers (n, m) less their means, and M⁻¹."""
        w = self.weight[there]
        m = w.T @ w + self.noise_variance * torch.eye(w.shape[1]).to(w)
        inverse = torch.linalg.inv(m)
        return centred @ w @ inverse, inverse

    def given(self, x: Tensor, z: Tensor) -> Tensor:
        """(*batch, n) log densities, model units, of the numbers that are there given latents
        (*batch, n, k), and the chances of words beside them."""
        at = self.layout.density
        difference = x[:, at] - (z @ self.weight.T + self.mean)[..., at]
        there = self.layout.observed(x)[:, self.layout.columns["gaussian"]]
        each = difference.square() / self.noise_variance + self.noise_variance.log() + LOG_2PI
        return -0.5 * torch.where(there, each, 0.0).sum(-1) + self.log_probs(x)[1]

    def log_probs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) twice: the log density of the numbers that are there in model units, and the log
        chances of words, counts and levels given them."""
        layout, there = self.layout, self.layout.observed(x)
        at = torch.tensor(layout.density, device=x.device, dtype=torch.int64)
        density, chances, k = x.new_zeros(len(x)), x.new_zeros(len(x)), self.weight.shape[1]
        for rows, present in _sets(there[:, layout.columns["gaussian"]]):
            some = at[present]
            centred = x[rows][:, some] - self.mean[some]
            z, inverse = self.latents(centred, some)
            # xᵀ C⁻¹ x is the residual's square over σ² and that of z: no digits are lost
            residual = centred - z @ self.weight[some].T
            square = residual.square().sum(1) / self.noise_variance + z.square().sum(1)
            log_det = (len(some) - k) * self.noise_variance.log() - torch.logdet(inverse)
            density[rows] = -0.5 * (square + log_det + len(some) * LOG_2PI)
            variance = self.noise_variance * (1 + (self.weight @ inverse * self.weight).sum(1))
            chances[rows] = self._chances(x[rows], there[rows], z @ self.weight.T + self.mean,
                                          variance)
        return density, chances

    def _chances(self, x: Tensor, there: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """(n,) log chances of values whose numbers have this mean (n, d) and variance (d,) given
        the others."""
        layout, nats = self.layout, x.new_zeros(len(x))
        for i, part in enumerate(layout.parts):
            law, at, gap = part.column.law, part.start, part.gap
            if law == "categorical":
                levels = layout.levels(part)
                shares = layout.data(mean, levels).clamp(LEAST, 1)
                chosen = layout.data(x, levels).nan_to_num(0.0).round()
                log_p = (shares / shares.sum(1, keepdim=True)).log()
                value = torch.where(chosen.sum(1) > 0.5, (log_p * chosen).sum(1), log_p.amin(1))
            elif law == "bernoulli":
                value = _log_chance(layout.data(x, at).round(), layout.data(mean, at))
            elif law in ("count", "ordinal"):
                sd = variance[at].sqrt() * layout.scale[at].to(x)
                v = layout.data(x, at).nan_to_num(0.0).round()
                value = _log_bin((v - layout.data(mean, at)) / sd, 0.5 / sd)
            else:
                value = torch.zeros_like(nats)
            said = law == "categorical" and layout.modelled
            nats = nats + (value if said else torch.where(there[:, i], value, 0.0))
            if layout.modelled and gap is not None and not said:
                nats = nats + _log_chance((~there[:, i]).to(x), layout.data(mean, gap))
        return nats


def moments(x: Tensor, layout: Layout, latent_dim: int, ddof: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance, over n − ``ddof``, of a table's rows (n, d) in model units; gaps by
    expectation and maximisation. DataError for fewer than k + 2 rows."""
    n = len(x)
    if n < latent_dim + 2:
        raise DataError(f"pca with latent_dim={latent_dim} needs at least {latent_dim + 2} "
                        f"training examples, got {n}")
    mean, covariance = moments_with_gaps(with_gaps(x, layout).cpu().numpy())
    return torch.tensor(mean).to(x), torch.tensor(covariance * (n - 1) / (n - ddof)).to(x)


def with_gaps(x: Tensor, layout: Layout) -> Tensor:
    """Rows with NaN in every number of a value that is missing; unless gaps are modelled no number
    says so."""
    there, x = layout.observed(x), layout.visible(x)  # a copy
    for i, part in enumerate(layout.parts):
        stop = part.start + len(part.column.features) - (part.gap is not None and layout.modelled)
        x[~there[:, i], part.start:stop] = math.nan
    return present(x, layout)


def present(x: Tensor, layout: Layout) -> Tensor:
    """Rows (..., d) in which no number says that a value is missing, unless gaps are modelled."""
    x[..., layout.silent] = layout.model(x.new_zeros(len(layout.silent)), layout.silent)
    return x


def _sets(there: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The distinct rows of (n, c) bool: which of the n rows are so, and the row."""
    if not there.shape[1]:  # which torch refuses
        yield torch.ones(len(there), dtype=torch.bool, device=there.device), there.new_ones(0)
        return
    sets, which = torch.unique(there, dim=0, return_inverse=True)
    for i, columns in enumerate(sets):
        yield which == i, columns


def _log_chance(value: Tensor, chance: Tensor) -> Tensor:
    """Of 0 or 1, by a chance that is kept within bounds."""
    chance = chance.clamp(LEAST, 1 - LEAST)
    return torch.where(value > 0.5, chance.log(), (-chance).log1p())


def _log_bin(centre: Tensor, half: Tensor) -> Tensor:
    """log of a standard normal's share between centre − half and centre + half, by the tail on its
    own side."""
    far = centre.abs()
    upper, lower = torch.special.log_ndtr(half - far), torch.special.log_ndtr(-half - far)
    return upper + torch.log(-torch.expm1(lower - upper))
