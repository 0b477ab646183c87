"""Street View House Numbers, cropped digits: MATLAB files with ``X`` (32, 32, 3, N) and ``y``.

Y. Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning (2011).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.data.arrays import ArrayReader, Options, Reader, load
from latlas.data.dataset import Dataset
from latlas.data.labels import encode_labels
from latlas.data.source import Source, make
from latlas.data.store import Store


def open_svhn(path: Path, *, store: Store | None = None, label: str | None = None,
              image_size: int | None = None) -> Source:
    """One ``.mat`` file, or a folder with ``train_32x32.mat`` and ``test_32x32.mat``."""
    both = {"train": path / "train_32x32.mat", "test": path / "test_32x32.mat"}
    files = {k: p for k, p in both.items() if p.exists()} if path.is_dir() else {"all": path}
    loaded = {k: _load(p) for k, p in files.items()}
    if label not in (None, "none", "y"):
        raise DataError(f"{path}: its one label is y; leave out label={label}")
    readers: list[Reader] = [ArrayReader(x, str(files[k])) for k, (x, _) in loaded.items()]
    x, space = load(readers, store or Store(), Options(256, image_size, "NHWC"))
    digits = np.concatenate([y for _, y in loaded.values()]) % 10  # the file writes 0 as 10
    codes, classes = encode_labels(digits, f"{path}: y")
    stops = np.cumsum([r.shape[0] for r in readers])
    rows = {k: np.arange(stop - r.shape[0], stop)
            for k, r, stop in zip(files, readers, stops, strict=True)}
    data = Dataset(x, replace(space, classes=classes), codes)
    return make(path.stem, data, parts=rows if len(rows) > 1 else None)


def _load(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (N, 32, 32, 3) and labels (N,)."""
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises many kinds for damaged files
        raise DataError(f"{path} cannot be read as .mat: {error}") from None
    if "X" not in content or "y" not in content or content["X"].ndim != 4:
        held = ", ".join(k for k in content if not k.startswith("__")) or "nothing"
        raise DataError(f"{path} is not an SVHN file: wanted X (H, W, C, N) and y; it holds {held}")
    return np.moveaxis(content["X"], 3, 0), content["y"].reshape(-1).astype(np.int64)
