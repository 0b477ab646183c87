"""Debiasing VAE (Amini et al. 2019): a classifier that sees rare examples more often."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.distributions import Normal
from latlas.core.errors import ConfigError, DataError, unknown
from latlas.core.model import Batch, Loss, Step, Weights
from latlas.core.options import option
from latlas.core.space import Space
from latlas.metrics import rarity
from latlas.metrics.arrays import Array
from latlas.models.priors import NAME_IT
from latlas.models.vae import VAE, VAEConfig, normal_of


@dataclass(frozen=True)
class DebiasingVAEConfig(VAEConfig):
    """Classifier with a VAE, by whose latents rare examples come more often."""

    debias_classes: str = option("", "classes whose examples are reconstructed and reweighted, "
                                 "with commas between; empty: all")
    vae_weight: float | None = option(None, "weight of the VAE's loss beside the cross-entropy; "
                                      "none: 1 / scalars of an example", low=0)
    reweighting: str = option("product", "weights by the densities of the latent dimensions: the "
                              "inverse of their product, or of the least of them (maximum); by the "
                              "cross-entropy of an example and its neighbours (loss); none: "
                              "examples come equally often",
                              choices=("product", "maximum", "loss", "none"))
    within: str = option("class", "densities among the examples of each of the debias_classes, or "
                         "of all together", choices=("class", "all"))
    neighbours: int = option(5, "examples over which a cross-entropy is smoothed, for "
                             "reweighting=loss", low=1)
    reweighting_interval: float = option(0.1, "share of the budget from one set of weights to the "
                                         "next", low=0.001, high=1)
    bins: int = option(10, "bins of a histogram of one dimension", low=2)
    share: float = option(0.2, "effective sample size that the weights leave, as a share of the "
                          "examples: alpha is raised until they do", low=0.01, high=0.99)
    alpha: float | None = option(None, "added to every density; none: the least that leaves the "
                                 "share", low=0)
    clip: float = option(20.0, "largest weight, times their mean", low=1)

    def __post_init__(self) -> None:
        if self.trimmed_fraction > 0:
            raise ConfigError(f"trimmed_fraction={self.trimmed_fraction:g} leaves out what fits "
                              "worst, which debiasing-vae is to see more often; leave it out",
                              option="trimmed_fraction")


class DebiasingVAE(VAE):
    """One encoder gives the logits of the classes and q(z|x), from which the decoder reconstructs.

    Loss: L_class + w · [y in debias_classes] · L_VAE (eq. 2), both means over the batch. Batches
    are drawn by weights that grow as the density of an example's latents falls.
    """

    Config = DebiasingVAEConfig
    debiased: Tensor

    def __init__(self, config: DebiasingVAEConfig, space: Space, *,
                 encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> None:
        if len(space.classes) < 2:
            raise DataError("debiasing-vae needs labels of two classes or more, and this data has "
                            f"{len(space.classes) or 'none'}: {NAME_IT}")
        names = [name.strip() for name in config.debias_classes.split(",") if name.strip()]
        for name in names:
            if name not in space.classes:
                raise ConfigError(f"debias_classes={config.debias_classes}: "
                                  f"{unknown('class', name, space.classes)}",
                                  option="debias_classes")
        self.more_outputs = len(space.classes)
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        weight = self.config.vae_weight
        self.vae_weight = 1 / space.dims if weight is None else weight
        self.register_buffer("debiased", torch.tensor([
            float(not names or name in names) for name in space.classes]), persistent=False)

    @property
    def reweighting_interval(self) -> float:
        """Share of the budget between two sets of weights; 0: examples come equally often."""
        return 0.0 if self.config.reweighting == "none" else float(self.config.reweighting_interval)

    def encode_and_classify(self, x: Tensor) -> tuple[Normal, Tensor]:
        """q(z|x), and the logits (n, classes)."""
        latents, logits = self.encoder(self.likelihood.visible(x)).float().split(
            [2 * self.latent_dim, self.more_outputs], -1)
        return normal_of(latents), logits

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> Normal:
        """q(z|x): (n, *shape) to a diagonal normal over (n, latent_dim)."""
        return self.encode_and_classify(x)[0]

    def classify(self, x: Tensor) -> Tensor:
        """log p(class|x): (n, *shape) to (n, classes), nats."""
        return self.encode_and_classify(x)[1].log_softmax(-1)

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Cross-entropy of every example, and the negative bound of those of debias_classes."""
        label = labels_of(batch)
        x = self.preprocess(batch.x, step.noise)
        q, logits = self.encode_and_classify(x)
        z = q.sample(step.noise)
        reconstruction = -self.decode(z).log_prob(x)
        kl = self.prior.kl(q, z)
        bound = reconstruction + self.kl_weight(step) * self.with_free_bits(kl)
        classification = F.cross_entropy(logits, label)
        total = classification + self.vae_weight * (self.debiased[label] * bound).mean()
        return Loss(total, {"loss": total, "classification": classification,
                            "reconstruction": reconstruction.mean(), "kl": kl.sum(-1).mean()})

    def prepare(self, batches: Iterable[Batch], n_train: int) -> None:
        """DataError for fewer than 50 examples of the debias_classes, too few for histograms."""
        count = sum(int(self.debiased[labels_of(batch)].sum()) for batch in batches)
        if self.reweighting_interval and count < rarity.LEAST_ITEMS:
            raise DataError(f"the debias_classes have {count} training examples; at least "
                            f"{rarity.LEAST_ITEMS} are needed to say which are rare, or "
                            "reweighting=none")

    @torch.no_grad()
    def sampling_weights(self, batches: Iterable[Batch]) -> Weights:
        """Of the examples of debias_classes by the histograms of their latents (eq. 3), or by the
        losses of examples that are alike; 1 for others."""
        z, loss, label = self.latents_and_losses(batches)
        mine, c = self.debiased.cpu().numpy()[label] > 0, self.config
        if c.reweighting == "loss":
            values = rarity.smoothed(loss[mine], z[mine], label[mine], c.neighbours)
        else:
            values = rarity.densities(z[mine], label[mine] if c.within == "class" else None, c.bins)
        clipped = rarity.guarded(values, c.reweighting, c.share, c.clip, c.alpha)
        weights = torch.ones(len(z), dtype=torch.float64)
        weights[torch.from_numpy(mine)] = torch.from_numpy(clipped.weights)
        return Weights(weights, clipped.metrics, clipped.words)

    def latents_and_losses(self, batches: Iterable[Batch]) -> tuple[Array, Array, Array]:
        """Mean latents (n, latent_dim), cross-entropies (n,) and labels (n,) of all examples."""
        latents, losses, labels = [], [], []
        for batch in batches:
            q, logits = self.encode_and_classify(batch.x)
            latents.append(q.mean)
            labels.append(labels_of(batch))
            losses.append(F.cross_entropy(logits, labels[-1], reduction="none"))
        z, loss, label = (torch.cat(part).cpu().numpy() for part in (latents, losses, labels))
        return z, loss, label


def labels_of(batch: Batch) -> Tensor:
    if batch.label is None:
        raise DataError(f"debiasing-vae needs a label for every example: {NAME_IT}")
    return batch.label
