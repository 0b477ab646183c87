"""Flow matching (Lipman et al. 2023): a flow from noise to items, learnt by regression."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.distributions import Normal
from latlas.core.model import Loss, Model, Phase, Step
from latlas.core.noise import Noise, dequantise
from latlas.core.space import Space
from latlas.models.config import FlowMatchingConfig
from latlas.models.priors import Prior
from latlas.networks.mlp import mlp
from latlas.objectives.ode import runge_kutta

#: the velocity's network is given cos πkt and sin πkt, k = 1 … 8
FREQUENCIES = 8


class FlowMatching(Model):
    """x_1 of dx/dt = v(x, t) from x_0 ~ N(0, I), its density by the change of variables.

    v is regressed on x − ε at x_t = (1 − t) ε + t x (Lipman et al. 2023, eq. 23 with σ_min = 0;
    Liu et al. 2023, eq. 1). It starts as the velocity that leaves a standard normal one, so an
    untrained model is the Gaussian that the data were standardised by.
    """

    exact_likelihood = True

    def __init__(self, config: FlowMatchingConfig, space: Space) -> None:
        super().__init__(config, space)
        self.latent_dim = space.dims
        self.net = mlp(space.dims + 2 * FREQUENCIES, space.dims, config.width, config.depth)
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One."""
        return (Phase("model", ("net",)),)

    @property
    def base_measure(self) -> str:
        """Pictures are dequantised; otherwise the data's own units."""
        return "integers" if self.space.levels else f"{self.space.kind} units"

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """v(x, t), (n, d) with times (n, 1) or (1, 1)."""
        phase = math.pi * t * torch.arange(1, FREQUENCIES + 1, device=x.device)
        waves = torch.cat([phase.cos(), phase.sin()], 1).expand(len(x), -1)
        out: Tensor = self.net(torch.cat([x, waves], 1)).float()
        return out + x * (2 * t - 1) / (t.square() + (1 - t).square())

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Squared error of the velocity per item, summed over its scalars, model units²."""
        x = dequantise(batch.x, self.space.step, step.noise).flatten(1)
        epsilon, t = step.noise.normal(*x.shape), step.noise.uniform(len(x), 1)
        wrong = self.velocity((1 - t) * epsilon + t * x, t) - (x - epsilon)
        total = wrong.square().sum(1).mean()
        return Loss(total, {"loss": total})

    @torch.no_grad()
    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """(n, *shape) in model units."""
        start = noise.normal(n, self.space.dims).to(self.device)
        end = runge_kutta(lambda x, t: self.velocity(x, x.new_tensor([[t]])), start, 0.0, 1.0,
                          self.config.steps)
        return end.unflatten(1, self.space.shape)

    def log_likelihood(self, x: Tensor, *, noise: Noise, draws: int = 1,
                       condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Nats in data units, exact but for the steps, and an infinite effective sample size.

        Pictures are dequantised: one draw of a lower bound. The time is that of ``dims`` passes
        through the network for every pass of a sample.
        """
        flat = dequantise(x, self.space.step, noise).flatten(1)
        nats = self.log_density(flat) - self.space.log_volume
        return nats, torch.full_like(nats, math.inf)

    def log_density(self, x: Tensor, probe: Tensor | None = None) -> Tensor:
        """log p(x) = log N(x_0) − ∫ tr ∂v/∂x dt (Chen et al. 2018, eq. 8), model units.

        Args:
            x: (n, d).
            probe: (n, d) of −1 and 1: the trace is estimated by eᵀ ∂v/∂x e (Grathwohl et al. 2019,
                eq. 8), unbiased, at the cost of one pass instead of d.
        Returns:
            (n,), through which no gradient flows.
        """
        with torch.inference_mode(False):  # the trace is made of gradients
            state = torch.cat([x, torch.zeros_like(x[:, :1])], 1).clone()
            start = runge_kutta(lambda s, t: self._slope(s, t, probe), state, 1.0, 0.0,
                                self.config.steps)
        normal = Normal(torch.zeros_like(x), x.new_zeros(()))
        return normal.log_prob(start[:, :-1]) + start[:, -1]

    def _slope(self, state: Tensor, t: float, probe: Tensor | None) -> Tensor:
        """Velocity and its divergence, (n, d + 1)."""
        with torch.enable_grad():
            x = state[:, :-1].detach().requires_grad_()
            v = self.velocity(x, x.new_tensor([[t]]))
            trace = _trace(v, x) if probe is None else _estimate(v, x, probe.clone())
        return torch.cat([v.detach(), trace[:, None]], 1)


def _trace(v: Tensor, x: Tensor) -> Tensor:
    """tr ∂v/∂x of every row, (n, d) to (n,)."""
    rows = (torch.autograd.grad(v[:, j].sum(), x, retain_graph=True)[0][:, j]
            for j in range(x.shape[1]))
    return torch.stack(list(rows)).sum(0)


def _estimate(v: Tensor, x: Tensor, probe: Tensor) -> Tensor:
    gradient: Tensor = torch.autograd.grad((v * probe).sum(), x)[0]
    return (gradient * probe).sum(1)


class FittedPrior(Prior):
    """A flow matched to codes, as a prior in the units of the codes."""

    def __init__(self, flow: FlowMatching) -> None:
        super().__init__(flow.space.dims)
        self.flow = flow

    def log_prob(self, z: Tensor) -> Tensor:
        flat = self.flow.space.to_model(z.reshape(-1, self.dims))
        nats = self.flow.log_density(flat) - self.flow.space.log_volume
        return nats.reshape(z.shape[:-1])

    def sample(self, n: int, noise: Noise) -> Tensor:
        z: Tensor = self.flow.space.to_data(self.flow.sample(n, noise=noise))
        return z
