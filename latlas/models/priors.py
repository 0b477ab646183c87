"""p(z): what codes are drawn from, and what the posterior is held to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from latlas.core.distributions import Normal
from latlas.core.errors import ConfigError
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.networks.mlp import mlp
from latlas.objectives.divergences import kl_standard_normal
from latlas.objectives.mixture import log_mixture

#: normals of a mixture, pseudo-inputs, coupling layers, unless told otherwise
COMPONENTS = {"standard": 0, "mixture": 100, "vamp": 100, "flow": 8}
#: units of a coupling layer's network, and the largest |log scale| of one layer
COUPLING_WIDTH, COUPLING_SCALE = 128, 2.0


class Prior(nn.Module, ABC):
    """A density over codes of ``dims`` numbers, nats."""

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
        """KL(q ‖ p) per item in one or more parts, (n, parts), nats: here log q(z) − log p(z).

        Unbiased for the one draw z ~ q, (n, dims); a prior with a closed form overrides it.
        """
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
    """N(mean, factor factorᵀ) with a lower triangular factor: a Gaussian fitted to codes."""

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
    """Σ_k w_k N(μ_k, diag σ_k²), all of it learnt.

    Parameters are vectors, not matrices, because weight decay is for matrices alone.
    """

    def __init__(self, dims: int, components: int) -> None:
        super().__init__(dims)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components * dims))
        self.log_vars = nn.Parameter(torch.zeros(components * dims))

    def log_prob(self, z: Tensor) -> Tensor:
        mean, log_var = self._normals()
        return log_mixture(z, mean, log_var, self.logits.log_softmax(0))

    def sample(self, n: int, noise: Noise) -> Tensor:
        edges = self.logits.softmax(0).cumsum(0)[:-1]
        return _drawn(*self._normals(), torch.bucketize(noise.uniform(n).to(edges), edges), noise)

    def _normals(self) -> tuple[Tensor, Tensor]:
        return self.means.view(-1, self.dims), self.log_vars.view(-1, self.dims)


class Vamp(Prior):
    """1/K Σ_k q(z|u_k): the encoder's posteriors at learnt pseudo-inputs u_k.

    (Tomczak & Welling 2018, eq. 9.) Pseudo-inputs are in model units; those of pictures are held
    between −1 and 1 by a hyperbolic tangent.

    Args:
        posterior: (K, *shape) to the normals q(z|u). A method of the model: it is no module here,
            so the encoder's weights stay the encoder's, and a copy of the model calls its own.
    """

    def __init__(self, dims: int, components: int, space: Space,
                 posterior: Callable[[Tensor], Normal]) -> None:
        super().__init__(dims)
        self.shape, self.bounded = space.shape, space.kind == "picture"
        self.raw = nn.Parameter(torch.randn(components * space.dims))
        self.posterior = posterior

    def log_prob(self, z: Tensor) -> Tensor:
        q = self._posteriors()
        return log_mixture(z, q.mean, q.log_var, -z.new_tensor([len(q.mean)]).log())

    def sample(self, n: int, noise: Noise) -> Tensor:
        q = self._posteriors()
        chosen = noise.integers(len(q.mean), n).to(q.mean.device)
        return _drawn(q.mean, q.log_var, chosen, noise)

    def pseudo_inputs(self) -> Tensor:
        """(K, *shape), model units."""
        raw = self.raw.view(-1, *self.shape)
        return torch.tanh(raw) if self.bounded else raw

    def _posteriors(self) -> Normal:
        return self.posterior(self.pseudo_inputs())


class Flow(Prior):
    """A normal seen through affine coupling layers (Dinh et al. 2017), exact both ways.

    log p(z) = log N(f(z); 0, I) + log |det ∂f/∂z|; draws go through the inverse of f, which starts
    as the identity.
    """

    def __init__(self, dims: int, layers: int) -> None:
        super().__init__(dims)
        if dims < 2:
            raise ConfigError("prior=flow needs latent_dim=2 or more: one half of the code moves "
                              "the other")
        first = dims // 2  # a layer gives its halves in the other order
        self.layers = nn.ModuleList(Coupling(dims - first, first) if i % 2 else
                                    Coupling(first, dims - first) for i in range(layers))

    def log_prob(self, z: Tensor) -> Tensor:
        log_det = torch.zeros_like(z[..., 0])
        for layer in self.layers:
            z, stretched = layer(z)
            log_det = log_det + stretched
        return StandardNormal(self.dims).log_prob(z) + log_det

    def sample(self, n: int, noise: Noise) -> Tensor:
        z = noise.normal(n, self.dims).to(next(self.parameters()))
        for layer in reversed(self.layers):
            z = layer.inverse(z)  # type: ignore[operator]
        return z


class Coupling(nn.Module):
    """The first ``kept`` numbers scale and shift the ``moved`` others (Dinh et al. 2017, eq. 7)."""

    def __init__(self, kept: int, moved: int) -> None:
        super().__init__()
        self.kept, self.moved = kept, moved
        self.net = mlp(kept, 2 * moved, COUPLING_WIDTH, 1)
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(*batch, kept + moved) to the same with the halves swapped, and log |det| (*batch,)."""
        kept, moved = z.split((self.kept, self.moved), -1)
        log_scale, shift = self._affine(kept)
        return torch.cat([moved * log_scale.exp() + shift, kept], -1), log_scale.sum(-1)

    def inverse(self, y: Tensor) -> Tensor:
        """What :meth:`forward` made ``y`` of."""
        moved, kept = y.split((self.moved, self.kept), -1)
        log_scale, shift = self._affine(kept)
        return torch.cat([kept, (moved - shift) * (-log_scale).exp()], -1)

    def _affine(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Log scale, bounded so that no layer blows up early, and shift."""
        raw, shift = self.net(kept).to(kept).chunk(2, -1)
        return COUPLING_SCALE * torch.tanh(raw / COUPLING_SCALE), shift


def make(name: str, dims: int, components: int, space: Space,
         posterior: Callable[[Tensor], Normal] | None = None) -> Prior:
    """The prior a config names; ``posterior`` as in :class:`Vamp`.

    Raises:
        ConfigError: ``vamp`` without a posterior, ``flow`` of one dimension.
    """
    if name == "vamp":
        if posterior is None:
            raise ConfigError("prior=vamp is a mixture of normals, which the posterior of the top "
                              "layer is not; use mixture or flow")
        return Vamp(dims, components, space, posterior)
    if name == "standard":
        return StandardNormal(dims)
    return {"mixture": Mixture, "flow": Flow}[name](dims, components)


def _drawn(mean: Tensor, log_var: Tensor, chosen: Tensor, noise: Noise) -> Tensor:
    """A draw from the normal ``chosen`` (n,) for each row; ``mean`` is (K, d)."""
    mean = mean[chosen]
    return mean + torch.exp(0.5 * log_var[chosen]) * noise.normal(*mean.shape).to(mean)
