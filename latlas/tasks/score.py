"""How probable a model finds each item: nats in data units, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.errors import CapabilityError, ConfigError, unknown
from latlas.core.memory import keep_freed_memory
from latlas.core.model import BoundsDensity, Decodes, Encodes, Model, Observes, prior_of
from latlas.core.precision import autocast
from latlas.data.dataset import Dataset
from latlas.tasks.common import (
    OBSERVATION,
    Array,
    Progress,
    can,
    check,
    condition_of,
    footing_of,
    inference,
    noise,
    sweep,
)
from latlas.tasks.estimators import (
    ESTIMATORS,
    Estimate,
    GaussianObservation,
    ItemNoise,
    Settings,
    Subject,
)

#: draws of z per item where none are asked for
DRAWS = {"exact": 0, "elbo": 1, "iw": 100, "naive": 10_000, "ais": 16}
METHODS = ("auto", *DRAWS)
PRECISIONS = ("fp32", "bf16")
#: a figure that fewer effective draws than this carry is not to be relied on
RELIABLE_ESS = 10.0
#: bytes one call to the model may hold
MEMORY = 200_000_000
#: items of a batch, at most
BATCH = 512
_COPIES = 4  # the decoder's output, the residual, its square, and one spare, in fp32


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods per item.

    Attributes:
        nats: (n,) float64, log p(x) or a lower bound of it, in data units.
        se: (n,) standard error of ``nats`` over the draws; 0 if exact, NaN for one draw.
        ess: (n,) effective sample size of the draws; infinite if exact, NaN for ``elbo``.
        method: ``exact``, ``elbo``, ``iw``, ``naive`` or ``ais``.
        draws: how many draws of z each item had; 0 if exact.
        dims: scalars in an item.
        footing: what the numbers may be compared with: ``integers``, ``data units``, …
        acceptance: of ``ais``: share of moves that were accepted, near 0.65 if all is well.
    """

    nats: Array
    se: Array
    ess: Array
    method: str
    draws: int
    dims: int
    footing: str | None
    acceptance: float = math.nan

    @property
    def bits_per_dim(self) -> Array:
        """−nats / (dims · log 2), per item."""
        return np.asarray(-self.nats / (self.dims * math.log(2)))

    @property
    def mean(self) -> float:
        """Average nats."""
        return float(self.nats.mean())

    @property
    def standard_error(self) -> float:
        """Of :attr:`mean`, over items; NaN for a single item."""
        n = len(self.nats)
        return float(self.nats.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan

    @property
    def unreliable(self) -> Array:
        """(n,) bool: figures that fewer than 10 effective draws carry."""
        return np.asarray(self.ess < RELIABLE_ESS)

    def columns(self, names: Any = None) -> dict[str, Array]:
        """What ``write_table`` takes: one row per item."""
        n = len(self.nats)
        item = np.arange(n) if names is None else np.asarray(names)
        return {"item": item, "nats": self.nats, "se": self.se,
                "bits_per_dim": self.bits_per_dim, "ess": self.ess,
                "unreliable": self.unreliable}


def score(model: Model, data: Dataset, *, draws: int | None = None, method: str = "auto",
          seed: int = 0, precision: str = "fp32", temperatures: int | None = None,
          leapfrog: int | None = None, observation_sd: float | None = None,
          progress: Progress | None = None) -> Scores:
    """log p(x) of every item, exact or by one of four estimators.

    ``auto`` is exact where the model can, otherwise ``iw``, and ``ais`` with ``observation_sd``.

    - ``elbo``: E_q[log p(x|z)] − KL(q ‖ p), mean of K draws.
    - ``iw``: log 1/K Σ p(x, z_k)/q(z_k|x) (Burda et al. 2016, eq. 8), which rises to log p(x).
    - ``naive``: log 1/K Σ p(x|z_k) with z_k from the prior, the same for all items of a batch.
    - ``ais``: annealed importance sampling (Neal 2001) from the prior by Hamiltonian Monte Carlo;
      needs no encoder.

    All are lower bounds in expectation; the last three are logarithms of unbiased estimates.

    Args:
        draws: K; of ``ais`` the number of chains. Default: :data:`DRAWS`.
        temperatures, leapfrog: of ``ais`` alone: steps from prior to posterior (default 1,000),
            and of each transition (10).
        observation_sd: scores a decoder without a likelihood (an autoencoder, a generator) as
            N(x; decode(z), observation_sd²), model units, by ``naive`` or ``ais``.
        precision: of the networks: ``fp32``, or ``bf16``, which is faster where the processor has
            it. The mean then moves by less than 0.01 nats, an item by about 0.06. Sums are fp32 or
            wider in any case.
        progress: counts items, times draws with ``naive`` and temperatures with ``ais``.

    Raises:
        CapabilityError: a model without a likelihood, or without the method asked for.
        ConfigError: an unknown method or precision, or settings that the method does not heed.
    """
    if precision not in PRECISIONS:
        raise ConfigError(unknown("precision", precision, PRECISIONS))
    chosen = _method(model, method, observation_sd)
    settings = _settings(chosen, draws, {"temperatures": temperatures, "leapfrog": leapfrog})
    subject = _subject(model, observation_sd)
    keep_freed_memory()
    with inference(model, gradients=chosen == "ais"), \
            autocast(model.device, precision):
        found = list(_estimates(subject, data, chosen, settings, seed, progress))
    footing = footing_of(model) if observation_sd is None else subject.observes.footing
    acceptance = _joined(found, "acceptance").mean() if chosen == "ais" else math.nan
    return Scores(_joined(found, "nats"), _joined(found, "se"), _joined(found, "ess"), chosen,
                  settings.draws, model.space.dims, footing, float(acceptance))


def elbo_parts(model: Model, data: Dataset, *, seed: int = 0) -> dict[str, Array]:
    """``bound``, ``reconstruction`` and ``kl`` per item, nats in data units; one draw each."""
    _need(model, "elbo")
    model_any: Any = model
    with inference(model):
        found = [model_any.elbo(batch.x, noise=ItemNoise(batch, seed, "elbo"),
                                **condition_of(model, batch)) for batch in sweep(model, data)]
    return {key: np.concatenate([part[key].double().cpu().numpy() for part in found])
            for key in ("bound", "reconstruction", "kl")}


def _joined(found: list[Estimate], key: str) -> Array:
    return np.concatenate([getattr(part, key).double().cpu().numpy() for part in found])


def _method(model: Model, method: str, sd: float | None) -> str:
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    if sd is not None:
        return _around_the_decoder(model, method, sd)
    if not can(model, "score") and isinstance(model, Decodes):
        raise CapabilityError(f"{_name(model)} has no likelihood. {OBSERVATION}")
    check(model, "score")
    if method == "auto":
        return "exact" if _exact(model) else "iw"
    _need(model, method)
    return method


def _around_the_decoder(model: Model, method: str, sd: float) -> str:
    """The method for a decoder that is given a Gaussian of this width."""
    if not 0 < sd < math.inf:
        raise ConfigError(f"observation_sd={sd}: a standard deviation is above 0")
    if can(model, "score"):
        raise ConfigError(f"observation_sd: {_name(model)} has a likelihood of its own; leave "
                          "observation_sd out")
    if not isinstance(model, Decodes) or prior_of(model) is None:
        raise CapabilityError(f"{_name(model)} has no decoder with a prior; observation_sd needs "
                              "both")
    if method not in ("auto", "naive", "ais"):
        raise CapabilityError(f"{_name(model)} has no method={method}; with observation_sd use "
                              "method=ais or method=naive")
    return "ais" if method == "auto" else method


def _need(model: Model, method: str) -> None:
    """Raise CapabilityError for a method that this model cannot be scored by."""
    decoder = isinstance(model, Observes) and prior_of(model) is not None
    proposes = not _exact(model) or (decoder and isinstance(model, Encodes))
    has, what = {"exact": (_exact(model), "exact likelihood"),
                 "elbo": (isinstance(model, BoundsDensity), "ELBO"),
                 "iw": (proposes, "q(z|x) to draw from"),
                 "naive": (decoder, "p(x|z) with a prior"),
                 "ais": (decoder, "p(x|z) with a prior")}[method]
    if not has:
        raise CapabilityError(f"{_name(model)} has no {what}; use method=auto")


def _settings(method: str, draws: int | None, annealing: dict[str, int | None]) -> Settings:
    """Defaults where nothing is asked for; ConfigError for what the method would not heed."""
    given = {name: value for name, value in annealing.items() if value is not None}
    if given and method != "ais":
        raise ConfigError(f"{next(iter(given))} belongs to method=ais, not to {method}")
    for name, value in {"draws": draws, **given}.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value}: at least one is needed")
    return Settings(DRAWS[method] if draws is None or method == "exact" else draws, **given)


def _exact(model: Model) -> bool:
    return bool(getattr(model, "exact_likelihood", False))


def _name(model: Model) -> str:
    return type(model).__name__.lower()


def _subject(model: Model, sd: float | None) -> Subject:
    observes: Any = model if sd is None else GaussianObservation(model, sd)
    return Subject(model, observes, prior_of(model))


def _estimates(subject: Subject, data: Dataset, method: str, settings: Settings, seed: int,
               progress: Progress | None) -> Iterator[Estimate]:
    """One estimate for every batch."""
    size = _row_bytes(subject, data, method)
    settings = replace(settings, rows=max(1, MEMORY // size))
    parts = {"naive": settings.draws, "ais": settings.temperatures}.get(method, 1)
    done = 0
    for batch in sweep(subject.model, data, _items(size, method, settings.draws)):
        def tick(part: int, first: int = done, n: int = len(batch)) -> None:
            if progress:
                progress(first * parts + part * n, len(data) * parts)

        source = ItemNoise(batch, seed, "score")
        yield ESTIMATORS[method](subject, batch, settings, source, tick)
        done += len(batch)
        tick(parts)


def _items(size: int, method: str, draws: int) -> int:
    """Items whose draws fit in :data:`MEMORY` together, ``size`` bytes each, a power of two: any
    block of :data:`BATCH` items is then cut as the whole data set is.

    ``naive`` takes its draws in parts and shares them, and ``elbo`` one after the other.
    """
    held = draws if method in ("iw", "ais") else 1
    most = int(np.clip(MEMORY // (held * size), 1, BATCH))
    return 1 << most.bit_length() - 1


def _row_bytes(subject: Subject, data: Dataset, method: str) -> int:
    """Bytes that one draw of one item takes, seen on one item.

    What its widest layer holds; of ``ais``, whose gradients need them, what all layers hold.
    """
    model, outputs = subject.model, [subject.model.space.dims]

    def see(module: nn.Module, given: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            outputs.append(out.numel())

    hooks = [m.register_forward_hook(see) for m in model.modules()]
    try:
        one = next(iter(sweep(model, data.subset(slice(0, 1)))))
        _once(subject, one, method)
    finally:
        for hook in hooks:
            hook.remove()
    return 4 * _COPIES * max(outputs) + (4 * sum(outputs) if method == "ais" else 0)


def _once(subject: Subject, one: Batch, method: str) -> None:
    """One draw of one item."""
    draws = noise(subject.model, "size")
    if method in ("naive", "ais"):
        log_likelihood = subject.likelihood(one, subject.observes.prepare(one.x, draws))
        log_likelihood(subject.prior.sample(1, draws).to(one.x.device)[:, None])
    else:
        subject.model.log_likelihood(one.x, noise=draws, draws=1, **subject.told(one))
