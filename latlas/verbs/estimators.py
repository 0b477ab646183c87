"""Estimators of log p(x) for the examples of one batch, each with its standard error, nats.

What a model must have: an exact likelihood (``exact``), an ELBO (``elbo``), a proposal q(z|x)
(``iw``), or only a prior and p(x|z) (``naive``, ``ais``).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latlas.core.distributions import Normal
from latlas.core.model import Batch
from latlas.core.noise import Noise, dequantise, derive
from latlas.data.dataset import Dataset
from latlas.objectives.annealing import Bridge, annealed_weights, pilot_steps, sigmoid_schedule
from latlas.objectives.elbo import ImportanceBound, importance_bound, log_weights, weighted_error
from latlas.verbs.common import Array, Progress
from latlas.verbs.passes import batch_condition, in_order, inference, noise

#: bytes one call to the model may hold
MEMORY = 200_000_000
#: examples of a batch, at most
BATCH = 512
#: of the decoder's output in fp32: itself, the residual, its square, and one spare
COPIES = 4
#: scalars compared at once while draws of the prior are scored against all examples
BLOCK = 4_000_000
#: chains that find the step sizes of annealing, and draws that find the prior's scale
PILOT, SCALE = 4, 256
#: called with how many draws (``naive``) or temperatures (``ais``) of a batch are done
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Settings:
    """How an estimate is made.

    Attributes:
        draws: of z per example; the chains of ``ais``.
        temperatures, leapfrog: of ``ais``: steps from prior to posterior, and of each transition.
        rows: draws of one example that one call to the model may hold.
    """

    draws: int
    temperatures: int = 1000
    leapfrog: int = 10
    rows: int = 1


@dataclass(frozen=True)
class Estimate:
    """Per example (n,): nats, effective sample size, standard error; chances of acceptance."""

    nats: Tensor
    ess: Tensor
    se: Tensor
    acceptance: Tensor | None = None


class ExampleNoise(Noise):
    """Draws whose first of the examples' shape depends on each example's row alone; all others
    follow the seed.

    So an example is binarised or dequantised the same way whatever the method, draws and batches.
    """

    def __init__(self, batch: Batch, seed: int, *parts: int | str) -> None:
        rows = range(len(batch)) if batch.index is None else batch.index.tolist()
        super().__init__(derive(seed, *parts, *rows[:1]), batch.x.device)
        self.shape, self.seeds = tuple(batch.x.shape), [derive(seed, "item", r) for r in rows]

    def uniform(self, *shape: int, batch: int = 0) -> Tensor:
        """Uniform draws in [0, 1)."""
        if shape != self.shape or not self.seeds:
            return super().uniform(*shape, batch=batch)
        seeds, self.seeds = self.seeds, []  # of one generator each, which a GPU is slow to make
        draws = torch.cat([Noise(s).uniform(1, *shape[1:]) for s in seeds])
        return draws.to(self.generator.device)


class GaussianObservation:
    """N(x; decode(z), sd²) around the output of a decoder that has no likelihood of its own; ``sd``
    in model units."""

    def __init__(self, model: Any, sd: float) -> None:
        self.model, self.space, self.log_var = model, model.space, 2 * math.log(sd)
        #: as every Gaussian's: images of integers are dequantised
        self.base_measure = "integers" if model.space.levels else "data units"

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        """The x that is scored."""
        return dequantise(x, self.space.step, noise)

    def log_conditional(self, x: Tensor, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p(x|z), nats in data units."""
        mean = self.model.decode(z, condition=condition).mean
        around = Normal(mean, mean.new_full((), self.log_var), len(self.space.shape))
        return around.log_prob(x) - self.space.log_volume


def likelihood_of(model: Any, observes: Any, batch: Batch, x: Tensor) -> Callable[[Tensor], Tensor]:
    """log p(x|z) of preprocessed examples as a function of latents (K, n, d) or (K, 1, d)."""
    condition = batch_condition(model, batch).get("condition")

    def log_likelihood(z: Tensor) -> Tensor:
        # a decoder with a condition decodes every latent vector for every example
        z = z if condition is None else z.expand(-1, len(x), -1)
        return observes.log_conditional(x, z, condition)

    return log_likelihood


def estimate(model: Any, observes: Any, batch: Batch, method: str, settings: Settings,
             noise: Noise, tick: Tick) -> Estimate:
    """log p(x) of the examples of one batch; ``observes`` has p(x|z), the model itself or a
    :class:`GaussianObservation`.

    ``exact``: in closed form. ``elbo``: the evidence lower bound (Kingma & Welling 2014, eq. 3),
    mean over the draws. ``iw``: the importance-weighted bound (Burda et al. 2016, eq. 8), by the
    model's own method, or by its q(z|x) where that is exact. ``naive``: log 1/K Σ p(x|z_k), z_k
    from the prior: a draw is decoded once and serves all examples. ``ais``: :func:`annealed`.
    """
    condition = batch_condition(model, batch)
    if method == "elbo":
        parts = model.elbo(batch.x, noise=noise, draws=settings.draws, **condition)
        return Estimate(parts["bound"], torch.full_like(parts["bound"], math.nan), parts["se"])
    if method == "exact":
        nats, ess = model.log_likelihood(batch.x, noise=noise, draws=1, **condition)
        return Estimate(nats, torch.full_like(ess, math.inf), torch.zeros_like(nats))
    if method == "iw" and not model.exact_likelihood:
        nats, ess = model.log_likelihood(batch.x, noise=noise, draws=settings.draws, **condition)
        return Estimate(nats, ess, weighted_error(ess, settings.draws))
    x, bound, prior = observes.preprocess(batch.x, noise), ImportanceBound(), model.prior
    log_likelihood = likelihood_of(model, observes, batch, x)
    if method == "ais":
        return annealed(log_likelihood, prior, x, settings, noise, tick)
    if method == "iw":
        q = model.encode(x, **condition)
        for k in _parts(settings.draws, settings.rows // len(batch)):
            bound.add(log_weights(q, prior.log_prob, log_likelihood, k, noise))
    else:
        each = len(batch) if condition else 1
        for k in _parts(settings.draws, min(settings.rows // each, BLOCK // x.numel())):
            bound.add(log_likelihood(prior.sample(k, noise).to(x.device)[:, None]))
            tick(bound.draws)
    nats, ess = bound.result()
    return Estimate(nats, ess, weighted_error(ess, settings.draws))


def _parts(draws: int, at_once: int) -> list[int]:
    """``draws`` in parts of at most ``at_once``."""
    size = max(1, at_once)
    return [min(size, draws - first) for first in range(0, draws, size)]


def annealed(log_likelihood: Callable[[Tensor], Tensor], prior: Any, x: Tensor,
             settings: Settings, noise: Noise, tick: Tick) -> Estimate:
    """Annealed importance sampling; latents are measured in the prior's standard deviations."""
    n, betas = len(x), sigmoid_schedule(settings.temperatures)
    scale = prior.sample(SCALE, noise).std(0).to(x.device)
    bridge = Bridge(lambda u: prior.log_prob(u * scale), lambda u: log_likelihood(u * scale))

    def chains(k: int) -> Tensor:
        return (prior.sample(k * n, noise).to(scale) / scale).unflatten(0, (k, n))

    steps = pilot_steps(bridge, chains(PILOT), betas, settings.leapfrog, noise)
    log_w, acceptance = annealed_weights(bridge, chains(settings.draws), betas, steps,
                                         settings.leapfrog, noise, tick)
    nats, ess = importance_bound(log_w)
    return Estimate(nats, ess, weighted_error(ess, settings.draws), acceptance)


def estimates(model: Any, observes: Any, data: Dataset, method: str, settings: Settings, seed: int,
              progress: Progress | None) -> Iterator[Estimate]:
    """One estimate for every batch, whose draws fit in :data:`MEMORY`.

    ``naive`` takes its draws in parts and shares them, and ``elbo`` one after the other. Batches
    are powers of two: any block of :data:`BATCH` examples is then cut as the whole data set is.
    """
    size = _row_bytes(model, observes, data, method)
    settings = replace(settings, rows=max(1, MEMORY // size))
    together = settings.draws if method in ("iw", "ais") else 1
    most = int(np.clip(MEMORY // (together * size), 1, BATCH))
    parts = {"naive": settings.draws, "ais": settings.temperatures}.get(method, 1)
    count = 0
    for batch in in_order(model, data, 1 << most.bit_length() - 1):
        def tick(part: int, first: int = count, n: int = len(batch)) -> None:
            if progress:
                progress(first * parts + part * n, len(data) * parts)

        source = ExampleNoise(batch, seed, "score")
        yield estimate(model, observes, batch, method, settings, source, tick)
        count += len(batch)
        tick(parts)


def _row_bytes(model: Any, observes: Any, data: Dataset, method: str) -> int:
    """Bytes of one draw of one example, measured on one: what its widest layer holds; of ``ais``,
    whose gradients need them, what all layers hold."""
    outputs = [model.space.dims]

    def note_size(module: nn.Module, inputs: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            outputs.append(out.numel())

    hooks = [m.register_forward_hook(note_size) for m in model.modules()]
    try:
        one, draws = next(iter(in_order(model, data.subset(slice(0, 1))))), noise(model, "size")
        if method in ("naive", "ais"):
            x = observes.preprocess(one.x, draws)
            z = model.prior.sample(1, draws).to(one.x.device)[:, None]
            likelihood_of(model, observes, one, x)(z)
        else:
            model.log_likelihood(one.x, noise=draws, draws=1, **batch_condition(model, one))
    finally:
        for hook in hooks:
            hook.remove()
    return 4 * COPIES * max(outputs) + (4 * sum(outputs) if method == "ais" else 0)


def elbo_parts(model: Any, data: Dataset, *, seed: int = 0) -> dict[str, Array]:
    """``bound``, ``reconstruction`` and ``kl`` per example, nats in data units; one draw each."""
    with inference(model):
        parts = [model.elbo(batch.x, noise=ExampleNoise(batch, seed, "elbo"),
                            **batch_condition(model, batch)) for batch in in_order(model, data)]
    return {key: np.concatenate([part[key].double().cpu().numpy() for part in parts])
            for key in ("bound", "reconstruction", "kl")}
