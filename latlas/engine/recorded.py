"""Steps as CUDA graphs: recorded once, then replayed, which takes the host one call.

What changes from step to step enters a graph through tensors on the device: the batch, the learning
rates, the share of the budget that is spent, the strength of dropout. The draws follow the seed,
which is set before every replay. A number of Python's stays what it was when it was recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from latlas.core.errors import say_notes, say_setting
from latlas.core.model import Batch, PairBatch, Step
from latlas.core.noise import Noise

#: steps of a kind before one is recorded: what is made once only is made in them
WARM_UP = 3


class WatchedStep(Step):
    """A step that notes what a model reads of it that would be a number in the graph.

    Attributes:
        reads: names of such numbers.
        questions: that were asked of the step, yes or no; graphs differ by the answers.
    """

    def __init__(self, step: Step, spent: Tensor) -> None:
        self.step, self.spent = step, spent
        self.noise, self.n_train, self.parts = step.noise, step.n_train, step.parts
        self.reads: set[str] = set()
        self.questions: set[tuple[str, float]] = set()

    def _read(self, name: str) -> Any:
        self.reads.add(name)
        return getattr(self.step, name)

    index = property(lambda self: self._read("index"))  # type: ignore[assignment]
    images = property(lambda self: self._read("images"))  # type: ignore[assignment]
    progress = property(lambda self: self._read("progress"))  # type: ignore[assignment]

    def due(self, interval: int) -> bool:
        self.questions.add(("due", interval))
        return self.step.due(interval)

    def before(self, share: float) -> bool:
        self.questions.add(("before", share))
        return self.step.before(share)

    def past(self, images: int) -> bool:
        self.questions.add(("past", images))
        return self.step.past(images)

    def share_of(self, share: float) -> Tensor:
        return (self.spent / share).clamp(max=1.0)


class RecordedSteps:
    """A trainer's steps, a graph for each kind: one with a lazy penalty is not like one without.

    Args:
        descend: :meth:`latlas.engine.trainer.Trainer.descend`.
        phases: names of the learning rates that it takes.
        noises: what the draws of a step come from.

    Attributes:
        refused: the model's step depends on a number of Python's, and is not recorded.
    """

    def __init__(self, descend: Callable[..., dict[str, Tensor]], phases: Iterable[str],
                 noises: Sequence[Noise], device: torch.device) -> None:
        self.descend, self.noises, self.refused = descend, noises, False
        self.spent, self.dropout = (torch.zeros((), device=device) for _ in range(2))
        self.rates = {name: torch.zeros((), device=device) for name in phases}
        self.questions: set[tuple[str, float]] = set()
        self.warm: Counter[tuple[bool, ...]] = Counter()
        self.graphs: dict[tuple[bool, ...], tuple[Any, Any, dict[str, Tensor]]] = {}

    def replay(self, batch: Any, step: Step, rates: Mapping[str, float],
               dropout: float) -> dict[str, Tensor]:
        """What ``descend`` does and gives, by a graph once there is one; a note says so where there
        will be none."""
        if self.refused:
            return self.descend(batch, step, rates, dropout)
        self.spent.fill_(step.progress)
        self.dropout.fill_(dropout)
        for name, rate in rates.items():
            self.rates[name].fill_(rate)
        kind = tuple(getattr(step, name)(value) for name, value in sorted(self.questions))
        if kind not in self.graphs:
            watched = WatchedStep(step, self.spent)
            if self.warm[kind] < WARM_UP:
                self.warm[kind] += 1
                strength = self.dropout if dropout else 0.0  # at 0 nothing is drawn
                terms = self.descend(batch, watched, self.rates, strength)
                if watched.reads:
                    self.refused = True
                    say_notes([f"{say_setting('cuda_graphs', 'true')}: a step of this model goes "
                               f"by its {' and '.join(sorted(watched.reads))}, so it is not "
                               "recorded"])
                self.questions |= watched.questions
                return terms
            inputs, graph = copied(batch), torch.cuda.CUDAGraph()
            for noise in self.noises:
                graph.register_generator_state(noise.generator)
            with torch.cuda.graph(graph):
                terms = self.descend(inputs, watched, self.rates, self.dropout)
            self.graphs[kind] = graph, inputs, terms
        graph, inputs, terms = self.graphs[kind]
        fill(inputs, batch)
        graph.replay()
        return terms


def copied(batch: Any) -> Any:
    """A batch of the same, in memory of its own."""
    return type(batch)(*(copied(v) if isinstance(v, Batch) else v if v is None else v.clone()
                         for v in vars(batch).values()))


def fill(batch: Batch | PairBatch, source: Batch | PairBatch) -> None:
    """Write another batch over one."""
    for name, value in vars(batch).items():
        if isinstance(value, Batch):
            fill(value, getattr(source, name))
        elif value is not None:
            value.copy_(getattr(source, name))
