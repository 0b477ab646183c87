"""Networks with no loss inside, chosen from the shape of the data."""

from __future__ import annotations

import torch
from torch import nn

from latlas.core.errors import ConfigError
from latlas.core.space import Space
from latlas.networks import conv, mlp

#: pictures of up to this many scalars get a fully connected network
MLP_DIMS = 1024


def resolve(kind: str, space: Space) -> str:
    """``mlp`` or ``conv`` for ``auto``: convolutions only for pictures of over 1,024 scalars."""
    if kind != "auto":
        return kind
    return "conv" if space.kind == "picture" and space.dims > MLP_DIMS else "mlp"


def size(kind: str, width: int, depth: int, space: Space) -> tuple[str, int, int]:
    """Kind, width and depth with every ``auto`` and 0 resolved, for run.json.

    The depth of a convolutional network stays 0: its number of levels follows from the shape.
    """
    kind = resolve(kind, space)
    widths, depths = {"mlp": mlp.WIDTH, "conv": conv.WIDTH}, {"mlp": mlp.DEPTH, "conv": 0}
    return kind, width or widths[kind], depth or depths[kind]


def encoder(space: Space, outputs: int, condition: int = 0, *, kind: str = "auto",
            width: int = 0, depth: int = 0) -> nn.Module:
    """A network from (n, *shape) and an optional (n, condition) vector to (n, outputs).

    ``width`` and ``depth`` of 0 mean the default of the kind of network.
    """
    kind, width, depth = size(kind, width, depth, space)
    made: type[nn.Module] = {"mlp": mlp.MLPEncoder, "conv": conv.ConvEncoder}[kind]
    return made(space.shape, outputs, condition, width=width, depth=depth or None)


def decoder(space: Space, inputs: int, condition: int = 0, *, multiplier: int = 1,
            kind: str = "auto", width: int = 0, depth: int = 0, dropout: float = 0) -> nn.Module:
    """A network from (n, inputs) and an optional (n, condition) vector to (n, multiplier·C, H, W).

    Tables get (n, multiplier·d).

    Raises:
        ConfigError: dropout in a convolutional network.
    """
    kind, width, depth = size(kind, width, depth, space)
    if kind == "mlp":
        return mlp.MLPDecoder(space.shape, inputs, condition, multiplier, width, depth, dropout)
    if dropout:
        raise ConfigError(f"dropout={dropout:g} is for network=mlp")
    return conv.ConvDecoder(space.shape, inputs, condition, multiplier, width, depth or None)


def must_fit(name: str, module: nn.Module, inputs: tuple[int, ...], outputs: tuple[int, ...],
             condition: int = 0) -> None:
    """Try a module of the user's own on two items of zeros; it is left as it was.

    Raises:
        ConfigError: it cannot take (n, *inputs), or gives something else than (n, *outputs).
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{name} must be a torch.nn.Module, not {type(module).__name__}")
    wanted = f"{name} must turn (n, {_listed(inputs)}) into (n, {_listed(outputs)})"
    try:
        found = _tried(module, inputs, condition)
    except Exception as error:  # whatever a module makes of a shape it does not expect
        raise ConfigError(f"{wanted}; it fails: {error}") from error
    if found != (2, *outputs):
        raise ConfigError(f"{wanted}; it gives (n, {_listed(found[1:])})")


def _tried(module: nn.Module, inputs: tuple[int, ...], condition: int) -> tuple[int, ...]:
    """The shape of what comes out."""
    like = next(module.parameters(), torch.zeros(0))
    given = [like.new_zeros(2, *inputs), *([like.new_zeros(2, condition)] if condition else [])]
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            return tuple(module.eval()(*given).shape)
    finally:
        for part, mode in modes.items():
            part.training = mode


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
