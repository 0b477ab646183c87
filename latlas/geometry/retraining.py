"""Several decoders of one latent space, for the metric of an ensemble."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from latlas.core.errors import CapabilityError, DataError
from latlas.core.model import Decodes
from latlas.core.noise import derive
from latlas.geometry.metric import mean_of


def retrained_decoders(model: Any, z: Any, x: Any, members: int = 8, *, steps: int = 2000,
                       batch_size: int = 128, learning_rate: float = 1e-3, seed: int = 0,
                       condition: Any = None, progress: Any = None) -> list[Any]:
    """Copies of a model whose decoders are trained anew, from other first weights and in another
    order, to decode the same codes z (n, d) to the examples x (n, *shape) in model units.

    Squared error and Adam, the learning rate falling to 0 like a cosine. What decoding passes
    through is trained, and begun anew as each layer's class begins it. The same seed gives the
    same decoders.

    Args:
        condition: of a conditional model, (n, …).
        progress: called with (members trained, members).

    CapabilityError: no decoder, or none with weights. DataError: not as many codes as examples.
    """
    codes = torch.as_tensor(np.asarray(z), dtype=torch.float32)
    target = torch.as_tensor(np.asarray(x), dtype=torch.float32)
    if len(codes) != len(target) or not len(codes):
        raise DataError(f"{len(codes)} codes of {len(target)} examples: one of each")
    decoders = []
    for member in range(members):
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(derive(seed, "decoder", member))
            twin: Any = copy.deepcopy(model).cpu().requires_grad_(True).train()
            weights = _begin_anew(twin, codes[:2], condition)
            optimiser = torch.optim.Adam(weights, learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
            for _ in range(steps):
                rows = torch.randint(len(codes), (min(batch_size, len(codes)),))
                named = {} if condition is None else {"condition": condition[rows]}
                mean = mean_of(twin.decode(codes[rows], **named))
                loss = (mean - target[rows]).square().flatten(1).sum(1).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        decoders.append(twin.eval().requires_grad_(False))
        if progress:
            progress(member + 1, members)
    return decoders


def _begin_anew(model: Any, z: torch.Tensor, condition: Any) -> list[nn.Parameter]:
    """The weights that decoding passes through, all drawn anew."""
    if not isinstance(model, Decodes):
        raise CapabilityError(f"{type(model).__name__.lower()} has no decoder to train anew")
    network: Any = model
    named = {} if condition is None else {"condition": condition[:len(z)]}
    parameters = list(network.parameters())
    mean = mean_of(model.decode(z, **named))
    grads = torch.autograd.grad(mean.sum(), parameters, allow_unused=True) if (
        mean.requires_grad) else [None] * len(parameters)
    weights = [p for p, grad in zip(parameters, grads, strict=True) if grad is not None]
    if not weights:
        raise CapabilityError(f"the decoder of {type(model).__name__.lower()} has no weights to "
                              "train anew")
    chosen = {id(p) for p in weights}
    for module in network.modules():
        own = [p for p in module.parameters(recurse=False) if id(p) in chosen]
        if own and hasattr(module, "reset_parameters"):
            module.reset_parameters()
        else:
            for parameter in own:
                nn.init.normal_(parameter, std=float(parameter.std(correction=0)) or 0.02)
    return weights
