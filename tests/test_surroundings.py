"""Terminals, pipes, signals and disks as people have them: results survive, errors are one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import latlas
from latlas.cli import __main__ as cli
from latlas.core.errors import DataError, RunError
from latlas.data.opening import pack

ROOT = str(Path(latlas.__file__).parent.parent)
SETTINGS = {"images": 64, "width": 8, "depth": 1, "latent_dim": 3, "threads": 1,
            "precision": "fp32", "progress": False}
ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
BYTES = os.fsdecode(b"caf\xe9")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("surroundings")
    latlas.train("vae", "digits", out=home / "run", **SETTINGS)
    return home / "run"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell, in which $latlas is the command."""
    line = line.replace("$latlas", f"{sys.executable} -m latlas.cli")
    variables = {**os.environ, "PYTHONPATH": ROOT, **environment}
    return subprocess.run(["bash", "-c", line], env=variables,
                          text=True, errors="surrogateescape", capture_output=True, timeout=300,
                          check=False)


@pytest.mark.parametrize("line", [
    "--help", "train vae --help", "models", "evaluate {run} --draws 2", "data info digits",
    "sample {run} --out {run}/é.png"])
def test_an_ascii_terminal_shows_replaced_characters(run: Path, line: str) -> None:
    done = shell("$latlas " + line.format(run=run), **ASCII)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and done.stdout.isascii()


@pytest.mark.parametrize("to", [">&-", ">/dev/full"])
def test_output_that_is_lost_is_an_error_and_files_are_written(run: Path, tmp_path: Path,
                                                               to: str) -> None:
    out = tmp_path / "scores.csv"
    done = shell(f"$latlas score {run} --draws 2 --out {out} {to}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write to standard output: ")
    assert len(done.stderr.splitlines()) == 1
    assert len(out.read_text().splitlines()) > 100
    for line in ("--help", "models", "score --help", "--version"):
        done = shell(f"$latlas {line} {to}")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, (line, done.stderr)


@pytest.mark.parametrize("to", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_messages_that_are_lost_stop_nothing(run: Path, tmp_path: Path, to: str) -> None:
    done = shell(f"$latlas train ae --images 64 --set width=8 --set depth=1 --set threads=1 "
                 f"--out {tmp_path}/ae {to}")
    assert done.returncode == 0 and "is trained" in done.stdout
    assert (tmp_path / "ae/model.safetensors").is_file()
    assert shell(f"$latlas sample nothing {to}").returncode == 2


def test_bytes_that_are_no_utf8_in_every_path(tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / BYTES
    data.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(data / f"{i:02d}{BYTES}.png")
    run = tmp_path / f"run {BYTES}"
    tiny = [f"--set={k}={SETTINGS[k]}" for k in ("width", "depth", "latent_dim", "threads")]
    assert cli.run(["train", "vae", "--data", str(data), "--images", "64", "--out", str(run),
                    *tiny]) == 0
    for tokens in (["data", "info", data], ["data", "pack", data, tmp_path / f"packed{BYTES}"],
                   ["sample", run], ["encode", run, "--out", run / f"{BYTES}.csv"],
                   ["encode", run, "--out", run / f"{BYTES}.parquet"], ["report", run],
                   ["score", run, "--draws", "2", "--out", run / "s.csv"], ["outliers", run,
                    "--fpr", "0.5", "--method", "error"],
                   ["reconstruct", run, "--out", f"{run}/out/"], ["evaluate", run, "--draws", "2"]):
        assert cli.run([str(t) for t in tokens]) == 0, (tokens, capsys.readouterr().err[-500:])
    names = {p.name for p in (run / "out").glob("*.png")}
    assert names and all(n.endswith("caf%E9.png") for n in names)
    done = shell(f"$latlas sample {tmp_path}/nothing-$(printf 'caf\\xe9')")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


@pytest.fixture
def hangup() -> Iterator[None]:
    """Processes that are started hear SIGHUP, also where the tests run under ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_closes_saves_the_training(tmp_path: Path, number: int) -> None:
    tokens = ["train", "ae", "--images", "10M", "--set", "width=8", "--set", "depth=1", "--set",
              "threads=1", "--out", str(tmp_path / "run")]
    with subprocess.Popen([sys.executable, "-m", "latlas.cli", *tokens], text=True,
                          env={**os.environ, "PYTHONPATH": ROOT}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run/metrics.jsonl").is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error
    assert (tmp_path / "run/checkpoint.safetensors").is_file()


@pytest.mark.parametrize("verb", ["sample", "encode", "report", "outliers", "audit", "weights",
                                  "reconstruct", "traverse", "interpolate", "project"])
def test_a_place_that_cannot_be_written_is_noticed_before_the_work(
        run: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    def read_only(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    monkeypatch.setattr("latlas.run.Run.open", lambda *_, **__: pytest.fail("data were opened"))
    monkeypatch.setattr("latlas.run.Run.model", property(lambda _: pytest.fail("loaded")))
    assert cli.run([verb, str(run)]) == 2
    line = capsys.readouterr().err
    assert f"error: cannot save {run}" in line and "Read-only file system" in line
    assert "--out PATH" in line
    with pytest.raises(RunError, match="cannot save"):
        getattr(latlas, verb)(run, out=tmp_path / "a.png")


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_packing_that_is_killed_leaves_nothing_that_stays(tmp_path: Path, number: int) -> None:
    code = ("import sys, os, signal; from latlas.cli import __main__ as cli, surroundings\n"
            "import latlas.data.packed as packed; surroundings.prepare()\n"
            f"packed.write = lambda *a: os.kill(os.getpid(), {int(number)})\n"
            "sys.exit(cli.run(['data', 'pack', 'digits', sys.argv[1]]))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "packed")], text=True,
                          env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, check=False)
    assert done.returncode == (-9 if number == signal.SIGKILL else 128 + number), done.stderr
    left = list(tmp_path.iterdir())
    assert len(left) == (number == signal.SIGKILL)
    pack("digits", tmp_path / "packed")
    assert [p.name for p in tmp_path.iterdir()] == ["packed"]


def test_a_part_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    from latlas.core.files import alone

    other = tmp_path / ".packed.0123abcd"
    other.mkdir()
    with alone(other):
        pack("digits", tmp_path / "packed")
        assert other.is_dir()
    with pytest.raises(DataError):
        pack("digits", tmp_path / "packed")


def test_json_of_such_paths_is_strict(run: Path, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sample", str(run), "--out", str(tmp_path / f"{BYTES}.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["out"].endswith(f"{BYTES}.png")
