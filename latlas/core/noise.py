"""Random draws that are a function of (seed, purpose, step), never of what ran before.

A run that was killed and resumed, and a batch that is spread over many processes, therefore see
the same noise as an unbroken run of one process: the generator is seeded anew for every step, and
every process draws for the global batch and keeps its own rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor


def derive(*parts: int | str) -> int:
    """A 63-bit seed from any mix of numbers and words.

    >>> derive(0, "order", 3) == derive(0, "order", 3) != derive(0, "order", 4)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Noise:
    """A source of random tensors whose first dimension is the batch.

    Args:
        seed: any integer, or a ``torch.Generator`` whose state is then advanced.
        device: where the draws land.
        rank, world: this process and how many share the global batch.
    """

    def __init__(self, seed: int | torch.Generator, device: torch.device | str = "cpu",
                 rank: int = 0, world: int = 1) -> None:
        if isinstance(seed, torch.Generator):
            self.generator = seed
        else:
            self.generator = torch.Generator(device).manual_seed(seed)
        self.rank, self.world = rank, world

    def reseed(self, seed: int) -> Noise:
        """The same object, at the start of another stream."""
        self.generator.manual_seed(seed)
        return self

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws of this shape (the global batch's rows of this process)."""
        return self._rows(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws in [0, 1)."""
        return self._rows(torch.rand, shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform int64 draws in 0 … high−1."""
        return self._rows(lambda s, **kw: torch.randint(high, s, **kw), shape)

    def _rows(self, draw, shape: tuple[int, ...]) -> Tensor:  # type: ignore[no-untyped-def]
        n = shape[0]
        device = self.generator.device
        full = draw((n * self.world, *shape[1:]), generator=self.generator, device=device)
        return full if self.world == 1 else full[self.rank * n:(self.rank + 1) * n]


#: what :func:`dropout` draws from while a step is taken
_lent: list[Noise] = []


@contextmanager
def lent(noise: Noise) -> Iterator[None]:
    """Modules, which are called with tensors alone, draw from ``noise`` inside."""
    _lent.append(noise)
    try:
        yield
    finally:
        _lent.pop()


def dropout(h: Tensor, share: float) -> Tensor:
    """``h`` with a random ``share`` of its numbers 0 and the rest larger by 1/(1 − share).

    (Srivastava et al. 2014, in the form that leaves the mean.) Under :func:`lent` one process and
    many leave out the same; torch's own dropout knows nothing of the global batch.
    """
    if not _lent:
        return F.dropout(h, share)
    kept = _lent[-1].uniform(*h.shape) >= share
    return h * kept.to(h.device, h.dtype).mul_(1 / (1 - share))


def dequantise(x: Tensor, step: float, noise: Noise) -> Tensor:
    """Uniform noise one level wide around every value: x + (u − ½)·step, u ~ U[0, 1).

    E_u log p(x + u) of a density p is a lower bound on the log-probability it gives the integers
    (Theis et al. 2016, section 3.1). ``step`` 0 (continuous data) returns x and draws nothing.
    """
    if step == 0:
        return x
    return x + (noise.uniform(*x.shape).to(x) - 0.5) * step
