"""Flow matching (Lipman et al. 2023): a flow from noise to examples, learnt by regression."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlas.core.errors import DataError
from latlas.core.model import Batch, Loss, Model, Phase, Step
from latlas.core.noise import Noise, dequantise
from latlas.core.options import option
from latlas.core.space import Space
from latlas.models.priors import NAME_IT, Prior, StandardNormal
from latlas.networks.mlp import mlp

#: the velocity's network is given cos πkt and sin πkt, k = 1 … 8
FREQUENCIES = 8
#: of a class, in model units: a dimension that does not vary is divided by its root
LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class FlowMatchingConfig:
    """Flow matching."""

    width: int = option(256, "units of a hidden layer", low=1)
    depth: int = option(3, "residual blocks", low=0)
    steps: int = option(10, "steps from noise to an example, of four evaluations each", low=1)
    condition: str = option("none", "what the flow is given: nothing, or the example's label",
                            choices=("none", "label"))


class FlowMatching(Model):
    """x_1 of dx/dt = v(x, t) from x_0 ~ N(0, I), its density by the change of variables.

    v is regressed on x − ε at x_t = (1 − t) ε + t x (Lipman et al. 2023, eq. 23 with σ_min = 0;
    Liu et al. 2023, eq. 1). It starts as the velocity that leaves a standard normal one, so an
    untrained model is the Gaussian that the data were standardised by. With ``condition=label`` the
    condition is a class (n,), and x is in units of the class: before a step is made, samples of a
    class have the mean and the variances of its examples, of few drawn towards those of all.
    """

    Config = FlowMatchingConfig
    exact_likelihood = True
    phases = (Phase("model", ("net",)),)
    class_means: Tensor
    class_sds: Tensor

    def __init__(self, config: FlowMatchingConfig, space: Space) -> None:
        super().__init__(config, space)
        self.latent_dim = space.dims
        self.takes_condition: Literal["label"] | None = (
            "label" if config.condition == "label" else None)
        self.condition_dim = len(space.classes) if self.takes_condition else 0
        if self.takes_condition and not self.condition_dim:
            raise DataError("condition=label needs labels and this data has none; name them with "
                            "--label COLUMN")
        if self.takes_condition:
            self.register_buffer("class_means", torch.zeros(self.condition_dim, space.dims))
            self.register_buffer("class_sds", torch.ones(self.condition_dim, space.dims))
        self.net = mlp(space.dims + 2 * FREQUENCIES + self.condition_dim, space.dims,
                       config.width, config.depth)
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    @property
    def base_measure(self) -> str:
        """Images are dequantised; otherwise the data's own units."""
        return "integers" if self.space.levels else f"{self.space.kind} units"

    def velocity(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """v(x, t), (n, d) with times (n, 1) or (1, 1); of classes (n,) in their units."""
        phase = math.pi * t * torch.arange(1, FREQUENCIES + 1, device=x.device)
        inputs = [x, torch.cat([phase.cos(), phase.sin()], 1).expand(len(x), -1)]
        if self.takes_condition and label is not None:
            inputs.append(F.one_hot(label.long(), self.condition_dim).to(x))
        out: Tensor = self.net(torch.cat(inputs, 1)).float()
        return out + x * (2 * t - 1) / (t.square() + (1 - t).square())

    def prepare(self, batches: Iterable[Batch], n_train: int) -> None:
        """Mean and variance of each class. To the squares about the mean of n examples comes the
        variance v within classes, (Σ (x − m)² + v) / n: unbiased where v is the class's, too, and v
        itself for a single example."""
        if not self.takes_condition:
            return
        n, sums, squares = torch.zeros(3, self.condition_dim, self.space.dims, dtype=torch.float64)
        for batch in batches:
            assert batch.label is not None
            x, label = batch.x.flatten(1).cpu().double(), batch.label.cpu()
            n.index_add_(0, label, torch.ones_like(x))
            sums.index_add_(0, label, x)
            squares.index_add_(0, label, x.square())
        mean = sums / n.clamp(min=1)
        about = (squares - n * mean.square()).clamp(min=0)
        degrees = (n - 1).clamp(min=0).sum(0)
        within = torch.where(degrees > 0, about.sum(0) / degrees.clamp(min=1), 1.0)
        self.class_means.copy_(mean)
        self.class_sds.copy_(((about + within) / n.clamp(min=1)).clamp(min=LEAST_VARIANCE).sqrt())

    def class_units(self, label: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """Mean and standard deviation (n, d) of the classes (n,); 0 and 1 of a flow without.
        DataError: it has classes, and none are named."""
        if not self.takes_condition:
            return 0.0, 1.0
        if label is None:
            raise DataError(f"this flow-matching needs a label for every example: {NAME_IT}")
        return self.class_means[label], self.class_sds[label]

    def conditioning(self, batch: Batch, noise: Noise) -> Tensor | None:
        """The batch's own condition, else its labels, where the flow takes classes."""
        if not self.takes_condition:
            return None
        return batch.label if batch.condition is None else batch.condition

    def loss(self, batch: Batch, step: Step) -> Loss:
        """Squared error of the velocity per example, summed over its scalars, model units²."""
        x = dequantise(batch.x, self.space.step, step.noise).flatten(1)
        epsilon, t = step.noise.normal(*x.shape), step.noise.uniform(len(x), 1)
        label = self.conditioning(batch, step.noise)
        mean, sd = self.class_units(label)
        x = (x - mean) / sd
        error = self.velocity((1 - t) * epsilon + t * x, t, label) - (x - epsilon)
        total = error.square().sum(1).mean()
        return Loss(total, {"loss": total})

    @torch.no_grad()
    def sample(self, n: int, *, noise: Noise, condition: Tensor | None = None) -> Tensor:
        """(n, *shape) in model units."""
        mean, sd = self.class_units(condition)
        start = noise.normal(n, self.space.dims).to(self.device)
        end = runge_kutta(lambda x, t: self.velocity(x, x.new_full((1, 1), t), condition), start,
                          0.0, 1.0, self.config.steps)
        return (mean + sd * end).unflatten(1, self.space.shape)

    def log_likelihood(self, x: Tensor, *, noise: Noise, draws: int = 1,
                       condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Nats in data units, exact but for the steps, and an infinite effective sample size.

        Images are dequantised: one draw of a lower bound. It takes ``dims`` times a sample's time.
        """
        flat = dequantise(x, self.space.step, noise).flatten(1)
        nats = self.log_density(flat, condition=condition) - self.space.log_volume
        return nats, torch.full_like(nats, math.inf)

    def log_density(self, x: Tensor, probe: Tensor | None = None,
                    condition: Tensor | None = None) -> Tensor:
        """:func:`log_density` of x (n, d) in model units."""
        mean, sd = self.class_units(condition)
        nats = log_density(lambda x, t: self.velocity(x, t, condition), (x - mean) / sd,
                           self.config.steps, probe)
        return nats - sd.log().sum(1) if isinstance(sd, Tensor) else nats


class FittedPrior(Prior):
    """A flow matched to latents, as a prior in the units of the latents; of a conditional model's
    latents for classes (n,), the ``condition``."""

    def __init__(self, flow: FlowMatching) -> None:
        super().__init__(flow.space.dims)
        self.flow = flow

    def log_prob(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        flat = self.flow.space.to_model(z.reshape(-1, self.dims))
        nats = self.flow.log_density(flat, condition=condition) - self.flow.space.log_volume
        return nats.reshape(z.shape[:-1])

    def sample(self, n: int, noise: Noise, condition: Tensor | None = None) -> Tensor:
        z = self.flow.sample(n, noise=noise, condition=condition)
        return self.flow.space.to_data(z).float()


def runge_kutta(slope: Callable[[Tensor, float], Tensor], y: Tensor, start: float, end: float,
                steps: int) -> Tensor:
    """y(end) of dy/dt = slope(y, t) from y(start) = ``y``, by the classical method of order 4.

    (Kutta 1901.) The error falls with the fourth power of ``steps``; ``end`` may be below
    ``start``.

    >>> runge_kutta(lambda y, t: y, torch.ones(1), 0.0, 1.0, 8)
    tensor([2.7183])
    """
    h = (end - start) / steps
    for i in range(steps):
        t = start + i * h
        a = slope(y, t)
        b = slope(y + h / 2 * a, t + h / 2)
        c = slope(y + h / 2 * b, t + h / 2)
        y = y + h / 6 * (a + 2 * b + 2 * c + slope(y + h * c, t + h))
    return y


def log_density(velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, steps: int,
                probe: Tensor | None = None) -> Tensor:
    """log p(x) = log N(x_0) − ∫ tr ∂v/∂x dt (Chen et al. 2018, eq. 8) of a flow from N(0, I).

    Of x (n, d): (n,), through which no gradient flows. With a ``probe`` e (n, d) of −1 and 1
    the trace is estimated by eᵀ ∂v/∂x e (Grathwohl et al. 2019, eq. 8), unbiased, at the cost
    of one pass instead of d.

    Args:
        velocity: v(x, t) of (n, d) and a time (1, 1).
    """
    def slope(state: Tensor, t: float) -> Tensor:
        """Velocity and its divergence, (n, d + 1)."""
        with torch.enable_grad():
            x = state[:, :-1].detach().requires_grad_()
            v = velocity(x, x.new_full((1, 1), t))
            if probe is None:
                trace = torch.stack([
                    torch.autograd.grad(v[:, j].sum(), x, retain_graph=True)[0][:, j]
                    for j in range(x.shape[1])]).sum(0)
            else:
                e = probe.clone()
                trace = (torch.autograd.grad((v * e).sum(), x)[0] * e).sum(1)
        return torch.cat([v.detach(), trace[:, None]], 1)

    with torch.inference_mode(False):  # the trace is made of gradients
        state = torch.cat([x, torch.zeros_like(x[:, :1])], 1).clone()
        start = runge_kutta(slope, state, 1.0, 0.0, steps)
    return StandardNormal(x.shape[1]).log_prob(start[:, :-1]) + start[:, -1]
