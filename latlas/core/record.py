"""What run.json holds, by types: a field that is unknown, missing or of another type is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from latlas.core.errors import RunError
from latlas.core.space import Example, PairSpace, Record, Space

#: of run.json and of every tree in a run folder; raised by one whenever one is written differently
FORMAT = 1
RUN = "run.json"
#: share of a budget of minutes that is left for the end of training
END_SHARE = 0.02
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]


class Chosen(Record, frozen=True):
    """What a run is trained with; a resumed run keeps it.

    Attributes:
        images: the budget, in examples; of minutes as it was planned at first.
        examples_per_second: as measured before the first step; 0 of a run too short for that.
        minutes: what the clock keeps the run to; 0 for a budget of examples.
        costs: seconds of a step, relative to each other, at equally spaced shares of the run.
        plans: of minutes: a step, and from there on examples of the whole run and threads.
    """

    images: Positive
    threads: Annotated[int, Meta(ge=1, le=1024)]
    precision: Literal["fp32", "bf16", "mixed"]
    layout: Literal["contiguous", "channels_last"]
    batch_size: Positive
    learning_rate: Annotated[float, Meta(ge=0)]
    examples_per_second: float = 0.0
    minutes: Annotated[float, Meta(ge=0)] = 0.0
    costs: tuple[Annotated[float, Meta(gt=0)], ...] = (1.0,)
    plans: tuple[tuple[Count, Positive, Count], ...] = ()

    def training_seconds(self, n: int) -> float:
        """Of a budget of minutes, less what the end takes: saving, and a pass over ``n`` examples
        without gradients."""
        last_pass = 0.3 * n / self.examples_per_second if self.examples_per_second else 0.0
        return max(0.5, 1 - END_SHARE - last_pass / (60 * self.minutes)) * 60 * self.minutes


class Content(Record, frozen=True):
    """What was trained on: how many examples, and a digest of their contents in any order."""

    train: Count
    validation: Count
    digest: str


class MadeOf(Record, frozen=True):
    """What a fitted prior was fitted to: a digest of the weights, and draws for each example."""

    weights: str
    draws: Positive


class RunRecord(Record, frozen=True):
    """run.json; ``id`` is random, and stands in every file of tensors of the run."""

    format: Positive
    id: str = ""
    model: str = ""
    config: dict[str, Any] | None = None
    space: Space | PairSpace | None = None
    data: dict[str, Any] | None = None
    split: Literal["train", "all"] = "train"
    training: dict[str, Any] | None = None
    custom: tuple[str, ...] = ()
    start: str | None = msgspec.field(default=None, name="from")
    made_of: MadeOf | None = None
    examples: Content | None = None
    chosen: Chosen | None = None


def read_run(path: Path) -> dict[str, Any]:
    """The run.json of a run folder, checked.

    Raises:
        RunError: no such run, an unreadable or damaged one, or one of a newer format.
    """
    file = path / RUN
    if not file.is_file():
        why = "it has no run.json" if path.exists() else "there is nothing of that name"
        raise RunError(f"{path} is no run folder ({why})")
    try:
        record: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if not isinstance(record, dict) or "format" not in record:
            raise ValueError("it does not say its format, as the file of every run does")
        check_format(record["format"], path)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error
    try:
        space = msgspec.convert(record, RunRecord).space
        for side in (space.a, space.b) if isinstance(space, PairSpace) else (space,):
            if side is not None:
                _check_units(side)
    except ValueError as error:  # msgspec's is one
        raise RunError(f"{file} is no whole run: {error}") from error
    return record


def check_format(version: Any, path: Path) -> None:
    """RunError for a format of the future, ValueError for none."""
    if type(version) is not int or version < 1:
        raise ValueError(f"format is {version!r}")
    if version > FORMAT:
        raise RunError(f"{path} is of format {version}, this latlas reads up to {FORMAT}; "
                       "update latlas")


def _check_units(space: Example) -> None:
    """ValueError for a space that no example can be of."""
    if not all(0 < n < 2**31 for n in space.shape) or space.dims >= 2**40:
        raise ValueError(f"a shape of {list(space.shape)} - at `$.space.shape`")
    if space.levels is not None and space.levels < 2:
        raise ValueError(f"{space.levels} levels - at `$.space.levels`")
    for name in ("location", "scale"):
        value = getattr(space, name)
        values = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(v) and (v > 0 or name == "location") for v in values) or (
                isinstance(value, tuple) and len(values) != space.dims):
            raise ValueError(f"numbers that are no {name} of {space.dims} values - at "
                             f"`$.space.{name}`")
