"""Groups of alike training items, each with a place of its own among the codes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.distributions import Normal
from latlas.core.noise import Noise
from latlas.core.precision import autocast
from latlas.models.conditioning import class_vectors
from latlas.models.priors import Prior, StandardNormal

#: pictures are compared as thumbnails of at most so many pixels a side; centres are found on about
#: so many items, in at most so many rounds; a group has so many items on average, or more
THUMBNAIL, ITEMS, ROUNDS, LEAST = 16, 20_000, 50, 50
#: items of a group that its sketches are drawn around; a group that says how closely has so many,
#: and so many groups do
WINDOWS, ENOUGH, JUDGED = 100, 20, 50
#: share of the largest variance below which an axis says nothing
NOTHING = 1e-6


class Groups(Prior):
    """N(0, I) beside the vector of a group k of alike items, as likely as the group is large.

    Groups are those of k-means on the items' numbers, of pictures on thumbnails; items of two
    classes are further apart than any others, so that groups are of one class as far as they
    suffice. Their vectors are those of classes (:func:`class_vectors`).

    The first ``sketch`` numbers of a code say what the item looks like from afar: with the group
    they stand for its first principal coordinates s, by s = μ_k + L_k z, where μ_k and L_k L_kᵀ
    are mean and covariance of them in the group (:meth:`sketch_of_code`). Every item has such
    numbers z_i. In a group they have mean 0 and variance 1 but are not normal, and are drawn from
    the mean of normals N(√(1 − h²) z_i, h² I) of up to 100 of its items, which have the same mean
    and variance (Silverman 1986, section 6.4, a smoothed bootstrap). h is the one by which items
    are likeliest of all under the others; at h = 1 it is N(0, I).

    Args:
        normal: how many numbers of a code are normal.
        shape: of an item.
        groups: at most so many; few items make fewer.
        classes: of which each has groups as likely as they are in it.
        sketch: how many of the normal numbers are the sketch, at most.
    """

    centres: Tensor
    counts: Tensor
    middle: Tensor
    axes: Tensor
    means: Tensor
    factors: Tensor
    windows: Tensor
    smoothness: Tensor

    def __init__(self, normal: int, shape: tuple[int, ...], groups: int, classes: int = 0,
                 sketch: int = 0) -> None:
        super().__init__(normal + groups)
        self.normal = normal
        small = tuple(min(side, THUMBNAIL) for side in shape[1:])
        self.size = (small[0], small[1]) if len(small) == 2 else None
        self.told, self.classes = math.prod((shape[0], *small)), classes
        self.sketch = min(sketch, normal, self.told)
        self.register_buffer("centres", torch.zeros(groups, self.told + classes))
        self.register_buffer("counts", torch.zeros(max(1, classes), groups))
        if not self.sketch:
            return
        self.register_buffer("middle", torch.zeros(self.told))
        self.register_buffer("axes", torch.zeros(self.told, self.sketch))
        self.register_buffer("means", torch.zeros(groups, self.sketch))
        self.register_buffer("factors", torch.eye(self.sketch).repeat(groups, 1, 1))
        self.register_buffer("windows", torch.zeros(groups, WINDOWS, self.sketch))
        self.register_buffer("smoothness", torch.ones(()))

    def fit(self, batches: Iterable[Batch], items: int) -> None:
        """Find the groups of the training items, or keep those that are known, and count."""
        if not self.counts.any():
            self._find(batches, items)
        counts = torch.zeros_like(self.counts)  # `of` goes by those known before
        for batch in batches:
            row = self.of(batch.x, batch.label)
            if self.classes and batch.label is not None:
                row += batch.label.long() * counts.shape[1]
            counts += torch.bincount(row, minlength=counts.numel()).view_as(counts)
        self.counts.copy_(counts)

    def _find(self, batches: Iterable[Batch], items: int) -> None:
        from sklearn.cluster import KMeans

        stride = max(1, items // ITEMS)
        part = slice(None, None, stride)
        seen = torch.cat([self._described(
            batch.x[part], batch.label if batch.label is None else batch.label[part])
            for batch in batches]).cpu().numpy()
        different = len(np.unique(seen, axis=0))
        groups = max(1, min(len(self.centres), items // LEAST, different))
        found = KMeans(groups, n_init=1, max_iter=ROUNDS, random_state=0).fit(seen)
        self.centres[:groups] = torch.from_numpy(found.cluster_centers_)
        self.counts[:, :groups] = 1
        if self.sketch:
            group = torch.cdist(torch.from_numpy(seen), self.centres[:groups].cpu()).argmin(1)
            self._draw_up(torch.from_numpy(seen[:, :self.told]).double(), group)

    def _draw_up(self, seen: Tensor, group: Tensor) -> None:
        """Principal axes of thumbnails (n, told), and how each group lies along them.

        The covariance of a group is that of its items and of ``sketch`` more that are spread as
        items are about the means of their groups: few items say little of it.
        """
        away = seen - seen.mean(0)
        size, axes = torch.linalg.eigh(away.T @ away / len(seen))
        size, axes = size.flip(0)[:self.sketch], axes.flip(1)[:, :self.sketch]
        axes = torch.where(size > NOTHING * size.max(), axes / size.clamp_min(1e-12).sqrt(), 0.0)
        place = away @ axes
        one = F.one_hot(group, len(self.means)).double()
        items = one.sum(0)
        means = one.T @ place / items.clamp_min(1)[:, None]
        off = place - means[group]
        usual = off.T @ off / len(off)
        own = torch.stack([off[group == k].T @ off[group == k] for k in range(len(means))])
        spread = (own + self.sketch * usual) / (items + self.sketch)[:, None, None]
        factors = torch.linalg.cholesky(spread + NOTHING * torch.eye(self.sketch))
        white = torch.linalg.solve_triangular(factors[group], off[..., None], upper=False)[..., 0]
        alike = [white[group == k] for k in range(len(means))]
        for k, some in enumerate(alike):
            if len(some):  # an even choice, or all of them about equally often
                self.windows[k] = some[torch.arange(WINDOWS) * len(some) // WINDOWS]
        self.smoothness.fill_(smoothness(alike))
        self.middle.copy_(seen.mean(0))
        self.axes.copy_(axes)
        self.means.copy_(means)
        self.factors.copy_(factors)

    def of(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """(n, \\*shape), of classes (n,) where they are told, to the groups (n,) whose centres are
        nearest."""
        seen = self._described(x, label)
        far = torch.cdist(seen, self.centres[:, :seen.shape[1]])
        return far.masked_fill(self.weights() == 0, torch.inf).argmin(1)

    def weights(self, label: Tensor | None = None) -> Tensor:
        """How many items each group has, of all (K,) or of classes (n,) (n, K)."""
        counts = self.counts if self.counts.any() else torch.ones_like(self.counts)
        return counts.sum(0) if label is None or not self.classes else counts[label.long()]

    def draw(self, n: int, noise: Noise, label: Tensor | None = None) -> Tensor:
        """(n, dims) codes, of classes (n,) where they are told."""
        edges = self.weights(label).cumsum(-1)
        level = noise.uniform(n).to(edges)[:, None] * edges[..., -1:]
        return self.at((level >= edges).sum(1).clamp(max=len(self.centres) - 1), noise)

    def at(self, group: Tensor, noise: Noise, sketch: Tensor | None = None) -> Tensor:
        """Codes (n, dims) of groups (n,), and of sketches (n, sketch) where they are given."""
        vectors = class_vectors(group, len(self.centres), self.normal)
        normal = noise.normal(len(group), self.normal).to(vectors)
        if not self.sketch:
            return torch.cat([normal, vectors], 1)
        if sketch is None:
            one = (noise.uniform(len(group)) * WINDOWS).long().clamp(max=WINDOWS - 1)
            near, h = self.windows[group, one.to(group.device)], self.smoothness
            told = (1 - h**2).sqrt() * near + h * normal[:, :self.sketch]
        else:
            off = (sketch - self.means[group])[..., None]
            told = torch.linalg.solve_triangular(self.factors[group], off, upper=False)[..., 0]
        return torch.cat([told, normal[:, self.sketch:], vectors], 1)

    def sketch_of(self, x: Tensor) -> Tensor:
        """(n, \\*shape) to first principal coordinates of variance 1, (n, sketch)."""
        with autocast(x.device, "fp32"):
            return (self._described(x, None) - self.middle) @ self.axes

    def sketch_of_code(self, z: Tensor) -> Tensor:
        """μ_k + L_k z of codes (n, dims); between groups, their mixture: (n, sketch)."""
        white, vector = z[:, :self.sketch, None].float(), z[:, self.normal:].float()
        share = vector / math.sqrt(2 * self.normal)
        with autocast(z.device, "fp32"):
            factors = (share @ self.factors.flatten(1)).unflatten(1, (self.sketch, self.sketch))
            return share @ self.means + (factors @ white)[..., 0]

    def spelt_out(self, z: Tensor) -> Tensor:
        """Codes (n, dims) with the sketch itself in place of the numbers that stand for it."""
        if not self.sketch:
            return z
        return torch.cat([self.sketch_of_code(z).to(z), z[:, self.sketch:]], 1)

    def sample(self, n: int, noise: Noise) -> Tensor:
        return self.draw(n, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(sketch | k) + log N(the other numbers; 0, I) + log w_k; −∞ off the vectors of
        groups."""
        normal, vector = z.split((self.normal, len(self.centres)), -1)
        group = vector.argmax(-1)
        exact = vector == class_vectors(group, len(self.centres), self.normal)
        share = (self.weights() / self.weights().sum()).log()[group]
        share = share.masked_fill(~exact.all(-1), -torch.inf)
        told, other = normal[..., :self.sketch], normal[..., self.sketch:]
        known = StandardNormal(other.shape[-1]).log_prob(other) + share
        if not self.sketch:
            return known
        return known + log_windows(told, self.windows[group], self.smoothness)

    def _described(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Thumbnails (n, told) in [−1, 1], and beside them the classes if there are any."""
        small = x if self.size is None else F.adaptive_avg_pool2d(x, self.size)
        seen = small.float().flatten(1)
        if not self.classes or label is None:
            return seen
        apart = F.one_hot(label.long(), self.classes).to(seen) * (2 * math.sqrt(self.told))
        return torch.cat([seen, apart], 1)


def log_windows(z: Tensor, windows: Tensor, h: Tensor) -> Tensor:
    """log of the mean of N(z; √(1 − h²) w, h² I) over windows w (*batch, K, d), of (*batch, d)."""
    around = Normal((1 - h**2).sqrt() * windows, 2 * h.log())
    return around.log_prob(z[..., None, :]).logsumexp(-1) - math.log(windows.shape[-2])


def smoothness(parts: Sequence[Tensor]) -> float:
    """h by which the items (n, d) of groups are likeliest, each under the others of its group.

    From 0.3 to 1 in steps of 0.05, on the first groups that are large enough; 1 without any.
    """
    large = [part for part in parts if len(part) >= ENOUGH][:JUDGED]
    known = [part[::math.ceil(len(part) / WINDOWS)] for part in large]

    def fit(h: Tensor) -> float:
        return sum(float(log_windows(part, others_of(part), h).sum()) for part in known)
    return float(max(torch.arange(1.0, 0.27, -0.05), key=fit))


def others_of(part: Tensor) -> Tensor:
    """(n, d) to (n, n − 1, d): for each all the others."""
    n = len(part)
    return part.expand(n, n, -1)[~torch.eye(n, dtype=torch.bool)].view(n, n - 1, -1)
