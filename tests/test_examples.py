"""The scripts in examples/ run as they stand and write what they say."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

import latlas
from latlas.data import split

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True, params=["here", pytest.param("process", marks=pytest.mark.slow)])
def _place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs its script in this process; among the slow tests in a process of its own."""
    monkeypatch.setitem(globals(), "run", {"here": run_here, "process": run}[request.param])


def run(folder: Path, script: str, *arguments: str) -> str:
    """The script in a process of its own, in an empty folder; what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, str(EXAMPLES / script), *arguments], cwd=folder,
                          env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def run_here(folder: Path, script: str, *arguments: str) -> str:
    """The same without the seconds in which a process imports torch."""
    path = EXAMPLES / script
    with (pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder),
          contextlib.redirect_stdout(io.StringIO()) as out):
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.syspath_prepend(EXAMPLES)
        runpy.run_path(str(path), run_name="__main__")
    return out.getvalue()


def functions(script: str) -> dict[str, Any]:
    """What a script defines."""
    return runpy.run_path(str(EXAMPLES / script))


def cells(sheet: Path, side: int, columns: int) -> np.ndarray:
    """The images of a sheet, (rows, columns, side, side, 3), as small as they were."""
    grid, gap = np.asarray(Image.open(sheet).convert("RGB")), 3
    cell = (grid.shape[1] - gap) // columns
    rows = (grid.shape[0] - gap) // cell
    assert grid.shape[:2] == (rows * cell + gap, columns * cell + gap)
    large = grid[gap:, gap:].reshape(rows, cell, columns, cell, 3)[:, :cell - gap, :, :cell - gap]
    return large[:, ::(cell - gap) // side, :, ::(cell - gap) // side].swapaxes(1, 2)


def first(x: np.ndarray) -> np.ndarray:
    """Images with their channels last, channels first."""
    return np.moveaxis(x, -1, 1)


def large_digits() -> np.ndarray:
    """The digits of 16 pixels, ink 0 … 16: (n, 16, 16)."""
    return latlas.open_data("digits", "all").take("x")[:, 0].repeat(2, 1).repeat(2, 2)


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
    frames_dir, drawn, truth = (rows[:, :, gap + k * cell:][:, :, :8 * times] for k in (0, 1, 7))
    half = 4 * times
    assert (frames_dir[:, :, :half] == truth[:, :, :half]).all()
    assert (drawn[:, :, :half] == truth[:, :, :half]).all()
    assert (frames_dir[:, :, half:] == 0).all()
    assert (truth[:, :, half:] > 0).any()


def test_one_speaker_to_another(tmp_path: Path) -> None:
    said = run(tmp_path, "one_speaker_to_another.py", "--images", "64", "--out", "made", "--run",
               "kept")
    files = sorted((tmp_path / "made").glob("*.wav"))
    assert f"wrote {len(files)} recordings" in said and 5 <= len(files) <= 7  # of 60
    script, pitches = functions("one_speaker_to_another.py"), []
    inputs = script["synthetic"](tmp_path / "low", *script["LOW"], seed=0)
    for file in files:
        (rate, x), (_, theirs) = (wavfile.read(p) for p in (file, inputs / file.name))
        x, theirs = x / 32768, theirs / 32768
        assert rate == 4000 and len(x) == len(theirs)  # as long and as loud, and another sound
        assert np.square(x).mean() == pytest.approx(np.square(theirs).mean(), rel=0.03)
        assert np.abs(np.corrcoef(x, theirs)[0, 1]) < 0.95
        pitches.append([script["pitch"](Namespace(x=v, rate=rate)) for v in (theirs, x)])
    before, after = np.median(pitches, 0)
    assert 95 < before < 120
    assert f"median pitch {before:.0f} Hz before, {after:.0f} Hz after" in said
    (again,) = latlas.translate(tmp_path / "kept", inputs / files[0].name)
    np.testing.assert_allclose(again.x, wavfile.read(files[0])[1] / 32768, atol=1e-4)
    with Image.open(tmp_path / "made-sheet.png") as sheet:  # rows of two recordings, 64 bins
        assert sheet.height == -(-len(files) // 2) * (64 + 3) + 3


def test_geometry(tmp_path: Path) -> None:
    lines = run(tmp_path, "geometry.py", "--images", "2e3").splitlines()
    line, geodesic, exact = (float(text.split()[i]) for text, i in zip(
        lines[1:4], (-1, -3, -1), strict=True))
    assert geodesic == pytest.approx(exact, abs=1e-8) and line > 1.2 * exact
    assert "on the sheet" in lines[4] and lines[-1].startswith("As a chart: rank 2")
    for name in ("sphere.png", "geometry.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size[0] > 500


def test_weights_elsewhere(tmp_path: Path) -> None:
    said = run(tmp_path, "weights_elsewhere.py", "--images", "1.5e4").splitlines()
    assert float(said[0].split("weigh ")[1].split()[0]) > 2
    sampler = [float(word.strip(",")) for word in said[1].split() if word[0] == "0"]
    assert sampler[1] > sampler[0] + 0.1
    assert said[2].startswith("sample_weight")
    assert (tmp_path / "weights.parquet").is_file()


def test_edges_to_pictures(tmp_path: Path) -> None:
    said = run(tmp_path, "edges_to_pictures.py", "--images", "64", "--out", "sheet.png", "--run",
               "kept")
    assert "72 examples" in said
    edges, translated, truth = cells(tmp_path / "sheet.png", 16, 9).reshape(
        24, 3, 16, 16, 3).swapaxes(0, 1)
    colours = np.linspace((250, 220, 60), (200, 30, 160), 16)[:, None]
    painted = (large_digits()[..., None] / 16 * colours).astype(np.uint8)
    assert all((x == painted).all((1, 2, 3)).any() for x in truth)
    padded = np.pad(truth.astype(int), ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    steep = [np.abs(padded[:, d:16 + d, 1 - d:17 - d] - truth).max(-1) > 80 for d in (0, 1)]
    np.testing.assert_array_equal(edges, np.where(steep[0] | steep[1], 255, 0)[..., None] + [0] * 3)
    again = latlas.translate(tmp_path / "kept", first(edges)[:, :1])
    np.testing.assert_array_equal(again, first(translated))


def test_recolouring(tmp_path: Path) -> None:
    said = run(tmp_path, "recolouring.py", "--images", "64", "--out", "sheet.png", "--run", "kept")
    assert "72 examples" in said
    day, night, again = (first(x) for x in cells(tmp_path / "sheet.png", 16, 9).reshape(
        24, 3, 16, 16, 3).swapaxes(0, 1))
    inked = (day != np.array((40, 110, 190))[:, None, None]).any(1)
    digits = large_digits()[::2] > 0
    assert all((x == digits).all((1, 2)).any() for x in inked)
    model = tmp_path / "kept"
    np.testing.assert_array_equal(night, latlas.translate(model, day, to="B"))
    np.testing.assert_array_equal(again, latlas.translate(model, night, to="A"))


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


@pytest.mark.parametrize("source", ["films", "films/1.gif"])
def test_next_frame_of_own_films(source: str, tmp_path: Path) -> None:
    films = [frames(tmp_path / f"films/{k}") for k in range(3)]
    said = run(tmp_path, "next_frame.py", source, "--image-size", "16", "--images", "64",
               "--pairs", "16", "--out", "strip.png")
    names = [line.split(":")[0] for line in said.splitlines() if ": L1 " in line]
    assert names == ["the still itself", "one draw of the VAE", "pix2pix", "the best of 5 draws"]
    sheet = np.asarray(Image.open(tmp_path / "strip.png").convert("L"))
    times, gap = (sheet.shape[1] - 9 * 3) // (8 * 16), 3
    columns = [sheet[gap:gap + 16 * times:times, gap + k * (16 * times + gap):]
               [:, :16 * times:times] for k in (0, 7)]
    # a film's end is unseen, or a whole film
    first = len(films[0]) - 2 if source.endswith("gif") else 0
    for result, true in zip(columns, films[0][first:], strict=False):
        assert np.abs(result.astype(int) - np.asarray(true)[:, :, 0]).max() <= 2
    still, drawn, best = (float(line.split("L1 ")[1].split(",")[0]) for line in
                          (x for x in said.splitlines() if ": L1 " in x and "pix" not in x))
    assert still > 0 and best <= drawn


def test_next_frame_of_films_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(tmp_path, "next_frame.py", "--images", "64", "--pairs", "16", "--out", "a.png")
    assert "64 examples" in said
    rows = cells(tmp_path / "a.png", 16, 8)[..., 0].astype(int)
    assert len(rows) == 8
    for still, *drawn, _, truth in rows:
        balls = [x > 0.6 * x.max() for x in (still, truth)]  # their tails are half as bright
        moved = [np.roll(balls[0], step, axis) for step in (3, -3) for axis in (0, 1)]
        assert any((ball == balls[1]).all() for ball in moved)
        assert len({x.tobytes() for x in drawn}) == 5
    monkeypatch.syspath_prepend(EXAMPLES)  # it takes a function of another script
    ball = functions("next_frame.py")["ball"]
    films = [ball(np.random.default_rng(seed)).astype(int) for seed in range(180, 200)]
    rest = np.mean([np.abs(np.diff(film, axis=0)) for film in films]) / 255
    assert f"the still itself: L1 {rest:.4f}, PSNR" in said
    stills = {frame.tobytes() for film in films for frame in film[:-1]}
    assert all(row[0].tobytes() in stills for row in rows)


def test_scenes_made_up(tmp_path: Path) -> None:
    said = run(tmp_path, "map_to_scene.py", "--images", "64", "--out", "b.png", "--run", "kept")
    assert "24 rows" in said
    source = functions("map_to_scene.py")["source_of"](Namespace(scenes=None))
    train, test = split(source, "train"), split(source, "test")
    (ids, scenes), (maps, truth) = (
        (part.a.take("x").argmax(1), part.b.take("x").astype(int)) for part in (train, test))
    translated = latlas.translate(tmp_path / "kept", test)
    flat = np.stack([np.median(np.moveaxis(scenes, 1, -1)[ids == k], 0) for k in range(6)])
    flat = first(flat[maps].round())
    for name, x in (("pix2pix", translated), ("one colour for each class", flat)):
        assert f"{name}: L1 {np.abs(x - truth).mean() / 255:.4f}, PSNR" in said
    columns = cells(tmp_path / "b.png", 24, 9).reshape(24, 3, 24, 24, 3).swapaxes(0, 1)
    for x, expected in zip(columns, (maps[:, None] * 51, translated, truth), strict=True):
        np.testing.assert_array_equal(first(x), np.broadcast_to(expected[:24], (24, 3, 24, 24)))


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
