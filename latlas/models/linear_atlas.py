"""Cells of the data and the plane of each: the linear atlas that a non-linear one begins from."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latlas.models.vae import FIRST_LOG_VAR

#: neighbours of an example in the graph, rounds of k-medoids
NEIGHBOURS, ROUNDS = 10, 20
#: distance between two components of the data, in diameters of the largest
APART = 10.0
#: of the variance of all examples, the least along an axis and across a plane
MIN_VARIANCE = 1e-6


class LinearAtlas(nn.Module):
    """A mixture of planes, each with the principal axes of its cell (Tipping & Bishop 1999b).

    Chart k is z ↦ c_k + Σ_j √λ_j u_j g(z)_j with mean c_k, eigenvectors u_j and eigenvalues λ_j of
    the cell's covariance, so its coordinates z have variance 1. Nothing here is trained, all is 0
    before :meth:`fit`. A plane ends: g(z) = z / √(1 + |z|²/r²) with r² = 4 (d + 2), else the tails
    of N(0, I) lie where no data are; a cell that fills a ball evenly ends at |z|² = d + 2.
    """

    planes: Tensor
    coordinates: Tensor
    origins: Tensor
    centres: Tensor
    noise: Tensor
    log_vars: Tensor

    def __init__(self, n_charts: int, width: int, dims: int) -> None:
        super().__init__()
        self.n_charts, self.width, self.dims = n_charts, width, dims
        shapes = {"planes": (n_charts, width + 1, dims),  # scaled axes, then the centre
                  "coordinates": (dims, n_charts * width), "origins": (n_charts, width),
                  "centres": (n_charts, dims), "noise": (n_charts,), "log_vars": (n_charts, width)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def fit(self, examples: Tensor) -> None:
        """Cells of examples (n, dims), and the plane of each."""
        x = examples.cpu().double().numpy()
        label, d = cells(x, self.n_charts), self.width
        least = MIN_VARIANCE * x.var(0).sum() + 1e-12
        for k in range(self.n_charts):
            mine = x[label == k] if (label == k).any() else x
            mean = mine.mean(0)
            _, size, axes = np.linalg.svd(mine - mean, full_matrices=False)
            variance = np.square(size) / len(mine)
            noise = variance[d:].sum() / max(1, self.dims - d) + least
            scale = np.zeros(d)  # some stay 0 in a cell of few examples
            scale[:len(variance)] = np.sqrt(np.maximum(variance[:d], noise))
            axes = np.resize(axes, (d, self.dims))
            whiten = (axes / np.where(scale > 0, scale, np.inf)[:, None]).T
            posterior = max(noise, math.exp(FIRST_LOG_VAR)) / np.square(scale).clip(min=least)
            for buffer, value in ((self.planes[k], np.vstack([scale[:, None] * axes, mean])),
                                  (self.coordinates[:, k * d:(k + 1) * d], whiten),
                                  (self.origins[k], mean @ whiten), (self.centres[k], mean),
                                  (self.noise[k], noise),
                                  (self.log_vars[k], np.log(posterior).clip(max=0))):
                buffer.copy_(torch.as_tensor(value))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of examples (n, *shape), for every chart: coordinates (K, n, width), log variances of
        their posterior (K, 1, width), and logits (K, n) of the charts.

        These are −½ (|z|² + the squared distance from the plane by its mean over a coordinate of
        the cell). Across the plane at most ``width`` dimensions count: logits of thousands of
        dimensions would leave nothing to learn.
        """
        with torch.autocast(x.device.type, enabled=False):
            flat = x.flatten(1).to(self.planes)
            z = (flat @ self.coordinates).unflatten(1, (self.n_charts, -1)).transpose(0, 1)
            z = z - self.origins[:, None]
            from_centre = (flat.square().sum(1) - 2 * self.centres @ flat.T
                           + self.centres.square().sum(1)[:, None])
            along = (z.square() * self.planes[:, :-1].square().sum(-1)[:, None]).sum(-1)
            across = (from_centre - along).clamp(min=0) / self.noise.clamp(min=1e-30)[:, None]
            others = self.dims - self.width
            share = min(1.0, self.width / others) if others > 0 else 0.0
            fitted = (self.noise > 0).to(z)[:, None]
            return (z, self.log_vars[:, None],
                    -0.5 * fitted * (z.square().sum(-1) + share * across))

    def decode(self, one_hot: Tensor, z: Tensor) -> Tensor:
        """Coordinates (*batch, width) in charts, one-hot (*batch, K), to points (*batch, dims)."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(self.planes)
            inside = z / (1 + z.square().sum(-1, keepdim=True) / self.reach).sqrt()
            one = torch.cat([inside, torch.ones_like(z[..., :1])], -1)
            every = (one_hot.to(z)[..., None] * one[..., None, :]).flatten(-2)
            return every @ self.planes.flatten(0, 1)

    @property
    def reach(self) -> float:
        """r²."""
        return 4.0 * (self.width + 2)


def cells(x: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """(n,) the cells of examples (n, d), at most ``k``, by k-medoids of distances along the data.

    Distances are those of the graph of nearest neighbours, as in Isomap (Tenenbaum et al. 2000): a
    cell by straight distances takes in both sides of a thin tube, which no plane does justice to.
    Examples without a path to each other are far apart, so that components of the data have cells
    of their own. The medoids begin with those that lower the sum of squares most (Kaufman &
    Rousseeuw 1990, "build").
    """
    from scipy.sparse.csgraph import dijkstra
    from sklearn.neighbors import kneighbors_graph

    if len(x) < 2:
        return np.zeros(len(x), np.int64)
    graph = kneighbors_graph(x, min(NEIGHBOURS, len(x) - 1), mode="distance")
    distance = dijkstra(graph, directed=False)
    finite = np.isfinite(distance)
    square = np.square(np.where(finite, distance, APART * distance[finite].max()))
    medoids: list[int] = []
    nearest = np.full(len(x), np.inf)
    for _ in range(min(k, len(x))):
        medoids.append(int(np.minimum(square, nearest).sum(1).argmin()))
        nearest = np.minimum(nearest, square[medoids[-1]])
    for _ in range(ROUNDS):
        label = square[medoids].argmin(0)
        members = [np.flatnonzero(label == j) for j in range(len(medoids))]
        new = [int(i[square[np.ix_(i, i)].sum(1).argmin()]) if len(i) else medoid
               for i, medoid in zip(members, medoids, strict=True)]
        if new == medoids:
            break
        medoids = new
    return np.asarray(square[medoids].argmin(0), np.int64)
