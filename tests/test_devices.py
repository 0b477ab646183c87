"""Devices without a device: which is picked, what fp32 is, batches in parts, too little memory."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from test_contract import CASES

from latlas.core.devices import DistributedContext, numerics, pick_device
from latlas.core.errors import ConfigError, TrainingError, out_of_memory
from latlas.core.space import Recordings, Sound
from latlas.data.batches import Batches, Sweep
from latlas.data.dataset import Dataset
from latlas.engine.options import batch_size_of
from latlas.engine.trainer import Trainer, largest_of
from latlas.models.vae import VAE

#: whose losses are means over examples, and whose networks keep no count of their calls
MEANS = ["vae", "vae-conv", "iwae-table", "hierarchical-vae", "conditional-vae", "ae", "gan-points",
         "gan-conv", "conditional-gan-conv", "flow-matching-table", "latent-flow", "pix2pix"]


def advance(case, steps=10, **options):
    """Weights after some steps of 16 examples."""
    data = case.data()
    model = case.build(data)
    model.prepare(Sweep(data), len(data))
    # Adam makes whole steps of the rounding errors of a gradient that is nearly zero
    training = tiny.options(ema=0.0, warmup=0.0, learning_rate=1e-4, adam_eps=1e-5, **options)
    trainer = Trainer(model, training, budget=16 * steps, precision="fp32", n_train=len(data))
    batches, terms = Batches(data, 16), []
    for k in range(steps):
        trainer.step(batches.at(k))
        terms.append(trainer.drain())
    return tiny.weights(model), terms


@pytest.mark.parametrize("name", MEANS)
def test_a_batch_in_parts_is_the_whole_batch(name):
    """Its weights and what is logged: each part draws its rows of the batch's noise."""
    case = next(case for case in CASES if str(case) == name)
    whole, terms = advance(case)
    for parts in (2, 4):
        weights, of_parts = advance(case, accumulate=parts)
        torch.testing.assert_close(weights, whole, atol=1e-5, rtol=1e-5)
        for one, other in zip(terms, of_parts, strict=True):
            assert one.keys() == other.keys()
            for key in one.keys() - {"ada_signal"}:  # a mean of signs
                assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-4), key


def test_a_batch_that_does_not_divide_into_parts_is_refused():
    data = tiny.images()
    model = tiny.build("vae", data, tiny.small("vae"))
    with pytest.raises(ConfigError, match=r"=32 does not divide into 3 parts \(accumulate\); "
                                          r"choose a multiple of 3$"):
        batch_size_of(model, len(data), tiny.options(batch_size=32, accumulate=3),
                      DistributedContext())
    assert batch_size_of(model, len(data), tiny.options(batch_size=0, accumulate=3),
                         DistributedContext()) % 3 == 0


@pytest.mark.parametrize(("error", "batch_size", "accumulate", "ways"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), 16, 2,
     "batch_size=8, image_size=12, or accumulate=4, which computes a batch in parts"),
    (MemoryError(), 2, 2, "batch_size=1, or image_size=12"),
    (MemoryError(), 1, 1, "image_size=12")])
def test_too_little_memory_is_one_line(tmp_path, monkeypatch, error, batch_size, accumulate, ways):
    assert out_of_memory(error)

    def loss(*args):
        raise error

    monkeypatch.setattr(VAE, "loss", loss)
    with pytest.raises(TrainingError) as caught:
        tiny.train(tmp_path / "run", "vae", tiny.images((3, 24, 20)), tiny.small("vae"),
                   training=tiny.options(batch_size=batch_size, accumulate=accumulate))
    assert str(caught.value) == (
        f"out of memory on cpu in batches of {batch_size} images of 24 by 20 pixels; try {ways}")
    assert caught.value.option == "batch_size"


def test_recordings_have_no_image_size(tmp_path, monkeypatch):
    monkeypatch.setattr(VAE, "loss", lambda *args: torch.empty(1 << 50))
    x = np.random.default_rng(0).integers(0, 256, (64, 1, 32, 16), np.uint8)
    sound = Recordings((1, 32, 16), sound=Sound(8000, 64, 16, 80.0))
    with pytest.raises(TrainingError, match="examples of 512 numbers") as caught:
        tiny.train(tmp_path / "run", "vae", Dataset(x, sound), tiny.small("vae"))
    assert "image" not in str(caught.value)


def test_of_tables_it_says_how_many_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(VAE, "loss", lambda *args: torch.empty(1 << 50))
    with pytest.raises(TrainingError, match="in batches of 16 examples of 5 numbers; try "
                                            "batch_size=8, or accumulate=2"):
        tiny.train(tmp_path / "run", "vae", tiny.table(), tiny.small("vae"))


def test_other_errors_stay_what_they_are(tmp_path, monkeypatch):
    def loss(*args):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(VAE, "loss", loss)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        tiny.train(tmp_path / "run", "vae", tiny.table(), tiny.small("vae"))


def test_apples_gpu_is_picked_for_what_takes_no_float64(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda *_, device: device)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert [pick_device("auto", mps=mps).type for mps in (True, False)] == ["mps", "cpu"]
    assert pick_device("mps").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto", mps=True).type == "cuda"


def flags():
    backends = torch.backends.cudnn
    return (backends.allow_tf32, torch.backends.cuda.matmul.allow_tf32, backends.benchmark,
            backends.deterministic, torch.are_deterministic_algorithms_enabled())


def test_fp32_is_fp32_and_put_back(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = flags()
    with numerics():
        assert flags() == (False, False, False, before[3], before[4])
    with numerics(deterministic=True):
        assert flags() == (False, False, False, True, True)
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert flags() == before


@pytest.mark.parametrize("deterministic", [False, True])
def test_training_sets_it(tmp_path, monkeypatch, deterministic):
    seen, loss = [], VAE.loss

    def look(*args):
        seen.append(flags())
        return loss(*args)

    monkeypatch.setattr(VAE, "loss", look)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    tiny.train(tmp_path / "run", "vae", tiny.images(), tiny.small("vae"),
               training=tiny.options(deterministic=deterministic))
    assert set(seen) == {(False, False, False, deterministic, deterministic)}


def test_the_largest_of_each_tensor_in_one_transfer():
    tensors = {"a": torch.tensor([1.0, -3.0]), "b": torch.tensor(2.0), "none": torch.zeros(0),
               "bad": torch.tensor([[0.0, torch.nan]]), "inf": torch.tensor([-torch.inf, 1.0]),
               "codes": torch.tensor([7]), "half": torch.ones(2, dtype=torch.bfloat16)}
    assert largest_of({"count": torch.zeros(3, dtype=torch.int64)}) == {}
    largest = largest_of(tensors)
    assert largest.pop("bad") != largest.get("bad")
    assert largest == {"a": 3.0, "b": 2.0, "inf": torch.inf, "half": 1.0}
