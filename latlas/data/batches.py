"""Batches by number: batch k is a function of (seed, k), so a resumed run needs no order saved.

Of data of one side batches are :class:`Batch`, of two sides :class:`PairBatch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latlas.core.devices import moved
from latlas.core.errors import say_setting
from latlas.core.model import Batch, PairBatch
from latlas.core.noise import derive
from latlas.data.dataset import Dataset
from latlas.data.pairs import Data, PairDataset
from latlas.data.streams import claim

BYTES = 4  # of a number in a batch
#: share of a GPU's free memory that examples may take there, all sides of them together
RESIDENT_SHARE = 0.25


class Batches:
    """An endless stream of shuffled batches over one data set.

    The stream is permutation after permutation, cut into batches of ``batch_size``; a batch may
    straddle two permutations, so every example is seen equally often for any batch size. The other
    side of pairs follows the same rows; another domain has a stream of its own permutations.

    On a GPU the examples lie there as they are stored if they take at most
    :data:`RESIDENT_SHARE` of its free memory; a step then copies nothing. Others go there by way of
    pinned memory, while the step before is computed.

    Args:
        batch_size: examples of the global batch; each of ``world`` processes takes its share.
        seed: with the batch number decides the examples.
        rank, world: this process and how many share the batch.
    """

    def __init__(self, data: Data, batch_size: int, seed: int = 0, *,
                 device: torch.device | str = "cpu", rank: int = 0, world: int = 1) -> None:
        self.data, self.batch_size, self.device = data, batch_size, torch.device(device)
        self.share = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._sides = _sides_of(data, self.device)
        gpu = self.device.type == "cuda"
        self.resident = gpu and sum(side.nbytes for side in self._sides) <= (
            RESIDENT_SHARE * torch.cuda.mem_get_info(self.device)[0])
        for side in self._sides:
            if self.resident:
                side.move()
            elif gpu:
                side.pinned = PinnedBuffers(self.share.stop - self.share.start)
        for side in self._sides:
            claim((self.share.stop - self.share.start) * BYTES * (side.data.space.dims + 1),
                  f"{say_setting('batch_size', batch_size)}: a batch")
        place = self.device if self.resident else torch.device("cpu")
        self._order = _Order(self._sides[0].data, seed, "order", place)
        self._orders = [self._order]
        if isinstance(data, PairDataset):
            self._orders.append(self._order if data.aligned else _Order(
                data.b, seed, "order of the other side", place))

    def reweigh(self, weights: Tensor | None) -> None:
        """From now on examples come as often as these weights say, (N,); ``None``: equally often.

        Batch k is then a function of (seed, k, weights), the same on every process.
        """
        self._order.weights = weights
        self._order.permutation.cache_clear()

    def at(self, number: int) -> Any:
        """Batch ``number`` (from 0), this process's share of it."""
        first = number * self.batch_size
        return _batch([side.at(order.at(first + self.share.start, first + self.share.stop), True)
                       for side, order in zip(self._sides, self._orders, strict=True)])


class Sweep:
    """The examples once, in order, in batches; may be swept again.

    Two domains have no common order: to go through them is a ValueError.
    """

    def __init__(self, data: Data, batch_size: int = 512,
                 device: torch.device | str = "cpu") -> None:
        self.data, self.batch_size, self.device = data, batch_size, torch.device(device)

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.data, PairDataset) and not self.data.aligned:
            raise ValueError("two domains have no common order: sweep one of them")
        sides = _sides_of(self.data, self.device)
        for rows in torch.from_numpy(sides[0].data.index).split(self.batch_size):
            yield _batch([side.at(rows) for side in sides])


class _Order:
    """Rows of a data set, permutation after permutation without end.

    With ``weights`` each of N draws has every example as often as its weight says, rounded up or
    down (systematic resampling), in a random order; equal weights give permutations.

    Args:
        device: where the rows are; they are drawn on the CPU, the same wherever they go.
    """

    def __init__(self, data: Dataset, seed: int, purpose: str, device: torch.device) -> None:
        self.rows, self.n, self.seed, self.purpose = data.rows, len(data), seed, purpose
        self.device = device
        self.weights: Tensor | None = None
        self.permutation = lru_cache(maxsize=2)(self._permutation)

    def at(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` … ``stop`` of the endless sequence."""
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.n)
            parts.append(self.permutation(epoch)[offset:offset + stop - start])
            start += len(parts[-1])
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self.seed, self.purpose, epoch))
        order = torch.randperm(self.n, generator=generator)
        if self.weights is not None:
            order = systematic(self.weights, generator)[order]
        rows = order if self.rows is None else torch.from_numpy(self.rows)[order]
        return moved(rows, self.device)


def systematic(weights: Tensor, generator: torch.Generator) -> Tensor:
    """N positions 0 … N−1, ascending, example i ⌊N w_i/Σw⌋ or ⌈N w_i/Σw⌉ times (Kitagawa 1996)."""
    n = len(weights)
    reach = weights.double().cumsum(0)
    places = (torch.arange(n, dtype=torch.float64) + torch.rand(
        1, generator=generator, dtype=torch.float64)) * (reach[-1] / n)
    return torch.searchsorted(reach, places, right=True).clamp_(max=n - 1)


class PinnedBuffers:
    """Two buffers of pinned memory for every array, from which a GPU copies by itself. Before one
    is filled anew the copy of two batches ago must have been made: so far the host is ahead."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.buffers: dict[int, Iterator[tuple[Tensor, Any]]] = {}

    def to_device(self, column: Tensor, rows: Tensor, device: torch.device) -> Tensor:
        """These rows of an array."""
        if column.data_ptr() not in self.buffers:
            self.buffers[column.data_ptr()] = cycle([
                (torch.empty((self.batch_size, *column.shape[1:]), dtype=column.dtype,
                             pin_memory=True), torch.cuda.Event()) for _ in range(2)])
        buffer, copied = next(self.buffers[column.data_ptr()])
        copied.synchronize()
        part = torch.index_select(column, 0, rows, out=buffer[:len(rows)])
        result = part.to(device, non_blocking=True)
        copied.record()
        return result


class _Side:
    """The arrays of a data set as tensors over the same memory, batches of them on a device."""

    pinned: PinnedBuffers | None = None

    def __init__(self, data: Dataset, device: torch.device) -> None:
        self.data, self.device = data, device
        self.x, self.label, self.neighbours = map(_tensor, (data.x, data.label, data.neighbours))

    @property
    def nbytes(self) -> int:
        """Of all arrays, as they are stored."""
        return sum(v.nbytes for v in (self.x, self.label, self.neighbours) if v is not None)

    def move(self) -> None:
        """Take all arrays to the device."""
        self.x, self.label, self.neighbours = (
            None if v is None else v.to(self.device)
            for v in (self.x, self.label, self.neighbours))

    def at(self, rows: Tensor, near: bool = False) -> Batch:
        """The batch of these rows; if ``near``, with the neighbours in time of frames."""
        near = near and self.neighbours is not None
        return Batch(
            self._units(rows), index=rows,
            label=None if self.label is None else self._moved(self.label, rows),
            neighbour=self._units(self.neighbours.index_select(0, rows)) if near else None)

    def _units(self, rows: Tensor) -> Tensor:
        """Examples are moved as they are stored, and converted to model units on the device."""
        x = self._moved(self.x, rows)
        units: Tensor = self.data.space.to_model(x if x.dtype == torch.float64 else x.float())
        return units

    def _moved(self, column: Tensor, rows: Tensor) -> Tensor:
        if self.pinned is not None:
            return self.pinned.to_device(column, rows, self.device)
        return column.index_select(0, rows).to(self.device, non_blocking=True)


def _sides_of(data: Data, device: torch.device) -> list[_Side]:
    sides = [data] if isinstance(data, Dataset) else [data.a, data.b]
    return [_Side(side, device) for side in sides]


def _batch(sides: list[Batch]) -> Batch | PairBatch:
    return PairBatch(*sides) if len(sides) == 2 else sides[0]


def _tensor(array: NDArray[Any] | None) -> Any:
    """Memory maps are opened copy-on-write, so none is copied."""
    if array is None:
        return None
    if array.dtype == np.uint16:  # torch has no gather for uint16
        array = array.astype(np.int32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
