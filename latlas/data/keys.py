"""What a run was trained on, by the contents of the examples and in any order; and digests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import RunError
from latlas.core.files import save_arrays
from latlas.core.record import Content
from latlas.data.dataset import Dataset, chunk_rows, chunks
from latlas.data.pairs import Data, PairDataset
from latlas.data.splits import hash_rows, mix

Hashes = NDArray[np.uint64]
#: file of a run folder
EXAMPLES = "examples.npz"


@dataclass(frozen=True, eq=False)
class Keys:
    """Sorted hashes, one per example.

    Attributes:
        train, validation: of contents; equal contents come as often as in the data.
        labelled: of the contents of both together with their labels.
        earlier: of contents that were trained on before the data were changed.
    """

    train: Hashes
    validation: Hashes
    labelled: Hashes
    earlier: Hashes

    @classmethod
    def of(cls, train: Data, validation: Data | None) -> Keys:
        """Of data that are about to be trained on."""
        first = keys_of(train)
        second = keys_of(validation) if validation is not None else np.zeros(0, np.uint64)
        labelled = [mix(keys ^ _labels(data)) for keys, data in ((first, train), (
            second, validation)) if data is not None]
        return cls(np.sort(first), np.sort(second), np.sort(np.concatenate(labelled)),
                   np.zeros(0, np.uint64))

    @classmethod
    def load(cls, folder: Path) -> Keys | None:
        """Of a run folder; ``None`` where it has none. RunError for a damaged file."""
        file = folder / EXAMPLES
        if not file.is_file():
            return None
        names = tuple(cls.__dataclass_fields__)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in names}
        except Exception as error:  # of NumPy, zipfile, zlib and struct
            raise RunError(f"{file} is damaged: {error}") from error
        if any(v.dtype != np.uint64 or v.ndim != 1 for v in values.values()):
            raise RunError(f"{file} is damaged: it holds other arrays than hashes")
        return cls(**values)

    def save(self, folder: Path) -> None:
        """Write :data:`EXAMPLES`, whole or not at all."""
        save_arrays(folder / EXAMPLES, vars(self))

    @property
    def content(self) -> Content:
        """Counts and digest, for run.json."""
        return Content(len(self.train), len(self.validation),
                       digest_of(self.train, self.validation, self.labelled))

    def changes(self, before: Keys) -> str:
        """How these differ from what they were before, in words; empty if they do not."""
        now, then = (np.concatenate([k.train, k.validation]) for k in (self, before))
        trained = np.isin(_surplus(self.train, before.train),
                          _surplus(before.validation, self.validation))
        spared = np.isin(_surplus(before.train, self.train),
                         _surplus(self.validation, before.validation))
        counts = [(len(_surplus(now, then)), "was added", "were added"),
                  (len(_surplus(then, now)), "is gone", "are gone"),
                  (int(trained.sum()), *["moved from validation to training"] * 2),
                  (int(spared.sum()), *["moved from training to validation"] * 2)]
        if not any(n for n, _, _ in counts):
            relabelled = len(_surplus(self.labelled, before.labelled))
            counts = [(relabelled, "has another label", "have other labels")]
        counts = [count for count in counts if count[0]]
        return ", ".join(f"{n:,}{'' if i else ' example' if n == 1 else ' examples'} "
                         f"{one if n == 1 else more}" for i, (n, one, more) in enumerate(counts))

    def after(self, before: Keys) -> Keys:
        """These, in a run that was trained on ``before`` until now."""
        return replace(self, earlier=np.unique(np.concatenate([before.earlier, before.train])))


def trained_on(folder: Path | None, data: Data) -> int | None:
    """How many of these examples a run was trained on; ``None`` where that is not known."""
    keys = None if folder is None else Keys.load(folder)
    if keys is None:
        return None
    every = np.concatenate([keys.train, keys.earlier])
    return int(np.isin(keys_of(data), every).sum())


def keys_of(data: Data) -> Hashes:
    """(n,) a hash of each example: of a pair of both sides, of two domains of one after the
    other."""
    if isinstance(data, PairDataset):
        a, b = keys_of(data.a), keys_of(data.b)
        return mix(a ^ mix(b)) if data.aligned else np.concatenate([a, b])
    return _hashed(data) if data.key is None else data.key[data.index]


def digest_of(*parts: Any) -> str:
    """32 hexadecimal digits of arrays, their types and shapes, and words, in this order."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
            continue
        digest.update(repr((part.shape, part.dtype.str)).encode())
        for chunk in chunks(np.atleast_1d(part)):
            digest.update(chunk.tobytes())
    return digest.hexdigest()


def examples_digest(data: Dataset) -> str:
    """The same of the examples, their labels and their space, in order."""
    return digest_of(json.dumps(data.space.to_json()), _hashed(data), _labels(data))


def _hashed(data: Dataset) -> Hashes:
    """(n,) of the numbers of each example, in pieces, since there may be more than memory."""
    step = chunk_rows(data.x.shape, data.x.dtype)
    return np.concatenate([hash_rows(data.x[data.index[start:start + step]])
                           for start in range(0, len(data), step)] or [np.zeros(0, np.uint64)])


def _labels(data: Data) -> Hashes:
    """A hash of each example's label, in the order of :func:`keys_of`."""
    if isinstance(data, PairDataset):
        a = _labels(data.a)
        return a if data.aligned else np.concatenate([a, _labels(data.b)])
    label = data.take("label")
    if label is None:
        return np.zeros(len(data), np.uint64)
    return mix(np.asarray(label).astype(np.int64).view(np.uint64) + np.uint64(1))


def _surplus(these: Hashes, those: Hashes) -> Hashes:
    """What of these is not among those, or not as often; sorted."""
    levels, counts = np.unique(these, return_counts=True)
    others, more = np.unique(those, return_counts=True)
    _, mine, theirs = np.intersect1d(levels, others, assume_unique=True, return_indices=True)
    counts[mine] -= more[theirs]
    return np.repeat(levels, np.maximum(counts, 0))
