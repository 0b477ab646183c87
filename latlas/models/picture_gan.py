"""What adversarial models that work through a pyramid of picture sizes share."""

from __future__ import annotations

from dataclasses import replace

from latlas.core.space import Space
from latlas.models.adversarial import Adversarial
from latlas.models.config import AdversarialConfig
from latlas.networks.blocks import channels
from latlas.networks.equalised import picture_sizes

#: channels of the finest size, unless told otherwise
WIDTH = 32


class PictureGAN(Adversarial):
    """Networks that halve pictures from their full size to sides of 4 … 7.

    Attributes:
        sizes, wide: the sizes and their channels, the coarsest first.
    """

    def __init__(self, name: str, config: AdversarialConfig, space: Space) -> None:
        sizes = picture_sizes(name, space.shape, config.depth)
        super().__init__(replace(config, width=config.width or WIDTH), space)
        self.sizes, self.wide = sizes, channels(self.config.width, len(sizes))[::-1]
