"""A folder of results belongs to one command: results.json, going on, and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import latlas
from latlas.cli import __main__ as cli
from latlas.verbs.results import MANIFEST

SETTINGS = {"images": 64, "width": 8, "depth": 1, "latent_dim": 3, "threads": 1,
            "precision": "fp32", "progress": False}


def pictures(folder: Path, names: list[str], seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("results")
    pictures(home / "data", [f"p{i:02d}.png" for i in range(24)])
    for seed in (0, 1):
        latlas.train("vae", str(home / "data"), out=home / f"run{seed}", seed=seed, **SETTINGS)
    return home


def said(capsys: pytest.CaptureFixture[str], *tokens: object, code: int = 0) -> str:
    capsys.readouterr()
    assert cli.run([str(t) for t in tokens]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return err if code else out


NAMES = ["a b.png", "a_b.png", "a_b_00001.png", "a/x.png", "b/x.png", "b/X.png", "猫.jpg",
         "n" * 247 + ".png"]


def test_every_picture_has_a_file_of_its_own_name(home, tmp_path, capsys):
    new, out = pictures(tmp_path / "new", NAMES), tmp_path / "out"
    line = ["reconstruct", home / "run0", "--data", new, "--out", f"{out}/"]
    assert f"wrote {len(NAMES)} images" in said(capsys, *line)
    files = {p.relative_to(out).as_posix() for p in out.rglob("*.png")}
    assert files == {n if n.endswith(".png") else f"{n}.png" for n in NAMES}
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(new / "a_b.png", alone / "a_b.png")
    said(capsys, "reconstruct", home / "run0", "--data", alone, "--out", tmp_path / "one/")
    assert (tmp_path / "one/a_b.png").read_bytes() == (out / "a_b.png").read_bytes()


def test_the_same_command_goes_on_and_says_when_all_is_there(home, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["reconstruct", home / "run0", "--split", "all", "--out", f"{out}/"]
    assert "wrote 24 images" in said(capsys, *line)
    before = {p: p.read_bytes() for p in out.iterdir()}
    (out / "p03.png").unlink()
    assert "wrote 1 image to" in (text := said(capsys, *line)) and "23 were there" in text
    assert "is complete" in said(capsys, *line)
    assert {p: p.read_bytes() for p in out.iterdir()} == before
    note = json.loads((out / MANIFEST).read_text())
    assert note["verb"] == "reconstruct" and note["run"] == "run0" and len(note["weights"]) == 32


def test_results_of_anything_else_are_refused_with_what_differs(home, tmp_path, capsys):
    out = tmp_path / "out"
    said(capsys, "reconstruct", home / "run0", "--split", "all", "--out", f"{out}/")
    before = {p: p.read_bytes() for p in out.iterdir()}
    other = pictures(tmp_path / "other", ["p00.png"], seed=1)
    for tokens, words in (
            (["reconstruct", home / "run1", "--split", "all"], "another run (run0 there, run1 ask"),
            (["reconstruct", home / "run0", "--data", other], "other data"),
            (["reconstruct", home / "run0", "--split", "all", "--n", "3"], "other data"),
            (["sample", home / "run0"], "of `reconstruct`, not of `sample`")):
        line = said(capsys, *tokens, "--out", f"{out}/", code=2)
        assert words in line and f"name another folder, or remove {out}" in line
    assert {p: p.read_bytes() for p in out.iterdir()} == before


def test_options_are_named(home, tmp_path, capsys):
    line = ["sample", home / "run0", "--n", "3", "--out", f"{tmp_path}/out/"]
    said(capsys, *line)
    assert "complete" in said(capsys, *line)
    error = said(capsys, *line, "--seed", "4", code=2)
    assert "other options: seed is 0 there, 4 asked" in error


def test_other_peoples_files_are_not_taken_for_results(home, tmp_path, capsys):
    new = pictures(tmp_path / "new", ["a.png", "b.png"])
    before = (new / "a.png").read_bytes()
    line = said(capsys, "reconstruct", home / "run0", "--data", new, "--out", f"{new}/", code=2)
    assert "holds a.png already, and no results.json" in line
    assert (new / "a.png").read_bytes() == before and not (new / MANIFEST).exists()


@pytest.mark.parametrize("text", ["", "[]", '{"verb": 3}', '{"format": 1, "new": 2}'])
def test_a_damaged_manifest_is_named(home, tmp_path, capsys, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text(text)
    line = said(capsys, "sample", home / "run0", "--out", tmp_path / "out", code=2)
    assert "results.json cannot be read" in line
