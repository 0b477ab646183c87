"""Maps of classes: one id per pixel in the file, one channel per class for a model.

A class that a pixel belongs to is 255 there, all others 0, so that a model sees 1 and −1.
``Space.ids`` keeps the number that each channel has in the file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, unknown
from latlas.core.space import Space
from latlas.data.arrays import ArrayReader, Options, Reader, load
from latlas.data.resize import nearest_planes
from latlas.data.store import Store

MOST, ON = 256, 255


def one_hot(ids: NDArray[Any], store: Store, known: str | None, name: str) -> tuple[
        NDArray[np.uint8], Space]:
    """Ids (N, 1, H, W) as channels (N, K, H, W) of 0 and 255, in the order of the ids.

    Args:
        known: the ids of the channels, commas between; ``None`` for those that occur.

    Raises:
        DataError: no whole numbers from 0 on, more than 256 of them, or one that is not known.
    """
    found = _found(ids, name)
    table = found if known is None else _parsed(known)
    strange = np.setdiff1d(found, table)
    if len(strange):
        raise DataError(f"{name} holds the class id {strange[0]}, which is none of ids={known}")
    if len(table) > MOST:
        raise DataError(f"{name} holds {len(table):,} different class ids, at most {MOST} are "
                        "taken; is it a picture rather than a map? Then leave out maps=")
    out, done = store.allocate((len(ids), len(table), *ids.shape[2:]), np.uint8), 0
    for part in ArrayReader(ids).chunks():
        np.multiply(part == table[:, None, None].astype(ids.dtype), np.uint8(ON),
                    out=out[done:done + len(part)])
        done += len(part)
        store.done(done, len(ids))
    return out, Space.picture(out.shape[1:], ids=tuple(table.tolist()))


def load_side(readers: list[Reader], store: Store, options: Options, maps: bool = False,
              ids: str | None = None) -> tuple[NDArray[Any], Space]:
    """:func:`latlas.data.arrays.load`, of maps of classes if they are some."""
    if not maps:
        return load(readers, store, options)
    x, _ = load(readers, Store(), replace(options, image_size=None, levels=None))
    size, name = options.image_size, readers[0].name
    return one_hot(x if size is None or x.ndim != 4 else nearest_planes(x, size), store, ids, name)


def first_is_map(direction: str | None, maps: str | None) -> bool:
    """Whether the side that is read as ``x`` holds class ids.

    Raises:
        DataError: an option that is neither.
    """
    if direction not in (None, "AtoB", "BtoA"):
        raise DataError(unknown("direction", str(direction), ["AtoB", "BtoA"]))
    if maps not in (None, "A", "B"):
        raise DataError(unknown("maps", str(maps), ["A", "B"]))
    return maps == ("B" if direction == "BtoA" else "A")


def to_ids(x: NDArray[Any], space: Space) -> NDArray[Any]:
    """Channels (n, K, H, W), of any numbers, as ids (n, H, W) of the likeliest class."""
    kind = np.uint8 if max(space.ids, default=0) < 256 else np.uint16
    return np.array(space.ids, kind)[x.argmax(axis=1)]


def _found(ids: NDArray[Any], name: str) -> NDArray[np.int64]:
    if ids.ndim != 4 or ids.shape[1] != 1:
        raise DataError(f"{name} holds items of shape {ids.shape[1:]}; a map of classes has one "
                        "id per pixel (N, H, W)")
    found = np.unique(np.concatenate([np.unique(part) for part in ArrayReader(ids).chunks()]))
    if not np.array_equal(found, np.rint(found)) or found[0] < 0 or found[-1] > 65535:
        raise DataError(f"{name} holds numbers from {found[0]:g} to {found[-1]:g}, not class ids; "
                        "number the classes 0, 1, 2, …, or leave out maps=")
    return found.astype(np.int64)


def _parsed(text: str) -> NDArray[np.int64]:
    try:
        return np.unique([int(part) for part in text.split(",")])
    except ValueError:
        raise DataError(f"ids={text!r} is no list of class ids; write it as 0,1,2") from None
