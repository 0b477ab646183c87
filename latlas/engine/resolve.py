"""Every option that is left open, resolved: by rules, or by a short trial where rules cannot tell.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from latlas.core import devices
from latlas.core.devices import DistributedContext
from latlas.core.errors import say_number, say_option
from latlas.core.model import Finishes, Model
from latlas.core.record import Chosen
from latlas.core.space import PairSpace
from latlas.core.trees import FEW_EPOCHS, FEW_STEPS
from latlas.data.batches import Batches
from latlas.engine.options import DEFAULT_MINUTES, TrainOptions, default_images
from latlas.engine.trainer import Trainer

#: share of ``minutes`` that trials may take
TRIAL_SHARE = 0.05
#: a run of fewer steps is not timed; a budget, in examples, that no trial comes to the end of
SHORT, ENDLESS = 500, 10**9
#: moments of a run at which steps are timed whose cost depends on it
MOMENTS = 8


def resolve(model: Model, batches: Batches, options: TrainOptions, distributed: DistributedContext,
            start: float | None = None) -> Chosen:
    """Every ``auto`` resolved: by rules, and where rules cannot tell by timing a copy of the model.

    Args:
        options: with the batch size and learning rate of this model.
        start: the ``time.monotonic()`` from which a budget of minutes counts; now by default.
    """
    start = time.monotonic() if start is None else start
    n, size, defaults = len(batches.data), options.batch_size, model.defaults
    images = options.images or max(default_images(n), defaults.min_images)
    if options.epochs is not None:
        images = max(1, round(options.epochs * n))
    threads, precision = options.threads or torch.get_num_threads(), options.precision
    if precision == "auto":
        bf16 = devices.has_bf16(model.device) and not defaults.needs_fp32
        precision = "bf16" if bf16 else "fp32"
    resolved = Chosen(images, threads, precision, layout_of(model, options),  # type: ignore[arg-type]
                      size, options.learning_rate)
    if options.minutes is None and images < SHORT * size:
        return resolved

    twin = copy.deepcopy(model)
    devices.apply_layout(twin, resolved.layout)
    trainer = Trainer(twin, options, budget=ENDLESS, precision=precision, distributed=distributed,
                      n_train=n)
    timed = partial(seconds_per_step, trainer, batches)
    by_size = options.minutes is None and options.images is None and options.epochs is None
    minutes = DEFAULT_MINUTES if by_size else options.minutes
    trial = TRIAL_SHARE * 60 * (minutes or DEFAULT_MINUTES)  # seconds for all of them
    changes = [change for change, worth_a_try in (
        # one is faster for small steps, and for all where other processes use the processor
        ({"threads": 1}, threads > 1 and not options.threads),
        ({"precision": "mixed"}, precision == "bf16" and options.precision == "auto"
         and devices.transposed(model))) if worth_a_try and model.device.type == "cpu"]
    first = timed(resolved.replace(threads=1) if {"threads": 1} in changes else resolved, 0.0, 1)
    first = distributed.agree(first)
    for change in changes:
        other = resolved.replace(**change)
        if 24 * first < trial:  # by the best of three tries each, in turns
            tries = [[timed(r, 0.1, 1) for r in (other, resolved)] for _ in range(3)]
            second, best = map(min, zip(*tries, strict=True))
        else:  # by a step each
            second, best = (timed(r, 0.0, 1, warm_up=False) for r in (other, resolved))
        resolved = distributed.agree(resolved if best < 1.05 * second else other)
    costs = costs_of_steps(timed, resolved, trainer, first, trial if minutes else 0.0)
    seconds = sum(costs) / len(costs)
    if by_size and images / size * seconds < 60 * DEFAULT_MINUTES:
        minutes = None
    if minutes:
        resolved = resolved.replace(minutes=minutes, costs=tuple(c / seconds for c in costs))
    resolved = resolved.replace(examples_per_second=round(size / seconds, 3))
    if minutes:
        last_pass = n if isinstance(model, Finishes) else 0
        budget = resolved.training_seconds(last_pass) - (time.monotonic() - start)
        images = max(1, int(budget / seconds)) * size
    return distributed.agree(resolved.replace(images=images))


def costs_of_steps(timed: Callable[..., float], resolved: Chosen, trainer: Trainer, first: float,
                   trial: float) -> list[float]:
    """Seconds of a step at equally spaced shares of the run, or of all steps if they are alike, by
    trials of about ``trial`` seconds in all; ``first`` is what one took."""
    if trainer.model.defaults.progressive:
        measured: dict[int, float] = {}
        for moment in (0, MOMENTS - 1, *range(1, MOMENTS - 1)):
            if len(measured) < 2 or 2 * sum(measured.values()) < trial / 2:
                measured[moment] = timed(resolved, min(0.3, trial / 20), 1,
                                         (moment + 0.5) / MOMENTS)
        moments = sorted(measured)
        return np.interp(range(MOMENTS), moments, [measured[m] for m in moments]).tolist()
    if not trial:
        return [timed(resolved, 0.5, 1)]
    # every lazy phase is due among the steps, where there is time for so many
    period = max(phase.every for phase, _ in trainer.phases.values())
    return [timed(resolved, min(3.0, 0.4 * trial),
                  max(1, min(max(5, period), int(0.4 * trial / first))))]


def too_few_steps(resolved: Chosen, n: int, space: Any) -> list[str]:
    """What is said before the first step of a run whose minutes are too few, and the way out."""
    steps, epochs = -(-resolved.images // resolved.batch_size), resolved.images / n
    if not resolved.minutes or (steps >= FEW_STEPS and epochs >= FEW_EPOCHS):
        return []
    needed = max(FEW_STEPS * resolved.batch_size, FEW_EPOCHS * n)
    speed, ways = resolved.examples_per_second, []
    shape = (space.a if isinstance(space, PairSpace) else space).shape
    if len(shape) == 3:
        side = max(shape[1:])
        sizes = [s for s in (128, 96, 64, 48, 32) if s < side]
        smaller = next((s for s in sizes if resolved.images * (side / s) ** 2 >= needed),
                       sizes[-1] if sizes else None)
        if smaller:
            ways.append(f"{say_option('image_size', smaller)} makes about "
                        f"{say_number(speed * (side / smaller) ** 2)} examples/s of it")
    ways.append(f"{say_option('minutes', math.ceil(resolved.minutes * needed / resolved.images))} "
                "would be enough for both")
    return [f"{resolved.minutes:g} minutes are {steps:,} steps and {say_number(epochs, 2)} epochs "
            f"at {say_number(speed)} examples/s: a model learns little in fewer than {FEW_STEPS} "
            f"steps or {FEW_EPOCHS} epochs; " + ", ".join(ways)]


def layout_of(model: nn.Module, options: TrainOptions) -> str:
    """channels_last for plain convolutions, never with instance normalisation."""
    if options.layout != "auto":
        return options.layout
    plain, normed = (any(isinstance(m, kind) for m in model.modules())
                     for kind in (nn.Conv2d, nn.InstanceNorm2d))
    return "channels_last" if plain and not normed else "contiguous"


def seconds_per_step(trainer: Trainer, batches: Batches, resolved: Chosen, seconds: float,
                     least: int, progress: float = 1.0, warm_up: bool = True) -> float:
    """Of ``least`` steps, or as many as fit into ``seconds``; one more is made before to warm up.
    """
    torch.set_num_threads(resolved.threads)
    trainer.precision = resolved.precision
    if trainer.model.defaults.progressive:
        trainer.index = round(progress * ENDLESS / resolved.batch_size)
        trainer.ema.images = trainer.images
    if warm_up:
        trainer.step(batches.at(trainer.index))
    begin, steps = _clock(trainer.device), 0
    while steps < least or (trainer.distributed.size == 1
                            and _clock(trainer.device) - begin < seconds):
        trainer.step(batches.at(trainer.index))
        steps += 1
    return (_clock(trainer.device) - begin) / steps


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()
