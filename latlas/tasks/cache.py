"""Tensors on disk, each under the digest of all that it was computed from.

A file's name is the digest, so what was computed from other items, another extractor or another
seed has another name and is never read. A file is written by rename, and one that was cut off or
altered does not have the digest that it carries: it is computed anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlas.core.errors import RunError
from latlas.core.trees import load_tree, save_tree
from latlas.data.dataset import Dataset

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]

#: raised by one whenever what is remembered is computed differently
VERSION = 1
#: bytes of items that are read at once
CHUNK = 64_000_000


@dataclass(frozen=True)
class Cache:
    """A folder of what was computed before; without one nothing is remembered."""

    folder: Path | None = None

    def recall(self, kind: str, key: str, make: Callable[[], Tensors]) -> Tensors:
        """What is kept of this ``kind`` under ``key``, else what ``make`` gives, kept from now on.

        A folder that cannot be written to is no error.
        """
        if self.folder is None:
            return make()
        file = self.folder / f"{kind}-{key}.safetensors"
        if (found := _read(file, key)) is not None:
            return found
        made = make()
        with suppress(RunError, OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            save_tree(file, dict(made), {"key": key, "content": _content(made)})
        return made


def key_of(*parts: Any) -> str:
    """32 hexadecimal digits of anything that JSON can hold.

    >>> key_of("columns", 0) == key_of("columns", 0) != key_of("columns", 1)
    True
    """
    text = json.dumps([VERSION, *parts], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest_of(data: Dataset) -> str:
    """32 hexadecimal digits of the items, their labels and their space, in order."""
    digest = hashlib.blake2b(json.dumps(data.space.to_json()).encode(), digest_size=16)
    size = max(1, CHUNK // max(1, data.space.dims * data.x.itemsize))
    for start in range(0, len(data), size):
        part = data.subset(slice(start, start + size))
        for name in ("x", "label"):
            if (values := part.take(name)) is not None:
                digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
                digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _read(file: Path, key: str) -> Tensors | None:
    """The tensors, or ``None`` where there are none, or none that can be trusted."""
    if not file.is_file():
        return None
    try:
        tensors, meta = load_tree(file)
    except RunError:
        return None
    whole = meta.get("key") == key and meta.get("content") == _content(tensors)
    return tensors if whole else None


def _content(tensors: Tensors) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name].detach().cpu().numpy())
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.data)
    return digest.hexdigest()
