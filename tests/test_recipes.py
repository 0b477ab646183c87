"""The commands of docs/recipes.md run as they stand, on tiny files of the forms it names."""

from __future__ import annotations

import re
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latlas.cli import __main__ as cli

PAGE = (Path(__file__).parents[1] / "docs/recipes.md").read_text("utf-8")
COMMANDS = re.findall(r"^    latlas (.+)$", PAGE, re.M)
#: in place of hours
SMALL = ("--images", "96", *(part for setting in ("batch_size=16", "width=4", "threads=1",
                                                  "precision=fp32") for part in ("--set", setting)))
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
rng = np.random.default_rng(0)


def faces(folder: Path, n: int = 60) -> None:
    """CelebA's layout, and a folder with a table of one's own."""
    rows = [str(n), "Bald Smiling"]
    for i in range(1, n + 1):
        image(folder / f"celeba/img_align_celeba/{i:06}.jpg", (27, 22, 3))
        image(folder / f"faces/{i}.png", (20, 20, 3))
        rows.append(f"{i:06}.jpg  -1 {(-1) ** i:2}")
    (folder / "celeba/list_attr_celeba.txt").write_text("\n".join(rows) + "\n")
    (folder / "celeba/list_eval_partition.txt").write_text("".join(
        f"{i:06}.jpg {(i > 40) + (i > 50)}\n" for i in range(1, n + 1)))
    (folder / "faces.csv").write_text("file,glasses,age\n" + "".join(
        f"{i}.png,{'yes' if i % 3 else 'no'},{20 + i}\n" for i in range(1, n + 1)))


def image(path: Path, shape: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)


def numbers(folder: Path) -> None:
    """SVHN's two files."""
    from scipy.io import savemat

    (folder / "svhn").mkdir()
    for part, n in (("train", 60), ("test", 40)):
        savemat(folder / f"svhn/{part}_32x32.mat", {
            "X": rng.integers(0, 256, (32, 32, 3, n), np.uint8),
            "y": (1 + np.arange(n) % 10).astype(np.uint8)[:, None]})


def things(folder: Path) -> None:
    """CIFAR's binary batches, as a folder and packed."""
    ten = {f"data_batch_{i}.bin": records(30, 10) for i in (1, 2)}
    ten |= {"test_batch.bin": records(40, 10), "batches.meta.txt": "\n".join(NAMES).encode()}
    hundred = {"train.bin": records(60, 20, 100), "test.bin": records(40, 20, 100)}
    for name, held_out in (("cifar-10", ten), ("cifar-100", hundred)):
        inside = folder / f"{name}-batches-bin"
        inside.mkdir()
        for file, data in held_out.items():
            (inside / file).write_bytes(data)
        with tarfile.open(folder / f"{name}-binary.tar.gz", "w:gz") as archive:
            archive.add(inside, inside.name)


def records(n: int, *classes: int) -> bytes:
    """Label bytes, each of so many classes in turn, and 3 × 32 × 32 pixels."""
    heads = np.stack([np.arange(n) % k for k in classes], 1).astype(np.uint8)
    return np.concatenate([heads, rng.integers(0, 256, (n, 3072), np.uint8)], 1).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("recipes")
    for make in (faces, numbers, things):
        make(base)
    return base


@pytest.mark.slow
def test_every_recipe_runs(folder: Path, monkeypatch: pytest.MonkeyPatch,
                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    said = {}
    for command in COMMANDS:
        assert cli.run(small(command)) == 0, (command, capsys.readouterr().err)
        said[command] = capsys.readouterr().out
    written = {match for c in COMMANDS for match in re.findall(r"--out (\S+)", c)}
    assert len(COMMANDS) == len(said) and all((folder / path).exists() for path in written)
    info = "\n".join(text for command, text in said.items() if command.startswith("data info"))
    assert all(name in info for name in ("Smiling", "frog"))


def small(command: str) -> list[str]:
    """The command on small images, with a budget of a few steps in place of its minutes."""
    words = shlex.split(command.replace("--image-size 64", "--image-size 16"))
    if words[0] != "train":
        return words
    at = words.index("--minutes")
    return words[:at] + words[at + 2:] + list(SMALL)
