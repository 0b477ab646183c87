"""Files of tensors and JSON, written so that a crash leaves the old file whole; the run folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.core.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

#: of run.json and of every tree in a run folder; raised by one whenever one is written differently
FORMAT = 1
#: bytes of a file's name
LONGEST_NAME = 255
MODEL, CHECKPOINT = "model.safetensors", "checkpoint.safetensors"


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A name to write to; it replaces ``target`` at the end, or is removed on an error.

    Raises:
        RunError: for any OSError; the old ``target`` is as it was.
    """
    head = target.name
    while len(os.fsencode(f".{head}.part{target.suffix}")) > LONGEST_NAME:
        head = head[:-1]
    part = target.with_name(f".{head}.part{target.suffix}")
    try:
        yield part
        part.replace(target)
    except OSError as error:
        raise RunError(f"cannot save {target}: {error.strerror or error}; what was there before "
                       "is intact") from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):  # the first error is the one to report
            part.unlink(missing_ok=True)


def save_tree(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write to a temporary name, flush to disk, rename. ``meta`` is any JSON object."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with whole(path) as part:
        try:
            save_file(copies, part, {"meta": json.dumps(meta)})
        except SafetensorError as error:  # its way of saying that the disk is full
            raise OSError(str(error)) from error
        _flush(part)


def load_tree(path: Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors whose name starts with ``prefix`` (taken off) and the JSON object."""
    from safetensors import SafetensorError, safe_open
    try:
        with _in_utf8(path) as place, safe_open(place, "pt") as file:
            names = [k for k in file.keys() if k.startswith(prefix)]  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            return {k[len(prefix):]: file.get_tensor(k) for k in names}, meta
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error


@contextmanager
def _in_utf8(path: Path) -> Iterator[Path]:
    """The same file by a name that safetensors can open: paths of Linux may be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / MODEL).symlink_to(path.absolute())
            yield Path(folder) / MODEL
    else:
        yield path


def save_json(path: Path, data: Any) -> None:
    """Write JSON by rename, two-space indents."""
    with whole(path) as part:
        part.write_text(json.dumps(data, indent=2, allow_nan=True) + "\n", encoding="utf-8")
        _flush(part)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def create_run(path: Path, request: dict[str, Any]) -> Path:
    """A new run folder, or the one that holds the same request.

    Raises:
        RunError: the folder holds another run, or something that is no run.
    """
    if (path / "run.json").is_file():
        record = read_run(path)
        old, new = (_flat(tree) for tree in ({k: record.get(k) for k in request},
                                             json.loads(json.dumps(request))))
        # the data and the options come first: the model's config follows from them
        for key in sorted(old.keys() | new.keys(), key=lambda k: (k.startswith("config."), k)):
            if old.get(key) != new.get(key):
                trained = (path / MODEL).is_file() or (path / CHECKPOINT).is_file()
                raise RunError(
                    f"{path} holds another run ({key} is {old.get(key)!r} there, {new.get(key)!r} "
                    "asked)", what=str(path), option=key, hint=f"choose another --out, or start "
                    f"from its weights with --from {path}" if trained else
                    "it holds no weights yet: remove it, unless it is being trained, or choose "
                    "another --out")
        return path
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path} exists and holds no run", what=str(path), option="out",
                       hint="choose another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {path}: {error.strerror}", what=str(path)) from error
    save_json(path / "run.json", {"format": FORMAT, **request})
    return path


def read_run(path: Path) -> dict[str, Any]:
    """The run.json of a run folder.

    Raises:
        RunError: no such run, an unreadable one, or one of a newer format.
    """
    file = path / "run.json"
    if not file.is_file():
        why = "it has no run.json" if path.exists() else "there is nothing of that name"
        raise RunError(f"{path} is no run folder ({why})")
    try:
        record: dict[str, Any] = json.loads(file.read_text("utf-8"))
        version = int(record["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error
    if version > FORMAT:
        raise RunError(f"{path} is of format {version}, this latlas reads up to {FORMAT}; "
                       "update latlas")
    return record


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else trains in this folder meanwhile; the lock goes with the process, however that
    ends.

    Raises:
        RunError: another process trains here.
    """
    handle = None if fcntl is None else os.open(path, os.O_RDONLY)
    try:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise RunError(f"{path} is being trained by another process; wait for it, or choose "
                       "another --out", what=str(path), option="out") from error
    except OSError:  # a disk without locks
        pass
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for name, child in tree.items()
            for k, v in _flat(child, f"{prefix}.{name}" if prefix else name).items()}
