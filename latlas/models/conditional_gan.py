"""``conditional-gan``: pictures, points or rows of a class that is asked for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Step
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.models.conditioning import NAME_IT, class_vectors
from latlas.models.config import ConditionalGANConfig
from latlas.models.gan import GAN


class ConditionalGAN(GAN):
    """G(z, c) against a discriminator that projects on the class (Miyato & Koyama 2018).

    The fakes of a step have the classes of its real items, so both players see every class as
    often as it occurs. The discriminator also learns to name the class of real items, and the
    generator is paid for fakes whose class it names (Odena et al. 2017, section 3).
    """

    Config = ConditionalGANConfig
    takes_condition = "label"
    config: ConditionalGANConfig

    def __init__(self, config: ConditionalGANConfig, space: Space, *,
                 generator: nn.Module | None = None,
                 discriminator: nn.Module | None = None) -> None:
        self.condition_dim = len(space.classes)
        if self.condition_dim < 2:
            raise DataError("conditional-gan needs labels of two classes or more, this data has "
                            f"{self.condition_dim or 'none'}: name their column with --label, or "
                            "train gan")
        self.names_classes = config.naming > 0
        super().__init__(config, space, generator=generator, discriminator=discriminator)

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """The batch's own condition, else its labels."""
        return batch.label if batch.condition is None else batch.condition

    def _told(self, outputs: Tensor, batch: Batch, step: Step) -> dict[str, Tensor]:
        """−log p(class | item), mean nats times ``naming``, by D's further outputs.

        A discriminator of the user's own that gives one number tells nothing.
        """
        if outputs.shape[1] == 1:
            return {}
        if outputs.shape[1] != 1 + self.condition_dim:
            raise ConfigError("discriminator must turn items and classes into (n, 1), or into (n, "
                              f"{1 + self.condition_dim}): how real, then the {self.condition_dim} "
                              f"classes; it gives (n, {outputs.shape[1]})")
        label = self._label(self.conditioning(batch, step.noise))
        return {"naming": self.config.naming * F.cross_entropy(outputs[:, 1:], label)}

    def _generated(self, z: Tensor, condition: Tensor | None) -> Tensor:
        told = class_vectors(self._label(condition), self.condition_dim,
                             self.config.latent_dim)
        out: Tensor = self.generator(self._spelt_out(z), told.repeat(len(z) // len(told), 1))
        return out

    def _label(self, condition: Tensor | None) -> Tensor:
        """The classes of all items, which this model cannot do without."""
        if condition is None:
            raise DataError(f"conditional-gan needs a label for every item: {NAME_IT}")
        return condition
