"""Looks at samples while a model learns: grids of the same draws, how far they spread, which modes
they reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latlas.core.model import Model
from latlas.core.noise import derive
from latlas.data.dataset import Dataset
from latlas.metrics.modes import Balls, class_shares, mean_distance, modes_covered
from latlas.report import pictures
from latlas.tasks.common import Array, conditions_like
from latlas.tasks.generate import sample
from latlas.tasks.output import write_bytes

#: pictures of a grid; points and rows of a table looked at
GRID, POINTS = 64, 1000
#: seconds that a grid is shown in the history
SECONDS = 0.3


class Watcher:
    """The same draws at every look; ``latlas.engine.watch.Looks``.

    Args:
        folder: where grids go, ``IMAGES.png`` each and ``history.gif`` of all; ``None`` for none.
        train: items that the samples are held against.
        seed: decides the draws, which are no part of training's.
    """

    def __init__(self, folder: Path | None, train: Dataset, seed: int = 0) -> None:
        self.folder = folder if train.space.kind == "picture" else None
        self.train, self.seed = train, derive(seed, "watch")
        self.n = GRID if train.space.kind == "picture" else POINTS
        at = np.linspace(0, len(train) - 1, min(self.n, len(train))).astype(np.int64)
        self.real = self._spread(_x(train.subset(at)))
        self.modes = _modes(train)

    def look(self, model: Model, images: int) -> dict[str, float]:
        """``samples/spread``, mean distance of two samples over that of two real items; of points
        with labels ``samples/modes`` and ``samples/within`` too."""
        given = conditions_like(model, self.train, self.n, self.seed)
        items = sample(model, self.n, seed=self.seed, condition=given, prior="own")
        if self.folder is not None:
            grid = pictures.grid(items, self.train.space.levels)
            write_bytes(self.folder / f"{images:010d}.png", pictures.png(grid))
        if not self.real or not np.isfinite(items).all():
            return {}
        return {"samples/spread": self._spread(items) / self.real, **self._reached(items)}

    def end(self) -> None:
        """The grids one after the other."""
        files = [] if self.folder is None else sorted(self.folder.glob("*.png"))
        if self.folder is None or not files:
            return
        frames = np.stack([np.moveaxis(np.asarray(Image.open(f).convert("RGB")), -1, 0)
                           for f in files])
        write_bytes(self.folder / "history.gif",
                    pictures.gif(frames, seconds=SECONDS, bounce=False))

    def _spread(self, items: Array) -> float:
        """Mean distance of two items, model units."""
        x = np.asarray(self.train.space.to_model(items.astype(np.float32)), np.float32)
        return mean_distance(x.reshape(len(x), -1)) if len(x) > 1 else 0.0

    def _reached(self, items: Array) -> dict[str, float]:
        if self.modes is None:
            return {}
        balls, shares = self.modes
        mode, inside = balls.tell(items)
        return {"samples/modes": float(modes_covered(mode[inside], shares)),
                "samples/within": float(inside.mean())}


def _modes(train: Dataset) -> tuple[Balls, Array] | None:
    """Of points that are labelled by two classes or more."""
    label: Any = train.take("label")
    if train.space.kind != "points" or label is None or len(np.unique(label[label >= 0])) < 2:
        return None
    return Balls.fit(_x(train), label), class_shares(label)


def _x(data: Dataset) -> Array:
    items: Any = data.take("x")
    return np.asarray(items)
