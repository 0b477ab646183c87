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

#: log variances stay above this: a standard deviation of 0.0025 in model units
LOWEST_LOG_VAR = -12.0

#: a learnt variance starts here (σ = 0.14 in model units): from σ = 1 the code carries nothing that
#: is worth its KL, and points on a ring are never told apart
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
        """``integers`` of a picture (dequantised or discretised), or the table's units."""
        return "integers" if self.space.levels else f"{self.space.kind} units"

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        """The x that is scored: dequantised or binarised where the likelihood asks for it."""
        return x

    @abstractmethod
    def forward(self, output: Tensor) -> Distribution:
        """p(x | z) from the decoder's output, (*batch, multiplier·C, H, W)."""

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor]:
        first, second = output.chunk(2, -self.event_dims)
        return first, second


class BernoulliLikelihood(Likelihood):
    """Pixels are coin flips (Kingma & Welling 2014, appendix C.1)."""

    def __init__(self, space: Space, binarize: str) -> None:
        super().__init__(space)
        if space.kind != "picture":
            raise ConfigError(f"likelihood=bernoulli needs pictures, not a {space.kind}; "
                              "use gaussian-learnt")
        self.binarize = binarize

    @property
    def base_measure(self) -> str:
        """Gray values under coin flips have a cross-entropy, which is no likelihood."""
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
    """N(decoder(z), σ²) with a fixed σ in model units."""

    density = True

    def __init__(self, space: Space, noise_sd: float = 1.0) -> None:
        super().__init__(space)
        self.noise_sd = noise_sd

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        return dequantise(x, self.space.step, noise)

    def forward(self, output: Tensor) -> Distribution:
        return Normal(output, self.variance(), self.event_dims)

    def variance(self) -> Tensor:
        """log σ², broadcast against the mean."""
        return torch.tensor(2 * math.log(self.noise_sd))


class LearntGaussianLikelihood(GaussianLikelihood):
    """σ is a parameter: one for a picture (Rybkin et al. 2021), one per column for a table."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        width = 1 if space.kind == "picture" else space.shape[0]
        self.raw = nn.Parameter(torch.full((width,), FIRST_LOG_VAR / GAIN))

    def variance(self) -> Tensor:
        return _floored(GAIN * self.raw)


class PixelGaussianLikelihood(GaussianLikelihood):
    """The decoder gives σ² for every scalar of every item."""

    multiplier = 2

    def forward(self, output: Tensor) -> Distribution:
        mean, log_var = self._split(output)
        return Normal(mean, _floored(log_var.float()), self.event_dims)


class DiscretisedLogisticLikelihood(Likelihood):
    """Integer levels as bins of a logistic density, location and scale per scalar."""

    multiplier = 2

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        if not space.levels:
            raise ConfigError("likelihood=discretised-logistic needs integer pictures; this data "
                              "is continuous: use gaussian-learnt")

    def forward(self, output: Tensor) -> Distribution:
        location, log_scale = self._split(output)
        return DiscretisedLogistic(location, _floored(log_scale.float(), -7.0),
                                   self.space.step, self.event_dims)


def resolve(name: str, space: Space, binarize: str) -> str:
    """The likelihood that ``auto`` stands for."""
    if name != "auto":
        return name
    if binarize != "none":
        return "bernoulli"
    return "discretised-logistic" if space.levels else "gaussian-learnt"


def make(name: str, space: Space, *, binarize: str, noise_sd: float) -> Likelihood:
    """The likelihood a config names."""
    if binarize != "none" and name != "bernoulli":
        raise ConfigError(f"binarize={binarize} makes binary pixels, which need "
                          f"likelihood=bernoulli, not {name}")
    table = {"bernoulli": lambda: BernoulliLikelihood(space, binarize),
             "gaussian": lambda: GaussianLikelihood(space, noise_sd),
             "gaussian-learnt": lambda: LearntGaussianLikelihood(space),
             "gaussian-pixel": lambda: PixelGaussianLikelihood(space),
             "discretised-logistic": lambda: DiscretisedLogisticLikelihood(space)}
    return table[name]()


def _floored(log_var: Tensor, lowest: float = LOWEST_LOG_VAR) -> Tensor:
    """``log_var`` bent smoothly so that it stays above ``lowest``."""
    return lowest + F.softplus(log_var - lowest)
