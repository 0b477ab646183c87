"""Training, from top to bottom: prepare, resolve, resume or start, step, finish."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import torch

from latlas.core import devices, files, trees
from latlas.core.errors import (
    DataError,
    RunError,
    TrainingError,
    out_of_memory,
    say_number,
    say_option,
    say_setting,
)
from latlas.core.model import Finishes, FitsDirectly, Model, ReweightsData, Validates
from latlas.core.record import FORMAT, RUN, Chosen, read_run
from latlas.core.trees import Ending
from latlas.data.batches import Batches, Sweep
from latlas.data.pairs import Data
from latlas.engine.callbacks import Minutes, Monitor, Reweighting, Validation
from latlas.engine.options import TrainOptions, batch_size_of
from latlas.engine.progress import Log, Progress
from latlas.engine.resolve import resolve, too_few_steps
from latlas.engine.trainer import Callback, NotFinite, Trainer, largest_of

#: lines of metrics.jsonl in a whole run
LOG_LINES = 200


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        images: examples seen.
        stopped: ``"budget"``, ``"patience"``, ``"interrupt"``, ``"closed form"`` or
            ``"already finished"``.
        best: the held-out loss of the weights that were kept, if there was held-out data.
        ending: what model.safetensors says of it.
    """

    images: int
    seconds: float
    stopped: str
    best: float | None = None
    ending: Ending | None = None


def train(model: Model, train: Data, validation: Data | None, options: TrainOptions,
          folder: Path, progress: Progress | None = None,
          callbacks: Sequence[Callback] = (), started: float | None = None) -> Outcome:
    """Train ``model`` in place; the run folder holds the result. The same call again resumes.

    Args:
        callbacks: of the caller's, besides held-out checks, re-weighting and monitoring.
        started: the ``time.monotonic()`` from which a budget of minutes counts; now by default.

    Raises:
        TrainingError: a loss or weight is not finite; the last checkpoint is intact.
        DataError: there is nothing to train on.
    """
    progress = progress or Progress()
    if len(train) == 0:
        raise DataError("there are no examples to train on")
    if (folder / files.MODEL).is_file():
        _remove_checkpoints(folder)
        progress.end(f"{folder} is finished already")
        return Outcome(0, 0.0, "already finished")
    devices.keep_freed_memory()
    model.to(devices.pick_device(options.device, mps=not model.defaults.needs_float64))
    sweep = Sweep(train, device=model.device)
    log = Log(folder, progress, is_main=devices.join(model.device).is_main,
              tensorboard=options.tensorboard, run=read_run(folder)["id"])
    log.start = log.start if started is None else started
    facts: dict[str, Any] = {"format": FORMAT, "run": log.run}
    with devices.numerics(options.deterministic), ExitStack() as restored:
        restored.callback(torch.set_rng_state, torch.get_rng_state())  # which training seeds
        restored.callback(torch.set_num_threads, torch.get_num_threads())
        if isinstance(model, FitsDirectly):
            progress.begin(f"closed form on {len(train):,} examples", len(train))
            model.fit(sweep)
            outcome = Outcome(len(train), 0.0, "closed form")
        else:
            checks = Validation(validation) if validation and isinstance(model, Validates) else None
            with _memory_named(model, options, len(train)):
                trainer, stopped = _optimise(model, train, checks, options, log, callbacks)
            outcome = Outcome(trainer.images, log.seconds, stopped, checks.best if checks else None)
            if stopped == "interrupt":
                return outcome
            trainer.require_finite()
            model.load_state_dict(trainer.averaged().state_dict())
            facts |= {k: v for c in trainer.callbacks for k, v in c.finish(model).items()}
            facts |= {"steps": trainer.index, "epochs": trainer.images / len(train)}
        model.eval()
        if isinstance(model, Finishes):
            model.finish(sweep)
    for name, value in largest_of(model.state_dict()).items():
        if not math.isfinite(value):
            raise TrainingError(f"{name} of the trained model is not finite: the data hold numbers "
                                "that are too large or too small", what=name)
    facts |= {"images": outcome.images, "seconds": log.seconds, "stopped": outcome.stopped}
    ending = msgspec.convert(facts, Ending)
    if log.is_main:
        files.save_tree(folder / files.MODEL, dict(model.state_dict()), facts)
        _remove_checkpoints(folder)
        log.close()
    progress.end(ending.summary())
    return replace(outcome, seconds=log.seconds, ending=ending)


@contextmanager
def _memory_named(model: Model, options: TrainOptions, n: int) -> Iterator[None]:
    """TrainingError where memory runs out, in one line that says what took it and the way out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        size = batch_size_of(model, n, options, devices.join(model.device))
        space = getattr(model.space, "a", model.space)
        what = f"examples of {space.dims:,} numbers"
        ways = [say_setting("batch_size", size // 2)] if size > 1 else []
        if space.kind == "image" and space.sound is None:
            what = "images of {1} by {2} pixels".format(*space.shape)
            ways.append(say_option("image_size", max(space.shape[1:]) // 2))
        if (parts := 2 * options.accumulate) <= size:
            ways.append(f"{say_setting('accumulate', parts)}, which computes a batch in parts")
        *others, last = ways or ["smaller networks"]
        hint = f"try {', '.join(others)}{', or ' if others else ''}{last}"
        raise TrainingError(f"out of memory on {model.device} in batches of {size} {what}",
                            option="batch_size", hint=hint) from error


def _remove_checkpoints(folder: Path) -> None:
    """Of a run that has ended."""
    for pattern in (files.CHECKPOINT, "rollback-*.safetensors"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


def _optimise(model: Model, train: Data, checks: Validation | None, options: TrainOptions,
              log: Log, callbacks: Sequence[Callback]) -> tuple[Trainer, str]:
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
        resolved = msgspec.convert(record["chosen"], Chosen)
    else:
        resolved = resolve(model, batches, options, distributed, log.start)
        if log.is_main:
            files.save_json(folder / RUN, {**record, "chosen": resolved.to_json()})
    devices.apply_layout(model, resolved.layout)
    trainer = Trainer(model, options, budget=resolved.plans or resolved.images,
                      precision=resolved.precision, distributed=distributed, n_train=n)
    reweights = isinstance(model, ReweightsData) and model.reweighting_interval > 0
    monitor = Monitor(folder, log.run) if model.defaults.monitored else None
    trainer.callbacks = [callback for callback in (
        checks, Reweighting(batches) if reweights else None, *callbacks, monitor,
        Minutes(resolved, n if isinstance(model, Finishes) else 0) if resolved.minutes else None)
        if callback]

    if resumes:
        _resume(trainer, log)
    torch.set_num_threads(trainer.schedule.plan(trainer.index).threads or resolved.threads)
    # without a checkpoint lines are those of a process that was killed before its first one
    log.rewind(trainer.images if resumes else -1)
    speed, description = resolved.examples_per_second, model.describe(n)
    images = trainer.schedule.plan(trainer.index).images
    log.progress.begin(", ".join([
        f"{trainer.steps:,} step{'s' * (trainer.steps != 1)} of {resolved.batch_size:,} examples "
        f"({say_number(images / n)} epochs)", f"lr {resolved.learning_rate:g}",
        resolved.precision, f"{resolved.threads} thread{'s' * (resolved.threads != 1)}",
        str(trainer.device), *([f"{say_number(speed)} examples/s"] if speed else [])])
        + (f"; {description}" if description else ""), n, trainer.images, trainer.progress)
    if not resumes:
        log.warn(0, *too_few_steps(resolved, n, model.space), *model.warnings(n))
        for callback in trainer.callbacks:
            callback.after_step(trainer, log)
    stopped = _loop(trainer, batches, log, monitor)
    if stopped == "interrupt":
        _save(trainer, log)
        images = trainer.schedule.plan(trainer.index).images
        log.progress.end(f"stopped at {trainer.saved_images:,} of {images:,} examples and saved; "
                         "the same command goes on from here")
    return trainer, stopped


def _resume(trainer: Trainer, log: Log) -> None:
    """From the checkpoint on. RunError: it is damaged, or of another batch size."""
    file = log.folder / files.CHECKPOINT
    tensors, meta = trees.read_tree(file, log.run, trees.Progress)
    trainer.restore_from(file, tensors, meta)
    if trainer.images != meta["images"]:
        raise RunError(f"{log.folder} was trained in batches of "
                       f"{meta['images'] // max(1, meta['step'])}, here they are of "
                       f"{trainer.options.batch_size}", what=str(log.folder), option="batch_size",
                       hint="go on with as many processes as before")
    log.earlier_seconds, trainer.saved_images = float(meta["seconds"]), trainer.images


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
                log.progress.advance(trainer.images, trainer.progress)
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
