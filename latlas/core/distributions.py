"""Small exact distributions over one example, in model units.

Every class has ``mean``, ``sample(noise)`` and ``log_prob(x)``. Parameters have shape
(*batch, *event); ``log_prob`` sums the last ``event_dims`` dimensions, in fp32, and broadcasts x
over leading dimensions, so K draws per example cost no copy of x.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.noise import Noise

LOG_2PI = math.log(2 * math.pi)


@runtime_checkable
class Distribution(Protocol):
    """What ``encode`` and ``decode`` return."""

    @property
    def mean(self) -> Tensor: ...

    def sample(self, noise: Noise) -> Tensor: ...

    def log_prob(self, x: Tensor) -> Tensor: ...


class Posterior(Distribution, Protocol):
    """q(z|x) over latents (n, d), as bounds on log p(x) need it."""

    def draws(self, k: int, noise: Noise) -> Tensor:
        """(k, n, d): ``k`` independent draws of every example's latents."""

    def detached(self) -> Self:
        """The same density, through whose parameters no gradient flows."""


def _sum(values: Tensor, event_dims: int) -> Tensor:
    return values.flatten(-event_dims).sum(-1)


@dataclass
class PointMass:
    """All mass on one value: the latents of an autoencoder, the output of a generator."""

    mean: Tensor
    event_dims: int = 1

    def sample(self, noise: Noise) -> Tensor:
        return self.mean

    def log_prob(self, x: Tensor) -> Tensor:
        raise TypeError("a point mass has no density")


@dataclass
class Normal:
    """N(mean, diag exp(log_var)). ``log_var`` broadcasts against ``mean``."""

    mean: Tensor
    log_var: Tensor
    event_dims: int = 1

    def sample(self, noise: Noise) -> Tensor:
        """mean + σ ⊙ ε (Kingma & Welling 2014, eq. 10)."""
        batch = max(0, self.mean.dim() - self.event_dims - 1)
        epsilon = noise.normal(*self.mean.shape, batch=batch).to(self.mean.device)
        return self.mean + torch.exp(0.5 * self.log_var) * epsilon

    def draws(self, k: int, noise: Noise) -> Tensor:
        return replace(self, mean=self.mean.expand(k, *self.mean.shape)).sample(noise)

    def detached(self) -> Self:
        return replace(self, mean=self.mean.detach(), log_var=self.log_var.detach())

    def log_prob(self, x: Tensor) -> Tensor:
        """−½ Σ [(x − mean)² / σ² + log σ² + log 2π]."""
        mean, log_var = self.mean.float(), self.log_var.float()
        square = (x - mean).square() * torch.exp(-log_var)
        return -0.5 * _sum(square + log_var + LOG_2PI, self.event_dims)


@dataclass
class Bernoulli:
    """Binary pixels at −1 and 1 (model units) with the given logits. For x strictly between,
    ``log_prob`` is the cross-entropy, which is no likelihood."""

    logits: Tensor
    event_dims: int = 1

    @property
    def mean(self) -> Tensor:
        return 2 * torch.sigmoid(self.logits.float()) - 1

    def sample(self, noise: Noise) -> Tensor:
        draws = noise.uniform(*self.logits.shape)
        return 2 * (draws < torch.sigmoid(self.logits.float())).float() - 1

    def log_prob(self, x: Tensor) -> Tensor:
        """Σ [t·l − log(1 + eˡ)] with t = (x + 1)/2: stable for any logit."""
        return _BernoulliLogProb.apply(self.logits.flatten(-self.event_dims),  # type: ignore
                                       (x + 1).flatten(-self.event_dims) / 2)


class _BernoulliLogProb(torch.autograd.Function):
    """Σ_j [t_j l_j − log(1 + exp l_j)] over the last dimension, in fp32.

    With K draws per example this is the widest tensor, and torch's own operations pass over it
    eight times, there and back. Here log(1 + eˡ) = (l + |l|)/2 − log σ(|l|), and the logarithm is
    taken of products of up to 120 σ(|l|), each at least ½, so above the least of fp32, 2⁻¹²⁶.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, target)
        logits = logits.float()
        group = next(s for s in range(120, 0, -1) if logits.shape[-1] % s == 0)
        size = logits.abs()
        # autocast would take the products in bf16, and their sum with an error of nats
        with torch.autocast(logits.device.type, enabled=False):
            linear = torch.linalg.vecdot(target.float() - 0.5, logits) - size.sum(-1) / 2
        return linear + size.sigmoid_().unflatten(-1, (-1, group)).prod(-1).log().sum(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, target = ctx.saved_tensors
        grad = grads[0][..., None]
        of_logits = (target - torch.sigmoid(logits.float())).mul_(grad)
        of_target = (grad * logits).sum_to_size(target.shape) if ctx.needs_input_grad[1] else None
        return of_logits.sum_to_size(logits.shape).to(logits.dtype), of_target


@dataclass
class DiscretisedLogistic:
    """Integer levels as bins of a logistic density (Salimans et al. 2017, eq. 2).

    P(x) = σ((x + h − mean)/s) − σ((x − h − mean)/s), h half a level; the first and last bins
    reach to −∞ and ∞. ``step`` is the width of a level in model units.
    """

    location: Tensor
    log_scale: Tensor
    step: float
    event_dims: int = 3

    @property
    def mean(self) -> Tensor:
        return self.location.float().clamp(-1, 1)

    def sample(self, noise: Noise) -> Tensor:
        u = noise.uniform(*self.location.shape).clamp(1e-5, 1 - 1e-5)
        x = self.location.float() + torch.exp(self.log_scale.float()) * torch.logit(u)
        return (((x + 1) / self.step).round() * self.step - 1).clamp(-1, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        location, log_scale = self.location.float(), self.log_scale.float()
        inverse = torch.exp(-log_scale)
        centred = x - location
        upper = (centred + self.step / 2) * inverse
        lower = (centred - self.step / 2) * inverse
        # log[σ(u) − σ(l)] = log σ(u) + log σ(−l) + log(1 − e^{−(u − l)}), exact in both tails
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
        edge = 1 - self.step / 4
        log_p = torch.where(x < -edge, F.logsigmoid(upper),
                            torch.where(x > edge, F.logsigmoid(-lower), inside))
        return _sum(log_p, self.event_dims)
