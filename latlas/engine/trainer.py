"""One training step: Adam, the averaged weights, and the state of training as a tree."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latlas.core.devices import DistributedContext, autocast, transposed
from latlas.core.errors import RunError, TrainingError
from latlas.core.model import AfterStep, Batch, Loss, Model, Step, Trains
from latlas.core.noise import Noise, derive, dropout_rng
from latlas.core.trees import check_tensors
from latlas.engine.adam import learning_rate_share, phase_optimisers
from latlas.engine.options import TrainOptions
from latlas.engine.progress import Log
from latlas.engine.recorded import RecordedSteps
from latlas.engine.schedule import Schedule

#: steps from one update of the averaged weights to the next, and from one gradient norm in the log
#: of a monitored model to the next: more would cost time for little
EMA_EVERY, NORM_EVERY = 8, 8
#: epochs after which dropout has its full strength
DROPOUT_EPOCHS = 200

State = tuple[dict[str, Tensor], dict[str, Any]]
Losses = Iterator[tuple[str, Loss]]


class NotFinite(TrainingError):
    """A loss or a weight is not a finite number."""


class Callback:
    """What is done between steps. When it acts depends on the step and never on the clock, and all
    that it remembers is in its state, so that a run that was killed resumes bit-exactly."""

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """After every step, and once before the first; whether to stop training."""
        return False

    def state(self) -> State:
        """Tensors and JSON for the checkpoint, under names of its own."""
        return {}, {}

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`, of a whole checkpoint."""

    def finish(self, model: Model) -> dict[str, Any]:
        """After the last step, when ``model`` has the averaged weights; facts of the run."""
        return {}


class Trainer:
    """A model, its optimisers and its averaged weights, advanced step by step.

    Everything random in step k is a function of (seed, k), so :meth:`state` holds no generator.

    Args:
        budget: examples to see in the whole run, or the plans of a run that keeps to minutes.
        n_train: size of the training set; 0 where it is not known.

    Attributes:
        index: steps made.
        schedule: how many there are, and what share of them is done.
        rate_scale: a factor of the learning rate, below 1 after a roll-back.
        saved_images: examples seen at the last checkpoint.
    """

    def __init__(self, model: Model, options: TrainOptions, *,
                 budget: int | Sequence[tuple[int, int, int]], precision: str,
                 distributed: DistributedContext | None = None, n_train: int = 0) -> None:
        if not isinstance(model, Trains):
            raise TypeError(f"{type(model).__name__} has no phases to train")
        self.model, self.options, self.n_train = model, options, n_train
        self.schedule = Schedule([(0, budget, 0)] if isinstance(budget, int) else budget,
                                 options.batch_size)
        self.device, self.precision = model.device, precision
        self.distributed = distributed or DistributedContext()
        self.phases = phase_optimisers(model, model.phases, options)
        self.optimisers = list(dict.fromkeys(adam for _, adam in self.phases.values()))
        parameters = sum(p.requires_grad for p in model.parameters())
        self.trains_all = [len(adam.parameters) for adam in self.optimisers] == [parameters]
        self.updates_buffers = isinstance(model, AfterStep)
        self.transposed = transposed(model)
        self.ema = EMA(model, options.ema)
        # of a batch that is cut into parts each draws what as many processes would
        rank, size, n = self.distributed.rank, self.distributed.size, options.accumulate
        self.noises = [Noise(0, self.device, rank * n + i, size * n) for i in range(n)]
        self.recorded: RecordedSteps | None = None
        if options.cuda_graphs and self.device.type == "cuda" and size == 1:
            self.recorded = RecordedSteps(self.descend, self.phases, self.noises, self.device)
        # what users' modules draw from
        self.global_rng = torch.cuda.default_generators[self.device.index or 0] if (
            self.device.type == "cuda") else torch.default_generator
        self.index, self.rate_scale, self.saved_images = 0, 1.0, 0
        self.callbacks: list[Callback] = []
        self.sums: dict[str, Tensor] = {}
        self.counts: Counter[str] = Counter()

    @property
    def images(self) -> int:
        """Examples seen by all processes."""
        return self.index * self.options.batch_size

    @property
    def steps(self) -> int:
        """Steps of the whole run, as planned now."""
        return self.schedule.steps(self.index)

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 … 1."""
        return self.schedule.progress(self.index)

    @property
    def finished(self) -> bool:
        """The last step of the budget was made."""
        return self.index >= self.steps

    def due(self, times: int) -> bool:
        """Whether what is done so many times in a run, evenly spread, is to be done now."""
        return self.schedule.due(self.index, max(1, self.schedule.steps(0) // times))

    def step(self, batch: Batch) -> None:
        """Every phase that is due, then the model's own buffers and the averaged weights. Nothing
        in here waits for the device."""
        seed = derive(self.options.seed, "step", self.index)
        for noise in self.noises:
            noise.generator.manual_seed(seed)
        self.global_rng.manual_seed(seed + self.distributed.rank)
        progress = self.progress
        # dropout costs bits while examples are new, and pays once they have come often
        dropout = min(1.0, self.images / (DROPOUT_EPOCHS * self.n_train)) if self.n_train else 1.0
        rates = {}  # of phases whose part of the budget is to come or over, too: none is due
        for name, (phase, _) in self.phases.items():
            first, last = phase.span
            done = min(1.0, max(0.0, (progress - first) / (last - first)))
            rates[name] = self.rate_scale * learning_rate_share(self.options, done)
        step = Step(self.index, self.images, progress, self.noises[0], self.n_train,
                    len(self.noises))
        terms = self.descend(batch, step, rates, dropout) if self.recorded is None else (
            self.recorded.replay(batch, step, rates, dropout))
        if self.updates_buffers:
            self.model.after_step(step, terms)  # type: ignore[operator]

        self.index += 1
        if self.index % EMA_EVERY == 0:
            self.ema.update(self.images)
        summed = [name for name in terms if name in self.sums]
        if summed:
            torch._foreach_add_([self.sums[k] for k in summed], [terms[k] for k in summed])
        self.sums |= {k: v.clone() for k, v in terms.items() if k not in self.sums}
        self.counts.update(terms.keys())

    def descend(self, batch: Batch, step: Step, rates: Mapping[str, float | Tensor],
                dropout: float | Tensor) -> dict[str, Tensor]:
        """Move the parameters of every phase that is due by its loss; the terms of all losses.

        Args:
            rates: of every phase the share of its peak learning rate.
            dropout: its strength, 0 … 1.
        """
        n = len(self.noises)
        parts = [batch] if n == 1 else [batch.part(i, n) for i in range(n)]
        steps = [copy.copy(step) for _ in parts]
        for step_of_part, noise in zip(steps, self.noises, strict=True):
            step_of_part.noise = noise
        losses = [*map(self.model.losses, parts, steps)]
        terms: dict[str, Tensor] = {}
        while True:
            name, of_phase = self.differentiate(parts, losses, dropout)
            if not name:
                return terms
            terms |= of_phase
            optimiser = self.phases[name][1]
            for p in optimiser.parameters:  # unused ones too: so one process and many do the same
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            gradients = [p.grad for p in optimiser.parameters if p.grad is not None]
            self.distributed.average(gradients)
            if self.model.defaults.monitored and step.due(NORM_EVERY):
                terms[f"gradient/{name}"] = torch.stack(torch._foreach_norm(gradients)).norm()
            if self.options.clip_norm:
                torch.nn.utils.clip_grad_norm_(optimiser.parameters, self.options.clip_norm)
            optimiser.step(rates[name])
            del gradients  # no memory of them while the next phase is computed

    def differentiate(self, parts: Sequence[Batch], losses: Sequence[Losses],
                      dropout: float | Tensor) -> tuple[str, dict[str, Tensor]]:
        """Gradients of the next phase, whose loss is the mean over the parts of the batch, one
        after the other; its name, empty after the last, and its terms."""
        n, terms = len(parts), dict[str, Tensor]()
        for i, (part, noise) in enumerate(zip(parts, self.noises, strict=True)):
            with autocast(self.device, self.precision, self.transposed), \
                    dropout_rng(noise, len(part), dropout):
                name, loss = next(losses[i], ("", None))
            if loss is None:
                continue  # the other parts end here too
            phase, optimiser = self.phases[name]
            total = loss.total if phase.every == n == 1 else loss.total * (phase.every / n)
            # gradients reach the phase's parameters alone, so that a forward pass (of fakes) may
            # serve several phases; where these are all there are, the plain call is 3% faster
            total.backward(inputs=None if self.trains_all else optimiser.parameters)  # type: ignore
            for k, v in loss.terms.items():
                value = v.detach() if n == 1 else v.detach() / n
                terms[k] = terms[k] + value if i else value
        return name, terms

    def drain(self) -> dict[str, float]:
        """Mean of every term over the steps since the last call. This waits for the device."""
        means = {k: v / self.counts[k] for k, v in to_host(self.sums).items()}
        self.sums, self.counts = {}, Counter()
        return means

    def not_finite(self, terms: Mapping[str, float] | None = None) -> str:
        """A term that is not finite, or empty; without ``terms`` one of those since the last log
        line, or a weight, for which this waits for the device."""
        largest = terms if terms is not None else largest_of(
            {**dict(self.model.named_parameters()), **self.sums})
        names = [k for k, value in largest.items() if not math.isfinite(value)]
        # a loss says more than a weight, and a term more than the sum, which comes before it
        return ([k for k in names if "/" not in k] or names or [""])[-1]

    def require_finite(self, terms: Mapping[str, float] | None = None) -> None:
        """Stop at a number of :meth:`not_finite`, which would spread, by NotFinite: on every
        process of a monitored model, if on one."""
        name = self.not_finite(terms)
        if self.model.defaults.monitored and self.distributed.any(bool(name)):
            name = name or "a number of another process"
        if name:
            checkpoint = (f"the checkpoint at {self.saved_images:,} examples is intact"
                          if self.saved_images else "no checkpoint was made before")
            raise NotFinite(f"{name} is not a finite number at {self.images:,} examples",
                            what=name, option="learning_rate", hint=f"{checkpoint}. Try a smaller "
                            "learning_rate, clip_norm=1 or precision=fp32")

    def averaged(self) -> Model:
        """The averaged model as of this step. It belongs to the run: call it at fixed steps."""
        self.ema.update(self.images)
        return self.ema.current()

    def state(self) -> State:
        """All that a run needs to go on, bit for bit."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.current().state_dict().items()}
        for i, optimiser in enumerate(self.optimisers):
            tensors |= {f"optimiser.{i}.{k}": v for k, v in optimiser.state().items()}
        meta = {"step": self.index, "images": self.images, "averaged": self.ema.images,
                "rate_scale": self.rate_scale}
        for callback in self.callbacks:
            more, facts = callback.state()
            tensors |= more
            meta |= facts
        return tensors, meta

    def restore_from(self, path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """:meth:`restore` of a file whose tensors are checked first; RunError for other ones."""
        expected = self.state()[0]
        if any(name.startswith("best.") for name in tensors):
            expected |= {f"best.{k}": v for k, v in self.model.state_dict().items()}
        for name in tensors.keys() - expected.keys():
            if name.partition(".")[0] not in ("model", "ema", "optimiser", "best"):
                expected[name] = tensors[name]  # of a callback
        check_tensors(path, tensors, expected)
        try:
            self.restore(tensors, meta)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: it lacks or spoils {error}") from error

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.ema.model.load_state_dict(part("ema."))
        for i, optimiser in enumerate(self.optimisers):
            optimiser.restore(part(f"optimiser.{i}."))
        self.index, self.ema.images = int(meta["step"]), int(meta["averaged"])
        self.rate_scale = float(meta["rate_scale"])
        self.sums, self.counts = {}, Counter()
        for callback in self.callbacks:
            callback.restore(tensors, meta)


def to_host(scalars: Mapping[str, Tensor]) -> dict[str, Any]:
    """Scalars on a device as numbers, in one transfer."""
    if not scalars:
        return {}
    device = next(iter(scalars.values())).device
    values = torch.stack([v.reshape(()).to(device) for v in scalars.values()]).tolist()
    return dict(zip(scalars, values, strict=True))


def largest_of(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest magnitude of each, not finite where one is not, in one transfer."""
    some = {k: v.detach() for k, v in tensors.items() if v.numel() and v.is_floating_point()}
    norms = torch._foreach_norm(list(some.values()), math.inf) if some else ()
    return to_host(dict(zip(some, norms, strict=True)))


class EMA:
    """Exponential moving average of the weights, whose half-life is a ``share`` of the examples
    seen, so that it needs no tuning to the budget (the power-function average of Karras et al.
    2024, section 3.1, in its simplest form); 0 keeps no average."""

    def __init__(self, model: Model, share: float) -> None:
        self.share, self.images = share, 0
        self.source = model
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        names = (model.defaults.ema_modules or ("",)) if share > 0 else ()
        self.averages, self.weights = (list[Tensor](
            p for name in names for p in m.get_submodule(name).parameters())
            for m in (self.model, model))

    @torch.no_grad()
    def update(self, images: int) -> None:
        """Move towards the model, which has now seen so many examples."""
        since, self.images = images - self.images, images
        if self.averages and since:
            decay = 0.5 ** (since / (self.share * images))
            torch._foreach_lerp_(self.averages, self.weights, 1 - decay)

    @torch.no_grad()
    def current(self) -> Model:
        """The averaged model, with the source's buffers and whatever is not averaged."""
        tensors, averaged = self.model.state_dict(), {id(p) for p in self.averages}
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        for name, value in self.source.state_dict().items():
            if name not in parameters or id(parameters[name]) not in averaged:
                tensors[name].copy_(value)
        return self.model
