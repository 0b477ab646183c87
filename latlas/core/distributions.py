"""Small exact distributions over one example, in model units.

Every class has ``mean``, ``sample(noise)`` and ``log_prob(x)``. Parameters have shape
(*batch, *event); ``log_prob`` sums the last ``event_dims`` dimensions, in fp32, and broadcasts x
over leading dimensions, so K draws per example cost no copy of x.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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


def log_probs(p: Any, x: Tensor) -> Tensor:
    """log p of every number of x by a distribution of independent ones, of the shape of x."""
    each = {k: v[..., None] for k, v in vars(p).items() if isinstance(v, Tensor) and v.dim()}
    result: Tensor = replace(p, **each, event_dims=1).log_prob(x[..., None])
    return result


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
        each = square + log_var + LOG_2PI
        return -0.5 * each.flatten(-self.event_dims).sum(-1)


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
        return _LogisticBins.apply(x, self.location, self.log_scale,  # type: ignore
                                   self.step, self.event_dims)


#: scalars whose log-probabilities are computed at a time: their intermediate results stay in cache
PART = 1 << 15
#: a standardised bound beyond which there is nothing
FAR = 1e30


class _LogisticBins(torch.autograd.Function):
    """Σ log P(x) over the last ``event_dims`` dimensions under bins of a logistic density, in fp32.

    Left to autograd this keeps a dozen tensors as large as the images, a fifth of the memory of a
    convolutional network's step. Here it is computed for a few scalars at a time, and its
    derivatives with it, which are all that is kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, location: Tensor, log_scale: Tensor, step: float,
                event_dims: int) -> Tensor:
        inputs = x, location, log_scale
        shape = torch.broadcast_shapes(*(t.shape for t in inputs))
        batch, event = shape[:-event_dims], shape[-event_dims:]
        wide = [t.expand(*(batch or (1,)), *event) for t in inputs]
        log_p = torch.empty(wide[1].shape[:-event_dims], device=location.device)
        slopes = [torch.empty_like(wide[1], dtype=torch.float) for _ in range(2)] if any(
            ctx.needs_input_grad) else []
        rows = max(1, PART * len(log_p) // max(1, wide[1].numel())) if (
            location.device.type == "cpu") else max(1, len(log_p))
        for first in range(0, len(log_p), rows):
            part = slice(first, first + rows)
            values, means, scales, *derivatives = (t[part] for t in (*wide, *slopes))
            log_p[part] = logistic_bins(values, means, scales, step, *derivatives).sum(
                tuple(range(-event_dims, 0)))
        ctx.save_for_backward(*slopes)
        ctx.event_dims, ctx.like = event_dims, [(t.shape, t.dtype) for t in inputs]
        return log_p.reshape(batch)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.saved_tensors
        grad = grads[0].reshape(slopes[0].shape[:-ctx.event_dims] + (1,) * ctx.event_dims)
        sides = (-grad, slopes[0]), (grad, slopes[0]), (grad, slopes[1])  # x, location, log_scale
        return *((factor * slope).sum_to_size(shape).to(dtype) if needed else None
                 for (factor, slope), (shape, dtype), needed in zip(
                     sides, ctx.like, ctx.needs_input_grad, strict=False)), None, None


def logistic_bins(x: Tensor, location: Tensor, log_scale: Tensor, step: float,
                  by_location: Tensor | None = None, by_log_scale: Tensor | None = None) -> Tensor:
    """log P(x) of every scalar; fills in the derivatives by location and logarithm of the scale.

    With u and l the standardised ends of the bin, log[σ(u) − σ(l)] = log σ(u) + log σ(−l) +
    log(1 − e^{−(u − l)}), exact in both tails. With t = −u and t = l the first two are
    log σ(−t) = −max(t, 0) − log(1 + e^{−|t|}).
    """
    inverse, centred = torch.exp(-log_scale.float()), x - location.float()
    edge, width = 1 - step / 4, step * inverse
    ends = [(-step / 2 - centred).mul_(inverse), (centred - step / 2).mul_(inverse)]
    for i, outside in enumerate((x > edge, x < -edge)):  # the bin has no such end
        ends[i] = torch.where(outside, -FAR, ends[i])
        width = torch.where(outside, FAR, width)
    decays = [t.abs().neg_().exp_() for t in ends]
    tails, within = [1 + decay for decay in decays], torch.expm1(-width).neg_()
    if by_location is not None and by_log_scale is not None:
        above, below = (torch.where(t > 0, 1, decay).div_(tail)  # σ(t)
                        for decay, t, tail in zip(decays, ends, tails, strict=True))
        torch.sub(below, above, out=by_location).mul_(inverse)
        torch.mul(ends[0], above, out=by_log_scale).addcmul_(ends[1], below)
        by_log_scale.sub_(width.mul_(1 - within).div_(within))
    log_p: Tensor = within.div_(tails[0].mul_(tails[1])).log_()
    return log_p.sub_(ends[0].relu_()).sub_(ends[1].relu_())
