"""Checks and pairwise distances that the metrics share."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError

Array = NDArray[Any]
Float = NDArray[np.float64]
Index = NDArray[np.int64]

# One block of distances is at most ROWS × COLUMNS × 8 bytes = 64 MiB.
ROWS, COLUMNS = 2048, 4096
# Below this share of |a|² + |b|² a squared distance is rounding error: the two are one point.
SAME = 1e-12


def matrix(values: Array, what: str, least: int = 2) -> Array:
    """``values`` as (n, d) finite floats with n ≥ ``least``; integers become float64. Else a
    DataError, in which ``what`` names them."""
    array = np.asarray(values)
    array = array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
    if array.ndim != 2 or len(array) < least or array.shape[1] == 0:
        raise DataError(f"{what}: need (n ≥ {least}, d ≥ 1) numbers, got shape {array.shape}")
    bad = int((~np.isfinite(array).all(1)).sum())
    if bad:
        raise DataError(f"{what}: {bad} of {len(array)} examples hold NaN or infinity; leave "
                        "them out")
    return array


def pair(a: Array, b: Array, names: tuple[str, str], least: int = 2) -> tuple[Array, Array]:
    """Two matrices of equal width, checked by :func:`matrix`."""
    a, b = matrix(a, names[0], least), matrix(b, names[1], least)
    if a.shape[1] != b.shape[1]:
        raise DataError(f"{names[0]} has {a.shape[1]} columns and {names[1]} {b.shape[1]}: "
                        "compute both with the same features")
    return a, b


def blocks(a: Array, b: Array) -> Iterator[tuple[slice, slice, Float]]:
    """Squared Euclidean distances of (n, d) to (m, d), block by block, in float64.

    Yields (rows of a, rows of b, their (r, c) squared distances), row blocks outermost. Both sides
    are centred on b's mean first, which keeps |a|² + |b|² − 2ab accurate far from the origin.
    """
    centre = b.mean(0, dtype=np.float64)
    for i in range(0, len(a), ROWS):
        rows = slice(i, min(i + ROWS, len(a)))
        x = a[rows] - centre
        for j in range(0, len(b), COLUMNS):
            columns = slice(j, min(j + COLUMNS, len(b)))
            y = b[columns] - centre
            scale = np.square(x).sum(1)[:, None] + np.square(y).sum(1)
            square: Float = scale - 2 * (x @ y.T)
            square[square < SAME * scale] = 0
            yield rows, columns, square


def nearest(queries: Array, reference: Array, k: int = 1, *,
            skip_self: bool = False) -> tuple[Float, Index]:
    """The k nearest rows of ``reference`` (m, d) for each query (n, d): Euclidean distances (n, k),
    ascending, and row numbers (n, k).

    Of equal distances the lower row wins when k = 1. Copies are at distance exactly 0. DataError
    for fewer than k neighbours to be had.

    Args:
        skip_self: the two arrays are the same one, and an example is not its own neighbour.
    """
    if len(reference) - skip_self < k:
        raise DataError(f"{k} nearest neighbours need more than {len(reference)} examples")
    square = np.full((len(queries), k), np.inf)
    index = np.zeros((len(queries), k), np.int64)
    for rows, columns, block in blocks(queries, reference):
        if skip_self:
            same = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
            block[same - rows.start, same - columns.start] = np.inf
        # the k best of those so far and of this block
        best = (block.argmin(1)[:, None] if k == 1 else
                np.argpartition(block, min(k, block.shape[1]) - 1, axis=1)[:, :k])
        values = np.concatenate([square[rows], np.take_along_axis(block, best, 1)], 1)
        numbers = np.concatenate([index[rows], best + columns.start], 1)
        order = values.argsort(1, kind="stable")[:, :k]
        square[rows] = np.take_along_axis(values, order, 1)
        index[rows] = np.take_along_axis(numbers, order, 1)
    return np.sqrt(square), index
