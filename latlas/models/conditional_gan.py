"""``conditional-gan``: images, rows or points of a class that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch.nn.functional as F
from torch import Tensor

from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Batch, Loss, Step
from latlas.core.noise import Noise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.cluster_prior import CONTENT_WEIGHT
from latlas.models.conditioning import NAME_IT, class_vectors
from latlas.models.gan import GAN, GANConfig
from latlas.objectives import adversarial


@dataclass(frozen=True)
class ConditionalGANConfig(GANConfig):
    """A GAN of given classes."""

    class_loss_weight: float = option(3.0, "weight of the class loss (AC-GAN): the discriminator "
                                      "learns to classify real examples, the generator to make "
                                      "fakes that are classified right; 0: fakes are as ambiguous "
                                      "as the data", low=0)

    def resolve(self, space: Space) -> Self:
        """The config with what was left to the data filled in.

        Raises:
            DataError: the data has fewer than two classes.
        """
        if len(space.classes) < 2:
            raise DataError("conditional-gan needs labels of two classes or more, this data has "
                            f"{len(space.classes) or 'none'}: name their column with --label, or "
                            "train gan")
        return super().resolve(space)


class ConditionalGAN(GAN):
    """G(z, c) against a discriminator that projects on the class (Miyato & Koyama 2018).

    The fakes of a step have the classes of its real examples, so both networks see every class as
    often as it occurs. The discriminator also learns to classify real examples, and the generator
    pays for fakes that are not classified as their class (AC-GAN, Odena et al. 2017, section 3).
    """

    Config = ConditionalGANConfig
    takes_condition = "label"
    config: ConditionalGANConfig

    @property
    def class_logits(self) -> bool:
        """Whether the discriminator learns to classify."""
        return self.config.class_loss_weight > 0

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """The batch's own condition, else its labels."""
        return batch.label if batch.condition is None else batch.condition

    def generate(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """G(z, c) of latents (n, latent_dim) and classes (n,), or fewer, which then repeat."""
        vectors = class_vectors(required(condition), self.condition_dim, self.config.latent_dim)
        out: Tensor = self.generator(self.prior.expand_latent(z),
                                     vectors.repeat(len(z) // len(vectors), 1))
        return out

    def class_loss(self, outputs: Tensor, label: Tensor) -> Tensor | None:
        """−log p(class | example), mean nats times ``class_loss_weight``, by D's further outputs.

        ``None`` for a discriminator of the user's own that gives one logit.
        """
        if outputs.shape[1] == 1:
            return None
        if outputs.shape[1] != 1 + self.condition_dim:
            n = self.condition_dim
            raise ConfigError("discriminator must turn examples and classes into (n, 1), or into "
                              f"(n, {1 + n}): how real, then the {n} classes; it gives (n, "
                              f"{outputs.shape[1]})")
        return self.config.class_loss_weight * F.cross_entropy(outputs[:, 1:], label)

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """The discriminator's loss, its penalty where that is lazy, the generator's loss."""
        x, label = batch.x, required(self.conditioning(batch, step.noise))
        context = self.prior.context(x, label)
        fakes = self.generate(self.prior.latents_like(x, context, step.noise), label).float()
        logits_of = partial(self.logits, (label, *context))

        d_inputs = self.d_inputs(x, fakes, step, penalised=self.eager)
        outputs = self.discriminate((label, *context), *d_inputs)
        real, fake = logits = [out[:, 0] for out in outputs]
        total = adversarial.discriminator_loss(self.objective, real, fake)
        terms = {"discriminator": total} | adversarial.logit_terms(real, fake)
        if self.eager:
            penalty, parts = self.penalty(logits_of, d_inputs, step, logits)
            total, terms = total + penalty, terms | parts
        if self.augmentation(step.n_train) == "ada":
            terms["augmented"] = self.augment_p.clone()
        if (class_loss := self.class_loss(outputs[0], label)) is not None:
            total, terms = total + class_loss, terms | {"class": class_loss}
        yield "discriminator", Loss(total, terms)

        if self.lazy and step.index % self.config.r1_interval == 0:
            d_inputs = self.d_inputs(x, fakes, step, penalised=True)
            yield "penalty", Loss(*self.penalty(logits_of, d_inputs, step))

        outputs = self.discriminate((label, *context), self.augment(fakes, step))
        fake = outputs[0][:, 0]
        real, = logits_of(self.augment(x, step)) if self.objective.paired else (fake,)
        total = adversarial.generator_loss(self.objective, real, fake)
        parts = {"generator": total}
        if (class_loss := self.class_loss(outputs[0], label)) is not None:
            total = total + class_loss
        if (content := self.prior.content_loss(fakes, context)) is not None:
            total, parts = total + CONTENT_WEIGHT * content, parts | {"content": content}
        yield "generator", Loss(total, parts)
        self.adapt_augmentation(terms["certainty"], len(x), step)


def required(condition: Tensor | None) -> Tensor:
    """The classes (n,) of all examples, which this model cannot do without."""
    if condition is None:
        raise DataError(f"conditional-gan needs a label for every example: {NAME_IT}")
    return condition
