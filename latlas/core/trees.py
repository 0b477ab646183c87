"""One file for a tree of tensors and JSON, written so that a crash leaves the old file whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.core.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A name to write to; it replaces ``target`` at the end, or is removed on an error.

    Raises:
        RunError: for any OSError; the old ``target`` is as it was.
    """
    part = target.with_name(f".{target.name}.part{target.suffix}")
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
        with safe_open(path, "pt") as file:
            names = [k for k in file.keys() if k.startswith(prefix)]  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            return {k[len(prefix):]: file.get_tensor(k) for k in names}, meta
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error


def save_json(path: Path, data: Any) -> None:
    """Write JSON by rename, two-space indents."""
    with whole(path) as part:
        part.write_text(json.dumps(data, indent=2, allow_nan=True) + "\n", encoding="utf-8")
        _flush(part)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
