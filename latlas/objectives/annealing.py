"""Annealed importance sampling: log p(x) without an encoder, by Hamiltonian Monte Carlo.

Neal 2001 on the bridge p(z) p(x|z)^β of Wu et al. 2017 (section 2.3): chains start at the prior
(β = 0) and end at the posterior (β = 1), and each gathers a weight whose expectation is p(x),

    log w = Σ_t (β_t − β_{t−1}) log p(x|z_{t−1}),    z_t ~ T_t(· | z_{t−1}),

where T_t leaves p(z) p(x|z)^{β_t} invariant. That holds for any step size that is fixed before
the chain starts, and for none that the chain itself has steered. So the step sizes come from a
pilot, chains with draws of their own which are then thrown away.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.noise import Noise
from latlas.objectives.elbo import Density

#: acceptance at which HMC is most efficient (Neal 2011, section 4.4), as Wu et al. 2017 choose it
TARGET = 0.65
#: the pilot: rungs of its ladder, transitions on each, and more on the first to find the scale
RUNGS, TRIES, FIRST = 50, 4, 30
#: how far log step follows one transition's acceptance
RATE = 0.3
#: a step is up to this share longer or shorter at random, so that no orbit closes (Neal 2011,
#: section 3.2)
JITTER = 0.2


class Point(NamedTuple):
    """Where chains are, (K, n, d), with both log densities (K, n) and their gradients."""

    z: Tensor
    log_prior: Tensor
    log_likelihood: Tensor
    prior_gradient: Tensor
    likelihood_gradient: Tensor


@dataclass(frozen=True)
class Bridge:
    """From prior to posterior: two log densities of latents, (K, n, d) to (K, n), nats."""

    log_prior: Density
    log_likelihood: Density

    def at(self, z: Tensor) -> Point:
        """Densities and gradients with respect to z alone."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            values = self.log_prior(z), self.log_likelihood(z)
            gradients = [torch.autograd.grad(v.sum(), z)[0] for v in values]
        return Point(z.detach(), values[0].detach(), values[1].detach(), *gradients)


def sigmoid_schedule(temperatures: int, sharpness: float = 4.0) -> list[float]:
    """β_0 = 0 … β_T = 1 along a sigmoid, dense at both ends (Wu et al. 2017, section 5).

    >>> sigmoid_schedule(2)
    [0.0, 0.5, 1.0]
    """
    ramp = torch.sigmoid(torch.linspace(-sharpness, sharpness, temperatures + 1).double())
    return ((ramp - ramp[0]) / (ramp[-1] - ramp[0])).tolist()


@torch.no_grad()
def transition(bridge: Bridge, point: Point, beta: float, step: Tensor, leapfrog: int,
               noise: Noise) -> tuple[Point, Tensor]:
    """One Hamiltonian transition of p(z) p(x|z)^β (Neal 2011, figure 2): where the chains are then,
    and the chance (K, n) with which each move was accepted; ``step`` broadcasts to (K, n, d)."""
    def density(at: Point) -> Tensor:
        return at.log_prior.double() + beta * at.log_likelihood.double()

    def gradient(at: Point) -> Tensor:
        return at.prior_gradient + beta * at.likelihood_gradient

    start = p = noise.normal(*point.z.shape).to(point.z)
    step = step * (1 + JITTER * (2 * noise.uniform(*point.z.shape[:-1], 1).to(point.z) - 1))
    new = point
    for _ in range(leapfrog):
        p = p + 0.5 * step * gradient(new)
        new = bridge.at(new.z + step * p)
        p = p + 0.5 * step * gradient(new)
    kinetic = 0.5 * (start.double().square() - p.double().square()).sum(-1)
    gain = density(new) - density(point) + kinetic
    chance = gain.clamp(max=0).exp().nan_to_num(0.0)  # a path that ran off to infinity is refused
    accept = noise.uniform(*chance.shape).to(chance) < chance
    return Point(*(torch.where(accept[..., None] if a.dim() > accept.dim() else accept, a, b)
                   for a, b in zip(new, point, strict=True))), chance


@torch.no_grad()
def pilot_steps(bridge: Bridge, start: Tensor, betas: list[float], leapfrog: int, noise: Noise,
                ) -> Tensor:
    """Step sizes for the transitions at β_1 … β_{T−1}, per example: (T − 1, n, 1).

    A few chains (K, n, d) climb a coarse ladder of the same temperatures; after every transition
    log ε moves by :data:`RATE` times what the mean acceptance is above :data:`TARGET`. Between the
    rungs log ε is interpolated.
    """
    inner = betas[1:-1]
    if not inner:
        return start.new_zeros(0, start.shape[1], 1)
    rungs = torch.linspace(0, len(inner) - 1, min(RUNGS, len(inner))).round().long().tolist()
    log_step, point = start.new_full(start.shape[1:2], -1.0), bridge.at(start)
    log_steps = []
    for number, rung in enumerate(rungs):
        latest = []
        for _ in range(TRIES if number else TRIES + FIRST):
            step = log_step.exp()[:, None]
            point, chance = transition(bridge, point, inner[rung], step, leapfrog, noise)
            log_step = log_step + RATE * (chance.mean(0).to(log_step) - TARGET)
            latest.append(log_step)
        log_steps.append(torch.stack(latest[-TRIES:]).mean(0))
    ladder = torch.stack(log_steps, -1)[:, None]  # (n, 1, rungs)
    spread = F.interpolate(ladder, size=len(inner), mode="linear", align_corners=True)
    return spread.permute(2, 0, 1).exp()


@torch.no_grad()
def annealed_weights(bridge: Bridge, start: Tensor, betas: list[float], steps: Tensor,
                     leapfrog: int, noise: Noise, tick: Callable[[int], None] | None = None,
                     ) -> tuple[Tensor, Tensor]:
    """Log weights (K, n) float64, nats, of chains that start at draws from the prior (K, n, d), and
    the share of moves accepted (n,), NaN if T = 1.

    Args:
        betas: 0 = β_0 < … < β_T = 1. With T = 1 the weight is p(x|z): naive sampling.
        steps: step sizes of the transitions at β_1 … β_{T−1}, each broadcast against (K, n, d).
        leapfrog: steps of one transition.
        tick: called after every temperature with how many are done.
    """
    point = bridge.at(start)
    log_w = torch.zeros_like(point.log_likelihood, dtype=torch.float64)
    accepted = torch.zeros_like(log_w[0])
    for t in range(1, len(betas)):
        log_w += (betas[t] - betas[t - 1]) * point.log_likelihood.double()
        if t < len(betas) - 1:
            point, chance = transition(bridge, point, betas[t], steps[t - 1], leapfrog, noise)
            accepted += chance.mean(0)
        if tick:
            tick(t)
    return log_w, accepted / (len(betas) - 2)
