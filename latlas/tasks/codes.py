"""Draws of codes of data, as the decoder sees them in training."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.model import Model, Observes
from latlas.data.dataset import Dataset
from latlas.tasks.common import Array, check, condition_of, inference, noise, sweep


def draw_codes(model: Model, data: Dataset, draws: int = 1, *, seed: int = 0) -> Array:
    """z ~ q(z|x), (draws · n, latent_dim) float32, one draw of every item after the other.

    A model that scores a binarised or dequantised x (``prepare``) is given one, drawn anew for
    every draw. An autoencoder's code is a point: all its draws are equal.
    """
    check(model, "encode")
    with inference(model):
        parts = [_draw(model, batch, (seed, "codes", draw, number)) for draw in range(draws)
                 for number, batch in enumerate(sweep(model, data))]
    return np.concatenate(parts)


def _draw(model: Any, batch: Batch, seed: tuple[Any, ...]) -> Array:
    draws = noise(model, *seed)
    x: Tensor = model.preprocess(batch.x, draws) if isinstance(model, Observes) else batch.x
    z = model.encode(x, **condition_of(model, batch)).sample(draws)
    return np.asarray(z.float().cpu())
