"""Networks with no loss inside."""

import torch
from torch import nn

from latlas.core.errors import ConfigError


def must_fit(name: str, module: nn.Module, inputs: tuple[int, ...], outputs: tuple[int, ...],
             condition: int = 0) -> None:
    """Try a module of the user's own on two examples of zeros; it is left as it was. ConfigError:
    it cannot take (n, *inputs), or gives something else than (n, *outputs)."""
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{name} must be a torch.nn.Module, not {type(module).__name__}")
    expected = f"{name} must turn (n, {_listed(inputs)}) into (n, {_listed(outputs)})"
    like = next(module.parameters(), torch.zeros(0))
    zeros = [like.new_zeros(2, *inputs), *([like.new_zeros(2, condition)] if condition else [])]
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            shape = tuple(module.eval()(*zeros).shape)
    except Exception as error:  # whatever a module makes of a shape it does not expect
        raise ConfigError(f"{expected}; it fails: {error}") from error
    finally:
        for part, mode in modes.items():
            part.training = mode
    if shape != (2, *outputs):
        raise ConfigError(f"{expected}; it gives (n, {_listed(shape[1:])})")


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
