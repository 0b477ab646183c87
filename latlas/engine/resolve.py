"""Options that were left open, resolved once, before the first step."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from latlas.core.model import Model
from latlas.core.precision import apply_layout, has_bf16, transposed
from latlas.data.batches import Batches
from latlas.engine.options import TrainOptions, default_images
from latlas.engine.processes import DistributedContext
from latlas.engine.trainer import Trainer

#: share of the wall clock that training gets of ``minutes``; the rest is checks and saving
TRAINING_SHARE = 0.94
#: a run of fewer steps is not timed; a budget, in examples, that no trial comes to the end of
SHORT, ENDLESS = 500, 10**9


@dataclass(frozen=True)
class Resolved:
    """What a run is trained with; written to run.json, so that a resumed run keeps it.

    Attributes:
        images: the budget, in examples.
        examples_per_second: as measured before the first step; 0 of a run too short for that.
    """

    images: int
    threads: int
    precision: str
    layout: str
    batch_size: int
    learning_rate: float
    examples_per_second: float = 0.0


def resolve(model: Model, batches: Batches, options: TrainOptions, distributed: DistributedContext,
            start: float | None = None) -> Resolved:
    """Every ``auto`` resolved: by rules, and where rules cannot tell by timing a copy of the model.

    Args:
        options: with the batch size and learning rate of this model.
        start: the ``time.perf_counter()`` from which a budget of minutes counts; now by default.
    """
    start = time.perf_counter() if start is None else start
    n, size = len(batches.data), options.batch_size
    images = options.images or max(default_images(n), model.defaults.min_images)
    if options.epochs is not None:
        images = max(1, round(options.epochs * n))
    threads, precision = options.threads or torch.get_num_threads(), options.precision
    if precision == "auto":
        bf16 = has_bf16(model.device) and not model.defaults.needs_fp32
        precision = "bf16" if bf16 else "fp32"
    resolved = Resolved(images, threads, precision, layout_of(model, options), size,
                        options.learning_rate)
    if options.minutes is None and images < SHORT * size:
        return resolved

    twin = copy.deepcopy(model)
    apply_layout(twin, resolved.layout)
    trial = Trial(Trainer(twin, options, budget=ENDLESS, precision=precision,
                          distributed=distributed, n_train=n), batches)
    if model.device.type == "cpu":
        if threads > 1 and not options.threads:  # small steps end before a second thread has helped
            resolved = trial.faster(resolved, replace(resolved, threads=1))
        if precision == "bf16" and options.precision == "auto" and transposed(model):
            resolved = trial.faster(resolved, replace(resolved, precision="mixed"))
    if options.minutes is None:
        seconds = trial.seconds_per_step(resolved, 0.5, 1)
    else:
        seconds = trial.mean_seconds_per_step(resolved, options.minutes)
        budget = 60 * options.minutes * TRAINING_SHARE - (time.perf_counter() - start)
        images = max(1, int(budget / seconds)) * size
    return distributed.agree(replace(resolved, images=images,
                                     examples_per_second=round(size / seconds, 1)))


def layout_of(model: nn.Module, options: TrainOptions) -> str:
    """channels_last for plain convolutions, never with instance normalisation."""
    if options.layout != "auto":
        return options.layout
    plain, normed = (any(isinstance(m, kind) for m in model.modules())
                     for kind in (nn.Conv2d, nn.InstanceNorm2d))
    return "channels_last" if plain and not normed else "contiguous"


@dataclass
class Trial:
    """Steps of a copy of the model against the clock."""

    trainer: Trainer
    batches: Batches

    def faster(self, one: Resolved, other: Resolved) -> Resolved:
        """By the best of three tries each, in turns."""
        tries = [[self.seconds_per_step(r, 0.1, 1) for r in (one, other)] for _ in range(3)]
        first, second = map(min, zip(*tries, strict=True))
        return self.trainer.distributed.agree(one if first < 1.05 * second else other)

    def mean_seconds_per_step(self, resolved: Resolved, minutes: float) -> float:
        """Over the whole of training; every lazy phase is due among the steps."""
        period = max(phase.every for phase, _ in self.trainer.phases.values())
        if self.trainer.model.defaults.progressive:  # the more it has grown, the longer a step
            return sum(self.seconds_per_step(resolved, min(0.3, 0.3 * minutes), period, moment / 16)
                       for moment in range(1, 16, 2)) / 8
        self.seconds_per_step(resolved, min(0.3, minutes), 3)
        return self.seconds_per_step(resolved, min(3.0, 2.4 * minutes), max(5, period))

    def seconds_per_step(self, resolved: Resolved, seconds: float, least: int,
                         progress: float = 1.0) -> float:
        """Of ``least`` steps, or as many as fit into ``seconds``; one more is made before."""
        trainer, batches = self.trainer, self.batches
        torch.set_num_threads(resolved.threads)
        trainer.precision = resolved.precision
        if trainer.model.defaults.progressive:
            trainer.index = round(progress * ENDLESS / resolved.batch_size)
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
    return time.perf_counter()
