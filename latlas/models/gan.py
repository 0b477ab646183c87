"""``gan`` and ``conditional-gan``, of images, rows or points; and what GANs share."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas import networks
from latlas.core.distributions import PointMass
from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Batch, Loss, Model, Phase, Step, TrainingDefaults
from latlas.core.noise import Noise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.cluster_prior import CONTENT_WEIGHT, ClusterPrior
from latlas.models.priors import NAME_IT, Prior, StandardNormal, class_vectors
from latlas.networks.conv import LEAST_SIDE
from latlas.networks.gan import ada_augment, diff_augment, make_discriminator, make_generator
from latlas.objectives.adversarial import OBJECTIVES, AdversarialLoss, Objective, find_objective

#: sets of fewer images are augmented; of fewer examples all are memorised, augmented or not
AUGMENT_BELOW, MEMORISED_BELOW = 10_000, 100
#: signal of D that adaptive augmentation aims at, and the examples over which its probability
#: can rise from 0 to 1 (Karras et al. 2020b, section 3.1)
ADA_TARGET, ADA_EXAMPLES = 0.6, 500_000
#: default units of hidden layers and channels of the finest level; default hidden layers, of which
#: narrow modes far apart need many: what lies between them has to be a steep step
WIDTHS, DEPTHS = {"mlp": 128, "conv": 64, "light": 16}, {"mlp": 7, "conv": 0, "light": 0}
#: least shorter side for the light networks, and least longer one for half their width
LIGHT_SIDE, HALF_WIDTH_SIDE = 48, 97


@dataclass(frozen=True)
class AdversarialConfig:
    """A generator against a discriminator."""

    latent_dim: int = option(0, "latent dimensions; 0 chooses from the data's size", low=0,
                             high=10_000)
    width: int = option(0, "channels of the finest size; 0: 32", low=0)
    depth: int = option(0, "downsampling stages; 0: until a side is 4 … 7", low=0)
    objective: str = option("relativistic", f"adversarial loss: {', '.join(OBJECTIVES)}, or one "
                                            "that register_objective has named")
    penalty: str = option("auto", "gradient penalty of the discriminator: at real examples (r1), "
                          "at generated ones (r2), at both, or towards 1 between them (gp); auto: "
                          "gp for wasserstein, else r1+r2",
                          choices=("auto", "none", "r1", "r2", "r1+r2", "gp"))
    gamma: float | None = option(None, "weight of the gradient penalty; none: 10 for gp, else by "
                                 "the size of images and 1 for other data", low=0, high=1e6)
    gamma_end: float | None = option(None, "share of gamma that is left at the end of the budget; "
                                           "none: 1 of gp, else 0.1 for images, 0.01 for others",
                                     low=1e-6, high=1)
    r1_interval: int = option(4, "steps from one gradient penalty to the next, each times as many",
                              low=1)
    minibatch_std: int = option(4, "examples of a group whose spread the discriminator reads; 0: "
                                   "none", low=0)
    augment: str = option("auto", "random augmentation of what the discriminator sees: adaptive "
                          "(ada) or always (diff); auto: ada for fewer than 10,000 images",
                          choices=("auto", "none", "ada", "diff"))

    def __post_init__(self) -> None:
        find_objective(self.objective)
        if self.minibatch_std == 1:
            raise ConfigError("minibatch_std=1: examples of a group of one cannot differ; choose 2 "
                              "or more, or 0 for none")

    def resolve(self, space: Space) -> Self:
        """With what was left to the data filled in.

        R1 of an image sums over pixels, which vary together: γ grows with their number, and is 10
        for gp (Gulrajani et al. 2017). γ falls to ``gamma_end``, so that edges of modes can become
        sharp; gp is a constraint and stays. ConfigError for augmentation of what is no image.
        """
        image, penalty = space.kind == "image", self.penalty
        if not image and self.augment not in ("auto", "none"):
            raise ConfigError(f"augment={self.augment} is for images; leave it out")
        if penalty == "auto":
            penalty = "gp" if self.objective == "wasserstein" else "r1+r2"
        gamma = 10.0 if penalty == "gp" else max(0.01, space.dims / 2048) if image else 1.0
        gamma_end = 1.0 if penalty == "gp" else 0.1 if image else 0.01
        return replace(self, penalty="none" if self.gamma == 0 else penalty,
                       gamma=gamma if self.gamma is None else self.gamma,
                       gamma_end=gamma_end if self.gamma_end is None else self.gamma_end,
                       augment=self.augment if image else "none", width=self.width or 32,
                       latent_dim=self.latent_dim or (64 if image else
                                                      min(64, max(2, 2 * space.dims))))


@dataclass(frozen=True)
class GANConfig(AdversarialConfig):
    """Generative adversarial network."""

    network: str = option("auto", "kind of network; auto: light for images of at least 48 pixels a "
                          "side, conv for those of over 256 scalars and 4 pixels a side, else mlp",
                          choices=("auto", "mlp", "conv", "light"))
    width: int = option(0, "units of a hidden layer (mlp) or channels of the finest level; 0: 128 "
                           "(mlp), 64 (conv), 16 (light; 8 for sides over 96)", low=0)
    depth: int = option(0, "hidden layers of the generator (mlp; the discriminator has half as "
                           "many) or downsampling stages; 0: the default", low=0)
    r1_interval: int = option(0, "steps from one gradient penalty to the next, each times as many; "
                                 "0: 4 with the light networks, else 1", low=0)
    minibatch_std: int = option(0, "examples of a group whose spread the discriminator reads; 0: "
                                   "none", low=0)
    spectral_norm: bool = option(False, "divide the discriminator's weights by their largest "
                                        "singular value")
    prior: str = option("auto", "of latents: N(0, I) (normal), or with a cluster of alike images "
                                "and their content (clusters); auto: clusters for images",
                        choices=("auto", "normal", "clusters"))
    n_clusters: int | None = option(None, "clusters at most, for prior=clusters; none: 200", low=1,
                                    high=10_000)
    content_dims: int | None = option(None, "latent dimensions that say what an image looks like "
                                      "from afar, for prior=clusters; none: 32 for images, else 0",
                                      low=0, high=1_000)

    def resolve(self, space: Space) -> Self:
        """Network and prior as well; ConfigError for options of clusters with another prior."""
        config, image = super().resolve(space), space.kind == "image"
        prior = self.prior if self.prior != "auto" else "clusters" if image else "normal"
        n_clusters, content_dims = self.n_clusters, self.content_dims
        if prior == "clusters":
            n_clusters = n_clusters or 200
            content_dims = 32 * image if content_dims is None else content_dims
        elif n_clusters or content_dims:
            setting = f"n_clusters={n_clusters}" if n_clusters else f"content_dims={content_dims}"
            raise ConfigError(f"{setting} goes with prior=clusters; choose that, too, or leave it "
                              "out")
        network, sides = self.network, space.shape[1:] if image else (0,)
        if network == "auto":
            large = space.dims > 256 and min(sides) >= LEAST_SIDE
            network = "light" if min(sides) >= LIGHT_SIDE else "conv" if large else "mlp"
        halved = (light := network == "light") and max(sides) >= HALF_WIDTH_SIDE
        return replace(config, network=network, width=self.width or WIDTHS[network] >> halved,
                       depth=self.depth or DEPTHS[network], prior=prior, n_clusters=n_clusters,
                       content_dims=content_dims, r1_interval=self.r1_interval or 1 + 3 * light)


@dataclass(frozen=True)
class ConditionalGANConfig(GANConfig):
    """A GAN of given classes."""

    class_loss_weight: float = option(3.0, "weight of the class loss (AC-GAN): the discriminator "
                                      "learns to classify real examples, the generator to make "
                                      "fakes that are classified right; 0: fakes are as ambiguous "
                                      "as the data", low=0)

    def resolve(self, space: Space) -> Self:
        """As of a GAN; DataError for data of fewer than two classes."""
        if len(space.classes) < 2:
            raise DataError("conditional-gan needs labels of two classes or more, this data has "
                            f"{len(space.classes) or 'none'}: name their column with --label, or "
                            "train gan")
        return super().resolve(space)


class Adversarial(Model):
    """A generator G of latents z and a discriminator D: what all GANs share but their step."""

    defaults = TrainingDefaults(ema_modules=("generator",), monitored=True,
                                batch_multiple="minibatch_std")
    prior: Prior
    generator: nn.Module
    discriminator: nn.Module
    augment_p: Tensor

    def __init__(self, config: Any, space: Space, objective: Objective | None = None) -> None:
        super().__init__(config.resolve(space), space)
        self.adversarial = AdversarialLoss(self.config, objective)
        self.objective = self.adversarial.objective
        self.latent_dim = self.config.latent_dim
        self.prior = StandardNormal(self.latent_dim)
        self.register_buffer("augment_p", torch.zeros(()))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Discriminator, its penalty where that is lazy, generator."""
        return (*self.adversarial.phases("discriminator", "discriminator"),
                Phase("generator", ("generator",)))

    @property
    def clusters(self) -> ClusterPrior | None:
        """The prior, if it has clusters, or whatever else examples and their fakes share."""
        shared = hasattr(self.prior, "cluster_and_content")
        return self.prior if shared else None  # type: ignore[return-value]

    def describe(self, n_train: int) -> str:
        """Objective, penalty with its weight at the start and the end, and augmentation."""
        image = self.space.kind == "image"
        return self.adversarial.describe() + f", augment={self.augmentation(n_train)}" * image

    def warnings(self, n_train: int) -> list[str]:
        """So few n_train that the discriminator memorises them."""
        if n_train >= MEMORISED_BELOW:
            return []
        kind, image = self.augmentation(n_train), self.space.kind == "image"
        what, hint = ("image", "augment=ada would delay that") if image else (
            "example", "give more")
        if kind != "none":
            hint = f"augment={kind}, in use, delays that"
        return [f"only {n_train} training {what}{'s' * (n_train != 1)}: so few are memorised, and "
                f"samples will be copies of them; {hint}"]

    def augmentation(self, n_train: int) -> str:
        """``none``, ``ada`` or ``diff``."""
        if self.config.augment != "auto":
            return str(self.config.augment)
        return "ada" if 0 < n_train < AUGMENT_BELOW else "none"

    def augment(self, x: Tensor, step: Step) -> Tensor:
        """Examples as the discriminator sees them."""
        kind = self.augmentation(step.n_train)
        if kind == "ada":
            return ada_augment(x, self.augment_p, step.noise)
        return diff_augment(x, step.noise) if kind == "diff" else x

    def update_ada_p(self, ada_signal: Tensor, n: int, step: Step) -> None:
        """Augment more if D is surer of real examples than :data:`ADA_TARGET`, else less (Karras
        et al. 2020b, section 3). ``n`` are this process's examples; those of all count."""
        if self.augmentation(step.n_train) == "ada":
            share = n * step.noise.world / step.parts / ADA_EXAMPLES
            self.augment_p.add_((ada_signal.detach() - ADA_TARGET).sign() * share).clamp_(0, 1)

    def sample_latents(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """(n, latent_dim) latents; where they differ by the class, of a condition (n,)."""
        z = self.prior.sample(n, noise) if self.clusters is None else (
            self.clusters.sample(n, noise, condition))
        return z.to(self.device)

    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """G(z) of such latents: (n, *shape) model units."""
        z = self.sample_latents(n, noise=noise, condition=condition)
        return self.decode(z, condition=condition).mean

    def decode(self, z: Tensor, *, condition: Tensor | None = None) -> PointMass:
        """(*batch, latent_dim) to (*batch, *shape); a condition (n, …) serves all leading draws."""
        images = self.generate(z.reshape(-1, z.shape[-1]), condition).float()
        return PointMass(images.reshape(*z.shape[:-1], *self.space.shape), len(self.space.shape))

    def generate(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """G(z) of latents (n, latent_dim): (n, *shape)."""
        return self.generator(z)


class GAN(Adversarial):
    """Generative adversarial network (Goodfellow et al. 2014).

    With ``prior=normal``, ``objective=non-saturating`` and ``penalty=none`` it is the textbook GAN.
    By default the objective is relativistic with R1 and R2 (Huang et al. 2024, eq. 5), which is
    locally convergent and drops no modes, and images have a :class:`ClusterPrior`: each fake has
    the cluster and the content of the real image that it is paired with, and D is told both. How
    many images there are of what kind is thus counted, not learnt.

    Args:
        generator, discriminator: any modules of the user's own: (n, latent_dim) to (n, *shape),
            and (n, *shape) to (n, 1). With classes the former takes them as (n, classes) too, the
            latter as integers (n,), and may add (n, classes) logits to its output.
        prior: of latents, in place of the one that the config names.
        objective: in place of the one that the config names.
    """

    Config = GANConfig
    #: ``label`` for a model whose networks read the class
    takes_condition: Literal["label"] | None = None

    def __init__(self, config: GANConfig, space: Space, *, generator: nn.Module | None = None,
                 discriminator: nn.Module | None = None,
                 prior: Prior | None = None, objective: Objective | None = None) -> None:
        self.condition_dim = classes = len(space.classes) if self.takes_condition else 0
        if config.prior == "auto" and (generator is not None or discriminator is not None):
            config = replace(config, prior="normal")
        super().__init__(config, space, objective)
        if prior is None and self.config.prior == "clusters":
            prior = ClusterPrior(self.latent_dim, space.shape, self.config.n_clusters, classes,
                                 self.config.content_dims)
        self.prior = prior = self.prior if prior is None else prior
        self.latent_dim = prior.dims
        if space.kind == "image":  # learning takes steps more than images
            most = 32 if self.config.network == "light" else 64
            self.defaults = replace(self.defaults, max_batch_size=most, learning_rate=5e-4)
        else:  # modes are many, narrow, and cheap to learn
            self.defaults = replace(self.defaults, needs_fp32=True, min_batch_size=512,
                                    min_images=10_000_000)
        size: dict[str, Any] = {k: getattr(self.config, k) for k in ("network", "width", "depth")}
        self.generator = generator if generator is not None else make_generator(
            space, self.latent_dim, classes, **size)
        if generator is not None:
            networks.must_fit("generator", generator, (self.latent_dim,), space.shape, classes)
        if discriminator is None:
            self.discriminator = make_discriminator(
                space, classes=classes,
                class_logits=bool(classes) and self.config.class_loss_weight > 0,
                clusters=self.clusters.n_clusters if self.clusters else 0,
                content_dims=self.clusters.content_dims if self.clusters else 0,
                minibatch_std=config.minibatch_std, bias=not self.objective.shift_invariant,
                spectral=config.spectral_norm, **size)
            return
        self.discriminator = discriminator
        self.adversarial.concat_real_fake = False  # examples may meet in a batch, as in BatchNorm
        if self.clusters:
            raise ConfigError("prior=clusters: a discriminator of your own is not told of "
                              "clusters; choose prior=normal")
        if not classes:
            networks.must_fit("discriminator", discriminator, space.shape, (1,))

    def prepare(self, batches: Iterable[Batch], n_train: int) -> None:
        """Fit the prior, where it has something to fit."""
        if self.clusters:
            self.clusters.fit(batches, n_train)

    def losses(self, batch: Batch, step: Step) -> Iterator[tuple[str, Loss]]:
        """The discriminator's loss, its penalty where that is lazy, the generator's loss."""
        x, label = batch.x, self.conditioning(batch, step.noise)
        clusters, content = self.clusters, None
        conditions: tuple[Tensor | None, ...] = (label,) if self.condition_dim else ()
        if clusters is None:
            z = self.prior.sample(len(x), step.noise).to(x.device)
        else:
            cluster, content = clusters.cluster_and_content(x, label)
            z = clusters.sample_given_cluster(cluster, step.noise, content)
            conditions = (label, cluster, content)
        fakes = self.generate(z, label).float()

        def discriminate(images: Tensor) -> Tensor:
            """D's outputs for one batch of the step's conditions, or several in a row."""
            times = len(images) // len(x)
            return self.discriminator(images, *(
                c if c is None else c.repeat(times, *[1] * (c.dim() - 1)) for c in conditions))

        inputs = self.augment(x, step), self.augment(fakes.detach(), step)
        total, terms, outputs = self.adversarial.discriminator_loss(discriminate, *inputs, step)
        if self.augmentation(step.n_train) == "ada":
            terms["augmented"] = self.augment_p.clone()
        if (class_loss := self.class_loss(outputs, label)) is not None:
            total, terms = total + class_loss, terms | {"class": class_loss}
        yield "discriminator", Loss(total, terms)

        if self.adversarial.due(step):
            inputs = self.augment(x, step), self.augment(fakes.detach(), step)
            yield "penalty", Loss(*self.adversarial.penalty(discriminate, inputs, step))

        augmented = self.augment(fakes, step)
        real = self.augment(x, step) if self.objective.generator_uses_real else x
        total, outputs = self.adversarial.generator_loss(discriminate, augmented, real)
        parts = {"generator": total}
        if (class_loss := self.class_loss(outputs, label)) is not None:
            total = total + class_loss
        if clusters and content is not None:
            distance = (clusters.content_of(fakes) - content).square().mean()
            total, parts = total + CONTENT_WEIGHT * distance, parts | {"content": distance}
        yield "generator", Loss(total, parts)
        self.update_ada_p(terms["ada_signal"], len(x), step)

    def class_loss(self, outputs: Tensor, label: Tensor | None) -> Tensor | None:
        """−log p(class | example), mean nats times ``class_loss_weight``, by D's further outputs;
        none for a discriminator of the user's own that gives one logit."""
        if label is None or outputs.shape[1] == 1:
            return None
        if outputs.shape[1] != 1 + self.condition_dim:
            n = self.condition_dim
            raise ConfigError("discriminator must turn examples and classes into (n, 1), or into "
                              f"(n, {1 + n}): how real, then the {n} classes; it gives (n, "
                              f"{outputs.shape[1]})")
        return self.config.class_loss_weight * F.cross_entropy(outputs[:, 1:], label)

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """The batch's own condition, else its labels, for a model that reads the class."""
        if not self.takes_condition:
            return None
        return batch.label if batch.condition is None else batch.condition

    def generate(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """G(z) of latents (n, latent_dim), and of classes (n,), or fewer, which then repeat."""
        inputs = [self.clusters.generator_input(z) if self.clusters else z]
        if self.takes_condition:
            if condition is None:
                raise DataError(f"conditional-gan needs a label for every example: {NAME_IT}")
            vectors = class_vectors(condition, self.condition_dim, self.config.latent_dim)
            inputs.append(vectors.repeat(len(z) // len(vectors), 1))
        return self.generator(*inputs)

    def initial_latents(self, x: Tensor, *, noise: Noise,
                        condition: Tensor | None = None) -> Tensor | None:
        """Latents (n, latent_dim) of the images' clusters and content."""
        if self.clusters is None:
            return None
        cluster, content = self.clusters.cluster_and_content(x, condition)
        return self.clusters.sample_given_cluster(cluster, noise, content)


class ConditionalGAN(GAN):
    """G(z, c) against a discriminator that projects on the class (Miyato & Koyama 2018).

    The fakes of a step have the classes of its real examples, so both networks see every class as
    often as it occurs. The discriminator also learns to classify real examples, and the generator
    pays for fakes that are not classified as their class (AC-GAN, Odena et al. 2017, section 3).
    """

    Config = ConditionalGANConfig
    takes_condition = "label"
