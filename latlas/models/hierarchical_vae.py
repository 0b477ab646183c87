"""VAE with two or more stochastic layers (Rezende et al. 2014; Burda et al. 2016, section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from latlas.core.distributions import Distribution, Normal
from latlas.core.errors import ConfigError
from latlas.core.noise import Noise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models import priors
from latlas.models.autoencoder import auto_latent_dim
from latlas.models.priors import Prior
from latlas.models.vae import IWAE, IWAEConfig, normal_of
from latlas.networks import mlp, must_fit


@dataclass(frozen=True)
class HierarchicalVAEConfig(IWAEConfig):
    """Hierarchical VAE: two or more stochastic layers."""

    draws: int = option(1, "draws of the latents per example and step", low=1)
    latents: tuple[int, ...] = option((), "latent dimensions of the layers, the one next to the "
                                      "data first (100,50); empty divides latent_dim two to one",
                                      low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.latents) == 1:
            raise ConfigError(f"latents={self.latents[0]}: give two layers or more (100,50), or "
                              "train vae", option="latents")
        if self.latents and self.latent_dim not in (0, sum(self.latents)):
            raise ConfigError(f"latent_dim={self.latent_dim}: the layers {self.latents} have "
                              f"{sum(self.latents)} numbers together; give one of the two",
                              option="latent_dim")

    def resolve(self, space: Space) -> Self:
        """The layers first: ``latent_dim`` is divided two to one, bottom first."""
        total = sum(self.latents) or self.latent_dim or auto_latent_dim(space)
        if total < 2:
            raise ConfigError("latent_dim=1: two layers need two numbers or more",
                              option="latent_dim")
        top = max(1, total // 3)
        latents = self.latents or (total - top, top)
        return IWAEConfig.resolve(replace(self, latent_dim=total, latents=latents), space)


def conditional(link: nn.Module, h: Tensor, fixed: bool = False) -> Normal:
    """N(μ(h), σ²(h)) of a layer given its neighbour h, (*batch, d), by a network to 2 d' outputs.
    Where it is ``fixed``, a gradient flows to h and to no weight."""
    weights = {k: w.detach() for k, w in link.named_parameters()} if fixed else {}
    out: Tensor = functional_call(link, weights, (h.reshape(-1, h.shape[-1]),))
    return normal_of(out.unflatten(0, h.shape[:-1]))


@dataclass
class Chain:
    """q(z_1|x) Π q(z_l+1|z_l) over flat latents (*batch, Σ d_l), z_1 first: a posterior.

    ``bottom`` is q(z_1|x), ``links[l]`` gives the next layer, ``sizes`` are the d_l. Where it is
    ``fixed``, no gradient flows to the weights of the links.
    """

    bottom: Normal
    links: nn.ModuleList
    sizes: tuple[int, ...]
    fixed: bool = False

    @property
    def mean(self) -> Tensor:
        """The mean of z_1, and of every further layer where the one below is at its mean."""
        return self.upward(self.bottom.mean)

    def sample(self, noise: Noise) -> Tensor:
        return self.upward(self.bottom.sample(noise), noise)

    def draws(self, k: int, noise: Noise) -> Tensor:
        return self.upward(self.bottom.draws(k, noise), noise)

    def detached(self) -> Self:
        return replace(self, bottom=self.bottom.detached(), fixed=True)

    def log_prob(self, z: Tensor) -> Tensor:
        layers = z.split(self.sizes, -1)
        log_q = self.bottom.log_prob(layers[0])
        for link, (below, above) in zip(self.links, pairwise(layers), strict=True):
            log_q = log_q + conditional(link, below, self.fixed).log_prob(above)
        return log_q

    def upward(self, z: Tensor, noise: Noise | None = None) -> Tensor:
        """All layers from the bottom one, each a sample, or without ``noise`` a mean."""
        layers = [z]
        for link in self.links:
            q = conditional(link, layers[-1], self.fixed)
            layers.append(q.mean if noise is None else q.sample(noise))
        return torch.cat(layers, -1)


class ChainPrior(Prior):
    """p(z_L) Π p(z_l|z_l+1) over the same latents; ``top`` is p(z_L), ``links[l]`` p(z_l|z_l+1)."""

    def __init__(self, top: Prior, links: nn.ModuleList, sizes: tuple[int, ...]) -> None:
        super().__init__(sum(sizes))
        self.top, self.links, self.sizes = top, links, sizes

    def log_prob(self, z: Tensor) -> Tensor:
        layers = z.split(self.sizes, -1)
        log_p = self.top.log_prob(layers[-1])
        for link, (below, above) in zip(self.links, pairwise(layers), strict=True):
            log_p = log_p + conditional(link, above).log_prob(below)
        return log_p

    def sample(self, n: int, noise: Noise) -> Tensor:
        top = self.top.sample(n, noise).to(next(self.links.parameters()).device)
        return self.downward(top, noise=noise)

    def downward(self, *layers: Tensor, noise: Noise | None = None) -> Tensor:
        """All layers from the upper ones; the others are samples, or without ``noise`` means."""
        for link in reversed(self.links[:len(self.sizes) - len(layers)]):
            p = conditional(link, layers[0])
            layers = (p.mean if noise is None else p.sample(noise), *layers)
        return torch.cat(layers, -1)


class HierarchicalVAE(IWAE):
    """p(x, z) = p(z_L) Π p(z_l|z_l+1) p(x|z_1), q(z|x) = q(z_1|x) Π q(z_l+1|z_l), from x upward.

    The latents are one flat vector, z_1 first. The bounds are those of :class:`IWAE`: over draws of
    the whole chain, no divergence in closed form.

    Args:
        up, down: networks of the user's own between neighbouring layers, as modules in a row
            (``nn.ModuleList``): ``up[l]`` from (n, d_l) to (n, 2 d_l+1), ``down[l]`` from
            (n, d_l+1) to (n, 2 d_l), means and log variances.
    """

    Config = HierarchicalVAEConfig

    def __init__(self, config: HierarchicalVAEConfig, space: Space, *,
                 encoder: nn.Module | None = None, decoder: nn.Module | None = None,
                 up: nn.Module | None = None, down: nn.Module | None = None) -> None:
        super().__init__(config, space, encoder=encoder, decoder=decoder)
        sizes: tuple[int, ...] = self.config.latents
        self.up = self.links("up", up, list(pairwise(sizes)))
        links = self.links("down", down, [(above, below) for below, above in pairwise(sizes)])
        top = priors.make(self.config.prior, sizes[-1], self.config.prior_components, space)
        self.prior: ChainPrior = ChainPrior(top, links, sizes)

    def links(self, name: str, own: nn.Module | None,
              pairs: Sequence[tuple[int, int]]) -> nn.ModuleList:
        """One network for each pair of sizes (given, of), or those of the user's ``own``."""
        if own is None:
            width, depth = ((self.config.width, self.config.depth) if self.config.network == "mlp"
                            else (mlp.WIDTH, mlp.DEPTH))
            return nn.ModuleList(mlp.mlp(a, 2 * b, width, depth) for a, b in pairs)
        modules = list(own.children())
        if len(modules) != len(pairs):
            raise ConfigError(f"{name} holds {len(modules)} networks; {len(pairs) + 1} layers need "
                              f"{len(pairs)}")
        for module, (a, b) in zip(modules, pairs, strict=True):
            must_fit(name, module, (a,), (2 * b,))
        return nn.ModuleList(modules)

    @property
    def decoder_inputs(self) -> int:
        """The latent dimensions of z_1, next to the data."""
        return self.config.latents[0]

    @property
    def latent_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of every layer, bottom first."""
        return tuple((size,) for size in self.config.latents)

    def encode(self, x: Tensor, *,  # type: ignore[override]  # a VAE's is one normal
               condition: Tensor | None = None) -> Chain:
        """q(z|x): (n, *shape) to a chain of normals over (n, latent_dim)."""
        return Chain(super().encode(x, condition=condition), self.up, self.config.latents)

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> Distribution:
        """p(x|z) = p(x|z_1): of the latents (*batch, latent_dim) it reads the bottom layer."""
        return super().decode(z[..., :self.decoder_inputs], condition=condition)

    def fill_lower_layers(self, z: Tensor, layer: int) -> Tensor:
        """The latents with every layer below ``layer`` (from 0) at its mean given the one above."""
        return self.prior.downward(*z.split(self.config.latents, -1)[layer:])
