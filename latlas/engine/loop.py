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

from latlas.core.errors import DataError, RunError
from latlas.core.folders import RunFolder
from latlas.core.memory import keep_freed_memory
from latlas.core.model import Finishes, FitsDirectly, Model
from latlas.data.batches import Batches, Sweep
from latlas.data.pairs import Data
from latlas.engine.checks import Checks, check_every
from latlas.engine.choose import Chosen, apply_layout, batch_size_of, choose
from latlas.engine.logs import EventLog
from latlas.engine.options import TrainOptions
from latlas.engine.processes import DistributedContext, join, pick_device
from latlas.engine.progress import Progress, Silent
from latlas.engine.trainer import Trainer
from latlas.engine.watch import ANCHORS, LOOKS, RETURNS, Alarms, Looks, NotFinite
from latlas.engine.weighing import Weighing

#: lines of metrics.jsonl in a whole run
LOG_LINES = 200


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


def fit(model: Model, train: Data, validation: Data | None, options: TrainOptions,
        run: RunFolder, progress: Progress | None = None, looks: Looks | None = None) -> Outcome:
    """Train ``model`` in place; the run folder holds the result. The same call again resumes.

    Args:
        looks: at the samples of a model that is watched.

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
        return Loop(model, train, validation, options, run, device, progress, looks).run()


def _fit_directly(model: Model, train: Data, run: RunFolder, device: torch.device,
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

    def __init__(self, model: Model, train: Data, validation: Data | None,
                 options: TrainOptions, run: RunFolder, device: torch.device,
                 progress: Progress, looks: Looks | None = None) -> None:
        self.world = join(device)
        rate = options.learning_rate or model.defaults.learning_rate
        options = replace(options, learning_rate=rate,
                          batch_size=batch_size_of(model, len(train), options, self.world))
        self.model, self.train, self.options, self.run_folder = model, train, options, run
        self.progress, self.device = progress, device
        self.batches = Batches(train, options.batch_size, options.seed, device=device,
                               rank=self.world.rank, world=self.world.size)
        begun = time.perf_counter()
        if not run.begun:
            model.prepare(Sweep(train, device=device), len(train))
        self.chosen = self._choose(begun)
        apply_layout(model, self.chosen.layout)
        self.trainer = Trainer(model, options, budget=self.chosen.images,
                               precision=self.chosen.precision, world=self.world,
                               items=len(train))
        self.checks = Checks(self.trainer, validation, options, device)
        self.steps = -(-self.chosen.images // options.batch_size)
        self.weighing = Weighing(self.trainer, self.batches, self.steps, self.world)
        self.log_every = max(1, self.steps // LOG_LINES)
        self.check_every = check_every(options, self.steps)
        self.alarms, self.returns = Alarms(), 0
        self.looks = looks if model.defaults.monitored and self.world.leads else None
        self.look_every = max(1, self.steps // (options.previews or LOOKS))
        self.anchor_every = max(1, self.steps // ANCHORS)
        self.begun = self.saved = time.monotonic()
        self.before = 0.0
        self.saved_images = 0
        self.events = EventLog(run.path, options.tensorboard and self.world.leads)

    def run(self) -> Outcome:
        """All steps from the checkpoint, or from the start, to the end."""
        resumed = self._resume()
        note = (f"{self.chosen.images:,} items in batches of {self.options.batch_size:,} at "
                f"{self.options.learning_rate:g}, {self.chosen.precision}, "
                f"{self.chosen.threads} thread{'' if self.chosen.threads == 1 else 's'}, "
                f"{self.device}")
        own = self.model.describe(len(self.train))
        self.progress.begin(self.chosen.images, self.trainer.images,
                            f"{note}; {own}" if own else note)
        stopped = "budget"
        if not resumed:
            self._warn(self.model.warnings(len(self.train)))
            self._watch()
        with _signals() as asked:
            while self.trainer.index < self.steps:
                if self._asked(asked):
                    return self._interrupted()
                try:
                    self._weigh()
                    self.trainer.step(self.batches.at(self.trainer.index))
                    if self._look():
                        stopped = "patience"
                        break
                except NotFinite as error:
                    self._go_back(error)
        return self._finish(stopped)

    def _weigh(self) -> None:
        """The order of the data by new weights, when due."""
        found = self.weighing.look(self.trainer.index)
        if found is not None:
            self._write(found.figures)
            self.progress.note(found.words)

    def _asked(self, asked: list[int]) -> bool:
        """Stop was asked for; with many processes every one must stop at the same step."""
        if self.world.size == 1 or self.trainer.index % self.log_every:
            return self.world.size == 1 and bool(asked)
        return bool(self.world.agree(bool(asked)))

    def _choose(self, begun: float) -> Chosen:
        if self.run_folder.chosen:
            chosen = Chosen(**self.run_folder.chosen)
            torch.set_num_threads(chosen.threads)
            return chosen
        chosen = choose(self.model, self.batches, self.options, self.world, begun)
        if self.world.leads:
            self.run_folder.choose(chosen.to_json())
        return chosen

    def _resume(self) -> bool:
        """Go on from the checkpoint, if there is one.

        Raises:
            RunError: it was made in batches of another size, as by another number of processes.
        """
        found = self.run_folder.load_checkpoint()
        if found is None:
            return False
        tensors, meta = found
        self.trainer.restore(tensors, meta)
        if self.trainer.images != meta["images"]:
            raise RunError(f"{self.run_folder.path} was trained in batches of "
                           f"{meta['images'] // meta['step']}, here they are of "
                           f"{self.options.batch_size}; go on with as many processes as before")
        self.checks.restore(tensors, meta)
        self.weighing.restore(tensors)
        self.alarms.restore(meta.get("alarms"))
        self._halve(int(meta.get("returns", 0)))
        self.before, self.saved_images = float(meta["seconds"]), self.trainer.images
        if self.world.leads:
            self.run_folder.rewind_log(self.trainer.images)
        return True

    def _look(self) -> bool:
        """Log, check and save when due; whether to stop early."""
        index = self.trainer.index
        self.progress.advance(self.trainer.images)
        if index % self.log_every == 0:
            self._log()
        stop = False
        if self.checks.any and (index % self.check_every == 0 or index == self.steps):
            stop = self._check()
        self._watch()
        if time.monotonic() - self.saved > self.options.checkpoint_seconds:
            self._save()
        return stop

    def _log(self) -> None:
        terms = self.trainer.drain()
        self._must_be_finite(terms)
        self.progress.terms({k: v for k, v in terms.items() if "/" not in k})
        self._write(terms)
        self._warn(self.alarms.hear(terms, self._share) if self.model.defaults.monitored else [])

    def _check(self) -> bool:
        loss = self.checks.look()
        self._write({"validation/loss": loss})
        return self.checks.patience_is_over

    def _watch(self) -> None:
        """Of two players, when due: a place to go back to, and a look at their samples.

        At fixed steps, so that a run which was killed goes back where an unbroken one does.
        """
        index = self.trainer.index
        keep, look = (index % every == 0 for every in (self.anchor_every, self.look_every))
        last = index == self.steps
        if not self.model.defaults.monitored or not (keep or look or last):
            return
        self._must_be_finite({}, weights=True)
        if keep and not last and self.world.leads:
            self.run_folder.save_anchor(index, *self._state())
        if self.looks and (look or last):
            seen = self.looks.look(self.trainer.average.current(), self.trainer.images)
            if seen:
                self._write(seen)
            self._warn(self.alarms.hear(seen, self._share))

    def _go_back(self, error: NotFinite) -> None:
        """Go on from weights that were sound, at half the learning rate.

        Not from the last ones: what ends in numbers that are not finite began before. The
        checkpoint that is saved at once makes a run killed from here on take the same way.
        """
        if self.returns == RETURNS:
            raise NotFinite(f"{error} ({RETURNS} returns to earlier weights, each at half the "
                            "learning rate, did not help)") from error
        found = None
        if self.model.defaults.monitored:
            found = self.run_folder.load_anchor(self.trainer.index)
        if found is None:
            raise error
        self.trainer.restore(*found)
        self.trainer.drain()
        self.checks.restore(*found)
        self.weighing.restore(found[0])
        self.alarms.restore(found[1].get("alarms"))
        self._halve(self.returns + 1)
        if self.world.leads:
            self.run_folder.rewind_log(self.trainer.images)
        self._save()
        self._warn([f"{str(error).partition(';')[0]}; going on from {self.trainer.images:,} items "
                    f"at {self.trainer.scale:g} of the learning rate"])

    def _halve(self, returns: int) -> None:
        self.returns, self.trainer.scale = returns, 0.5 ** returns

    def _warn(self, words: list[str]) -> None:
        for text in words:
            self.progress.warn(text)
            if self.world.leads:
                self.run_folder.log({"images": self.trainer.images, "alarm": text})

    @property
    def _share(self) -> float:
        return self.trainer.index / self.steps

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
        bad = [k for k in bad if "/" not in k] or bad
        if weights and not bad:
            bad = [k for k, v in self.model.named_parameters() if not bool(v.isfinite().all())]
        if self.model.defaults.monitored and self.world.any(bool(bad)):  # all go back, or none
            bad = bad or ["a number of another process"]
        if bad:
            kept = (f"the checkpoint at {self.saved_images:,} items is intact"
                    if self.saved_images else "no checkpoint was made before")
            # the sum comes first: what was added to it says more
            raise NotFinite(f"{bad[-1]} is not a finite number at {self.trainer.images:,} "
                            f"items; {kept}. Try a smaller learning_rate, clip_norm=1 or "
                            "precision=fp32")

    def _save(self) -> None:
        self.saved = time.monotonic()
        if not self.model.defaults.monitored:
            self._must_be_finite(self.trainer.drain(), weights=True)
        elif not self.trainer.finite():
            return  # found at a fixed step: when this is called depends on the clock
        if not self.world.leads:
            return
        self.run_folder.save_checkpoint(*self._state())
        self.saved, self.saved_images = time.monotonic(), self.trainer.images

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that training needs to go on."""
        tensors, meta = self.trainer.state()
        more, noted = self.checks.state()
        watched = {"alarms": self.alarms.state(), "returns": self.returns}
        return tensors | more | self.weighing.state(), meta | noted | {"seconds": self.seconds} | (
            watched if self.model.defaults.monitored else {})

    def _interrupted(self) -> Outcome:
        self._save()
        self.progress.end(f"stopped at {self.saved_images:,} of {self.chosen.images:,} items and "
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
                    "best": outcome.best} | ({"returns": self.returns} if self.returns else {})
            self.run_folder.save_model(dict(self.model.state_dict()), meta)
        if self.looks:
            self.looks.end()
        self.events.close()
        self.progress.end(f"finished {outcome.images:,} items in {outcome.seconds:,.1f} s")
        return outcome


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


__all__ = ["DistributedContext", "Loop", "Outcome", "fit"]
