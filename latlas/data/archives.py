"""Names and bytes of what lies in a folder, a zip, a tar, or a list of files.

Names have ``/`` between folders, also those of a zip made on Windows. Links to folders are
followed.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from latlas.core.errors import DataError

#: how a compressed tar is opened
TARS: dict[str, Any] = {".tar": None, ".tar.gz": gzip.open, ".tgz": gzip.open,
                        ".tar.bz2": bz2.open, ".tbz2": bz2.open, ".tar.xz": lzma.open,
                        ".txz": lzma.open}
MOST_BYTES = 1 << 30  # of one member of an archive
MOST_RATIO, PIECE = 200, 1 << 20  # how far a tar may expand
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError,
          RuntimeError, NotImplementedError, gzip.BadGzipFile)


def tar_ending(path: Path) -> str:
    """The ending by which a file is a tar; empty if it is none."""
    return next((end for end in TARS if path.name.lower().endswith(end)), "")


def walk(root: str, below: str = "", around: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Names of all that is no folder below a folder, sorted folder by folder. A link back to a
    folder around it is not followed."""
    about = Path(root).stat()
    if (about.st_dev, about.st_ino) in around:
        return
    with os.scandir(root) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir():
            yield from walk(entry.path, f"{below}{entry.name}/",
                            (*around, (about.st_dev, about.st_ino)))
        else:
            yield below + entry.name


class Folder:
    """What is below a folder; ``skipped`` says how many names are no files that can be read."""

    packed = False

    def __init__(self, root: Path) -> None:
        every = list(walk(str(root)))
        self.root, self.names = root, [n for n in every if (root / n).is_file()]
        self.skipped = {"links to nothing, or no files": len(every) - len(self.names)}

    def read(self, name: str) -> bytes:
        """The bytes of one file; may be called from any thread."""
        return (self.root / name).read_bytes()

    def has_folder(self, name: str) -> bool:
        """Whether there is such a folder, be it empty."""
        return (self.root / name).is_dir()


class Listed(Folder):
    """Files that were named one by one, in that order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.root = Path(os.path.commonpath([p.parent for p in paths]))
        self.names = [p.relative_to(self.root).as_posix() for p in paths]
        self.skipped = {}


class Zip:
    """The members of a zip."""

    packed = True

    def __init__(self, path: Path) -> None:
        self.root = path
        try:
            self.archive = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise DataError(f"{path} cannot be read as a zip: {error}") from None
        every = [(i.filename.replace("\\", "/"), i) for i in self.archive.infolist()]
        self.members = {name: info for name, info in every if not name.endswith("/")}
        self.names = list(self.members)
        self.folders = {name for name, _ in every}
        files = sum(not name.endswith("/") for name, _ in every)
        self.skipped = {"of a name that comes again": files - len(self.members)}

    def read(self, name: str) -> bytes:
        """The bytes of one member; may be called from any thread."""
        info = self.members[name]
        _check_size(self.root, name, info.file_size)
        try:
            return self.archive.read(info)
        except DAMAGE as error:
            raise DataError(f"{self.root}: {name} cannot be read: {error}") from None

    def has_folder(self, name: str) -> bool:
        """Whether there is such a folder, be it empty."""
        return any(n.startswith(f"{name}/") for n in self.folders)


class Tar:
    """The members of a tar; a compressed one is unpacked to a temporary file first."""

    packed = True

    def __init__(self, path: Path) -> None:
        self.root, self.lock = path, threading.Lock()
        expand = TARS[tar_ending(path)]
        try:
            self.stream: IO[bytes] = path.open("rb") if expand is None else _expanded(path, expand)
            weakref.finalize(self, self.stream.close)
            self.archive = tarfile.open(fileobj=self.stream, mode="r:")  # noqa: SIM115
            every = self.archive.getmembers()
        except DAMAGE as error:
            raise DataError(f"{path} cannot be read as a tar: {error}") from None
        names = [(m.name.removeprefix("./"), m) for m in every if not m.isdir()]
        self.members = {name: m for name, m in names if m.isfile() or m.islnk()}
        self.names = list(self.members)
        self.folders = {f"{m.name.removeprefix('./')}/" for m in every if m.isdir()}
        self.skipped = {"links, or of a name that comes again": len(names) - len(self.members)}

    def read(self, name: str) -> bytes:
        """The bytes of one member; may be called from any thread."""
        member = self.members[name]
        _check_size(self.root, name, member.size)
        try:
            with self.lock:
                file = self.archive.extractfile(member)
                data = b"" if file is None else file.read()
        except (*DAMAGE, KeyError) as error:
            raise DataError(f"{self.root}: {name} cannot be read: {error}") from None
        return data

    def has_folder(self, name: str) -> bool:
        """Whether there is such a folder, be it empty."""
        return any(n.startswith(f"{name}/") for n in (*self.folders, *self.names))


Place = Folder | Zip | Tar


def place_of(path: Path) -> Place:
    """What is in a folder or an archive."""
    if path.is_dir():
        return Folder(path)
    return Tar(path) if tar_ending(path) else Zip(path)


def first_names(path: Path) -> Iterator[str]:
    """Names in a tar one by one, without reading more of it than is asked for."""
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile():
                    yield member.name
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as a tar: {error}") from None


def _expanded(path: Path, expand: Any) -> IO[bytes]:
    """A tar without its compression, in a file that has no name. DataError for one that grows
    beyond what images do."""
    most = MOST_RATIO * path.stat().st_size + MOST_BYTES
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        most = min(most, shutil.disk_usage(tempfile.gettempdir()).free // 2)
        with expand(path, "rb") as source:
            while piece := source.read(PIECE):
                if file.tell() + len(piece) > most:
                    raise DataError(f"{path} unpacks to more than {most / 1e9:.3g} GB; unpack it "
                                    "to a folder, and name that")
                file.write(piece)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _check_size(path: Path, name: str, size: int) -> None:
    if size > MOST_BYTES:
        raise DataError(f"{path}: {name} is of {size / 1e9:.3g} GB, more than an image takes")
