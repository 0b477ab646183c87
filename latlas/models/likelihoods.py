"""p(x | z): from a decoder's output to a distribution, and what x it is a likelihood of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.distributions import Bernoulli, DiscretisedLogistic, Distribution, Normal
from latlas.core.errors import ConfigError
from latlas.core.noise import Noise, dequantise
from latlas.core.space import Space

NAMES = ("bernoulli", "gaussian", "gaussian-learnt", "gaussian-pixel", "discretised-logistic")
#: log variances stay above this: a standard deviation of 0.0025 in model units
LOWEST_LOG_VAR = -12.0
#: a learnt variance starts here (σ = 0.14 in model units): from σ = 1 the latents carry nothing
#: that is worth its KL, and points on a ring are never separated
FIRST_LOG_VAR = -4.0
#: log σ² per unit of the parameter: Adam moves every parameter by the same step, and a log variance
#: has ten times as far to go as a weight
GAIN = 10.0


class Likelihood(nn.Module, ABC):
    """A decoder emits ``multiplier`` parameters per scalar; ``forward`` makes the distribution.

    Attributes:
        density: a density (its nats change with the units of x), not a probability.
        base_measure: what the numbers may be compared with.
    """

    multiplier = 1
    density = False

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        self.event_dims = len(space.shape)

    @property
    def base_measure(self) -> str:
        """``integers`` of an image (dequantised or discretised), or the table's units."""
        return "integers" if self.space.levels else f"{self.space.kind} units"

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        """The x that is scored: dequantised or binarised where the likelihood asks for it."""
        return x

    @abstractmethod
    def forward(self, output: Tensor) -> Distribution:
        """p(x | z) from the decoder's output, (*batch, multiplier·C, H, W)."""


class BernoulliLikelihood(Likelihood):
    """Binary pixels (Kingma & Welling 2014, appendix C.1).

    Args:
        binarize: ``dynamic`` draws each pixel anew with its gray value as the probability
            (stochastic binarisation), ``threshold`` cuts at one half, ``none`` leaves gray values.
    """

    def __init__(self, space: Space, binarize: str) -> None:
        super().__init__(space)
        if space.kind != "image":
            raise ConfigError(f"likelihood=bernoulli needs images, not a {space.kind}; "
                              "use gaussian-learnt", option="likelihood")
        self.binarize = binarize

    @property
    def base_measure(self) -> str:
        """Gray values have a cross-entropy under binary pixels, which is no likelihood."""
        binary = self.binarize != "none" or self.space.levels == 2
        return "binary pixels" if binary else "gray cross-entropy (no likelihood)"

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        if self.binarize == "none":
            return x
        cut = noise.uniform(*x.shape) if self.binarize == "dynamic" else 0.5
        return 2 * ((x + 1) / 2 > cut).to(x.dtype) - 1

    def forward(self, output: Tensor) -> Distribution:
        return Bernoulli(output, self.event_dims)


class GaussianLikelihood(Likelihood):
    """N(decoder(z), σ²), σ in model units.

    Args:
        name: ``gaussian``: σ is ``noise_sd``; ``gaussian-learnt``: a parameter, one for an image
            (Rybkin et al. 2021), one per column of a table; ``gaussian-pixel``: from the decoder,
            for every scalar of every example.
    """

    density = True

    def __init__(self, space: Space, name: str, noise_sd: float) -> None:
        super().__init__(space)
        self.name, self.noise_sd = name, noise_sd
        self.multiplier = 2 if name == "gaussian-pixel" else 1
        if name == "gaussian-learnt":
            width = 1 if space.kind == "image" else space.shape[0]
            self.raw = nn.Parameter(torch.full((width,), FIRST_LOG_VAR / GAIN))

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        return dequantise(x, self.space.step, noise)

    def forward(self, output: Tensor) -> Distribution:
        mean, log_var = output, torch.tensor(2 * math.log(self.noise_sd))
        if self.name == "gaussian-learnt":
            log_var = _bounded_below(GAIN * self.raw, LOWEST_LOG_VAR)
        elif self.name == "gaussian-pixel":
            mean, raw = output.chunk(2, -self.event_dims)
            log_var = _bounded_below(raw.float(), LOWEST_LOG_VAR)
        return Normal(mean, log_var, self.event_dims)


class DiscretisedLogisticLikelihood(Likelihood):
    """Integer levels as bins of a logistic density, location and scale per scalar."""

    multiplier = 2

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        if not space.levels:
            raise ConfigError("likelihood=discretised-logistic needs integer images; this data "
                              "is continuous: use gaussian-learnt", option="likelihood")

    def forward(self, output: Tensor) -> Distribution:
        location, log_scale = output.chunk(2, -self.event_dims)
        return DiscretisedLogistic(location, _bounded_below(log_scale.float(), -7.0),
                                   self.space.step, self.event_dims)


def make(name: str, space: Space, *, binarize: str, noise_sd: float) -> Likelihood:
    """The likelihood a config names."""
    if binarize != "none" and name != "bernoulli":
        raise ConfigError(f"binarize={binarize} makes binary pixels, which need "
                          f"likelihood=bernoulli, not {name}", option="binarize")
    if name == "bernoulli":
        return BernoulliLikelihood(space, binarize)
    if name == "discretised-logistic":
        return DiscretisedLogisticLikelihood(space)
    return GaussianLikelihood(space, name, noise_sd)


def _bounded_below(log_var: Tensor, lowest: float) -> Tensor:
    """``log_var`` bent smoothly so that it stays above ``lowest``."""
    return lowest + F.softplus(log_var - lowest)
