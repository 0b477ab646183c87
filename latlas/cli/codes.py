"""Codes from a file, as ``encode`` wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError

SUFFIXES = (".npz", ".npy", ".csv", ".parquet")


def read_codes(path: Path) -> NDArray[np.float32]:
    """(n, latent_dim) float32 from .npz (``codes``), .npy, or the columns z0, z1, … of a table.

    Raises:
        DataError: no such file, no numbers in it, or another shape.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: codes are read from {', '.join(SUFFIXES)}")
    try:
        codes = np.asarray(_read(path), np.float32)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # whatever a parser makes of a broken file
        raise DataError(f"{path} cannot be read as codes: {error}") from error
    if codes.ndim != 2 or not np.isfinite(codes).all():
        raise DataError(f"{path} holds an array of shape {codes.shape}"
                        f"{'' if codes.ndim != 2 else ' with NaN or infinity'}; codes are finite "
                        "numbers (n, latent_dim)")
    return codes


def _read(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return file["codes"] if "codes" in file.files else file[file.files[0]]
    return _table(path, suffix)


def _table(path: Path, suffix: str) -> Any:
    import polars

    frame = polars.read_csv(path) if suffix == ".csv" else polars.read_parquet(path)
    named = [c for c in frame.columns if c[:1] == "z" and c[1:].isdigit()]
    return frame.select(named or frame.columns).to_numpy()
