"""`latlas runs`: what it lists, and that it deletes runs and nothing else."""

import json
import shutil

import pytest

import latlas
from latlas.core.errors import RunError
from latlas.core.files import alone
from latlas.core.record import read_run

QUICK = {"images": 128, "batch_size": 64, "threads": 1, "progress": False, "latent_dim": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    latlas.train("vae", "digits", out=folder / "a/vae", **QUICK)
    latlas.train("pca", "digits", out=folder / "pca", latent_dim=2, progress=False)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


def test_runs_are_listed_with_what_they_say_of_themselves(folder):
    (folder / "notes").mkdir()
    vae, pca = latlas.runs(folder).runs
    assert (vae.path, vae.model, vae.data, vae.state) == (str(folder / "a/vae"), "vae", "digits",
                                                         "finished")
    assert vae.images == 128 and vae.loss is not None and not vae.prior
    assert vae.size == sum(f.stat().st_size for f in (folder / "a/vae").iterdir())
    assert "2 steps" in vae.note and pca.note == "" and pca.model == "pca"
    assert "held-out loss" in latlas.runs(folder).text()


def test_damaged_and_unfinished_runs_are_listed_as_such(folder):
    (folder / "pca/run.json").write_text("{")
    (folder / "a/vae/model.safetensors").unlink()
    with (folder / "a/vae/metrics.jsonl").open("a") as log:
        log.write('{"images": 64, "validation/loss": 12.5}\n{"images": 1')
    vae, pca = latlas.runs(folder).runs
    assert pca.state == "damaged" and "run.json" in pca.note
    assert (vae.state, vae.images, vae.loss) == ("not begun", 64, 12.5)


def test_only_runs_are_deleted_and_all_or_none(folder):
    (folder / "mine").mkdir()
    (folder / "mine/thesis.txt").write_text("years")
    with pytest.raises(RunError, match=r"mine: that is no run folder .* nothing was deleted"):
        latlas.runs(folder, delete=(folder / "pca", folder / "mine"))
    (folder / "link").symlink_to(folder / "pca")
    with pytest.raises(RunError, match="that is a link"):
        latlas.runs(folder, delete=folder / "link")
    with alone(folder / "pca"), pytest.raises(RunError, match="being trained"):
        latlas.runs(folder, delete=folder / "pca")
    assert (folder / "pca/run.json").is_file()
    result = latlas.runs(folder, delete=folder / "pca")
    assert not (folder / "pca").exists() and (folder / "mine/thesis.txt").is_file()
    assert [run.model for run in result.runs] == ["vae"] and result.freed > 1000
    assert json.loads(json.dumps(result.facts()))["deleted"] == [str(folder / "pca")]


def test_a_folder_without_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no runs here" in latlas.runs().text()
    with pytest.raises(RunError, match="nothing is no folder"):
        latlas.runs("nothing")


def test_run_json_is_read_once_for_each_run(folder, monkeypatch):
    read = []
    for module in ("latlas.verbs.runs", "latlas.run"):
        monkeypatch.setattr(f"{module}.read_run", lambda path: read.append(path) or read_run(path))
    assert [run.state for run in latlas.runs(folder).runs] == ["finished", "finished"]
    assert sorted(read) == [folder / "a/vae", folder / "pca"]
