"""The loop: step, look, save; from a data set to a trained model."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from latlas.core.errors import DataError, TrainingError
from latlas.core.folders import RunFolder
from latlas.core.memory import keep_freed_memory
from latlas.core.model import Finishes, FitsDirectly, Model, Step
from latlas.core.noise import Noise, derive
from latlas.data.batches import Batches, Sweep
from latlas.data.dataset import Dataset
from latlas.engine.choose import Chosen, apply_layout, auto_batch_size, choose
from latlas.engine.logs import EventLog
from latlas.engine.options import TrainOptions
from latlas.engine.processes import World, join, pick_device
from latlas.engine.progress import Progress, Silent
from latlas.engine.trainer import Trainer

#: lines of metrics.jsonl and checks on held-out data in a whole run
LOG_LINES, CHECKS = 200, 25
#: held-out items looked at in a check
CHECK_ITEMS = 2000


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        images: items seen; ``stopped``: ``"budget"``, ``"patience"``, ``"interrupt"``,
            ``"closed form"`` or ``"already finished"``.
        best: the held-out loss of the weights that were kept, if there was held-out data.
    """

    images: int
    seconds: float
    stopped: str
    best: float | None = None


def fit(model: Model, train: Dataset, validation: Dataset | None, options: TrainOptions,
        run: RunFolder, progress: Progress | None = None) -> Outcome:
    """Train ``model`` in place; the run folder holds the result. The same call again resumes.

    Raises:
        TrainingError: a loss or weight is not finite; the last checkpoint is intact.
        DataError: there is nothing to train on.
    """
    if len(train) == 0:
        raise DataError("there are no items to train on")
    progress = progress or Silent()
    if run.finished:
        progress.end(f"{run.path} is finished already")
        return Outcome(0, 0.0, "already finished")
    keep_freed_memory()
    device = pick_device(options.device)
    model.to(device)
    with _own_globals():
        if isinstance(model, FitsDirectly):
            return _fit_directly(model, train, run, device, progress)
        return Loop(model, train, validation, options, run, device, progress).run()


def _fit_directly(model: Model, train: Dataset, run: RunFolder, device: torch.device,
                  progress: Progress) -> Outcome:
    begun = time.monotonic()
    progress.begin(len(train), 0, f"closed form on {len(train):,} items")
    model.fit(Sweep(train, device=device))  # type: ignore[operator]
    outcome = Outcome(len(train), time.monotonic() - begun, "closed form")
    if join(device).leads:
        run.save_model(dict(model.state_dict()), {"images": len(train), "stopped": "closed form"})
    progress.end(f"finished in {outcome.seconds:.1f} s")
    return outcome


class Loop:
    """Everything around the steps of one run."""

    def __init__(self, model: Model, train: Dataset, validation: Dataset | None,
                 options: TrainOptions, run: RunFolder, device: torch.device,
                 progress: Progress) -> None:
        self.world = join(device)
        size = options.batch_size or max(auto_batch_size(len(train)), model.least_batch)
        options = replace(options, batch_size=size)
        self.world.check(options.batch_size)
        self.model, self.train, self.options, self.run_folder = model, train, options, run
        self.progress, self.device = progress, device
        self.batches = Batches(train, options.batch_size, options.seed, device=device,
                               rank=self.world.rank, world=self.world.size)
        self.chosen = self._choose()
        apply_layout(model, self.chosen.layout)
        self.trainer = Trainer(model, options, budget=self.chosen.images,
                               precision=self.chosen.precision, world=self.world,
                               items=len(train))
        self.checks = Checks(self.trainer, validation, options, device)
        self.steps = -(-self.chosen.images // options.batch_size)
        self.log_every = max(1, self.steps // LOG_LINES)
        self.check_every = _check_every(options, self.steps)
        self.begun = self.saved = time.monotonic()
        self.before = 0.0
        self.saved_images = 0
        self.events = EventLog(run.path, options.tensorboard and self.world.leads)

    def run(self) -> Outcome:
        """All steps from the checkpoint, or from the start, to the end."""
        self._resume()
        note = (f"{self.chosen.images:,} items, {self.chosen.precision}, "
                f"{self.chosen.threads} thread{'' if self.chosen.threads == 1 else 's'}, "
                f"{self.device}")
        self.progress.begin(self.chosen.images, self.trainer.images, note)
        stopped = "budget"
        with _signals() as asked:
            while self.trainer.index < self.steps:
                if self._asked(asked):
                    return self._interrupted()
                self.trainer.step(self.batches.at(self.trainer.index))
                if self._look():
                    stopped = "patience"
                    break
        return self._finish(stopped)

    def _asked(self, asked: list[int]) -> bool:
        """Stop was asked for; with many processes every one must stop at the same step."""
        if self.world.size == 1 or self.trainer.index % self.log_every:
            return self.world.size == 1 and bool(asked)
        return bool(self.world.agree(bool(asked)))

    def _choose(self) -> Chosen:
        if self.run_folder.chosen:
            chosen = Chosen(**self.run_folder.chosen)
            torch.set_num_threads(chosen.threads)
            return chosen
        chosen = choose(self.model, self.batches, self.options, self.world)
        if self.world.leads:
            self.run_folder.choose(chosen.to_json())
        return chosen

    def _resume(self) -> None:
        found = self.run_folder.load_checkpoint()
        if found is None:
            return
        tensors, meta = found
        self.trainer.restore(tensors, meta)
        self.checks.restore(tensors, meta)
        self.before, self.saved_images = float(meta["seconds"]), self.trainer.images
        if self.world.leads:
            self.run_folder.rewind_log(self.trainer.images)

    def _look(self) -> bool:
        """Log, check and save when due; whether to stop early."""
        index = self.trainer.index
        self.progress.advance(self.trainer.images)
        if index % self.log_every == 0:
            self._log()
        stop = False
        if self.checks.any and (index % self.check_every == 0 or index == self.steps):
            stop = self._check()
        if time.monotonic() - self.saved > self.options.checkpoint_seconds:
            self._save()
        return stop

    def _log(self) -> None:
        terms = self.trainer.drain()
        self._must_be_finite(terms)
        self.progress.terms(terms)
        self._write(terms)

    def _check(self) -> bool:
        loss = self.checks.look()
        self._write({"validation/loss": loss})
        return self.checks.patience_is_over

    def _write(self, values: dict[str, float]) -> None:
        if self.world.leads:
            entry = {"images": self.trainer.images, "seconds": round(self.seconds, 3), **values}
            self.run_folder.log(entry)
            self.events.write(entry)

    @property
    def seconds(self) -> float:
        """Training time of this run over all its lives."""
        return self.before + time.monotonic() - self.begun

    def _must_be_finite(self, terms: dict[str, float], weights: bool = False) -> None:
        """Stop at a term, or if asked a weight, that is not: it would only spread."""
        bad = [k for k, v in terms.items() if not math.isfinite(v)]
        if weights and not bad:
            bad = [k for k, v in self.model.named_parameters() if not bool(v.isfinite().all())]
        if bad:
            kept = (f"the checkpoint at {self.saved_images:,} items is intact"
                    if self.saved_images else "no checkpoint was made before")
            # the sum comes first: what was added to it says more
            raise TrainingError(f"{bad[-1]} is not a finite number at {self.trainer.images:,} "
                                f"items; {kept}. Try a smaller learning_rate, clip_norm=1 or "
                                "precision=fp32")

    def _save(self) -> None:
        self.saved = time.monotonic()
        self._must_be_finite(self.trainer.drain(), weights=True)
        if not self.world.leads:
            return
        tensors, meta = self.trainer.state()
        more, noted = self.checks.state()
        self.run_folder.save_checkpoint(tensors | more, meta | noted | {"seconds": self.seconds})
        self.saved, self.saved_images = time.monotonic(), self.trainer.images

    def _interrupted(self) -> Outcome:
        self._save()
        self.progress.end(f"stopped at {self.trainer.images:,} of {self.chosen.images:,} items and "
                          f"saved; the same command goes on from here")
        return Outcome(self.trainer.images, self.seconds, "interrupt", self.checks.best)

    def _finish(self, stopped: str) -> Outcome:
        self._must_be_finite(self.trainer.drain(), weights=True)
        self.model.load_state_dict(self.checks.kept())
        self.model.eval()
        if isinstance(self.model, Finishes):
            self.model.finish(Sweep(self.train, device=self.device))
        outcome = Outcome(self.trainer.images, self.seconds, stopped, self.checks.best)
        if self.world.leads:
            meta = {"images": outcome.images, "seconds": outcome.seconds, "stopped": stopped,
                    "best": outcome.best}
            self.run_folder.save_model(dict(self.model.state_dict()), meta)
        self.events.close()
        self.progress.end(f"finished {outcome.images:,} items in {outcome.seconds:,.1f} s")
        return outcome


class Checks:
    """The averaged model's loss on held-out data, and the best weights so far.

    Held-out draws come from their own stream, the same in every check, so that two checks differ
    by the weights alone.
    """

    def __init__(self, trainer: Trainer, data: Dataset | None, options: TrainOptions,
                 device: torch.device) -> None:
        only = trainer.phases[0].name if len(trainer.phases) == 1 else ""
        self.phase = trainer.model.checked_phase or only
        usable = data is not None and len(data) > 0 and self.phase
        self.data = data.subset(slice(0, CHECK_ITEMS)) if usable and data is not None else None
        self.trainer, self.options, self.device = trainer, options, device
        self.best: float | None = None
        self.weights: dict[str, Tensor] = {}
        self.misses = 0

    @property
    def any(self) -> bool:
        """There is held-out data for this model."""
        return self.data is not None

    @property
    def patience_is_over(self) -> bool:
        """So many checks in a row were no better."""
        return 0 < self.options.patience <= self.misses

    @torch.no_grad()
    def look(self) -> float:
        """Check now; keep the weights if they are the best yet."""
        model, loss = self.trainer.averaged(), 0.0
        noise = Noise(derive(self.options.seed, "check"), self.device)
        step = Step(self.trainer.index, self.trainer.images, 1.0, noise)
        for batch in Sweep(self.data, 500, self.device):  # type: ignore[arg-type]
            with self.trainer.autocast():
                total = model.loss(batch, self.phase, step).total  # type: ignore[operator]
            loss += total.item() * len(batch)
        loss /= len(self.data)  # type: ignore[arg-type]
        self._keep(loss, model)
        return loss

    def _keep(self, loss: float, model: Model) -> None:
        if self.best is not None and not loss < self.best:
            self.misses += 1
            return
        self.best, self.misses = loss, 0
        self.weights = {k: v.clone() for k, v in model.state_dict().items()}

    def kept(self) -> dict[str, Tensor]:
        """The best weights, or the averaged ones where nothing was held out."""
        return self.weights or dict(self.trainer.averaged().state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """For the checkpoint."""
        tensors = {f"best.{k}": v for k, v in self.weights.items()}
        return tensors, {"best": self.best, "misses": self.misses}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.weights = {k[5:]: v.to(self.device) for k, v in tensors.items()
                        if k.startswith("best.")}
        self.best, self.misses = meta["best"], int(meta["misses"])


def _check_every(options: TrainOptions, steps: int) -> int:
    if options.validate_every:
        return max(1, options.validate_every // options.batch_size)
    return max(1, steps // CHECKS)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted and obeyed between steps; a second Ctrl-C stops at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    old = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _own_globals() -> Iterator[None]:
    """Training seeds torch's global generator and sets threads; the caller's come back after."""
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)


__all__ = ["Loop", "Outcome", "World", "fit"]
