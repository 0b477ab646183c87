"""What one item of a data set is: its shape, its units, its labels.

Two units are used everywhere. *Data units* are the numbers in the file: integers 0 … L−1 for a
picture with L levels, the columns' own units for a table. *Model units* are what networks see:
pictures in [−1, 1] with channels first, table columns standardised. One affine map joins them:

    x = (v − location) / scale

so a density in model units becomes one in data units by subtracting Σ log scale, which is how
every log-likelihood is reported: nats per item in data units.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["picture", "table", "points"]
#: of a picture of 8 bits
LEVELS = 256


@dataclass(frozen=True)
class Sound:
    """How a picture shows a stretch of sound: short-time spectra, a column for every frame.

    Attributes:
        rate: samples a second.
        n_fft: samples of a frame.
        hop: samples from one frame to the next.
        floor: decibels under the loudest place that are still told apart.
    """

    rate: int
    n_fft: int
    hop: int
    floor: float

    def __str__(self) -> str:
        return (f"{self.rate:,} Hz, frames of {self.n_fft} samples every {self.hop}, "
                f"{self.floor:g} dB")


@dataclass(frozen=True)
class Space:
    """Shape and units of one item.

    Attributes:
        kind: ``picture`` (C, H, W), ``table`` (d,) with named columns, or ``points`` (d,).
        shape: shape of one item.
        levels: number of integer levels of a picture (256 for 8 bit), ``None`` if continuous.
        location, scale: the affine map to model units; one number each, or one per column.
        classes: names of the label's classes, in order of their integer codes; empty if none.
        columns: names of a table's columns; empty otherwise.
        factors: names of known generative factors; empty if none.
        categories: names of a table's columns of words, which ``columns`` holds as one column of
            0 and 1 per word, ``NAME=WORD``.
        ids: of a map of classes (one channel per class), the number each channel has in the file.
        frames: pictures are frames of clips, and most have a neighbour in time.
        target: space of the other side, where an item or a data set has two (a pair, a domain).
        sound: of pictures of sound, what they show.
    """

    kind: Kind
    shape: tuple[int, ...]
    levels: int | None = None
    location: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    frames: bool = False
    target: Space | None = None
    sound: Sound | None = None

    @classmethod
    def picture(cls, shape: tuple[int, int, int], levels: int = LEVELS, **more: Any) -> Space:
        """Pictures of integers 0 … levels−1, shape (C, H, W)."""
        half = (levels - 1) / 2
        return cls("picture", tuple(shape), levels, half, half, **more)

    @property
    def words(self) -> str:
        """What the data are, for a sentence: ``pictures``, ``a table``, ``points``."""
        return {"picture": "pictures", "table": "a table"}.get(self.kind, self.kind)

    @property
    def dims(self) -> int:
        """Number of scalars in one item."""
        return math.prod(self.shape)

    @property
    def step(self) -> float:
        """Width of one integer level in model units; 0 for continuous data."""
        return 0.0 if self.levels is None else 2.0 / (self.levels - 1)

    @property
    def log_volume(self) -> float:
        """Σ log scale: subtract it from a log-density in model units to get data units."""
        scale = np.broadcast_to(np.asarray(self.scale, np.float64), (self._width(),))
        return float(np.log(scale).sum()) * (self.dims / self._width())

    def _width(self) -> int:
        return 1 if isinstance(self.scale, (int, float)) else len(self.scale)

    def flipped(self) -> Space:
        """The other side first; a space of one side is that of either."""
        if self.target is None:
            return self
        return dataclasses.replace(self.target, target=dataclasses.replace(self, target=None))

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
            return np.asarray(self.location, np.float32), np.asarray(self.scale, np.float32)
        return like.new_tensor(self.location), like.new_tensor(self.scale)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back.

        What only two sides, frames or sounds have is left out elsewhere: the space of other data is
        written as it was before there were any.
        """
        found = dataclasses.asdict(self)
        return {k: v for k, v in found.items()
                if v or k not in ("ids", "frames", "target", "sound")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        """The inverse of :meth:`to_json`."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v
                                  for k, v in data.items()}
        if fields.get("target") is not None:
            fields["target"] = cls.from_json(fields["target"])
        if fields.get("sound") is not None:
            fields["sound"] = Sound(**fields["sound"])
        return cls(**fields)
