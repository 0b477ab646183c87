"""From a code to an item, within the range that pictures have."""

from __future__ import annotations

from torch import Tensor, nn

from latlas import networks
from latlas.core.space import Space


class Squashed(nn.Module):
    """A network whose output goes through tanh.

    Pixels pile up at −1 and 1; without the curve a discriminator would see the overshoot.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> Tensor:
        out: Tensor = self.network(*given)
        return out.tanh()


def make_generator(space: Space, inputs: int, condition: int = 0, *, kind: str, width: int,
              depth: int) -> nn.Module:
    """(n, inputs) and an optional (n, condition) to (n, *shape)."""
    made = networks.decoder(space, inputs, condition, kind=kind, width=width, depth=depth)
    return Squashed(made) if space.kind == "picture" else made
