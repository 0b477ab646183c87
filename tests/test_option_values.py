"""Every option of every command with values that make no sense: a result or one line, at once."""

from __future__ import annotations

import inspect
import math
import types
import typing
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import latlas
from latlas.cli import __main__ as cli
from latlas.cli.commands import COMMANDS
from latlas.cli.derive import as_command
from latlas.core.errors import ConfigError, DataError
from latlas.data.opening import open_source

SETTINGS = {"threads": 1, "precision": "fp32", "progress": False}
SMALL = {"images": 64, "width": 8, "depth": 1, **SETTINGS}
#: what comes after a command; RUN stands for the folder of runs
FIRST = {"train": "vae --data data --images 16 --set threads=1 --set width=8 --set depth=1",
         "data info": "data", "data pack": "data packed", "compare": "RUN/vae RUN/dae",
         "decode": "RUN/vae z.npz", "translate": "RUN/pix", "mix": "RUN/sg", "denoise": "RUN/dae",
         "classify": "RUN/deb", "fit-prior": "RUN/own --images 16 --set threads=1"}
#: options that only take time, or more of it, where they are large
LONG = {"--draws", "--temperatures", "--leapfrog", "--samples", "--minutes", "--images", "--epochs"}


def options() -> list[tuple[str, str, type]]:
    found = []
    for name, entry in COMMANDS.items():
        if name in ("demo", "models"):
            continue
        module, _, function = entry.target.partition(":")
        command = as_command(name, getattr(import_module(module), function))
        for p in inspect.signature(command).parameters.values():
            kinds = [p.annotation.__origin__]
            if isinstance(kinds[0], types.UnionType) or typing.get_origin(kinds[0]) is typing.Union:
                kinds = list(typing.get_args(kinds[0]))
            if p.kind is p.KEYWORD_ONLY and kinds[0] is not bool:
                mark = p.annotation.__metadata__[0]
                flag = mark.name[0] if mark.name else f"--{p.name.replace('_', '-')}"
                found.append((name, flag, kinds[0]))
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("options")
    rng = np.random.default_rng(0)
    for name, shape in (("data", (8, 8)), ("pair/A", (16, 16, 3)), ("pair/B", (16, 16, 3))):
        (home / name).mkdir(parents=True)
        for i in range(12):
            image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
            image.save(home / name / f"p{i:02d}.png")
    latlas.train("vae", str(home / "data"), out=home / "vae", latent_dim=3, **SMALL)
    latlas.train("vae", str(home / "data"), out=home / "own", latent_dim=3, **SMALL)
    latlas.train("dae", "digits", out=home / "dae", **SMALL)
    latlas.train("debiasing-vae", "digits", out=home / "deb", **SMALL)
    latlas.train("pix2pix", str(home / "pair"), out=home / "pix", images=16, width=4, **SETTINGS)
    latlas.train("style-gan", str(home / "data"), out=home / "sg", images=16, width=8, **SETTINGS)
    np.savez(home / "z.npz", latents=np.zeros((3, 3), np.float32))
    return home


@pytest.mark.parametrize(("name", "flag", "kind"), options())
def test_values_that_make_no_sense_are_one_line(
        home: Path, tmp_path: Path, name: str, flag: str, kind: type,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(home / "data")
    (tmp_path / "z.npz").symlink_to(home / "z.npz")
    first = FIRST.get(name, "RUN/vae").replace("RUN", str(home)).split()
    values = ["", "nan", "-1", "-5000000000"]
    if kind in (int, float):
        values += ["0", "inf"] if flag in LONG else ["0", "inf", "1000000000000"]
    for value in values:
        tokens = [*name.split(), *first, f"{flag}={value}"]
        if name == "train" and flag != "--out":
            tokens.append("--out=run")
        code = cli.run(tokens)
        line = capsys.readouterr().err.strip().splitlines()[-1:]
        assert code in (0, 2), tokens
        assert code == 0 or line[0].startswith("error: "), tokens
        numeric = kind in (int, float)
        if not value or (numeric and not math.isfinite(float(value))):
            assert code == 2, tokens
        if numeric and flag not in ("--truncation",) and value.startswith("-"):
            assert code == 2, tokens


@pytest.mark.parametrize("tokens", [
    "evaluate RUN/vae --factors size", "evaluate RUN/vae --factors size --metrics likelihood",
    "evaluate RUN/vae --factors ,", "evaluate RUN/vae --metrics ,", "evaluate RUN/vae --to A",
    "traverse RUN/vae --span 0", "traverse RUN/vae --dims ,", "directions RUN/vae --example -1",
    "sample RUN/vae --seed -1", "evaluate RUN/vae --samples 0", "score RUN/vae --block 512",
    "sample RUN/vae --n 1000000000000", "interpolate RUN/vae --steps 100000000",
    "traverse RUN/vae --steps 100000000", "project RUN/vae --steps 100000000",
    "directions RUN/vae --steps 100000000", "interpolate RUN/sg --data digits",
    "data info moons --data-option seed=-1", "data info moons --data-option noise=nan",
    "data info moons --data-option noise=-1", "data info moons --data-option n=1000000000000",
    "data info shapes --data-option seed=-1", "data info digits --label colour",
    "data info RUN/data --image-size 1000000000000", "train vae --set beta=nan",
    "train vae --set beta=inf", "train vae --set seed=-1", "train dae --set noise=nan",
    "train vae --epochs 0", "train vae --minutes nan"])
def test_options_that_were_accepted_without_a_word_are_refused(
        home: Path, tmp_path: Path, tokens: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(tokens.replace("RUN", str(home)).split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([x for x in lines if x.startswith("error: ")]) == 1 and lines[-1].startswith("error")
    assert not any((tmp_path / "runs").glob("*/model.safetensors"))


def test_the_same_from_python(home: Path) -> None:
    run = home / "vae"
    for call in (lambda: latlas.sample(run, seed=-1), lambda: latlas.traverse(run, span=np.nan),
                 lambda: latlas.sample(run, out=""), lambda: latlas.directions(run, item=-1),
                 lambda: latlas.score(run, draws=0), lambda: latlas.outliers(run, fpr=np.nan),
                 lambda: latlas.sample(run, 10**12)):
        with pytest.raises(ConfigError):
            call()
    with pytest.raises(DataError):
        open_source("moons", noise=float("nan"))
