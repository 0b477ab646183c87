"""A prior of a GAN's latents: clusters of alike training images, and the content of these."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.distributions import Normal
from latlas.core.model import Batch
from latlas.core.noise import Noise
from latlas.models.priors import Prior, StandardNormal

#: largest side of thumbnails; examples and rounds of k-means; least mean size of clusters
THUMBNAIL, FIT_EXAMPLES, ROUNDS, MIN_MEAN_SIZE = 16, 20_000, 50, 50
#: kernels of a cluster's density; least size, and number, of clusters that a bandwidth is fitted to
KDE_CENTRES, MIN_KDE_SIZE, KDE_CLUSTERS = 100, 20, 50
#: principal axes with less than this share of the largest variance are left out
MIN_VARIANCE = 1e-6
#: weight of the generator's content loss
CONTENT_WEIGHT = 3.0


class ClusterPrior(Prior):
    """N(0, I) beside a one-hot vector of a cluster k, which is as likely as the cluster is large.

    Clusters are those of k-means on the examples, of images on thumbnails. With classes, examples
    of two classes are further apart than any others, so that clusters are of one class each if
    there are enough of them. The 1 of the vector is √(2 · normal_dims), as for classes
    (:func:`~latlas.models.priors.class_vectors`). (Liu et al. 2020, "Diverse image
    generation via self-conditioned GANs".)

    The first ``content_dims`` numbers z of a latent vector stand for the content s of an image, its
    first principal coordinates: s = μ_k + L_k z, where μ_k and L_k L_kᵀ are mean and covariance of
    s in the cluster (:meth:`content_of_latents`). Every image thus has its own z_i. In a cluster
    these have mean 0 and variance 1 but are not normal, and z is drawn from a kernel density: the
    mean of N(√(1 − h²) z_i, h² I) over up to 100 images, which keeps mean and variance
    (Silverman 1986, section 6.4). The bandwidth h is the one under which images are likeliest given
    the others of their cluster; at h = 1 the density is N(0, I).

    Args:
        normal_dims: numbers of a latent vector beside the cluster's.
        shape: of an example.
        n_clusters: at most so many; few examples make fewer.
        classes: number of classes; 0 without.
        content_dims: at most so many of ``normal_dims`` stand for content; 0 without.
    """

    centres: Tensor
    counts: Tensor
    pixel_mean: Tensor
    axes: Tensor
    content_means: Tensor
    content_factors: Tensor
    kde_centres: Tensor
    bandwidth: Tensor

    def __init__(self, normal_dims: int, shape: tuple[int, ...], n_clusters: int, classes: int = 0,
                 content_dims: int = 0) -> None:
        super().__init__(normal_dims + n_clusters)
        self.normal_dims, self.n_clusters, self.classes = normal_dims, n_clusters, classes
        small = tuple(min(side, THUMBNAIL) for side in shape[1:])
        self.thumbnail = (small[0], small[1]) if len(small) == 2 else None
        self.pixels = math.prod((shape[0], *small))
        self.content_dims = min(content_dims, normal_dims, self.pixels)
        d, buffers = self.content_dims, {"centres": torch.zeros(n_clusters, self.pixels + classes),
                                         "counts": torch.zeros(max(1, classes), n_clusters)}
        if d:
            buffers |= {"pixel_mean": torch.zeros(self.pixels), "axes": torch.zeros(self.pixels, d),
                        "content_means": torch.zeros(n_clusters, d),
                        "content_factors": torch.eye(d).repeat(n_clusters, 1, 1),
                        "kde_centres": torch.zeros(n_clusters, KDE_CENTRES, d),
                        "bandwidth": torch.ones(())}
        for name, start in buffers.items():
            self.register_buffer(name, start)

    def fit(self, batches: Iterable[Batch], n_train: int) -> None:
        """Find clusters of the training examples unless there are some already, and count."""
        if not self.counts.any():
            self.find_clusters(batches, n_train)
        counts = torch.zeros_like(self.counts)  # `assign` goes by the counts there were before
        for batch in batches:
            row = self.assign(batch.x, batch.label)
            if self.classes and batch.label is not None:
                row += batch.label.long() * self.n_clusters
            counts += torch.bincount(row, minlength=counts.numel()).view_as(counts)
        self.counts.copy_(counts)

    def features(self, x: Tensor, label: Tensor | None) -> Tensor:
        """Thumbnails (n, pixels) in [−1, 1] and, if there are any, classes far apart."""
        small = x if self.thumbnail is None else F.adaptive_avg_pool2d(x, self.thumbnail)
        flat = small.float().flatten(1)
        if not self.classes or label is None:
            return flat
        one_hot = F.one_hot(label.long(), self.classes).to(flat)
        return torch.cat([flat, one_hot * (2 * math.sqrt(self.pixels))], 1)

    def find_clusters(self, batches: Iterable[Batch], n_train: int) -> None:
        """Centres by k-means, and the content of each cluster."""
        from sklearn.cluster import KMeans

        part = slice(None, None, max(1, n_train // FIT_EXAMPLES))
        features = torch.cat([
            self.features(b.x[part], None if b.label is None else b.label[part])
            for b in batches]).cpu()
        different = len(np.unique(features.numpy(), axis=0))
        k = max(1, min(self.n_clusters, n_train // MIN_MEAN_SIZE, different))
        kmeans = KMeans(k, n_init=1, max_iter=ROUNDS, random_state=0).fit(features.numpy())
        self.centres[:k] = torch.from_numpy(kmeans.cluster_centers_)
        self.counts[:, :k] = 1
        if self.content_dims:
            cluster = torch.cdist(features, self.centres[:k].cpu()).argmin(1)
            self.fit_content(features[:, :self.pixels].double(), cluster)

    def fit_content(self, thumbnails: Tensor, cluster: Tensor) -> None:
        """Principal axes of thumbnails (n, pixels), and how each cluster lies along them.

        The covariance of a cluster is that of its examples and of ``content_dims`` more, which are
        spread as all examples are about the means of their clusters: few examples say little of it.
        """
        centred = thumbnails - thumbnails.mean(0)
        variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        variance, axes = variance.flip(0)[:self.content_dims], axes.flip(1)[:, :self.content_dims]
        axes = torch.where(variance > MIN_VARIANCE * variance.max(),
                           axes / variance.clamp_min(1e-12).sqrt(), 0.0)
        content = centred @ axes
        one_hot = F.one_hot(cluster, self.n_clusters).double()
        sizes = one_hot.sum(0)
        means = one_hot.T @ content / sizes.clamp_min(1)[:, None]
        residual = content - means[cluster]
        pooled = residual.T @ residual / len(residual)
        own = torch.stack([residual[cluster == k].T @ residual[cluster == k]
                           for k in range(self.n_clusters)])
        covariance = (own + self.content_dims * pooled) / (sizes + self.content_dims)[:, None, None]
        factors = torch.linalg.cholesky(covariance + MIN_VARIANCE * torch.eye(self.content_dims))
        white = torch.linalg.solve_triangular(factors[cluster], residual[..., None],
                                              upper=False)[..., 0]
        members = [white[cluster == k] for k in range(self.n_clusters)]
        for k, z in enumerate(members):
            if len(z):  # an even choice, or all of them about equally often
                self.kde_centres[k] = z[torch.arange(KDE_CENTRES) * len(z) // KDE_CENTRES]
        self.bandwidth.fill_(fit_bandwidth(members))
        self.pixel_mean.copy_(thumbnails.mean(0))
        self.axes.copy_(axes)
        self.content_means.copy_(means)
        self.content_factors.copy_(factors)

    def assign(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """The clusters (n,) whose centres are nearest to examples, of classes where given."""
        features = self.features(x, label)
        distance = torch.cdist(features, self.centres[:, :features.shape[1]])
        return distance.masked_fill(self.weights() == 0, torch.inf).argmin(1)

    def content_of(self, x: Tensor) -> Tensor:
        """Examples to their first principal coordinates, of variance 1: (n, content_dims)."""
        with torch.autocast(x.device.type, enabled=False):
            return (self.features(x, None) - self.pixel_mean) @ self.axes

    def cluster_and_content(self, x: Tensor,
                            label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Cluster (n,) and content (n, content_dims) of examples, of classes where given: what D
        reads of them, and of the fakes beside them."""
        return self.assign(x, label), self.content_of(x) if self.content_dims else None

    def weights(self, label: Tensor | None = None) -> Tensor:
        """How many examples each cluster has: of all (K,), or of the classes (n,) (n, K)."""
        counts = self.counts + (self.counts.sum() == 0)  # all alike before they are counted
        return counts.sum(0) if label is None or not self.classes else counts[label.long()]

    def sample(self, n: int, noise: Noise, label: Tensor | None = None) -> Tensor:
        """(n, dims) latents, of classes (n,) where they are given."""
        edges = self.weights(label).cumsum(-1)
        level = noise.uniform(n).to(edges)[:, None] * edges[..., -1:]
        cluster = (level >= edges).sum(1).clamp(max=self.n_clusters - 1)
        return self.sample_given_cluster(cluster, noise)

    def sample_given_cluster(self, cluster: Tensor, noise: Noise,
                             content: Tensor | None = None) -> Tensor:
        """Latents (n, dims) of clusters (n,), and of content (n, content_dims) where given."""
        vectors = self.vectors(cluster)
        normal = noise.normal(len(cluster), self.normal_dims).to(vectors)
        if not self.content_dims:
            return torch.cat([normal, vectors], 1)
        if content is None:
            pick = (noise.uniform(len(cluster)) * KDE_CENTRES).long().clamp(max=KDE_CENTRES - 1)
            centre, h = self.kde_centres[cluster, pick.to(cluster.device)], self.bandwidth
            z = (1 - h**2).sqrt() * centre + h * normal[:, :self.content_dims]
        else:
            residual = (content - self.content_means[cluster])[..., None]
            z = torch.linalg.solve_triangular(self.content_factors[cluster], residual,
                                              upper=False)[..., 0]
        return torch.cat([z, normal[:, self.content_dims:], vectors], 1)

    def content_of_latents(self, z: Tensor) -> Tensor:
        """μ_k + L_k z of latents (n, dims); between clusters, their mixture: (n, content_dims)."""
        white = z[:, :self.content_dims, None].float()
        share = z[:, self.normal_dims:].float() / math.sqrt(2 * self.normal_dims)
        with torch.autocast(z.device.type, enabled=False):
            factors = share @ self.content_factors.flatten(1)
            residual = factors.unflatten(1, (self.content_dims, -1)) @ white
            return share @ self.content_means + residual[..., 0]

    def vectors(self, cluster: Tensor) -> Tensor:
        """The one-hot parts of latents, (n, n_clusters), of clusters (n,)."""
        return (2 * self.normal_dims) ** 0.5 * F.one_hot(cluster.long(), self.n_clusters).float()

    def generator_input(self, z: Tensor) -> Tensor:
        """Latents (n, dims) with the content itself in place of the numbers that stand for it."""
        if not self.content_dims:
            return z
        return torch.cat([self.content_of_latents(z).to(z), z[:, self.content_dims:]], 1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log w_k + log p(content | k) + log N(other; 0, I); −∞ off the vectors of clusters."""
        normal, vector = z.split((self.normal_dims, self.n_clusters), -1)
        cluster = vector.argmax(-1)
        exact = vector == self.vectors(cluster)
        log_weight = (self.weights() / self.weights().sum()).log()[cluster]
        log_weight = log_weight.masked_fill(~exact.all(-1), -torch.inf)
        content, other = normal[..., :self.content_dims], normal[..., self.content_dims:]
        density = StandardNormal(other.shape[-1]).log_prob(other) + log_weight
        if not self.content_dims:
            return density
        return density + log_kde(content, self.kde_centres[cluster], self.bandwidth)


def log_kde(z: Tensor, centres: Tensor, h: Tensor) -> Tensor:
    """log of the mean of N(z; √(1 − h²) c, h² I) over centres c (*batch, K, d), of (*batch, d)."""
    kernels = Normal((1 - h**2).sqrt() * centres, 2 * h.log())
    return kernels.log_prob(z[..., None, :]).logsumexp(-1) - math.log(centres.shape[-2])


def fit_bandwidth(clusters: Sequence[Tensor]) -> float:
    """h under which the examples (n, d) of clusters are likeliest given the others of theirs. From
    0.3 to 1 in steps of 0.05, on the first clusters that are large enough; 1 without any."""
    large = [z for z in clusters if len(z) >= MIN_KDE_SIZE][:KDE_CLUSTERS]
    parts = [z[::math.ceil(len(z) / KDE_CENTRES)] for z in large]

    def log_likelihood(h: Tensor) -> float:
        total = 0.0
        for z in parts:
            n = len(z)
            others = z.expand(n, n, -1)[~torch.eye(n, dtype=torch.bool)].view(n, n - 1, -1)
            total += float(log_kde(z, others, h).sum())
        return total
    return float(max(torch.arange(1.0, 0.27, -0.05), key=log_likelihood))
