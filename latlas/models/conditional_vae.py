"""Conditional VAE (Sohn et al. 2015): given a label, or a part of the picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latlas import networks
from latlas.core.batch import Batch
from latlas.core.errors import ConfigError, DataError
from latlas.core.noise import Noise
from latlas.core.space import Images, Space
from latlas.models.conditioning import NAME_IT, class_vectors
from latlas.models.config import ConditionalVAEConfig
from latlas.models.vae import VAE

SIDES = ("left", "right", "top", "bottom")


class ConditionalVAE(VAE):
    """p(x | c) = ∫ p(x | z, c) N(z; 0, I) dz with c a label or the known part of a picture.

    A condition is (n,) class codes, or (n, C + 1, H, W): the picture with 0 where it is unknown
    and a last channel that is 1 where it is known.
    """

    def __init__(self, config: ConditionalVAEConfig, space: Space, *,
                 encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> None:
        self.condition_dim = _condition_dim(config, space)
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        self.part_encoder = None
        if config.condition == "part":
            given = Images((space.shape[0] + 1, *space.shape[1:]), None)
            # of the kind that was chosen for the picture: run.json knows no other
            self.part_encoder = networks.encoder(
                given, self.condition_dim, kind=self.config.network, width=self.config.width,
                depth=self.config.depth)

    def embed(self, condition: Tensor | None) -> Tensor:
        """Class codes as one-hot, the part through a network of its own."""
        if condition is None:
            raise DataError("conditional-vae needs " + (
                f"a label for every item: {NAME_IT}" if self.part_encoder is None else
                "pictures of which it knows a part; name them with --given"))
        if self.part_encoder is None:
            return class_vectors(condition, self.condition_dim, self.latent_dim)
        features: Tensor = self.part_encoder(condition)
        return features

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """The batch's own condition, its labels, or its pictures with a part hidden."""
        if batch.condition is not None or self.part_encoder is None:
            return batch.condition if batch.condition is not None else batch.label
        return hide(batch.x, self.config.part, noise)


def hide(x: Tensor, part: str, noise: Noise) -> Tensor:
    """(n, C, H, W) to (n, C + 1, H, W) of which only the ``part`` is kept."""
    n, _, height, width = x.shape
    sides = torch.stack([_half(side, height, width) for side in SIDES]).to(x)
    if part == "random":
        mask = sides[noise.integers(4, n).to(x.device)]
    else:
        mask = sides[SIDES.index(part)].expand(n, -1, -1)
    return torch.cat([x * mask[:, None], mask[:, None]], 1)


def _half(side: str, height: int, width: int) -> Tensor:
    """1 on one half of the picture, 0 on the other."""
    row = torch.arange(height)[:, None].expand(height, width)
    column = torch.arange(width).expand(height, width)
    return {"left": column < width // 2, "right": column >= width // 2,
            "top": row < height // 2, "bottom": row >= height // 2}[side].float()


def _condition_dim(config: ConditionalVAEConfig, space: Space) -> int:
    if config.condition == "part":
        if space.kind != "picture":
            raise ConfigError(f"condition=part needs pictures, not {space.words}")
        return 128
    if not space.classes:
        raise DataError("conditional-vae needs labels and this data has none; name them with "
                        "--label COLUMN, or use --set condition=part for pictures")
    return len(space.classes)
