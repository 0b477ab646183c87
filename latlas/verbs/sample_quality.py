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
from latlas.core.files import load_tree, save_tree
from latlas.data.dataset import Dataset
from latlas.data.keys import digest_of, examples_digest
from latlas.metrics import features as networks
from latlas.metrics.arrays import Index
from latlas.metrics.quality import Balls, Mask, Seen, check_sizes, control_split, judge
from latlas.metrics.table import Metric
from latlas.verbs.common import Array
from latlas.verbs.passes import examples_of

#: bytes of training data that sample quality looks at, at most
TRAIN_BYTES = 400_000_000
#: examples that the feature classifier is trained on, at most
CLASSIFIER_EXAMPLES = 10_000
#: steps that are timed to know how long it will learn
TRIED = 4
#: of the cache, raised by one whenever its content is computed differently; bytes read at once
VERSION = 1


def metrics_of(samples: Array, label: Index | None, train: Dataset, test: Dataset, features: Any,
               seed: int, device: str, notes: list[str], cache: Cache, *,
               from_prior: bool = False) -> Iterator[Metric]:
    """Every metric of ``samples`` drawn in whatever way, among real examples.

    Args:
        label: the class that each was drawn for, if any.
        features: what they are judged on, or a function from examples to features.
        from_prior: they stand for all that a latent space decodes to.
    """
    part = capped(train)
    if len(part) < len(train):
        notes.append(f"Sample quality and the data-copying test looked at {len(part):,} of "
                     f"{len(train):,} training examples.")
    extract, key = features, ""
    try:
        control = control_split(len(part), seed)[1]
        check_sizes(len(samples), len(test), len(control))
        if not callable(features) or isinstance(features, torch.nn.Module):
            extract = feature_extractor(features, part, seed, device, cache)
        # other extractors are quicker than a disk, and a module's code has no digest
        if isinstance(extract, networks.Network) and not callable(features):
            key = _feature_key(features, part, seed, device, cache)

        def features_of(data: Dataset) -> Array:
            if not key:
                return np.asarray(extract(examples_of(data)))
            return cache.recall("features", key_of(key, examples_digest(data)), lambda: {
                "features": torch.from_numpy(np.ascontiguousarray(extract(examples_of(data))))})[
                "features"].numpy()

        views: Any = ((features_of(part), examples_of(part), part.take("label")),
                      (features_of(test), examples_of(test), test.take("label")),
                      (extract(samples), samples, label))
        mode_of = _mode_assigner(part, views[0][0], extract)
        real, fresh, drawn = (Seen(f, *mode_of(x, f), codes) for f, x, codes in views)
        rows = judge(drawn, real, fresh, control=control, seed=seed)
    except DataError as error:
        notes.append(f"No metrics of sample quality: {error}.")
        return
    for key, value in rows["samples"].items():
        beside: dict[str, Any] = {} if key == "examples" else {
            "control": rows["held-out"].get(key), "control_name": "held-out data",
            "training_copies": rows["training copies"].get(key)}
        if key != "completeness" or from_prior:
            yield Metric(key, value, **beside)
    if rows["samples"]["data_copying"] < -3:
        notes.append("The data-copying test finds copying: samples are nearer to training examples "
                     "than fresh real examples are.")


def _mode_assigner(train: Dataset, features: Array, extract: networks.Extractor) -> Callable[
        [Array, Array], tuple[Index | None, Mask | None]]:
    """What tells the mode of examples by them and their features, and whether they lie within it:
    the classes' balls where the examples are points, the classifier behind the features, or the
    nearest class mean of the features; of unlabelled data nothing."""
    label: Any = train.take("label")
    if label is None or len(np.unique(label[label >= 0])) < 2:
        return lambda x, f: (None, None)
    if train.space.kind == "points":
        balls = Balls.fit(examples_of(train), label)
        return lambda x, f: balls.tell(x)
    if isinstance(extract, networks.Classifier):
        return lambda x, f: (extract.classify(f), None)
    means = Balls.fit(features, label)
    return lambda x, f: (means.tell(f)[0], None)


# ------------------------------------------------------------------------------ features

def feature_extractor(source: Any, train: Dataset, seed: int = 0, device: str = "cpu",
                      cache: Cache | None = None) -> networks.Extractor:
    """Examples (n, *shape) to features (n, d).

    A classifier learns from the half of the training data that is no control, so that the control
    is as new to it as the samples are; with a ``cache`` it learns once.
    """
    examples, part = learnt_from(train, seed), capped(train)

    def fit() -> Any:
        return networks.features(source, train.space, examples.take("x"), examples.take("label"),
                                 seed=seed, device=device)

    if cache is None or cache.folder is None or _name(source, part) != "classifier":
        return fit()
    weights = cache.recall("classifier", _feature_key(source, part, seed, device, cache),
                           lambda: dict(fit().weights()))
    return networks.restored_classifier(train.space, weights, device)


def learnt_from(train: Dataset, seed: int = 0) -> Dataset:
    """The training examples that a classifier behind features learns from."""
    part = capped(train)
    return part.subset(control_split(len(part), seed)[0][:CLASSIFIER_EXAMPLES])


def learning_seconds(train: Dataset, seed: int = 0, device: str = "cpu") -> float:
    """How long a classifier would learn here, by a few of its steps."""
    examples, seconds = learnt_from(train, seed), 0.0
    label: Any = examples.take("label")
    x = examples_of(examples)  # gathered once for all steps
    for steps in (1, TRIED):  # the first is slower than those to come
        begun = time.perf_counter()
        networks.train_classifier(train.space, x, label, seed=seed, device=device, steps=steps)
        seconds = time.perf_counter() - begun
    return seconds / TRIED * networks.classifier_steps(len(examples))


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
    return key_of(name, content, seed, examples_digest(train), torch.__version__,
                  torch.device(device).type)


def _name(source: Any, train: Dataset) -> str:
    return "" if isinstance(source, torch.nn.Module) else str(
        networks.resolved(source, train.space, train.take("label")))


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
               compute: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """What is kept of this ``kind`` under ``key``, else what is computed, kept from now on. A
        folder that cannot be written to is no error."""
        if self.folder is None:
            return compute()
        file = self.folder / f"{kind}-{key}.safetensors"
        if file.is_file():
            with suppress(RunError):
                tensors, meta = load_tree(file)
                if meta.get("key") == key and meta.get("content") == _content(tensors):
                    return tensors
        fresh = compute()
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


def _content(tensors: Mapping[str, Tensor]) -> str:
    return digest_of(*(part for name in sorted(tensors)
                       for part in (name, tensors[name].detach().cpu().numpy())))
