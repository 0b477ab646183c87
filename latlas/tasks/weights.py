"""How often each item should come, for training a model of any kind: more of what is rare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, unknown
from latlas.core.model import Model, ReweightsData
from latlas.data.dataset import Dataset
from latlas.metrics import rarity
from latlas.tasks.common import Array, Progress, check, inference, sweep
from latlas.tasks.read import encode

#: ``own``: what the model itself was trained by
METHODS = ("auto", "own", "product", "maximum")
WITHIN = ("auto", "class", "all")


@dataclass(frozen=True)
class ItemWeights:
    """A weight for every item, and how it came about.

    Attributes:
        weight: (n,) float64 at mean 1, the larger the rarer.
        rarity: (n, latent_dim) −log Q̂_i(z_i), nats, of each standardised dimension of the code.
        method: ``own``, ``product`` or ``maximum``.
        effective_share: (Σw)² / (n Σw²).
        words: what was chosen, in one line.
    """

    weight: Array
    rarity: Array
    method: str
    effective_share: float
    words: str

    def columns(self, names: Any = None, dimensions: bool = False) -> dict[str, Array]:
        """What ``write_table`` takes: one row per item; with ``dimensions`` the rarity of each."""
        item = np.arange(len(self.weight)) if names is None else np.asarray(names)
        each = {f"rarity_{i}": self.rarity[:, i] for i in range(self.rarity.shape[1])}
        return {"item": item, "weight": self.weight, **(each if dimensions else {})}


def weights(model: Model, data: Dataset, *, method: str = "auto", within: str = "auto",
            progress: Progress | None = None, **settings: Any) -> ItemWeights:
    """Weights by the histograms of the items' codes, or by a model's own form.

    Args:
        method: ``own`` asks the model, with the settings it was trained with; ``product``:
            Π_i 1/(Q̂_i + α); ``maximum``: max_i 1/(Q̂_i + α); ``auto``: own where there is one.
        within: densities among the items of each ``class``, or of ``all`` together; ``auto``: by
            class where the items are labelled.
        settings: ``share`` of the items that the effective sample size keeps (0.2); ``clip``,
            the largest weight times their mean (20); ``bins`` of a histogram (10); ``alpha``, by
            default the least that keeps the share. Not for ``own``.

    Raises:
        CapabilityError: no encoder. ConfigError: no such method, or a setting that it does not
            heed. DataError: fewer than 50 items, codes that do not vary, labels that are missing.
    """
    check(model, "encode")
    chosen = _method(model, method, within, settings)
    codes = encode(model, data, progress=progress)
    rarity.standardised(codes)
    groups = _groups(data, within)
    density = rarity.densities(codes, groups, settings.get("bins") or rarity.BINS)
    if chosen == "own":
        weight, words = _own(model, data)
    else:
        found = rarity.guarded(density, chosen, settings.get("share") or rarity.SHARE,
                               settings.get("clip") or rarity.CLIP, settings.get("alpha"))
        weight, words = found.weights, found.words
    weight = rarity.at_mean_one(weight)
    return ItemWeights(weight, -np.log(density), chosen, rarity.effective_share(weight), words)


def _method(model: Model, method: str, within: str, settings: Mapping[str, Any]) -> str:
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    if within not in WITHIN:
        raise ConfigError(unknown("within", within, WITHIN))
    for name in settings:
        if name not in ("share", "clip", "bins", "alpha"):
            raise ConfigError(unknown("option", name, ("share", "clip", "bins", "alpha")))
    able = isinstance(model, ReweightsData) and model.reweighting_interval > 0
    if method == "own" and not able:
        raise ConfigError(f"method=own: {type(model).__name__.lower()} weighs no data by itself; "
                          "use product or maximum")
    chosen = method if method != "auto" else "own" if able else "product"
    given = [k for k, v in settings.items() if v is not None]
    if chosen == "own" and given:
        raise ConfigError(f"{given[0]} is for method=product or maximum; this model's own weights "
                          "have the settings it was trained with")
    return chosen


def _groups(data: Dataset, within: str) -> Array | None:
    label = data.take("label")
    if within == "class" and label is None:
        raise ConfigError("within=class: these items have no labels that the model knows")
    return None if within == "all" else label


def _own(model: Any, data: Dataset) -> tuple[Array, str]:
    with inference(model):
        found = model.sampling_weights(sweep(model, data))
    return found.values.numpy(), found.words
