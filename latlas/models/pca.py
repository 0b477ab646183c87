"""Probabilistic PCA (Tipping & Bishop 1999): a linear Gaussian latent-variable model, exact.

    z ~ N(0, I_k),   x | z ~ N(W z + μ, σ² I_D)

Fitted in closed form from batches, so the data may be larger than memory. Everything is computed
in float64. With the eigenvalues λ₁ ≥ … ≥ λ_D and eigenvectors u_j of the sample covariance,

    W = U (Λ − σ² I)^½   (eq. 7, with R = I),     σ² = 1/(D − k) Σ_{j>k} λ_j   (eq. 8)

so M = WᵀW + σ² I = Λ is diagonal, and so is the posterior: the latents are the whitened
coordinates along the principal axes, in order of variance.

Of a table, real numbers and dates have the marginal of those that are there, N(μ_o, W_o W_oᵀ + σ²
I), exactly. Words, counts and levels have chances, not densities: linear in the numbers that are
there, E[x_j | x_o], for words within [0.001, 1] and normalised, for counts and levels the share of
N(E[x_j | x_o], Var[x_j | x_o]) in a bin of width 1.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import scipy.linalg
import torch
from torch import Tensor

from latlas.core.columns import Layout
from latlas.core.distributions import LOG_2PI, Normal
from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Batch, Model, TrainingDefaults
from latlas.core.noise import Noise, dequantise, derive
from latlas.core.options import option
from latlas.core.space import Space, Table
from latlas.models.autoencoder import auto_latent_dim
from latlas.models.pca_columns import ColumnDensity, moments, present
from latlas.models.priors import StandardNormal

#: up to this many scalars per example the whole covariance is kept (128 MiB at 4,096)
COVARIANCE_DIMS = 4096
#: a share of the variance below which it is rounding error
TINY = 1e-13
#: of subspace iteration: further columns that speed it up, sweeps after the first at most, and the
#: relative change of Σλ at which to stop
EXTRA, SWEEPS, TOLERANCE = 10, 12, 1e-5


@dataclass(frozen=True)
class PCAConfig:
    """Probabilistic PCA."""

    latent_dim: int = option(0, "latent dimensions; 0 chooses from the data's size", low=0)
    ddof: int = option(1, "variances divide by n - ddof: 1 unbiased (as scikit-learn), 0 maximum "
                       "likelihood", low=0, high=1)
    solver: str = option("auto", "covariance: exact, one sweep, D x D memory; randomised: a few "
                         "sweeps, D x k memory; auto: covariance up to 4,096 numbers per example",
                         choices=("auto", "covariance", "randomised"))
    gaps: str = option("marginalised", "of a table: a gap is left out of the likelihood, or "
                       "modelled, with a chance of its own", choices=("marginalised", "modelled"))

    def for_examples(self, space: Space, n: int) -> Self:
        """At most n − 2 latent dimensions, where their number is left to the data."""
        k = min(auto_latent_dim(space), space.dims - 1)
        return self if self.latent_dim or n >= k + 2 else replace(self, latent_dim=max(1, n - 2))

    def resolve(self, space: Space) -> Self:
        """Latent dimensions as the other families take for this data, as far as that is possible,
        and the solver; ConfigError for more than D − 1, which already is a full Gaussian."""
        k, dims, solver = self.latent_dim, space.dims, self.solver
        if dims < 2:
            raise ConfigError("pca needs at least 2 numbers per example, this data has 1")
        if k >= dims:
            raise ConfigError(f"latent_dim={k}: pca on {dims} numbers per example takes at most "
                              f"latent_dim={dims - 1}, which is a full Gaussian",
                              option="latent_dim")
        if solver == "auto":
            solver = "covariance" if dims <= COVARIANCE_DIMS else "randomised"
        return replace(self, latent_dim=k or min(auto_latent_dim(space), dims - 1), solver=solver)


class PCA(Model):
    """Probabilistic PCA with exact likelihood.

    Integer images are fitted and scored with uniform noise of one level added, which makes their
    density comparable in bits per dimension with a likelihood of the integers themselves.
    ``mean`` is μ (D,), ``axes`` are the orthonormal principal axes U (D, k), ``eigenvalues`` the
    variances λ (k,) along them, descending, and ``noise_variance`` is σ².
    """

    Config = PCAConfig
    defaults = TrainingDefaults(needs_float64=True)
    exact_likelihood = True
    takes_gaps = False
    mean: Tensor
    axes: Tensor
    eigenvalues: Tensor
    noise_variance: Tensor

    def __init__(self, config: PCAConfig, space: Space) -> None:
        super().__init__(config.resolve(space), space)
        self.latent_dim = k = self.config.latent_dim
        self.layout = Layout(space, self.config.gaps == "modelled") if isinstance(
            space, Table) else None
        self.takes_gaps = self.layout is not None
        self.register_buffer("mean", torch.zeros(space.dims, dtype=torch.float64))
        self.register_buffer("axes", torch.eye(space.dims, k, dtype=torch.float64))
        self.register_buffer("eigenvalues", torch.ones(k, dtype=torch.float64))
        self.register_buffer("noise_variance", torch.ones((), dtype=torch.float64))

    @property
    def base_measure(self) -> str:
        """What the likelihood is a likelihood of."""
        mixed = self.layout is not None and not self.layout.plain
        return "integers" if self.space.levels else (
            "table columns by kind" if mixed else "table units")

    @property
    def prior(self) -> StandardNormal:
        """N(0, I) over the whitened coordinates."""
        return StandardNormal(self.latent_dim)

    @property
    def weight(self) -> Tensor:
        """(D, k) W = U (Λ − σ² I)^½ (eq. 7)."""
        excess = (self.eigenvalues - self.noise_variance).clamp(min=0)
        return self.axes * excess.sqrt()

    def fit(self, batches: Iterable[Batch]) -> None:
        """Maximum likelihood (variances over n − ``ddof``), in one sweep, or a few above 4,096 D.

        DataError for fewer than k + 2 examples, values that are not finite, or data that lie in a
        plane of at most k dimensions, where the density has no bound.
        """
        def rows() -> Iterator[Tensor]:
            """Dequantised, by the same noise in each sweep."""
            for i, batch in enumerate(batches):
                noise = Noise(derive("pca", "dequantise", i), batch.x.device)
                yield self.preprocess(batch.x, noise).flatten(1)

        dims = self.space.dims
        if self.layout is not None and not self.layout.plain:
            mean, covariance = moments(torch.cat([*rows()]), self.layout, self.latent_dim,
                                       self.config.ddof)
            s = principal(mean, covariance, self.latent_dim)
            dims -= len(self.layout.silent)
        else:
            s = spectrum(rows, self.latent_dim, self.config.ddof,
                         exact=self.config.solver == "covariance")
        rest = (s.total - s.eigenvalues.sum()) / max(dims - self.latent_dim, 1)
        if not rest > TINY * s.total:
            rank = int((s.eigenvalues > TINY * s.total).sum())
            advice = f"set latent_dim to {rank - 1} or less" if rank > 1 else (
                "the examples hardly differ")
            raise DataError(f"pca with latent_dim={self.latent_dim}: the training examples lie in "
                            f"a plane of {rank} dimensions, so their density has no bound; "
                            f"{advice}")
        self.mean.copy_(s.mean)
        self.axes.copy_(s.axes)
        self.eigenvalues.copy_(s.eigenvalues)
        self.noise_variance.copy_(rest)

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """(n, *shape) draws from N(μ, W Wᵀ + σ² I), model units."""
        z = noise.normal(n, self.latent_dim).to(self.device)
        x = self.decode(z).sample(noise)
        return x if self.layout is None else present(x, self.layout)

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> Normal:
        """p(z | x) = N(M⁻¹ Wᵀ(x − μ), σ² M⁻¹) (section 3.3), with M = Λ. Of a row with gaps
        M = σ² I + W_oᵀ W_o of the numbers that are there, and the variances are its diagonal."""
        x = x.flatten(1).double()
        if self._by_column(x):
            return self.columns.posterior(x)
        centred = x - self.mean
        mean = centred @ (self.weight / self.eigenvalues)
        log_var = (self.noise_variance / self.eigenvalues).log().expand_as(mean)
        return Normal(mean.float(), log_var.float())

    def _by_column(self, x: Tensor) -> bool:
        """A table with gaps, or with other columns than real numbers."""
        return self.layout is not None and (not self.layout.plain or bool(x.isnan().any()))

    @property
    def columns(self) -> ColumnDensity:
        """The same model of a table's columns by kind."""
        assert self.layout is not None
        return ColumnDensity(self.layout, self.mean, self.weight, self.noise_variance)

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Normal:
        """p(x | z) = N(W z + μ, σ² I) (eq. 2) over (*batch, *shape)."""
        mean = (z.double() @ self.weight.T + self.mean).reshape(*z.shape[:-1], *self.space.shape)
        return Normal(mean.float(), self.noise_variance.log().float(), len(self.space.shape))

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        """The x that is scored, float64: integer images are dequantised."""
        return dequantise(x.double(), self.space.step, noise)

    def log_conditional(self, x: Tensor, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """log N(x; W z + μ, σ² I) (eq. 2), float64 nats in data units, for latents (*batch, d); of
        a table of the numbers that are there, and the chances of its words beside them."""
        if self._by_column(x):
            return (self.columns.given(x.double(), z.double())
                    - self.columns.layout.log_volume)
        mean = z.double() @ self.weight.T + self.mean
        square = (x.double().flatten(1) - mean).square().sum(-1) / self.noise_variance
        constant = self.space.dims * (self.noise_variance.log() + LOG_2PI)
        return -0.5 * (square + constant) - self.space.log_volume

    def log_likelihood(self, x: Tensor, *, noise: Noise, draws: int = 1,
                       condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log N(x; μ, W Wᵀ + σ² I), nats in data units (n,) float64; nothing is estimated.

        Integer images are dequantised with ``noise``. ``draws`` changes nothing; the effective
        sample size is ∞. Of a table the numbers that are there have their marginal.
        """
        if self._by_column(x):
            numbers, chances = self.columns.log_probs(x.double())
            nats = numbers + chances - self.columns.layout.log_volume
            return nats, torch.full_like(nats, math.inf)
        centred = self.preprocess(x, noise).flatten(1) - self.mean
        along = centred @ self.axes
        # the residual by subtraction of vectors: of their squared lengths, small σ² loses digits
        across = (centred - along @ self.axes.T).square().sum(-1) / self.noise_variance
        square = (along.square() / self.eigenvalues).sum(-1) + across
        log_det = self.eigenvalues.log().sum() + (
            self.space.dims - self.latent_dim) * self.noise_variance.log()
        nats = -0.5 * (square + log_det + self.space.dims * LOG_2PI)
        return nats - self.space.log_volume, torch.full_like(nats, math.inf)


class Spectrum(NamedTuple):
    """Leading part of the eigendecomposition of a covariance matrix, float64.

    ``axes`` (D, k) are orthonormal eigenvectors, the largest entry of each positive, of the
    ``eigenvalues`` (k,), descending; ``total`` is the trace of the covariance.
    """

    mean: Tensor
    axes: Tensor
    eigenvalues: Tensor
    total: Tensor


def spectrum(rows: Callable[[], Iterable[Tensor]], k: int, ddof: int = 1, *,
             exact: bool = True) -> Spectrum:
    """``k`` eigenpairs of the covariance of rows (n, D) float64, which divides by n − ``ddof``.

    Exact in one sweep with D² memory; otherwise by subspace iteration from a random start (Halko et
    al. 2011, algorithms 4.4 and 5.3), the eigenvalues never above the exact ones, in several sweeps
    of the same rows with D × 2 (k + 10) memory, until the sum of the eigenvalues is steady.

    DataError: fewer than k + 2 rows, or values that are not finite.
    """
    def products(centred: Tensor) -> Tensor:
        return centred.T @ centred if exact else centred.square().sum(0)

    # Chan, Golub & LeVeque 1983, eq. 2.1: exact, and no large numbers cancel
    count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for x in rows():
        n, delta = len(x), x.mean(0) - mean
        update = products(x - x.mean(0)) + count * n / (count + n) * products(delta[None])
        scatter = scatter.to(update) + update
        count += n
        mean = mean + delta * (n / count)
    if count < k + 2:
        raise DataError(f"pca with latent_dim={k} needs at least {k + 2} training examples, "
                        f"got {count}")
    if not torch.isfinite(scatter).all():
        raise DataError("pca: the training examples hold values that are not finite numbers")
    dims = len(mean)
    if exact:
        return principal(mean, scatter / (count - ddof), k)
    trace, total = scatter.sum() / (count - ddof), -math.inf
    start = Noise(derive("pca", "start")).normal(dims, min(k + EXTRA, dims))
    basis = torch.linalg.qr(start.to(mean)).Q
    for _ in range(SWEEPS):
        image = torch.zeros_like(basis)  # the covariance, never made, times the basis
        for x in rows():
            centred = x - mean
            image += centred.T @ (centred @ basis)
        image = image / (count - ddof)
        values, rotation = torch.linalg.eigh(basis.T @ image)
        values, vectors = values[-k:], (basis @ rotation)[:, -k:]
        before, total = total, float(values.sum())
        if abs(total - before) <= TOLERANCE * abs(total):
            break
        basis = torch.linalg.qr(image).Q
    return _ordered(mean, vectors, values, trace)


def principal(mean: Tensor, covariance: Tensor, k: int) -> Spectrum:
    """The leading ``k`` eigenpairs of a covariance (d, d)."""
    dims = len(mean)
    values, vectors = map(torch.tensor, scipy.linalg.eigh(
        covariance.cpu().numpy(), subset_by_index=[dims - k, dims - 1]))
    return _ordered(mean, vectors, values, covariance.trace())


def _ordered(mean: Tensor, vectors: Tensor, values: Tensor, trace: Tensor) -> Spectrum:
    """Descending; signs fixed, so that the latents of two fits agree."""
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return Spectrum(mean, vectors * largest.sign(), values, trace)
