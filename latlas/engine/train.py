"""Training, from top to bottom: prepare, resolve, resume or start, step, finish."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any

import torch

from latlas.core.errors import DataError, RunError
from latlas.core.folders import RunFolder
from latlas.core.memory import keep_freed_memory
from latlas.core.model import Finishes, FitsDirectly, Model, ReweightsData, Validates
from latlas.core.precision import apply_layout
from latlas.data.batches import Batches, Sweep
from latlas.data.pairs import Data
from latlas.engine.callbacks import Monitor, Reweighting, Validation
from latlas.engine.options import TrainOptions, batch_size_of
from latlas.engine.processes import join, pick_device
from latlas.engine.progress import Log, Progress
from latlas.engine.resolve import Resolved, resolve
from latlas.engine.trainer import Callback, NotFinite, Trainer

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
    """

    images: int
    seconds: float
    stopped: str
    best: float | None = None


def train(model: Model, train: Data, validation: Data | None, options: TrainOptions,
          run: RunFolder, progress: Progress | None = None,
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
    if run.finished:
        progress.end(f"{run.path} is finished already")
        return Outcome(0, 0.0, "already finished")
    keep_freed_memory()
    device = pick_device(options.device)
    model.to(device)
    sweep = Sweep(train, device=device)
    log = Log(run, progress, leads=join(device).leads, tensorboard=options.tensorboard)
    with _restored_globals():
        if isinstance(model, FitsDirectly):
            progress.begin(len(train), 0, f"closed form on {len(train):,} examples")
            model.fit(sweep)
            return _finish(model, sweep, log, Outcome(len(train), 0.0, "closed form"), {})

        trainer, batches, resolved = _prepare(model, train, options, run, start)
        checks = Validation(validation) if validation and isinstance(model, Validates) else None
        reweights = isinstance(model, ReweightsData) and model.reweighting_interval > 0
        monitor = Monitor(run) if model.defaults.monitored else None
        trainer.callbacks = [callback for callback in (
            checks, Reweighting(batches) if reweights else None, *callbacks, monitor) if callback]

        resumed = _resume(trainer, log)
        progress.begin(resolved.images, trainer.images, _first_line(trainer, resolved))
        if not resumed:
            log.warn(0, *model.warnings(len(train)))
            for callback in trainer.callbacks:
                callback.after_step(trainer, log)
        stopped = _loop(trainer, batches, log, monitor)
        outcome = Outcome(trainer.images, log.seconds, stopped, checks.best if checks else None)
        if stopped == "interrupt":
            _save(trainer, log)
            progress.end(f"stopped at {trainer.saved_images:,} of {resolved.images:,} examples and "
                         "saved; the same command goes on from here")
            return outcome
        trainer.require_finite()
        model.load_state_dict(trainer.averaged().state_dict())
        facts = {k: v for c in trainer.callbacks for k, v in c.finish(model).items()}
        return _finish(model, sweep, log, outcome, facts)


def _prepare(model: Model, train: Data, options: TrainOptions, run: RunFolder,
             start: float) -> tuple[Trainer, Batches, Resolved]:
    """Resolve the options, or read how they were resolved, and build what makes the steps."""
    distributed, n = join(model.device), len(train)
    options = replace(options, batch_size=batch_size_of(model, n, options, distributed),
                      learning_rate=options.learning_rate or model.defaults.learning_rate)
    batches = Batches(train, options.batch_size, options.seed, device=model.device,
                      rank=distributed.rank, world=distributed.size)
    if not run.begun:
        model.prepare(Sweep(train, device=model.device), n)
    if run.chosen:
        resolved = Resolved(**run.chosen)
    else:
        resolved = resolve(model, batches, options, distributed, start)
        if distributed.leads:
            run.record_choice(asdict(resolved))
    torch.set_num_threads(resolved.threads)
    apply_layout(model, resolved.layout)
    return Trainer(model, options, budget=resolved.images, precision=resolved.precision,
                   distributed=distributed, n_train=n), batches, resolved


def _resume(trainer: Trainer, log: Log) -> bool:
    """Go on from the checkpoint, if there is one."""
    checkpoint = log.run.load_checkpoint()
    if checkpoint is None:
        log.rewind(-1)  # of a process that was killed before its first checkpoint
        return False
    tensors, meta = checkpoint
    trainer.restore(tensors, meta)
    if trainer.images != meta["images"]:
        size, path = meta["images"] // meta["step"], str(log.run.path)
        raise RunError(f"{path} was trained in batches of {size}, here they are of "
                       f"{trainer.options.batch_size}", what=path, option="batch_size",
                       hint="go on with as many processes as before")
    log.earlier_seconds, trainer.saved_images = float(meta["seconds"]), trainer.images
    log.rewind(trainer.images)
    return True


def _first_line(trainer: Trainer, resolved: Resolved) -> str:
    """What will be done, how fast, and with what."""
    epochs = resolved.images / trainer.n_train
    speed = resolved.examples_per_second
    parts = [f"{trainer.steps:,} step{'s' * (trainer.steps != 1)} of {resolved.batch_size:,} "
             f"examples ({epochs:,.3g} epochs)", f"lr {resolved.learning_rate:g}",
             resolved.precision, f"{resolved.threads} thread{'s' * (resolved.threads != 1)}",
             str(trainer.device), *([f"{speed:,.3g} examples/s"] if speed else [])]
    description = trainer.model.describe(trainer.n_train)
    return ", ".join(parts) + (f"; {description}" if description else "")


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
                _save(trainer, log)  # a run that is killed from here on takes the same way
                log.warn(trainer.images, f"{error.message}; going on from {trainer.images:,} "
                         f"examples at {trainer.rate_scale:g} of the learning rate")
    return "budget"


def _save(trainer: Trainer, log: Log) -> None:
    """Replace the checkpoint by one of numbers that are finite."""
    if not trainer.model.defaults.monitored:
        trainer.require_finite()
    elif trainer.not_finite():
        return  # noticed at a fixed step: when this is called depends on the clock
    if log.leads:
        tensors, meta = trainer.state()
        log.run.save_checkpoint(tensors, meta | {"seconds": log.seconds})
    trainer.saved_images = trainer.images


def _finish(model: Model, sweep: Sweep, log: Log, outcome: Outcome,
            facts: Mapping[str, Any]) -> Outcome:
    """Let the model see the data once more, if it wants to, and save it."""
    model.eval()
    if isinstance(model, Finishes):
        model.finish(sweep)
    outcome = replace(outcome, seconds=log.seconds)
    if log.leads:
        log.run.save_model(dict(model.state_dict()), {
            "images": outcome.images, "seconds": outcome.seconds, "stopped": outcome.stopped,
            **facts})
    if log.events is not None:
        log.events.close()
    log.progress.end(f"finished {outcome.images:,} examples in {outcome.seconds:,.1f} s")
    return outcome


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted and obeyed between steps; a second Ctrl-C stops at once."""
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def note(number: int, frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    handlers = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _restored_globals() -> Iterator[None]:
    """Training seeds torch's global generator and sets threads; the caller's come back after."""
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
