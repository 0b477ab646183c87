"""Held-out checks, re-weighting of the data, sample snapshots, and monitoring with roll-back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latlas.core.errors import TrainingError
from latlas.core.folders import RunFolder
from latlas.core.model import Model, Step, Weights
from latlas.core.noise import Noise, derive
from latlas.core.precision import autocast
from latlas.data.batches import Batches, Sweep
from latlas.data.pairs import Data
from latlas.engine.progress import Log
from latlas.engine.trainer import Callback, NotFinite, State, Trainer

#: held-out checks in a run, and examples of each
VALIDATIONS, VALIDATION_EXAMPLES = 25, 2000
#: sample snapshots in a run that keeps no images of them, and rollback points in a run
SNAPSHOTS, ROLLBACK_POINTS = 20, 25
#: how often a run may roll back
MAX_ROLLBACKS = 3
#: share of the budget before which nothing is alarming: no generator begins with varied samples
EARLY = 0.1


class Validation(Callback):
    """The averaged model's loss on held-out data, and the best weights so far.

    Held-out draws come from their own stream, the same in every check, so that two checks differ
    by the weights alone.
    """

    def __init__(self, data: Data) -> None:
        self.data = data.subset(slice(0, VALIDATION_EXAMPLES))
        self.best: float | None = None
        self.weights: dict[str, Tensor] = {}
        self.misses = 0  # checks since the best one

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """Check when due, keep the weights if they are the best yet; whether patience is over."""
        options, index = trainer.options, trainer.index
        due = trainer.due(VALIDATIONS) if not options.validate_every else (
            index % max(1, options.validate_every // options.batch_size) == 0)
        if index == 0 or not (due or trainer.finished):
            return False
        model: Any = trainer.averaged()
        noise = Noise(derive(options.seed, "check"), trainer.device)
        step = Step(index, trainer.images, 1.0, noise)
        totals, sizes = [], []
        for batch in Sweep(self.data, 500, trainer.device):
            with torch.no_grad(), autocast(trainer.device, trainer.precision, trainer.transposed):
                totals.append(model.loss(batch, step).total)
            sizes.append(len(batch))
        means = torch.stack(totals).tolist()
        loss = sum(mean * size for mean, size in zip(means, sizes, strict=True)) / len(self.data)
        log.write(trainer.images, {"validation/loss": loss})
        if self.best is not None and not loss < self.best:
            self.misses += 1
        else:
            self.best, self.misses = loss, 0
            self.weights = {k: v.clone() for k, v in model.state_dict().items()}
        return 0 < options.patience <= self.misses

    def state(self) -> State:
        tensors = {f"best.{k}": v for k, v in self.weights.items()}
        return tensors, {"best": self.best, "misses": self.misses}

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        self.weights = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
        self.best, self.misses = meta["best"], int(meta["misses"])

    def finish(self, model: Model) -> dict[str, Any]:
        """The best weights instead of the last ones."""
        if self.weights:
            model.load_state_dict(self.weights)
        return {"best": self.best}


class Reweighting(Callback):
    """Asks the averaged model for weights of the data after every ``reweighting_interval`` of the
    budget, and
    draws batches by them."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.weights: Tensor | None = None

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """New weights when due; all processes take those of rank 0.

        Raises:
            TrainingError: weights that are negative, not finite, or all 0.
        """
        model: Any = trainer.model
        every, index = max(1, round(model.reweighting_interval * trainer.steps)), trainer.index
        if index % every or index == 0 or trainer.finished:
            return False
        averaged: Any = trainer.averaged()
        weights: Weights = averaged.sampling_weights(Sweep(self.batches.data,
                                                           device=self.batches.device))
        values = trainer.distributed.agree(weights.values.detach().double().cpu())
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
        self.batches.reweigh(self.weights)


class SampleSnapshots(Callback):
    """Looks at the averaged model's samples now and then, first before the first step.

    Args:
        snapshots: ``take(model, images)`` looks at them and returns terms for the log,
            ``samples/spread`` among them: the mean distance of two samples over that of two
            training examples. It must not depend on those before it, nor draw from torch's own
            generators: training is the same with and without. ``finish()`` comes after the last.
    """

    def __init__(self, snapshots: Any) -> None:
        self.snapshots = snapshots

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """A snapshot when due. It leaves the averaged weights as they are."""
        if trainer.due(trainer.options.sample_snapshots or SNAPSHOTS) or trainer.finished:
            terms = self.snapshots.take(trainer.ema.current(), trainer.images)
            if terms:
                log.write(trainer.images, terms)
        return False

    def finish(self, model: Model) -> dict[str, Any]:
        self.snapshots.finish()
        return {}


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
    """Alarms, and the way back from numbers that are not finite.

    For models whose generator and discriminator may drive each other off. It comes after the
    callbacks whose terms it reads.
    """

    def __init__(self, run: RunFolder | None = None) -> None:
        self.run, self.rollbacks = run, 0
        self.streaks: dict[str, int] = {}
        self.raised: list[str] = []

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """Alarms of what was just logged and, when due, a rollback point."""
        log.warn(trainer.images, *self.alarms(log.values, trainer.index / trainer.steps))
        if trainer.due(ROLLBACK_POINTS) and not trainer.finished and (
                self.run and trainer.distributed.leads):
            self.run.save_rollback_point(trainer.index, *trainer.state())
        return False

    def check(self, trainer: Trainer) -> None:
        """Before anyone looks at the weights of a step, or keeps them: they are finite.

        Raises:
            NotFinite: on every process, if on one.
        """
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
        """Restore the last rollback point but one, at half the learning rate.

        Not the last one: what ends in numbers that are not finite began before.

        Raises:
            NotFinite: ``error``, where there is no such point or that has not helped.
        """
        rollbacks = self.rollbacks + 1
        if rollbacks > MAX_ROLLBACKS:
            raise NotFinite(f"{error.message}, after {MAX_ROLLBACKS} roll-backs to earlier "
                            "weights, each at half the learning rate", what=error.what,
                            option=error.option, hint=error.hint) from error
        point = self.run and self.run.load_rollback_point(trainer.index)
        if not point:
            raise error
        trainer.restore(*point)
        self.rollbacks, trainer.rate_scale = rollbacks, 0.5 ** rollbacks

    def state(self) -> State:
        return {}, {"monitor": [self.rollbacks, dict(self.streaks), list(self.raised)]}

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        self.rollbacks, self.streaks, self.raised = meta["monitor"]

    def finish(self, model: Model) -> dict[str, Any]:
        return {"rollbacks": self.rollbacks} if self.rollbacks else {}
