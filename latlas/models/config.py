"""Options of the models that translate; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from latlas.core.options import option

OBJECTIVES = ("relativistic", "non-saturating", "minimax", "least-squares", "hinge",
              "wasserstein")


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
