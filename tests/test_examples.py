"""The scripts in examples/ run as they stand and write what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(folder: Path, script: str, *arguments: str) -> str:
    """The script in a process of its own, in an empty folder; what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(EXAMPLES / script), *arguments], cwd=folder,
                          env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_pictures(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    for i in range(60):
        x = np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(x).save(source / f"{i}.png")
    said = run(tmp_path, "own_pictures.py", "mine", "--image-size", "8", "--images", "1e3")
    out = tmp_path / "runs/own-pictures"
    assert "report.html" in said
    assert "data:image/png;base64" in (out / "report.html").read_text()
    assert (out / "samples.png").is_file()
    with Image.open(out / "walk.gif") as film:
        assert film.n_frames > 16


def test_tables_and_outliers(tmp_path: Path) -> None:
    lines = run(tmp_path, "tables_and_outliers.py", "--images", "1e4").splitlines()
    assert [line.split()[0] for line in lines] == ["PCA", "VAE", "OutlierDetector"]
    assert all(float(line.split()[3].strip(",")) > 0.7 for line in lines)


def test_completion(tmp_path: Path) -> None:
    said = run(tmp_path, "completion.py", "--images", "2e3", "--pairs", "64",
               "--out", "strip.png")
    assert "64 items" in said
    grid = np.asarray(Image.open(tmp_path / "strip.png").convert("L"))
    times, gap = 8, 3
    cell = 8 * times + gap
    rows = grid[gap:][:8 * cell].reshape(8, cell, -1)[:, :8 * times]
    given, drawn, truth = (rows[:, :, gap + k * cell:][:, :, :8 * times] for k in (0, 1, 7))
    half = 4 * times
    assert (given[:, :, :half] == truth[:, :, :half]).all()
    assert (drawn[:, :, :half] == truth[:, :, :half]).all()
    assert (given[:, :, half:] == 0).all()
    assert (truth[:, :, half:] > 0).any()


@pytest.mark.parametrize("script", ["edges_to_pictures.py", "recolouring.py"])
def test_translations(script: str, tmp_path: Path) -> None:
    said = run(tmp_path, script, "--images", "64", "--out", "sheet.png", "--run", "kept")
    assert "72 items" in said
    assert (tmp_path / "kept/model.safetensors").is_file()
    assert np.asarray(Image.open(tmp_path / "sheet.png").convert("L")).shape[1] > 9 * 16


def test_frames(tmp_path: Path) -> None:
    said = run(tmp_path, "frames.py", "--images", "64", "--out", "clips", "--run", "kept")
    assert "clips/night.gif: " in said and "of flicker, the input 0.0" in said
    for name in ("day", "night"):
        with Image.open(tmp_path / f"clips/{name}.gif") as film:
            assert film.n_frames == 6 and film.info["duration"] == 80 and film.size == (16, 16)


def test_edges_of_own_pictures(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for i in range(30):
        x = np.full((20, 20, 3), 255, np.uint8)
        x[4:12, 5:15] = (200, i, 0)
        Image.fromarray(x).save(tmp_path / f"mine/{i}.png")
    run(tmp_path, "edges_to_pictures.py", "mine", "--image-size", "20", "--minutes", "0.01",
        "--out", "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    times, gap = (len(sheet) - 6) // 20, 3
    edges = sheet[gap:-gap:times, gap:gap + 20 * times:times]
    outline = np.zeros((20, 20), bool)
    outline[[3, 11], 5:15] = True
    outline[4:12, [4, 14]] = True
    assert ((edges == 255) == outline).all()


@pytest.mark.parametrize("script", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_every_example_says_how_it_is_used(script: str) -> None:
    assert f"python examples/{script}" in (EXAMPLES / script).read_text()
    assert script in (ROOT / "docs/index.md").read_text()
