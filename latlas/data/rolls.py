"""Arrays of clips, (n, t, H, W) or with channels before or after H and W, as arrays of frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.data.arrays import Reader
from latlas.data.dataset import Dataset
from latlas.data.source import Rows

#: axes of an array that can only be one of clips with channels
CLIPS = 5


class Unrolled:
    """A reader of clips (n, t, ...) as one of frames (n · t, ...)."""

    def __init__(self, reader: Reader) -> None:
        n, self.length = reader.shape[:2]
        self.reader, self.name, self.dtype = reader, reader.name, reader.dtype
        self.shape: tuple[int, ...] = (n * self.length, *reader.shape[2:])

    def chunks(self) -> Iterator[NDArray[Any]]:
        for chunk in self.reader.chunks():
            yield chunk.reshape(-1, *chunk.shape[2:])


def unrolled(readers: Sequence[Reader], frames: bool | None) -> tuple[list[Reader], Rows | None]:
    """Readers of frames, and the number of the clip that each frame is of; of anything but clips
    the same readers, and ``None``.

    Raises:
        DataError: clips are asked for, and an array has no axis for them.
    """
    if not frames and not all(len(reader.shape) == CLIPS for reader in readers):
        return list(readers), None
    for reader in readers:
        if not CLIPS - 1 <= len(reader.shape) <= CLIPS:
            raise DataError(f"{reader.name} holds items of shape {reader.shape[1:]}, not clips: "
                            "frames=true wants (n, t, H, W), (n, t, H, W, C) or (n, t, C, H, W)")
    parts = [Unrolled(reader) for reader in readers]
    lengths = np.concatenate([np.full(part.reader.shape[0], part.length) for part in parts])
    return list(parts), np.repeat(np.arange(len(lengths)), lengths)


def in_clips(data: Dataset, clip: Rows | None, rate: float = 10.0) -> Dataset:
    """Frames with the clips they are of; labels (and names) of clips become those of frames."""
    if clip is None:
        return data
    place = np.arange(len(clip)) - np.searchsorted(clip, clip)
    names = np.array([f"{c:05d}/{i:05d}" for c, i in zip(clip, place, strict=True)])
    label = None if data.label is None else data.label[clip]
    return replace(data, label=label, group=clip, names=names, clip=clip,
                   duration=np.full(len(clip), 1000 / rate, np.float32),
                   space=replace(data.space, frames=bool(place.any())))
