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
    assert "64 examples" in said
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


def test_one_speaker_to_another(tmp_path: Path) -> None:
    said = run(tmp_path, "one_speaker_to_another.py", "--images", "64", "--out", "made", "--run",
               "kept")
    files = list((tmp_path / "made").glob("*.wav"))
    assert f"wrote {len(files)} recordings" in said and len(files) >= 5
    assert (tmp_path / "made-sheet.png").is_file() and (tmp_path / "kept/run.json").is_file()


def test_weights_elsewhere(tmp_path: Path) -> None:
    said = run(tmp_path, "weights_elsewhere.py", "--images", "1.5e4").splitlines()
    assert float(said[0].split("weigh ")[1].split()[0]) > 2
    sampler = [float(word.strip(",")) for word in said[1].split() if word[0] == "0"]
    assert sampler[1] > sampler[0] + 0.1
    assert said[2].startswith("sample_weight")
    assert (tmp_path / "weights.parquet").is_file()


@pytest.mark.parametrize("script", ["edges_to_pictures.py", "recolouring.py"])
def test_translations(script: str, tmp_path: Path) -> None:
    said = run(tmp_path, script, "--images", "64", "--out", "sheet.png", "--run", "kept")
    assert "72 examples" in said
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


def frames(folder: Path, n: int = 6) -> list[Image.Image]:
    """A film of a square that moves two pixels to the right, as files and as a GIF beside them."""
    film = []
    folder.mkdir(parents=True)
    for i in range(n):
        x = np.zeros((16, 16, 3), np.uint8)
        x[6:10, 2 * i:2 * i + 4] = 255
        film.append(Image.fromarray(x))
        film[-1].save(folder / f"{i:02}.png")
    film[0].save(folder.with_suffix(".gif"), save_all=True, append_images=film[1:], duration=40)
    return film


@pytest.mark.parametrize("given", ["films", "films/1.gif"])
def test_next_frame_of_own_films(given: str, tmp_path: Path) -> None:
    films = [frames(tmp_path / f"films/{k}") for k in range(3)]
    said = run(tmp_path, "next_frame.py", given, "--image-size", "16", "--images", "64",
               "--pairs", "16", "--out", "strip.png")
    names = [line.split(":")[0] for line in said.splitlines() if ": L1 " in line]
    assert names == ["the still itself", "one draw of the VAE", "pix2pix", "the best of 5 draws"]
    sheet = np.asarray(Image.open(tmp_path / "strip.png").convert("L"))
    times, gap = (sheet.shape[1] - 9 * 3) // (8 * 16), 3
    shown = [sheet[gap:gap + 16 * times:times, gap + k * (16 * times + gap):][:, :16 * times:times]
             for k in (0, 7)]
    # a film's end is unseen, or a whole film
    first = len(films[0]) - 2 if given.endswith("gif") else 0
    for found, true in zip(shown, films[0][first:], strict=False):
        assert np.abs(found.astype(int) - np.asarray(true)[:, :, 0]).max() <= 2
    still, drawn, best = (float(line.split("L1 ")[1].split(",")[0]) for line in
                          (x for x in said.splitlines() if ": L1 " in x and "pix" not in x))
    assert still > 0 and best <= drawn


def test_next_frame_and_scenes_made_up(tmp_path: Path) -> None:
    said = run(tmp_path, "next_frame.py", "--images", "64", "--pairs", "16", "--out", "a.png")
    assert "64 examples" in said and (tmp_path / "a.png").is_file()
    said = run(tmp_path, "map_to_scene.py", "--images", "64", "--out", "b.png", "--run", "kept")
    assert "24 rows" in said and (tmp_path / "b.png").is_file()
    assert (tmp_path / "kept/model.safetensors").is_file()


def test_scenes_of_own_maps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for side in "AB":
        (tmp_path / "mine" / side).mkdir(parents=True)
    colours = np.array([(10, 20, 30), (200, 100, 50), (0, 250, 0)], np.uint8)
    for i in range(40):
        ids = rng.integers(0, 3, (4, 4), np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(ids * 7).save(tmp_path / f"mine/A/{i}.png")
        Image.fromarray(colours[ids]).save(tmp_path / f"mine/B/{i}.png")
    said = run(tmp_path, "map_to_scene.py", "mine", "--image-size", "16", "--minutes", "0.01",
               "--out", "b.png")
    # a class has one colour here, so the control is the truth
    assert "one colour for each class: L1 0.0000, PSNR inf dB" in said


@pytest.mark.parametrize("script", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_every_example_says_how_it_is_used(script: str) -> None:
    assert f"python examples/{script}" in (EXAMPLES / script).read_text()
    assert script in (ROOT / "docs/index.md").read_text()
