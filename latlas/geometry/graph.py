"""A graph over codes: shortest paths that geodesics begin from, distances, what is connected."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from torch import Tensor

from latlas.core.errors import DataError
from latlas.geometry.metric import Array, Metric, latents

#: neighbours of a code in the graph, pieces of a side whose lengths are added up, codes at most
NEIGHBOURS, PIECES, CODES = 10, 8, 1500


def code_graph(metric: Metric, z: Any, neighbours: int = NEIGHBOURS) -> csr_matrix:
    """(n, n) sparse symmetric graph of each of the latents (n, d) with its nearest, by the length
    of the straight line between them in the metric."""
    z = latents(z)
    i, j = neighbour_pairs(np.asarray(z), neighbours)
    share = torch.linspace(0, 1, PIECES + 1, dtype=z.dtype)[:, None]
    length = [metric.length(z[s, None] + share * (z[e] - z[s])[:, None]) for s, e in zip(
        torch.as_tensor(i).split(4096), torch.as_tensor(j).split(4096), strict=True)]
    return symmetric(i, j, np.concatenate(length), len(z))


def graph_distances(metric: Metric, z: Any, neighbours: int = NEIGHBOURS) -> Array:
    """(n, n) lengths of shortest paths over :func:`code_graph`: distances of thousands of latents,
    rather too long.

    DataError: the graph has two components or more.
    """
    matrix = dijkstra(code_graph(metric, z, neighbours), directed=False)
    require_paths(matrix[0], "latents")
    return np.asarray(matrix)


def paths_over_codes(metric: Metric, codes: Any, start: Tensor, end: Tensor,
                     segments: int) -> Tensor:
    """Shortest paths (p, segments + 1, d) over a graph of codes with the ends in it, corners at
    equal distances; a straight line where the graph has no path."""
    codes = latents(codes)
    codes = codes[torch.linspace(0, len(codes) - 1, min(CODES, len(codes))).round().long()]
    nodes, p = torch.cat([start, end, codes]), len(start)
    graph = code_graph(metric, nodes)
    length, before = dijkstra(graph, directed=False, indices=np.arange(p),
                              return_predecessors=True)
    share = np.linspace(0, 1, segments + 1)
    paths = []
    for row in range(p):
        corners = np.asarray(nodes)[path_to(before[row], p + row, length[row])]
        if len(corners) < 2:
            corners = np.asarray(torch.stack([start[row], end[row]]))
        sides = np.asarray(metric.steps(torch.as_tensor(corners)[None]).sqrt().detach())[0]
        time = np.concatenate([[0], np.cumsum(sides + 1e-12 * (sides.sum() or 1))])
        time /= time[-1]
        paths.append(np.stack([np.interp(share, time, c) for c in corners.T], 1))
    return torch.as_tensor(np.stack(paths))


def path_to(before: Array, end: int, length: Array) -> list[int]:
    """Nodes from the source to ``end``, by the predecessors of one source; none without a path."""
    if not np.isfinite(length[end]):
        return []
    nodes = [end]
    while before[nodes[-1]] >= 0:
        nodes.append(int(before[nodes[-1]]))
    return nodes[::-1]


def neighbour_pairs(points: Array, k: int) -> tuple[Array, Array]:
    """Numbers of points (n, d) and of their k nearest others, (n k,) each, the nearest first."""
    n, k = len(points), min(k, len(points) - 1)
    near = cKDTree(points).query(points, k + 1)[1]
    # of copies a point may not be its own nearest: the last goes where it is not there
    own = near == np.arange(n)[:, None]
    own[~own.any(1), -1] = True
    return np.repeat(np.arange(n), k), near[~own]


def symmetric(i: Array, j: Array, length: Array, n: int) -> csr_matrix:
    """Sides as a graph that is the same both ways; a side of length 0 stays a side."""
    graph = csr_matrix((np.maximum(length, 1e-300), (i, j)), (n, n))
    return graph.maximum(graph.T)


def require_paths(length: Array, what: str) -> None:
    """DataError, in one line, where some of these lengths of shortest paths are infinite."""
    missing = np.flatnonzero(~np.isfinite(length))
    if len(missing):
        raise DataError(f"{len(missing)} of {len(length)} {what} have no path to the others: they "
                        f"lie on another component, the first is number {missing[0]}",
                        hint="leave them out, or raise `neighbours` if they belong together")
