"""Where items are put while they are read: in memory, or in a memory-mapped file.

Every reader asks the store for one array and fills it, so data larger than memory takes the same
path as a small file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from latlas.core.errors import DataError

MEMORY_SHARE = 0.5
SECOND = "second"  # folder of the other side in a packed folder
Progress = Callable[[int, int], None]


class Store:
    """Gives out the array that holds a source's items.

    Args:
        folder: where ``x.npy`` goes if the array is put on disk; ``None`` keeps it in memory.
        share: share of the available memory from which the array goes to disk; 0 always.
        progress: called with (items done, items in all) as the array fills.
    """

    def __init__(self, folder: Path | None = None, share: float = MEMORY_SHARE,
                 progress: Progress | None = None) -> None:
        self.folder, self.share, self.progress = folder, share, progress
        self.mapped = False

    @cached_property
    def second(self) -> Store:
        """Where the other side goes."""
        folder = None if self.folder is None else self.folder / SECOND
        return Store(folder, self.share, self.progress)

    @property
    def on_disk(self) -> bool:
        """The array of either side was put on disk."""
        return self.mapped or ("second" in self.__dict__ and self.second.on_disk)

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of this shape to fill, in memory or on disk by its size."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if self.folder is None or (self.share > 0 and size <= self.share * available_memory()):
            return np.empty(shape, dtype)
        self.mapped = True
        return _on_disk(self.folder, shape, np.dtype(dtype), size)

    def done(self, items: int, of: int) -> None:
        """Tell the progress callback, if there is one."""
        if self.progress is not None:
            self.progress(items, of)


def _on_disk(folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any],
             size: int) -> NDArray[Any]:
    """A memory-mapped ``x.npy`` whose blocks are reserved first: a full disk is an error now."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(folder / "x.npy", "w+", dtype, shape)
        _reserve(folder / "x.npy")
    except OSError as error:
        (folder / "x.npy").unlink(missing_ok=True)
        raise DataError(f"{folder.parent}: cannot write {size / 1e9:.3g} GB of packed data "
                        f"({error.strerror}); free the space or choose another folder "
                        "(LATLAS_CACHE for automatic packing)") from None
    return array


def _reserve(path: Path) -> None:
    """Takes the file's blocks from the disk, where the file system can."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def available_memory() -> int:
    """Bytes that can be allocated now: the kernel's estimate, within the container's limit."""
    found = [_total() // 2]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [int(next(x for x in lines if x.startswith("MemAvailable")).split()[1]) * 1024]
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # the word "max" where there is none
        found.append(limit - int((group / "memory.current").read_text()))
    return max(0, min(found))


def _total() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return 8 << 30
