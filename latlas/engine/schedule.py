"""How many steps a run makes; a budget of minutes is looked at by the clock again and again.

A budget of minutes becomes steps by a short trial. At fixed points of training the clock says how
many steps the rest of the budget allows (:class:`latlas.engine.callbacks.Minutes`), and the plan
follows. Everything that depends on the share
of the budget (learning rate, weights of terms, growth) goes on from where it is: no plan takes
progress back. Each plan is part of run.json, so that a run that was killed repeats its plans.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple


class Plan(NamedTuple):
    """From this step on: the examples that the whole run sees, and the processor threads."""

    step: int
    images: int
    threads: int = 0


class Schedule:
    """What share of a run is done after a number of steps.

    Args:
        plans: in order; the first holds from step 0.
        batch_size: examples of a step over all processes.
    """

    def __init__(self, plans: Sequence[tuple[int, int, int]], batch_size: int) -> None:
        self.batch_size = batch_size
        self.plans: list[Plan] = []
        # where each plan begins: the share of the run that is done, and its moment
        self._begins: list[tuple[float, int]] = []
        for plan in plans:
            self.follow(Plan(*plan))

    def follow(self, plan: Plan) -> None:
        """From its step on; later plans are dropped."""
        while self.plans and self.plans[-1].step >= plan.step:
            del self.plans[-1], self._begins[-1]
        begin = (self.progress(plan.step), self.moment(plan.step)) if self.plans else (0.0, 0)
        self.plans.append(plan)
        self._begins.append(begin)

    def steps(self, step: int) -> int:
        """Steps of the whole run, by the plan that holds at ``step``."""
        return -(-self.plan(step).images // self.batch_size)

    def progress(self, step: int) -> float:
        """Share of the run that is done, 0 … 1."""
        start, images, _ = self.plan(step)
        share, _ = self._begins[self._index(step)]
        now, start = step * self.batch_size, start * self.batch_size
        if images <= start:
            return 1.0
        return min(1.0, share + (1.0 - share) * (now - start) / (images - start))

    def moment(self, step: int) -> int:
        """The same in steps of the first plan: how far it would be."""
        start = self.plan(step).step
        _, moment = self._begins[self._index(step)]
        first, steps = self.steps(0), self.steps(step)
        if steps <= start:
            return first
        return moment + (first - moment) * (step - start) // (steps - start)

    def due(self, step: int, period: int) -> bool:
        """Whether what is done once in so many steps of the first plan is to be done now."""
        return step == 0 or self.moment(step) // period != self.moment(step - 1) // period

    def _index(self, step: int) -> int:
        return max(0, bisect_right(self.plans, step, key=lambda plan: plan.step) - 1)

    def plan(self, step: int) -> Plan:
        """The plan that holds at a step."""
        return self.plans[self._index(step)]
