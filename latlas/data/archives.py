"""Names and bytes of what lies in a folder, a zip, a tar, or a list of files.

Names have ``/`` between folders, also those of a zip made on Windows. Links to folders are
followed. A folder that holds a zip or a tar and nothing else is that archive.
"""

from __future__ import annotations

import bz2
import copy
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import threading
import weakref
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

from latlas.core.errors import DataError
from latlas.data.streams import claim, claim_unpacked, readable

#: how a compressed tar is opened
TARS: dict[str, Any] = {".tar": None, ".tar.gz": gzip.open, ".tgz": gzip.open,
                        ".tar.bz2": bz2.open, ".tbz2": bz2.open, ".tar.xz": lzma.open,
                        ".txz": lzma.open}
MOST_RATIO, MOST_BYTES, PIECE = 200, 1 << 30, 1 << 20  # how far a tar may expand
#: what systems put beside people's files
JUNK = frozenset({"thumbs.db", "desktop.ini", ".ds_store"})


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


def names_in(path: Path) -> Iterator[str]:
    """Names of the files in a folder, a zip or a tar; of a folder one by one."""
    return walk(str(path)) if path.is_dir() else iter(
        [name for name in _opened(path)[0] if not name.endswith("/")])


def sole_archive(path: Path) -> Path:
    """The zip or tar that is all there is in a folder; any other path as it is."""
    if not path.is_dir():
        return path
    with os.scandir(path) as entries:
        first = list(islice((e.name for e in entries if not is_junk(e.name) and e.name[0] != "."),
                            2))
    alone = len(first) == 1 and first[0].lower().endswith((".zip", *TARS))
    return path / first[0] if alone and (path / first[0]).is_file() else path


def sole_note(path: Path, archive: Path) -> tuple[str, ...]:
    """What is said of an archive that is read for the folder it is in."""
    return () if archive == path else (f"{path} holds {archive.name} alone, which was opened",)


class Files:
    """Names and contents of all files below a folder or in an archive, of one file that is an image
    or recording, or of several that are named one by one.

    ``names`` are all of them but hidden ones, in sorted order; ``stored`` are the names of images
    (or recordings) as they lie there, ``titles`` what they are called: the same, but for a choice
    of them made by :meth:`only`.

    Args:
        kinds: endings of what counts as an image, or as a recording; a file with one of them is
            a place of its own.
    """

    def __init__(self, path: Path | Sequence[Path], kinds: Collection[str]) -> None:
        paths = [path] if isinstance(path, Path) else list(path)
        alone = not isinstance(path, Path) or (path.suffix.lower() in kinds and path.is_file())
        self.root = Path(os.path.commonpath([p.parent for p in paths])) if alone else (
            sole_archive(paths[0]))
        self.path = path if isinstance(path, Path) else self.root
        self.in_archive, self._notes = not alone and self.root.is_file(), tuple[str, ...]()
        self._others = Counter[str]()
        if alone:
            self.names = [p.relative_to(self.root).as_posix() for p in paths]
        elif self.in_archive:
            self._all, self._member, no_files = _opened(self.root)
            files = [n for n in self._all if not n.endswith("/")]
            self.names = list(dict.fromkeys(files))
            no_files += len(files) - len(self.names)
            self._others["links, or of a name that comes again"] = no_files
            self._notes = sole_note(self.path, self.root)
        else:
            below = list(walk(str(self.root)))
            self.names = [n for n in below if (self.root / n).is_file()]
            self._others["links to nothing, or no files"] = len(below) - len(self.names)
        if not alone:
            every = [n for n in self.names if not is_junk(n)]
            self.names = sorted(n for n in every if not is_hidden(n))
            self._others["hidden"] = len(every) - len(self.names)
        self.titles = self.stored = [n for n in self.names if ending(n) in kinds]
        self._others.update(ending(n) or "without an ending" for n in self.names
                            if ending(n) not in kinds)

    def read(self, name: str) -> bytes:
        """The bytes of one file; may be called from any thread."""
        with readable(self.root / name):
            return self._member(name) if self.in_archive else (self.root / name).read_bytes()

    def has_folder(self, name: str) -> bool:
        """Whether there is such a folder, be it empty."""
        if not self.in_archive:
            return (self.root / name).is_dir()
        return any(n.startswith(f"{name}/") for n in self._all)

    def only(self, chosen: Mapping[str, str], beside: Sequence[str] = (), of: str = "",
             notes: Sequence[str] = ()) -> Files:
        """The same place with these files alone: what each is called, and its name there; others
        are left out as they lie ``beside`` folders ``of`` sides or splits."""
        part = copy.copy(self)
        part.titles, part.stored, part._notes = list(chosen), list(chosen.values()), (
            *self._notes, *notes)
        if beside:
            part._others = self._others + Counter(
                {f"beside the folders of {of}, {beside[0]}": len(beside)})
        return part

    def untold(self) -> Files:
        """The same, of which another tells what is left out."""
        part = copy.copy(self)
        part._others, part._notes = Counter(), ()
        return part

    def left_out(self, of_use: Collection[str] = ()) -> tuple[str, ...]:
        """Notes of what in the place is not read, but for endings that are ``of_use``, and of how
        it was opened if that is a guess."""
        counts = {k: n for k, n in sorted(self._others.items()) if n > 0 and k not in of_use}
        words, total = [f"{n:,} {kind}" for kind, n in counts.items()], sum(counts.values())
        return self._notes + ((f"left out {total:,} file{'s' * (total > 1)}: {', '.join(words)}",)
                              if total else ())


def ending(name: str) -> str:
    """Of a file, in small letters: ``.png``; empty if it has none."""
    return PurePosixPath(name).suffix.lower()


def is_hidden(name: str) -> bool:
    """Whether a file or a folder around it begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def is_junk(name: str) -> bool:
    """Whether a system put a file beside those of people."""
    *folders, last = name.split("/")
    return "__MACOSX" in folders or last.startswith("._") or last.lower() in JUNK


Archive = tuple[list[str], Callable[[str], bytes], int]


def _opened(path: Path) -> Archive:
    """The names in an archive (of folders with a slash at their ends), what gives the bytes of one,
    and how many are no files. DataError for what cannot be read."""
    if tar_ending(path):
        return _tar(path)
    with readable(path, "cannot be read as a zip"):
        archive = zipfile.ZipFile(path)
    names = [info.filename.replace("\\", "/") for info in archive.infolist()]
    members = dict(zip(names, archive.infolist(), strict=True))

    def read(name: str) -> bytes:
        claim_unpacked(members[name].file_size, members[name].compress_size, f"{path}: {name}")
        return archive.read(members[name])

    return names, read, 0


def _tar(path: Path) -> Archive:
    """One that is compressed is unpacked to a temporary file first, unless that would grow beyond
    what images do."""
    with readable(path, "cannot be read as a tar"), ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(path.open("rb"))
        expand = TARS[tar_ending(path)]
        if expand is not None:
            most = min(MOST_RATIO * path.stat().st_size + MOST_BYTES,
                       shutil.disk_usage(tempfile.gettempdir()).free // 2)
            packed = stack.enter_context(expand(stream))
            stream = stack.enter_context(tempfile.TemporaryFile())
            while piece := packed.read(PIECE):
                if stream.tell() + len(piece) > most:
                    raise DataError(f"{path} unpacks to more than {most / 1e9:.3g} GB; unpack it "
                                    "to a folder, and name that")
                stream.write(piece)
            stream.seek(0)
        archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115
        every = archive.getmembers()
        weakref.finalize(archive, stack.pop_all().close)
    members = {m.name.removeprefix("./") + "/" * m.isdir(): m for m in every
               if m.isdir() or m.isfile() or m.islnk()}
    lock = threading.Lock()

    def read(name: str) -> bytes:
        claim(members[name].size, f"{path}: {name}")
        with lock:
            file = archive.extractfile(members[name])
            return b"" if file is None else file.read()

    return list(members), read, len(every) - len(members)
