"""One file for a tree of tensors and JSON, written so that a crash leaves the old file whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.core.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor


def save_tree(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write to a temporary name, flush to disk, rename. ``meta`` is any JSON object."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    temporary = path.with_name(path.name + ".part")
    whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        save_file(whole, temporary, {"meta": json.dumps(meta)})
        _flush(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot save {path}: {error}; what was saved before is intact") from error


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
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(json.dumps(data, indent=2, allow_nan=True) + "\n", encoding="utf-8")
        _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot save {path}: {error}; what was saved before is intact") from error


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
