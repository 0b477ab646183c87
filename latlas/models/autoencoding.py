"""What every model with an encoder and a decoder shares: its networks and how they are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from latlas import networks
from latlas.core.model import Model, Phase
from latlas.core.space import Space


def auto_latent_dim(space: Space) -> int:
    """Size of the code when none is given: 2 for points up to 50 for pictures of 784 scalars."""
    if space.kind != "picture":
        return max(2, min(32, space.dims // 2))
    return 16 if space.dims <= 256 else 50 if space.dims <= 1024 else 128


def resolved(config: Any, space: Space) -> Any:
    """The config with every choice that was left to the data made, as run.json keeps it."""
    kind, width, depth = networks.size(config.network, config.width, config.depth, space)
    return replace(config, latent_dim=config.latent_dim or auto_latent_dim(space), network=kind,
                   width=width, depth=depth)


class Autoencoding(Model):
    """An encoder with ``outputs_per_code`` numbers per code dimension, and a decoder.

    Args:
        encoder, decoder: any modules of the user's own instead of the built-in networks:
            (n, *shape) to (n, outputs), and (n, latent_dim) to (n, multiplier·C, H, W). With a
            condition they are called with it as a second argument, (n, condition_dim).
    """

    outputs_per_code = 1
    #: numbers that the encoder gives beside those of the code
    more_outputs = 0
    multiplier = 1
    dropout = 0.0

    def __init__(self, config: Any, space: Space, *, encoder: nn.Module | None = None,
                 decoder: nn.Module | None = None) -> None:
        super().__init__(resolved(config, space), space)
        self.latent_dim = self.config.latent_dim
        size = {"kind": self.config.network, "width": self.config.width,
                "depth": self.config.depth}
        outputs = self.outputs_per_code * self.latent_dim + self.more_outputs
        self.encoder = encoder if encoder is not None else networks.encoder(
            space, outputs, self.condition_dim, **size)
        self.decoder = decoder if decoder is not None else networks.decoder(
            space, self.latent_dim, self.condition_dim, multiplier=self.multiplier,
            dropout=self.dropout, **size)
        code, channels = (self.latent_dim,), self.multiplier * space.shape[0]
        if encoder is not None:
            networks.must_fit("encoder", encoder, space.shape, (outputs,), self.condition_dim)
        if decoder is not None:
            networks.must_fit("decoder", decoder, code, (channels, *space.shape[1:]),
                              self.condition_dim)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One phase that trains everything."""
        return (Phase("model", tuple(name for name, _ in self.named_children())),)

    def embed(self, condition: Tensor | None) -> Tensor | None:
        """The condition as the vector (n, condition_dim) that the networks take."""
        return None

    def _encoded(self, x: Tensor, condition: Tensor | None) -> Tensor:
        c = self.embed(condition)
        out: Tensor = self.encoder(x) if c is None else self.encoder(x, c)
        return out

    def _decoded(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """The decoder over codes (*batch, d); a condition (n, …) serves all leading draws."""
        leading, flat = z.shape[:-1], z.reshape(-1, z.shape[-1])
        c = self.embed(condition)
        if c is None:
            out: Tensor = self.decoder(flat)
        else:
            out = self.decoder(flat, c.expand(*leading, -1).reshape(len(flat), -1))
        return out.unflatten(0, leading)
