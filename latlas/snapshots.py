"""Snapshots of samples while a model learns: grids of the same draws, how far they spread, which
modes they reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latlas.core.model import Model, Translates
from latlas.core.noise import derive
from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.metrics.modes import Balls, class_shares, mean_distance, modes_covered
from latlas.render import imaging
from latlas.verbs.common import Array
from latlas.verbs.decoding import drawn_examples
from latlas.verbs.passes import conditions_like, examples_of, some_of
from latlas.verbs.sample_quality import Cache, feature_extractor, learning_seconds, learnt_from
from latlas.verbs.translating import sheet
from latlas.verbs.write import write_bytes

#: images of a grid; points and rows of a table looked at; images of each class
GRID, POINTS, OF_CLASS = 64, 1000, 10
#: examples of a sheet of translations
SHEET = 16
#: seconds that a grid is shown in the history
SECONDS = 0.3
#: share of the time so far, and seconds, that learning to tell classes may take; seconds before
#: which it is not thought of, and scalars of an image above which it takes too long
SHARE, MOST, LEAST, LARGEST = 0.02, 20.0, 30.0, 3 * 64 * 64
#: images to learn it from
FEWEST = 100


class SampleMonitor:
    """The same draws in every snapshot; handed to ``latlas.engine.callbacks.SampleSnapshots``.

    Args:
        folder: where grids go, ``IMAGES.png`` each and ``history.gif`` of all; ``None`` for none.
        train: examples that the samples are held against.
        seed: decides the draws, which are no part of training's.
        cache: keeps what tells the classes of images, for an evaluation too.
    """

    def __init__(self, folder: Path | None, train: Dataset, seed: int = 0,
                 cache: Path | None = None) -> None:
        self.folder = folder if train.space.kind == "image" else None
        self.train, self.seed = train, derive(seed, "watch")
        self.tell = _teller(train, Cache(cache))
        self.n = POINTS if train.space.kind != "image" else GRID
        if isinstance(self.tell, _Classes):
            self.n = min(POINTS, max(GRID, OF_CLASS * len(train.space.classes)))
        self.real = self._spread(examples_of(some_of(train, self.n)))

    def take(self, model: Model, images: int) -> dict[str, float]:
        """``samples/spread``, mean distance of two samples over that of two real examples; of
        labelled examples ``samples/modes``, for points ``samples/within`` too."""
        conditions = conditions_like(model, self.train, self.n, self.seed)
        items = drawn_examples(model, self.n, seed=self.seed, condition=conditions, latents="own")
        if self.folder is not None:
            grid = imaging.grid(items[:GRID], self.train.space.levels)
            write_bytes(self.folder / f"{images:010d}.png", imaging.png(grid))
        if not self.real or not np.isfinite(items).all():
            return {}
        return {"samples/spread": self._spread(items) / self.real,
                **self.tell(items, str(model.device))}

    def finish(self) -> None:
        """The grids one after the other."""
        film(self.folder)

    def _spread(self, items: Array) -> float:
        """Mean distance of two examples, model units."""
        x = np.asarray(self.train.space.to_model(items.astype(np.float32)), np.float32)
        return mean_distance(x.reshape(len(x), -1)) if len(x) > 1 else 0.0


class TranslationSheets:
    """The same examples translated at every look, to every domain that the model reaches.

    Args:
        folder: where sheets go, ``IMAGES.png`` each and ``history.gif`` of all.
        data: examples of both sides.
    """

    def __init__(self, folder: Path, data: PairDataset) -> None:
        self.folder, self.data = folder, data

    def take(self, model: Model, images: int) -> dict[str, float]:
        """Rows of input, output and, of pairs, what was wanted."""
        assert isinstance(model, Translates)
        ways = model.ways
        some = slice(0, SHEET // len(ways))
        sides = {"A": self.data.swapped(), "B": self.data}
        rows = [sheet(model, sides[domain].subset(some), to=domain) for domain in ways]
        grid = imaging.grid(np.concatenate([r.reshape(-1, *r.shape[2:]) for r in rows]), 256,
                             columns=4 * rows[0].shape[1])
        write_bytes(self.folder / f"{images:010d}.png", imaging.png(grid))
        return {}

    def finish(self) -> None:
        """The sheets one after the other."""
        film(self.folder)


def film(folder: Path | None) -> None:
    """``history.gif`` of the images in a folder, in the order of their names."""
    files = [] if folder is None else sorted(folder.glob("*.png"))
    if folder is None or not files:
        return
    frames = np.stack([np.moveaxis(np.asarray(Image.open(f).convert("RGB")), -1, 0)
                       for f in files])
    write_bytes(folder / "history.gif", imaging.gif(frames, seconds=SECONDS, bounce=False))


class _Classes:
    """Classes of labelled images that samples have, by the classifier that ``evaluate`` uses.

    It learns at the first look at which that costs little, so no more than a share of the time;
    nothing is told before.
    """

    def __init__(self, train: Dataset, shares: Array, cache: Cache) -> None:
        self.train, self.shares, self.cache = train, shares, cache
        self.begun = time.monotonic()
        self.cost: float | None = None
        self.classifier: Any = None

    def __call__(self, items: Array, device: str) -> dict[str, float]:
        if self.classifier is None and self._cheap(device):
            self.classifier = feature_extractor("classifier", self.train, device=device,
                                                cache=self.cache)
        if self.classifier is None:
            return {}
        return {"samples/modes": float(modes_covered(self.classifier.predict(items), self.shares))}

    def _cheap(self, device: str) -> bool:
        elapsed = time.monotonic() - self.begun
        if elapsed < LEAST:
            return False
        if self.cost is None:
            self.cost = learning_seconds(self.train, device=device)
        return self.cost <= min(MOST, SHARE * elapsed)


def _teller(train: Dataset, cache: Cache) -> Callable[[Array, str], dict[str, float]]:
    """How many classes samples reach, as terms, where the data have two or more."""
    space, label = train.space, _label(train)
    if _several(label) and space.kind == "points":
        return partial(_reached, Balls.fit(examples_of(train), label), class_shares(label))
    if (_several(label) and space.kind == "image" and space.dims <= LARGEST
            and len(train) >= FEWEST and _several(_label(learnt_from(train)))):
        return _Classes(train, class_shares(label), cache)
    return lambda items, device: {}


def _reached(balls: Balls, shares: Array, items: Array, device: str) -> dict[str, float]:
    mode, inside = balls.tell(items)
    return {"samples/modes": float(modes_covered(mode[inside], shares)),
            "samples/within": float(inside.mean())}


def _several(label: Any) -> bool:
    return label is not None and len(np.unique(label[label >= 0])) > 1


def _label(data: Dataset) -> Any:
    return data.take("label")
