"""A prior fitted to the codes of a run: API, command line, resuming, refusals."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import latlas
from latlas import api
from latlas.api.priors import _codes, _items
from latlas.checkpoint import run_info
from latlas.cli import __main__ as cli
from latlas.core.distributions import Normal
from latlas.core.errors import CapabilityError, ConfigError, RunError
from latlas.core.noise import Noise
from latlas.engine.progress import Silent
from latlas.tasks.codes import draw_codes

TINY = {"images": 1000, "width": 32, "depth": 1, "threads": 1, "precision": "fp32"}
FLOW = {"images": 4000, "width": 16, "depth": 1, "steps": 4, "threads": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of digits, trained for a moment, without fitted priors."""
    folder = tmp_path_factory.mktemp("runs")
    for model in ("vae", "ae", "pca", "conditional-vae"):
        own = {k: v for k, v in TINY.items() if model != "pca" or k == "threads"}
        api.train(model, "digits", out=folder / model, progress=False, **own)
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.mark.parametrize("model", ["vae", "ae", "pca"])
def test_a_run_carries_its_fitted_prior(runs: Path, model: str) -> None:
    run = runs / model
    before = api.sample(run, 200)
    done = latlas.fit_prior(run, progress=False, **FLOW)
    assert done.run == run / "prior"
    assert np.isfinite([done.own, done.fitted]).all()
    assert run_info(run / "prior").model == "flow-matching"
    np.testing.assert_array_equal(api.sample(run, 200, prior="own"), before)
    after = api.sample(run, 200, prior="fitted")
    np.testing.assert_array_equal(api.sample(run, 200), after)
    assert not np.array_equal(before, after)
    assert not np.array_equal(after, api.sample(run, 200, seed=1))
    loaded = api.load(run)
    z = loaded.fitted_prior.sample(7, Noise(0))
    assert z.shape == (7, loaded.latent_dim)
    assert loaded.fitted_prior.log_prob(z).isfinite().all()


def test_the_same_call_again_trains_nothing_and_other_settings_are_refused(runs: Path) -> None:
    first = api.fit_prior(runs / "vae", progress=False, **FLOW)
    again = api.fit_prior(runs / "vae", progress=False, **FLOW)
    assert again.outcome.stopped == "already finished"
    assert (again.own, again.fitted) == pytest.approx((first.own, first.fitted))
    with pytest.raises(RunError, match=r"made_of\.draws is 4 there, 3 asked.*; remove .*prior"):
        api.fit_prior(runs / "vae", draws=3, progress=False, **FLOW)


def test_an_interrupted_fit_ends_with_the_same_bits(runs: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(runs / "vae", tmp_path / "whole")
    whole = api.fit_prior(tmp_path / "whole", progress=False, **FLOW)
    done = []

    def stop(self: Silent, images: int) -> None:
        if images >= 2000 and not done:
            done.append(signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(Silent, "advance", stop)
    cut = api.fit_prior(runs / "vae", progress=False, **FLOW)
    assert cut.outcome.stopped == "interrupt"
    assert cut.fitted is None
    assert not hasattr(api.load(runs / "vae"), "fitted_prior")
    went_on = api.fit_prior(runs / "vae", progress=False, **FLOW)
    assert went_on.outcome.images == whole.outcome.images
    for mine, theirs in zip(went_on.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_codes_are_draws_of_the_posterior(runs: Path) -> None:
    model = api.load(runs / "vae")
    data = api.open_data(None, "validation", like=runs / "vae").subset(np.arange(3))
    codes = draw_codes(model, data, 400)
    assert codes.dtype == np.float32
    q = model.encode(torch.from_numpy(data.space.to_model(data.take("x").astype(np.float32))))
    assert isinstance(q, Normal)
    parts = codes.reshape(400, 3, -1)
    sd = torch.exp(0.5 * q.log_var).numpy()
    np.testing.assert_array_less(np.abs(parts.mean(0) - q.mean.numpy()), 5 * sd / 20)
    np.testing.assert_allclose(parts.std(0) / sd, 1, atol=0.2)
    np.testing.assert_array_equal(codes, draw_codes(model, data, 400))


def test_codes_are_of_the_items_the_run_was_trained_on(runs: Path) -> None:
    info = run_info(runs / "vae")
    items = _items(info, api.open_source_for(runs / "vae"))
    codes = _codes(api.load(runs / "vae"), info, items, 4, 0)
    assert len(codes.train) == 4 * len(api.open_data(None, "train", like=runs / "vae"))
    standard = codes.train.space.to_model(codes.train.x)
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(standard.std(0), 1, atol=1e-4)
    assert codes.validation.space == codes.train.space


def test_what_cannot_be_fitted_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="conditional"):
        api.fit_prior(runs / "conditional-vae", progress=False, **FLOW)
    api.fit_prior(runs / "pca", progress=False, **FLOW)
    with pytest.raises(CapabilityError, match="flow-matching cannot encode; `fit-prior` needs"):
        api.fit_prior(runs / "pca/prior", progress=False, **FLOW)
    with pytest.raises(ConfigError, match="unknown option 'widht'"):
        api.fit_prior(runs / "vae", widht=3)
    (runs / "ae/model.safetensors").unlink()
    with pytest.raises(RunError, match="not trained to its end"):
        api.fit_prior(runs / "ae", progress=False, **FLOW)
    with pytest.raises(CapabilityError, match="`latlas fit-prior RUN` makes one"):
        api.sample(runs / "vae", 3, prior="fitted")
    with pytest.raises(ConfigError, match="unknown prior"):
        api.sample(runs / "vae", 3, prior="onw")


def test_the_command_line_from_fit_to_figures(runs: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    run, settings = str(runs / "vae"), [f"{k}={v}" for k, v in FLOW.items() if k != "images"]
    options = [part for text in settings for part in ("--set", text)]
    assert cli.run(["fit-prior", run, "--images", "4k", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == str(runs / "vae/prior")
    assert found["fitted"] is not None
    assert cli.run(["fit-prior", run, "--images", "4k", *options]) == 0
    assert "under the fitted one" in capsys.readouterr().out
    assert cli.run(["sample", run, "--prior", "own", "--out", str(runs / "own.npz")]) == 0
    assert cli.run(["sample", run, "--out", str(runs / "fitted.npz")]) == 0
    assert not np.array_equal(*(np.load(runs / f"{n}.npz")["x"] for n in ("own", "fitted")))
    capsys.readouterr()
    assert cli.run(["evaluate", run, "--draws", "2", "--samples", "60", "--features", "pixels",
                    "--json"]) == 0
    own, fitted = json.loads(capsys.readouterr().out)["evaluations"]
    assert [own["name"], fitted["name"]] == ["vae", "vae, fitted prior"]
    keys = {f["key"] for f in fitted["figures"]}
    assert {"precision", "coverage"} <= keys < {f["key"] for f in own["figures"]}
    assert "nats" not in keys


@pytest.mark.slow
def test_the_report_shows_both(runs: Path) -> None:
    api.fit_prior(runs / "vae", progress=False, **FLOW)
    page = api.write_report(runs / "vae", draws=2, samples=60).read_text("utf-8")
    assert "samples from the fitted prior" in page
    assert "vae, fitted prior" in page


def test_a_fitted_prior_is_nearer_to_the_codes(tmp_path: Path) -> None:
    """An autoencoder's codes of two clusters, of which one Gaussian is a poor prior."""
    rng = np.random.default_rng(0)
    x = rng.choice([-3.0, 3.0], (1500, 2)) + 0.2 * rng.standard_normal((1500, 2))
    api.train("ae", x.astype(np.float32), out=tmp_path / "ae", progress=False, latent_dim=2,
              **{**TINY, "images": 60_000})
    source = api.items.as_source(x.astype(np.float32))
    done = api.fit_prior(tmp_path / "ae", source, progress=False, learning_rate=5e-3,
                         batch_size=64, **{**FLOW, "images": 75_000, "width": 64, "steps": 8})
    assert done.fitted > done.own + 0.7
    items = {p: api.sample(tmp_path / "ae", 500, prior=p) for p in ("own", "fitted")}
    far = {p: (np.abs(np.abs(v) - 3) > 1).any(1).mean() for p, v in items.items()}
    assert far["own"] > 0.5
    assert far["fitted"] < 0.6 * far["own"]
