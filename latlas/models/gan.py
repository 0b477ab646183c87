"""``gan``: a generator of points, tables or pictures against a discriminator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from latlas import networks
from latlas.core.space import Space
from latlas.models.adversarial import Adversarial
from latlas.models.config import GANConfig
from latlas.networks.discriminator import make_discriminator
from latlas.networks.generator import make_generator

#: pictures of up to this many scalars get fully connected networks
MLP_DIMS = 256
#: hidden units (mlp) and channels of the first level (conv), unless told otherwise; hidden layers
#: (mlp), of which narrow modes far apart need many: what lies between them has to be a steep step
WIDTHS, DEPTHS = {"mlp": 128, "conv": 64}, {"mlp": 7, "conv": 0}


class GAN(Adversarial):
    """Generative adversarial network (Goodfellow et al. 2014).

    As it comes: relativistic pairs with both slopes penalised (Huang et al. 2024, eq. 5), which is
    locally convergent and drops no modes. ``objective=non-saturating``, ``penalty=r1``,
    ``penalty_every=16`` is the recipe of StyleGAN2.

    Args:
        generator, discriminator: any modules of the user's own: (n, latent_dim) to (n, *shape),
            and (n, *shape) to (n, 1). With classes the former is given them as (n, classes) too,
            the latter as codes (n,), and may add (n, classes) log-odds to its output.
    """

    condition_dim = 0
    #: the discriminator says which class it sees, too
    names_classes = False

    def __init__(self, config: GANConfig, space: Space, *, generator: nn.Module | None = None,
                 discriminator: nn.Module | None = None) -> None:
        super().__init__(resolved(config, space), space)
        if space.kind != "picture":  # modes are many, narrow, and cheap to learn
            self.precise, self.least_batch, self.least_images = True, 512, 10_000_000
        self.generator = self._generator() if generator is None else generator
        self.discriminator = self._discriminator() if discriminator is None else discriminator
        if generator is not None:
            networks.must_fit("generator", generator, (self.latent_dim,), space.shape,
                              self.condition_dim)
        if discriminator is not None and not self.condition_dim:
            networks.must_fit("discriminator", discriminator, space.shape, (1,))

    def _generator(self) -> nn.Module:
        return make_generator(self.space, self.latent_dim, self.condition_dim, **self._size)

    def _discriminator(self) -> nn.Module:
        return make_discriminator(self.space, classes=self.condition_dim, names=self.names_classes,
                                  group=self.config.minibatch_std,
                                  bias=not self.contest.objective.relative,
                                  spectral=self.config.spectral_norm, **self._size)

    @property
    def _size(self) -> dict[str, Any]:
        return {"kind": self.config.network, "width": self.config.width,
                "depth": self.config.depth}


def resolved(config: GANConfig, space: Space) -> GANConfig:
    """The config with every choice that was left to the data made."""
    kind, penalty = config.network, config.penalty
    if kind == "auto":
        kind = "conv" if space.kind == "picture" and space.dims > MLP_DIMS else "mlp"
    if penalty == "auto":
        penalty = "gp" if config.objective == "wasserstein" else "r1+r2"
    return replace(config, network=kind, width=config.width or WIDTHS[kind],
                   depth=config.depth or DEPTHS[kind], penalty=penalty,
                   latent_dim=config.latent_dim or auto_latent_dim(space),
                   gamma=auto_gamma(penalty, space) if config.gamma is None else config.gamma,
                   gamma_end=auto_gamma_end(penalty, space) if config.gamma_end is None
                   else config.gamma_end)


def auto_latent_dim(space: Space) -> int:
    """64 for pictures; what has few numbers gets a code of twice as many."""
    return 64 if space.kind == "picture" else min(64, max(2, 2 * space.dims))


def auto_gamma(penalty: str, space: Space) -> float:
    """10 for the gradient penalty (Gulrajani et al. 2017), else 1, or for pictures by their size.

    The penalty of a picture sums over pixels, which move together.
    """
    if penalty == "gp":
        return 10.0
    return max(0.01, space.dims / 2048) if space.kind == "picture" else 1.0


def auto_gamma_end(penalty: str, space: Space) -> float:
    """Where the edges of modes are to be told as sharply as rows and points have them, less.

    The gradient penalty is a constraint and stays.
    """
    if penalty == "gp":
        return 1.0
    return 0.1 if space.kind == "picture" else 0.01
