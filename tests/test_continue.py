"""More budget for a finished run: `latlas train --continue RUN`."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import latlas
from latlas.cli import __main__ as cli
from latlas.core.errors import ConfigError, RunError

QUICK = {"batch_size": 16, "threads": 1, "precision": "fp32", "progress": False}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(
            tmp_path / f"photos/{i}.png")
    latlas.train("vae", {"source": str(tmp_path / "photos"), "image_size": 16}, images=320,
                 latent_dim=3, width=4, network="conv", out=tmp_path / "run", **QUICK)
    return tmp_path


def test_a_run_goes_on_from_its_weights_in_a_folder_of_its_own(folder):
    before = latlas.load(folder / "run")
    run = latlas.continue_training(folder / "run", images=160, learning_rate=1e-9, **QUICK)
    assert run.path == folder / "run-2" and run.outcome.images == 160
    assert run.config == before.config and run.space == before.space
    for name, value in before.model.state_dict().items():  # the rate moves nothing
        assert torch.allclose(value, run.model.state_dict()[name], atol=1e-6)
    further = latlas.continue_training(folder / "run-2", images=160, **QUICK)
    assert further.path == folder / "run-2-2"
    assert (folder / "run/model.safetensors").is_file()


def test_on_new_data_in_the_units_of_the_run(folder):
    """Of another size and mode, brought to the run's; and the new run reads them so again."""
    (folder / "new").mkdir()
    rng = np.random.default_rng(1)
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (50, 50), np.uint8)).save(folder / f"new/{i}.png")
    run = latlas.continue_training(folder / "run", folder / "new", images=160, **QUICK)
    assert run.space.shape == (3, 16, 16)
    again = latlas.load(run.path).open(None, "all")
    assert again.x.shape[1:] == (3, 16, 16) and len(again) == 30


def test_an_unfinished_continuation_is_taken_up(folder):
    run = latlas.continue_training(folder / "run", images=160, **QUICK)
    shutil.copytree(run.path, folder / "whole")
    (run.path / "model.safetensors").unlink()
    assert latlas.continue_training(folder / "run", images=160, **QUICK).path == run.path
    assert latlas.continue_training(folder / "run", images=160, **QUICK).path == folder / "run-3"


def test_what_cannot_go_on_is_refused(folder, capsys):
    with pytest.raises(ConfigError, match="latent_dim belongs to the model, which stays"):
        latlas.continue_training(folder / "run", images=160, latent_dim=7)
    (folder / "run/model.safetensors").rename(folder / "kept")
    with pytest.raises(RunError, match="not trained to its end"):
        latlas.continue_training(folder / "run", images=160)
    (folder / "kept").rename(folder / "run/model.safetensors")
    assert cli.run(["train", "gan", "--continue", str(folder / "run")]) != 0
    assert "a run of vae, not of gan" in capsys.readouterr().err


def test_from_the_command_line(folder, capsys):
    assert cli.run(["train", "--continue", str(folder / "run"), "--images", "160", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == 160 and facts["run"] == str(folder / "run-2")
