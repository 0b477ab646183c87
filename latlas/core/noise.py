"""Random draws that are a function of (seed, purpose, step), never of what ran before.

A resumed run and many processes see the same noise as an unbroken run of one process: the generator
is seeded anew for every step, and every process draws for the global batch and keeps its own rows.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
    """A source of random tensors, one of whose dimensions, the first by default, is the batch.

    Args:
        seed: any integer, or a ``torch.Generator`` whose state is then advanced.
        device: where the draws land.
        rank, world: this process and how many share the global batch.
    """

    def __init__(self, seed: int | torch.Generator, device: torch.device | str = "cpu",
                 rank: int = 0, world: int = 1) -> None:
        self.generator = seed if isinstance(seed, torch.Generator) else torch.Generator(
            device).manual_seed(seed)
        self.rank, self.world = rank, world

    def normal(self, *shape: int, batch: int = 0) -> Tensor:
        """Standard normal draws of this shape (the global batch's rows of this process); ``batch``
        is the dimension that holds the batch: 1 for several draws of every example."""
        return self._rows(torch.randn, shape, batch)

    def uniform(self, *shape: int, batch: int = 0) -> Tensor:
        """Uniform draws in [0, 1); ``batch`` as for :meth:`normal`."""
        return self._rows(torch.rand, shape, batch)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform int64 draws in 0 … high−1."""
        return self._rows(lambda s, **kw: torch.randint(high, s, **kw), shape)

    def _rows(self, draw, shape: tuple[int, ...],  # type: ignore[no-untyped-def]
              batch: int = 0) -> Tensor:
        n = shape[batch]
        whole = (*shape[:batch], n * self.world, *shape[batch + 1:])
        full = draw(whole, generator=self.generator, device=self.generator.device)
        return full if self.world == 1 else full.narrow(batch, self.rank * n, n)


#: of every thread what :func:`dropout` draws from, the examples of the step, and its strength
_dropout_rng: ContextVar[tuple[Noise, int, float | Tensor] | None] = ContextVar(
    "dropout_rng", default=None)


@contextmanager
def dropout_rng(noise: Noise, n: int, strength: float | Tensor = 1.0) -> Iterator[None]:
    """Modules, which are called with tensors alone, draw from ``noise`` inside, for ``n`` examples
    of this process; ``strength`` is a factor of every share of :func:`dropout` that grows, a number
    or a tensor of one."""
    token = _dropout_rng.set((noise, n, strength))
    try:
        yield
    finally:
        _dropout_rng.reset(token)


def dropout(h: Tensor, share: float, *, grows: bool = True) -> Tensor:
    """``h`` with a random ``share`` of its values 0 and the rest larger by 1/(1 − share)
    (Srivastava et al. 2014). Under :func:`dropout_rng` one process and many leave out the same
    values; torch's own dropout does not know the global batch.

    Args:
        grows: the share is multiplied by the strength of :func:`dropout_rng`; not where dropout is
            a model's own noise, which is the same in training and in use.
    """
    context = _dropout_rng.get()
    if context is None:
        return F.dropout(h, share)
    noise, n, strength = context
    if share == 0 or (grows and isinstance(strength, float) and strength == 0):
        return h
    rate = share * strength if grows else share
    draws, remainder = divmod(len(h), n)
    shape = (1, *h.shape) if remainder else (draws, n, *h.shape[1:])
    mask = noise.uniform(*shape, batch=1).flatten(0, 1) >= rate
    return h * mask.to(h.device, h.dtype).mul_(1 / (1 - rate))


class SharedNoise(Noise):
    """The same draws for every example of a batch: a result depends on its own example alone."""

    def _rows(self, draw, shape: tuple[int, ...],  # type: ignore[no-untyped-def]
              batch: int = 0) -> Tensor:
        return super()._rows(draw, (*shape[:batch], 1, *shape[batch + 1:]), batch).expand(shape)


def dequantise(x: Tensor, step: float, noise: Noise) -> Tensor:
    """Uniform noise one level wide around every value: x + (u − ½)·step, u ~ U[0, 1).

    E_u log p(x + u) of a density p is a lower bound on the log-probability it gives the integers
    (Theis et al. 2016, section 3.1). ``step`` 0 (continuous data) returns x and draws nothing.
    """
    return x if step == 0 else x + (noise.uniform(*x.shape).to(x) - 0.5) * step
