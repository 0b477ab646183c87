"""Snapshots of samples while a model learns: grids of the same draws, how far they spread, which
modes they reach."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latlas.core.model import Model, Translates
from latlas.core.noise import derive
from latlas.data.dataset import Dataset
from latlas.data.pairs import Data, PairDataset
from latlas.engine.callbacks import SNAPSHOTS
from latlas.engine.progress import Log
from latlas.engine.trainer import Callback, Trainer
from latlas.metrics.quality import Balls, class_shares, mean_distance, modes_covered
from latlas.render import imaging
from latlas.verbs.common import Array
from latlas.verbs.passes import drawn_examples, evenly_spaced, examples_of, sample_conditions
from latlas.verbs.sample_quality import Cache, feature_extractor, learning_seconds, learnt_from
from latlas.verbs.translating import sheet
from latlas.verbs.write import write_bytes

#: images of a grid; points and rows of a table looked at; images of each class; examples of a sheet
GRID, POINTS, OF_CLASS, SHEET = 64, 1000, 10, 16
#: share of the time so far, and seconds, that learning to tell classes may take; seconds before
#: which it is not thought of, scalars of an image above which it takes too long, and the fewest
#: images to learn from
SHARE, MOST, LEAST, LARGEST, FEWEST = 0.02, 20.0, 30.0, 3 * 64 * 64, 100


class Snapshots(Callback):
    """Looks at the averaged model's samples now and then, first before the first step.

    A look depends on none before it and leaves torch's own generators and the averaged weights as
    they are: training is the same with and without.

    Args:
        folder: where images go, ``IMAGES.png`` each and ``history.gif`` of all; ``None`` for none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def take(self, model: Model, images: int) -> dict[str, float]:
        """One look; terms for the log."""
        raise NotImplementedError

    def after_step(self, trainer: Trainer, log: Log) -> bool:
        if trainer.due(trainer.options.sample_snapshots or SNAPSHOTS) or trainer.finished:
            terms = self.take(trainer.ema.current(), trainer.images)
            if terms:
                log.write(trainer.images, terms)
        return False

    def finish(self, model: Model) -> dict[str, Any]:
        files = [] if self.folder is None else sorted(self.folder.glob("*.png"))
        if self.folder is not None and files:
            frames = np.stack([np.moveaxis(np.asarray(Image.open(f).convert("RGB")), -1, 0)
                               for f in files])
            write_bytes(self.folder / "history.gif",
                        imaging.gif(frames, seconds=0.3, bounce=False))
        return {}


class SampleMonitor(Snapshots):
    """The same draws in every snapshot.

    Args:
        train: examples that the samples are compared with.
        seed: decides the draws, which are no part of training's.
        cache: keeps what tells the classes of images, for an evaluation too.
    """

    def __init__(self, folder: Path | None, train: Dataset, seed: int = 0,
                 cache: Path | None = None) -> None:
        image = train.space.kind == "image"
        label: Any = train.take("label")
        super().__init__(folder if image else None)
        self.train, self.seed, self.cache = train, derive(seed, "watch"), Cache(cache)
        self.start, self.cost = time.monotonic(), 0.0
        self.classifier: Any = None
        self.balls = Balls.fit(examples_of(train), label) if (
            train.space.kind == "points" and _several(label)) else None
        self.learns = (image and _several(label) and train.space.dims <= LARGEST
                       and len(train) >= FEWEST and _several(learnt_from(train).take("label")))
        self.shares = class_shares(label) if self.balls or self.learns else np.zeros(0)
        self.n = GRID if image else POINTS
        if self.learns:
            self.n = min(POINTS, max(GRID, OF_CLASS * len(train.space.classes)))
        self.real = self._spread(examples_of(evenly_spaced(train, self.n)))

    def take(self, model: Model, images: int) -> dict[str, float]:
        """``samples/spread``, mean distance of two samples over that of two real examples; of
        labelled examples ``samples/modes``, for points ``samples/within`` too."""
        conditions = sample_conditions(model, self.train, self.n, self.seed)
        x = drawn_examples(model, self.n, seed=self.seed, condition=conditions, latents="own")
        if self.folder is not None:
            grid = imaging.grid(x[:GRID], self.train.space.levels)
            write_bytes(self.folder / f"{images:010d}.png", imaging.png(grid))
        if not self.real or not np.isfinite(x).all():
            return {}
        terms = {"samples/spread": self._spread(x) / self.real}
        if self.balls:
            mode, inside = self.balls.tell(x)
            terms |= {"samples/modes": float(modes_covered(mode[inside], self.shares)),
                      "samples/within": float(inside.mean())}
        device = str(model.device)
        if self.learns and self.classifier is None and self.is_cheap(device):
            self.classifier = feature_extractor("classifier", self.train, device=device,
                                                cache=self.cache)
        if self.classifier is not None:
            terms["samples/modes"] = float(modes_covered(self.classifier.predict(x), self.shares))
        return terms

    def is_cheap(self, device: str) -> bool:
        """Whether learning to tell classes takes no more than a share of the time so far."""
        elapsed = time.monotonic() - self.start
        if elapsed < LEAST:
            return False
        self.cost = self.cost or learning_seconds(self.train, device=device)
        return self.cost <= min(MOST, SHARE * elapsed)

    def _spread(self, examples: Array) -> float:
        """Mean distance of two examples, model units."""
        x = np.asarray(self.train.space.to_model(examples.astype(np.float32)), np.float32)
        return mean_distance(x.reshape(len(x), -1)) if len(x) > 1 else 0.0


class TranslationSheets(Snapshots):
    """The same examples of both sides translated at every look, to every domain that the model
    reaches: rows of input, output and, of pairs, the target."""

    def __init__(self, folder: Path | None, data: Data) -> None:
        assert isinstance(data, PairDataset)
        super().__init__(folder)
        self.data = data

    def take(self, model: Model, images: int) -> dict[str, float]:
        assert isinstance(model, Translates)
        if self.folder is None:
            return {}
        some = slice(0, SHEET // len(model.ways))
        sides = {"A": self.data.swapped(), "B": self.data}
        rows = [sheet(model, sides[domain].subset(some), to=domain) for domain in model.ways]
        grid = imaging.grid(np.concatenate([r.reshape(-1, *r.shape[2:]) for r in rows]), 256,
                             columns=4 * rows[0].shape[1])
        write_bytes(self.folder / f"{images:010d}.png", imaging.png(grid))
        return {}


def _several(label: Any) -> bool:
    """There are two or more classes."""
    return label is not None and len(np.unique(label[label >= 0])) > 1
