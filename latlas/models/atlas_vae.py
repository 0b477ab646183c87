"""Atlas VAE: a mixture of charts, for data that no single chart covers.

A manifold is a union of charts: a sphere, a torus or classes that lie apart have no smooth
invertible map from one plane. Here chart k is a VAE's decoder z ↦ p(x|z, k) of ``latent_dim``
coordinates, and the charts share the examples among them by learnt responsibilities q(k|x):

    p(x) = Σ_k π_k ∫ N(z; 0, I) p(x|z, k) dz,     q(k, z|x) = q(k|x) N(z; μ_k(x), σ_k²(x))

log p(x) ≥ Σ_k q(k|x) {E_q(z|x,k)[log p(x|z, k)] − KL(q(z|x, k) ‖ N(0, I)) − log q(k|x)/π_k},

summed exactly over k. With linear decoders this is the mixture of probabilistic PCA (Tipping &
Bishop 1999b), and from such a mixture it begins (:class:`~latlas.models.linear_atlas.LinearAtlas`):
charts that start alike stay alike, and one takes all the data.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.distributions import Distribution, Normal
from latlas.core.errors import ConfigError
from latlas.core.model import Batch, Loss, Step
from latlas.core.noise import Noise, derive
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.linear_atlas import LinearAtlas
from latlas.models.priors import Prior, StandardNormal, class_vectors
from latlas.models.vae import CHUNK, VAE, VAEConfig, normal_of
from latlas.objectives import elbo

#: examples that the linear atlas is fitted to
FIT_EXAMPLES = 2_000
#: probabilities stay so far from 0 and 1 when they become numbers of a normal
MARGIN = 1e-9
#: of a binary pixel whose mean is 1 in the linear atlas: it has the probability 0.95
LOGIT = 3.0


@dataclass(frozen=True)
class AtlasVAEConfig(VAEConfig):
    """Atlas VAE: several charts, each with coordinates of its own."""

    latent_dim: int = option(0, "coordinates of a chart; 0 chooses from the data's size", low=0)
    n_charts: int = option(8, "charts at most", low=1)
    balance: float = option(0.1, "weight of the Dirichlet prior that keeps every chart in use: "
                            "its pseudo-examples as a share of the data", low=0)

    def __post_init__(self) -> None:
        if self.prior != "standard":
            raise ConfigError(f"prior={self.prior}: the charts are the mixture, and each has the "
                              "prior N(0, I); leave it out, or train vae", option="prior")
        if self.free_bits > 0:
            raise ConfigError(f"free_bits={self.free_bits:g} needs the KL of every latent "
                              "dimension, of which every chart has its own; leave it out, or "
                              "train vae", option="free_bits")


class AtlasPrior(StandardNormal):
    """Charts and coordinates as one flat vector, whose prior is N(0, I).

    The vector holds the coordinates z and then a number u_k for each chart. It lies in the chart
    whose clock rings first, argmin_k −log Φ(u_k)/π_k: under N(0, I) the −log Φ(u_k) are exponential
    variables, and the first of several with rates π_k is the k-th with probability π_k. So every
    vector can be decoded, and the chart has the prior π exactly.
    """

    def __init__(self, coordinates: int, n_charts: int) -> None:
        super().__init__(coordinates + n_charts)
        self.coordinates, self.n_charts = coordinates, n_charts
        self.logits = nn.Parameter(torch.zeros(n_charts))

    @property
    def log_shares(self) -> Tensor:
        """log π, (n_charts,)."""
        return self.logits.log_softmax(0)

    def chart_of(self, z: Tensor) -> Tensor:
        """(*batch, dims) to the charts (*batch,)."""
        clocks = -torch.special.log_ndtr(z[..., self.coordinates:].double())
        return (clocks.log() - self.log_shares.double()).argmin(-1)

    def join(self, z: Tensor, chart: Tensor, noise: Noise | None = None) -> Tensor:
        """Coordinates (*batch, coordinates) in charts (*batch,) as flat vectors (*batch, dims).

        The numbers u are drawn from N(0, I) given that the chart comes out, or without ``noise``
        every waiting time is 1: the first clock rings after T ~ Exp(1), whichever it is, and the
        others, which have no memory, after waiting times of their own.
        """
        shape, batch = chart.shape, chart.dim() - 1
        wait = torch.ones((), dtype=torch.float64, device=z.device)
        first = wait if noise is None else -torch.log1p(
            -noise.uniform(*shape, 1, batch=batch).to(z.device, torch.float64))
        more = wait if noise is None else -torch.log1p(
            -noise.uniform(*shape, self.n_charts, batch=batch).to(z.device, torch.float64))
        here = F.one_hot(chart, self.n_charts).bool()
        clocks = self.log_shares.double().exp() * first + torch.where(here, 0.0, more)
        u = torch.special.ndtri(torch.exp(-clocks).clamp(MARGIN, 1 - MARGIN))
        return torch.cat([z, u.to(z)], -1)

    def kl(self, q: "AtlasPosterior", z: Tensor) -> Tensor:  # type: ignore[override]
        """log q(z|x) − log p(z) of one draw, (n, 1)."""
        return Prior.kl(self, q, z)  # type: ignore[arg-type]


@dataclass
class AtlasPosterior:
    """q(k|x) q(z|x, k) over the flat vectors of an :class:`AtlasPrior`.

    Attributes:
        charts: q(z|x, k), (K, n, coordinates).
        log_r: log q(k|x), the responsibilities, (K, n).
    """

    charts: Normal
    log_r: Tensor
    prior: AtlasPrior

    @property
    def mean(self) -> Tensor:
        """(n, dims): the mean in the chart in charge."""
        chart = self.log_r.argmax(0)
        return self.prior.join(pick(self.charts.mean, chart), chart)

    def sample(self, noise: Noise) -> Tensor:
        return self.draws(1, noise)[0]

    def draws(self, k: int, noise: Noise) -> Tensor:
        n = self.log_r.shape[1]
        edges = self.log_r.exp().cumsum(0)[:-1, None]
        level = noise.uniform(k, n, batch=1).to(edges)
        chart = (level >= edges).sum(0)
        z = Normal(pick(self.charts.mean, chart), pick(self.charts.log_var, chart)).sample(noise)
        return self.prior.join(z, chart, noise)

    def detached(self) -> Self:
        return replace(self, charts=self.charts.detached(), log_r=self.log_r.detach())

    def log_prob(self, z: Tensor) -> Tensor:
        """(*batch, n, dims) to (*batch, n): of the numbers u, N(u; 0, I)/π_k where they lie in
        chart k."""
        coordinates, u = z.split((self.prior.coordinates, self.prior.n_charts), -1)
        chart = self.prior.chart_of(z)
        q = Normal(pick(self.charts.mean, chart), pick(self.charts.log_var, chart))
        log_u = StandardNormal(self.prior.n_charts).log_prob(u) - self.prior.log_shares[chart]
        return pick(self.log_r, chart) + q.log_prob(coordinates) + log_u


def pick(values: Tensor, chart: Tensor) -> Tensor:
    """Of the values (K, n, …) of every chart those in charts (*batch, n): (*batch, n, …)."""
    return values[chart, torch.arange(values.shape[1], device=values.device)]


class AtlasVAE(VAE):
    """Several charts with learnt responsibilities; an atlas of ``n_charts``.

    One encoder gives means and log variances of q(z|x, k) for every chart, then the logits of
    q(k|x); one decoder reads coordinates and, as a one-hot vector, the chart. Networks learn what
    is to be added to the linear atlas of the data: coordinates, log variances, logits, and the mean
    of p(x|z, k).

    Args:
        encoder, decoder: networks of the user's own: (n, *shape) to
            (n, n_charts · (2 latent_dim + 1)), and (n, latent_dim + n_charts) to
            (n, multiplier·C, H, W).
    """

    Config = AtlasVAEConfig
    prior: AtlasPrior
    outputs_per_latent = 0  # all of them are `more_outputs`

    def __init__(self, config: AtlasVAEConfig, space: Space, *, encoder: nn.Module | None = None,
                 decoder: nn.Module | None = None) -> None:
        config = config.resolve(space)
        self.n_charts, self.width = config.n_charts, config.latent_dim
        self.more_outputs = self.n_charts * (2 * self.width + 1)
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        self.latent_dim = self.width + self.n_charts
        self.prior = AtlasPrior(self.width, self.n_charts)
        if space.kind != "image":  # a surface is measured to more than three digits
            self.defaults = replace(self.defaults, needs_fp32=True)
        self.linear = LinearAtlas(self.n_charts, self.width, space.dims)

    @property
    def decoder_inputs(self) -> int:
        """Coordinates, and a one-hot vector of the chart."""
        return self.width + self.n_charts

    def describe(self, n_train: int) -> str:
        """The atlas."""
        return f"{self.n_charts} charts of {self.width} coordinates"

    def prepare(self, batches: Iterable[Batch], n_train: int) -> None:
        """Fit the linear atlas, to an even choice of the training examples as they are scored."""
        part = slice(None, None, max(1, n_train // FIT_EXAMPLES))
        self.linear.fit(torch.cat([
            self.likelihood.visible(self.preprocess(
                batch.x[part], Noise(derive("atlas", i), batch.x.device))).flatten(1)
            for i, batch in enumerate(batches)]))

    def encode(self, x: Tensor, *,  # type: ignore[override]  # a VAE's is one normal
               condition: Tensor | None = None) -> AtlasPosterior:
        """q(k, z|x) of (n, *shape)."""
        latents, log_r = self.outputs(x)
        return AtlasPosterior(normal_of(latents), log_r.float(), self.prior)

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances of q(z|x, k), (K, n, 2 width), and log q(k|x), (K, n)."""
        x = self.likelihood.visible(x)
        latents, logits = self.encoder(x).split(
            [2 * self.width * self.n_charts, self.n_charts], -1)
        z, log_var, linear_logits = self.linear.encode(x)
        start = torch.cat([z, log_var.expand_as(z)], -1)
        latents = latents.unflatten(1, (self.n_charts, -1)).transpose(0, 1)
        return start + latents, (linear_logits + logits.T).log_softmax(0)

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Distribution:
        """p(x|z) of flat vectors (*batch, latent_dim), each in its chart."""
        return self.decode_in(self.prior.chart_of(z), z[..., :self.width])

    def decode_in(self, chart: Tensor, z: Tensor) -> Distribution:
        """p(x|z, k) of coordinates (*batch, width) in charts (*batch,)."""
        here = class_vectors(chart, self.n_charts, self.width).to(z)
        output = self.decoder(torch.cat([z, here], -1).flatten(0, -2)).unflatten(0, chart.shape)
        mean = self.linear.decode((here > 0).to(z), z).unflatten(-1, self.space.shape)
        mean = mean * (LOGIT if self.likelihood.name == "bernoulli" else 1.0)
        rest = torch.zeros_like(mean).repeat_interleave(self.multiplier - 1, chart.dim())
        return self.likelihood(output + torch.cat([mean, rest], chart.dim()))

    def decode_chart(self, k: int, z: Tensor) -> Distribution:
        """p(x|z, k): (*batch, width) to a distribution over (*batch, *shape)."""
        return self.decode_in(torch.full(z.shape[:-1], k, device=z.device), z)

    def responsibilities(self, x: Tensor) -> Tensor:
        """q(k|x), (n, n_charts)."""
        return self.outputs(x)[1].exp().T

    def encode_chart(self, x: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        """Charts (n,) and the means of q(z|x, k) in them (n, width): in chart k, or in the one in
        charge."""
        latents, log_r = self.outputs(x)
        chart = log_r.argmax(0) if k is None else torch.full((len(x),), k, device=x.device)
        return chart, pick(latents, chart)[:, :self.width]

    def transition(self, j: int, k: int, z: Tensor) -> Tensor:
        """Coordinates (n, width) of chart j in chart k, through the data: encode_k(decode_j(z))."""
        return self.encode_chart(self.decode_chart(j, z).mean, k)[1]

    def parts(self, x: Tensor, q: AtlasPosterior, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """Of one draw in every chart, weighed by q(k|x) and summed, (n,) nats in model units: the
        reconstruction, the KL of the coordinates, and that of the charts, KL(q(k|x) ‖ π)."""
        z, r = q.charts.sample(noise), q.log_r.exp()
        kl = elbo.kl_standard_normal(q.charts.mean, q.charts.log_var).sum(-1)
        of_charts = r * (q.log_r - self.prior.log_shares[:, None])
        log_p = self.decode_in(self.every_chart(z), z).log_prob(x)
        return -(r * log_p).sum(0), (r * kl).sum(0), of_charts.sum(0)

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Negative bound, mean nats per example in model units, and the balance: −log of a
        Dirichlet prior of π, 0 where all charts are used equally often."""
        x = self.preprocess(batch.x, step.noise)
        q = self.encode(x)
        reconstruction, kl, of_charts = self.parts(x, q, step.noise)
        bound = reconstruction + self.kl_weight(step) * (kl + of_charts)
        total = elbo.trimmed_mean(bound, self.config.trimmed_fraction)
        log_shares = self.prior.log_shares
        total = total - self.config.balance * (log_shares + math.log(self.n_charts)).mean()
        usage = q.log_r.detach().exp().mean(1)
        return Loss(total, {"loss": total, "reconstruction": reconstruction.mean(),
                            "kl": kl.mean(), "chart_kl": of_charts.mean(),
                            "charts_used": (-torch.xlogy(usage, usage).sum()).exp(),
                            "least_used": usage.min()})

    @torch.no_grad()
    def elbo(self, x: Tensor, *, noise: Noise, draws: int = 1,
             condition: Tensor | None = None) -> dict[str, Tensor]:
        """The bound, summed over the charts, its standard error ``se`` and its parts per example
        (n,), nats in data units, means over ``draws`` draws of z in every chart; ``kl`` is that of
        coordinates and chart."""
        x = self.preprocess(x, noise)
        q = self.encode(x)
        volume = self.likelihood.log_volume
        stacked = torch.stack([torch.stack(self.parts(x, q, noise)) for _ in range(draws)], 1)
        reconstruction, kl, of_charts = stacked.mean(1)
        reconstruction, kl = reconstruction + volume, kl + of_charts
        return {"bound": -reconstruction - kl, "se": elbo.mean_error(stacked.sum(0)),
                "reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, noise: Noise, draws: int = 1,
                       condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Importance-weighted bound of draws of z in every chart, nats in data units, and the
        effective sample size, both (n,).

        A draw's weight is Σ_k π_k p(x|z_k, k) p(z_k)/q(z_k|x, k). Charts drawn from q(k|x) would
        miss those that it wrongly rules out.
        """
        x = self.preprocess(x, noise)
        q, bound = self.encode(x).charts, elbo.ImportanceBound()
        volume = self.likelihood.log_volume
        chunk = max(1, CHUNK // (len(x) * self.space.dims * self.n_charts))
        for first in range(0, draws, chunk):
            z = q.draws(min(chunk, draws - first), noise)
            log_p = self.decode_in(self.every_chart(z), z).log_prob(x) - volume
            log_w = log_p + StandardNormal(self.width).log_prob(z) - q.log_prob(z)
            bound.add((log_w + self.prior.log_shares[:, None]).logsumexp(1))
        return bound.result()

    def every_chart(self, z: Tensor) -> Tensor:
        """The charts (*batch, K, n) of coordinates (*batch, K, n, width)."""
        return torch.arange(self.n_charts, device=z.device)[:, None].expand(z.shape[:-1])
