"""Run folders: no code of their own, nothing left in the way, bound to their data, checked."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import latlas
from latlas import models
from latlas.cli import __main__ as cli
from latlas.core.errors import ConfigError, LatlasError, RunError, TrainingError
from latlas.core.files import load_tree, save_tree
from latlas.data.keys import Keys, keys_of
from latlas.data.pairs import PairDataset

ROOT = Path(__file__).parent.parent
QUICK = {"images": 96, "batch_size": 16, "width": 8, "depth": 1, "latent_dim": 2, "threads": 1,
         "precision": "fp32", "progress": False}
EVIL = "import pathlib\npathlib.Path('executed').touch()\nclass VAE:\n    pass\n"


def images(file: Path, n: int = 60, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    np.savez(file, x=rng.integers(0, 256, (n, 8, 8), np.uint8), y=np.arange(n) % 3)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A VAE and its data; to be copied."""
    folder = tmp_path_factory.mktemp("trained")
    data = images(folder / "x.npz")
    latlas.train("vae", str(data), out=folder / "run", **QUICK)
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path / "run"


def rewrite(run: Path, **changes) -> None:
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def line(error) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text


# ------------------------------------------------------------------------------- code of its own


@pytest.mark.parametrize("tokens", [
    ["sample", "run"], ["report", "run"], ["compare", "run", "run"], ["translate", "run"],
    ["evaluate", "run"], ["fit-prior", "run"], ["train", "vae", "--from", "run", "--out", "new"]])
def test_a_run_folder_runs_no_code(run, capsys, tokens):
    Path("weights.py").write_text(EVIL)
    rewrite(run, model="weights:VAE")
    before = list(sys.path)
    assert cli.run(tokens) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "run.json names the model weights:VAE" in said and "--model weights:VAE" in said
    assert not Path("executed").exists() and sys.path == before


def test_nor_does_a_prior(run):
    Path("weights.py").write_text(EVIL)
    shutil.copytree(run, run / "prior")
    rewrite(run / "prior", model="weights:VAE")
    with pytest.raises(RunError, match="holds no fitted prior but a run of weights:VAE"):
        _ = latlas.load(run).model
    assert not Path("executed").exists()


def test_a_name_that_the_person_gives_is_imported(run, monkeypatch, capsys):
    Path("own_vae.py").write_text(
        "from latlas.models.vae import VAE as Base\nclass VAE(Base):\n    'Mine.'\n")
    rewrite(run, model="own_vae:VAE")
    monkeypatch.setattr(models, "_named", set())
    with pytest.raises(RunError, match="model=own_vae:VAE"):
        latlas.load(run)
    assert cli.run(["sample", "run", "--model", "own_vae:VAE", "--n", "2", "--out", "a.npy"]) == 0
    monkeypatch.setattr(models, "_named", set())
    assert latlas.load(run, model="own_vae:VAE").model.config.latent_dim == 2
    monkeypatch.setattr(models, "_named", set())
    scorer = latlas.Scorer(run, "encode", model="own_vae:VAE")
    assert len(scorer({"x": np.zeros((2, 1, 8, 8))})) == 2
    with pytest.raises(RunError, match="a run of own_vae:VAE, not of vae"):
        latlas.load(run, model="vae")


# ---------------------------------------------------------------------------- nothing in the way


def test_a_training_that_fails_leaves_nothing_in_the_way(tmp_path):
    (tmp_path / "one.csv").write_text("a,b\n1,2\n")
    (tmp_path / "good.csv").write_text("a,b\n" + "".join(f"{i},{i * i % 7}\n" for i in range(99)))
    out = tmp_path / "run"
    with pytest.raises(LatlasError):
        latlas.train("pca", str(tmp_path / "one.csv"), out=out, progress=False, latent_dim=1)
    assert not out.exists()
    latlas.train("pca", str(tmp_path / "good.csv"), out=out, progress=False, latent_dim=1)


def test_what_is_missing_is_said_and_leaves_nothing(run, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    data = str(trained / "x.npz")
    with pytest.raises(ConfigError, match="tensorboard"):
        latlas.train("vae", data, out="new", tensorboard=True, **QUICK)
    assert not Path("new").exists()
    latlas.train("vae", data, out="new", **QUICK)


@pytest.mark.parametrize("error, raised", [
    (MemoryError(), TrainingError), (RuntimeError("out of memory"), TrainingError),
    (KeyboardInterrupt(), KeyboardInterrupt)])
def test_out_of_memory_before_the_first_step(run, trained, monkeypatch, error, raised):
    def fail(*_):
        raise error
    with monkeypatch.context() as patch:
        patch.setattr("latlas.engine.train.resolve", fail)
        with pytest.raises(raised):
            latlas.train("vae", str(trained / "x.npz"), out="new", **QUICK)
    assert not Path("new").exists()
    Path("mine").mkdir()
    for name in (".run.json.part.json", ".tmpWlJK3P"):  # of a process that was killed
        Path("mine", name).write_text("{")
    latlas.train("vae", str(trained / "x.npz"), out="mine", **QUICK)
    assert not list(Path("mine").glob(".*"))


def test_a_run_that_was_killed_before_its_first_step_is_taken_over(run, trained):
    for file in ("model.safetensors", "metrics.jsonl"):
        (run / file).unlink()
    latlas.train("vae", str(trained / "x.npz"), out=run, **QUICK | {"latent_dim": 3})
    assert latlas.load(run).model.latent_dim == 3
    (run / "model.safetensors").unlink()  # its log tells of steps
    with pytest.raises(RunError, match="holds no weights yet: remove it"):
        latlas.train("vae", str(trained / "x.npz"), out=run, **QUICK)


def test_weights_and_the_persons_own_files_stay(run, trained, monkeypatch):
    """A failure on the way from a checkpoint on, or of a run that is finished, removes nothing."""
    def fail(*_):
        raise MemoryError
    monkeypatch.setattr("latlas.training.keep", fail)
    with pytest.raises(MemoryError):
        latlas.train("vae", str(trained / "x.npz"), out=run, **QUICK)
    assert (run / "model.safetensors").is_file() and (run / "run.json").is_file()
    (run / "model.safetensors").unlink()
    with pytest.raises(MemoryError):
        latlas.train("vae", str(trained / "x.npz"), out=run, **QUICK)
    assert (run / "run.json").is_file()  # its log tells of steps
    (run / "metrics.jsonl").unlink()
    (run / "notes.txt").write_text("mine")
    with pytest.raises(MemoryError):
        latlas.train("vae", str(trained / "x.npz"), out=run, **QUICK)
    assert [file.name for file in run.iterdir()] == ["notes.txt"]


# --------------------------------------------------------------------------------- killed, anywhere

SCRIPT = """
import sys, test_run_folder
test_run_folder.serve(*sys.argv[1:])
"""


def tiny_run(model: str, data: Path, out: Path) -> str:
    """Trains or goes on; the bits of the weights."""
    settings = {**QUICK, "checkpoint_seconds": 0.0, "seed": 1}
    if model == "pca":
        settings = {"latent_dim": 2, "progress": False}
    latlas.train(model, str(data), out=out, **settings)
    weights = load_file(out / "model.safetensors")
    return "".join(f"{k}{v.numpy().tobytes().hex()}" for k, v in sorted(weights.items()))


def in_child(work) -> tuple[int, str]:
    """What a forked process returns by a pipe, and the signal that ended it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        with suppress(BaseException), os.fdopen(writer, "w") as pipe:
            pipe.write(str(work()))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def watch_files(folder: Path, at: int) -> list[int]:
    """Counts what is done to files below a folder, and kills the process before the ``at``-th."""
    count, place, fsync = [0], str(folder), os.fsync

    def note(event: str, arguments) -> None:
        writes = (event == "open" and arguments[1] not in (None, "r", "rb")) or event in (
            "os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if writes and str(arguments[0]).startswith(place):
            step()

    def step() -> None:
        count[0] += 1
        if count[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def flush(number: int) -> None:
        step()
        fsync(number)
    sys.addaudithook(note)
    os.fsync = flush
    return count


def serve(model: str, folder: str, kills: str, moments: str) -> None:
    """One process that forks for every training: kills at file operations spread evenly from first
    to last, all of them where ``kills`` is 0, and at random moments."""
    torch.set_num_threads(1)
    place = Path(folder)
    data = images(place / "x.npz")
    whole = tiny_run(model, data, place / "whole")

    def counted() -> int:
        count = watch_files(place / "count", -1)
        tiny_run(model, data, place / "count")
        return count[0]
    begun = time.monotonic()
    total = int(in_child(counted)[1])
    seconds = time.monotonic() - begun
    points = range(1, total + 1) if kills == "0" else sorted(
        {1 + i * (total - 1) // (int(kills) - 1) for i in range(int(kills))})
    draw = random.Random(0)
    for i, at in enumerate([*points, *(draw.uniform(0, seconds) for _ in range(int(moments)))]):
        out = place / f"{model}-{i}"

        def killed(at=at, out=out) -> None:
            if isinstance(at, int):
                watch_files(out, at)
            else:
                threading.Timer(at, os.kill, (os.getpid(), signal.SIGKILL)).start()
            tiny_run(model, data, out)
        code = in_child(killed)[0]
        assert code == -signal.SIGKILL or not isinstance(at, int), (at, code)
        code, again = in_child(lambda out=out: tiny_run(model, data, out))
        assert again == whole, f"killed at {at} of {total}: {code}"
        check_log(out)
        left = {file.name for file in out.iterdir()} - {"run.json", "examples.npz",
                                                         "metrics.jsonl", "model.safetensors",
                                                         *(["samples", "cache"] * (model == "gan"))}
        assert not left, (at, left)
        shutil.rmtree(out)
    print(json.dumps({"operations": total, "kills": i + 1}))


def check_log(run: Path) -> None:
    """Whole lines, upward, none twice."""
    file = run / "metrics.jsonl"
    if file.is_file():
        lines = [json.loads(text) for text in file.read_text().splitlines()]
        steps = [entry["images"] for entry in lines]
        assert steps == sorted(steps)
        named = [(entry["images"], *sorted(entry.keys() - {"seconds"})) for entry in lines]
        assert len(set(named)) == len(named)
        assert steps[-1] == QUICK["images"]


def kill(model: str, folder: Path, kills: int, moments: int) -> dict:
    places = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run([sys.executable, "-c", SCRIPT, model, str(folder), str(kills),
                           str(moments)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("model, kills, moments", [("pca", 0, 0), ("vae", 24, 8)])
def test_killed_anywhere_the_same_command_ends_with_the_same_bits(tmp_path, model, kills, moments):
    assert kill(model, tmp_path, kills, moments)["kills"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("model, kills, moments", [("vae", 0, 40), ("gan", 40, 10)])
def test_killed_at_every_operation_on_files_or_50_of_them(tmp_path, model, kills, moments):
    assert kill(model, tmp_path, kills, moments)["kills"] >= 50


# ----------------------------------------------------------------------------- bound to its data


def folder_of(place: Path, numbers, seed: int = 0) -> Path:
    """A folder of pictures whose contents follow from their numbers."""
    from PIL import Image

    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for number in numbers:
        pixels = np.random.default_rng(1000 * seed + number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:04d}.png")
    return place


def stopped(data: Path, out: str = "run", **more):
    """A run that was interrupted half way."""
    from latlas.engine.progress import Progress

    advance = Progress.advance
    Progress.advance = lambda self, images, share: (
        images == 48 and signal.raise_signal(signal.SIGINT))
    try:
        run = latlas.train("vae", str(data), out=out, **QUICK | more)
    finally:
        Progress.advance = advance
    assert run.outcome.stopped == "interrupt"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_notes_what_it_was_trained_on(trained):
    record, keys = latlas.load(trained / "run").record, Keys.load(trained / "run")
    data = latlas.open_data(str(trained / "x.npz"), "train")
    assert record["examples"]["train"] == len(keys.train) == len(data)
    assert keys.train.tolist() == sorted(keys_of(data).tolist())
    assert len(record["id"]) == 16
    for file in ("model.safetensors",):
        assert load_tree(trained / "run" / file)[1]["run"] == record["id"]


def test_going_on_with_other_data_is_refused_and_the_change_named(here):
    data = folder_of(here / "data", range(300))
    stopped(data)
    folder_of(data, [*range(3, 300), *range(300, 312)])
    before = {file.name: file.read_bytes() for file in Path("run").iterdir()}
    with pytest.raises(RunError) as error:
        latlas.train("vae", str(data), out="run", **QUICK)
    assert "run was trained on have changed: 9 examples were added, 3 are gone" in line(error)
    assert "accept_changed_data=True" in line(error)
    assert before == {file.name: file.read_bytes() for file in Path("run").iterdir()}


def test_it_is_refused_on_the_command_line_too_and_accepted_if_told(here, capsys):
    data = folder_of(here / "data", range(300))
    stopped(data)
    folder_of(data, range(300), seed=1)  # all pixels replaced, names as before
    tokens = ["train", "vae", "--data", "data", "--out", "run"]
    for name, value in QUICK.items():
        tokens += [] if name == "progress" else ["--set", f"{name}={value}"]
    assert cli.run(tokens) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "were added" in said and "are gone" in said and "--accept-changed-data" in said
    assert "--accept-changed-data True" not in said
    assert cli.run([*tokens, "--accept-changed-data"]) == 0
    assert cli.run(tokens) == 0  # its data are the new ones from now on
    old = folder_of(here / "old", range(300))
    run = latlas.load("run")
    for place in (old, data):  # both were trained on
        examples = latlas.open_data(str(place), "train", like=run)
        assert run.trained_on(examples) == len(examples)
    assert run.trained_on(latlas.open_data(str(data), "test", like=run)) == 0


def test_order_and_names_do_not_matter(here):
    data = folder_of(here / "data", range(80))
    stopped(data)
    for i, file in enumerate(sorted(data.iterdir())):
        file.rename(data / f"{999 - i}.png")
    assert latlas.train("vae", str(data), out="run", **QUICK).outcome.images == 96


def test_a_finished_run_is_not_taken_for_one_of_other_data(here, trained):
    shutil.copytree(trained / "run", "run")
    data = str(trained / "x.npz")
    assert latlas.train("vae", data, out="run", **QUICK).outcome.stopped == "already finished"
    arrays = dict(np.load(data))
    np.savez(here / "x.npz", **arrays | {"y": np.roll(arrays["y"], 1)})
    spec = json.loads(Path("run/run.json").read_text())["data"] | {"source": str(here / "x.npz")}
    rewrite(Path("run"), data=spec)
    with pytest.raises(RunError, match="have other labels"):
        latlas.train("vae", str(here / "x.npz"), out="run", **QUICK)


def test_the_batch_size_that_was_chosen_stays_when_the_data_grow(here):
    settings = QUICK | {"batch_size": 0, "images": 640}
    x = np.random.default_rng(0).normal(size=(14_000, 2)).astype(np.float32)

    def data(n: int) -> str:
        np.savez("x.npz", x=x[:n])
        return "x.npz"
    from latlas.engine.progress import Progress
    advance = Progress.advance
    Progress.advance = lambda self, images, share: (
        images == 64 and signal.raise_signal(signal.SIGINT))
    try:
        latlas.train("vae", data(7900), out="run", **settings)
    finally:
        Progress.advance = advance
    run = latlas.train("vae", data(8100), out="run", accept_changed_data=True, **settings)
    assert run.outcome.stopped == "budget" and latlas.load("run").chosen["batch_size"] == 64
    train, everything = (latlas.open_data("x.npz", part, like=run) for part in ("train", "all"))
    assert run.trained_on(train) == run.trained_on(everything) == len(train)


def test_a_table_whose_rows_changed_goes_on_in_the_units_it_began_with(here):
    def write(n: int) -> str:
        rows = np.random.default_rng(0).normal(5, 3, (n, 3))
        np.savetxt("t.csv", rows, delimiter=",", header="a,b,c", comments="")
        return "t.csv"
    stopped(write(400))
    space = latlas.load("run").space
    with pytest.raises(RunError, match="47 examples were added"):
        latlas.train("vae", write(450), out="run", **QUICK)
    run = latlas.train("vae", "t.csv", out="run", accept_changed_data=True, **QUICK)
    assert run.outcome.stopped == "budget" and run.space == space
    assert latlas.load("run").record["examples"]["train"] > 300


def test_changes_in_words():
    def keys(train, validation, labels=None):
        x = [np.asarray(rows, np.float32)[:, None] for rows in (train, validation)]
        from latlas.core.space import Points
        from latlas.data.dataset import Dataset
        return Keys.of(*(Dataset(v, Points((1,)), None if labels is None else
                                 np.asarray(labels[:len(v)])) for v in x))
    before = keys([1, 2, 3, 3, 4], [5, 6])
    for now, words in (
            (keys([4, 3, 2, 3, 1], [6, 5]), ""),
            (keys([1, 2, 3, 4], [5, 6]), "1 example is gone"),
            (keys([1, 2, 3, 3, 4, 7, 8], [5, 6]), "2 examples were added"),
            (keys([1, 2, 3, 3, 4, 6, 7, 8], [5]),
             "2 examples were added, 1 moved from validation to training"),
            (keys([2, 3, 3], [5, 6, 1]),
             "1 example is gone, 1 moved from training to validation")):
        assert now.changes(before) == words
    one, two = keys([1, 2], [3], [0, 1]), keys([1, 2], [3], [1, 1])
    assert two.changes(one) == "1 example has another label" or "labels" in two.changes(one)


def test_pairs_and_domains_have_keys_of_both_sides():
    pairs, domains = tiny.pairs(), tiny.domains()
    assert len(keys_of(pairs)) == 90 and len(keys_of(domains)) == 135
    other = PairDataset(pairs.a, pairs.a)
    assert not set(keys_of(pairs)) & set(keys_of(other))


def test_evaluate_says_how_many_were_trained_on(run, trained, capsys):
    data = str(trained / "x.npz")
    result = latlas.evaluate(run, data, split="all", draws=2, samples=4, metrics=["likelihood"])
    known = len(Keys.load(run).train)
    assert result.settings["trained_on"] == known < 60
    assert any(f"{known} of the 60 examples were trained on" in note for note in result.notes)
    assert cli.run(["evaluate", "run", "--data", data, "--draws", "2", "--metrics", "likelihood",
                    "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["settings"]["trained_on"] == 0
    assert not any("trained on" in note for note in printed["notes"])


def test_shards_notice_one_example_of_many(run, here):
    x = np.random.default_rng(1).integers(0, 256, (600, 1, 8, 8), np.uint8)
    latlas.encode(run, x, shard="1/2", out=here / "parts", block=512)
    y = x.copy()
    y[301] = 0
    with pytest.raises(ConfigError, match="parts of other data"):
        latlas.encode(run, y, shard="2/2", out=here / "parts", block=512)
    latlas.encode(run, x, shard="2/2", out=here / "parts", block=512)


def test_a_damaged_record_of_the_examples_is_named(run, trained):
    (run / "examples.npz").write_bytes(b"PK nothing")
    with pytest.raises(RunError, match=r"examples.npz is damaged"):
        latlas.evaluate(run, str(trained / "x.npz"), draws=2, metrics=["likelihood"])


# ------------------------------------------------------------------------------ checked when read


@pytest.mark.parametrize("spoil, words", [
    (lambda t: t.update(nan=t.pop(next(iter(t)))), "is missing and 1 more"),
    (lambda t: t.update({next(iter(t)): next(iter(t.values())) * float("nan")}), "not finite"),
    (lambda t: t.update({next(iter(t)): next(iter(t.values())) + float("inf")}), "not finite"),
    (lambda t: t.update({next(iter(t)): next(iter(t.values())).int()}), "is int32, not float32"),
    (lambda t: t.update({next(iter(t)): next(iter(t.values())) * 1j}), "complex64, not float32"),
    (lambda t: t.update({next(iter(t)): next(iter(t.values()))[..., :1].clone()}), "is of shape"),
    (lambda t: t.clear(), "is missing")])
def test_weights_are_checked(run, trained, capsys, spoil, words):
    tensors, meta = load_tree(run / "model.safetensors")
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].numel()))
    spoil(tensors)
    save_tree(run / "model.safetensors", tensors, meta)
    with pytest.raises(RunError, match=words) as error:
        _ = latlas.load(run).model
    assert "model.safetensors" in line(error)
    data = str(trained / "x.npz")
    for verb in (["sample", "run", "--n", "2"], ["encode", "run", "--data", data]):
        assert cli.run(verb) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("meta, words", [
    ({"format": 99}, "is of format 99, this latlas reads up to 1"), ({"format": -1}, "damaged"),
    ({"format": None}, "damaged"), ({"run": "0" * 16}, "belongs to another run"),
    ({"images": "many"}, r"damaged: Expected `int`, got `str` - at `\$.images`")])
def test_what_a_file_of_weights_says_of_itself_is_checked(run, meta, words):
    tensors, before = load_tree(run / "model.safetensors")
    save_tree(run / "model.safetensors", tensors, before | meta)
    with pytest.raises(RunError, match=words) as error:
        _ = latlas.load(run).model
    line(error)
    save_file(tensors, run / "model.safetensors", {"meta": "[1, 2]"})
    with pytest.raises(RunError, match="metadata are no JSON object"):
        _ = latlas.load(run).model
    save_file(tensors, run / "model.safetensors")
    with pytest.raises(RunError, match="it lacks 'format'"):
        _ = latlas.load(run).model


def nan_of(name: str):
    def spoil(tensors, meta) -> None:
        key = next(k for k in tensors if k.startswith(name))
        tensors[key] = tensors[key] * float("nan")
    return spoil


@pytest.mark.parametrize("spoil, words", [
    (lambda t, m: m.update(format=99), "format 99"),
    (lambda t, m: m.update(run="other"), "belongs to another run"),
    (lambda t, m: m.update(step="a"), "damaged"), (lambda t, m: m.pop("averaged"), "averaged"),
    (lambda t, m: m.update(rate_scale=[1]), "damaged"), (lambda t, m: m.pop("best"), "best"),
    (lambda t, m: t.pop("optimiser.0.steps"), "optimiser.0.steps is missing"),
    (lambda t, m: t.update({"model.more": torch.zeros(1)}), "model.more is unknown"),
    (nan_of("model."), "not finite"), (nan_of("ema."), "not finite"),
    (nan_of("best."), "not finite"), (nan_of("optimiser."), "not finite")])
def test_checkpoints_are_checked(here, trained, spoil, words):
    data = trained / "x.npz"
    stopped(data)
    file = Path("run/checkpoint.safetensors")
    tensors, meta = load_tree(file)
    spoil(tensors, meta)
    save_tree(file, tensors, meta)
    with pytest.raises(RunError, match=words) as error:
        latlas.train("vae", str(data), out="run", **QUICK)
    assert "checkpoint.safetensors" in line(error)
    assert file.is_file() and Path("run/run.json").is_file()


def test_a_checkpoint_of_another_run_of_equal_sizes(here, trained):
    for out, seed in (("one", 0), ("two", 1)):
        stopped(trained / "x.npz", out, seed=seed)
    shutil.copy("one/checkpoint.safetensors", "two/checkpoint.safetensors")
    with pytest.raises(RunError, match="belongs to another run"):
        latlas.train("vae", str(trained / "x.npz"), out="two", seed=1, **QUICK)


@pytest.mark.parametrize("changes, words", [
    ({"extra": 1}, "unknown field `extra`"), ({"model": 3}, r"at `\$.model`"),
    ({"chosen": {"images": 1}}, r"at `\$.chosen`"), ({"format": -1}, "format is -1"),
    ({"format": True}, "format is True"), ({"split": "some"}, r"at `\$.split`"),
    ({"config": []}, r"at `\$.config`"), ({"config": {"latent_dim": "x"}}, "latent_dim"),
    ({"config": {"nothing": 1}}, "unknown option 'nothing'"), ({"space": None}, "no whole run"),
    ({"space": {"type": "points", "shape": [2], "scale": 0.0}}, r"at `\$.space.scale`"),
    ({"space": {"type": "points", "shape": [2], "location": [0.0]}}, r"at `\$.space.location`"),
    ({"space": {"type": "images", "shape": [1, -8, 8]}}, r"at `\$.space.shape`"),
    ({"data": []}, r"at `\$.data`"), ({"custom": 5}, r"at `\$.custom`")])
def test_run_json_is_read_by_types(run, changes, words):
    rewrite(run, **changes)
    with pytest.raises((RunError, ConfigError), match=words) as error:
        _ = latlas.load(run).model
    assert "run.json" in line(error)


@pytest.mark.parametrize("name", ["threads", "layout", "precision", "images", "other"])
def test_what_was_chosen_is_read_by_types(run, name):
    chosen = json.loads((run / "run.json").read_text())["chosen"]
    rewrite(run, chosen=chosen | {name: 1_000_000 if name == "threads" else "spiral"})
    with pytest.raises(RunError, match=name) as error:
        latlas.load(run)
    assert "run.json" in line(error)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"a"', "[" * 100_000, '{"format": 1}',
                                  "\x00"])
def test_run_json_that_is_none(run, text):
    (run / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json") as error:
        latlas.load(run)
    line(error)


def test_run_json_without_a_format(run):
    record = json.loads((run / "run.json").read_text())
    del record["format"]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"run\.json cannot be read: it does not say its format"):
        latlas.load(run)


# -------------------------------------------------------------------------------------- its log


def test_a_torn_line_and_lines_after_the_checkpoint_are_cut(here, trained):
    stopped(trained / "x.npz")
    log = Path("run/metrics.jsonl")
    whole = log.read_text()
    log.write_text(whole + '{"images": 64, "loss": 1.0}\n{"images": 80, "lo')
    latlas.train("vae", str(trained / "x.npz"), out="run", **QUICK)
    check_log(Path("run"))
    assert log.read_text().startswith(whole)
