"""Importance-weighted autoencoder (Burda et al. 2016) and its gradients."""

from __future__ import annotations

from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.distributions import Posterior
from latlas.core.model import Loss, Step
from latlas.models.vae import VAE
from latlas.objectives.elbo import log_mean_weight, reparameterise_twice
from latlas.objectives.reconstruction import trimmed_mean


class IWAE(VAE):
    """A VAE trained on log 1/K Σ p(x, z_k)/q(z_k|x) of K draws (eq. 8), tighter than its bound.

    With ``bound=average`` on 1/K Σ log p(x, z_k)/q(z_k|x), the VAE's bound of K draws (eq. 3).
    """

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Negative bound, mean nats per item in model units; an item is encoded once."""
        x = self.likelihood.preprocess(batch.x, step.noise)
        q: Posterior = self.encode(x)
        z = q.draws(self.config.draws, step.noise)
        log_px = self.decode(z).log_prob(x)
        fixed = q.detached() if self.config.doubly_reparameterised else q
        kl = fixed.log_prob(z) - self.prior.log_prob(z)
        bound = self._bound(z, log_px, kl, self.warmth(step))
        total = trimmed_mean(-bound, self.config.trim)
        return Loss(total, {"loss": total, "reconstruction": -log_px.mean(), "kl": kl.mean()})

    def _bound(self, z: Tensor, log_px: Tensor, kl: Tensor, warmth: float) -> Tensor:
        """Over the draws (K, n) of log p(x|z) and of log q(z|x) − log p(z): (n,)."""
        log_w = log_px - warmth * kl
        if self.config.bound == "average":
            return log_w.mean(0)
        if self.config.doubly_reparameterised:
            reparameterise_twice(z, log_w, warmth)
        return log_mean_weight(log_w)
