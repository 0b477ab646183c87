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
    """Train, and of each held-out split about that share, by the keys of the rows."""
    levels, place, sizes = np.unique(keys[rows], return_inverse=True, return_counts=True)
    if not grouped and len(levels) < min(ENOUGH, len(rows) / 2):
        # few kinds of rows that come again and again: each time is an example of its own
        order = np.argsort(place.reshape(-1), kind="stable")
        time = np.empty(len(rows), np.uint64)
        time[order] = np.concatenate([np.arange(size, dtype=np.uint64) for size in sizes])
        levels, place, sizes = np.unique(mix(keys[rows] + mix(time)), return_inverse=True,
                                         return_counts=True)
    large = sizes > max(1.0, LARGE_GROUP * len(rows)) if grouped else np.zeros(len(sizes), bool)
    which = np.zeros(len(levels), np.int64)  # 0: train
    if len(levels) - large.sum() >= ENOUGH:
        at = levels / 2.0**64
        low = 0.0
        for i, share in enumerate(held_out.values(), 1):
            which[(at >= low) & (at < low + share) & ~large] = i
            low += share
    else:  # levels ascend: those with the smallest keys are held out, large ones last
        order = np.concatenate([np.flatnonzero(~large), np.flatnonzero(large)])
        next_, spare = 0, len(levels) - 1
        for i, share in enumerate(held_out.values(), 1):
            wanted, count = max(1, round(share * len(rows))), 0
            left = len(held_out) - i  # of which each needs a group too
            while count < wanted and next_ < spare - left:
                if count and (count + sizes[order[next_]] > wanted or large[order[next_]]):
                    break
                which[order[next_]] = i
                count += sizes[order[next_]]
                next_ += 1
    of_row = which[place.reshape(-1)]
    return {name: rows[of_row == i] for i, name in enumerate(("train", *held_out))}
