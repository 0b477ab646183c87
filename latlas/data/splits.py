"""Hashes of what examples hold, and splits by them."""

from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE_GROUP = 0.05
#: contents or groups from which the hash alone decides the split
ENOUGH = 200


def hash_rows(x: NDArray[Any]) -> NDArray[np.uint64]:
    """(n,) a hash of the bytes of each row, equal for equal rows on any machine.

    Numbers that are no 8 or 16-bit levels are hashed as float64, so that it does not matter in
    which type a file holds them.
    """
    flat = np.ascontiguousarray(x).reshape(len(x), -1)
    if flat.dtype.kind == "f" or flat.dtype.itemsize > 2:
        flat = flat.astype(np.float64) + 0.0
        flat[np.isnan(flat)] = np.nan
    width = flat.shape[1] * flat.dtype.itemsize
    padded = np.zeros((len(flat), -(-width // 8) * 8), np.uint8)
    padded[:, :width] = flat.view(np.uint8).reshape(len(flat), width)
    words = padded.view("<u8")
    factors = mix(np.arange(1, words.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
    with np.errstate(over="ignore"):
        return mix((mix(words) * factors).sum(axis=1, dtype=np.uint64) ^ np.uint64(width))


@cache
def hash_of(word: str) -> int:
    """A number of 64 bits for a word, the same on any machine."""
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(),
                          "little")


def mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), which spreads every bit."""
    with np.errstate(over="ignore"):
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))


def divide(rows: NDArray[np.int64], keys: NDArray[np.uint64], grouped: bool,
           held_out: Mapping[str, float]) -> dict[str, NDArray[np.int64]]:
    """Train, and of each held-out split about that share, by the keys of the rows. Groups of more
    than a twentieth of the rows go to train."""
    levels, place, sizes = np.unique(keys[rows], return_inverse=True, return_counts=True)
    if not grouped and len(levels) < min(ENOUGH, len(rows) / 2):
        # few kinds of rows that come again and again: each time is an example of its own
        order = np.argsort(place, kind="stable")
        time = np.empty(len(rows), np.uint64)
        time[order] = np.concatenate([np.arange(size, dtype=np.uint64) for size in sizes])
        levels, place, sizes = np.unique(mix(keys[rows] + mix(time)), return_inverse=True,
                                         return_counts=True)
    large = sizes > max(1.0, LARGE_GROUP * len(rows)) if grouped else np.zeros(len(sizes), bool)
    if len(levels) - large.sum() < ENOUGH:  # the smallest keys are held out, large groups last
        which = _hold_out(np.argsort(large, kind="stable"), sizes, large, held_out)
    else:
        bounds = np.cumsum(list(held_out.values()))
        which = np.searchsorted(bounds, levels / 2.0**64, side="right") + 1
        which[large | (which > len(bounds))] = 0
    return {name: rows[which[place] == i] for i, name in enumerate(("train", *held_out))}


def divide_in_order(rows: NDArray[np.int64], ranks: NDArray[np.int64],
                    held_out: Mapping[str, float]) -> dict[str, NDArray[np.int64]]:
    """Train, and after it of each held-out split, in this order, about that share; equal ranks are
    in one split."""
    last_first = list(held_out.items())[::-1]
    levels, place, sizes = np.unique(ranks[rows], return_inverse=True, return_counts=True)
    which = _hold_out(np.arange(len(levels))[::-1], sizes, np.zeros(len(levels), bool),
                      dict(last_first[:len(levels) - 1]))  # of two levels one is the last split's
    return {name: rows[which[place] == i]
            for i, name in enumerate(("train", *(name for name, _ in last_first)))}


def _hold_out(order: NDArray[np.int64], sizes: NDArray[np.int64], large: NDArray[np.bool_],
              held_out: Mapping[str, float]) -> NDArray[np.int64]:
    """(levels,) the split of each level, 0 of train: levels are held out in this order until a
    split has its share. Each split has one, train too, where there are so many, and none takes a
    level that is too much for it after its first."""
    which, total, position = np.zeros(len(order), np.int64), sizes.sum(), 0
    for i, share in enumerate(held_out.values(), 1):
        goal, count, reserved = max(1, round(share * total)), 0, len(held_out) - i + 1
        while count < goal and position < len(order) - reserved:
            level = order[position]
            if count and (count + sizes[level] > goal or large[level]):
                break
            which[level] = i
            count += sizes[level]
            position += 1
    return which
