"""Files of tensors in a run folder, checked when they are read: whose they are, and that names,
shapes, types and numbers are those of the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from latlas.core.errors import RunError, say_number
from latlas.core.files import load_tree
from latlas.core.record import Count, check_format

if TYPE_CHECKING:
    from torch import Tensor


#: a run of fewer steps or epochs has learnt too little to be judged by
FEW_STEPS, FEW_EPOCHS = 500, 3
#: a held-out loss that falls by a larger share in the last fifth of a run is not at its end
STILL_FALLING = 0.005


class Ending(Struct):
    """Of model.safetensors: how training ended; models may say more.

    Attributes:
        steps, epochs: 0 of a closed form.
        improved: by what share of itself the held-out loss fell in the last fifth of the run;
            ``None`` without held-out data, or with too few checks to tell.
        alarms: that were raised and held to the end.
    """

    format: int
    run: str
    images: Count
    seconds: float
    stopped: str
    best: float | None = None
    rollbacks: Count = 0
    steps: Count = 0
    epochs: float = 0.0
    improved: float | None = None
    alarms: tuple[str, ...] = ()

    def summary(self) -> str:
        """What was reached, for the last line of training."""
        text = f"finished {self.images:,} examples in {self.seconds:,.1f} s"
        if self.steps:
            steps = f"{self.steps:,} step{'s' * (self.steps != 1)}"
            text += f" ({steps}, {say_number(self.epochs)} epochs)"
        if self.best is not None:
            text += f"; held-out loss {say_number(self.best, 4)}"
        if self.improved is not None and self.improved > STILL_FALLING:
            text += f", and it was still falling: by {self.improved:.1%} in the last fifth"
        return "; ".join([text, *(f"not resolved: {alarm}" for alarm in self.alarms)])

    def warnings(self) -> list[str]:
        """Why what this run makes may say little about the model; none of a run that is whole."""
        reasons = [f"an alarm held to its end ({alarm})" for alarm in self.alarms]
        if self.steps and (self.steps < FEW_STEPS or self.epochs < FEW_EPOCHS):
            epochs = say_number(self.epochs, 2)
            reasons.insert(0, f"it saw {self.steps:,} steps and {epochs} epochs")
        return reasons


class Progress(Struct):
    """Of a checkpoint; callbacks may say more."""

    format: int
    run: str
    step: Count
    images: Count
    averaged: Count
    rate_scale: float
    seconds: float = 0.0
    best: float | None = None
    misses: Count = 0
    monitor: tuple[Count, dict[str, int], list[str]] | None = None


def read_tree(path: Path, run: str, kind: type[Struct]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file that the run of this id has written.

    Raises:
        RunError: in one line, an unreadable file, one of another run or of a newer format, or
            facts of other types than ``kind`` says.
    """
    tensors, meta = load_tree(path)
    try:
        check_format(meta["format"], path)
        msgspec.convert(meta, kind)
    except KeyError as error:
        raise RunError(f"{path} is no file of a run: it lacks {error}") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if meta["run"] != run:
        raise RunError(f"{path} belongs to another run than run.json beside it", what=str(path),
                       hint="keep the files of a run together, or train again")
    return tensors, meta


def check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor],
                  whose: str = "its run.json") -> None:
    """RunError, in one line, unless the tensors have the names, shapes and kinds of number that
    are expected, and are finite."""
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys()
                                                                      - expected.keys())
    wrong = [f"{name} is {word}" for names, word in ((missing, "missing"), (extra, "unknown"))
             for name in names]
    wrong += [f"{name} is of shape {_by(tensors[name])}, not {_by(like)}"
              for name, like in expected.items()
              if name in tensors and tensors[name].shape != like.shape]
    wrong += [f"{name} is {tensors[name].dtype}, not {like.dtype}".replace("torch.", "")
              for name, like in expected.items()
              if name in tensors and _kind(tensors[name]) != _kind(like)]
    if wrong:
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        raise RunError(f"the weights in {path} do not fit {whose}: {wrong[0]}{more}",
                       what=str(path), hint="" if whose != "its run.json" else
                       "if another version of latlas trained it, use that, or train again")
    for name, tensor in tensors.items():
        # a second moment of Adam may overflow, which stops that weight and harms no other
        bad = tensor.isnan() if name.startswith("optimiser.") else ~tensor.isfinite()
        if bad.any():
            raise RunError(f"{name} in {path} holds numbers that are not finite", what=str(path),
                           hint="the file is damaged: train again, or from an earlier copy")


def _kind(tensor: Tensor) -> str:
    """Real numbers may be of any precision; nothing else is converted."""
    return "real" if tensor.is_floating_point() else str(tensor.dtype)


def _by(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
