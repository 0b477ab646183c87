"""Maps of classes: one id per pixel in the file, one channel per class for a model.

A class that a pixel belongs to is 255 there, all others 0, so that a model sees 1 and −1.
``Images.ids`` keeps the number that each channel has in the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option
from latlas.core.space import Images, Space
from latlas.data.storage import Store, chunks

MOST, ON = 256, 255


def one_hot(ids: NDArray[Any], store: Store, known: str | None, name: str) -> tuple[
        NDArray[np.uint8], Images]:
    """Ids (N, 1, H, W) as channels (N, K, H, W) of 0 and 255, in the order of the ids.

    Args:
        known: the ids of the channels, commas between; ``None`` for those that occur.

    Raises:
        DataError: no whole numbers from 0 on, more than 256 of them, or one that is not known.
    """
    if ids.ndim != 4 or ids.shape[1] != 1:
        raise DataError(f"{name} holds examples of shape {ids.shape[1:]}; a map of classes has one "
                        "id per pixel (N, H, W)")
    table = np.unique(np.concatenate([np.unique(part) for part in chunks(ids)]))
    if not np.array_equal(table, np.rint(table)) or table[0] < 0 or table[-1] > 65535:
        raise DataError(f"{name} holds numbers from {table[0]:g} to {table[-1]:g}, not class ids; "
                        f"number the classes 0, 1, 2, …, or leave out {say_option('maps')}")
    table = table.astype(np.int64)
    if known is not None:
        occurring = table
        try:
            table = np.unique([int(part) for part in known.split(",")])
        except ValueError:
            raise DataError(f"{say_option('ids', known)} is no list of class ids; write it as "
                            "0,1,2") from None
        strange = np.setdiff1d(occurring, table)
        if len(strange):
            raise DataError(f"{name} holds the class id {strange[0]}, which is none of "
                            f"{say_option('ids', known)}")
    if len(table) > MOST:
        raise DataError(f"{name} holds {len(table):,} different class ids, at most {MOST} are "
                        f"taken; is it an image rather than a map? Then leave out "
                        f"{say_option('maps')}")
    x, row = store.allocate((len(ids), len(table), *ids.shape[2:]), np.uint8), 0
    for part in chunks(ids):
        np.multiply(part == table[:, None, None].astype(ids.dtype), np.uint8(ON),
                    out=x[row:row + len(part)])
        row += len(part)
        store.done(row, len(ids))
    return x, Images(x.shape[1:], ids=tuple(table.tolist()))


def to_ids(x: NDArray[Any], space: Space) -> NDArray[Any]:
    """Channels (n, K, H, W), of any numbers, as ids (n, H, W) of the likeliest class."""
    kind = np.uint8 if max(space.ids, default=0) < 256 else np.uint16
    return np.array(space.ids, kind)[x.argmax(axis=1)]
