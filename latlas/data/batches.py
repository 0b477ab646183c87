"""Batches by number: batch k is a function of (seed, k), so a resumed run needs no order saved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.noise import derive
from latlas.data.dataset import Dataset


class Batches:
    """An endless stream of shuffled batches over one data set.

    The stream is permutation after permutation, cut into batches of ``batch_size``; a batch may
    straddle two permutations, so every item is seen equally often for any batch size. The other
    side of pairs follows the same rows; another domain has a stream of its own permutations.

    Args:
        batch_size: items of the global batch; each of ``world`` processes takes its share.
        seed: with the batch number decides the items.
        rank, world: this process and how many share the batch.
    """

    def __init__(self, data: Dataset, batch_size: int, seed: int = 0, *,
                 device: torch.device | str = "cpu", rank: int = 0, world: int = 1) -> None:
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.share = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self.device = torch.device(device)
        self._columns = _tensors(data)
        near = {"neighbour": data.neighbours,
                "target_neighbour": None if data.other is None else data.other.neighbours}
        self._beside = {k: torch.from_numpy(v) for k, v in near.items() if v is not None}
        self._rows = _Shuffled(data, seed, "order")
        unpaired = data.other is not None and not data.paired
        self._others = _Shuffled(data.other, seed, "order of the other side") if (
            data.other is not None and unpaired) else None

    def reweigh(self, weights: Tensor | None) -> None:
        """From now on items come as often as these weights say, (N,); ``None``: equally often.

        Batch k is then a function of (seed, k, weights), the same on every process.
        """
        self._rows.reweigh(weights)

    def at(self, number: int) -> Batch:
        """Batch ``number`` (from 0), this process's share of it."""
        first = number * self.batch_size
        place = first + self.share.start, first + self.share.stop
        rows, others = self._rows.at(*place), None if self._others is None else self._others.at(
            *place)
        return self._near(gather(self._columns, self.data, rows, self.device, others),
                          rows, rows if others is None else others)

    def _near(self, batch: Batch, rows: Tensor, others: Tensor) -> Batch:
        """With the neighbours in time of what are frames."""
        for field, key, side, which in (("neighbour", "x", self.data, rows),
                                        ("target_neighbour", "target", self.data.other, others)):
            if side is not None and field in self._beside:
                near = self._beside[field].index_select(0, which)
                setattr(batch, field, _moved(self._columns[key], side, near, self.device))
        return batch


class _Shuffled:
    """Rows of a data set, permutation after permutation without end.

    With weights each of N draws has every item as often as its weight says, rounded up or down
    (systematic resampling), in a random order; equal weights give permutations.
    """

    def __init__(self, data: Dataset, seed: int, purpose: str) -> None:
        self.rows, self.n, self.seed, self.purpose = data.rows, len(data), seed, purpose
        self.weights: Tensor | None = None
        self._order = lru_cache(maxsize=2)(self._permutation)

    def reweigh(self, weights: Tensor | None) -> None:
        """Take other weights, (N,), for all that comes."""
        self.weights = weights
        self._order.cache_clear()

    def at(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` … ``stop`` of the endless sequence."""
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.n)
            parts.append(self._order(epoch)[offset:offset + stop - start])
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self.seed, self.purpose, epoch))
        order = torch.randperm(self.n, generator=generator)
        if self.weights is not None:
            order = systematic(self.weights, generator)[order]
        return order if self.rows is None else torch.from_numpy(self.rows)[order]


def systematic(weights: Tensor, generator: torch.Generator) -> Tensor:
    """N positions 0 … N−1, ascending, item i ⌊N w_i/Σw⌋ or ⌈N w_i/Σw⌉ times (Kitagawa 1996)."""
    n = len(weights)
    reach = weights.double().cumsum(0)
    places = (torch.arange(n, dtype=torch.float64) + torch.rand(
        1, generator=generator, dtype=torch.float64)) * (reach[-1] / n)
    return torch.searchsorted(reach, places, right=True).clamp_(max=n - 1)


class Sweep:
    """The items once, in order, in batches; may be swept again.

    Pairs come with their other side; of two domains the other is left out.
    """

    def __init__(self, data: Dataset, batch_size: int = 512,
                 device: torch.device | str = "cpu") -> None:
        self.data, self.batch_size, self.device = data, batch_size, torch.device(device)

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        columns = _tensors(self.data)
        rows = self.data.rows
        every = torch.arange(len(self.data)) if rows is None else torch.from_numpy(rows)
        for part in every.split(self.batch_size):
            yield gather(columns, self.data, part, self.device)


def gather(columns: dict[str, Tensor], data: Dataset, rows: Tensor, device: torch.device,
           others: Tensor | None = None) -> Batch:
    """The batch of these rows, moved to the device as stored, converted to model units there.

    Args:
        others: rows of another domain; the other side of pairs has the same as ``rows``.
    """
    others = rows if others is None and data.paired else others
    taken = {k: v.index_select(0, rows).to(device, non_blocking=True)
             for k, v in columns.items() if k not in ("x", "target")}
    x = _moved(columns["x"], data, rows, device)
    if data.other is None or others is None:
        return Batch(x=x, index=rows, **taken)
    target = _moved(columns["target"], data.other, others, device)
    return Batch(x=x, index=rows, target=target, **taken)


def _moved(column: Tensor, data: Dataset, rows: Tensor, device: torch.device) -> Tensor:
    """Items of these rows in model units, on the device."""
    items = column.index_select(0, rows).to(device, non_blocking=True)
    moved: Tensor = data.space.to_model(items.float())
    return moved


def _tensors(data: Dataset) -> dict[str, Tensor]:
    arrays = {"x": data.x, "label": data.label, "factors": data.factors,
              "target": None if data.other is None else data.other.x}
    return {k: _tensor(v) for k, v in arrays.items() if v is not None}


def _tensor(array: NDArray[np.generic]) -> Tensor:
    """A tensor over the same memory. Memory maps are opened copy-on-write, so none is copied."""
    if array.dtype == np.uint16:  # torch has no gather for uint16
        array = array.astype(np.int32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
