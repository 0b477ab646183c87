"""One training step, and the whole state of training as a tree of tensors."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from latlas.core.batch import Batch
from latlas.core.model import AfterStep, Loss, Model, Phase, Step, Trains
from latlas.core.noise import Noise, derive, dropout_rng
from latlas.core.precision import autocast, transposed
from latlas.engine import optimisers
from latlas.engine.ema import EVERY, Averaged
from latlas.engine.options import TrainOptions
from latlas.engine.processes import DistributedContext

#: steps from one look at the size of a watched model's gradients to the next
NORM_EVERY = 8
#: passes over the training data after which dropout has its full strength
REPEATS = 200


class Trainer:
    """A model, its players and its average, advanced step by step.

    Everything random in step k is a function of (seed, k), so :meth:`state` holds no generator.

    Args:
        items: size of the training set; 0 where nobody knows.

    Attributes:
        scale: of the learning rate, below 1 after a return to earlier weights.
    """

    def __init__(self, model: Model, options: TrainOptions, *, budget: int, precision: str,
                 world: DistributedContext | None = None, items: int = 0) -> None:
        if not isinstance(model, Trains):
            raise TypeError(f"{type(model).__name__} has no phases to train")
        self.model, self.options, self.budget, self.items = model, options, budget, items
        self.world = world or DistributedContext()
        self.precision, self.whole = precision, transposed(model)
        self.phases: tuple[Phase, ...] = model.phases
        self._phases = {phase.name: phase for phase in self.phases}
        self.players = optimisers.players(model, self.phases, options)
        self._player_of = {phase: p for p in self.players for phase in p.phases}
        trained = sum(p.requires_grad for p in model.parameters())
        self._alone = [len(player.parameters) for player in self.players] == [trained]
        self._after = model.after_step if isinstance(model, AfterStep) else None
        self.average = Averaged(model, options.ema)
        self.noise = Noise(0, model.device, self.world.rank, self.world.size)
        self.device = model.device
        self.ambient = _ambient_generator(self.device)
        self.index, self.share, self.scale = 0, 0.0, 1.0
        self.sums: dict[str, Tensor] = {}
        self.counts: Counter[str] = Counter()

    @property
    def images(self) -> int:
        """Items seen by all processes."""
        return self.index * self.options.batch_size

    def step(self, batch: Batch) -> None:
        """Every due phase once, then the average and the model's own buffers."""
        step = self._begin()
        terms: dict[str, Tensor] = {}
        losses = self.model.losses(batch, step)
        while True:
            with self.autocast(), dropout_rng(self.noise, len(batch), self._strength(step)):
                name, loss = next(losses, ("", None))
            if loss is None:
                break
            terms.update(self._advance(self._phases[name], loss))
        if self._after is not None:
            self._after(step, terms)
        self.index += 1
        if self.index % EVERY == 0:
            self.average.update(self.images)
        self._note(terms)

    def _begin(self) -> Step:
        seed = derive(self.options.seed, "step", self.index)
        self.noise.reseed(seed)
        self.ambient.manual_seed(seed + self.world.rank)
        progress = min(1.0, self.images / self.budget)
        self.share = optimisers.rate(self.options, progress) * self.scale
        return Step(self.index, self.images, progress, self.noise, self.items)

    def _advance(self, phase: Phase, loss: Loss) -> dict[str, Tensor]:
        player = self._player_of[phase]
        total = loss.total if phase.every == 1 else loss.total * phase.every
        # gradients reach this player's parameters alone, so what one player's forward pass made
        # (fakes) may serve another's; where there is no other, the plain call is 3% faster
        total.backward(inputs=None if self._alone else player.parameters)  # type: ignore
        terms = {k: v.detach() for k, v in loss.terms.items()}
        self._complete(player)
        if self.model.defaults.monitored and self.index % NORM_EVERY == 0:
            terms[f"gradient/{phase.name}"] = _norm(player)
        self._apply(player)
        return terms

    def _strength(self, step: Step) -> float:
        """Of dropout: it costs bits while items are new, and pays once they have come often."""
        return min(1.0, step.images / (REPEATS * self.items)) if self.items else 1.0

    def _complete(self, player: optimisers.Player) -> None:
        """Every parameter's gradient, mean over processes."""
        for p in player.parameters:  # what a phase does not use has no gradient: zero, so that
            if p.grad is None:       # one process and many take the same step
                p.grad = torch.zeros_like(p)
        if self.world.size > 1:
            self.world.average([p.grad for p in player.parameters if p.grad is not None])

    def _apply(self, player: optimisers.Player) -> None:
        if self.options.clip_norm:
            torch.nn.utils.clip_grad_norm_(player.parameters, self.options.clip_norm)
        player.optimiser.step(self.share)
        player.optimiser.forget_gradients()

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 where it was chosen; losses reduce in fp32 by themselves."""
        return autocast(self.device, self.precision, self.whole)

    def _note(self, terms: dict[str, Tensor]) -> None:
        """Sum the terms on the device; nothing waits for it."""
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts.update(terms.keys())

    def drain(self) -> dict[str, float]:
        """Mean of every term since the last call. This waits for the device."""
        means = {k: v.item() / self.counts[k] for k, v in self.sums.items()}
        self.sums, self.counts = {}, Counter()
        return means

    def finite(self) -> bool:
        """Whether all terms since the last line and all weights are. This waits for the device."""
        held = [*self.sums.values(), *self.model.parameters()]
        return all(bool(v.isfinite().all()) for v in held)

    def averaged(self) -> Model:
        """The averaged model as of this step. It belongs to the run: call it at fixed steps."""
        self.average.update(self.images)
        return self.average.current()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON from which :meth:`restore` goes on to the same bits."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.average.current().state_dict().items()}
        for i, player in enumerate(self.players):
            tensors |= {f"optimiser.{i}.{k}": v for k, v in player.optimiser.state().items()}
        return tensors, {"step": self.index, "images": self.images,
                         "averaged": self.average.images}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.model.load_state_dict(_under("model.", tensors))
        self.average.model.load_state_dict(_under("ema.", tensors))
        for i, player in enumerate(self.players):
            player.optimiser.restore(_under(f"optimiser.{i}.", tensors))
        self.index, self.average.images = int(meta["step"]), int(meta["averaged"])


def _norm(player: optimisers.Player) -> Tensor:
    """Euclidean norm of the gradient of all its parameters, on their device."""
    gradients = [p.grad for p in player.parameters if p.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}


def _ambient_generator(device: torch.device) -> torch.Generator:
    """The generator that dropout, and whatever else names none, draws from."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator
