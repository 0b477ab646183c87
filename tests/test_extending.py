"""docs/extending.md is true: its code is short, runs, and does what the page says."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import latlas
from latlas import models
from latlas.cli import __main__ as cli
from latlas.cli.commands import COMMANDS, Command
from latlas.core.model import Step
from latlas.core.noise import Noise
from latlas.data.batches import Sweep

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "extending.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
VARIANT, LINE, NETWORKS, GAN, READER, VERB, COMMAND = BLOCKS
QUICK = {"width": 16, "depth": 1, "latent_dim": 3, "images": 640, "batch_size": 32, "threads": 1,
         "precision": "fp32", "progress": False}


@pytest.fixture
def variant(tmp_path, monkeypatch):
    """The page's file in the current folder, as a user would have it."""
    (tmp_path / "dip_vae.py").write_text(VARIANT, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("dip_vae", None)


def test_a_variant_is_a_file_of_under_40_lines():
    assert len(VARIANT.splitlines()) < 40
    assert len(LINE.splitlines()) == 1


def test_the_variant_trains_from_the_current_folder(variant):
    run = variant / "run"
    trained = latlas.train("dip_vae:DIPVAE", "digits", out=run, beta=6, **QUICK)
    assert trained.outcome.images == 640 and trained.model.config.beta == 6
    loaded = latlas.load(run)
    latents = latlas.encode(loaded, "digits", split="test")
    np.testing.assert_array_equal(latents, latlas.encode(trained.model, "digits", split="test"))
    assert loaded.provides == models.LIKELIHOOD
    assert latlas.sample(run, 4).shape == (4, 1, 8, 8)


def test_the_variant_trains_under_its_line_in_the_table(variant, monkeypatch):
    names = {"Entry": models.Entry, "LIKELIHOOD": models.LIKELIHOOD}
    monkeypatch.syspath_prepend(str(variant))
    for name, entry in eval("{" + LINE + "}", names).items():
        monkeypatch.setitem(models.MODELS, name, entry)
    assert latlas.train("dip-vae", "digits", **QUICK).outcome.stopped == "budget"


def test_its_term_is_the_distance_from_the_identity(variant, monkeypatch):
    """Nothing for white latents, and by hand for a covariance that is known."""
    monkeypatch.syspath_prepend(str(variant))
    from dip_vae import distance_from_identity
    raw = np.random.default_rng(0).standard_normal((50, 3))
    white = np.linalg.qr(raw - raw.mean(0))[0] * 49**0.5
    factor = np.array([[1, 0.5, 0], [0, 2, 0], [0, 0, 1]])
    by_hand = np.square(factor.T @ factor - np.eye(3)).sum()
    for means, expected in ((white, 0), (white @ factor, by_hand)):
        result = distance_from_identity(torch.from_numpy(means)).item()
        assert result == pytest.approx(expected, abs=1e-5)


def test_its_term_is_in_the_loss_by_its_weight_and_in_the_log_without(variant, monkeypatch):
    monkeypatch.syspath_prepend(str(variant))
    from dip_vae import distance_from_identity

    data = tiny.images()
    batch = next(iter(Sweep(data, 30)))

    def step():
        return Step(0, 0, 1.0, Noise(3))
    plain = tiny.build("vae", data, tiny.small("vae", dropout=0)).loss(batch, step())
    model = tiny.build("dip_vae:DIPVAE", data, tiny.small("dip_vae:DIPVAE", beta=3, dropout=0))
    loss, term = model.loss(batch, step()), distance_from_identity(model.encode(batch.x).mean)
    torch.testing.assert_close(loss.terms["covariance"], term)
    torch.testing.assert_close(loss.total, plain.total + 3 * term)
    latlas.train("dip_vae:DIPVAE", "digits", out=variant / "run", **QUICK)
    lines = (variant / "run/metrics.jsonl").read_text("utf-8").splitlines()
    logged = [line["covariance"] for line in map(json.loads, lines) if "covariance" in line]
    assert logged and min(logged) > 0


def test_options_of_its_own_are_read_and_checked(variant, monkeypatch):
    monkeypatch.syspath_prepend(str(variant))
    from latlas.core.errors import ConfigError
    from latlas.core.options import parse
    config = models.get("dip_vae:DIPVAE").config
    assert parse(config, {"beta": "2"}).beta == 2.0
    with pytest.raises(ConfigError, match="beta"):
        parse(config, {"beta": "-1"})


def test_what_can_be_asked_of_a_class_follows_from_its_methods(variant):
    assert models.get("dip_vae:DIPVAE").provides == models.LIKELIHOOD
    assert models.get("toy_gan:ToyGAN").provides == models.GENERATOR
    for name, entry in models.MODELS.items():
        target = models.get(entry.target)
        assert target.provides == entry.provides - {"denoise"}, name


def test_networks_of_ones_own():
    scope: dict = {}
    exec(compile(NETWORKS, "page", "exec", dont_inherit=True), scope)
    assert scope["images"].shape == (9, 1, 8, 8)


def test_a_reader_of_ones_own(tmp_path):
    scope: dict = {}
    exec(compile(READER, "page", "exec", dont_inherit=True), scope)
    x = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    images, labels = tmp_path / "images.gz", tmp_path / "labels.gz"
    images.write_bytes(gzip.compress(bytes(16) + x.tobytes()))
    labels.write_bytes(gzip.compress(bytes(8) + bytes(i % 10 for i in range(60))))
    source = scope["open_idx"](images, labels)
    data = latlas.open_data(source, "all")
    np.testing.assert_array_equal(data.take("x"), x[:, None])
    assert data.take("label").tolist() == [i % 10 for i in range(60)]
    run = tmp_path / "run"
    latlas.train("vae", source, out=run, **{**QUICK, "images": 64})
    assert latlas.encode(run, source, split="all").shape == (60, 3)


def test_the_two_player_model_is_the_one_that_is_tested():
    assert (Path(__file__).parent / "toy_gan.py").read_text("utf-8") == GAN
    assert len(GAN.splitlines()) < 80


def test_a_class_without_a_config_is_named(tmp_path, monkeypatch):
    (tmp_path / "no_config_here.py").write_text("class Model: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from latlas.core.errors import ConfigError
    for name, why in (("no_config_here:Model", "has no Config"),
                      ("no_config_here:Other", "cannot import"), ("nowhere:X", "cannot import")):
        with pytest.raises(ConfigError, match=why):
            models.get(name)


def test_a_datum_passes_six_files_on_its_way_to_the_loss():
    part = PAGE[PAGE.index("## The path of a datum"):]
    steps = re.findall(r"^\d\. `(latlas/\S+\.py)`.*?`([\w.]+)`", part, re.M | re.S)
    assert len(steps) == 6
    for file, function in steps:
        assert re.search(rf"def {function.split('.')[-1]}\b", (DOCS.parent / file).read_text())


def test_each_of_the_six_files_calls_the_next(tmp_path):
    """What runs from opening a file to the loss, in the order in which it is first entered."""
    from latlas.training import execute  # noqa: F401  (imported before the trace begins)
    np.savez(tmp_path / "x.npz", x_train=np.zeros((80, 8, 8), np.uint8) + np.arange(8, dtype="u1"),
             x_test=np.zeros((9, 8, 8), np.uint8))
    expected = ["arrays.open_npz", "dataset.split", "train.train", "batches.at", "trainer.step",
              "vae.loss"]
    entered: list[str] = []

    def note(frame, event, argument):
        name = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
        if event == "call" and name in expected and name not in entered:
            entered.append(name)
    sys.setprofile(note)
    try:
        latlas.train("vae", str(tmp_path / "x.npz"), **{**QUICK, "images": 32})
    finally:
        sys.setprofile(None)
    assert entered == expected


def test_a_verb_becomes_a_command_and_an_option_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "average.py").write_text(VERB, "utf-8")
    line, = [line for line in VERB.splitlines(keepends=True) if "median: " in line]
    (tmp_path / "mean_alone.py").write_text(
        VERB.replace(line, "").replace("np.median(values, 0) if median else ", ""), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, command in eval("{" + COMMAND + "}", {"Command": Command}).items():
        monkeypatch.setitem(COMMANDS, name, command)
    monkeypatch.setitem(COMMANDS, "mean", Command("Make", "mean_alone:average", "", ()))
    latlas.train("vae", "digits", out="run", **QUICK)
    assert cli.run(["average", "run", "--n", "5", "--median", "--out", "a.npy"]) == 0
    from average import average
    np.testing.assert_array_equal(np.load("a.npy"), average("run", 5, median=True))
    assert cli.run(["average", "--help"]) == 0
    help_of = " ".join(capsys.readouterr().out.split())
    assert "--median" in help_of and "The median in place of the mean." in help_of
    assert cli.run(["mean", "run", "--n", "5", "--out", "b.npy"]) == 0
    assert cli.run(["mean", "run", "--median"]) == 2
    assert "Unknown option: --median" in capsys.readouterr().err
    for tokens, words in ((["--n", "0"], "--n 0: at least 1"), (["--out", "a.xyz"], "a.xyz")):
        assert cli.run(["average", "run", *tokens]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("page", ["extending", "engine", "likelihood"])
def test_files_and_tests_that_a_page_names_exist(page):
    text = (DOCS / f"{page}.md").read_text("utf-8")
    for name in re.findall(r"`((?:latlas|tests)/[\w/]+(?:\.py)?)`", text):
        assert (DOCS.parent / name).exists(), name
