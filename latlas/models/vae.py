"""Variational autoencoder (Kingma & Welling 2014) and the bounds on its likelihood."""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core import distributions
from latlas.core.columns import ByColumn, Layout
from latlas.core.distributions import Distribution, Normal, Posterior
from latlas.core.errors import ConfigError
from latlas.core.model import Batch, Loss, Step
from latlas.core.noise import Noise, dequantise
from latlas.core.options import option
from latlas.core.space import Space, Table
from latlas.models import priors
from latlas.models.autoencoder import AEConfig, Autoencoding
from latlas.objectives import elbo

#: scalars decoded at once while draws are summed: what a processor's cache can hold
CHUNK = 400_000
#: of fully connected decoders of images, unless told otherwise: images are many scalars of few
#: examples, which a decoder without dropout learns by heart
DROPOUT = 0.3
LIKELIHOODS = ("bernoulli", "gaussian", "gaussian-learnt", "gaussian-pixel", "discretised-logistic",
               "columns")
#: log variances of a Gaussian (σ = 0.0025 in model units) and log scales of a logistic stay above
MIN_LOG_VAR, MIN_LOG_SCALE = -12.0, -7.0
#: a learnt variance starts here (σ = 0.14 in model units): from σ = 1 the latents carry nothing
#: that is worth its KL, and points on a ring are never separated
FIRST_LOG_VAR = -4.0
#: log σ² per unit of the parameter: Adam moves every parameter by the same step, and a log variance
#: has ten times as far to go as a weight
GAIN = 10.0


@dataclass(frozen=True)
class VAEConfig(AEConfig):
    """Variational autoencoder."""

    likelihood: str = option("auto", "p(x|z); auto: discretised-logistic for integer images, "
                             "columns (each by its kind) for tables with words, counts, dates or "
                             "gaps, gaussian-learnt otherwise", choices=("auto", *LIKELIHOODS))
    gaps: str = option("marginalised", "of a table: a gap is left out of the likelihood, or "
                       "modelled, with a chance of its own", choices=("marginalised", "modelled"))
    binarize: str = option("none", "stochastic binarisation of the pixels at every step (dynamic), "
                           "or a cut at one half (threshold)",
                           choices=("none", "dynamic", "threshold"))
    noise_sd: float = option(0.1, "standard deviation of the fixed Gaussian, model units", low=1e-6)
    kl_warmup: float = option(0.0, "share of the budget over which the KL weight goes from "
                              "kl_weight_start to 1", low=0, high=1)
    kl_weight_start: float = option(0.0, "KL weight at the start of kl_warmup, of no use without; "
                                    "above 1 it is annealed downward", low=0)
    free_bits: float = option(0.0, "nats per latent dimension that cost nothing", low=0)
    prior: str = option("standard", "p(z): N(0, I), or learnt with the rest: a mixture of normals; "
                        "vamp, the posteriors of pseudo-inputs; a normalising flow",
                        choices=tuple(priors.COMPONENTS))
    prior_components: int = option(0, "normals of a mixture, pseudo-inputs of vamp, layers of a "
                                   "flow; 0: 100, 100, 8", low=0)
    dropout: float | None = option(None, "share of the decoder's hidden units that a training step "
                                   "leaves out (mlp), reached after 200 passes over the data; "
                                   "none: 0.3 for images, else 0", low=0, high=0.9)
    trimmed_fraction: float = option(0.0, "share of every batch, its worst-fitting examples, that "
                                     "an update leaves out: for data with outliers", low=0,
                                     high=0.5)

    def resolve(self, space: Space) -> Self:
        """Likelihood, dropout and the components of a learnt prior as well."""
        config = super().resolve(space)
        likelihood, dropout = self.likelihood, self.dropout
        if likelihood == "auto":
            mixed = isinstance(space, Table) and not Layout(space).plain
            likelihood = "discretised-logistic" if space.levels else (
                "columns" if mixed else "gaussian-learnt")
            likelihood = likelihood if self.binarize == "none" else "bernoulli"
        if dropout is None:
            dropout = DROPOUT if space.kind == "image" and config.network == "mlp" else 0.0
        if dropout and config.network == "conv":
            raise ConfigError(f"dropout={dropout:g} is for network=mlp", option="dropout")
        return replace(config, likelihood=likelihood, dropout=dropout,
                       prior_components=self.prior_components or priors.COMPONENTS[self.prior])


class Likelihood(nn.Module):
    """p(x|z): from a decoder's output, ``multiplier`` numbers per scalar, to a distribution.

    Args:
        name: ``bernoulli`` of binary pixels (Kingma & Welling 2014, appendix C.1);
            ``discretised-logistic`` of integer levels, bins of a logistic density, location and
            scale per scalar; or N(output, σ²), σ in model units: ``noise_sd`` (``gaussian``), a
            parameter, one for an image (Rybkin et al. 2021), one per column of a table
            (``gaussian-learnt``), or the decoder's, for every scalar (``gaussian-pixel``); or
            ``columns`` of a table, each by its kind (:mod:`latlas.core.columns`).
        binarize: ``dynamic`` draws each pixel anew with its gray value as the probability
            (stochastic binarisation), ``threshold`` cuts at one half, ``none`` leaves gray values.

    Attributes:
        density: a density (its nats change with the units of x), not a probability.
        layout: of ``columns``, where they stand in a row.
        log_volume: what is subtracted from nats in model units to get those in data units.
        base_measure: what the numbers may be compared with: ``integers`` of an image (dequantised
            or discretised), or the table's units. Gray values have a cross-entropy under binary
            pixels, which is no likelihood.
    """

    def __init__(self, name: str, space: Space, binarize: str = "none",
                 noise_sd: float = 0.1, gaps: str = "marginalised") -> None:
        super().__init__()
        if binarize != "none" and name != "bernoulli":
            raise ConfigError(f"binarize={binarize} makes binary pixels, which need "
                              f"likelihood=bernoulli, not {name}", option="binarize")
        if name == "bernoulli" and space.kind != "image":
            raise ConfigError(f"likelihood=bernoulli needs images, not a {space.kind}; "
                              "use gaussian-learnt", option="likelihood")
        if name == "discretised-logistic" and not space.levels:
            raise ConfigError("likelihood=discretised-logistic needs integer images; this data "
                              "is continuous: use gaussian-learnt", option="likelihood")
        self.name, self.space, self.binarize, self.noise_sd = name, space, binarize, noise_sd
        self.event_dims, self.density = len(space.shape), name.startswith("gaussian")
        self.multiplier = 2 if name in ("gaussian-pixel", "discretised-logistic") else 1
        self.base_measure = "integers" if space.levels else f"{space.kind} units"
        self.log_volume = space.log_volume if self.density else 0.0
        if name == "bernoulli":
            binary = binarize != "none" or space.levels == 2
            self.base_measure = "binary pixels" if binary else "gray cross-entropy (no likelihood)"
        if name == "columns" and not isinstance(space, Table):
            raise ConfigError(f"likelihood=columns needs a table, not {space.words}",
                              option="likelihood")
        self.layout = Layout(space, gaps == "modelled") if name == "columns" and isinstance(
            space, Table) else None
        if self.layout is not None:
            self.log_volume = self.layout.log_volume
            self.base_measure = "table columns by kind" if not self.layout.plain else (
                self.base_measure)
        if name in ("gaussian-learnt", "columns"):
            width = 1 if space.kind == "image" else space.shape[0]
            self.raw = nn.Parameter(torch.full((width,), FIRST_LOG_VAR / GAIN))

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        """The x that is scored: dequantised or binarised where the likelihood asks for it."""
        if self.density:
            return dequantise(x, self.space.step, noise)
        if self.binarize == "none":
            return x
        cut = noise.uniform(*x.shape) if self.binarize == "dynamic" else 0.5
        return 2 * ((x + 1) / 2 > cut).to(x.dtype) - 1

    def forward(self, output: Tensor) -> Distribution:
        """p(x|z) of the decoder's output, (*batch, multiplier·C, H, W)."""
        if self.name == "bernoulli":
            return distributions.Bernoulli(output, self.event_dims)
        if self.name == "gaussian":
            log_var = torch.full((), 2 * math.log(self.noise_sd), device=output.device)
            return Normal(output, log_var, self.event_dims)
        mean, raw = (output, GAIN * self.raw) if self.name in ("gaussian-learnt", "columns") else (
            output.chunk(2, -self.event_dims))
        least = MIN_LOG_SCALE if self.name == "discretised-logistic" else MIN_LOG_VAR
        spread = least + F.softplus(raw.float() - least)  # bent smoothly so that it stays above
        if self.name == "discretised-logistic":
            return distributions.DiscretisedLogistic(mean, spread, self.space.step,
                                                     self.event_dims)
        if self.layout is not None:
            return ByColumn(mean, spread, self.layout)
        return Normal(mean, spread, self.event_dims)

    def visible(self, x: Tensor) -> Tensor:
        """x as an encoder reads it: a table's gaps at the mean of training."""
        return x if self.layout is None else self.layout.visible(x)


class VAE(Autoencoding):
    """q(z|x) = N(μ, σ²), p(z) and p(x|z) of choice; p(z) is N(0, I) by default.

    Trained on the evidence lower bound E_q[log p(x|z)] − KL(q ‖ p) (eq. 3). A variant adds terms
    to the KL (:meth:`regularisers`) or weighs it otherwise (:meth:`kl_weight`).
    """

    Config = VAEConfig
    prior: priors.Prior
    outputs_per_latent = 2

    def __init__(self, config: VAEConfig, space: Space, *, encoder: nn.Module | None = None,
                 decoder: nn.Module | None = None) -> None:
        config = config.resolve(space)
        likelihood = Likelihood(config.likelihood, space, config.binarize, config.noise_sd,
                                config.gaps)
        self.multiplier, self.dropout = likelihood.multiplier, config.dropout or 0.0
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        self.likelihood = likelihood
        self.prior = priors.make(config.prior, self.decoder_inputs, config.prior_components, space,
                                 self.pseudo_posterior)

    @property
    def base_measure(self) -> str:
        """What the likelihood may be compared with."""
        return self.likelihood.base_measure

    @property
    def takes_gaps(self) -> bool:
        """Rows may have NaN for gaps."""
        return self.likelihood.layout is not None

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Negative evidence lower bound, mean nats per example in model units (eq. 3)."""
        return self.loss_and_latents(batch, step)[0]

    def loss_and_latents(self, batch: Batch, step: Step) -> tuple[Loss, Tensor]:
        """The loss, and the draws of z (n, latent_dim) that it is of."""
        condition = self.conditioning(batch, step.noise)
        x = self.preprocess(batch.x, step.noise)
        q = self.encode(x, condition=condition)
        z = q.sample(step.noise)
        reconstruction = -self.decode(z, condition=condition).log_prob(x)
        kl = self.prior.kl(q, z)
        terms = {"reconstruction": reconstruction.mean(), "kl": kl.sum(-1).mean()}
        regulariser = self.with_free_bits(kl)
        for name, (weight, values) in self.regularisers(z, q, step).items():
            regulariser = regulariser + weight * values
            terms[name] = values.mean()
        bound = reconstruction + self.kl_weight(step) * regulariser
        total = elbo.trimmed_mean(bound, self.config.trimmed_fraction)
        return Loss(total, {"loss": total, **terms}), z

    def regularisers(self, z: Tensor, q: Normal, step: Step) -> dict[str, tuple[float, Tensor]]:
        """Terms beside the KL: the name in the log, the weight, and nats, (n,) or of the batch.
        They are weighed by :meth:`kl_weight` too; the log shows their means without the weights."""
        return {}

    def kl_weight(self, step: Step) -> float | Tensor:
        """Weight of KL and regularisers: ``kl_weight_start`` to 1 over ``kl_warmup`` of the budget.

        Upward linearly (Bowman et al. 2016, section 3.1); downward geometrically, by which the
        capacity of the latents grows and takes in one factor after the other (Burgess et al. 2018,
        eq. 8, which gives the capacity itself).
        """
        share, start = self.config.kl_warmup, self.config.kl_weight_start
        progress = step.share_of(share) if share > 0 else 1.0
        return start ** (1 - progress) if start > 1 else start + (1 - start) * progress

    def with_free_bits(self, kl: Tensor) -> Tensor:
        """KL (n, parts) to what it costs, (n,) nats: parts are latent dimensions, of a learnt prior
        a single part has the free bits of all."""
        return elbo.free_bits(kl, self.config.free_bits * self.latent_dim / kl.shape[1])

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        """The x that is scored: binarised or dequantised as the likelihood asks, model units."""
        return self.likelihood.preprocess(x, noise)

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> Normal:
        """q(z|x): (n, *shape) to a diagonal normal over (n, latent_dim)."""
        c, x = self.embed(condition), self.likelihood.visible(x)
        return normal_of(self.encoder(x) if c is None else self.encoder(x, c))

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Distribution:
        """p(x|z): (*batch, latent_dim) to a distribution over (*batch, *shape).

        A condition (n, …) serves all draws.
        """
        leading, flat, c = z.shape[:-1], z.reshape(-1, z.shape[-1]), self.embed(condition)
        output = self.decoder(flat) if c is None else self.decoder(
            flat, c.expand(*leading, -1).reshape(len(flat), -1))
        return self.likelihood(output.unflatten(0, leading))

    def embed(self, condition: Tensor | None) -> Tensor | None:
        """The condition as the vector (n, condition_dim) that the networks take."""
        return None

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """What this batch is conditioned on; nothing for a plain VAE."""
        return None

    def pseudo_posterior(self, x: Tensor) -> Normal:
        """q(z|x) of pseudo-inputs (K, *shape); where a label is needed the classes take turns."""
        label = torch.arange(len(x), device=x.device) % max(1, len(self.space.classes))
        condition = self.conditioning(Batch(x, label), Noise(0, x.device))
        return self.encode(x, condition=condition)

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """Means of p(x|z) for z from the prior, (n, *shape) in model units; of a table's columns by
        kind draws, since the means of words are none."""
        z = self.prior.sample(n, noise).to(self.device)
        p = self.decode(z, condition=condition)
        return p.mean if self.likelihood.layout is None else p.sample(noise)

    def log_conditional(self, x: Tensor, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p(x|z), nats in data units, for latents (*batch, d) against preprocessed examples."""
        return self.decode(z, condition=condition).log_prob(x) - self.likelihood.log_volume

    @torch.no_grad()
    def elbo(self, x: Tensor, *, noise: Noise, draws: int = 1,
             condition: Tensor | None = None) -> dict[str, Tensor]:
        """The bound, its standard error ``se`` and its parts per example (n,), nats in data units.
        Means over ``draws`` draws of z, taken one after the other; one has no standard error."""
        x = self.preprocess(x, noise)
        q = self.encode(x, condition=condition)
        parts = []
        for _ in range(draws):
            z = q.sample(noise)
            parts.append(torch.stack([-self.log_conditional(x, z, condition),
                                      self.prior.kl(q, z).sum(-1)]))
        stacked = torch.stack(parts, 1)
        reconstruction, kl = stacked.mean(1)
        return {"bound": -reconstruction - kl, "se": elbo.mean_error(stacked.sum(0)),
                "reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, noise: Noise, draws: int = 1,
                       condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Importance-weighted bound log 1/K Σ p(x, z_k)/q(z_k|x) (Burda et al. 2016, eq. 8), nats
        in data units, and the effective sample size, both (n,); x is encoded once."""
        x = self.preprocess(x, noise)
        q, bound = self.encode(x, condition=condition), elbo.ImportanceBound()
        chunk = max(1, CHUNK // (len(x) * self.space.dims))
        for first in range(0, draws, chunk):
            bound.add(elbo.log_weights(q, self.prior.log_prob,
                                       lambda z: self.log_conditional(x, z, condition),
                                       min(chunk, draws - first), noise))
        return bound.result()


@dataclass(frozen=True)
class IWAEConfig(VAEConfig):
    """Importance-weighted autoencoder."""

    draws: int = option(5, "draws of the latents per example and step", low=1)
    bound: str = option("importance", "of the draws' weights: the logarithm of their mean "
                        "(importance), or the mean of their logarithms, a VAE's (average)",
                        choices=("importance", "average"))
    gradient: str = option("auto", "of the encoder; auto: dreg, doubly reparameterised, where the "
                           "importance bound has more than one draw, else reparameterised",
                           choices=("auto", "reparameterised", "dreg"))

    def __post_init__(self) -> None:
        if self.free_bits > 0:
            raise ConfigError(f"free_bits={self.free_bits:g} needs the KL of every latent "
                              "dimension, which a bound over draws has not; leave it out, or train "
                              "vae", option="free_bits")

    def resolve(self, space: Space) -> Self:
        """The gradient as well."""
        several = self.bound == "importance" and self.draws > 1
        gradient = "dreg" if several else "reparameterised"
        return replace(super().resolve(space),
                       gradient=gradient if self.gradient == "auto" else self.gradient)


class IWAE(VAE):
    """A VAE trained on log 1/K Σ p(x, z_k)/q(z_k|x) of K draws (Burda et al. 2016, eq. 8), tighter
    than its own bound.

    With ``bound=average`` on 1/K Σ log p(x, z_k)/q(z_k|x), the VAE's bound of K draws (eq. 3).
    """

    Config = IWAEConfig

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Negative bound, mean nats per example in model units; an example is encoded once.

        With ``gradient=dreg`` q's parameters are held fixed in log w, and the gradient that reaches
        draw z_k is multiplied by its normalised weight w̃_k: Σ w̃_k² ∂log w_k/∂z_k ∂z_k/∂φ (Tucker
        et al. 2019, eq. 8). If log q(z|x) weighs β in log w, the score function that it stands for
        weighs β too, and the factor is 1 − β (1 − w̃_k).
        """
        x = self.preprocess(batch.x, step.noise)
        q: Posterior = self.encode(x)
        z = q.draws(self.config.draws, step.noise)
        log_px = self.decode(z).log_prob(x)
        twice, weight = self.config.gradient == "dreg", self.kl_weight(step)
        kl = (q.detached() if twice else q).log_prob(z) - self.prior.log_prob(z)
        log_w = log_px - weight * kl
        if self.config.bound == "average":
            bound = log_w.mean(0)
        else:
            bound = log_w.logsumexp(0) - math.log(len(log_w))
            if twice and z.requires_grad:
                factor = 1 - weight * (1 - log_w.detach().softmax(0))[..., None]
                z.register_hook(lambda gradient: gradient * factor)
        total = elbo.trimmed_mean(-bound, self.config.trimmed_fraction)
        return Loss(total, {"loss": total, "reconstruction": -log_px.mean(), "kl": kl.mean()})


def normal_of(output: Tensor) -> Normal:
    """N(μ, σ²) of a network's output (*batch, 2 d): the means, then the log variances."""
    mean, log_var = output.float().chunk(2, -1)
    return Normal(mean, log_var.clamp(-14, 14))
