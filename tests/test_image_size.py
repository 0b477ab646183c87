"""The size that images are brought to, by the minutes and the speed of the machine."""

import json

import numpy as np
import pytest
from PIL import Image

import latlas
from latlas import learning
from latlas.core.errors import DataNote
from latlas.learning import seconds_per_example, with_image_size
from latlas.training import plan_of


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        size = (int(rng.integers(100, 180)), 140)
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(
            tmp_path / f"{i}.png")
    return tmp_path


def speed(monkeypatch, examples_per_second, batch_size=64, power=2.0):
    """Of images of 64 by 64 pixels, by this power of the side."""
    monkeypatch.setattr(learning, "seconds_per_example", lambda plan, n, channels, side: (
        (side / 64) ** power / examples_per_second, batch_size))


@pytest.mark.parametrize(("examples_per_second", "power", "size"), [
    (1, 2, 32), (10, 2, 32), (25, 2, 48), (36, 2, 64), (200, 2, 64), (300, 2, 96), (500, 2, 128),
    (200, 1, 96), (250, 1, 128)])
def test_the_largest_size_with_enough_steps(folder, monkeypatch, examples_per_second, power, size):
    """Of batches of 64 in nine minutes of the ten 1,000, or 300 up to 64 pixels."""
    speed(monkeypatch, examples_per_second, power=power)
    with pytest.warns(DataNote, match=rf"are read at {size}x{size}.*epochs in 10 minutes"):
        read = with_image_size(plan_of("vae", {"minutes": 10}), folder, None, {})
    assert read == {"image_size": size}


def test_sizes_that_are_enough_or_named_stay(folder, monkeypatch):
    speed(monkeypatch, 1e6)
    assert with_image_size(plan_of("vae", {"minutes": 10}), folder, None, {}) == {}
    speed(monkeypatch, 1)
    for settings, read in (({"images": 640}, {}), ({"epochs": 2}, {}),
                           ({"minutes": 1}, {"image_size": 100})):
        assert with_image_size(plan_of("vae", settings), folder, None, read) == read
    for data in ("digits", "moons"):
        assert with_image_size(plan_of("vae", {"minutes": 1}), data, None, {}) == {}
    assert with_image_size(plan_of("pca", {"minutes": 1}), folder, None, {}) == {}


def test_large_images_are_timed_for_themselves(folder, monkeypatch):
    """Networks of small images may cost as much as those of 64 pixels, which says nothing of 128:
    540 s of 330 images/s are a thousand batches of 64 at 96 pixels, and half of that at 128."""
    monkeypatch.setattr(learning, "seconds_per_example", lambda plan, n, channels, side: (
        max(1.0, side / 64) ** 2 / 330, 64))
    read = with_image_size(plan_of("vae", {"minutes": 10}), folder, None, {})
    assert read == {"image_size": 96}


def test_many_examples_need_their_epochs(folder, monkeypatch):
    """Forty examples in batches of one: a thousand steps decide; a hundred times as many: ten
    epochs do."""
    speed(monkeypatch, 30, batch_size=1)
    assert with_image_size(plan_of("vae", {"minutes": 10}), folder, None, {}) == {}
    monkeypatch.setattr(learning, "sizes_in", lambda *_: (4000, (3, 140, 140)))
    read = with_image_size(plan_of("vae", {"minutes": 10}), folder, None, {})
    assert read == {"image_size": 64}  # 16,200 examples are four epochs


def test_pairs_are_counted_once_and_need_fewer_epochs(tmp_path, monkeypatch):
    """Each place of an image has its own target: three epochs of the pairs are enough."""
    speed(monkeypatch, 30, batch_size=1)
    for side in "AB":
        (tmp_path / side).mkdir()
        Image.new("RGB", (128, 128)).save(tmp_path / side / "1.png")
    for pairs, read in ((1300, {}), (1400, {"image_size": 96})):
        monkeypatch.setattr(learning, "sizes_in", lambda *_, n=2 * pairs: (n, (3, 128, 128)))
        assert with_image_size(plan_of("pix2pix", {"minutes": 10}), tmp_path, None, {}) == read


def test_a_model_says_how_many_epochs_of_large_images_are_enough(folder, monkeypatch):
    """540 s of 80 images/s of 64 pixels are 11 epochs at 128 pixels: enough for a VAE."""
    monkeypatch.setattr(learning, "sizes_in", lambda *_: (1000, (3, 140, 140)))
    speed(monkeypatch, 80, batch_size=8)
    for model, size in (("vae", 128), ("latent-flow", 64)):
        read = with_image_size(plan_of(model, {"minutes": 10}), folder, None, {})
        assert read == {"image_size": size}
    read = with_image_size(plan_of("latent-flow", {"minutes": 100}), folder, None, {})
    assert read == {"image_size": 96}


def test_a_run_that_goes_on_keeps_its_size(folder, tmp_path, monkeypatch):
    speed(monkeypatch, 2)
    small = {"latent_dim": 2, "network": "mlp", "width": 8, "depth": 1, "threads": 1,
             "progress": False}
    run = latlas.train("vae", folder, out=tmp_path / "run", minutes=0.03, **small)
    assert run.space.shape == (3, 32, 32)
    assert json.loads((tmp_path / "run/run.json").read_text())["data"]["image_size"] == 32
    speed(monkeypatch, 1e9)
    again = latlas.train("vae", folder, out=tmp_path / "run", minutes=0.03, **small)
    assert again.outcome.stopped == "already finished"


@pytest.mark.parametrize("model", ["vae", "gan", "pix2pix", "cycle-gan"])
def test_speed_is_that_of_the_model(model):
    seconds, batch_size = seconds_per_example(plan_of(model, {"minutes": 0.01, "threads": 1}),
                                              100, 3, 32)
    assert 0 < seconds < 10 and batch_size >= 1
