"""What is decided once, before the first step: threads, precision, layout and the budget.

Decisions by timing are made on a copy of the model, written to run.json and never made again, so
a resumed run takes the same ones.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from latlas.core.errors import ConfigError
from latlas.core.model import Model, Phase
from latlas.core.precision import has_bf16, transposed
from latlas.data.batches import Batches
from latlas.engine.options import TrainOptions
from latlas.engine.processes import DistributedContext
from latlas.engine.trainer import Trainer

#: share of the wall clock that training gets of ``minutes``; the rest is checks and saving
TRAINING_SHARE = 0.94
#: a challenger must be this much faster, or noise would decide
MARGIN = 1.05
#: a run of fewer steps takes the likeliest choices untimed
SHORT = 500
#: a budget, in items, that no trial comes to the end of
ENDLESS = 10**9
#: how far a run is when a model that grows is looked at for its pace, which is their mean
MOMENTS = tuple((i + 0.5) / 8 for i in range(8))


@dataclass(frozen=True)
class Chosen:
    """What a run runs with.

    Attributes:
        batch_size, learning_rate: 0 in records of runs that were begun before they were noted.
    """

    images: int
    threads: int
    precision: str
    layout: str
    batch_size: int = 0
    learning_rate: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)


def choose(model: Model, batches: Batches, options: TrainOptions, world: DistributedContext,
           begun: float | None = None) -> Chosen:
    """Resolve every ``auto``; the process is left with the chosen thread count.

    ``begun``: the ``time.perf_counter()`` from which a budget of minutes counts; now by default.
    """
    begun = time.perf_counter() if begun is None else begun
    layouts, precisions = _layouts(model, options), _precisions(model, options)
    threads = _threads(model, options)
    known = Chosen(1, threads[0], precisions[0], layouts[0], options.batch_size,
                   options.learning_rate)
    if _is_short(options, len(batches.data)):
        layouts, precisions, threads = layouts[:1], precisions[:1], threads[:1]
    formats = [replace(known, precision=p, layout=m) for m in layouts for p in precisions]
    known = _fastest(formats, model, batches, options, world)
    counts = [replace(known, threads=t) for t in threads]
    known = _fastest(counts, model, batches, options, world)
    torch.set_num_threads(known.threads)
    return replace(known, images=_budget(known, model, batches, options, world, begun))


def _is_short(options: TrainOptions, n: int) -> bool:
    """So few steps that timing the choices would cost more than the best one saves."""
    images = options.images or n * (options.epochs or 0)
    return 0 < images < SHORT * options.batch_size


def _layouts(model: nn.Module, options: TrainOptions) -> list[str]:
    """channels_last may pay for plain convolutions, never with instance normalisation."""
    if options.layout != "auto":
        return [options.layout]
    modules = list(model.modules())
    plain = any(isinstance(m, nn.Conv2d) for m in modules)
    normed = any(isinstance(m, nn.InstanceNorm2d) for m in modules)
    return ["channels_last", "contiguous"] if plain and not normed else ["contiguous"]


def apply_layout(model: nn.Module, layout: str) -> None:
    """Put the model's 4-D weights into the chosen memory layout."""
    if layout == "channels_last":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _precisions(model: Model, options: TrainOptions) -> list[str]:
    if options.precision != "auto":
        return [options.precision]
    if model.defaults.needs_fp32 or not has_bf16(model.device):
        return ["fp32"]
    mixed = model.device.type == "cpu" and bool(transposed(model))
    return ["bf16", "fp32", "mixed"] if mixed else ["bf16", "fp32"]


def _threads(model: Model, options: TrainOptions) -> list[int]:
    """All, or one: a small network's step is over before a second thread has helped."""
    most = options.threads or torch.get_num_threads()
    return [most] if options.threads or most == 1 or model.device.type != "cpu" else [most, 1]


def _fastest(candidates: list[Chosen], model: Model, batches: Batches, options: TrainOptions,
             world: DistributedContext) -> Chosen:
    """The candidate with the least seconds per step; the first one if it is nearly as fast.

    One look at each, then two more, in turns, at those within half of the best.
    """
    if len(candidates) == 1:
        return candidates[0]
    runs = {c: _runner(c, model, batches, options, world) for c in candidates}
    best = {c: run(0.03, 1) for c, run in runs.items()}
    close = [c for c in candidates if world.agree(best[c] < 1.5 * min(best.values()))]
    runs = {c: runs[c] for c in close}
    for candidate in close * 2:
        best[candidate] = min(best[candidate], runs[candidate](0.12, 3))
    winner = min(close, key=best.__getitem__)
    first = candidates[0]
    agreed: Chosen = world.agree(winner if best[first] > MARGIN * best[winner] else first)
    return agreed


def _budget(known: Chosen, model: Model, batches: Batches, options: TrainOptions,
            world: DistributedContext, begun: float) -> int:
    n = len(batches.data)
    if options.images is not None:
        return options.images
    if options.epochs is not None:
        return max(1, round(options.epochs * n))
    if options.minutes is None:
        return max(auto_images(n), model.defaults.min_images)
    seconds = _pace(_runner(known, model, batches, options, world), model, options.minutes)
    left = 60 * options.minutes * TRAINING_SHARE - (time.perf_counter() - begun)
    steps = max(1, int(left / seconds))
    return int(world.agree(steps * options.batch_size))


def _pace(run: Callable[..., float], model: Model, minutes: float) -> float:
    """Seconds per step, the mean over training; every lazy phase falls due among those timed."""
    phases: Sequence[Phase] = model.phases  # type: ignore[assignment]
    period = max(phase.every for phase in phases)
    if model.defaults.progressive:
        seconds = min(0.3, 0.3 * minutes)
        return sum(run(seconds, period, moment) for moment in MOMENTS) / len(MOMENTS)
    run(0.3, 3)
    return run(min(3.0, 2.4 * minutes), max(5, period))


def auto_images(n: int) -> int:
    """Items to see when no budget is given: 40 passes, at least 200,000, at most 10 million."""
    return min(max(200_000, 40 * n), 10_000_000)


def batch_size_of(model: Model, items: int, options: TrainOptions,
                  world: DistributedContext) -> int:
    """Items of a step over all processes: what was asked for, or else by the size of the data.

    Raises:
        ConfigError: what was asked for does not divide over processes, or there into groups.
    """
    group = getattr(model.config, model.defaults.group_option, 0) or 1
    unit, size = group * world.size, options.batch_size
    if not size:
        size = max(auto_batch_size(items), model.defaults.min_batch_size)
        size = min(size, model.defaults.max_batch_size or size)
        return -(-size // unit) * unit
    world.check(size)
    if size % unit:
        where = f" on each of {world.size} processes" if world.size > 1 else ""
        raise ConfigError(f"batch_size={size} cannot be cut into groups of {group} "
                          f"({model.defaults.group_option}){where}; choose a multiple of {unit}, "
                          f"or another {model.defaults.group_option}")
    return size


def auto_batch_size(n: int) -> int:
    """Items per step when none is given: a power of two near n/100, 64 … 256."""
    return next(size for size in (256, 128, 64) if size * 100 <= n or size == 64)


def _runner(chosen: Chosen, model: Model, batches: Batches, options: TrainOptions,
            world: DistributedContext) -> Callable[..., float]:
    """A function of (seconds, least steps) that trains a copy and returns seconds per step.

    It can be told how far the run is; a model that grows is otherwise taken fully grown.
    """
    trial = copy.deepcopy(model)
    apply_layout(trial, chosen.layout)
    trainer = Trainer(trial, options, budget=ENDLESS, precision=chosen.precision, world=world,
                      items=len(batches.data))  # some do more where items are few

    def run(seconds: float, least: int, moment: float = 1.0) -> float:
        torch.set_num_threads(chosen.threads)
        if model.defaults.progressive:
            trainer.index = round(moment * ENDLESS / options.batch_size)
        trainer.step(batches.at(trainer.index))
        begun, steps = _clock(model.device), 0
        while steps < least or (world.size == 1 and time.perf_counter() - begun < seconds):
            trainer.step(batches.at(trainer.index))
            steps += 1
        return (_clock(model.device) - begun) / steps
    return run


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
