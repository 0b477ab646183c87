"""Files of tensors and JSON, written so that a crash leaves the old file whole; the run folder."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.core.errors import RunError
from latlas.core.record import FORMAT, RUN, read_run

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

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
            if not isinstance(meta, dict):
                raise ValueError("its metadata are no JSON object")
            return {k[len(prefix):]: file.get_tensor(k) for k in names}, meta
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
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


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an npz by rename."""
    import numpy as np

    with whole(path) as part:
        np.savez(part, **arrays)
        _flush(part)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def create_run(path: Path, request: dict[str, Any], **facts: Any) -> Path:
    """A new run folder, or the one that holds the same request.

    Args:
        facts: what else run.json says, not part of the request.

    Raises:
        RunError: the folder holds another run, or something that is no run.
    """
    if (path / RUN).is_file():
        key = differs(read_run(path), request)
        if key:
            raise other_run(path, request, key)
        return path
    files = list(path.iterdir()) if path.is_dir() else []
    if path.exists() and not (path.is_dir() and all(map(is_part, files))):
        raise RunError(f"{path} exists and holds no run", what=str(path), option="out",
                       hint="choose another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {path}: {error.strerror}", what=str(path)) from error
    remove_parts(path)
    save_json(path / RUN, {"format": FORMAT, "id": secrets.token_hex(8), **request, **facts})
    return path


def differs(record: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """The first field of a request that is another one in run.json; empty if there is none."""
    old, new = (_flat(tree) for tree in ({k: record.get(k) for k in request},
                                         json.loads(json.dumps(request))))
    # the data and the options come first: the model's config and the space follow from them
    return next((key for key in sorted(old.keys() | new.keys(), key=lambda k: (
        k.startswith(("config.", "space.")), k)) if old.get(key) != new.get(key)), "")


def other_run(path: Path, request: Mapping[str, Any], key: str) -> RunError:
    """What to say of a folder that holds a run with another ``key``."""
    old, new = (_flat(tree).get(key) for tree in (
        read_run(path), json.loads(json.dumps(request))))
    return RunError(
        f"{path} holds another run ({key} is {old!r} there, {new!r} asked)", what=str(path),
        option=key, hint=f"choose another --out, or start from its weights with --from {path}" if (
            has_weights(path)) else "it holds no weights yet: remove it, unless it is being "
                                    "trained, or choose another --out")


def has_weights(path: Path) -> bool:
    """A model, or a checkpoint to go on from."""
    return (path / MODEL).is_file() or (path / CHECKPOINT).is_file()


def is_part(path: Path) -> bool:
    """What a process that was killed while it wrote has left: ours, or safetensors' own."""
    return re.fullmatch(r"\..*\.part(\.\w+)?|\.tmp\w{6}", path.name) is not None


def remove_parts(path: Path) -> None:
    """Only where nobody else writes."""
    for file in path.iterdir():
        if is_part(file):
            shutil.rmtree(file, ignore_errors=True) if file.is_dir() else file.unlink()


def discard_unstarted(path: Path) -> None:
    """Remove what a training that failed before its first step has written, so that it is in
    nobody's way."""
    log = path / "metrics.jsonl"
    if has_weights(path) or (log.is_file() and any(
            '"images": 0,' not in line for line in log.read_text("utf-8", "replace").splitlines())):
        return
    remove_parts(path)
    for name in ("tensorboard", "samples", "cache"):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in ("examples.npz", "metrics.jsonl", RUN):  # what makes it a run last
        (path / name).unlink(missing_ok=True)
    with suppress(OSError):  # there may be something of the person's own
        path.rmdir()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else trains in this folder meanwhile; the lock goes with the process, however that
    ends. RunError: another process trains here."""
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
