"""How good are samples? Every metric beside real examples that the features do not know, and
copies of training examples; and a cache of what is known of the real ones."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.core.errors import DataError, RunError
from latlas.core.model import Model
from latlas.core.noise import derive
from latlas.core.trees import load_tree, save_tree
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
from latlas.metrics.table import Metric
from latlas.verbs.common import Array
from latlas.verbs.latent_space import has_latent_space
from latlas.verbs.passes import conditions_like, drawn_examples, examples_of

#: bytes of training data that sample quality looks at, at most
TRAIN_BYTES = 400_000_000
#: examples that the feature classifier is trained on, at most
CLASSIFIER_EXAMPLES = 10_000
#: steps that are timed to know how long it will learn
TRIED = 4
#: of the cache, raised by one whenever its content is computed differently; bytes read at once
VERSION, CHUNK = 1, 64_000_000


def sample_metrics(model: Model, train: Dataset, test: Dataset, features: Any, samples: int,
                   seed: int, latents: str, notes: list[str], cache: Cache) -> Iterator[Metric]:
    """Every metric of samples (``latents`` own or fitted), each with its held-out control and that
    of training copies."""
    n = min(samples, len(test), len(train) // 2)
    condition = conditions_like(model, test, n, seed)
    values = drawn_examples(model, n, seed=derive(seed, "evaluate"), latents=latents,
                            condition=condition)
    yield from metrics_of(values, label_codes(condition), train, test, features, seed,
                          str(model.device), notes, cache, from_prior=has_latent_space(model))


def metrics_of(samples: Array, label: Index | None, train: Dataset, test: Dataset, features: Any,
               seed: int, device: str, notes: list[str], cache: Cache, *,
               from_prior: bool = False) -> Iterator[Metric]:
    """Every metric of ``samples`` drawn in whatever way, among real examples.

    Args:
        label: the class that each was drawn for, if any.
        from_prior: they stand for all that a latent space decodes to.
    """
    part = capped(train)
    if len(part) < len(train):
        notes.append(f"Sample quality and the data-copying test looked at {len(part):,} of "
                     f"{len(train):,} training examples.")
    try:
        rows = _rows(samples, label, part, test, features, seed, device, cache)
    except DataError as error:
        notes.append(f"No metrics of sample quality: {error}.")
        return
    for key, value in rows["samples"].items():
        if key == "examples":
            yield Metric(key, value)
        elif key != "completeness" or from_prior:
            yield Metric(key, value, control=rows["held-out"].get(key),
                         control_name="held-out data",
                         training_copies=rows["training copies"].get(key))
    if rows["samples"]["data_copying"] < -3:
        notes.append("The data-copying test finds copying: samples are nearer to training examples "
                     "than fresh real examples are.")


def label_codes(condition: Tensor | None) -> Index | None:
    """The class codes that samples were drawn for; ``None`` for any other condition."""
    if condition is None or condition.dim() != 1 or condition.is_floating_point():
        return None
    return np.asarray(condition.cpu().numpy(), np.int64)


def _rows(samples: Array, label: Index | None, train: Dataset, test: Dataset, source: Any,
          seed: int, device: str, cache: Cache) -> dict[str, Row]:
    """What :func:`latlas.metrics.quality.judge` says of the samples."""
    extract, key = source, ""
    if not callable(source) or isinstance(source, torch.nn.Module):
        extract = feature_extractor(source, train, seed, device, cache)
        # other extractors are quicker than a disk, and a module's code has no digest
        if isinstance(extract, Network) and not isinstance(source, torch.nn.Module):
            key = _feature_key(source, train, seed, device, cache)

    def features_of(data: Dataset) -> Array:
        if not key:
            return np.asarray(extract(examples_of(data)))
        tensors = cache.recall("features", key_of(key, digest_of(data)), lambda: {
            "features": torch.from_numpy(np.ascontiguousarray(extract(examples_of(data))))})
        return np.asarray(tensors["features"].numpy())

    features = [features_of(train), features_of(test), extract(samples)]
    assign = _mode_assigner(train, features[0], extract)
    sets = []
    for x, f, own in zip((examples_of(train), examples_of(test), samples), features,
                         (_label(train), _label(test), label), strict=True):
        mode, inside = (None, None) if assign is None else assign(x, f)
        sets.append(Seen(f, mode, inside, own))
    return judge(sets[2], sets[0], sets[1], control=control_split(len(train), seed)[1], seed=seed)


def _mode_assigner(train: Dataset, features: Array, extract: Extractor) -> Callable[
        [Array, Array], tuple[Index, Mask | None]] | None:
    """What tells the mode of examples by them and their features: the classes' balls where the
    examples are points, the classifier behind the features, or the nearest class mean of the
    features."""
    label = _label(train)
    if label is None or len(np.unique(label[label >= 0])) < 2:
        return None
    if train.space.kind == "points":
        balls = Balls.fit(examples_of(train), label)
        return lambda x, f: balls.tell(x)
    if isinstance(extract, Classifier):
        return lambda x, f: (extract.classify(f), None)
    means = Balls.fit(features, label)
    return lambda x, f: (means.tell(f)[0], None)


# ------------------------------------------------------------------------------ features

def feature_extractor(source: Any, train: Dataset, seed: int = 0, device: str = "cpu",
                      cache: Cache | None = None) -> Extractor:
    """Examples (n, *shape) to features (n, d).

    A classifier learns from the half of the training data that is no control, so that the control
    is as new to it as the samples are; with a ``cache`` it learns once.
    """
    examples = learnt_from(train, seed)

    def make() -> Any:
        return extractor(source, train.space, examples.take("x"), examples.take("label"),
                         seed=seed, device=device)

    part = capped(train)
    if cache is None or cache.folder is None or _name(source, part) != "classifier":
        return make()  # type: ignore[no-any-return]
    weights = cache.recall("classifier", _feature_key(source, part, seed, device, cache),
                           lambda: dict(make().weights()))
    return restored_classifier(train.space, weights, device)


def learnt_from(train: Dataset, seed: int = 0) -> Dataset:
    """The training examples that a classifier behind features learns from."""
    part = capped(train)
    return part.subset(control_split(len(part), seed)[0][:CLASSIFIER_EXAMPLES])


def learning_seconds(train: Dataset, seed: int = 0, device: str = "cpu") -> float:
    """How long a classifier would learn here, by a few of its steps."""
    examples, seconds = learnt_from(train, seed), 0.0
    x, label = examples_of(examples), _label(examples)  # gathered once for all steps
    for steps in (1, TRIED):  # the first is slower than those to come
        begun = time.perf_counter()
        train_classifier(train.space, x, label, seed=seed, device=device, steps=steps)
        seconds = time.perf_counter() - begun
    return seconds / TRIED * classifier_steps(len(examples))


def capped(train: Dataset) -> Dataset:
    """A random part of a training set too large to hold as features and floats."""
    most = max(1_000, TRAIN_BYTES // (train.space.dims * train.x.itemsize))
    if len(train) <= most:
        return train
    return train.subset(np.sort(np.random.default_rng(0).permutation(len(train))[:most]))


def _feature_key(source: Any, train: Dataset, seed: int, device: str, cache: Cache) -> str:
    """Digest of all that decides the features of an example; empty where nothing is kept."""
    if cache.folder is None:
        return ""
    file = Path(name := _name(source, train))
    content = hashlib.blake2b(file.read_bytes()).hexdigest() if file.is_file() else ""
    return key_of(name, content, seed, digest_of(train), torch.__version__,
                  torch.device(device).type)


def _name(source: Any, train: Dataset) -> str:
    return "" if isinstance(source, torch.nn.Module) else str(
        resolved(source, train.space, train.take("label")))


def _label(data: Dataset) -> Index | None:
    label: Any = data.take("label")
    return label


# ------------------------------------------------------------------------------ the cache

@dataclass(frozen=True)
class Cache:
    """A folder of tensors, each under the digest of all that it was computed from; without a
    folder nothing is kept.

    What was computed from other examples, another extractor or another seed has another name and
    is never read. A file is written by rename, and one that was cut off or altered does not have
    the digest that it carries: it is computed anew.
    """

    folder: Path | None = None

    def recall(self, kind: str, key: str,
               make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """What is kept of this ``kind`` under ``key``, else what ``make`` gives, kept from now on.

        A folder that cannot be written to is no error.
        """
        if self.folder is None:
            return make()
        file = self.folder / f"{kind}-{key}.safetensors"
        if file.is_file():
            with suppress(RunError):
                tensors, meta = load_tree(file)
                if meta.get("key") == key and meta.get("content") == _content(tensors):
                    return tensors
        fresh = make()
        with suppress(RunError, OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            save_tree(file, dict(fresh), {"key": key, "content": _content(fresh)})
        return fresh


def key_of(*parts: Any) -> str:
    """32 hexadecimal digits of anything that JSON can hold.

    >>> key_of("columns", 0) == key_of("columns", 0) != key_of("columns", 1)
    True
    """
    text = json.dumps([VERSION, *parts], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest_of(data: Dataset) -> str:
    """32 hexadecimal digits of the examples, their labels and their space, in order."""
    digest = hashlib.blake2b(json.dumps(data.space.to_json()).encode(), digest_size=16)
    size = max(1, CHUNK // max(1, data.space.dims * data.x.itemsize))
    for start in range(0, len(data), size):
        part = data.subset(slice(start, start + size))
        for name in ("x", "label"):
            if (values := part.take(name)) is not None:
                digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
                digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _content(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name].detach().cpu().numpy())
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.data)
    return digest.hexdigest()
