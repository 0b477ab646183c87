"""Settings of the adversarial and the translating families."""

from __future__ import annotations

from dataclasses import dataclass

from latlas.core.errors import ConfigError
from latlas.core.options import option

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
class TranslationConfig:
    """From pictures of one domain to those of another."""

    network: str = option("unet", "kind of generator: unet sees every size again on its way up, "
                          "residual works at a quarter of the size", choices=("unet", "residual"))
    width: int = option(64, "channels of the first level of all networks", low=1)
    depth: int = option(0, "halvings of a unet; 0: until a side is 4 … 7", low=0)
    blocks: int = option(0, "residual blocks, of a unet at its innermost level; 0: none of a unet, "
                            "four of columns, else six, or nine for sides over 128", low=0)
    dropout: float = option(0.0, "noise: share of numbers that the innermost levels of a unet "
                            "leave out", low=0, high=0.9)
    mirror: bool = option(False, "in training, half of the pictures left to right, pairs alike; "
                                 "for few pictures of what has no left and right")
    discriminator_depth: int = option(0, "halvings of the discriminator: three see patches of 70 "
                                      "pixels, two of 34; 0: by the size of the pictures", low=0)
    discriminator_width: int = option(0, "channels of the discriminator's first level; 0: as many "
                                         "as the generator's", low=0)
    objective: str = option("least-squares", "what the players minimise", choices=OBJECTIVES)
    penalty: str = option("none", "on the discriminator's slope", choices=("none", "r1", "r2",
                                                                          "r1+r2", "gp"))
    gamma: float = option(1.0, "weight of the penalty", low=0, high=1e6)
    gamma_end: float = option(1.0, "share of it that is left at the end of the budget", low=1e-6,
                              high=1)
    penalty_every: int = option(1, "steps from one penalty to the next, each times as many", low=1)


@dataclass(frozen=True)
class Pix2PixConfig(TranslationConfig):
    """The other picture of a pair."""

    l1: float = option(100.0, "weight of the mean absolute difference, model units", low=0)
    adversarial: float = option(1.0, "weight of what the discriminator says; 0: without one", low=0)
    features: float = option(0.0, "weight of how far the discriminator's features are apart", low=0)


@dataclass(frozen=True)
class CycleGANConfig(TranslationConfig):
    """There and back without pairs."""

    network: str = option("auto", "kind of generator: residual works at a quarter of the size, "
                          "unet sees every size again on its way up, columns sees a column at "
                          "once, of spectra all tones; auto: columns for recordings, else residual",
                          choices=("auto", "residual", "unet", "columns"))
    width: int = option(0, "channels of the first level of all networks, of columns a sixteenth of "
                           "those inside; 0: 16 for recordings, else 64", low=0)
    penalty: str = option("auto", "on the discriminator's slope; auto: r1 for recordings, else "
                          "none", choices=("auto", "none", "r1", "r2", "r1+r2", "gp"))
    gamma: float = option(0.0, "weight of the penalty; 0: 5e-5 for recordings, else 1", low=0,
                          high=1e6)
    penalty_every: int = option(0, "steps from one penalty to the next, each times as many; 0: 4 "
                                   "for recordings, else 1", low=0)
    cycle: float | None = option(None, "weight of what is lost there and back; none: 1.5 for "
                                 "recordings, else 10", low=0)
    identity: float | None = option(None, "weight of what is changed of a picture that is of the "
                                    "wanted domain already, for equal numbers of channels; none: "
                                    "0 for recordings, else 5", low=0)
    temporal: float | None = option(None, "weight of how much translations of neighbouring frames "
                                    "differ beyond their motion; none: 20 for frames, 0 for "
                                    "pictures", low=0)
    pool: int = option(50, "earlier fakes that discriminators go on seeing; 0: none", low=0)
