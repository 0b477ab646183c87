"""Variational autoencoder (Kingma & Welling 2014) and the bounds on its likelihood."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from latlas import networks
from latlas.core.batch import Batch
from latlas.core.distributions import Distribution, Normal, Posterior
from latlas.core.model import Loss, Step
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.models import likelihoods, priors
from latlas.models.autoencoding import Autoencoding
from latlas.models.config import VAEConfig
from latlas.objectives.divergences import free_bits
from latlas.objectives.elbo import ImportanceBound, log_weights, mean_error
from latlas.objectives.reconstruction import trimmed_mean

#: scalars decoded at once while draws are summed: what a processor's cache can hold
CHUNK = 400_000
#: of fully connected decoders of pictures, unless told otherwise
DROPOUT = 0.3


def normal_of(output: Tensor) -> Normal:
    """N(μ, σ²) of a network's output (*batch, 2 d): the means, then the log variances."""
    mean, log_var = output.float().chunk(2, -1)
    return Normal(mean, log_var.clamp(-14, 14))


class VAE(Autoencoding):
    """q(z|x) = N(μ, σ²), p(z) and p(x|z) of choice; p(z) is N(0, I) by default.

    Trained on the evidence lower bound E_q[log p(x|z)] − KL(q ‖ p) (eq. 3). A variant overrides
    :meth:`regulariser`.
    """

    outputs_per_code = 2

    def __init__(self, config: VAEConfig, space: Space, *, encoder: nn.Module | None = None,
                 decoder: nn.Module | None = None) -> None:
        name = likelihoods.resolve(config.likelihood, space, config.binarize)
        self.dropout = _dropout(config, space)
        components = config.prior_components or priors.COMPONENTS[config.prior]
        config = replace(config, likelihood=name, dropout=self.dropout,
                         prior_components=components)
        likelihood = likelihoods.make(config.likelihood, space, binarize=config.binarize,
                                      noise_sd=config.noise_sd)
        self.multiplier = likelihood.multiplier
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        self.likelihood = likelihood
        self.prior: priors.Prior = priors.make(config.prior, self.latent_dim, components, space,
                                               self.pseudo_posterior)

    @property
    def base_measure(self) -> str:
        """What the likelihood may be compared with."""
        return self.likelihood.base_measure

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> Normal:
        """q(z|x): (n, *shape) to a diagonal normal over (n, latent_dim)."""
        return normal_of(self._encoded(x, condition))

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Distribution:
        """p(x|z): (*batch, latent_dim) to a distribution over (*batch, *shape)."""
        distribution: Distribution = self.likelihood(self._decoded(z, condition))
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
        """Negative bound, mean nats per item in model units."""
        condition = self.conditioning(batch, step.noise)
        x = self.likelihood.preprocess(batch.x, step.noise)
        bound, terms = self._negative_bound(x, self.encode(x, condition=condition), condition, step)
        total = trimmed_mean(bound, self.config.trim)
        return Loss(total, {"loss": total, **terms})

    def _negative_bound(self, x: Tensor, q: Normal, condition: Tensor | None,
                        step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative bound per item, (n,), of prepared items, and its parts for the log."""
        z = q.sample(step.noise)
        reconstruction = -self.decode(z, condition=condition).log_prob(x)
        kl = self.prior.kl(q, z)
        bound = reconstruction + self.warmth(step) * self.regulariser(kl, z, q, step)
        return bound, {"reconstruction": reconstruction.mean(), "kl": kl.sum(-1).mean()}

    def regulariser(self, kl: Tensor, z: Tensor, q: Normal, step: Step) -> Tensor:
        """The term beside the reconstruction, per item (n,), nats.

        ``kl`` is (n, parts): of every code dimension under the standard prior, of the whole code
        under a learnt one, which then has the free bits of all dimensions.
        """
        return free_bits(kl, self.config.free_bits * self.latent_dim / kl.shape[1])

    def warmth(self, step: Step) -> float:
        """Weight of the regulariser: from ``kl_start`` to 1 over ``kl_warmup`` of the budget.

        Upward linearly (Bowman et al. 2016, section 3.1); downward geometrically, by which the
        code's capacity grows and takes in one factor after the other (Burgess et al. 2018,
        eq. 8, where the capacity itself is what is given).
        """
        share, start = self.config.kl_warmup, self.config.kl_start
        gone = min(1.0, step.progress / share) if share > 0 else 1.0
        weight: float = start ** (1 - gone) if start > 1 else start + (1 - start) * gone
        return weight

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        """The x that is scored: binarised or dequantised as the likelihood asks, model units."""
        return self.likelihood.preprocess(x, noise)

    def log_conditional(self, x: Tensor, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p(x|z), nats in data units, for codes (*batch, d) against prepared items."""
        return self.decode(z, condition=condition).log_prob(x) - self._volume()

    @torch.no_grad()
    def elbo(self, x: Tensor, *, noise: Noise, draws: int = 1,
             condition: Tensor | None = None) -> dict[str, Tensor]:
        """The bound, its standard error ``se`` and its parts per item (n,), nats in data units.

        Means over ``draws`` draws of z, taken one after the other; one has no standard error.
        """
        x = self.preprocess(x, noise)
        q = self.encode(x, condition=condition)
        parts = torch.stack([self._parts(x, q, noise, condition) for _ in range(draws)], 1)
        reconstruction, kl = parts.mean(1)
        return {"bound": -reconstruction - kl, "se": mean_error(parts.sum(0)),
                "reconstruction": reconstruction, "kl": kl}

    def _parts(self, x: Tensor, q: Normal, noise: Noise, condition: Tensor | None) -> Tensor:
        """Reconstruction and KL, (2, n), for one draw of z."""
        z = q.sample(noise)
        return torch.stack([-self.log_conditional(x, z, condition), self.prior.kl(q, z).sum(-1)])

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, noise: Noise, draws: int = 1,
                       condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Importance-weighted bound log 1/K Σ p(x, z_k)/q(z_k|x) (Burda et al. 2016, eq. 8).

        x is encoded once and never repeated. Returns nats in data units and the effective sample
        size, both (n,).
        """
        x = self.preprocess(x, noise)
        q = self.encode(x, condition=condition)
        bound = ImportanceBound()
        chunk = max(1, CHUNK // (len(x) * self.space.dims))
        for first in range(0, draws, chunk):
            bound.add(self._log_weights(x, q, min(chunk, draws - first), noise, condition))
        return bound.result()

    def _log_weights(self, x: Tensor, q: Posterior, draws: int, noise: Noise,
                     condition: Tensor | None) -> Tensor:
        """log p(x|z) + log p(z) − log q(z|x) for fresh draws of z, (draws, n), data units."""
        return log_weights(q, self.prior.log_prob,
                           lambda z: self.log_conditional(x, z, condition), draws, noise)

    def _volume(self) -> float:
        return self.space.log_volume if self.likelihood.density else 0.0


def _dropout(config: VAEConfig, space: Space) -> float:
    """Pictures are many numbers of few items: without it a decoder learns them by heart."""
    if config.dropout is not None:
        return config.dropout
    fully_connected = networks.resolve(config.network, space) == "mlp"
    return DROPOUT if space.kind == "picture" and fully_connected else 0.0
