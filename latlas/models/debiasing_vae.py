"""Debiasing VAE (Amini et al. 2019): a classifier that sees what is rare in its data more often."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.distributions import Normal
from latlas.core.errors import ConfigError, DataError, unknown
from latlas.core.model import Loss, Step, Weights
from latlas.core.space import Space
from latlas.metrics import rarity
from latlas.metrics.arrays import Array
from latlas.models.conditioning import NAME_IT
from latlas.models.config import DebiasingVAEConfig
from latlas.models.vae import VAE, normal_of


class DebiasingVAE(VAE):
    """One encoder gives the logits of the classes and q(z|x), from which the decoder reconstructs.

    Loss: L_class + w · [y audited] · L_VAE (eq. 2), both means over the batch. The batches are
    drawn by weights that grow as the density of an item's codes falls.
    """

    def __init__(self, config: DebiasingVAEConfig, space: Space, *,
                 encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> None:
        if len(space.classes) < 2:
            raise DataError("debiasing-vae needs labels of two classes or more, and this data has "
                            f"{len(space.classes) or 'none'}: {NAME_IT}")
        self.more_outputs = len(space.classes)
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        weight = self.config.vae_weight
        self.vae_weight = 1 / space.dims if weight is None else weight
        self.register_buffer("audited", _audited(config.audited, space), persistent=False)

    audited: Tensor

    @property
    def refresh(self) -> float:
        """Share of the budget between two sets of weights; 0: items come equally often."""
        share: float = 0.0 if self.config.form == "none" else self.config.refresh
        return share

    def encode(self, x: Tensor, *, condition: Tensor | None = None) -> Normal:
        """q(z|x): (n, *shape) to a diagonal normal over (n, latent_dim)."""
        return self._both(x)[0]

    def classify(self, x: Tensor) -> Tensor:
        """log p(class|x): (n, *shape) to (n, classes), nats."""
        return self._both(x)[1].log_softmax(-1)

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Cross-entropy of every item, and the negative bound of those of audited classes."""
        label = _labels(batch)
        x = self.likelihood.preprocess(batch.x, step.noise)
        q, logits = self._both(x)
        bound, terms = self._negative_bound(x, q, None, step)
        classification = F.cross_entropy(logits, label)
        total = classification + self.vae_weight * (self.audited[label] * bound).mean()
        return Loss(total, {"loss": total, "classification": classification, **terms})

    def prepare(self, batches: Iterable[Batch], n_train: int) -> None:
        """Refuse what histograms of codes cannot be made of.

        Raises:
            DataError: fewer than 50 items of the audited classes.
        """
        count = sum(int(self.audited[_labels(batch)].sum()) for batch in batches)
        if self.refresh and count < rarity.LEAST_ITEMS:
            raise DataError(f"the audited classes have {count} training items; at least "
                            f"{rarity.LEAST_ITEMS} are needed to say which are rare, or form=none")

    @torch.no_grad()
    def sampling_weights(self, batches: Iterable[Batch]) -> Weights:
        """Weights of the audited classes' items by the form that was chosen; 1 for other items."""
        codes, losses, labels = (torch.cat(part).cpu().numpy() for part in zip(
            *map(self._seen, batches), strict=True))
        mine = self.audited.cpu().numpy()[labels] > 0
        found = self._guarded(codes[mine], losses[mine], labels[mine])
        weights = torch.ones(len(codes), dtype=torch.float64)
        weights[torch.from_numpy(mine)] = torch.from_numpy(found.weights)
        return Weights(weights, found.figures, found.words)

    def _seen(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean codes, cross-entropies and labels of a batch."""
        q, logits = self._both(batch.x)
        return q.mean, F.cross_entropy(logits, _labels(batch), reduction="none"), _labels(batch)

    def _guarded(self, codes: Array, losses: Array, labels: Array) -> rarity.Guarded:
        """By the histograms of the codes (eq. 3), or by the losses of items that are alike."""
        c = self.config
        if c.form == "loss":
            values = rarity.smoothed(losses, codes, labels, c.neighbours)
        else:
            values = rarity.densities(codes, labels if c.within == "class" else None, c.bins)
        return rarity.guarded(values, c.form, c.share, c.clip, c.alpha)

    def _both(self, x: Tensor) -> tuple[Normal, Tensor]:
        """q(z|x), and the logits (n, classes)."""
        codes, logits = self._encoded(x, None).float().split(
            [2 * self.latent_dim, self.more_outputs], -1)
        return normal_of(codes), logits


def _labels(batch: Batch) -> Tensor:
    if batch.label is None:
        raise DataError(f"debiasing-vae needs a label for every item: {NAME_IT}")
    return batch.label


def _audited(names: str, space: Space) -> Tensor:
    """(classes,) 1 for each class that is named, for all where none is."""
    asked = [name.strip() for name in names.split(",") if name.strip()] or list(space.classes)
    for name in asked:
        if name not in space.classes:
            raise ConfigError(f"audited={names}: {unknown('class', name, space.classes)}")
    return torch.tensor([float(name in asked) for name in space.classes])
