"""Which model to train on a source: for every kind of data a command that works as it stands."""

import json
import re
import shlex

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

import latlas
import latlas.learning
from latlas import advice
from latlas.advice import FLAGS, MINUTES, advise
from latlas.cli import __main__ as cli
from latlas.cli.derive import READ
from latlas.core.errors import DataError
from latlas.data import open_source

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def images(folder, n=24, size=33, mode="RGB"):
    folder.mkdir(parents=True)
    for i in range(n):
        shape = (size, size, 3) if mode == "RGB" else (size, size)
        Image.fromarray(RNG.integers(0, 256, shape, np.uint8)).save(folder / f"{i}.png")


def table(path, n, kinds=0):
    """Numbers a and b, and a column of classes, or of numbers."""
    rows = [f"{RNG.normal():.3f},{RNG.normal():.3f},"
            + ("xyz"[i % kinds] if kinds else f"{RNG.normal():.3f}") for i in range(n)]
    path.write_text("\n".join(["a,b,kind", *rows]))


def sounds(folder):
    folder.mkdir()
    for i in range(4):
        soundfile.write(folder / f"{i}.wav", np.sin(np.arange(8000) * (i + 1) / 20), 8000)


def make(kind, root):
    """A source of a kind, and words that name it."""
    source = root / "my data.csv" if "table" in kind else root / "my data"
    writers = {
        "photos": lambda: images(source), "recordings": lambda: sounds(source),
        "small grey images": lambda: images(source, size=8, mode="L"),
        "labelled photos": lambda: [images(source / name) for name in ("cats", "dogs")],
        "pairs": lambda: [images(source / name, 12, 16) for name in "AB"],
        "table": lambda: table(source, 240), "few rows of a table": lambda: table(source, 12),
        "labelled table": lambda: table(source, 240, 3)}
    writers["domains"] = writers["pairs"]
    if kind in writers:
        writers[kind]()
    return {"labelled small images": ["digits"], "points": ["moons", "--label", "none"],
            "labelled points": ["moons"], "labelled table": [str(source), "--label", "kind"],
            "domains": [str(source / "A"), str(source / "B")]}.get(kind, [str(source)])


@pytest.mark.parametrize(("kind", "model", "words"), [
    ("photos", "latent-flow", "photos"),
    pytest.param("labelled photos", "latent-flow", "2 classes", marks=pytest.mark.slow),
    ("small grey images", "vae", "small images"),
    ("labelled small images", "conditional-vae", "10 classes"),
    pytest.param("recordings", "vae", "recordings", marks=pytest.mark.slow),
    ("points", "flow-matching", "density"),
    ("labelled points", "flow-matching", "2 classes"), ("table", "vae", "outliers"),
    ("few rows of a table", "pca", "exact likelihood"),
    ("labelled table", "conditional-vae", "3 classes"), ("pairs", "pix2pix", "belong together"),
    pytest.param("domains", "cycle-gan", "without pairs", marks=pytest.mark.slow)])
def test_the_command_that_is_advised_runs(kind, model, words, here, capsys):
    tokens = make(kind, here)
    assert cli.run(["data", "info", *tokens, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["advice"]
    assert facts["model"] == model and words in facts["reason"]
    command = facts["command"]
    assert ("condition=label" in command) == (kind in ("labelled photos", "labelled points"))
    if model == "pca":
        assert facts["minutes"] is None and "--minutes" not in command
    else:
        assert facts["minutes"] in MINUTES and facts["examples_per_second"] > 0
        command, count = re.subn(r"--minutes \d+", "--images 64", command)
        assert count == 1
    assert cli.run([*shlex.split(command)[1:], "--out", "run", "--json"]) == 0
    assert latlas.load("run").model_name == model
    capsys.readouterr()
    assert cli.run(["data", "info", *tokens]) == 0
    text = capsys.readouterr().out
    assert f"which model?\n  latlas train {model} --data " in text
    assert model == "pca" or re.search(r"examples/s here: 10 minutes are [\d.,]+ epochs", text)


def test_epochs_and_minutes_are_those_of_the_speed(monkeypatch):
    """A quarter of the minutes of a VAE of large images goes into its prior."""
    x = np.zeros((1000, 1, 30, 30), np.uint8)
    x[:, 0, 0, :10] = RNG.integers(0, 256, (1000, 10))  # no two are equal
    n = len(open_source(x).split("train"))
    for per_second, minutes in ((100_000, 1), (1000, 2), (400, 5), (1, 60)):
        monkeypatch.setattr(advice, "trial", lambda *_, r=per_second: (1 / r, 64))
        result = advise(x)
        assert (result.model, result.minutes) == ("vae", minutes)
        assert result.epochs == pytest.approx(600 * 0.75 * per_second / n)
    assert result.command == "latlas.train('vae', data, minutes=60)"


def test_photos_that_are_too_large_for_the_minutes_are_read_smaller(here, monkeypatch):
    images(here / "photos", 20, 100)
    for module in (advice, latlas.learning):
        monkeypatch.setattr(module, "seconds_per_example",
                            lambda plan, n, channels, side: ((side / 64) ** 2 / 20, 8))
    result = advise(here / "photos")
    assert result.read == {"image_size": 64} and result.examples_per_second == pytest.approx(20)
    assert "--image-size 64 --minutes" in result.command
    assert advise(here / "photos", image_size=32).read == {"image_size": 32}


def test_data_in_memory_get_a_call(here):
    x, label = RNG.normal(size=(300, 3)).astype(np.float32), np.arange(300) % 2
    result = advise((x, label), label=None)
    assert result.model == "conditional-vae" and result.facts()["epochs"] > 0
    call = re.sub(r"minutes=\d+", "images=64, progress=False", result.command)
    assert eval(call, {"latlas": latlas, "data": (x, label)}).model_name == "conditionalvae"


def test_options_of_data_in_memory_stay_with_the_data():
    frame = pl.DataFrame({"a": RNG.normal(size=300), "kind": ["x", "y", "z"] * 100})
    result = advise(frame, label="kind")
    assert result.model == "conditional-vae"
    call = re.sub(r"minutes=\d+", "images=64, progress=False", result.command)
    trained = eval(call, {"latlas": latlas, "data": frame})
    assert trained.space.classes == ("x", "y", "z")


def test_what_cannot_be_learnt_has_no_advice(here, capsys):
    (here / "my.csv").write_text("a,b\n1,\n2,\n3,\n")
    with pytest.raises(DataError, match="column b is empty"):
        advise(here / "my.csv")
    assert cli.run(["data", "info", "my.csv"]) == 0
    assert "which model?\n  none: " in capsys.readouterr().out
    assert cli.run(["data", "info", "digits", "--no-advice", "--json"]) == 0
    assert "advice" not in json.loads(capsys.readouterr().out)


def test_options_of_a_source_are_named_by_their_flags():
    assert set(FLAGS) == READ.keys() - {"data_option"}
    result = advise("moons", n=500, noise=0.1, label="none")
    assert "--data-option n=500 --data-option noise=0.1 --label none" in result.command
