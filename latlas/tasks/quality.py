"""How good are samples? Every figure beside real items the features do not know, and copies."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.core.errors import DataError
from latlas.core.model import Model
from latlas.core.noise import derive
from latlas.data.dataset import Dataset
from latlas.metrics.arrays import Index
from latlas.metrics.features import (
    Classifier,
    Extractor,
    Network,
    classifier_steps,
    resolved,
    restored_classifier,
    train_classifier,
)
from latlas.metrics.features import features as extractor
from latlas.metrics.modes import Balls, Mask
from latlas.metrics.quality import Row, Seen, control_split, judge
from latlas.tasks.cache import Cache, digest_of, key_of
from latlas.tasks.common import Array, conditions_like, items_of
from latlas.tasks.figures import Figure
from latlas.tasks.generate import sample
from latlas.tasks.latent_space import has_latent_space

#: bytes of training data that quality figures look at, at most
TRAIN_BYTES = 400_000_000
#: items the feature classifier is trained on, at most
CLASSIFIER_ITEMS = 10_000
#: steps that are timed to know how long it will learn
TRIED = 4


def figures(model: Model, train: Dataset, test: Dataset, source: Any, samples: int, seed: int,
            prior: str, notes: list[str], cache: Cache) -> Iterator[Figure]:
    """Every figure of samples from ``prior``, each with its held-out control and a memoriser's."""
    n = min(samples, len(test), len(train) // 2)
    given = conditions_like(model, test, n, seed)
    made = sample(model, n, seed=derive(seed, "evaluate"), prior=prior, condition=given)
    yield from figures_of(made, _asked(given), train, test, source, seed, str(model.device), notes,
                          cache, by_prior=has_latent_space(model))


def figures_of(made: Array, asked: Index | None, train: Dataset, test: Dataset, source: Any,
               seed: int, device: str, notes: list[str], cache: Cache, *,
               by_prior: bool = False) -> Iterator[Figure]:
    """Every figure of items ``made`` in whatever way, among real ones.

    Args:
        asked: the class that each was asked to be, if any.
        by_prior: they stand for all that a latent space decodes to.
    """
    seen = capped(train)
    if len(seen) < len(train):
        notes.append(f"Sample quality and memorisation looked at {len(seen):,} of {len(train):,} "
                     "training items.")
    try:
        rows = _rows(made, asked, seen, test, source, seed, device, cache)
    except DataError as error:
        notes.append(f"No figures of sample quality: {error}.")
        return
    yield from _figures(rows, by_prior)
    if rows["samples"]["copying_z"] < -3:
        notes.append("The memorisation test finds copying: samples are nearer to training items "
                     "than fresh real items are.")


def _figures(rows: dict[str, Row], made_by_prior: bool) -> Iterator[Figure]:
    for key, value in rows["samples"].items():
        if key == "completeness" and not made_by_prior:
            continue
        fixed = key == "items"
        yield Figure(key, value, control=None if fixed else rows["held-out"].get(key),
                     control_name="" if fixed else "held-out data",
                     memoriser=None if fixed else rows["memoriser"].get(key))


def _rows(made: Array, asked: Index | None, train: Dataset, test: Dataset, source: Any, seed: int,
          device: str, cache: Cache) -> dict[str, Row]:
    look = _look(source, train, seed, device, cache)
    known = [look.of(train), look.of(test), look.extract(made)]
    tell = _teller(train, known[0], look.extract)
    items = [items_of(train), items_of(test), made]
    labels = [_label(train), _label(test), asked]
    modes = [(None, None) if tell is None else tell(x, f)
             for f, x in zip(known, items, strict=True)]
    seen = [Seen(f, mode, inside, label)
            for f, (mode, inside), label in zip(known, modes, labels, strict=True)]
    return judge(seen[2], seen[0], seen[1], control=control_split(len(train), seed)[1], seed=seed)


@dataclass(frozen=True)
class _Look:
    """An extractor that remembers the features of data sets; ``key`` is empty if it has no name."""

    extract: Extractor
    cache: Cache
    key: str = ""

    def of(self, data: Dataset) -> Array:
        """(n, d) features of its items."""
        if not self.key:
            return self.extract(items_of(data))
        found = self.cache.recall("features", key_of(self.key, digest_of(data)), lambda: {
            "features": torch.from_numpy(np.ascontiguousarray(self.extract(items_of(data))))})
        return np.asarray(found["features"].numpy())


def _look(source: Any, train: Dataset, seed: int, device: str, cache: Cache) -> _Look:
    if callable(source) and not isinstance(source, torch.nn.Module):
        return _Look(source, cache)
    extract = feature_extractor(source, train, seed, device, cache)
    # other extractors are quicker than a disk, and a module's code has no digest
    named = (cache.folder is not None and isinstance(extract, Network)
             and not isinstance(source, torch.nn.Module))
    return _Look(extract, cache, _key(source, train, seed, device) if named else "")


def feature_extractor(source: Any, train: Dataset, seed: int = 0, device: str = "cpu",
                      cache: Cache | None = None) -> Extractor:
    """Items to features. A classifier learns from the half of the training data that is no
    control, so that the control is as new to it as the samples are; with a ``cache`` it learns
    once."""
    seen, known = capped(train), learnt_from(train, seed)

    def make() -> Extractor:
        return extractor(source, train.space, known.take("x"), known.take("label"), seed=seed,
                         device=device)

    if cache is None or cache.folder is None or _name(source, seen) != "classifier":
        return make()
    def learn() -> dict[str, Tensor]:
        made: Any = make()
        return dict(made.weights())

    weights = cache.recall("classifier", _key(source, seen, seed, device), learn)
    return restored_classifier(train.space, weights, device)


def learnt_from(train: Dataset, seed: int = 0) -> Dataset:
    """The training items that a classifier behind features learns from."""
    seen = capped(train)
    return seen.subset(control_split(len(seen), seed)[0][:CLASSIFIER_ITEMS])


def learning_seconds(train: Dataset, seed: int = 0, device: str = "cpu") -> float:
    """How long a classifier would learn here, by a few of its steps."""
    known, seconds = learnt_from(train, seed), 0.0
    x, label = items_of(known), _label(known)  # gathered once, however many steps there are
    for steps in (1, TRIED):  # the first is slower than those to come
        begun = time.perf_counter()
        train_classifier(train.space, x, label, seed=seed, device=device, steps=steps)
        seconds = time.perf_counter() - begun
    return seconds / TRIED * classifier_steps(len(known))


def _key(source: Any, train: Dataset, seed: int, device: str) -> str:
    """Digest of all that decides the features of an item."""
    name = _name(source, train)
    file = Path(name)
    content = hashlib.blake2b(file.read_bytes()).hexdigest() if file.is_file() else ""
    return key_of(name, content, seed, digest_of(train), torch.__version__,
                  torch.device(device).type)


def _name(source: Any, train: Dataset) -> str:
    return "" if isinstance(source, torch.nn.Module) else str(
        resolved(source, train.space, train.take("label")))


def _teller(train: Dataset, features: Array, extract: Extractor) -> Callable[
        [Array, Array], tuple[Index, Mask | None]] | None:
    """What tells the mode of items by them and their features: the classes' balls where the items
    are points, the classifier behind the features, or the nearest class mean of the features."""
    label = _label(train)
    if label is None or len(np.unique(label[label >= 0])) < 2:
        return None
    if train.space.kind == "points":
        balls = Balls.fit(items_of(train), label)
        return lambda x, f: balls.tell(x)
    if isinstance(extract, Classifier):
        return lambda x, f: (extract.classify(f), None)
    means = Balls.fit(features, label)
    return lambda x, f: (means.tell(f)[0], None)


def _asked(condition: Tensor | None) -> Index | None:
    """The class codes that samples were asked for; ``None`` for any other condition."""
    if condition is None or condition.dim() != 1 or condition.is_floating_point():
        return None
    return np.asarray(condition.cpu().numpy(), np.int64)


def capped(train: Dataset) -> Dataset:
    """A random part of a training set too large to hold as features and floats."""
    most = max(1_000, TRAIN_BYTES // (train.space.dims * train.x.itemsize))
    if len(train) <= most:
        return train
    return train.subset(np.sort(np.random.default_rng(0).permutation(len(train))[:most]))


def _label(data: Dataset) -> Index | None:
    label: Any = data.take("label")
    return label
