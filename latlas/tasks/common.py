"""What every task shares: capability checks, inference mode, batches, conditions, data units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.errors import CapabilityError, ConfigError
from latlas.core.model import (
    Classifies,
    Decodes,
    Encodes,
    HasStyles,
    Model,
    Samples,
    ScoresDensity,
    Translates,
)
from latlas.core.noise import Noise, derive
from latlas.core.space import Space
from latlas.data.batches import Sweep
from latlas.data.dataset import Dataset

Array = NDArray[Any]
#: called with (items done, items in all)
Progress = Callable[[int, int], None]

NEEDS = {
    "sample": "a prior to draw from",
    "encode": "an encoder",
    "decode": "a decoder",
    "reconstruct": "an encoder and a decoder",
    "score": "a likelihood",
    "classify": "an output for classes",
    "denoise": "training on noisy items",
    "mix": "layers that have styles",
    "translate": "two domains",
}
#: how a decoder without a likelihood is scored all the same
OBSERVATION = ("A decoder with a prior is given one by --observation-sd S (observation_sd=S): "
               "N(x; decode(z), S²), S in model units")
PROTOCOLS: dict[str, tuple[type, ...]] = {
    "sample": (Samples,),
    "encode": (Encodes,),
    "decode": (Decodes,),
    "reconstruct": (Encodes, Decodes),
    "score": (ScoresDensity,),
    "classify": (Classifies,),
    "mix": (HasStyles,),
    "translate": (Translates,),
}


def require(name: str, provides: frozenset[str], capability: str,
            models: Mapping[str, frozenset[str]], task: str | None = None) -> None:
    """Say in one line, before any data is read, that a model cannot do what a task needs.

    Args:
        name: the model's name in the table of models; ``provides`` its words there.
        capability: the word the task needs; ``task`` the verb asked for, if it differs.
        models: every model's words, to name those that could.

    Raises:
        CapabilityError: if ``capability`` is not among ``provides``.

    >>> require("gan", frozenset({"sample"}), "encode", {"vae": frozenset({"encode"})}, "map")
    Traceback (most recent call last):
    latlas.core.errors.CapabilityError: gan cannot encode; `map` needs an encoder. \
Models that can: vae
    """
    if capability in provides:
        return
    able = sorted(k for k, words in models.items() if capability in words)
    asked = task or capability
    hint = f". {OBSERVATION}" if asked == "score" and "decode" in provides else ""
    raise CapabilityError(
        f"{name} cannot {capability}; `{asked}` needs "
        f"{NEEDS.get(capability, capability)}. Models that can: {', '.join(able) or 'none'}{hint}")


def can(model: Model, capability: str) -> bool:
    """Whether this model satisfies the protocols behind a capability."""
    return all(isinstance(model, protocol) for protocol in PROTOCOLS[capability])


def check(model: Model, capability: str) -> None:
    """Raise CapabilityError in one line when :func:`can` is false."""
    if not can(model, capability):
        raise CapabilityError(f"{type(model).__name__.lower()} cannot {capability}; "
                              f"it needs {NEEDS[capability]}")


def base_measure_of(model: Model) -> str | None:
    """What the model's likelihood is a likelihood of; ``None`` without one.

    All densities over the data's own continuous units are ``data units``. log p(x|c) of a
    conditional model is on a base_measure of its own: c may tell much of x.
    """
    base_measure = model.base_measure if can(model, "score") else None
    if not base_measure:
        return None
    base_measure = "data units" if base_measure.endswith(" units") else base_measure
    return f"{base_measure} given a condition" if model.condition_dim else base_measure


@contextmanager
def inference(model: Model, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode, no gradients; the mode before is put back.

    With ``gradients`` tensors may still take part in one that is asked for inside.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad() if gradients else torch.inference_mode():
            yield
    finally:
        model.train(training)


def noise(model: Model, *parts: int | str) -> Noise:
    """Draws on the model's device that depend on ``parts`` alone."""
    return Noise(derive(*parts), model.device)


def sweep(model: Model, data: Dataset, batch_size: int = 512) -> Iterator[Batch]:
    """The items once, in order, in model units, on the model's device.

    Raises:
        ConfigError: if the items do not have the shape the model was trained on.
    """
    if tuple(data.space.shape) != tuple(model.space.shape):
        raise ConfigError(f"the data's items have shape {tuple(data.space.shape)}, the model was "
                          f"trained on {tuple(model.space.shape)}")
    yield from Sweep(in_units_of(model.space, data), batch_size, model.device)


def in_units_of(space: Space, data: Dataset) -> Dataset:
    """The same data set under the units the model learnt: its location and scale, not its own."""
    return replace(data, space=space)


def first_row(batch: Batch) -> int:
    """Row of the first item in its data set: what seeds a batch's draws, so that they are the
    same whichever part of the data set is looked at."""
    return 0 if batch.index is None or not len(batch.index) else int(batch.index[0])


def condition_of(model: Model, batch: Batch) -> dict[str, Tensor]:
    """``{"condition": …}`` for a conditional model, ``{}`` for any other.

    What a model hides at random depends on the rows of the batch alone.
    """
    given = model.conditioning(batch, noise(model, "condition", first_row(batch)))
    return {} if given is None else {"condition": given}


def as_condition(model: Model, condition: Any, n: int) -> dict[str, Tensor]:
    """A condition given by the user as keyword argument: one for all ``n`` items, or one each.

    Args:
        condition: ``None``, an int class code, (n,) codes, or (n, C + 1, H, W).
    """
    if condition is None:
        return {}
    given = torch.as_tensor(np.asarray(condition) if not isinstance(condition, Tensor)
                            else condition, device=model.device)
    given = given[None] if given.dim() == 0 else given
    given = given.expand(n, *given.shape[1:]) if len(given) == 1 else given
    if len(given) != n:
        raise ConfigError(f"{len(given)} conditions for {n} items: give one, or one for each")
    return {"condition": given}


def rows(condition: Mapping[str, Tensor], part: slice) -> dict[str, Tensor]:
    """The rows of a condition that belong to one batch."""
    return {k: v[part] for k, v in condition.items()}


def items_of(data: Dataset) -> Array:
    """All its items, (n, \\*shape), as they are stored."""
    items: Any = data.take("x")
    return np.asarray(items)


def some_of(data: Dataset, most: int) -> Dataset:
    """Up to ``most`` items spread evenly over a data set."""
    rows = np.linspace(0, len(data) - 1, min(most, len(data))).astype(np.int64)
    return data.subset(np.unique(rows))


def to_data(space: Space, x: Tensor) -> Array:
    """Model units to the file's: pictures uint8 (uint16 above 256 levels), the rest float32."""
    v: Array = space.to_data(x.detach().float().cpu()).numpy()
    if space.levels is None:
        return v.astype(np.float32, copy=False)
    kind = np.uint8 if space.levels <= 256 else np.uint16
    whole: Array = np.clip(np.rint(v), 0, space.levels - 1).astype(kind)
    return whole


def conditions_like(model: Model, data: Dataset, n: int, seed: int = 0) -> Tensor | None:
    """What a conditional model needs for ``n`` items like these; ``None`` for any other model."""
    picks = np.random.default_rng(derive(seed, "conditions")).integers(len(data), size=n)
    given = [condition_of(model, b) for b in sweep(model, data.subset(picks), max(n, 1))]
    return given[0].get("condition") if given else None


def codes_tensor(model: Model, codes: Any) -> Tensor:
    """Codes given by the user as a float tensor (n, latent_dim) on the model's device.

    Raises:
        ConfigError: if their width is not the model's.
    """
    z = torch.as_tensor(np.asarray(codes, np.float32), device=model.device)
    z = z[None] if z.dim() == 1 else z
    if z.shape[-1] != model.latent_dim:
        raise ConfigError(f"the codes have {z.shape[-1]} dimensions, the model "
                          f"{model.latent_dim}")
    return z
