"""The arrays of a MATLAB file as an ``.npz``: ``python mat_to_npz.py FILE.mat OUT.npz BYTES``.

A program of its own, since SciPy's reader can bring its process down on a damaged file, or ask for
memory without end; ``BYTES`` is all that it may take. Numbers, truth values, words and cells of
words are written; keys of anything else are printed.
"""

import contextlib
import sys
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """The value as an array of numbers or words; ``None`` for what is neither."""
    value = value.toarray() if hasattr(value, "toarray") else value
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":  # a cell array
        words = [cell.item() if isinstance(cell, np.ndarray) and cell.size == 1 else cell
                 for cell in value.reshape(-1)]
        if words and all(isinstance(word, str) for word in words):
            value = np.array(words).reshape(value.shape)
    return value if isinstance(value, np.ndarray) and value.dtype.kind in "buifU" else None


def main(source: str, target: str, limit: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on this system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    from scipy.io import loadmat

    arrays = {k: plain(v) for k, v in loadmat(source).items() if not k.startswith("__")}
    np.savez(target, **{k: v for k, v in arrays.items() if v is not None})
    print(*(k for k, v in arrays.items() if v is None), sep="\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except Exception as error:  # SciPy raises many kinds for damaged files
        sys.exit(f"{error} ({type(error).__name__})")
