"""``gan``: a generator of points, tables or pictures against a discriminator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from latlas import networks
from latlas.core.batch import Batch
from latlas.core.errors import ConfigError
from latlas.core.model import Loss, Step
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.models.adversarial import Adversarial
from latlas.models.config import GANConfig
from latlas.models.groups import Groups
from latlas.networks.conv import LEAST_SIDE
from latlas.networks.discriminator import make_discriminator
from latlas.networks.generator import make_generator

#: pictures of up to this many scalars, and slim ones, get fully connected networks
MLP_DIMS = 256
#: groups of alike pictures, unless told otherwise
GROUPS = 200
#: numbers of the sketch, unless told otherwise, and the weight of keeping to it
SKETCH, SKETCH_WEIGHT = 32, 3.0
#: hidden units (mlp) and channels of the first level (conv), unless told otherwise; hidden layers
#: (mlp), of which narrow modes far apart need many: what lies between them has to be a steep step
WIDTHS, DEPTHS = {"mlp": 128, "conv": 64}, {"mlp": 7, "conv": 0}


class GAN(Adversarial):
    """Generative adversarial network (Goodfellow et al. 2014).

    As it comes: relativistic pairs with both slopes penalised (Huang et al. 2024, eq. 5), which is
    locally convergent and drops no modes. Pictures are told apart in groups of alike ones, each
    with codes of its own, and a fake is judged among the real pictures of its group: how many
    there are of what kind is known, not learnt (Liu et al. 2020, "Diverse image generation via
    self-conditioned GANs"). So is what they look like from afar: a fake has the sketch of the real
    picture beside it, and pays for leaving it (:class:`Groups`). ``objective=non-saturating``,
    ``penalty=r1``, ``penalty_every=16`` is the recipe of StyleGAN2.

    Args:
        generator, discriminator: any modules of the user's own: (n, latent_dim) to (n, *shape),
            and (n, *shape) to (n, 1). With classes the former is given them as (n, classes) too,
            the latter as codes (n,), and may add (n, classes) log-odds to its output.
    """

    Config = GANConfig
    #: the discriminator says which class it sees, too
    names_classes = False

    def __init__(self, config: GANConfig, space: Space, *, generator: nn.Module | None = None,
                 discriminator: nn.Module | None = None) -> None:
        own = generator is None and discriminator is None
        super().__init__(resolved(config, space, own), space)
        if self.config.groups:
            if discriminator is not None:
                raise ConfigError(f"groups={config.groups}: a discriminator of your own is not "
                                  "told of groups; leave them out")
            self.prior = Groups(self.latent_dim, space.shape, self.config.groups,
                                self.condition_dim, self.config.sketch or 0)
            self.latent_dim = self.prior.dims
        if space.kind == "picture":  # what is learnt comes with steps more than with pictures
            self.defaults = replace(self.defaults, max_batch_size=64, learning_rate=5e-4)
        else:  # modes are many, narrow, and cheap to learn
            self.defaults = replace(self.defaults, needs_fp32=True, min_batch_size=512,
                                    min_images=10_000_000)
        self.generator = self._generator() if generator is None else generator
        self.discriminator = self._discriminator() if discriminator is None else discriminator
        self.contest.together = discriminator is None  # items may meet in a batch, as in BatchNorm
        if generator is not None:
            networks.must_fit("generator", generator, (self.latent_dim,), space.shape,
                              self.condition_dim)
        if discriminator is not None and not self.condition_dim:
            networks.must_fit("discriminator", discriminator, space.shape, (1,))

    def _generator(self) -> nn.Module:
        return make_generator(self.space, self.latent_dim, self.condition_dim, **self._size)

    def _discriminator(self) -> nn.Module:
        return make_discriminator(self.space, classes=self.condition_dim, names=self.names_classes,
                                  groups=self.config.groups,
                                  sketch=self.groups.sketch if self.groups else 0,
                                  group=self.config.minibatch_std,
                                  bias=not self.contest.objective.relative,
                                  spectral=self.config.spectral_norm, **self._size)

    def prepare(self, batches: Iterable[Batch], n_train: int) -> None:
        """Find the groups."""
        if self.groups:
            self.groups.fit(batches, n_train)

    def sample_latents(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """(n, latent_dim) codes of items, of a class where one is told."""
        groups = self.groups
        return (groups.draw(n, noise, condition).to(self.device) if groups
                else super().sample_latents(n, noise=noise))

    def guess(self, x: Tensor, *, noise: Noise, condition: Tensor | None = None) -> Tensor | None:
        """Codes (n, latent_dim) of the items' groups and sketches."""
        groups = self.groups
        if groups is None:
            return None
        sketch = groups.sketch_of(x) if groups.sketch else None
        return groups.at(groups.of(x, condition), noise, sketch)

    def _made(self, batch: Batch, step: Step) -> Tensor:
        """A fake of the group of every real item, and of its sketch."""
        if not self.groups:
            return super()._made(batch, step)
        z = self.groups.at(self._group(batch, step), step.noise, self._sketch(batch, step))
        return self.decode(z, condition=self.conditioning(batch, step.noise)).mean

    def _known(self, batch: Batch, step: Step) -> tuple[Tensor | None, ...]:
        """The condition, the group, and the sketch."""
        known = super()._known(batch, step)
        if not self.groups:
            return known
        return (*(known or (None,)), self._group(batch, step), self._sketch(batch, step))

    def fool(self, batch: Batch, step: Step) -> Loss:
        """The generator's loss, and how far fakes are from the sketches they were made of."""
        done, wanted = super().fool(batch, step), self._sketch(batch, step)
        if not self.groups or wanted is None:
            return done
        off = (self.groups.sketch_of(self._fakes(batch, step)) - wanted).square().mean()
        return Loss(done.total + SKETCH_WEIGHT * off, done.terms | {"off the sketch": off})

    def _generated(self, z: Tensor, condition: Tensor | None) -> Tensor:
        return super()._generated(self._spelt_out(z), condition)

    def _spelt_out(self, z: Tensor) -> Tensor:
        """Codes as the generator reads them."""
        return self.groups.spelt_out(z) if self.groups else z

    def _group(self, batch: Batch, step: Step) -> Tensor:
        """The groups (n,) of the batch's items."""
        if self.groups and "group" not in step.cache:
            step.cache["group"] = self.groups.of(
                batch.x, self.conditioning(batch, step.noise))
        group: Tensor = step.cache["group"]
        return group

    def _sketch(self, batch: Batch, step: Step) -> Tensor | None:
        """The sketches (n, sketch) of the batch's items, where codes have any."""
        if self.groups and self.groups.sketch and "sketch" not in step.cache:
            step.cache["sketch"] = self.groups.sketch_of(batch.x)
        return step.cache.get("sketch")

    @property
    def groups(self) -> Groups | None:
        """The groups of alike items that codes belong to, if they do."""
        return self.prior if isinstance(self.prior, Groups) else None

    @property
    def _size(self) -> dict[str, Any]:
        return {"kind": self.config.network, "width": self.config.width,
                "depth": self.config.depth}


def resolved(config: GANConfig, space: Space, grouped: bool) -> GANConfig:
    """The config with the networks and groups that were left to the data chosen.

    ``grouped``: the networks can be told of groups.
    """
    kind, groups = config.network, config.groups
    if groups is None:
        groups = GROUPS if space.kind == "picture" and grouped else 0
    if config.sketch and not groups:
        raise ConfigError(f"sketch={config.sketch} goes with groups of pictures; give groups, too, "
                          "or leave it out")
    sketch = config.sketch
    if sketch is None:
        sketch = SKETCH if space.kind == "picture" and groups else 0
    if kind == "auto":
        large = space.dims > MLP_DIMS and min(space.shape[1:], default=0) >= LEAST_SIDE
        kind = "conv" if space.kind == "picture" and large else "mlp"
    return replace(config, network=kind, width=config.width or WIDTHS[kind],
                   depth=config.depth or DEPTHS[kind], groups=groups, sketch=sketch)
