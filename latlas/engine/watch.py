"""What a run of two players is watched for: alarms, which say what to change, and samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from latlas.core.errors import TrainingError
from latlas.core.model import Model

#: looks at samples in a run that keeps no pictures of them, places to go back to in a run, and how
#: often it may go back
LOOKS, ANCHORS, RETURNS = 20, 25, 3
#: share of the budget before which nothing is alarming: no generator begins with varied samples
EARLY = 0.1

Terms = Mapping[str, float]


class NotFinite(TrainingError):
    """A loss or a weight is not a finite number."""


class Looks(Protocol):
    """Looks at a model's samples now and then; handed in by whoever may draw and write them.

    A look must not depend on the ones before it, nor draw from torch's own generators: training is
    the same with and without.
    """

    def look(self, model: Model, images: int) -> dict[str, float]:
        """Terms for the log, ``samples/spread`` among them: how far samples lie apart, over how
        far real items do."""

    def end(self) -> None:
        """After the last step."""


@dataclass(frozen=True)
class Alarm:
    """What is alarming about some terms, where it lasts for so many lines of the log.

    Attributes:
        needs: the terms that ``holds`` is a function of; ``says`` is their format.
    """

    needs: tuple[str, ...]
    lines: int
    holds: Callable[..., bool]
    says: str


ALARMS = {
    "losing": Alarm(
        ("D(real)", "D(fake)", "certainty"), 20,
        lambda real, fake, sure: real - fake > 10 and sure > 0.98,
        "the discriminator has told every sample from a real item for a tenth of the run (D(real) "
        "{0:.3g}, D(fake) {1:.3g}), so the generator may learn nothing more; try a larger gamma, a "
        "smaller learning_rate or, for few pictures, augment=ada"),
    "diverging": Alarm(
        ("D(real)", "D(fake)"), 5, lambda real, fake: abs(real - fake) > 1000,
        "training diverges (D(real) {0:.3g}, D(fake) {1:.3g}); try a smaller learning_rate, a "
        "larger gamma or clip_norm=1"),
    "collapse": Alarm(
        ("samples/spread",), 2, lambda spread: spread < 0.25,
        "samples of different codes are nearly alike (their distance is {0:.2g} of that of real "
        "items): the generator has collapsed; if that lasts, try a larger gamma or batch_size, "
        "minibatch_std=4, or objective=relativistic where another is in use"),
}


@dataclass
class Alarms:
    """Which alarms have been raised; each is raised once in a run."""

    streaks: dict[str, int] = field(default_factory=dict)
    raised: list[str] = field(default_factory=list)

    def hear(self, terms: Terms, progress: float) -> list[str]:
        """What is newly alarming, in words. ``progress`` is the share of the budget spent."""
        found = []
        for name, alarm in ALARMS.items():
            if progress < EARLY or any(need not in terms for need in alarm.needs):
                continue
            values = [terms[need] for need in alarm.needs]
            self.streaks[name] = self.streaks.get(name, 0) + 1 if alarm.holds(*values) else 0
            if self.streaks[name] >= alarm.lines and name not in self.raised:
                self.raised.append(name)
                found.append(alarm.says.format(*values))
        return found

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"streaks": dict(self.streaks), "raised": list(self.raised)}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """The inverse of :meth:`state`; nothing of a checkpoint that holds none."""
        state = state or {}
        self.streaks, self.raised = dict(state.get("streaks", {})), list(state.get("raised", []))
