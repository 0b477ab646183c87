"""Variational autoencoder (Kingma & Welling 2014) and the bounds on its likelihood."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from latlas.core.distributions import Distribution, Normal, Posterior
from latlas.core.errors import ConfigError
from latlas.core.model import Batch, Loss, Step
from latlas.core.noise import Noise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models import likelihoods, priors
from latlas.models.autoencoder import AEConfig, Autoencoding
from latlas.objectives.elbo import (
    ImportanceBound,
    free_bits,
    log_weights,
    mean_error,
    trimmed_mean,
)

#: scalars decoded at once while draws are summed: what a processor's cache can hold
CHUNK = 400_000
#: of fully connected decoders of images, unless told otherwise: images are many scalars of few
#: examples, which a decoder without dropout learns by heart
DROPOUT = 0.3


@dataclass(frozen=True)
class VAEConfig(AEConfig):
    """Variational autoencoder."""

    likelihood: str = option("auto", "p(x|z); auto: discretised-logistic for integer images, "
                             "gaussian-learnt otherwise", choices=("auto", *likelihoods.NAMES))
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
            likelihood = "discretised-logistic" if space.levels else "gaussian-learnt"
            likelihood = likelihood if self.binarize == "none" else "bernoulli"
        if dropout is None:
            dropout = DROPOUT if space.kind == "image" and config.network == "mlp" else 0.0
        if dropout and config.network == "conv":
            raise ConfigError(f"dropout={dropout:g} is for network=mlp", option="dropout")
        return replace(config, likelihood=likelihood, dropout=dropout,
                       prior_components=self.prior_components or priors.COMPONENTS[self.prior])


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
        likelihood = likelihoods.make(config.likelihood, space, binarize=config.binarize,
                                      noise_sd=config.noise_sd)
        self.multiplier, self.dropout = likelihood.multiplier, config.dropout or 0.0
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        self.likelihood = likelihood
        self.prior = priors.make(config.prior, self.decoder_inputs, config.prior_components, space,
                                 self.pseudo_posterior)

    @property
    def base_measure(self) -> str:
        """What the likelihood may be compared with."""
        return self.likelihood.base_measure

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> Normal:
        """q(z|x): (n, *shape) to a diagonal normal over (n, latent_dim)."""
        return normal_of(self.run_encoder(x, condition))

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Distribution:
        """p(x|z): (*batch, latent_dim) to a distribution over (*batch, *shape)."""
        distribution: Distribution = self.likelihood(self.run_decoder(z, condition))
        return distribution

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """Means of p(x|z) for z from the prior, (n, *shape) in model units."""
        z = self.prior.sample(n, noise).to(self.device)
        return self.decode(z, condition=condition).mean

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """What this batch is conditioned on; nothing for a plain VAE."""
        return None

    def pseudo_posterior(self, x: Tensor) -> Normal:
        """q(z|x) of pseudo-inputs (K, *shape); where a label is needed the classes take turns."""
        label = torch.arange(len(x), device=x.device) % max(1, len(self.space.classes))
        condition = self.conditioning(Batch(x, label), Noise(0, x.device))
        return self.encode(x, condition=condition)

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Negative evidence lower bound, mean nats per example in model units (eq. 3)."""
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
        total = trimmed_mean(bound, self.config.trimmed_fraction)
        return Loss(total, {"loss": total, **terms})

    def regularisers(self, z: Tensor, q: Normal,
                     step: Step) -> dict[str, tuple[float, Tensor]]:
        """Terms beside the KL: the name in the log, the weight, and nats, (n,) or of the batch.

        They are weighed by :meth:`kl_weight` too; the log shows their means without the weights.
        """
        return {}

    def kl_weight(self, step: Step) -> float:
        """Weight of KL and regularisers: ``kl_weight_start`` to 1 over ``kl_warmup`` of the budget.

        Upward linearly (Bowman et al. 2016, section 3.1); downward geometrically, by which the
        capacity of the latents grows and takes in one factor after the other (Burgess et al. 2018,
        eq. 8, where the capacity itself is what is given).
        """
        share, start = self.config.kl_warmup, self.config.kl_weight_start
        progress = min(1.0, step.progress / share) if share > 0 else 1.0
        weight: float = (start ** (1 - progress) if start > 1 else
                         start + (1 - start) * progress)
        return weight

    def with_free_bits(self, kl: Tensor) -> Tensor:
        """KL (n, parts) to what it costs, (n,) nats.

        The parts are the latent dimensions under the standard prior; under a learnt one there is a
        single part, which has the free bits of all dimensions.
        """
        return free_bits(kl, self.config.free_bits * self.latent_dim / kl.shape[1])

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        """The x that is scored: binarised or dequantised as the likelihood asks, model units."""
        return self.likelihood.preprocess(x, noise)

    def log_conditional(self, x: Tensor, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p(x|z), nats in data units, for latents (*batch, d) against preprocessed examples."""
        volume = self.space.log_volume if self.likelihood.density else 0.0
        return self.decode(z, condition=condition).log_prob(x) - volume

    @torch.no_grad()
    def elbo(self, x: Tensor, *, noise: Noise, draws: int = 1,
             condition: Tensor | None = None) -> dict[str, Tensor]:
        """The bound, its standard error ``se`` and its parts per example (n,), nats in data units.

        Means over ``draws`` draws of z, taken one after the other; one has no standard error.
        """
        x = self.preprocess(x, noise)
        q = self.encode(x, condition=condition)
        parts = []
        for _ in range(draws):
            z = q.sample(noise)
            parts.append(torch.stack([-self.log_conditional(x, z, condition),
                                      self.prior.kl(q, z).sum(-1)]))
        stacked = torch.stack(parts, 1)
        reconstruction, kl = stacked.mean(1)
        return {"bound": -reconstruction - kl, "se": mean_error(stacked.sum(0)),
                "reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, noise: Noise, draws: int = 1,
                       condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Importance-weighted bound log 1/K Σ p(x, z_k)/q(z_k|x) (Burda et al. 2016, eq. 8).

        x is encoded once and never repeated. Returns nats in data units and the effective sample
        size, both (n,).
        """
        x = self.preprocess(x, noise)
        q: Posterior = self.encode(x, condition=condition)
        bound = ImportanceBound()
        chunk = max(1, CHUNK // (len(x) * self.space.dims))
        for first in range(0, draws, chunk):
            bound.add(log_weights(q, self.prior.log_prob,
                                  lambda z: self.log_conditional(x, z, condition),
                                  min(chunk, draws - first), noise))
        return bound.result()


def normal_of(output: Tensor) -> Normal:
    """N(μ, σ²) of a network's output (*batch, 2 d): the means, then the log variances."""
    mean, log_var = output.float().chunk(2, -1)
    return Normal(mean, log_var.clamp(-14, 14))
