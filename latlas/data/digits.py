"""``digits``: 1,797 real handwritten digits of 8×8 pixels and 17 levels, part of scikit-learn.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), test part.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.data.source import Source, make


def open_digits(*, label: str | None = None) -> Source:
    """Shape (1, 8, 8), integers 0 … 16; the label is the digit (``label=none`` leaves it out)."""
    table = _table()
    x = table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8)
    classes = () if label == "none" else tuple(str(d) for d in range(10))
    digit = table[:, -1].astype(np.int64) if classes else None
    return make("digits", Dataset(x, Space.picture((1, 8, 8), 17, classes=classes), digit))


def _table() -> NDArray[np.float64]:
    """(1797, 65): 64 pixels and the digit. Read directly: importing scikit-learn takes seconds."""
    spec = importlib.util.find_spec("sklearn")
    file = Path(spec.origin or "").parent / "datasets/data/digits.csv.gz" if spec else Path()
    if file.is_file():
        with gzip.open(file, "rt", encoding="ascii") as lines:
            return np.array([line.split(",") for line in lines], dtype=np.float64)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])
