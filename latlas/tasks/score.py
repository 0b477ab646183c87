"""How probable a model finds each item: nats in data units, with the effective sample size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latlas.core.batch import Batch
from latlas.core.errors import CapabilityError, ConfigError, unknown
from latlas.core.memory import keep_freed_memory
from latlas.core.model import Model
from latlas.core.precision import autocast, has_bf16
from latlas.data.dataset import Dataset
from latlas.tasks.common import (
    Array,
    Progress,
    check,
    condition_of,
    first_row,
    footing_of,
    inference,
    noise,
    sweep,
)

METHODS = ("auto", "exact", "elbo", "iw")
PRECISIONS = ("auto", "fp32", "bf16")
#: an importance-weighted figure that fewer draws than this carry is not to be relied on
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
        ess: (n,) effective sample size of the draws; infinite if exact, NaN for one-draw bounds.
        method: ``exact``, ``elbo`` or ``iw``.
        draws: how many draws of z each item had; 0 if exact.
        dims: scalars in an item.
        footing: what the numbers may be compared with: ``integers``, ``data units``, …
    """

    nats: Array
    ess: Array
    method: str
    draws: int
    dims: int
    footing: str | None

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
        """(n,) bool: importance-weighted figures that fewer than 10 effective draws carry."""
        return np.asarray(self.ess < RELIABLE_ESS)

    def columns(self, names: Any = None) -> dict[str, Array]:
        """What ``write_table`` takes: one row per item."""
        n = len(self.nats)
        item = np.arange(n) if names is None else np.asarray(names)
        return {"item": item, "nats": self.nats, "bits_per_dim": self.bits_per_dim,
                "ess": self.ess, "unreliable": self.unreliable}


def score(model: Model, data: Dataset, *, draws: int = 100, method: str = "auto", seed: int = 0,
          precision: str = "auto", progress: Progress | None = None) -> Scores:
    """log p(x) of every item: exact, one-draw ELBO, or the importance-weighted bound.

    ``auto`` is exact where the model can, otherwise ``iw``: log 1/K Σ p(x, z_k)/q(z_k|x) with K
    ``draws`` (Burda et al. 2016, eq. 8), which rises to log p(x) with K.

    Args:
        precision: of the networks: ``fp32``, ``bf16``, or ``auto``, which is bf16 for ``iw``
            where the processor has it. Training rounds the same way; the mean moves by less than
            0.01 nats, an item by about 0.06. Sums are fp32 or wider in any case.

    Raises:
        CapabilityError: a model without a likelihood, or without the method asked for.
    """
    chosen = _method(model, method, draws)
    keep_freed_memory()
    take = {"exact": _exact, "elbo": _elbo, "iw": _weighted}[chosen]
    count = draws if chosen == "iw" else 1
    nats, ess = [], []
    with inference(model), autocast(model.device, _precision(model, precision, chosen)):
        for batch in _batches(model, data, count, progress):
            a, b = take(model, batch, count, (seed, "score", first_row(batch)))
            nats.append(a.double().cpu().numpy())
            ess.append(b.double().cpu().numpy())
    return Scores(np.concatenate(nats), np.concatenate(ess), chosen,
                  0 if chosen == "exact" else count, model.space.dims,
                  footing_of(model))


def elbo_parts(model: Model, data: Dataset, *, seed: int = 0) -> dict[str, Array]:
    """``bound``, ``reconstruction`` and ``kl`` per item, nats in data units; one draw each."""
    _need(model, "elbo", hasattr(model, "elbo"))
    parts: dict[str, list[Array]] = {}
    with inference(model):
        for number, batch in enumerate(sweep(model, data)):
            got = _bound(model, batch, (seed, "elbo", number))
            for key, value in got.items():
                parts.setdefault(key, []).append(value.double().cpu().numpy())
    return {key: np.concatenate(values) for key, values in parts.items()}


def _method(model: Model, method: str, draws: int) -> str:
    check(model, "score")
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    if draws < 1:
        raise ConfigError(f"draws={draws}: at least one is needed")
    exact = bool(getattr(model, "exact_likelihood", False))
    chosen = ("exact" if exact else "iw") if method == "auto" else method
    _need(model, "exact", chosen != "exact" or exact)
    _need(model, "elbo", chosen != "elbo" or hasattr(model, "elbo"))
    return chosen


def _precision(model: Model, asked: str, method: str) -> str:
    if asked not in PRECISIONS:
        raise ConfigError(unknown("precision", asked, PRECISIONS))
    if asked != "auto":
        return asked
    return "bf16" if method == "iw" and has_bf16(model.device) else "fp32"


def _need(model: Model, method: str, has: bool) -> None:
    if not has:
        what = {"exact": "exact likelihood", "elbo": "ELBO"}[method]
        raise CapabilityError(f"{type(model).__name__.lower()} has no {what}; "
                              "use method=auto")


def _batches(model: Model, data: Dataset, draws: int,
             progress: Progress | None) -> Iterator[Batch]:
    done = 0
    for batch in sweep(model, data, _items(model, data, draws)):
        yield batch
        done += len(batch)
        if progress:
            progress(done, len(data))


def _items(model: Model, data: Dataset, draws: int) -> int:
    """Items whose draws fit in :data:`MEMORY` together, a power of two: any block of
    :data:`BATCH` items is then cut as the whole data set is."""
    if len(data) == 1:
        return 1
    most = np.clip(MEMORY // (draws * _row_bytes(model, data)), 1, BATCH)
    return 1 << int(most).bit_length() - 1


def _row_bytes(model: Model, data: Dataset) -> int:
    """Bytes that one draw of one item takes: what its widest layer holds, seen on one item."""
    widest = [model.space.dims]

    def see(module: nn.Module, given: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            widest.append(out.numel())

    hooks = [m.register_forward_hook(see) for m in model.modules()]
    try:
        one = next(iter(sweep(model, data.subset(slice(0, 1)))))
        model_any: Any = model
        model_any.log_likelihood(one.x, noise=noise(model, "size"), draws=1,
                                 **condition_of(model, one))
    finally:
        for hook in hooks:
            hook.remove()
    return 4 * _COPIES * max(widest)


def _exact(model: Any, batch: Batch, draws: int, seed: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    nats, ess = model.log_likelihood(batch.x, noise=noise(model, *seed), draws=1,
                                     **condition_of(model, batch))
    return nats, torch.full_like(ess, math.inf)


def _elbo(model: Any, batch: Batch, draws: int, seed: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    bound = _bound(model, batch, seed)["bound"]
    return bound, torch.full_like(bound, math.nan)


def _bound(model: Any, batch: Batch, seed: tuple[Any, ...]) -> dict[str, Tensor]:
    got: dict[str, Tensor] = model.elbo(batch.x, noise=noise(model, *seed),
                                        **condition_of(model, batch))
    return got


def _weighted(model: Any, batch: Batch, draws: int,
              seed: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """The models bound the memory of their own draws; a batch holds few enough items for that."""
    result: tuple[Tensor, Tensor] = model.log_likelihood(
        batch.x, noise=noise(model, *seed), draws=draws, **condition_of(model, batch))
    return result
