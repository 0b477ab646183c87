"""What one example of a data set is: its shape, its units, its labels.

*Data units* are the numbers in the file: integers 0 … L−1 for an image with L levels, the columns'
own units for a table. *Model units* are what networks see: images in [−1, 1] with channels first,
table columns standardised. One affine map joins them, x = (v − location) / scale, so a density in
model units becomes one in data units by subtracting Σ log scale, which is how every log-likelihood
is reported: nats per example in data units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import msgspec
import numpy as np
from msgspec import Struct

Kind = Literal["image", "table", "points"]
Units = float | tuple[float, ...]
#: of an image of 8 bits
LEVELS = 256


class Record(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Immutable fields with a JSON form; decoding checks every name and type."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object of the fields that differ from their defaults."""
        return msgspec.to_builtins(self, enc_hook=float)  # NumPy's numbers

    def replace(self, **changes: Any) -> Self:
        """The same with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class Sound(Record, frozen=True):
    """How an image shows a stretch of sound: short-time spectra, a column for every frame.

    Attributes:
        rate: samples a second; ``n_fft`` samples of a frame, ``hop`` from one to the next.
        floor: decibels under the loudest place that are still told apart.
    """

    rate: int
    n_fft: int
    hop: int
    floor: float

    def __str__(self) -> str:
        return (f"{self.rate:,} Hz, frames of {self.n_fft} samples every {self.hop}, "
                f"{self.floor:g} dB")


class Example(Record, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """What all spaces share; what a kind does not have is empty.

    Attributes:
        shape: shape of one example.
        location, scale: the affine map to model units; one number each, or one per column.
        levels: number of integer levels of an image (256 for 8 bits), ``None`` if continuous.
        classes: names of the label's classes, in order of their integer codes; empty if none.
        factors: names of known generative factors; empty if none.
    """

    classes: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()

    kind: ClassVar[Kind]
    words: ClassVar[str]  # what the data are, for a sentence

    # comments instead of annotations: those would make fields of all kinds
    shape = ()  # type: tuple[int, ...]
    location = 0.0  # type: Units
    scale = 1.0  # type: Units
    levels = None  # type: int | None
    columns = ()  # type: tuple[str, ...]
    ids = ()  # type: tuple[int, ...]
    frames = False
    sound = None  # type: Sound | None

    @property
    def dims(self) -> int:
        """Number of scalars in one example."""
        return math.prod(self.shape)

    @property
    def step(self) -> float:
        """Width of one integer level in model units; 0 for continuous data."""
        return 0.0 if self.levels is None else 2.0 / (self.levels - 1)

    @property
    def log_volume(self) -> float:
        """Σ log scale: subtract it from a log-density in model units to get data units."""
        scale = np.atleast_1d(np.asarray(self.scale, np.float64))
        return float(np.log(scale).sum()) * (self.dims / len(scale))

    def to_model(self, v: Any) -> Any:
        """Data units to model units; NumPy array or tensor (n, *shape) in, floats out."""
        location, scale = self._affine(v)
        return (v - location) / scale

    def to_data(self, x: Any) -> Any:
        """Model units to data units, not rounded."""
        location, scale = self._affine(x)
        return x * scale + location

    def _affine(self, like: Any) -> tuple[Any, Any]:
        if isinstance(self.scale, (int, float)):
            return self.location, self.scale
        if isinstance(like, np.ndarray):
            dtype = np.float64 if like.dtype == np.float64 else np.float32
            return np.asarray(self.location, dtype), np.asarray(self.scale, dtype)
        return tuple(_on_device(v, like.dtype, like.device) for v in (self.location, self.scale))


class Images(Example, frozen=True):
    """Images (C, H, W), of integers 0 … levels−1 unless ``levels`` is ``None``.

    Attributes:
        value_range: of real-valued images, the numbers that become −1 and 1; these by default.
        ids: of a map of classes (one channel per class), the number each channel has in the file.
        frames: images are frames of clips, and most have a neighbour in time.
    """

    shape: tuple[int, ...]
    levels: int | None = LEVELS
    value_range: tuple[float, float] | None = None
    ids: tuple[int, ...] = ()
    frames: bool = False

    kind: ClassVar[Kind] = "image"
    words: ClassVar[str] = "images"

    @property
    def location(self) -> float:  # type: ignore[override]
        return sum(self._ends) / 2

    @property
    def scale(self) -> float:  # type: ignore[override]
        return (self._ends[1] - self._ends[0]) / 2 or 1.0

    @property
    def _ends(self) -> tuple[float, float]:
        return (0.0, self.levels - 1.0) if self.levels else self.value_range or (-1.0, 1.0)


class Recordings(Images, frozen=True, kw_only=True):
    """Windows of recordings as grey images (1, H, W) of 8 bits, of the spectra in ``sound``."""

    sound: Sound


@lru_cache(maxsize=16)
def _on_device(values: Units, dtype: Any, device: Any) -> Any:
    """Copied once: every step takes the units of its examples, and a copy waits for a GPU."""
    import torch

    from latlas.core.devices import moved

    with torch.inference_mode(False):
        return moved(torch.tensor(values, dtype=dtype), device)


def _wide(tensor: Any) -> Any:
    return tensor if tensor.device.type == "mps" else tensor.double()  # which has no float64


#: a gap among the words of a category; the words of a category that are too rare for their own
ABSENT, OTHER = "(missing)", "(other)"
#: days of the periods of a date
PERIODS = {"year": 365.2425, "week": 7.0, "day": 1.0}
ColumnKind = Literal["real", "integer", "boolean", "category", "date", "text", "id", "label",
                     "group", "dropped"]


class Column(Record, frozen=True):
    """A column of a table, as it was understood at training.

    Attributes:
        name, kind: text, ids, labels, groups and dropped columns are not learnt.
        dtype: polars' name of the type that values are written in.
        form: of text, how a date is written (strftime), or the mark before decimals of numbers
            that are not plain.
        categories: the words of a category.
        gaps: some value was missing in training; then one number says so.
        fill: what stands in the place of a gap: the median, or the most frequent word.
        decimals: of numbers in text files, how many at most; written values are rounded to them.
        offset: of whole numbers beyond 2^53, what was subtracted.
        parts: of a date, the periods whose sine and cosine stand beside it.
        likelihood: of numbers that are no measurements: ``bernoulli`` of 0 and 1, ``count`` or
            ``ordinal``; empty for what the kind says.
    """

    name: str
    kind: ColumnKind
    dtype: str
    form: str = ""
    categories: tuple[str, ...] = ()
    gaps: bool = False
    fill: float | int | str | bool | None = None
    decimals: int | None = None
    offset: int = 0
    parts: tuple[str, ...] = ()
    likelihood: Literal["", "bernoulli", "count", "ordinal"] = ""

    @property
    def law(self) -> str:
        """The likelihood of its values: ``gaussian``, ``bernoulli``, ``categorical``, ``count`` or
        ``ordinal``."""
        return self.likelihood or {"boolean": "bernoulli", "category": "categorical"}.get(
            self.kind, "gaussian")

    @property
    def learnt(self) -> bool:
        return self.kind in ("real", "integer", "boolean", "category", "date")

    @property
    def levels(self) -> tuple[str, ...]:
        """The words of a category, a gap among them."""
        return (*self.categories, ABSENT) if self.gaps else self.categories

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the numbers that stand for a value."""
        if self.kind == "category":
            return tuple(f"{self.name}={level}" for level in self.levels)
        parts = [f"{self.name} ({wave} of {part})" for part in self.parts for wave in (
            "sin", "cos")]
        return (self.name, *parts, *([f"{self.name} {ABSENT}"] if self.gaps else []))


class Table(Example, frozen=True):
    """Rows (d,) of a table: the numbers that stand for its columns.

    Attributes:
        fields: the table's columns, learnt or not, in the file's order.
        location, scale: one for each of the d numbers.
    """

    fields: tuple[Column, ...]
    location: Units = 0.0
    scale: Units = 1.0

    kind: ClassVar[Kind] = "table"
    words: ClassVar[str] = "a table"

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (len(self.columns),)

    @classmethod
    def of_numbers(cls, names: int | Sequence[str], location: Units = 0.0, scale: Units = 1.0, *,
                   dtype: str = "Float32", classes: tuple[str, ...] = ()) -> Table:
        """A table whose columns are all real numbers, called so or x0, x1, …."""
        names = [f"x{i}" for i in range(names)] if isinstance(names, int) else names
        return cls(fields=tuple(Column(name, "real", dtype) for name in names), location=location,
                   scale=scale, classes=classes)

    def to_model(self, v: Any) -> Any:
        """Data units to model units, float32; subtracted in float64, since a column's numbers may
        differ in places that float32 has not."""
        if isinstance(v, np.ndarray):
            return super().to_model(v.astype(np.float64)).astype(np.float32)
        return super().to_model(_wide(v)).float()

    def to_data(self, x: Any) -> Any:
        """Model units to data units, float64, not rounded."""
        return super().to_data(x.astype(np.float64) if isinstance(x, np.ndarray) else _wide(x))

    @property
    def fitted(self) -> bool:
        """What stands in the place of gaps was decided, on training rows."""
        return all(field.fill is not None for field in self.fields if field.learnt)

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the d numbers."""
        return tuple(feature for field in self.fields if field.learnt for feature in field.features)


class Points(Example, frozen=True):
    """Points (d,), whose ``scale`` is the same everywhere."""

    shape: tuple[int, ...]
    location: Units = 0.0
    scale: Units = 1.0

    kind: ClassVar[Kind] = "points"
    words: ClassVar[str] = "points"


Space = Images | Recordings | Table | Points


class PairSpace(Record, frozen=True, tag_field="type", tag="pair"):
    """The spaces of two sides; ``aligned`` if their examples belong together."""

    a: Space
    b: Space
    aligned: bool = True

    def swapped(self) -> PairSpace:
        """B first."""
        return PairSpace(self.b, self.a, self.aligned)


def parse_space(data: Any) -> Space | PairSpace:
    """The inverse of ``to_json``; ValueError, in one line, for a field that does not fit."""
    return msgspec.convert(data, Space | PairSpace)
