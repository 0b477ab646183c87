"""Training, from top to bottom: prepare, resolve, resume or start, step, finish."""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from latlas.core import devices, files, trees
from latlas.core.devices import DistributedContext
from latlas.core.errors import DataError, RunError, TrainingError
from latlas.core.model import Finishes, FitsDirectly, Model, ReweightsData, Validates
from latlas.core.record import FORMAT, RUN, Chosen, read_run
from latlas.data.batches import Batches, Sweep
from latlas.data.pairs import Data
from latlas.engine.callbacks import Monitor, Reweighting, Validation
from latlas.engine.options import TrainOptions, batch_size_of, default_images
from latlas.engine.progress import Log, Progress
from latlas.engine.trainer import Callback, NotFinite, Trainer

#: lines of metrics.jsonl in a whole run
LOG_LINES = 200
#: share of the wall clock that training gets of ``minutes``; the rest is checks and saving
TRAINING_SHARE = 0.94
#: a run of fewer steps is not timed; a budget, in examples, that no trial comes to the end of
SHORT, ENDLESS = 500, 10**9


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        images: examples seen.
        stopped: ``"budget"``, ``"patience"``, ``"interrupt"``, ``"closed form"`` or
            ``"already finished"``.
        best: the held-out loss of the weights that were kept, if there was held-out data.
    """

    images: int
    seconds: float
    stopped: str
    best: float | None = None


def train(model: Model, train: Data, validation: Data | None, options: TrainOptions,
          folder: Path, progress: Progress | None = None,
          callbacks: Sequence[Callback] = ()) -> Outcome:
    """Train ``model`` in place; the run folder holds the result. The same call again resumes.

    Args:
        callbacks: of the caller's, besides held-out checks, re-weighting and monitoring.

    Raises:
        TrainingError: a loss or weight is not finite; the last checkpoint is intact.
        DataError: there is nothing to train on.
    """
    start, progress = time.perf_counter(), progress or Progress()
    if len(train) == 0:
        raise DataError("there are no examples to train on")
    if (folder / files.MODEL).is_file():
        _remove_checkpoints(folder)
        progress.end(f"{folder} is finished already")
        return Outcome(0, 0.0, "already finished")
    devices.keep_freed_memory()
    device = devices.pick_device(options.device)
    model.to(device)
    sweep = Sweep(train, device=device)
    log = Log(folder, progress, is_main=devices.join(device).is_main,
              tensorboard=options.tensorboard, run=read_run(folder)["id"])
    facts: dict[str, Any] = {"format": FORMAT, "run": log.run}
    with ExitStack() as restored:  # training seeds torch's own generator and sets threads
        restored.callback(torch.set_rng_state, torch.get_rng_state())
        restored.callback(torch.set_num_threads, torch.get_num_threads())
        if isinstance(model, FitsDirectly):
            progress.begin(len(train), 0, f"closed form on {len(train):,} examples")
            model.fit(sweep)
            outcome = Outcome(len(train), 0.0, "closed form")
        else:
            checks = Validation(validation) if validation and isinstance(model, Validates) else None
            trainer, stopped = _optimise(model, train, checks, options, log, callbacks, start)
            outcome = Outcome(trainer.images, log.seconds, stopped, checks.best if checks else None)
            if stopped == "interrupt":
                return outcome
            trainer.require_finite()
            model.load_state_dict(trainer.averaged().state_dict())
            facts |= {k: v for c in trainer.callbacks for k, v in c.finish(model).items()}
        model.eval()
        if isinstance(model, Finishes):
            model.finish(sweep)
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise TrainingError(f"{name} of the trained model is not finite: the data hold numbers "
                                "that are too large or too small", what=name)
    outcome = replace(outcome, seconds=log.seconds)
    if log.is_main:
        files.save_tree(folder / files.MODEL, dict(model.state_dict()), {
            "images": outcome.images, "seconds": outcome.seconds, "stopped": outcome.stopped,
            **facts})
        _remove_checkpoints(folder)
    if log.events is not None:
        log.events.close()
    progress.end(f"finished {outcome.images:,} examples in {outcome.seconds:,.1f} s")
    return outcome


def _remove_checkpoints(folder: Path) -> None:
    """Of a run that has ended."""
    for pattern in (files.CHECKPOINT, "rollback-*.safetensors"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


def _optimise(model: Model, train: Data, checks: Validation | None, options: TrainOptions,
              log: Log, callbacks: Sequence[Callback], start: float) -> tuple[Trainer, str]:
    """Train by gradient, from the checkpoint on if there is one; why it ended."""
    folder, distributed, n = log.folder, devices.join(model.device), len(train)
    record = read_run(folder)
    if record.get("chosen") and not options.batch_size:  # chosen when the data may have been fewer
        options = replace(options, batch_size=record["chosen"]["batch_size"])
    options = replace(options, batch_size=batch_size_of(model, n, options, distributed),
                      learning_rate=options.learning_rate or model.defaults.learning_rate)
    batches = Batches(train, options.batch_size, options.seed, device=model.device,
                      rank=distributed.rank, world=distributed.size)
    resumes = (folder / files.CHECKPOINT).is_file()
    if not resumes:
        model.prepare(Sweep(train, device=model.device), n)
    if record.get("chosen"):
        resolved = Chosen(**record["chosen"])
    else:
        resolved = resolve(model, batches, options, distributed, start)
        if log.is_main:
            files.save_json(folder / RUN, {**record, "chosen": resolved.to_json()})
    torch.set_num_threads(resolved.threads)
    devices.apply_layout(model, resolved.layout)
    trainer = Trainer(model, options, budget=resolved.images, precision=resolved.precision,
                      distributed=distributed, n_train=n)
    reweights = isinstance(model, ReweightsData) and model.reweighting_interval > 0
    monitor = Monitor(folder, log.run) if model.defaults.monitored else None
    trainer.callbacks = [callback for callback in (
        checks, Reweighting(batches) if reweights else None, *callbacks, monitor) if callback]

    if resumes:
        tensors, meta = trees.read_tree(folder / files.CHECKPOINT, log.run, trees.Progress)
        trainer.restore_from(folder / files.CHECKPOINT, tensors, meta)
        if trainer.images != meta["images"]:
            size = meta["images"] // max(1, meta["step"])
            raise RunError(f"{folder} was trained in batches of {size}, "
                           f"here they are of {options.batch_size}", what=str(folder),
                           option="batch_size", hint="go on with as many processes as before")
        log.earlier_seconds, trainer.saved_images = float(meta["seconds"]), trainer.images
    # without a checkpoint lines are those of a process that was killed before its first one
    log.rewind(trainer.images if resumes else -1)
    speed, description = resolved.examples_per_second, model.describe(n)
    log.progress.begin(resolved.images, trainer.images, ", ".join([
        f"{trainer.steps:,} step{'s' * (trainer.steps != 1)} of {resolved.batch_size:,} examples "
        f"({resolved.images / n:,.3g} epochs)", f"lr {resolved.learning_rate:g}",
        resolved.precision, f"{resolved.threads} thread{'s' * (resolved.threads != 1)}",
        str(trainer.device), *([f"{speed:,.3g} examples/s"] if speed else [])])
        + (f"; {description}" if description else ""))
    if not resumes:
        log.warn(0, *model.warnings(n))
        for callback in trainer.callbacks:
            callback.after_step(trainer, log)
    stopped = _loop(trainer, batches, log, monitor)
    if stopped == "interrupt":
        _save(trainer, log)
        log.progress.end(f"stopped at {trainer.saved_images:,} of {resolved.images:,} examples and "
                         "saved; the same command goes on from here")
    return trainer, stopped


def _loop(trainer: Trainer, batches: Batches, log: Log, monitor: Monitor | None) -> str:
    """The steps that are left; says why they ended."""
    saved, alone = time.monotonic(), trainer.distributed.size == 1
    with _stop_signals() as signals:
        while not trainer.finished:
            # all processes stop at the same step
            if (alone or trainer.due(LOG_LINES)) and trainer.distributed.agree(bool(signals)):
                return "interrupt"
            log.values.clear()
            try:
                trainer.step(batches.at(trainer.index))
                log.progress.advance(trainer.images)
                if trainer.due(LOG_LINES):
                    terms = trainer.drain()
                    trainer.require_finite(terms)
                    log.progress.terms({k: v for k, v in terms.items() if "/" not in k})
                    log.write(trainer.images, terms)
                if monitor:
                    monitor.check(trainer)
                for callback in trainer.callbacks:
                    if callback.after_step(trainer, log):
                        return "patience"
                if time.monotonic() - saved > trainer.options.checkpoint_seconds:
                    _save(trainer, log)
                    saved = time.monotonic()
            except NotFinite as error:
                if monitor is None:
                    raise
                monitor.roll_back(trainer, error)
                log.rewind(trainer.images)
                _save(trainer, log)  # a run that is killed from here on goes the same way
                log.warn(trainer.images, f"{error.message}; going on from {trainer.images:,} "
                         f"examples at {trainer.rate_scale:g} of the learning rate")
    return "budget"


def _save(trainer: Trainer, log: Log) -> None:
    """Replace the checkpoint by one of numbers that are finite; the old one stays until the new
    one is whole."""
    if not trainer.model.defaults.monitored:
        trainer.require_finite()
    elif trainer.not_finite():
        return  # noticed at a fixed step: when this is called depends on the clock
    if log.is_main:
        tensors, meta = trainer.state()
        files.save_tree(log.folder / files.CHECKPOINT, tensors, {
            "format": FORMAT, "run": log.run, **meta, "seconds": log.seconds})
    trainer.saved_images = trainer.images


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and a terminal that closes are noted and obeyed between steps; a second
    Ctrl-C stops at once."""
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def note(number: int, frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
               if hasattr(signal, name)]
    handlers = {n: signal.signal(n, note) for n in numbers
                if signal.getsignal(n) is not signal.SIG_IGN}  # as under nohup
    try:
        yield signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------ options left open


def resolve(model: Model, batches: Batches, options: TrainOptions, distributed: DistributedContext,
            start: float | None = None) -> Chosen:
    """Every ``auto`` resolved: by rules, and where rules cannot tell by timing a copy of the model.

    Args:
        options: with the batch size and learning rate of this model.
        start: the ``time.perf_counter()`` from which a budget of minutes counts; now by default.
    """
    start = time.perf_counter() if start is None else start
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
    changes = [change for change, worth_a_try in (
        ({"threads": 1}, threads > 1 and not options.threads),  # of small steps one is faster
        ({"precision": "mixed"}, precision == "bf16" and options.precision == "auto"
         and devices.transposed(model))) if worth_a_try and model.device.type == "cpu"]
    for change in changes:  # by the best of three tries each, in turns
        other = resolved.replace(**change)
        tries = [[timed(r, 0.1, 1) for r in (resolved, other)] for _ in range(3)]
        first, second = map(min, zip(*tries, strict=True))
        resolved = distributed.agree(resolved if first < 1.05 * second else other)
    if options.minutes is None:
        seconds = timed(resolved, 0.5, 1)
    else:  # over the whole of training; every lazy phase is due among the steps
        minutes, period = options.minutes, max(phase.every for phase, _ in trainer.phases.values())
        if defaults.progressive:  # the more it has grown, the longer a step
            seconds = sum(timed(resolved, min(0.3, 0.3 * minutes), period, moment / 16)
                          for moment in range(1, 16, 2)) / 8
        else:
            timed(resolved, min(0.3, minutes), 3)
            seconds = timed(resolved, min(3.0, 2.4 * minutes), max(5, period))
        budget = 60 * minutes * TRAINING_SHARE - (time.perf_counter() - start)
        images = max(1, int(budget / seconds)) * size
    return distributed.agree(resolved.replace(images=images,
                                              examples_per_second=round(size / seconds, 1)))


def layout_of(model: nn.Module, options: TrainOptions) -> str:
    """channels_last for plain convolutions, never with instance normalisation."""
    if options.layout != "auto":
        return options.layout
    plain, normed = (any(isinstance(m, kind) for m in model.modules())
                     for kind in (nn.Conv2d, nn.InstanceNorm2d))
    return "channels_last" if plain and not normed else "contiguous"


def seconds_per_step(trainer: Trainer, batches: Batches, resolved: Chosen, seconds: float,
                     least: int, progress: float = 1.0) -> float:
    """Of ``least`` steps, or as many as fit into ``seconds``; one more is made before."""
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
