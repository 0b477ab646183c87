"""What every verb shares: how its arguments are written, and the result that it returns.

A verb is one function ``verb(run, data=…, …) -> Result``. Its signature and docstring are the only
declaration of its options: the command line and its help are derived from them (``latlas.cli``).
An annotation below says what a value is in Python, and by :class:`Flag` what is typed for it.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from latlas.core.errors import ConfigError, say_option, unknown
from latlas.core.space import Space
from latlas.render import imaging
from latlas.render.text import counted
from latlas.verbs import write

if TYPE_CHECKING:
    from latlas.verbs.frames import Origin

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])
#: called with (examples done, examples in all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Flag:
    """How an argument is typed on the command line.

    Attributes:
        type: what the text is converted to.
        help: one line.
        convert: from that type to what the verb takes.
        negative: the flag that says no, for a truth value.
        repeated: the flag may be given several times; ``several``: one flag takes several values.
        name: of the flag, where it is not the argument's.
        positional: it may be given by its place, though it has a default.
    """

    type: Any
    help: str
    convert: Callable[[Any], Any] | None = None
    negative: str = ""
    repeated: bool = False
    several: bool = False
    name: str = ""
    positional: bool = False


@dataclass(frozen=True)
class Bounds:
    """The numbers that an argument may be; ``low`` and ``high`` included, ``above`` not."""

    low: float | None = None
    high: float | None = None
    above: float | None = None

    def check(self, option: str, value: Any) -> None:
        """Raise ConfigError for a number that is none of them."""
        for word, bound, wrong in (("at least", self.low, operator.lt),
                                   ("at most", self.high, operator.gt),
                                   ("more than", self.above, operator.le)):
            if bound is not None and wrong(value, bound):
                raise ConfigError(f"{say_option(option, value)}: {word} {bound:,}", option=option)


#: of seeds, counts and amounts
SEED, POSITIVE, AMOUNT = Bounds(0, 2**63 - 1), Bounds(1), Bounds(above=0)


def verb(function: F) -> F:
    """A verb whose arguments are held to what its signature declares, before anything is done.

    Numbers are finite and within their :class:`Bounds`, words are among those of their Literal, and
    no text is empty. A file that is written in the place of another is said; it is never one of the
    data.
    """
    signature, hints = inspect.signature(function), dict[str, Any]()

    @functools.wraps(function)
    def checked(*args: Any, **named: Any) -> Any:
        if not hints:
            hints.update(get_type_hints(function, include_extras=True))
        arguments = signature.bind(*args, **named).arguments
        for name, value in arguments.items():
            check_argument(name, value, hints.get(name))
        out, data = arguments.get("out"), arguments.get("data", arguments.get("latents"))
        write.check_place(out, data)
        replaced = Path(out) if out is not None and Path(out).is_file() else None
        result = function(*args, **named)
        if isinstance(result, Result):
            if replaced and result.written:
                result.written = (*result.written, f"replaced the {replaced.name} that was there")
            if data is not None and not isinstance(data, str | Path):
                from latlas.verbs import frames

                result.origin = frames.origin_of(data, arguments)
        return result

    return cast(F, checked)


def check_argument(name: str, value: Any, hint: Any) -> None:
    """Raise ConfigError for a number out of its bounds, a word that is none of its Literal, or text
    that is empty."""
    if isinstance(value, Real) and not isinstance(value, bool):
        finite(name, float(value))
        for bound in getattr(hint, "__metadata__", ()):
            if isinstance(bound, Bounds):
                bound.check(name, value)
    elif any(isinstance(v, str) and not v.strip() for v in (
            value if isinstance(value, tuple | list) else (value,))):
        raise ConfigError(f"{say_option(name, repr(''))}: it is empty; leave it out, or give it a "
                          "value", option=name)
    elif value is not None and (words := words_of(hint)) and value not in words:
        raise ConfigError(f"{say_option(name, value)}: {unknown(name, str(value), words)}",
                          option=name)


def words_of(hint: Any) -> tuple[str, ...]:
    """The words of a Literal, alone or beside others.

    >>> words_of(Literal["A", "B"] | None), words_of(int)
    (('A', 'B'), ())
    """
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = get_args(hint) if get_origin(hint) in (Annotated, Union, UnionType) else ()
    return tuple(word for part in parts for word in words_of(part))


@dataclass(frozen=True)
class Output:
    """Where a result goes: ``default`` in the run folder if nothing is named on the command line.

    A default without a suffix becomes an image (``.png``) of images, and a table (``.csv``) of
    other data; without a default nothing is written.
    """

    default: str
    help: str = ("Where to: .png (grid), .gif, folder/ (a file each), .npz, .npy, .csv, .parquet. "
                 "Default: in the run folder.")


def one_or_two(sources: tuple[str, ...]) -> Any:
    """What --data names: nothing, one source, two of two domains, or image files; ConfigError for
    others."""
    from latlas.data.opening import image_files

    if len(sources) > 2 and image_files(sources):
        return sources
    if len(sources) > 2:
        raise ConfigError(f"--data: {len(sources)} sources; name one, or two for two sides")
    return tuple(sources) if len(sources) == 2 else sources[0] if sources else None


def listed(text: str) -> list[str]:
    """``"a, b"`` as ``["a", "b"]``."""
    return [part.strip() for part in text.split(",") if part.strip()]


#: a run folder, a Run, or a Model
RunLike = Annotated[Any, Flag(Path, "Run folder, made by `latlas train`.")]
DataLike = Annotated[Any, Flag(
    tuple[str, ...], "Source: a name (digits, moons …), file or folder; given twice, two domains. "
    "Default: what the run was trained on.", one_or_two, repeated=True)]
Split = Annotated[Literal["train", "validation", "test", "all"] | None, Flag(
    Literal["train", "validation", "test", "all"],
    "Part of the source. Default: test where the source has one or the run was trained on it, "
    "else all.")]
Seed = Annotated[int, Flag(int, "Decides every random draw."), SEED]
FirstN = Annotated[int | None, Flag(int, "Only the first N examples."), POSITIVE]
Classes = Annotated[Any, Flag(str, "Class of a conditional model: a name, or several with commas "
                                   "between.", listed)]
GivenImages = Annotated[Any, Flag(str, "Source of images to complete, for a model of a part.")]
Truncation = Annotated[float, Flag(float, "How far styles are taken from their mean (ψ): below 1 "
                                          "likelier images, less varied.")]
Layers = Annotated[str, Flag(str, "Layers by their styles: coarse, middle, fine, all, or numbers "
                                  "(0-3,6).")]
Domain = Annotated[Literal["A", "B"], Flag(Literal["A", "B"], "Domain of the result.")]
Shard = Annotated[str | None, Flag(str, "i/n: only share i of n (1/4 … 4/4), as Parquet parts in "
                                        "the folder --out; run again, it writes the parts that "
                                        "are missing.")]
BlockSize = Annotated[int, Flag(int, "Examples of a part of a shard, a multiple of 512.")]
Out = Path | str | None


class Result:
    """What a verb returns.

    :meth:`facts` is what ``--json`` prints, :meth:`text` what a person reads, :meth:`table` a row
    per example, :meth:`save` writes a file by its suffix.
    """

    #: what was written, a line each
    written: tuple[str, ...] = ()
    #: of the command line, other than 0
    exit_code: int = 0
    #: suffixes that :meth:`save` knows
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".parquet", ".npz")
    #: the table has a row for each example of the data
    row_per_example: ClassVar[bool] = True
    #: the frame that the data came in
    origin: Origin | None = None

    @property
    def order(self) -> Array | None:
        """(n,) which example of the data each row of the table is; ``None`` in their order."""
        return None

    def facts(self) -> dict[str, Any]:
        """Numbers and words about the whole, in JSON's own types or arrays."""
        raise NotImplementedError

    def text(self) -> str:
        """The same for a reader; empty where the files say it all."""
        return ""

    def as_columns(self) -> dict[str, Any]:
        """One row per example, by column: arrays, or series of polars of a table's own columns."""
        raise TypeError(f"{type(self).__name__} has no table")

    def table(self, kind: str = "") -> Any:
        """One row per example, in the kind that the data came in: a frame of pandas, polars or
        pyarrow, with its index and the columns that name its rows; else a dictionary of arrays.

        Args:
            kind: ``pandas``, ``polars``, ``pyarrow`` or ``arrays``, whatever the data came in.
        """
        from latlas.verbs import frames

        return frames.as_kind(self, kind)

    def save(self, path: str | Path) -> str:
        """Write by suffix; returns what was written, in one line. ConfigError for a suffix that it
        does not know, RunError where the file cannot be written."""
        return write.write_table(path, self.as_columns())

    def save_in(self, results: Any) -> str:
        """Write to a folder that belongs to one command, a :class:`latlas.verbs.results.Results`;
        as :meth:`save`."""
        return self.save(results.folder)

    def saved(self, out: str | Path | None, results: Any = None) -> Self:
        """The result, after :meth:`save` where a file is named, or :meth:`save_in` a folder."""
        if out is not None:
            self.written = (*self.written, self.save(out) if results is None else
                            self.save_in(results))
        return self

    def __repr__(self) -> str:
        facts = {k: f"{v:.5g}" if isinstance(v, float) else str(v)
                 for k, v in self.facts().items() if isinstance(v, (int, float, str))}
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in facts.items())})"

    def _repr_html_(self) -> str:
        from html import escape  # loads a large table

        rows = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v)[:200])}</td></tr>"
                       for k, v in self.facts().items())
        return f"<table>{rows}</table>"


class ArrayResult(Result):
    """A result that is an array to NumPy, its ``values``."""

    values: Array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.values, dtype) if copy else np.asarray(self.values, dtype)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.values.shape


@dataclass(eq=False, repr=False)
class Examples(ArrayResult, NDArrayOperatorsMixin):
    """Examples in data units; an array to NumPy.

    Attributes:
        values: (n, *shape), or with more leading dimensions, as for a grid of walks.
        space: what an example is.
        names: (n,) file names, if any; ``details`` facts beside their number and shape.
        columns: of the grid that ``.png`` shows.
        originals: (n, *shape) what each was made of; ``.png`` shows them above.
    """

    suffixes: ClassVar[tuple[str, ...]] = write.EXAMPLES
    values: Array
    space: Space
    names: Any = None
    columns: int | None = None
    details: dict[str, Any] | None = None
    originals: Array | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space.kind}, {self.shape}, {self.dtype})"

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [v.values if isinstance(v, Examples) else v for v in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self.values.dtype

    @property
    def flat(self) -> Array:
        """(n, *shape): rows of a grid one after the other."""
        return self.values.reshape(-1, *self.space.shape)

    def facts(self) -> dict[str, Any]:
        flat = self.flat
        return {"n": len(flat), "shape": list(flat.shape), **(self.details or {})}

    def as_columns(self) -> dict[str, Any]:
        return write.example_columns(self.flat, self.space, self.names)

    def save_in(self, results: Any) -> str:
        flat, space = self.flat, self.space
        counts = results.write(write.image_names(len(flat), self.names), lambda missing: (
            write.picture(flat[i], space) for i in missing))
        note = imaging.note(space.shape[0])
        return results.line(*counts, "image") + (f" ({note})" if note else "")

    def save(self, path: str | Path) -> str:
        flat, space = self.flat, self.space
        suffix = Path(path).suffix.lower()
        if self.originals is None or suffix != ".png" or space.kind != "image":
            return write.write_examples(path, flat, space, self.names, columns=self.columns)
        across = min(8, len(flat))
        both = np.stack([self.originals, flat])
        blank = np.zeros((2, -len(flat) % across, *space.shape), both.dtype)
        rows = np.concatenate([both, blank], 1).reshape(2, -1, across, *space.shape).swapaxes(0, 1)
        write.write_examples(path, rows.reshape(-1, *space.shape), space, columns=across)
        return f"wrote {counted(len(flat), 'example')} to {path}, every row under its originals"


def titles(names: Any, n: int) -> Array:
    """(n,) what each example is called: its name, or its number where there are no names."""
    return np.arange(n) if names is None else np.asarray(names)


def one_of(option: str, value: str, valid: Iterable[str]) -> None:
    """Raise ConfigError for a word that is none of the valid ones."""
    if value not in valid:
        raise ConfigError(unknown(option, str(value), valid), option=option)


def finite(option: str, value: float) -> None:
    """Raise ConfigError for a number that is not finite."""
    if not math.isfinite(value):
        raise ConfigError(f"{say_option(option, value)}: a finite number", option=option)


def whole_numbers(option: str, value: str | Sequence[int]) -> list[int]:
    """``"1,2,5-9"``, or a sequence, as whole numbers."""
    from latlas.core.options import numbers

    parsed = numbers(value) if isinstance(value, str) else [int(v) for v in value]
    if parsed is None:
        raise ConfigError(f"{say_option(option, value)}: write whole numbers, ranges by a dash, "
                          "with commas between (1,2,5-9), at most a million", option=option)
    return parsed
