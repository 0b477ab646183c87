"""The command line: help, settings, errors in one line, and every verb end to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image

import latlas
from latlas.cli import __main__ as cli
from latlas.cli.commands import COMMANDS
from latlas.cli.derive import emit, pairs
from latlas.cli.train import default_run, settings
from latlas.core.errors import ConfigError, DataError, LatlasError, flags_of_command, say_option
from latlas.run import Run
from latlas.verbs.encode import read_latents

TINY = ("--set", "width=32", "--set", "depth=1", "--set", "threads=1", "--set", "precision=fp32")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE and an AE of digits, trained for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    for model in ("vae", "ae", "conditional-vae"):
        code = cli.run(["train", model, "--images", "1k", "--out", str(folder / model), *TINY])
        assert code == 0
    return folder


def start(*tokens: str, **more: object) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    root = str(Path(latlas.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.Popen([sys.executable, "-m", "latlas.cli", *tokens], env=environment,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def failure(capsys: pytest.CaptureFixture[str], *tokens: str) -> str:
    """The one line of an error; checks that it is one, and the exit code."""
    capsys.readouterr()
    assert cli.run(tokens) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert out == ""
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    return lines[0]


def result(capsys: pytest.CaptureFixture[str], *tokens: str) -> dict:
    """What --json printed; nothing else may be on stdout."""
    capsys.readouterr()
    assert cli.run([*tokens, "--json"]) == 0
    return strict_json(capsys.readouterr().out)


def strict_json(text: str) -> dict:
    """Without the NaN and Infinity that Python reads and JSON does not have."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


# help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert COMMANDS[name].summary[:15] in text
    assert f"\n  latlas {name}" in text


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


def test_help_of_a_model_lists_its_own_settings(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["train", "beta-vae", "--help"])
    text = capsys.readouterr().out
    assert "beta=4.0" in text
    assert "batch_size=" in text
    cli.run(["train", "pca", "--help"])
    assert "beta=" not in capsys.readouterr().out
    assert "did you mean 'vae'" in failure_of_help(capsys)


def failure_of_help(capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(["train", "vea", "--help"]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("tokens", [
    ["--help"], ["models"], ["train", "--help"], ["sample", "no-run"], ["train", "vea"],
    ["fit-prior", "no-run"],
    ["data", "info", "--help"]])
def test_light_commands_import_no_torch(tokens: list[str]) -> None:
    code = ("import sys; from latlas.cli.__main__ import run; run(sys.argv[1:]); "
            "sys.exit('torch' in sys.modules)")
    root = str(Path(latlas.__file__).parent.parent)
    process = subprocess.run([sys.executable, "-c", code, *tokens], capture_output=True,
                          env={**os.environ, "PYTHONPATH": root}, check=False)
    assert process.returncode == 0, process.stderr


def test_the_first_help_loads_next_to_nothing() -> None:
    """It is asked for most, and by people who wait."""
    code = ("import sys; from latlas.cli.__main__ import run; run(['--help']); "
            "sys.exit(any(m in sys.modules for m in ('numpy', 'rich', 'cyclopts')))")
    root = str(Path(latlas.__file__).parent.parent)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True,
                          env={**os.environ, "PYTHONPATH": root}, check=False)
    assert process.returncode == 0


# settings


def test_later_settings_win_and_a_budget_replaces_a_budget(here: Path) -> None:
    file = here / "a.toml"
    file.write_text('epochs = 3\nbatch_size = 64\n[model]\nlatent_dim = 8\nbeta = 2\n')
    got = settings("beta-vae", file, {"latent_dim": "9", "learning_rate": "1e-4"},
                   {"minutes": 5.0})
    assert got == {"batch_size": 64, "latent_dim": 9, "beta": 2.0, "learning_rate": 1e-4,
                   "minutes": 5.0}


@pytest.mark.parametrize(("text", "message"), [
    ("latentdim = 3", "a.toml, model vae: unknown option 'latentdim': did you mean 'latent_dim'"),
    ("latent_dim = -3", "a.toml latent_dim=-3"), ("latent_dim =", "a.toml"),
    ("model = 3", "headings")])
def test_a_bad_file_is_named(here: Path, text: str, message: str) -> None:
    (here / "a.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        settings("vae", here / "a.toml", {}, {})
    assert message in str(caught.value)


def test_pairs() -> None:
    assert pairs(("a-b=1=2", "c= x "), "--set") == {"a_b": "1=2", "c": "x"}
    with pytest.raises(ConfigError, match="--set abc: write it as key=value"):
        pairs(("abc",), "--set")


@pytest.mark.parametrize(("source", "name"), [
    ("digits", "digits"), ("../shared/mnist.npz", "mnist"), ("photos/", "photos"),
    ("a/b.zip::my set.npz", "my-set"), ("t10k.idx.gz", "t10k")])
def test_the_run_folder_is_named_by_the_data(source: str, name: str) -> None:
    assert default_run("vae", (source,)) == Path(f"runs/vae-{name}")


# errors


@pytest.mark.parametrize(("tokens", "message"), [
    (["trian"], "did you mean 'train'"),
    (["data", "inf"], "did you mean 'data info'"),
    (["train", "vea"], "unknown model 'vea': did you mean 'vae'"),
    (["train", "vae", "--set", "latentdim=3"], "did you mean 'latent_dim'"),
    (["train", "vae", "--set", "latent_dim=three"], "latent_dim must be a whole number"),
    (["train", "vae", "--set", "likelihood=poisson"], "one of auto, bernoulli"),
    (["train", "vae", "--set", "beta"], "write it as key=value"),
    (["train", "vae", "--images", "10", "--epochs", "1"], "at most one budget"),
    (["train", "vae", "--epochs", "-1"], "epochs must be a number"),
    (["train", "vae", "--minutes", "soon"], "unable to convert"),
    (["train", "vae", "--speed", "9"], "Unknown option"),
    (["train", "vae", "--batch-size", "9"], "batch_size is a setting: --set batch_size="),
    (["train", "vae", "--config", "no.toml"], "no.toml"),
    (["train", "vae", "--device", "gpu"], "Valid: auto, cpu, cuda"),
    (["train", "vae", "--image-size", "9"], "Valid: label"),
    (["train", "vae", "--data", "nowhere/"], "nowhere/: no such file or folder"),
    (["train", "vae", "--data", "digit"], "did you mean 'digits'"),
    (["train", "vae", "--from", "nowhere", "--images", "10"], "nowhere is no run folder"),
    (["train", "conditional-vae", "--data-option", "label=none"], "needs labels"),
    (["sample"], "RUN requires an argument"),
    (["sample", "nowhere"], "nowhere is no run folder"),
    (["compare", "one"], "two runs or more"),
    (["data", "info", "digits", "--data-option", "colour=red"], "colour")])
def test_errors_are_one_line(tokens: list[str], message: str,
                             capsys: pytest.CaptureFixture[str]) -> None:
    assert message in failure(capsys, *tokens)


@pytest.mark.parametrize(("tokens", "message"), [
    (["sample", "--seeds", "1-999999999"], "at most a million"),
    (["decode", "latents.txt"], "latents are read from .csv, .npy, .npz")])
def test_errors_of_a_run_are_one_line(runs: Path, tokens: list[str], message: str,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert message in failure(capsys, tokens[0], str(runs / "vae"), *tokens[1:])


def test_an_empty_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "empty").mkdir()
    assert "empty is an empty folder" in failure(capsys, "train", "ae", "--data", "empty")


def test_a_run_of_a_newer_format(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run.json").write_text('{"format": 999}')
    assert "format 999" in failure(capsys, "sample", str(here))


def test_a_run_that_is_damaged(runs: Path, here: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "vae", here / "run")
    record = json.loads((here / "run/run.json").read_text())
    for change, message in (({"space": {"kind": "points"}}, "run/run.json is no whole run"),
                            ({"config": record["config"] | {"width": 33}}, "do not fit its run")):
        (here / "run/run.json").write_text(json.dumps(record | change))
        assert message in failure(capsys, "sample", "run")


def test_too_little_memory(capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "train", "vae", "--set", "latent_dim=1e11", "--out", "run")
    assert "out of memory" in line
    assert "latent_dim" in line


def test_a_task_the_model_cannot_do(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before the data are opened: the data named here do not exist."""
    line = failure(capsys, "score", str(runs / "ae"), "--data", "nowhere/")
    assert "ae cannot score" in line
    assert "vae" in line.partition("Models that can")[2]
    assert "--observation-sd" in line


def test_data_of_another_shape(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(here / "a.npz", x=np.zeros((20, 9, 9), np.uint8))
    line = failure(capsys, "encode", str(runs / "vae"), "--data", "a.npz")
    assert "1×9×9" in line
    assert "1×8×8" in line
    assert "--image-size 8" in line


def test_a_folder_that_holds_another_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "train", "vae", "--images", "2k", "--out", str(runs / "vae"), *TINY)
    assert "another run" in line


def test_bad_rows_labels_and_endings(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae = str(runs / "vae")
    assert "rows 0 …" in failure(capsys, "interpolate", vae, "--start", "0", "--end", "100000")
    assert "both" in failure(capsys, "interpolate", vae, "--start", "0")
    assert "no classes" not in failure(capsys, "sample", vae, "--out", "a.xyz")
    assert "Valid" in failure(capsys, "sample", str(runs / "conditional-vae"), "--label", "ten")


@pytest.mark.parametrize("tokens", [
    ["sample", "--n", "0"], ["sample", "--n", "-3"], ["encode", "--n", "0"],
    ["reconstruct", "--n", "0"], ["score", "--n", "-3"], ["interpolate", "--steps", "1"],
    ["traverse", "--steps", "1"], ["traverse", "--span", "nan"]])
def test_numbers_that_make_nothing_are_refused(runs: Path, tokens: list[str],
                                               capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, tokens[0], str(runs / "vae"), *tokens[1:])
    assert tokens[1].strip("-") in line
    assert tokens[2] in line


@pytest.mark.parametrize("tokens", [
    ["sample", "--out", "a.xyz"], ["decode", "z.csv", "--out", "a.xyz"],
    ["encode", "--out", "a.gif"], ["reconstruct", "--out", "a.xyz"],
    ["interpolate", "--out", "a.xyz"], ["traverse", "--out", "a.xyz"],
    ["score", "--out", "a.json"], ["evaluate", "--out", "a.xyz"], ["report", "--out", "a.pdf"]])
def test_an_ending_is_refused_before_the_work(runs: Path, here: Path, tokens: list[str],
                                              capsys: pytest.CaptureFixture[str],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "z.csv").write_text("z0\n1\n")
    monkeypatch.setattr("latlas.run.Run.model",
                        property(lambda _: pytest.fail("the model was loaded")))
    line = failure(capsys, tokens[0], str(runs / "vae"), *tokens[1:])
    assert f"cannot write {tokens[-1]}: valid endings are" in line


@pytest.mark.parametrize("name", ["x.png", "x.csv", "x.npz"])
def test_a_file_is_replaced_whole_and_this_is_said(runs: Path, here: Path, name: str,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["sample", str(runs / "vae"), "--n", "4", "--out", name]
    assert cli.run(tokens) == 0
    assert "replaced" not in capsys.readouterr().out
    first = Path(name).read_bytes()
    assert cli.run([*tokens, "--seed", "1"]) == 0
    assert f"replaced the {name} that was there" in capsys.readouterr().out
    assert Path(name).read_bytes() != first


def test_what_is_read_is_never_replaced(runs: Path, here: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sample", str(runs / "vae"), "--n", "4", "--out", "x.npz"]) == 0
    before = Path("x.npz").read_bytes()
    assert cli.run(["reconstruct", str(runs / "vae"), "--data", "x.npz", "--out", "./x.npz"]) == 2
    assert "--out x.npz: it is the data" in capsys.readouterr().err
    assert Path("x.npz").read_bytes() == before


def test_a_place_that_cannot_be_written(runs: Path, here: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("kept")
    line = failure(capsys, "sample", str(runs / "vae"), "--out", "file/a.png")
    assert "cannot save file/a.png" in line
    assert (here / "file").read_text() == "kept"


def test_originals_are_not_counted_with_what_became_of_them(
        runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = result(capsys, "reconstruct", str(runs / "vae"), "--n", "3", "--out", "r.png")
    assert got["n"] == 3
    assert got["shape"] == [3, 1, 8, 8]
    with Image.open(here / "r.png") as grid:
        assert grid.width / grid.height == pytest.approx(1.5, rel=0.05)


def test_one_example_has_no_standard_error(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["score", str(runs / "vae"), "--n", "1", "--draws", "1"]) == 0
    text = capsys.readouterr().out
    assert "nats per example (importance-weighted bound, 1 draw; 1 example;" in text
    assert "nan" not in text


def test_numbers_that_are_not_finite_are_null(runs: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    """One example has no standard error over examples, and ``iw`` no rate of acceptance."""
    scores = result(capsys, "score", str(runs / "vae"), "--n", "1", "--draws", "2")
    assert scores["standard_error"] is None and scores["acceptance"] is None
    assert scores["nats"] < 0 < scores["se_median"]
    emit({"one": np.float32("nan"), "many": np.array([[1.5, np.inf]]), "in": (-np.inf, [np.nan])},
         True, "")
    assert strict_json(capsys.readouterr().out) == {
        "one": None, "many": [[1.5, None]], "in": [None, [None]]}


def test_unexpected_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("latlas.cli.train.models", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.run(["models"])


def test_a_closed_pipe_is_no_error() -> None:
    with start("models") as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait(20) == 141
    assert error == ""


# verbs


def test_train_resumes_and_says_when_it_is_finished(runs: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["train", "vae", "--images", "1k", "--out", str(runs / "vae"), *TINY]
    assert result(capsys, *tokens)["stopped"] == "already finished"
    assert cli.run(tokens) == 0
    assert "finished already" in capsys.readouterr().out


def test_the_last_line_of_training_has_the_last_losses(
        here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One step that sees four times the budget: the share shown stays at 100%."""
    assert cli.run(["train", "ae", "--images", "256", "--set", "batch_size=1024", "--out", "run",
                    *TINY]) == 0
    err = capsys.readouterr().err
    assert "fp32, 1 thread, cpu" in err
    assert "100.0%" in err
    assert "mse 0." in next(line for line in err.splitlines() if line.startswith("finished"))


def test_the_columns_of_a_table_have_a_line_each(here: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    (here / "t.csv").write_text("age,city\n" + "1,Rome\n,Oslo\n3,Rome\n" * 4)
    assert cli.run(["data", "info", "t.csv"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["age", "integer", "4", "2", "2", "1"] in lines
    assert ["city", "category", "2"] in lines


def test_default_run_folder_and_start_from_another_run(
        runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = result(capsys, "train", "vae", "--images", "256", "--from", str(runs / "vae"), *TINY)
    assert got["run"] == "runs/vae-digits"
    assert (here / "runs/vae-digits/model.safetensors").is_file()
    wide = failure(capsys, "train", "vae", "--images", "256", "--from", str(runs / "vae"),
                   "--out", "other", "--set", "width=16")
    assert "cannot start from" in wide


def test_run_json_is_read_once_and_the_capability_asked_once(
        runs: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, required, watching, require = [], [], [True], Run.require
    sys.addaudithook(lambda event, arguments: watching and event == "open" and str(
        arguments[0]).endswith("run.json") and opened.append(arguments[0]))  # type: ignore[func-returns-value]
    monkeypatch.setattr(Run, "require", lambda run, *words: (required.append(words),
                                                             require(run, *words)))
    assert cli.run(["sample", str(runs / "vae"), "--n", "2", "--out", "a.npy"]) == 0
    watching.clear()  # a hook cannot be taken away
    assert len(opened) == 1 and required == [("sample",)]


def test_sample_is_decided_by_its_seed(runs: Path, here: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        got = result(capsys, "sample", str(runs / "vae"), "--n", "5", "--seed", seed,
                     "--out", f"{name}.npy")
    a, b, c = (np.load(here / f"{name}.npy") for name in "abc")
    assert got["n"] == 5
    assert a.shape == (5, 1, 8, 8)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_output_by_suffix(runs: Path, here: Path) -> None:
    for out in ("a.png", "a.gif", "a.csv", "a.parquet", "a.npz", "folder/"):
        assert cli.run(["sample", str(runs / "vae"), "--n", "4", "--out", out]) == 0
    with Image.open(here / "a.png") as image:
        assert image.size[0] > 8
    assert len(list((here / "folder").glob("*.png"))) == 4
    assert polars.read_csv(here / "a.csv").shape[0] == 4


def test_latents_go_to_a_file_and_back(runs: Path, here: Path,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    vae = str(runs / "vae")
    for name in ("z.csv", "z.parquet", "z.npz", "z.npy"):
        result(capsys, "encode", vae, "--n", "6", "--out", name)
    tables = [read_latents(here / name) for name in ("z.csv", "z.parquet", "z.npz", "z.npy")]
    assert all(np.allclose(tables[0], t, atol=1e-6) for t in tables)
    result(capsys, "decode", vae, "z.npy", "--out", "x.npy")
    result(capsys, "reconstruct", vae, "--n", "6", "--out", "r.npy")
    assert np.array_equal(np.load(here / "x.npy"), np.load(here / "r.npy"))
    (here / "bad.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="cannot be read as latents"):
        read_latents(here / "bad.npy")


def test_walks(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae = str(runs / "vae")
    strip = result(capsys, "interpolate", vae, "--start", "0", "--end", "1", "--steps", "5",
                   "--method", "slerp", "--out", "walk.npy")
    assert strip["shape"] == [5, 1, 8, 8]
    result(capsys, "reconstruct", vae, "--n", "2", "--out", "ends.npy")
    walk, ends = np.load(here / "walk.npy"), np.load(here / "ends.npy")
    assert np.array_equal(walk[[0, -1]], ends)
    grid = result(capsys, "traverse", vae, "--dims", "3,0", "--steps", "4", "--out", "t.png")
    assert (grid["n"], grid["dims"]) == (8, [3, 0])


def test_labels_choose_what_a_conditional_model_draws(runs: Path, here: Path) -> None:
    run = str(runs / "conditional-vae")
    for label in ("3", "3,5"):
        assert cli.run(["sample", run, "--label", label, "--n", "4", "--out", f"{label}.npy"]) == 0
    three, mixed = np.load(here / "3.npy"), np.load(here / "3,5.npy")
    assert np.array_equal(three[[0, 2]], mixed[[0, 2]])
    assert not np.array_equal(three[[1, 3]], mixed[[1, 3]])


def test_in_a_grid_every_class_has_a_column(runs: Path, here: Path) -> None:
    run = str(runs / "conditional-vae")
    assert cli.run(["sample", run, "--label", "3,5", "--n", "8", "--out", "a.png"]) == 0
    assert cli.run(["sample", run, "--label", "3", "--n", "8", "--out", "b.png"]) == 0
    with Image.open(here / "a.png") as two, Image.open(here / "b.png") as square:
        assert two.height / two.width > 1.8
        assert square.height / square.width <= 1


def test_score_and_evaluate(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae = str(runs / "vae")
    got = result(capsys, "score", vae, "--draws", "4", "--n", "20", "--out", "s.csv")
    table = polars.read_csv(here / "s.csv")
    assert len(table) == got["examples"] == 20
    assert table["nats"].mean() == pytest.approx(got["nats"], abs=1e-3)
    measured = result(capsys, "evaluate", vae, "--draws", "2", "--samples", "40", "--features",
                   "pixels", "--out", "e.json")
    assert strict_json((here / "e.json").read_text()) | {"out": "e.json"} == measured
    both = result(capsys, "compare", vae, str(runs / "ae"), "--draws", "2", "--samples", "40",
                  "--features", "pixels")
    assert [e["name"] for e in both["evaluations"]] == ["vae", "ae"]


def test_likelihoods_are_in_fp32_unless_bf16_is_asked_for(
        runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(runs / "vae"), "--draws", "4"]
    usual, full, half = (result(capsys, "score", *words, *more)["nats"] for more in (
        (), ("--precision", "fp32"), ("--precision", "bf16")))
    assert usual == full != half
    assert latlas.score(runs / "vae", draws=4).mean == usual
    metrics = result(capsys, "evaluate", *words, "--metrics", "likelihood")["metrics"]
    assert next(m["value"] for m in metrics if m["key"] == "nats") == usual
    assert "fp32" in failure(capsys, "score", *words, "--precision", "auto")


@pytest.mark.parametrize(("run", "tokens"), [
    ("vae", ["--method", "naive", "--draws", "50"]), ("vae", ["--method", "elbo", "--draws", "3"]),
    ("vae", ["--method", "ais", "--draws", "2", "--temperatures", "4"]),
    ("conditional-vae", ["--method", "ais", "--draws", "2", "--temperatures", "4"]),
    ("ae", ["--observation-sd", "0.3", "--temperatures", "4", "--leapfrog", "2"])])
def test_every_estimator(runs: Path, here: Path, run: str, tokens: list[str],
                         capsys: pytest.CaptureFixture[str]) -> None:
    got = result(capsys, "score", str(runs / run), "--n", "3", "--out", "s.csv", *tokens)
    table = polars.read_csv(here / "s.csv")
    assert table.columns == ["example", "nats", "se", "bits_per_dim", "ess", "unreliable"]
    assert (table["se"] > 0).all()
    assert got["se_median"] == pytest.approx(table["se"].median(), rel=1e-3)
    assert (got["acceptance"] is not None) == (got["method"] == "ais")
    assert cli.run(["score", str(runs / run), "--n", "3", *tokens]) == 0
    text = capsys.readouterr().out
    assert "standard error" in text
    assert "nan" not in text


@pytest.mark.usefixtures("quick_classifier")
def test_report_is_one_file(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = result(capsys, "report", str(runs / "ae"), "--out", "r.html", "--draws", "2")
    text = Path(got["out"]).read_text()
    assert "data:image/png;base64" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_data_info_and_pack(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert result(capsys, "data", "info", "digits")["examples"] == 1797
    assert result(capsys, "data", "pack", "digits", "packed")["n"] == 1797
    assert result(capsys, "data", "info", "packed")["examples"] == 1797


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(here: Path) -> None:
    tokens = ("train", "ae", "--images", "100k", "--out", "run", *TINY)
    with start(*tokens, cwd=here) as process:
        deadline = time.monotonic() + 60
        while not (here / "run/metrics.jsonl").is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert (here / "run/checkpoint.safetensors").is_file()
    assert cli.run(tokens) == 0
    lines = [json.loads(line)["images"] for line in
             (here / "run/metrics.jsonl").read_text().splitlines()]
    assert lines == sorted(lines)


def test_options_are_named_as_the_person_types_them():
    assert say_option("image_size", 64) == "image_size=64"
    with flags_of_command({"image_size": "--image-size", "example": "--example"}):
        assert say_option("image_size", 64) == "--image-size 64"
        assert say_option("image_size") == "--image-size"
        assert say_option("example", 3) == "--example 3"
        assert say_option("drop", "a.b") == "--data-option drop=a.b"
    assert say_option("drop", "a.b") == "drop=a.b"


@pytest.mark.parametrize(("tokens", "typed", "call", "written"), [
    (["sample", "{vae}", "--n", "0"], "--n 0: at least 1", lambda run: latlas.sample(run, 0),
     "n=0: at least 1"),
    (["outliers", "{vae}", "--fpr", "2"], "--fpr 2.0: a share", lambda run: latlas.outliers(
        run, fpr=2.0), "fpr=2.0: a share"),
    (["score", "{vae}", "--temperatures", "3"], "--temperatures belongs to --method ais",
     lambda run: latlas.score(run, temperatures=3), "temperatures= belongs to method=ais"),
    (["encode", "{vae}", "--shard", "1/2"], "; name it with --out FOLDER",
     lambda run: latlas.encode(run, shard="1/2"), "; name it with out=FOLDER"),
    (["score", "{ae}"], "given one by --observation-sd S",
     lambda run: latlas.score(run.parent / "ae"), "given one by observation_sd=S"),
    (["outliers", "{vae}", "--data", "digits", "--label", "none", "--outlier-label", "a"],
     "--outlier-label a: the data have no labels; name their column with --label",
     lambda run: latlas.outliers(run, "digits", label="none", outlier_label="a"),
     "outlier_label=a: the data have no labels; name their column with label=")])
def test_options_in_errors_are_as_they_are_typed(runs, capsys, tokens, typed, call, written):
    line = failure(capsys, *(token.format(vae=runs / "vae", ae=runs / "ae") for token in tokens))
    assert typed in line
    with pytest.raises(LatlasError) as caught:
        call(runs / "vae")
    assert written in str(caught.value)


def test_help_of_a_model_of_two_sides_shows_two_sides(capsys):
    assert cli.run(["train", "cycle-gan", "--help"]) == 0
    assert "--data horses/ --data zebras/" in capsys.readouterr().out
    assert cli.run(["train", "ae", "--help"]) == 0
    assert "latlas train ae --data digits" in capsys.readouterr().out


def test_files_of_a_pattern_after_one_data_are_told_how(capsys):
    said = failure(capsys, "interpolate", "run", "--data", "a.png", "b.png")
    assert "Each source has its own --data: --data a.png --data b.png" in said
