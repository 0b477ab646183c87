"""Settings of every family; imports no torch, so help and checks are instant."""

from __future__ import annotations

from dataclasses import dataclass

from latlas.core.errors import ConfigError
from latlas.core.options import option

LIKELIHOODS = ("auto", "bernoulli", "gaussian", "gaussian-learnt", "gaussian-pixel",
               "discretised-logistic")
PRIORS = ("standard", "mixture", "vamp", "flow")


@dataclass(frozen=True)
class AutoencodingConfig:
    """What every encoder–decoder model has."""

    latent_dim: int = option(0, "size of the code; 0 chooses from the data's size", low=0)
    network: str = option("auto", "kind of network; auto: mlp up to 1,024 scalars, else conv",
                          choices=("auto", "mlp", "conv"))
    width: int = option(0, "units of a hidden layer (mlp) or channels (conv); 0: the default",
                        low=0)
    depth: int = option(0, "residual blocks (mlp) or levels (conv); 0: the default", low=0)


@dataclass(frozen=True)
class AEConfig(AutoencodingConfig):
    """Autoencoder: squared error."""


@dataclass(frozen=True)
class DAEConfig(AEConfig):
    """Denoising autoencoder: reconstruct the clean item from a corrupted one."""

    corruption: str = option("gaussian", "how the input is corrupted",
                             choices=("gaussian", "mask"))
    noise: float = option(0.5, "standard deviation of the noise in model units, or the share of "
                          "masked scalars", low=0)


@dataclass(frozen=True)
class VAEConfig(AutoencodingConfig):
    """Variational autoencoder."""

    likelihood: str = option("auto", "p(x|z); auto: discretised-logistic for integer pictures, "
                             "gaussian-learnt otherwise", choices=LIKELIHOODS)
    binarize: str = option("none", "pixels as coin flips drawn anew at every step (dynamic) or "
                           "cut at one half (threshold)", choices=("none", "dynamic", "threshold"))
    noise_sd: float = option(0.1, "standard deviation of the fixed Gaussian, model units", low=1e-6)
    kl_warmup: float = option(0.0, "share of the budget over which the KL's weight goes from "
                              "kl_start to 1", low=0, high=1)
    kl_start: float = option(0.0, "the KL's weight at the start of kl_warmup, of no use without; "
                             "above 1 it cools", low=0)
    free_bits: float = option(0.0, "nats per code dimension that cost nothing", low=0)
    prior: str = option("standard", "p(z): N(0, I), or learnt with the rest: a mixture of normals; "
                        "vamp, the posteriors of pseudo-inputs; a normalising flow",
                        choices=PRIORS)
    prior_components: int = option(0, "normals of a mixture, pseudo-inputs of vamp, layers of a "
                                   "flow; 0: 100, 100, 8", low=0)
    dropout: float | None = option(None, "share of the decoder's hidden units that a training step "
                                   "leaves out (mlp), reached after 200 passes over the data; "
                                   "none: 0.3 for pictures, else 0", low=0,
                                   high=0.9)
    trim: float = option(0.0, "share of every batch, its worst-fitting items, that an update "
                         "leaves out: for data with outliers", low=0, high=0.5)


@dataclass(frozen=True)
class BetaVAEConfig(VAEConfig):
    """β-VAE: the KL term weighs β."""

    beta: float = option(4.0, "weight of the KL term", low=0)


@dataclass(frozen=True)
class IWAEConfig(VAEConfig):
    """Importance-weighted autoencoder."""

    draws: int = option(5, "draws of the code per item and step", low=1)
    bound: str = option("importance", "of the draws' weights: the logarithm of their mean "
                        "(importance), or the mean of their logarithms, a VAE's (average)",
                        choices=("importance", "average"))
    gradient: str = option("auto", "of the encoder; auto: dreg, doubly reparameterised, where the "
                           "importance bound has more than one draw, else reparameterised",
                           choices=("auto", "reparameterised", "dreg"))

    def __post_init__(self) -> None:
        if self.free_bits > 0:
            raise ConfigError(f"free_bits={self.free_bits:g} needs the KL of every code dimension, "
                              "which a bound over draws has not; leave it out, or train vae")

    @property
    def doubly_reparameterised(self) -> bool:
        """``gradient`` with ``auto`` resolved."""
        if self.gradient == "auto":
            return self.bound == "importance" and self.draws > 1
        return self.gradient == "dreg"


@dataclass(frozen=True)
class HierarchicalVAEConfig(IWAEConfig):
    """Hierarchical VAE: two or more stochastic layers."""

    draws: int = option(1, "draws of the code per item and step", low=1)
    latents: tuple[int, ...] = option((), "sizes of the layers of codes, the one next to the data "
                                      "first (100,50); empty divides latent_dim two to one", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.latents) == 1:
            raise ConfigError(f"latents={self.latents[0]}: give two layers or more (100,50), or "
                              "train vae")
        if self.latents and self.latent_dim not in (0, sum(self.latents)):
            raise ConfigError(f"latent_dim={self.latent_dim}: the layers {self.latents} have "
                              f"{sum(self.latents)} numbers together; give one of the two")


@dataclass(frozen=True)
class CooledVAEConfig(VAEConfig):
    """A VAE that finds one factor after the other, the weightiest first."""

    kl_warmup: float = option(0.6, "share of the budget over which the KL's weight goes from "
                              "kl_start to 1", low=0, high=1)
    kl_start: float = option(20.0, "the weight of KL and total correlation at the start of "
                             "kl_warmup; above 1 it cools", low=0)


@dataclass(frozen=True)
class BetaTCVAEConfig(CooledVAEConfig):
    """β-TC-VAE: the total correlation of the code weighs β."""

    beta: float = option(6.0, "weight of the total correlation; 1 is a VAE", low=0)


@dataclass(frozen=True)
class FactorVAEConfig(CooledVAEConfig):
    """FactorVAE: γ times the total correlation, by a discriminator."""

    gamma: float = option(10.0, "weight of the total correlation; 0 is a VAE", low=0)
    discriminator_width: int = option(256, "units of the discriminator's hidden layers", low=1)
    discriminator_depth: int = option(5, "hidden layers of the discriminator", low=1)


@dataclass(frozen=True)
class ConditionalVAEConfig(VAEConfig):
    """VAE of p(x | condition)."""

    condition: str = option("label", "what is given: the item's label, or a part of the picture",
                            choices=("label", "part"))
    part: str = option("left", "the part of the picture that is given; random draws one of the "
                       "four halves per item",
                       choices=("left", "right", "top", "bottom", "random"))


@dataclass(frozen=True)
class DebiasingVAEConfig(VAEConfig):
    """Classifier with a VAE, by whose codes rare items come more often."""

    audited: str = option("", "classes whose items are reconstructed and weighed, with commas "
                              "between; empty: all")
    vae_weight: float | None = option(None, "weight of the VAE's loss beside the cross-entropy; "
                                      "none: 1 / scalars of an item", low=0)
    form: str = option("product", "weights by the densities of the code's dimensions: the inverse "
                       "of their product, or of the least of them (maximum); by the cross-entropy "
                       "of an item and its neighbours (loss); none: items come equally often",
                       choices=("product", "maximum", "loss", "none"))
    within: str = option("class", "densities among the items of each audited class, or of all "
                         "together", choices=("class", "all"))
    neighbours: int = option(5, "items over which a cross-entropy is smoothed, for form=loss",
                             low=1)
    refresh: float = option(0.1, "share of the budget from one set of weights to the next",
                            low=0.001, high=1)
    bins: int = option(10, "bins of a histogram of one dimension", low=2)
    share: float = option(0.2, "effective sample size that the weights leave, as a share of the "
                          "items: alpha is raised until they do", low=0.01, high=0.99)
    alpha: float | None = option(None, "added to every density; none: the least that leaves the "
                                 "share", low=0)
    clip: float = option(20.0, "largest weight, times their mean", low=1)

    def __post_init__(self) -> None:
        if self.trim > 0:
            raise ConfigError(f"trim={self.trim:g} leaves out what fits worst, which "
                              "debiasing-vae is to see more often; leave it out")


@dataclass(frozen=True)
class FlowMatchingConfig:
    """Flow matching."""

    width: int = option(256, "units of a hidden layer", low=1)
    depth: int = option(3, "residual blocks", low=0)
    steps: int = option(10, "steps from noise to an item, of four evaluations each", low=1)


OBJECTIVES = ("relativistic", "non-saturating", "minimax", "least-squares", "hinge",
              "wasserstein")


@dataclass(frozen=True)
class AdversarialConfig:
    """A generator against a discriminator."""

    latent_dim: int = option(0, "size of the code; 0 chooses from the data's size", low=0,
                             high=10_000)
    width: int = option(0, "channels of the finest size; 0: 32", low=0)
    depth: int = option(0, "halvings of the picture; 0: until a side is 4 … 7", low=0)
    objective: str = option("relativistic", "what the players minimise", choices=OBJECTIVES)
    penalty: str = option("auto", "on the discriminator's slope: at real items (r1), at generated "
                          "ones (r2), both, or towards 1 between them (gp); auto: gp for "
                          "wasserstein, else r1+r2",
                          choices=("auto", "none", "r1", "r2", "r1+r2", "gp"))
    gamma: float | None = option(None, "weight of the penalty; none: 10 for gp, else by the size "
                                 "of pictures and 1 for other data", low=0, high=1e6)
    gamma_end: float | None = option(None, "share of it that is left at the end of the budget; "
                                           "none: 1 of gp, else 0.1 for pictures, 0.01 "
                                           "for others", low=1e-6, high=1)
    penalty_every: int = option(4, "steps from one penalty to the next, each times as many", low=1)
    minibatch_std: int = option(4, "items of a group whose spread the discriminator is told; 0: "
                                   "it is not", low=0)
    augment: str = option("auto", "random changes of the pictures that the discriminator sees, as "
                          "often as it has learnt them by heart (ada) or always (diff); auto: ada "
                          "for fewer than 10,000 pictures", choices=("auto", "none", "ada", "diff"))

    def __post_init__(self) -> None:
        if self.minibatch_std == 1:
            raise ConfigError("minibatch_std=1: items of a group of one cannot differ; choose 2 or "
                              "more, or 0 for none")


@dataclass(frozen=True)
class GANConfig(AdversarialConfig):
    """Generative adversarial network."""

    network: str = option("auto", "kind of network; auto: conv for pictures of over 256 scalars "
                          "and 4 pixels a side, else mlp", choices=("auto", "mlp", "conv"))
    width: int = option(0, "units of a hidden layer (mlp) or channels of the first level; 0: the "
                           "default", low=0)
    depth: int = option(0, "hidden layers of the generator (mlp; the discriminator has half "
                           "as many) or levels; 0: the default", low=0)
    penalty_every: int = option(1, "steps from one penalty to the next, each times as many", low=1)
    minibatch_std: int = option(0, "items of a group whose spread the discriminator is told; 0: "
                                   "it is not", low=0)
    spectral_norm: bool = option(False, "divide the discriminator's weights by their largest "
                                        "singular value")
    groups: int | None = option(None, "at most so many groups of alike items, each with codes of "
                                "its own; 0: none; none: 200 for pictures", low=0, high=10_000)
    sketch: int | None = option(None, "numbers of a code that say what a picture of its group "
                                "looks like from afar; 0: none; none: 32 where pictures have "
                                "groups", low=0, high=1_000)


@dataclass(frozen=True)
class ConditionalGANConfig(GANConfig):
    """A GAN that is told the class."""

    naming: float = option(3.0, "weight of naming the class: the discriminator learns it from real "
                           "items, the generator makes items that show it; 0: as ambiguous as the "
                           "data", low=0)


@dataclass(frozen=True)
class StyleGANConfig(AdversarialConfig):
    """StyleGAN2."""

    style_dim: int = option(128, "size of w, from which every layer's style is made", low=1)
    mapping_depth: int = option(4, "layers from the code to w", low=1)
    style_mixing: float = option(0.9, "share of the pictures in training whose later layers get "
                                      "the style of another code", low=0, high=1)
    path_weight: float = option(2.0, "weight of the penalty on the lengths of paths, by which w "
                                     "changes the picture evenly; 0: none", low=0)
    path_every: int = option(8, "steps from one such penalty to the next, each times as many",
                             low=1)


@dataclass(frozen=True)
class ProgressiveGANConfig(AdversarialConfig):
    """Progressively grown GAN."""

    grow: bool = option(True, "begin with the coarsest pictures; false trains the same networks at "
                              "full size all along")
    grow_share: float = option(0.5, "share of the budget after which pictures have their full "
                                    "size", low=0.01, high=0.95)
    fade_share: float = option(0.5, "share of that time in which the next size fades in; in the "
                                    "rest a size stands alone", low=0, high=1)


@dataclass(frozen=True)
class PCAConfig:
    """Probabilistic PCA."""

    latent_dim: int = option(0, "size of the code; 0 chooses from the data's size", low=0)
    ddof: int = option(1, "variances divide by n - ddof: 1 unbiased (as scikit-learn), 0 maximum "
                       "likelihood", low=0, high=1)
    solver: str = option("auto", "covariance: exact, one sweep, D x D memory; randomised: a few "
                         "sweeps, D x k memory; auto: covariance up to 4,096 numbers per item",
                         choices=("auto", "covariance", "randomised"))
