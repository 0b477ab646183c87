"""The files of a folder or of a zip, read by name from any thread."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from latlas.core.errors import DataError

PICTURES = frozenset({".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
                      ".ppm", ".tga", ".tif", ".tiff", ".webp"})
#: pictures that may have several frames
MAY_MOVE = (".png", ".webp")
#: files that are a whole clip
FILMS = frozenset({".apng", ".gif", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
                   ".webm"})
SOUNDS = frozenset({".wav", ".wave"})


class Files:
    """Names (with ``/``, in sorted order) and contents of all files below a folder or in a zip, or
    of one file that is neither.

    ``pictures`` are the names of the pictures as they lie there, ``shown`` what they are called:
    the same, but for a choice of them made by :meth:`only`.

    Args:
        kinds: endings of what counts as a picture, or as a recording; a file with one of them is
            a place of its own.
    """

    def __init__(self, path: Path, kinds: frozenset[str] = PICTURES) -> None:
        self.path = path
        alone = path.suffix.lower() in kinds and path.is_file()
        self.root = path.parent if alone else path
        self.archive = None if alone or path.is_dir() else zipfile.ZipFile(path)
        self.names = [path.name] if alone else sorted(n for n in self._all() if not _hidden(n))
        self.pictures = [n for n in self.names if PurePosixPath(n).suffix.lower() in kinds]
        self.shown = self.pictures

    def only(self, chosen: Mapping[str, str]) -> Files:
        """The same place with these pictures alone: what each is called, and its name there."""
        part = copy.copy(self)
        part.shown, part.pictures = list(chosen), list(chosen.values())
        return part

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of that name, even an empty one."""
        if self.archive is None:
            return (self.path / name).is_dir()
        return any(n.startswith(f"{name}/") for n in self.archive.namelist())

    def _all(self) -> list[str]:
        if self.archive is not None:
            return [n for n in self.archive.namelist() if not n.endswith("/")]
        return [p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()]

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        if self.archive is None:
            return (self.root / name).read_bytes()
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{self.path}: {name} cannot be read: {error}") from None


def complaint(first: str, n: int, of: int, what: str, on_error: str, where: str = "") -> str:
    """A note that ``n`` of so many files are broken and left out; ``first`` is wrong with one.

    Raises:
        DataError: the same, unless they may be skipped and some are left; ``where`` precedes it.
    """
    if on_error == "skip" and n < of:
        return f"left out {n:,} of {of:,} {what}: {first}"
    raise DataError(f"{where}{first} ({n:,} of {of:,} {what}); on_error=skip leaves "
                    f"{'it' if n == 1 else 'them'} out")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
