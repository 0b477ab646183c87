"""One training step, and the state of training as a tree of tensors and JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.errors import TrainingError
from latlas.core.model import AfterStep, Model, Step, Trains
from latlas.core.noise import Noise, derive, dropout_rng
from latlas.core.precision import autocast, transposed
from latlas.engine.optimiser import EMA, EMA_EVERY, learning_rate_share, parameter_groups
from latlas.engine.options import TrainOptions
from latlas.engine.processes import DistributedContext
from latlas.engine.progress import Log

#: steps from one gradient norm in the log of a monitored model to the next
NORM_EVERY = 8
#: epochs after which dropout has its full strength
DROPOUT_EPOCHS = 200

State = tuple[dict[str, Tensor], dict[str, Any]]


class NotFinite(TrainingError):
    """A loss or a weight is not a finite number."""


class Callback:
    """What is done between steps; subclasses override what they need.

    When it acts depends on the step and never on the clock, and all that it remembers is in its
    state, so that a run that was killed resumes bit-exactly.
    """

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        """Called after every step, and once before the first; whether to stop training."""
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
        budget: examples to see in the whole run.
        n_train: size of the training set; 0 where it is not known.

    Attributes:
        index, steps: steps made, and steps of the whole run.
        rate_scale: a factor of the learning rate, below 1 after a roll-back.
        saved_images: examples seen at the last checkpoint.
    """

    def __init__(self, model: Model, options: TrainOptions, *, budget: int, precision: str,
                 distributed: DistributedContext | None = None, n_train: int = 0) -> None:
        if not isinstance(model, Trains):
            raise TypeError(f"{type(model).__name__} has no phases to train")
        self.model, self.options, self.budget, self.n_train = model, options, budget, n_train
        self.steps = -(-budget // options.batch_size)
        self.device, self.precision = model.device, precision
        self.distributed = distributed or DistributedContext()
        self.groups = parameter_groups(model, model.phases, options)
        self.phases = {phase.name: (phase, group) for group in self.groups
                       for phase in group.phases}
        parameters = sum(p.requires_grad for p in model.parameters())
        self.one_group = [len(group.parameters) for group in self.groups] == [parameters]
        self.updates_buffers = isinstance(model, AfterStep)
        self.transposed = transposed(model)
        self.ema = EMA(model, options.ema)
        self.noise = Noise(0, self.device, self.distributed.rank, self.distributed.size)
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
    def finished(self) -> bool:
        """The last step of the budget was made."""
        return self.index >= self.steps

    def due(self, times: int) -> bool:
        """Whether what is done so many times in a run, evenly spread, is to be done now."""
        return self.index % max(1, self.steps // times) == 0

    def step(self, batch: Batch) -> None:
        """Every phase that is due, then the model's own buffers and the averaged weights.

        Nothing in here waits for the device.
        """
        seed = derive(self.options.seed, "step", self.index)
        self.noise.reseed(seed)
        self.global_rng.manual_seed(seed + self.distributed.rank)
        progress = min(1.0, self.images / self.budget)
        rate = learning_rate_share(self.options, progress) * self.rate_scale
        # dropout costs bits while examples are new, and pays once they have come often
        dropout = min(1.0, self.images / (DROPOUT_EPOCHS * self.n_train)) if self.n_train else 1.0
        step = Step(self.index, self.images, progress, self.noise, self.n_train)

        terms: dict[str, Tensor] = {}
        losses = self.model.losses(batch, step)
        while True:
            with autocast(self.device, self.precision, self.transposed), \
                    dropout_rng(self.noise, len(batch), dropout):
                name, loss = next(losses, ("", None))
            if loss is None:
                break
            phase, group = self.phases[name]
            total = loss.total if phase.every == 1 else loss.total * phase.every
            # gradients reach the phase's parameters alone, so that a forward pass (of fakes) may
            # serve several phases; where there is one group, the plain call is 3% faster
            total.backward(inputs=None if self.one_group else group.parameters)  # type: ignore
            for p in group.parameters:  # unused ones too: so one process and many do the same
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            gradients = [p.grad for p in group.parameters if p.grad is not None]
            self.distributed.average(gradients)
            terms.update((k, v.detach()) for k, v in loss.terms.items())
            if self.model.defaults.monitored and self.index % NORM_EVERY == 0:
                terms[f"gradient/{name}"] = torch.stack(torch._foreach_norm(gradients)).norm()
            if self.options.clip_norm:
                torch.nn.utils.clip_grad_norm_(group.parameters, self.options.clip_norm)
            group.optimiser.step(rate)
            group.optimiser.zero_grad()
            del total, gradients  # no memory of them while the next phase is computed
        if self.updates_buffers:
            self.model.after_step(step, terms)  # type: ignore[operator]

        self.index += 1
        if self.index % EMA_EVERY == 0:
            self.ema.update(self.images)
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts.update(terms.keys())

    def drain(self) -> dict[str, float]:
        """Mean of every term over the steps since the last call that had it. This waits for the
        device."""
        means = {k: v / self.counts[k] for k, v in to_host(self.sums).items()}
        self.sums, self.counts = {}, Counter()
        return means

    def not_finite(self, terms: Mapping[str, float] | None = None) -> str:
        """A term that is not finite, or empty; without ``terms`` one of those since the last log
        line, or a weight, for which this waits for the device."""
        if terms is not None:
            finite = {k: math.isfinite(v) for k, v in terms.items()}
        else:
            values = {**dict(self.model.named_parameters()), **self.sums}
            finite = to_host({k: v.isfinite().all() for k, v in values.items()})
        names = [k for k, value in finite.items() if not value]
        # a loss says more than a weight, and a term more than the sum, which comes before it
        return ([k for k in names if "/" not in k] or names or [""])[-1]

    def require_finite(self, terms: Mapping[str, float] | None = None) -> None:
        """Stop at a number of :meth:`not_finite`: it would spread.

        Raises:
            NotFinite: on every process of a monitored model, if on one.
        """
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
        for i, group in enumerate(self.groups):
            tensors |= {f"optimiser.{i}.{k}": v for k, v in group.optimiser.state().items()}
        meta = {"step": self.index, "images": self.images, "averaged": self.ema.images,
                "rate_scale": self.rate_scale}
        for callback in self.callbacks:
            more, facts = callback.state()
            tensors |= more
            meta |= facts
        return tensors, meta

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.ema.model.load_state_dict(part("ema."))
        for i, group in enumerate(self.groups):
            group.optimiser.restore(part(f"optimiser.{i}."))
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
