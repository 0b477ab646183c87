"""Estimators of log p(x) for the examples of one batch, each with its standard error, nats.

What a model must have: an exact likelihood (``exact``), an ELBO (``elbo``), a proposal q(z|x)
(``iw``), or only a prior and p(x|z) (``naive``, ``ais``).
"""

from __future__ import annotations

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
from latlas.objectives.elbo import (
    ImportanceBound,
    importance_bound,
    log_weights,
    weighted_error,
)
from latlas.verbs.common import Array, Progress
from latlas.verbs.passes import condition_of, inference, noise, sweep

#: bytes one call to the model may hold
MEMORY = 200_000_000
#: examples of a batch, at most
BATCH = 512
_COPIES = 4  # the decoder's output, the residual, its square, and one spare, in fp32
#: scalars compared at once while draws of the prior are scored against all examples
BLOCK = 4_000_000
#: chains that find the step sizes of annealing, and draws that find the prior's scale
PILOT, SCALE = 4, 256


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


#: told how many draws (``naive``) or temperatures (``ais``) of a batch are done
Tick = Callable[[int], None]
Estimator = Callable[["Subject", Batch, Settings, Noise, Tick], Estimate]


class ItemNoise(Noise):
    """Draws whose part of the examples' shape depends on each example's row alone.

    So an example is binarised or dequantised the same way whatever the method, the number of draws
    and the batches. That is the first draw of this shape; all others follow the seed.
    """

    def __init__(self, batch: Batch, seed: int, *parts: int | str) -> None:
        rows = range(len(batch)) if batch.index is None else batch.index.tolist()
        super().__init__(derive(seed, *parts, *rows[:1]), batch.x.device)
        self.shape, self.seeds = tuple(batch.x.shape), [derive(seed, "item", r) for r in rows]

    def uniform(self, *shape: int, batch: int = 0) -> Tensor:
        """Uniform draws in [0, 1)."""
        if shape != self.shape or not self.seeds:
            return super().uniform(*shape, batch=batch)
        seeds, self.seeds, device = self.seeds, [], self.generator.device
        return torch.cat([Noise(s, device).uniform(1, *shape[1:]) for s in seeds])


class GaussianObservation:
    """N(x; decode(z), sd²) around the output of a decoder that has no likelihood of its own.

    Args:
        sd: in model units.
    """

    def __init__(self, model: Any, sd: float) -> None:
        self.model, self.space, self.log_var = model, model.space, 2 * math.log(sd)

    @property
    def base_measure(self) -> str:
        """As every Gaussian's: images of integers are dequantised."""
        return "integers" if self.space.levels else "data units"

    def preprocess(self, x: Tensor, noise: Noise) -> Tensor:
        """The x that is scored."""
        return dequantise(x, self.space.step, noise)

    def log_conditional(self, x: Tensor, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p(x|z), nats in data units."""
        mean = self.model.decode(z, condition=condition).mean
        around = Normal(mean, mean.new_tensor(self.log_var), len(self.space.shape))
        return around.log_prob(x) - self.space.log_volume


@dataclass(frozen=True)
class Subject:
    """A model with p(x|z), its own or a :class:`GaussianObservation`, and its prior, if any."""

    model: Any
    observes: Any
    prior: Any

    def likelihood(self, batch: Batch, x: Tensor) -> Callable[[Tensor], Tensor]:
        """log p(x|z) of preprocessed examples as a function of latents (K, n, d) or (K, 1, d)."""
        condition = self.condition(batch).get("condition")

        def log_likelihood(z: Tensor) -> Tensor:
            # a decoder with a condition decodes every latent vector for every example
            z = z if condition is None else z.expand(-1, len(x), -1)
            nats: Tensor = self.observes.log_conditional(x, z, condition)
            return nats

        return log_likelihood

    def condition(self, batch: Batch) -> dict[str, Tensor]:
        """The condition of a conditional model."""
        return condition_of(self.model, batch)


def exact(subject: Subject, batch: Batch, settings: Settings, noise: Noise,
          tick: Tick) -> Estimate:
    """In closed form."""
    nats, ess = subject.model.log_likelihood(batch.x, noise=noise, draws=1,
                                             **subject.condition(batch))
    return Estimate(nats, torch.full_like(ess, math.inf), torch.zeros_like(nats))


def elbo(subject: Subject, batch: Batch, settings: Settings, noise: Noise,
         tick: Tick) -> Estimate:
    """The evidence lower bound (Kingma & Welling 2014, eq. 3), mean over the draws."""
    bound = subject.model.elbo(batch.x, noise=noise, draws=settings.draws,
                               **subject.condition(batch))
    return Estimate(bound["bound"], torch.full_like(bound["bound"], math.nan), bound["se"])


def weighted(subject: Subject, batch: Batch, settings: Settings, noise: Noise,
             tick: Tick) -> Estimate:
    """The importance-weighted bound (Burda et al. 2016, eq. 8), by the model's own method.

    A model whose own method is exact draws from its q(z|x) here.
    """
    if subject.model.exact_likelihood:
        return _proposed(subject, batch, settings, noise)
    nats, ess = subject.model.log_likelihood(batch.x, noise=noise, draws=settings.draws,
                                             **subject.condition(batch))
    return _of_weights(nats, ess, settings)


def _proposed(subject: Subject, batch: Batch, settings: Settings, noise: Noise) -> Estimate:
    x = subject.observes.preprocess(batch.x, noise)
    log_likelihood, bound = subject.likelihood(batch, x), ImportanceBound()
    q = subject.model.encode(x, **subject.condition(batch))
    for k in _parts(settings.draws, settings.rows // len(batch)):
        bound.add(log_weights(q, subject.prior.log_prob, log_likelihood, k, noise))
    return _of_weights(*bound.result(), settings)


def naive(subject: Subject, batch: Batch, settings: Settings, noise: Noise,
          tick: Tick) -> Estimate:
    """log 1/K Σ p(x|z_k), z_k from the prior: a draw is decoded once and serves all examples."""
    x, bound = subject.observes.preprocess(batch.x, noise), ImportanceBound()
    log_likelihood = subject.likelihood(batch, x)
    each = len(batch) if subject.condition(batch) else 1
    for k in _parts(settings.draws, min(settings.rows // each, BLOCK // batch.x.numel())):
        bound.add(log_likelihood(subject.prior.sample(k, noise).to(batch.x.device)[:, None]))
        tick(bound.draws)
    return _of_weights(*bound.result(), settings)


def annealed(subject: Subject, batch: Batch, settings: Settings, noise: Noise,
             tick: Tick) -> Estimate:
    """Annealed importance sampling; latents are measured in the prior's standard deviations."""
    x, prior = subject.observes.preprocess(batch.x, noise), subject.prior
    log_likelihood = subject.likelihood(batch, x)
    n, betas = len(batch), sigmoid_schedule(settings.temperatures)
    scale = prior.sample(SCALE, noise).std(0).to(batch.x.device)
    bridge = Bridge(lambda u: prior.log_prob(u * scale), lambda u: log_likelihood(u * scale))

    def chains(k: int) -> Tensor:
        return (prior.sample(k * n, noise).to(scale) / scale).unflatten(0, (k, n))

    steps = pilot_steps(bridge, chains(PILOT), betas, settings.leapfrog, noise)
    log_w, acceptance = annealed_weights(bridge, chains(settings.draws), betas, steps,
                                         settings.leapfrog, noise, tick)
    estimate = _of_weights(*importance_bound(log_w), settings)
    return replace(estimate, acceptance=acceptance)


ESTIMATORS: dict[str, Estimator] = {"exact": exact, "elbo": elbo, "iw": weighted, "naive": naive,
                                    "ais": annealed}


def _of_weights(nats: Tensor, ess: Tensor, settings: Settings) -> Estimate:
    return Estimate(nats, ess, weighted_error(ess, settings.draws))


def _parts(draws: int, at_once: int) -> list[int]:
    """``draws`` in parts of at most ``at_once``."""
    size = max(1, at_once)
    return [min(size, draws - first) for first in range(0, draws, size)]


def estimates(subject: Subject, data: Dataset, method: str, settings: Settings, seed: int,
              progress: Progress | None) -> Iterator[Estimate]:
    """One estimate for every batch, whose draws fit in :data:`MEMORY`.

    ``naive`` takes its draws in parts and shares them, and ``elbo`` one after the other. Batches
    are powers of two: any block of :data:`BATCH` examples is then cut as the whole data set is.
    """
    size = _row_bytes(subject, data, method)
    settings = replace(settings, rows=max(1, MEMORY // size))
    together = settings.draws if method in ("iw", "ais") else 1
    most = int(np.clip(MEMORY // (together * size), 1, BATCH))
    parts = {"naive": settings.draws, "ais": settings.temperatures}.get(method, 1)
    count = 0
    for batch in sweep(subject.model, data, 1 << most.bit_length() - 1):
        def tick(part: int, first: int = count, n: int = len(batch)) -> None:
            if progress:
                progress(first * parts + part * n, len(data) * parts)

        source = ItemNoise(batch, seed, "score")
        yield ESTIMATORS[method](subject, batch, settings, source, tick)
        count += len(batch)
        tick(parts)


def _row_bytes(subject: Subject, data: Dataset, method: str) -> int:
    """Bytes that one draw of one example takes, measured on one example.

    What its widest layer holds; of ``ais``, whose gradients need them, what all layers hold.
    """
    model, outputs = subject.model, [subject.model.space.dims]

    def measure(module: nn.Module, inputs: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            outputs.append(out.numel())

    hooks = [m.register_forward_hook(measure) for m in model.modules()]
    try:
        one, draws = next(iter(sweep(model, data.subset(slice(0, 1))))), noise(model, "size")
        if method in ("naive", "ais"):
            log_likelihood = subject.likelihood(one, subject.observes.preprocess(one.x, draws))
            log_likelihood(subject.prior.sample(1, draws).to(one.x.device)[:, None])
        else:
            model.log_likelihood(one.x, noise=draws, draws=1, **subject.condition(one))
    finally:
        for hook in hooks:
            hook.remove()
    return 4 * _COPIES * max(outputs) + (4 * sum(outputs) if method == "ais" else 0)


def elbo_parts(model: Any, data: Dataset, *, seed: int = 0) -> dict[str, Array]:
    """``bound``, ``reconstruction`` and ``kl`` per example, nats in data units; one draw each."""
    with inference(model):
        parts = [model.elbo(batch.x, noise=ItemNoise(batch, seed, "elbo"),
                            **condition_of(model, batch)) for batch in sweep(model, data)]
    return {key: np.concatenate([part[key].double().cpu().numpy() for part in parts])
            for key in ("bound", "reconstruction", "kl")}
