"""Errors a user can act on: one line, naming the file or option and what to do."""

import difflib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from shlex import quote
from typing import Any

#: flags of the command that runs, by the name of the option; ``None`` in Python
_flags: Mapping[str, str] | None = None


class LatlasError(Exception):
    """A problem the person can fix. The command line prints it as one line and exits with 2.

    Attributes:
        what: the file, run or data that it is about.
        option: the option that is wrong or missing.
        hint: what to do about it; ``str()`` is the message with the hint after it.
    """

    def __init__(self, message: str, *, what: str = "", option: str = "", hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message, self.what, self.option, self.hint = message, what, option, hint


class DataError(LatlasError):
    """A source that cannot be read, or does not hold what the task needs."""


class UnreadOptionError(DataError):
    """A source of this kind has no such option."""

    def __init__(self, message: str, option: str) -> None:
        super().__init__(message)
        self.option = option


class ConfigError(LatlasError):
    """An option with an unknown name or a value that does not fit."""


class CapabilityError(LatlasError):
    """A model asked for something it cannot do."""


class RunError(LatlasError):
    """A run folder that is missing, unfinished, foreign, or newer than this version."""


class TrainingError(LatlasError):
    """Training that cannot go on: a loss that is not finite, a collapse."""


def say_option(name: str, value: Any = "") -> str:
    """An option as the person types it.

    ``image_size=64`` in Python, ``--image-size 64`` on the command line, and there ``--data-option
    drop=id`` for an option of a source that has no flag of its own.

    >>> say_option("image_size", 64)
    'image_size=64'
    >>> with flags_of_command({"image_size": "--image-size"}):
    ...     say_option("image_size", 64), say_option("image_size"), say_option("drop", "id")
    ('--image-size 64', '--image-size', '--data-option drop=id')
    """
    if _flags is None:
        return f"{name}={value}"
    value = "" if value is True else value
    text = quote(str(value)) if value != "" else ""
    return (f"{_flags[name]} {text}".rstrip()
            if name in _flags else f"--data-option {quote(f'{name}={value}')}")


def say_setting(name: str, value: Any) -> str:
    """A setting of training as the person types it: ``prior_share=0``, in a command after
    ``--set``."""
    return f"{name}={value}" if _flags is None else f"--set {quote(f'{name}={value}')}"


@contextmanager
def flags_of_command(flags: Mapping[str, str]) -> Iterator[None]:
    """Errors raised inside name options by these flags (name of the option to flag)."""
    global _flags
    before, _flags = _flags, flags
    try:
        yield
    finally:
        _flags = before


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy or torch says that there is too little memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in text for words in ("can't allocate memory", "out of memory"))


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """One line that names an unknown thing, the nearest valid one, and all valid ones.

    >>> unknown("model", "vea", ["vae", "pca"])
    "unknown model 'vea': did you mean 'vae'? Valid: pca, vae"
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}Valid: {', '.join(names)}"


def say_number(value: float, digits: int = 3) -> str:
    """A number of so many significant digits, with commas and without an exponent from 1 upward.

    >>> say_number(1302.4, 2), say_number(999.6), say_number(12.345), say_number(0.5)
    ('1,300', '1,000', '12.3', '0.5')
    """
    if not math.isfinite(value):
        return f"{value:g}"
    value = float(f"{value:.{digits - 1}e}")
    return f"{value:,.0f}" if abs(value) >= 10**(digits - 1) else f"{value:.{digits}g}"


class DataNote(UserWarning):
    """What was converted, filled, left out or taken for something, in one line."""


def say_notes(notes: Iterable[str]) -> None:
    """Each note once, as a warning of Python, which the command line prints to stderr."""
    for note in dict.fromkeys(notes):
        warnings.warn(note, DataNote, stacklevel=4)
