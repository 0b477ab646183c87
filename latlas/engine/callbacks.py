"""Held-out checks, minutes, re-weighting of the data, and monitoring with roll-back."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latlas.core.devices import autocast
from latlas.core.errors import TrainingError
from latlas.core.files import save_json, save_tree
from latlas.core.model import Model, Step, Weights
from latlas.core.noise import Noise, derive
from latlas.core.record import FORMAT, RUN, Chosen, read_run
from latlas.core.trees import Progress, read_tree
from latlas.data.batches import Batches, Sweep
from latlas.data.pairs import Data
from latlas.engine.progress import Log
from latlas.engine.schedule import Plan
from latlas.engine.trainer import Callback, NotFinite, State, Trainer

#: held-out checks in a run, examples of each, and in how large batches
VALIDATIONS, VALIDATION_EXAMPLES, CHECK_BATCH = 25, 2000, 500
#: sample snapshots in a run that keeps no images of them, rollback points in a run, and how often
#: a run may roll back
SNAPSHOTS, ROLLBACK_POINTS, MAX_ROLLBACKS = 20, 25, 3
#: points of a run of minutes at which the clock is looked at, and the first steps with one, too
LOOKS, FIRST_LOOKS = 32, (3, 10)
#: steps that take so many times as long as when they were timed are stalled by other processes
STALLED = 3.0
#: share of the budget before which nothing is alarming: no generator begins with varied samples
EARLY = 0.1


class Validation(Callback):
    """The averaged model's loss on held-out data, and the best weights so far. Draws come from
    their own stream, the same in every check, so that two checks differ by the weights alone."""

    def __init__(self, data: Data) -> None:
        self.data = data.subset(slice(0, VALIDATION_EXAMPLES))
        self.best: float | None = None
        self.weights: dict[str, Tensor] = {}
        self.misses = 0  # checks since the best one
        self.bests: list[float] = []  # the best loss after every check

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """Check when due, keep the weights if they are the best yet; whether patience is over."""
        options, index = trainer.options, trainer.index
        due = trainer.due(VALIDATIONS) if not options.validate_every else (
            index % max(1, options.validate_every // options.batch_size) == 0)
        if index == 0 or not (due or trainer.finished):
            return False
        model: Any = trainer.averaged()
        rank, processes = trainer.distributed.rank, trainer.distributed.size
        sums = torch.zeros(-(-len(self.data) // CHECK_BATCH), device=trainer.device)
        for i, batch in enumerate(Sweep(self.data, CHECK_BATCH, trainer.device)):
            if i % processes != rank:
                continue  # another one's
            noise = Noise(derive(options.seed, "check", i), trainer.device)
            step = Step(index, trainer.images, 1.0, noise)
            with torch.no_grad(), autocast(trainer.device, trainer.precision, trainer.transposed):
                sums[i] = model.loss(batch, step).total * len(batch)
        loss = float(trainer.distributed.sum(sums).sum()) / len(self.data)
        log.write(trainer.images, {"validation/loss": loss})
        if self.best is not None and not loss < self.best:
            self.misses += 1
        else:
            self.best, self.misses = loss, 0
            self.weights = {k: v.clone() for k, v in model.state_dict().items()}
        self.bests.append(float(self.best))
        return 0 < options.patience <= self.misses

    def state(self) -> State:
        tensors = {f"best.{k}": v for k, v in self.weights.items()}
        return tensors, {"best": self.best, "misses": self.misses, "bests": self.bests}

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        self.weights = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
        self.best, self.misses = meta["best"], int(meta["misses"])
        self.bests = list(meta["bests"])

    def finish(self, model: Model) -> dict[str, Any]:
        if self.weights:
            model.load_state_dict(self.weights)
        facts = {"best": self.best}
        if len(self.bests) >= 5:
            before, best = self.bests[len(self.bests) * 4 // 5 - 1], self.bests[-1]
            facts["improved"] = (before - best) / max(abs(before), abs(best), 1e-12)
        return facts


class Minutes(Callback):
    """Makes a run last so long: at fixed points the clock says how many steps there is time for. A
    plan that is in run.json already, of a run that was killed, is followed again.

    Steps on several threads that take far longer than when they were timed wait for a thread whose
    core another process has; one thread is then faster.

    Args:
        chosen: the run's options, as they were chosen.
        n: examples of one more pass after the last step; 0 without one.
    """

    def __init__(self, chosen: Chosen, n: int) -> None:
        self.seconds, self.costs, self.threads = (chosen.training_seconds(n), chosen.costs,
                                                  chosen.threads)
        self.seconds_per_step = chosen.batch_size / chosen.examples_per_second
        self.looks: list[tuple[float, int, float]] = []

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """Look at the clock when due, and write down the plan."""
        schedule, step = trainer.schedule, trainer.index
        period = max(1, schedule.steps(0) // LOOKS)
        if trainer.finished or not (step in FIRST_LOOKS or schedule.due(step, period)):
            return False
        self.looks.append((log.seconds, step, trainer.progress))
        begun, first, before = self.looks[-3:][0]
        if step > first and step not in (plan.step for plan in schedule.plans):
            now, _, progress = self.looks[-1]
            # with the trial's speed as if it were two more steps
            unit = ((now - begun) / self._mean_cost(before, progress)
                    + 2 * self.seconds_per_step) / (step - first + 2)
            remaining = int((self.seconds - now) / (unit * self._mean_cost(progress, 1.0)))
            threads = schedule.plan(step).threads or self.threads
            if unit > STALLED * self.seconds_per_step and threads > 1:
                threads = 1
                del self.looks[:-1]
            # at least one more step, which is then the last
            images = (step + max(1, remaining)) * schedule.batch_size
            schedule.follow(trainer.distributed.agree(Plan(step, images, threads)))
            if log.is_main:
                record = read_run(log.folder)
                record["chosen"]["plans"] = schedule.plans
                save_json(log.folder / RUN, record)
        torch.set_num_threads(schedule.plan(step).threads or self.threads)
        return False

    def _mean_cost(self, start: float, stop: float) -> float:
        """Mean relative cost of the steps between two shares of the run."""
        n = len(self.costs)
        shares = [max(1e-9, min(stop, (i + 1) / n) - max(start, i / n)) for i in range(n)]
        return sum(s * cost for s, cost in zip(shares, self.costs, strict=True)) / sum(shares)


class Reweighting(Callback):
    """Asks the averaged model for weights of the data after every ``reweighting_interval`` of the
    budget, and draws batches by them."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.weights: Tensor | None = None

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """New weights when due; all processes take those of rank 0. TrainingError: weights that
        are negative, not finite, or all 0."""
        model: Any = trainer.model
        every = max(1, round(model.reweighting_interval * trainer.schedule.steps(0)))
        index = trainer.index
        if not trainer.schedule.due(index, every) or index == 0 or trainer.finished:
            return False
        averaged: Any = trainer.averaged()
        weights: Weights | None = None
        if trainer.distributed.is_main:
            sweep = Sweep(self.batches.data, device=self.batches.device)
            weights = averaged.sampling_weights(sweep)
            weights = replace(weights, values=weights.values.detach().cpu().double())
        weights = trainer.distributed.agree(weights)
        values = weights.values
        if not (values.isfinite().all() and (values >= 0).all() and values.sum() > 0):
            raise TrainingError(f"the weights of the data at step {index} are not all numbers of "
                                "at least 0")
        self.weights = values
        self.batches.reweigh(values)
        share = float(values.sum().square() / (len(values) * values.square().sum()))
        log.write(trainer.images, weights.metrics | {"weights/effective_share": share})
        log.progress.note(weights.words)
        return False

    def state(self) -> State:
        return {} if self.weights is None else {"order.weights": self.weights}, {}

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        self.weights = tensors.get("order.weights")
        if self.weights is not None and len(self.weights) != len(self.batches.data):
            self.weights = None  # the data were changed: they count alike until the next time
        self.batches.reweigh(self.weights)


class Alarm(NamedTuple):
    """Alarming where ``condition`` of these terms holds so many times in a row."""

    terms: tuple[str, ...]
    times: int
    condition: Callable[..., bool]
    text: str


ALARMS = {
    "losing": Alarm(
        ("D(real)", "D(fake)", "ada_signal"), 20,
        lambda real, fake, ada_signal: real - fake > 10 and ada_signal > 0.98,
        "the discriminator has told every sample from a real example for a tenth of the run "
        "(D(real) {0:.3g}, D(fake) {1:.3g}), so the generator may learn nothing more; try a larger "
        "gamma, a smaller learning_rate or, for few images, augment=ada"),
    "diverging": Alarm(
        ("D(real)", "D(fake)"), 5, lambda real, fake: abs(real - fake) > 1000,
        "training diverges (D(real) {0:.3g}, D(fake) {1:.3g}); try a smaller learning_rate, a "
        "larger gamma or clip_norm=1"),
    "collapse": Alarm(
        ("samples/spread",), 2, lambda spread: spread < 0.25,
        "samples of different latents are nearly alike (their distance is {0:.2g} of that of real "
        "examples): the generator has collapsed; if that lasts, try a larger gamma or batch_size, "
        "minibatch_std=4, or objective=relativistic where another is in use"),
}


class Monitor(Callback):
    """Alarms, and the way back from numbers that are not finite, for models whose generator and
    discriminator may drive each other off. It comes after the callbacks whose terms it reads.

    Args:
        folder: the run folder, which holds the rollback points; ``None`` for none.
        run: the run's id.
    """

    def __init__(self, folder: Path | None = None, run: str = "") -> None:
        self.folder, self.run, self.rollbacks = folder, run, 0
        self.streaks: dict[str, int] = {}
        self.raised: list[str] = []

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """Alarms of what was just logged and, when due, a rollback point; of the points so far the
        last two stay."""
        log.warn(trainer.images, *self.alarms(log.values, trainer.progress))
        if trainer.due(ROLLBACK_POINTS) and not trainer.finished and (
                self.folder and trainer.distributed.is_main):
            tensors, meta = trainer.state()
            save_tree(self.folder / f"rollback-{trainer.index}.safetensors", tensors,
                      {"format": FORMAT, "run": self.run, **meta})
            for old in self._points(trainer.index + 1)[:-2]:
                old.unlink(missing_ok=True)
        return False

    def _points(self, stop: int) -> list[Path]:
        """Rollback points of the steps before ``stop``, in order."""
        points = {int(number): file for file in self.folder.glob("rollback-*.safetensors")
                  if (number := file.stem.partition("-")[2]).isdigit()} if self.folder else {}
        return [points[step] for step in sorted(points) if step < stop]

    def check(self, trainer: Trainer) -> None:
        """Before anyone looks at the weights of a step, or keeps them: NotFinite if they are not,
        on every process if on one."""
        times = ROLLBACK_POINTS, trainer.options.sample_snapshots or SNAPSHOTS
        if any(map(trainer.due, times)) or trainer.finished:
            trainer.require_finite()

    def alarms(self, terms: Mapping[str, float], progress: float) -> list[str]:
        """What is newly alarming, each once in a run; ``progress`` is the share of the budget."""
        texts = []
        for name, alarm in ALARMS.items():
            if progress < EARLY or any(term not in terms for term in alarm.terms):
                continue
            values = [terms[term] for term in alarm.terms]
            streak = self.streaks.get(name, 0) + 1 if alarm.condition(*values) else 0
            self.streaks[name] = streak
            if streak >= alarm.times and name not in self.raised:
                self.raised.append(name)
                texts.append(alarm.text.format(*values))
        return texts

    def roll_back(self, trainer: Trainer, error: NotFinite) -> None:
        """Restore the last rollback point but one, as what ends in numbers that are not finite
        began before the last one; at half the learning rate. NotFinite: ``error``, where there is
        no such point or that has not helped."""
        rollbacks = self.rollbacks + 1
        if rollbacks > MAX_ROLLBACKS:
            raise NotFinite(f"{error.message}, after {MAX_ROLLBACKS} roll-backs to earlier "
                            "weights, each at half the learning rate", what=error.what,
                            option=error.option, hint=error.hint) from error
        points = self._points(trainer.index)[-2:]
        if not points:
            raise error
        trainer.restore_from(points[0], *read_tree(points[0], self.run, Progress))
        self.rollbacks, trainer.rate_scale = rollbacks, 0.5 ** rollbacks

    def state(self) -> State:
        return {}, {"monitor": [self.rollbacks, dict(self.streaks), list(self.raised)]}

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        self.rollbacks, self.streaks, self.raised = meta["monitor"]

    def finish(self, model: Model) -> dict[str, Any]:
        lasting = [name for name, alarm in ALARMS.items()
                   if self.streaks.get(name, 0) >= alarm.times]
        return ({"rollbacks": self.rollbacks} if self.rollbacks else {}) | (
            {"alarms": lasting} if lasting else {})
