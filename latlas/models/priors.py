"""p(z): what latents are drawn from, and what the posterior is held to."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.distributions import LOG_2PI, Normal
from latlas.core.errors import ConfigError
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.networks.mlp import mlp
from latlas.objectives.elbo import kl_standard_normal

#: the priors by name: normals of a mixture, pseudo-inputs, coupling layers, unless told otherwise
COMPONENTS = {"standard": 0, "mixture": 100, "vamp": 100, "flow": 8}
#: units of a coupling layer's network, and the largest |log scale| of one layer
COUPLING_WIDTH, COUPLING_SCALE = 128, 2.0
#: how a class is named where a conditional model misses one
NAME_IT = "name the class with --label or, of data, its column with --data-option label=NAME"


class Prior(nn.Module, ABC):
    """A density of latent vectors of ``dims`` dimensions, nats."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), (*batch, dims) to (*batch,), nats."""

    @abstractmethod
    def sample(self, n: int, noise: Noise) -> Tensor:
        """(n, dims) draws, on the device of ``noise``."""

    def kl(self, q: Normal, z: Tensor) -> Tensor:
        """KL(q ‖ p) per example in one or more parts, (n, parts), nats: here log q(z) − log p(z).
        Unbiased for the one draw z ~ q, (n, dims); a prior with a closed form overrides it."""
        return (q.log_prob(z) - self.log_prob(z))[:, None]


class StandardNormal(Prior):
    """N(0, I)."""

    def log_prob(self, z: Tensor) -> Tensor:
        return Normal(torch.zeros_like(z), z.new_zeros(())).log_prob(z)

    def sample(self, n: int, noise: Noise) -> Tensor:
        return noise.normal(n, self.dims)

    def kl(self, q: Normal, z: Tensor) -> Tensor:
        """In closed form, of every dimension."""
        return kl_standard_normal(q.mean, q.log_var)


class FullNormal(Prior):
    """N(mean, factor factorᵀ) with a lower triangular factor: a Gaussian fitted to latents."""

    def __init__(self, mean: Tensor, factor: Tensor) -> None:
        super().__init__(len(mean))
        self.mean, self.factor = mean, factor

    def log_prob(self, z: Tensor) -> Tensor:
        white = torch.linalg.solve_triangular(self.factor, (z - self.mean)[..., None], upper=False)
        standard = StandardNormal(self.dims).log_prob(white[..., 0])
        return standard - self.factor.diagonal().log().sum()

    def sample(self, n: int, noise: Noise) -> Tensor:
        return self.mean + noise.normal(n, self.dims).to(self.mean) @ self.factor.T


class Mixture(Prior):
    """Σ_k w_k N(μ_k, diag σ_k²), all of it learnt. Parameters are vectors, not matrices, because
    weight decay is for matrices alone."""

    def __init__(self, dims: int, components: int) -> None:
        super().__init__(dims)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components * dims))
        self.log_vars = nn.Parameter(torch.zeros(components * dims))

    def log_prob(self, z: Tensor) -> Tensor:
        means, log_vars = self.means.view(-1, self.dims), self.log_vars.view(-1, self.dims)
        return log_mixture(z, means, log_vars, self.logits.log_softmax(0))

    def sample(self, n: int, noise: Noise) -> Tensor:
        edges = self.logits.softmax(0).cumsum(0)[:-1]
        k = torch.bucketize(noise.uniform(n).to(edges), edges)
        means, log_vars = self.means.view(-1, self.dims), self.log_vars.view(-1, self.dims)
        return Normal(means[k], log_vars[k]).sample(noise)


class Vamp(Prior):
    """1/K Σ_k q(z|u_k): the encoder's posteriors at learnt pseudo-inputs u_k.

    (Tomczak & Welling 2018, eq. 9.) Pseudo-inputs are in model units; those of images are held
    between −1 and 1 by a hyperbolic tangent.

    Args:
        posterior: (K, *shape) to the normals q(z|u). A method of the model: it is no module here,
            so the encoder's weights stay the encoder's, and a copy of the model calls its own.
    """

    def __init__(self, dims: int, components: int, space: Space,
                 posterior: Callable[[Tensor], Normal]) -> None:
        super().__init__(dims)
        self.shape, self.bounded = space.shape, space.kind == "image"
        self.raw = nn.Parameter(torch.randn(components * space.dims))
        self.posterior = posterior

    def log_prob(self, z: Tensor) -> Tensor:
        q = self.posterior(self.pseudo_inputs())
        return log_mixture(z, q.mean, q.log_var, z.new_full((1,), -math.log(len(q.mean))))

    def sample(self, n: int, noise: Noise) -> Tensor:
        q = self.posterior(self.pseudo_inputs())
        k = noise.integers(len(q.mean), n).to(q.mean.device)
        return Normal(q.mean[k], q.log_var[k]).sample(noise)

    def pseudo_inputs(self) -> Tensor:
        """(K, *shape), model units."""
        raw = self.raw.view(-1, *self.shape)
        return torch.tanh(raw) if self.bounded else raw


class Flow(Prior):
    """A normal seen through affine coupling layers (Dinh et al. 2017), exact both ways.

    log p(z) = log N(f(z); 0, I) + log |det ∂f/∂z|; draws go through the inverse of f, which starts
    as the identity.
    """

    def __init__(self, dims: int, layers: int) -> None:
        super().__init__(dims)
        if dims < 2:
            raise ConfigError("prior=flow needs latent_dim=2 or more: one half of the latent "
                              "vector moves the other", option="prior")
        first = dims // 2  # a layer gives its halves in the other order
        self.layers = nn.ModuleList(Coupling(dims - first, first) if i % 2 else
                                    Coupling(first, dims - first) for i in range(layers))

    def log_prob(self, z: Tensor) -> Tensor:
        log_det = torch.zeros_like(z[..., 0])
        for layer in self.layers:
            z, stretch = layer(z)
            log_det = log_det + stretch
        return StandardNormal(self.dims).log_prob(z) + log_det

    def sample(self, n: int, noise: Noise) -> Tensor:
        z = noise.normal(n, self.dims).to(next(self.parameters()))
        for layer in reversed(self.layers):
            z = layer.inverse(z)  # type: ignore[operator]
        return z


class Coupling(nn.Module):
    """The first ``fixed`` numbers scale and shift the ``moving`` (Dinh et al. 2017, eq. 7)."""

    def __init__(self, fixed: int, moving: int) -> None:
        super().__init__()
        self.fixed, self.moving = fixed, moving
        self.net = mlp(fixed, 2 * moving, COUPLING_WIDTH, 1)
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def affine(self, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """Log scale, bounded so that no layer blows up early, and shift."""
        raw, shift = self.net(fixed).to(fixed).chunk(2, -1)
        return COUPLING_SCALE * torch.tanh(raw / COUPLING_SCALE), shift

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(*batch, fixed + moving) to the same with the halves swapped, and log |det| (*batch,)."""
        fixed, moving = z.split((self.fixed, self.moving), -1)
        log_scale, shift = self.affine(fixed)
        return torch.cat([moving * log_scale.exp() + shift, fixed], -1), log_scale.sum(-1)

    def inverse(self, y: Tensor) -> Tensor:
        """What :meth:`forward` turned into ``y``."""
        moving, fixed = y.split((self.moving, self.fixed), -1)
        log_scale, shift = self.affine(fixed)
        return torch.cat([fixed, (moving - shift) * (-log_scale).exp()], -1)


def make(name: str, dims: int, components: int, space: Space,
         posterior: Callable[[Tensor], Normal] | None = None) -> Prior:
    """The prior a config names; ``posterior`` as in :class:`Vamp`. ConfigError: ``vamp`` without a
    posterior, ``flow`` of one dimension."""
    if name == "standard":
        return StandardNormal(dims)
    if name != "vamp":
        return {"mixture": Mixture, "flow": Flow}[name](dims, components)
    if posterior is None:
        raise ConfigError("prior=vamp is a mixture of normals, which the posterior of the top "
                          "layer is not; use mixture or flow", option="prior")
    return Vamp(dims, components, space, posterior)


def log_mixture(z: Tensor, mean: Tensor, log_var: Tensor, log_weights: Tensor) -> Tensor:
    """log Σ_k w_k N(z; μ_k, diag σ_k²), (*batch, d) to (*batch,), nats.

    ``mean`` and ``log_var`` are (K, d), ``log_weights`` (K,) or (1,). The squares are multiplied
    out into matrix products, which need no (*batch, K, d), in float64, where nothing is lost; MPS
    has none, and takes the differences.
    """
    if z.device.type == "mps":
        parts = Normal(mean, log_var).log_prob(z.float()[..., None, :])
        return (log_weights + parts).logsumexp(-1).to(z.dtype)
    wide, mean, log_var = z.double(), mean.double(), log_var.double()
    precision = torch.exp(-log_var)
    square = wide.square() @ precision.T - 2 * wide @ (mean * precision).T
    rest = (mean.square() * precision + log_var + LOG_2PI).sum(-1)
    joint = log_weights.double() - 0.5 * (square + rest)
    return joint.logsumexp(-1).to(z.dtype)


def class_vectors(label: Tensor, classes: int, latent_dim: int) -> Tensor:
    """Classes (n,), or clusters, as one-hot (n, classes), to stand beside latents.

    The 1 is √(2 · latent_dim), longer than a latent vector: beside it a plain 1 is so faint that
    a VAE's latents learn the class as well, and samples then ignore the label.
    """
    return (2 * latent_dim) ** 0.5 * F.one_hot(label.long(), classes).float()
