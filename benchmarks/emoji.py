"""Emoji, divided so that no variant of a training image is held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from latlas.data import open_source
from latlas.data.dataset import Dataset, Source, make

#: skin tones, joiner, female, male, and the mark of colour
VARIANT = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff", "200d", "2640", "2642", "fe0f"}


def emoji(path: Path, size: int) -> Source:
    """The images on white; variants of one base, and equal files, share a group."""
    data = open_source(str(path), image_size=size, mode="RGB").base
    return make(f"{path.stem}-{size}", replace(data, group=groups(data.names, data.group)))


def groups(names: NDArray[np.str_] | None, same: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """(N,) a number for all that hangs together by its base or as equal files (``same``)."""
    base = np.unique([base_of(name) for name in names], return_inverse=True)[1]
    same = np.arange(len(base)) if same is None else same
    nodes = base, base.max() + 1 + same
    size = int(nodes[1].max()) + 1
    links = coo_matrix((np.ones(len(base)), nodes), (size, size))
    return connected_components(links, directed=False)[1][base].astype(np.int64)


def base_of(name: str) -> str:
    """The code points of a file's name less those that make variants.

    >>> base_of("emoji_u1f468_1f3fb_200d_1f373.png")
    '1f468_1f373'
    """
    points = Path(name).stem.removeprefix("emoji_u").split("_")
    return "_".join(point for point in points if point not in VARIANT)


def of_different_groups(data: Dataset, n: int, seed: int) -> Dataset:
    """Up to ``n`` examples at random, no two of a group."""
    order = np.random.default_rng(seed).permutation(len(data))
    first = np.unique(data.take("group")[order], return_index=True)[1]
    return data.subset(order[np.sort(first)[:n]])
