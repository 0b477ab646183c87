"""Conditional VAE (Sohn et al. 2015): given a label, or a part of the image."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Batch
from latlas.core.noise import Noise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.priors import NAME_IT, class_vectors
from latlas.models.vae import VAE, VAEConfig

SIDES = ("left", "right", "top", "bottom")
#: features of the part that is given
PART_DIM = 128


@dataclass(frozen=True)
class ConditionalVAEConfig(VAEConfig):
    """VAE of p(x | condition)."""

    condition: str = option("label", "what is given: the example's label, or a part of the image",
                            choices=("label", "part"))
    part: str = option("left", "the part of the image that is given; random draws one of the "
                       "four halves per example", choices=(*SIDES, "random"))


class ConditionalVAE(VAE):
    """p(x | c) = ∫ p(x | z, c) N(z; 0, I) dz with c a label or the given part of an image.

    A condition is (n,) class numbers, or (n, C + 1, H, W): the image with 0 where it is unknown
    and a last channel that is 1 where it is given.
    """

    Config = ConditionalVAEConfig
    takes_condition: Literal["label", "part"] | None = "label"  # of an instance its config's

    def __init__(self, config: ConditionalVAEConfig, space: Space, *,
                 encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> None:
        part = config.condition == "part"
        if part and space.kind != "image":
            raise ConfigError(f"condition=part needs images, not {space.words}",
                              option="condition")
        if not part and not space.classes:
            raise DataError("conditional-vae needs labels and this data has none; name them with "
                            "--label COLUMN, or use --set condition=part for images")
        self.takes_condition = "part" if part else "label"
        self.condition_dim = PART_DIM if part else len(space.classes)
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        masked = space.shape[0] + 1, *space.shape[1:]
        self.part_encoder = self.make_encoder(masked, PART_DIM) if part else None

    def embed(self, condition: Tensor | None) -> Tensor:
        """Class numbers as one-hot, the part through a network of its own."""
        if condition is None:
            raise DataError("conditional-vae needs " + (
                f"a label for every example: {NAME_IT}" if self.part_encoder is None else
                "images of which a part is given; name them with --given"))
        if self.part_encoder is None:
            return class_vectors(condition, self.condition_dim, self.latent_dim)
        return self.part_encoder(condition)

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """The batch's own condition, its labels, or its images with a part hidden."""
        if batch.condition is not None:
            return batch.condition
        return batch.label if self.part_encoder is None else hide(batch.x, self.config.part, noise)


def hide(x: Tensor, part: str, noise: Noise) -> Tensor:
    """(n, C, H, W) to (n, C + 1, H, W) with all but the ``part`` hidden."""
    n, _, height, width = x.shape
    row = torch.arange(height, device=x.device)[:, None].expand(height, width)
    column = torch.arange(width, device=x.device).expand(height, width)
    in_left, in_top = column < width // 2, row < height // 2
    masks = torch.stack([in_left, ~in_left, in_top, ~in_top]).to(x)  # in the order of SIDES
    side = noise.integers(4, n).to(x.device) if part == "random" else (
        torch.full((n,), SIDES.index(part), device=x.device))
    mask = masks[side][:, None]
    return torch.cat([x * mask, mask], 1)
