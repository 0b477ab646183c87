"""Arrays in files that nobody vouches for: what a header claims is compared with the bytes that are
there and with the memory that is free before anything is allocated, the bytes are read to their end
(where checksums are), and the error of any library becomes a :class:`DataError` of one line.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, LatlasError, say_number, say_option
from latlas.data import dataset

CLIPS = 5  # axes of an array that can only be one of clips with channels
#: bytes that deflate makes of one at most
DEFLATE = 1032
#: what unpacks to more than this in memory, and to so many times its size, is refused
BOMB, BOMB_RATIO = 1 << 28, 100
COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
MOST_LETTERS = 150  # of another library's message
Header = tuple[tuple[int, ...], bool, np.dtype[Any]]  # shape, column order, type


@dataclass
class Array:
    """An array (N, ...) that can be read in pieces (n, ...), in order."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: Callable[[], Iterator[NDArray[Any]]]

    def whole(self) -> NDArray[Any]:
        """All of it, for labels and the like."""
        if not self.shape:
            raise DataError(f"{self.name} is a single value, not an array")
        claim(self.size, self.name)
        return np.concatenate(list(self.pieces()))

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def frames(self) -> Array:
        """Clips (N, t, ...) as frames (N · t, ...)."""
        if not 4 <= len(self.shape) <= CLIPS:
            raise DataError(f"{self.name} holds examples of shape {self.shape[1:]}, not clips: "
                            f"{say_option('frames', 'true')} wants (n, t, H, W), (n, t, H, W, C) "
                            "or (n, t, C, H, W)")
        shape = self.shape[0] * self.shape[1], *self.shape[2:]
        return replace(self, shape=shape, pieces=lambda: (
            piece.reshape(-1, *shape[1:]) for piece in self.pieces()))


@contextmanager
def readable(name: Any, cannot: str = "cannot be read") -> Iterator[None]:
    """Any error but latlas's own as one line that names the file and says what it is not."""
    try:
        yield
    except (LatlasError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except OSError as error:
        raise DataError(f"{error.filename or name} {cannot}: "
                        f"{error.strerror or _line(error)}") from error
    except MemoryError as error:
        raise DataError(f"{name} {cannot}: it takes more memory than is free "
                        f"({say_size(dataset.available_memory())})") from error
    except BaseException as error:  # zlib, zipfile, scipy, ... and polars' panics, no Exceptions
        raise DataError(f"{name} {cannot}: {_line(error)}") from error


@contextmanager
def without_panics() -> Iterator[None]:
    """What is written to the standard error meanwhile comes after it, or not at all where an error
    is raised: polars writes pages of Rust before it raises one."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as page:
        os.dup2(page.fileno(), 2)
        try:
            yield
        except BaseException:
            page.truncate(0)
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
            page.seek(0)
            os.write(2, page.read())


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} ..."
    return f"{text} ({type(error).__name__})" if text else type(error).__name__


def say_size(size: float) -> str:
    """Bytes for people.

    >>> say_size(4_400_000_000), say_size(1200), say_size(12)
    ('4.4 GB', '1.2 kB', '12 bytes')
    """
    for unit, value in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= value:
            return f"{say_number(size / value)} {unit}"
    return f"{say_number(size)} bytes"


def claim(size: int, name: Any, *, free: int | None = None,
          way_out: str = "read less of it, or on a larger machine",
          error: Callable[[str], LatlasError] = DataError) -> None:
    """An ``error`` if so many bytes are more than are ``free``, by default of all memory; it says
    that ``name`` takes them, and the way out."""
    free = dataset.available_memory() if free is None else free
    if size > free:
        raise error(f"{name} takes {say_size(size)} of memory, and {say_size(free)} are free; "
                    f"{way_out}")


def claim_unpacked(size: int, packed: int, name: Any) -> None:
    """DataError if so many bytes, unpacked from so few, are too many or absurdly many more."""
    if size > BOMB and size > BOMB_RATIO * packed:
        raise DataError(f"{name} unpacks to {say_size(size)} from {say_size(packed)}; if that is "
                        "right, unpack it and give the file itself")
    claim(size, name)


def claim_file(path: Path) -> None:
    """DataError for a file that is read into memory and does not fit there, unpacked if it is
    compressed."""
    size, opener = path.stat().st_size, COMPRESSED.get(path.suffix.lower())
    claim(size, path)
    if opener is None or size > BOMB:
        return
    total, most = 0, min(max(BOMB, BOMB_RATIO * size), dataset.available_memory())
    with opener(path, "rb") as stream:
        while total <= most and (piece := stream.read(1 << 20)):
            total += len(piece)
    claim_unpacked(total, size, path)


def read_member(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    """One file of a zip, in memory."""
    with readable(name):
        info = archive.getinfo(member)
        claim_unpacked(info.file_size, info.compress_size, name)
        return archive.read(info)


def regular(path: Path) -> Path:
    """The path; DataError for a pipe, a socket or a device, which would hang or never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path} is not a regular file (a pipe or a device); save it as a file "
                        "first")
    return path


def in_memory(array: NDArray[Any], name: str = "array") -> Array:
    return Array(name, array.shape, array.dtype, lambda: dataset.chunks(array))


def in_file(opener: Callable[[], Any], name: str, most: int,
            header: Callable[[IO[bytes], str], Header]) -> Array:
    """An array in a file of ``most`` bytes or fewer: ``opener`` gives its stream, whose start
    ``header`` reads, and which must end where the array does."""
    with readable(name), opener() as stream:
        shape, column_order, dtype = header(stream, name)
        most -= stream.tell()
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or (size and dtype.itemsize == 0):
        raise DataError(f"{name} is damaged: its header claims the shape {shape}")
    if size > most and not dtype.hasobject:
        raise DataError(f"{name} is truncated: its header claims {shape} of {dtype}, "
                        f"{say_size(size)}, and there are {say_size(max(most, 0))} at most")

    def read(stream: IO[bytes], shape: tuple[int, ...]) -> NDArray[Any]:
        size = math.prod(shape) * dtype.itemsize
        data = read_exactly(stream, size, name) if size else b""
        return np.frombuffer(data, dtype).reshape(shape) if size else np.empty(shape, dtype)

    def pieces() -> Iterator[NDArray[Any]]:
        refuse_objects(dtype, name)
        with opener() as stream:
            header(stream, name)
            if column_order:
                claim(size, name)
                yield from dataset.chunks(read(stream, shape[::-1]).T)
            else:
                step, rows = dataset.chunk_rows(shape, dtype), shape[0] if shape else 1
                for start in range(0, max(rows, 1), step):
                    yield read(stream, (min(step, rows - start), *shape[1:]))
            with readable(name, "is damaged"):
                more = stream.read(1)  # at whose end the checksum is looked at
            if more:
                raise DataError(f"{name} is damaged: it goes on after the array of its header, "
                                f"{shape} of {dtype}")

    return Array(name, shape, dtype, pieces)


def refuse_objects(dtype: np.dtype[Any], name: str) -> None:
    if dtype.hasobject:
        raise DataError(f"{name} holds Python objects, which are never loaded; save it as an "
                        "array of numbers or of words (x.astype(str))")


def read_exactly(stream: IO[bytes], size: int, name: str) -> bytes:
    with readable(name, "is damaged"):
        data = stream.read(size)
    if len(data) != size:
        raise DataError(f"{name} is truncated")
    return data


def npy_header(stream: IO[bytes], name: str) -> Header:
    with readable(name, "cannot be read as .npy"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers by Python 2
        if np.lib.format.read_magic(stream) == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        return np.lib.format.read_array_header_2_0(stream)


def in_npy(path: Path) -> Array:
    """The array of a ``.npy`` file."""
    return in_file(lambda: path.open("rb"), str(path), path.stat().st_size, npy_header)


def in_zip(path: Path | IO[bytes], key: str, name: str) -> Array:
    """The array ``key`` of an ``.npz``."""
    @contextmanager
    def opener() -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            yield stream

    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    most = DEFLATE * (info.compress_size + 1) if deflated else info.file_size
    return in_file(opener, f"{name}: {key}", min(most, info.file_size), npy_header)
