"""Options that several commands share, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from latlas.core.errors import ConfigError

Split = Literal["train", "validation", "test", "all"]
Run = Annotated[Path, Parameter(help="Run folder, made by `latlas train`.")]
Seed = Annotated[int, Parameter(help="Decides every random draw.")]
Json = Annotated[bool, Parameter(negative="", help="Print the result as JSON on stdout, all else "
                                                   "on stderr.")]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")]
Label = Annotated[str | None, Parameter(help="Class of a conditional model: a name, or several "
                                             "with commas between.")]
Given = Annotated[str | None, Parameter(help="Source of pictures to complete, for a model of a "
                                             "part.")]
Settings = Annotated[tuple[str, ...], Parameter(
    name="--set", negative="", consume_multiple=False, show_default=False,
    help="key=value, any setting of the model or of training; may be repeated.")]
Pairs = Annotated[tuple[str, ...], Parameter(
    negative="", consume_multiple=False, show_default=False,
    help="key=value, any option of the source; may be repeated.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Items:
    """Which items a command reads. Without ``--data`` they are the run's own."""

    sources: Annotated[tuple[str, ...], Parameter(
        name="--data", negative="", consume_multiple=False, show_default=False,
        help="Source: a name (digits, moons …), file or folder; given twice, two domains. "
             "Default: what the run was trained on.")] = ()
    split: Annotated[Split | None, Parameter(
        help="Part of the source. Default: test where the source has one or the run was trained "
             "on it, else all.")] = None

    @property
    def data(self) -> str | tuple[str, str] | None:
        """One source, two of them, or ``None``."""
        return one_or_two(self.sources) if self.sources else None


@Parameter(name="*")
@dataclass(frozen=True)
class Source:
    """How a source is opened."""

    image_size: Annotated[int | None, Parameter(
        help="Pixels per side; pictures are scaled and cropped to it.")] = None
    key: Annotated[str | None, Parameter(help="Name of the array in an npz.")] = None
    on_error: Annotated[Literal["raise", "skip"] | None, Parameter(
        help="What to do with a broken file.")] = None
    data_option: Pairs = ()

    def options(self) -> dict[str, Any]:
        """Those that were given."""
        named = {"image_size": self.image_size, "key": self.key, "on_error": self.on_error,
                 "label": getattr(self, "label", None)}
        given = {k: v for k, v in named.items() if v is not None}
        return {**given, **pairs(self.data_option, "--data-option")}


@Parameter(name="*")
@dataclass(frozen=True)
class Labelled(Source):
    """How a source and its labels are opened."""

    label: Annotated[str | None, Parameter(
        help="Column or array that holds the label, or none.")] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Parts:
    """One share of the items, written in parts."""

    shard: Annotated[str | None, Parameter(
        help="i/n: only share i of n (1/4 … 4/4), as Parquet parts in the folder --out; run again, "
             "it writes the parts that are missing.")] = None
    block: Annotated[int, Parameter(
        help="Items of a part of a shard, a multiple of 512.")] = 4096


#: defaults of the flags above, which are frozen
ITEMS, SOURCE, LABELLED, WHOLE = Items(), Source(), Labelled(), Parts()


def one_or_two(sources: tuple[str, ...]) -> str | tuple[str, str]:
    """What --data names.

    Raises:
        ConfigError: more than two sources.
    """
    if len(sources) > 2:
        raise ConfigError(f"--data: {len(sources)} sources; name one, or two for two sides")
    return sources[0] if len(sources) == 1 else (sources[0], sources[1])


def at_least(option: str, value: int | None, low: int) -> None:
    """Raise ConfigError for a number that was given and is too small."""
    if value is not None and value < low:
        raise ConfigError(f"{option} {value}: at least {low}")


def listed(text: str) -> tuple[str, ...]:
    """``"a, b"`` as ``("a", "b")``."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def pairs(texts: tuple[str, ...], where: str) -> dict[str, str]:
    """``("a=1", "b=2")`` as a dictionary; the last of equal keys counts.

    Raises:
        ConfigError: a text without ``=``.
    """
    split = [text.partition("=") for text in texts]
    for key, equals, _ in split:
        if not equals or not key.strip():
            raise ConfigError(f"{where} {key}: write it as key=value")
    return {key.strip().replace("-", "_"): value.strip() for key, _, value in split}
