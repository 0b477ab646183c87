"""Labels of any type to integer codes and class names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError

MOST_CLASSES = 1000
#: distinct numbers that are kinds of their own; more are cut at their quartiles
MOST_KINDS = 20


def encode_labels(values: Any, where: str, names: tuple[str, ...] = ()) -> tuple[
        NDArray[np.int64], tuple[str, ...]]:
    """Codes (N,) int64 and class names, numbers in numeric order and words in alphabetical order.

    Args:
        values: (N,) numbers or words, (N, 1), or (N, K) one-hot.
        where: what to call the labels in an error.
        names: class names if the source has them; then ``values`` must be indices into it.

    Raises:
        DataError: real-valued labels, missing labels, or more than 1,000 classes.
    """
    values = _flat(np.asarray(values), where)
    if names and values.dtype.kind in "iu" and 0 <= values.min() <= values.max() < len(names):
        return values.astype(np.int64), tuple(names)
    found, codes = np.unique(values, return_inverse=True)
    if len(found) > MOST_CLASSES:
        raise DataError(f"{where} has {len(found):,} distinct values, too many for classes; "
                        "choose another label, or label=none")
    return codes.astype(np.int64), tuple(str(v) for v in found.tolist())


def kinds_of(values: Any, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Codes and names like :func:`encode_labels`; of more than 20 numbers four, by their quartiles.

    Gaps are a kind of their own, the last.

    >>> kinds_of(np.arange(100.0), "column a")[1]
    ('to 24.8', '24.8 to 49.5', '49.5 to 74.2', 'above 74.2')
    >>> kinds_of(np.array(["b", None, "a"]), "column a")[1]
    ('a', 'b', '(missing)')
    """
    array = np.asarray(values)
    gap = np.array([v is None or v != v for v in array.tolist()], bool)
    if not gap.any():
        return _kinds(array, where)
    if gap.all():
        raise DataError(f"{where} holds nothing but gaps: it makes no groups")
    code, names = _kinds(np.array(array[~gap].tolist()), where)
    whole = np.full(len(array), len(names))
    whole[~gap] = code
    return whole, (*names, "(missing)")


def _kinds(array: NDArray[Any], where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where} holds infinite numbers: it makes no groups; choose another")
    found = np.unique(array)
    if array.dtype.kind not in "iuf" or len(found) <= MOST_KINDS:
        words = [f"{v:g}" for v in found] if array.dtype.kind in "iuf" else found
        return np.searchsorted(found, array).astype(np.int64), tuple(str(v) for v in words)
    low, middle, high = np.quantile(array, [0.25, 0.5, 0.75])
    return np.searchsorted([low, middle, high], array).astype(np.int64), (
        f"to {low:.3g}", f"{low:.3g} to {middle:.3g}", f"{middle:.3g} to {high:.3g}",
        f"above {high:.3g}")


def _flat(values: NDArray[Any], where: str) -> NDArray[Any]:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all():
        values = values.argmax(axis=1)
    if values.ndim != 1 or values.dtype.kind not in "buifUS" or not len(values):
        raise DataError(f"{where} holds {values.dtype} of shape {values.shape}, not one label "
                        "per item; choose another label, or label=none")
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace")
    return _whole(values, where) if values.dtype.kind == "f" else values


def _whole(values: NDArray[Any], where: str) -> NDArray[Any]:
    if not np.array_equal(values, np.round(values)):  # NaN is unequal to itself
        raise DataError(f"{where} holds real or missing numbers, not classes; "
                        "choose another label, or label=none")
    return values.astype(np.int64)
