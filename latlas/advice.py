"""``advise``: which model to train on a source, how long here, and why."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latlas import models
from latlas.budget import trial
from latlas.core.errors import DataNote, flags_of_command, say_number, say_option
from latlas.data.dataset import Source, split
from latlas.data.fitting import as_source
from latlas.data.pairs import PairSource, first_side
from latlas.learning import seconds_per_example, with_image_size
from latlas.prior_fitting import prior_share
from latlas.training import TrainingData, plan_of
from latlas.verbs.common import Result

#: minutes that are advised: the first of which this machine sees so many epochs and steps
MINUTES, EPOCHS, STEPS = (1, 2, 5, 10, 20, 30, 60), 40, 1000
#: minutes whose epochs are said, and those of a plan whose trials are short
QUOTED, TRIAL_MINUTES = 10, 1
#: scalars of a small image; rows of a table, and examples of a class, that are few
SMALL_IMAGE, FEW_ROWS, FEW_OF_CLASS = 1024, 200, 10
#: examples that a model is timed on; options of a source that have a flag of their own
TIMED, FLAGS = 256, ("image_size", "key", "on_error", "label", "split_by")

#: by the kind of data: the model, the one for labelled examples, and why
ADVISED = {
    "images": ("latent-flow", "latent-flow", "photos and other images to be looked at: its samples "
               "are sharper than a VAE's"),
    "small images": ("vae", "conditional-vae", "small images: samples, scores and latents within "
                     "minutes"),
    "recordings": ("vae", "conditional-vae", "windows of recordings: latents, scores of what is "
                   "unusual, samples"),
    "points": ("flow-matching", "flow-matching", "points: samples, and a density that is exact but "
               "for the solver's steps"),
    "table": ("vae", "conditional-vae", "rows of a table: scores, outliers, samples and latents"),
    "few rows": ("pca", "", "a table of few rows: an exact likelihood, which ranks outliers too"),
    "pairs": ("pix2pix", "", "the two sides belong together: it makes B of A"),
    "domains": ("cycle-gan", "", "two domains without pairs: it makes either of the other")}


@dataclass(eq=False, repr=False)
class Advice(Result):
    """Which model to train on a source, and for how long on this machine.

    Attributes:
        model: its name; ``settings`` are options of it.
        reason: why, in one line.
        data: what the source is called, in words of a command line; empty of data in memory.
        read: options of the source.
        minutes: that are advised; ``None`` of a closed form.
        examples_per_second: that the model learns from here, by a short trial.
        epochs: passes over the training data in ten minutes, of which a fitted prior has its share.
    """

    model: str
    reason: str
    settings: dict[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    read: dict[str, Any] = field(default_factory=dict)
    minutes: int | None = None
    examples_per_second: float | None = None
    epochs: float | None = None

    @property
    def command(self) -> str:
        """What to type: a command line, or in Python a call where the data have no name."""
        if not self.data:
            source = ", ".join(["{'source': data", *(
                f"{k!r}: {v!r}" for k, v in self.read.items())]) + "}" if self.read else "data"
            options = {**self.settings, "minutes": self.minutes}
            return ", ".join([f"latlas.train({self.model!r}, {source}", *(
                f"{k}={v!r}" for k, v in options.items() if v is not None)]) + ")"
        with flags_of_command({name: f"--{name.replace('_', '-')}" for name in FLAGS}):
            words = [f"latlas train {self.model}",
                     *(f"--data {shlex.quote(place)}" for place in self.data),
                     *(say_option(k, v) for k, v in self.read.items()),
                     *(f"--set {k}={v}" for k, v in self.settings.items()),
                     *([f"--minutes {self.minutes}"] if self.minutes else [])]
        return " ".join(words)

    def facts(self) -> dict[str, Any]:
        return {"model": self.model, "command": self.command, "reason": self.reason,
                "minutes": self.minutes, "examples_per_second": self.examples_per_second,
                "epochs": self.epochs}

    def text(self) -> str:
        if self.examples_per_second is None or self.epochs is None:
            speed = f"{self.model} is fitted in closed form, in seconds"
        else:
            speed = (f"{self.model} learns from about {say_number(self.examples_per_second, 2)} "
                     f"examples/s here: {QUOTED} minutes are {say_number(self.epochs, 2)} epochs")
        return "\n".join([self.command, self.reason, speed])


def advise(data: Any, other: Any = None, *, source: Source | PairSource | None = None,
           **read: Any) -> Advice:
    """Which model to train on a source, how long here, and why; by the kind of data, and the speed
    of that model in a trial of some seconds.

    Args:
        data, other: whatever names a source, and a second one of another domain.
        source: what they name, where it was opened before.
        read: options of the source.

    Raises:
        DataError: a source that cannot be read or learnt from.
    """
    read = {k: v for k, v in read.items() if v is not None}
    places = [data] if other is None else [data, other]
    source = source or as_source(data if other is None else (data, other), **read)
    model, settings, reason = choose(source)
    named = all(isinstance(place, str | Path) for place in places)
    advice = Advice(model, reason, settings, tuple(map(str, places)) if named else (), read)
    train, plan = split(source, "train"), plan_of(model, {**settings, "minutes": QUOTED})
    if not hasattr(models.load_class(models.get(model)), "phases"):
        return advice
    if named:
        with warnings.catch_warnings():  # of the size, which the command names
            warnings.simplefilter("ignore", DataNote)
            advice.read = with_image_size(plan, places, None, read)
    if advice.read != read:
        channels = first_side(train).space.shape[0]
        seconds, batch_size = seconds_per_example(plan, len(train), channels,
                                                  advice.read["image_size"])
    else:
        short = plan_of(model, {**settings, "minutes": TRIAL_MINUTES})
        seconds, batch_size = trial(short, len(train), train.subset(slice(0, TIMED)))
    speed = (1 - prior_share(plan, TrainingData(train))) / seconds  # over all the minutes
    needed = max(EPOCHS * len(train), STEPS * batch_size)
    advice.minutes = next((m for m in MINUTES if 60 * m * speed >= needed), MINUTES[-1])
    advice.examples_per_second, advice.epochs = 1 / seconds, 60 * QUOTED * speed / len(train)
    return advice


def choose(source: Source | PairSource) -> tuple[str, dict[str, Any], str]:
    """The model for a kind of data, its settings, and why."""
    if isinstance(source, PairSource):
        kind = "pairs" if source.aligned else "domains"
    elif (space := source.base.space).sound is not None:
        kind = "recordings"
    elif space.kind == "image":
        kind = "images" if space.dims > SMALL_IMAGE else "small images"
    else:
        kind = "few rows" if space.kind == "table" and len(source.base) < FEW_ROWS else space.kind
    model, of_classes, reason = ADVISED[kind]
    label = None if isinstance(source, PairSource) else source.base.take("label")
    counts = np.bincount(np.asarray(label, np.int64)) if label is not None else np.zeros(0)
    if not of_classes or len(counts) < 2 or counts.min() < FEW_OF_CLASS:
        return model, {}, reason
    return of_classes, {"condition": "label"} if of_classes == model else {}, (
        f"{reason}; each of the {len(counts)} classes can be sampled")
