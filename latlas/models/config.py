"""Settings of every family; imports no torch, so help and checks are instant."""

from __future__ import annotations

from dataclasses import dataclass

from latlas.core.options import option

LIKELIHOODS = ("auto", "bernoulli", "gaussian", "gaussian-learnt", "gaussian-pixel",
               "discretised-logistic")


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
    kl_warmup: float = option(0.0, "share of the budget over which the KL's weight rises from 0",
                              low=0, high=1)
    free_bits: float = option(0.0, "nats per code dimension that cost nothing", low=0)
    dropout: float | None = option(None, "share of the decoder's hidden units that a training step "
                                   "leaves out (mlp); none: 0.3 for pictures, else 0", low=0,
                                   high=0.9)
    trim: float = option(0.0, "share of every batch, its worst-fitting items, that an update "
                         "leaves out: for data with outliers", low=0, high=0.5)


@dataclass(frozen=True)
class BetaVAEConfig(VAEConfig):
    """β-VAE: the KL term weighs β."""

    beta: float = option(4.0, "weight of the KL term", low=0)


@dataclass(frozen=True)
class ConditionalVAEConfig(VAEConfig):
    """VAE of p(x | condition)."""

    condition: str = option("label", "what is given: the item's label, or a part of the picture",
                            choices=("label", "part"))
    part: str = option("left", "the part of the picture that is given; random draws one of the "
                       "four halves per item",
                       choices=("left", "right", "top", "bottom", "random"))


@dataclass(frozen=True)
class PCAConfig:
    """Probabilistic PCA."""

    latent_dim: int = option(0, "size of the code; 0 chooses from the data's size", low=0)
    ddof: int = option(1, "variances divide by n - ddof: 1 unbiased (as scikit-learn), 0 maximum "
                       "likelihood", low=0, high=1)
    solver: str = option("auto", "covariance: exact, one sweep, D x D memory; randomised: a few "
                         "sweeps, D x k memory; auto: covariance up to 4,096 numbers per item",
                         choices=("auto", "covariance", "randomised"))
