"""Figures of samples end to end: modes and labels, and what is remembered of the real examples."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from latlas.core.model import Model
from latlas.data.dataset import Dataset
from latlas.data.keys import examples_digest
from latlas.data.standard import open_ring
from latlas.metrics import features
from latlas.verbs.evaluate import evaluated
from latlas.verbs.sample_quality import Cache, key_of


class Handed(Model):
    """Samples that it was given, of the class asked for if it has labels."""

    def __init__(self, data, labelled=False):
        super().__init__(None, data.space)
        self.latent_dim = 1
        self.x = torch.from_numpy(np.asarray(data.space.to_model(data.x.astype(np.float32))))
        self.label = torch.from_numpy(data.label)
        self.condition_dim = len(data.space.classes) if labelled else 0

    def conditioning(self, batch, noise):
        return batch.label if self.condition_dim else None

    def sample(self, n, *, noise, condition=None):
        if condition is None:
            return self.x[:n]
        rows = [int(torch.nonzero(self.label == c)[i % 5]) for i, c in enumerate(condition)]
        return self.x[rows]


class Maps(Handed):
    """Samples that are drawn for a map, which is no class."""

    def conditioning(self, batch, noise):
        return torch.zeros(len(batch.label), 2, 4, 4)

    def sample(self, n, *, noise, condition=None):
        return self.x[:n]


def ring(n, seed):
    return open_ring(n=n, seed=seed).base


def only(data, keep):
    return data.subset(np.flatnonzero(keep(data.take("label"))))


def measured(model, train, test, **more):
    result = evaluated(model, train=train, test=test, samples=300, metrics=("samples",), **more)
    return {f.key: f for f in result.metrics}


def test_modes_of_points_are_gaussians():
    train, test, fresh = ring(1200, 0), ring(400, 1), ring(300, 2)
    whole = measured(Handed(fresh), train, test)
    assert whole["modes"].value == whole["modes"].control == 8
    assert whole["high_quality"].value == pytest.approx(0.989, abs=0.03)
    assert whole["mode_kl"].value < 0.05
    assert whole["diversity"].value == pytest.approx(1, abs=0.15)
    assert "label_accuracy" not in whole
    part = only(ring(2000, 3), lambda label: label < 5)
    half = measured(Handed(Dataset(part.take("x"), part.space, part.take("label"))), train, test)
    assert half["modes"].value == 5 and half["modes"].control == 8
    assert half["mode_kl"].value == pytest.approx(np.log(8 / 5), abs=0.1)
    assert half["sliced"].value > 3 * half["sliced"].control


@pytest.fixture(scope="module")
def blobs():
    whole = tiny.images(n=450)
    return whole.subset(slice(0, 300)), whole.subset(slice(300, 450))


def fresh_pictures():
    """Three in four can be told from the other classes."""
    return tiny.images(n=650).subset(slice(450, 650))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What is remembered does not depend on how well it was learnt."""
    learn = features.train_classifier
    monkeypatch.setattr(features, "train_classifier",
                        lambda *args, **options: learn(*args, **options, steps=60))


def test_modes_of_pictures_are_the_classifiers(blobs):
    part = fresh_pictures()
    result = measured(Handed(Dataset(part.take("x"), part.space, part.take("label"))), *blobs)
    assert result["modes"].value == 3
    assert "high_quality" not in result


def test_a_conditional_model_is_asked_for_labels(blobs):
    part = fresh_pictures()
    data = Dataset(part.take("x"), part.space, part.take("label"))
    good = measured(Handed(data, labelled=True), *blobs)
    assert good["label_accuracy"].value > 0.7 and good["label_accuracy"].control > 0.7
    shifted = Dataset(data.x, data.space, (data.label + 1) % 3)
    assert measured(Handed(shifted, labelled=True), *blobs)["label_accuracy"].value < 0.2


def test_only_class_codes_are_labels_that_samples_were_drawn_for(blobs):
    part = fresh_pictures()
    data = Dataset(part.take("x"), part.space, part.take("label"))
    found = measured(Maps(data), *blobs, features="pixels")
    assert found["modes"].value == 3 and "label_accuracy" not in found


def test_other_features_take_the_nearest_class(blobs):
    part = fresh_pictures()
    data = Dataset(part.take("x"), part.space, part.take("label"))
    result = measured(Handed(data, labelled=True), *blobs, features="pixels")
    assert result["label_accuracy"].value > 0.7
    plain = [Dataset(d.take("x"), d.space) for d in blobs]
    assert not {"modes", "diversity"} & measured(Handed(data), *plain).keys()


# ------------------------------------------------------------------------------ what is kept

def count(monkeypatch):
    """How often a classifier is trained and how many examples are looked at."""
    calls = {"trained": 0, "examples": 0}
    train, apply = features.train_classifier, features.Network.__call__

    def counted_train(*args, **options):
        calls["trained"] += 1
        return train(*args, **options)

    def counted_apply(self, x):
        calls["examples"] += len(x)
        return apply(self, x)

    monkeypatch.setattr(features, "train_classifier", counted_train)
    monkeypatch.setattr(features.Network, "__call__", counted_apply)
    return calls


def values(result):
    return {k: f.value for k, f in result.items()}


def test_a_second_evaluation_looks_at_the_samples_alone(blobs, tmp_path, monkeypatch):
    calls = count(monkeypatch)
    part = fresh_pictures()
    model = Handed(Dataset(part.take("x"), part.space, part.take("label")))
    without = measured(model, *blobs)
    assert calls == {"trained": 1, "examples": 300 + 150 + 150}
    first = measured(model, *blobs, cache=tmp_path / "cache")
    assert calls["trained"] == 2
    calls["examples"] = 0
    again = measured(model, *blobs, cache=tmp_path / "cache")
    assert calls == {"trained": 2, "examples": 150}
    assert values(without) == values(first) == values(again)
    kinds = sorted(f.name.partition("-")[0] for f in (tmp_path / "cache").iterdir())
    assert kinds == ["classifier", "features", "features"]


@pytest.mark.parametrize("change", ["example", "label", "seed", "features"])
def test_what_was_made_of_other_things_is_not_used(blobs, tmp_path, monkeypatch, change):
    calls = count(monkeypatch)
    train, test = blobs
    part = fresh_pictures()
    model = Handed(Dataset(part.take("x"), part.space, part.take("label")))
    measured(model, train, test, cache=tmp_path)
    calls.update(trained=0, examples=0)
    more = {"seed": {"seed": 1}, "features": {"features": "random-conv"}}.get(change, {})
    if change == "example":
        x = train.take("x").copy()
        x[7, 0, 0, 0] ^= 1
        train = Dataset(x, train.space, train.take("label"))
    if change == "label":
        label = train.take("label").copy()
        label[7] = (label[7] + 1) % 3
        train = Dataset(train.take("x"), train.space, label)
    result = measured(model, train, test, cache=tmp_path, **more)
    assert calls["examples"] == 600 and calls["trained"] == (change != "features")
    assert values(result) == values(measured(model, train, test, **more))


def test_a_damaged_file_is_made_again(blobs, tmp_path, monkeypatch):
    part = fresh_pictures()
    model = Handed(Dataset(part.take("x"), part.space, part.take("label")))
    first = measured(model, *blobs, cache=tmp_path)
    for file in tmp_path.iterdir():
        data = bytearray(file.read_bytes())
        data[-5] ^= 255
        file.write_bytes(bytes(data) if file.name[0] == "f" else bytes(data[:200]))
    calls = count(monkeypatch)
    assert values(measured(model, *blobs, cache=tmp_path)) == values(first)
    assert calls["trained"] == 1 and calls["examples"] == 600
    calls.update(examples=0)
    assert values(measured(model, *blobs, cache=tmp_path)) == values(first)
    assert calls == {"trained": 1, "examples": 150}


def test_a_folder_that_cannot_be_written_is_no_error(blobs, tmp_path):
    (tmp_path / "file").write_text("kept")
    part = fresh_pictures()
    model = Handed(Dataset(part.take("x"), part.space, part.take("label")))
    result = measured(model, *blobs, features="random-conv", cache=tmp_path / "file")
    assert result["modes"].value == 3
    assert (tmp_path / "file").read_text() == "kept"


def test_a_module_of_the_users_own_is_not_remembered(blobs, tmp_path):
    part = fresh_pictures()
    model = Handed(Dataset(part.take("x"), part.space, part.take("label")))
    measured(model, *blobs, features=torch.nn.Flatten(), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_digest_is_of_the_rows_in_their_order():
    data = tiny.images(n=30)
    one, same, other = (examples_digest(data.subset(np.array(rows))) for rows in (
        [1, 2], [1, 2], [2, 1]))
    assert one == same != other
    copied = Dataset(data.x[[1, 2]].copy(), data.space, data.label[[1, 2]])
    assert examples_digest(copied) == one
    assert examples_digest(Dataset(copied.x, copied.space)) != one
    assert key_of("a", 1) != key_of("a", 2)


def test_a_remembered_tensor_comes_back_as_it_was(tmp_path):
    cache, calls = Cache(tmp_path / "new"), []

    def make():
        calls.append(1)
        return {"a": torch.arange(5), "b": torch.randn(2, 3)}

    first = cache.recall("kind", "key", make)
    again = cache.recall("kind", "key", make)
    assert len(calls) == 1 and all(torch.equal(first[k], again[k]) for k in first)
    assert cache.recall("kind", "other", make).keys() == first.keys() and len(calls) == 2
    assert len(Cache().recall("kind", "key", make)) == 2 and len(calls) == 3


def test_the_restored_classifier_is_the_trained_one(blobs):
    train, _ = blobs
    one = features.features("auto", train.space, train.take("x"), train.take("label"))
    two = features.restored_classifier(train.space, one.weights())
    x = train.take("x")[:50]
    np.testing.assert_array_equal(one(x), two(x))
    np.testing.assert_array_equal(one.predict(x), two.predict(x))
