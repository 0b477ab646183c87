"""A prior fitted to the latents of a run: Python, command line, resuming, refusals."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import latlas
from latlas import models
from latlas.cli import __main__ as cli
from latlas.core.distributions import Normal
from latlas.core.errors import CapabilityError, ConfigError, DataError, RunError
from latlas.core.model import Batch
from latlas.core.noise import Noise
from latlas.core.space import Points
from latlas.data.fitting import as_source
from latlas.engine.progress import Progress
from latlas.learning import learn
from latlas.prior_fitting import encode_training_data
from latlas.training import plan_of, training_data
from latlas.verbs.passes import sample_posterior

TINY = {"images": 1000, "width": 32, "depth": 1, "threads": 1, "precision": "fp32"}
FLOW = {"images": 4000, "width": 16, "depth": 1, "steps": 4, "threads": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of digits, trained for a moment, without fitted priors."""
    folder = tmp_path_factory.mktemp("runs")
    for model in ("vae", "ae", "pca", "conditional-vae"):
        own = {k: v for k, v in TINY.items() if model != "pca" or k == "threads"}
        latlas.train(model, "digits", out=folder / model, progress=False, **own)
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.mark.parametrize("model", ["vae", "ae", "pca"])
def test_a_run_carries_its_fitted_prior(runs: Path, model: str) -> None:
    run = runs / model
    before = latlas.sample(run, 200)
    result = latlas.fit_prior(run, progress=False, **FLOW)
    assert result.run.path == run / "prior"
    assert np.isfinite([result.own, result.fitted]).all()
    assert latlas.load(run / "prior").model_name == "flow-matching"
    np.testing.assert_array_equal(latlas.sample(run, 200, latents="own"), before)
    after = latlas.sample(run, 200, latents="fitted")
    np.testing.assert_array_equal(latlas.sample(run, 200), after)
    assert not np.array_equal(before, after)
    assert not np.array_equal(after, latlas.sample(run, 200, seed=1))
    loaded = latlas.load(run).model
    z = loaded.fitted_prior.sample(7, Noise(0))
    assert z.shape == (7, loaded.latent_dim)
    assert loaded.fitted_prior.log_prob(z).isfinite().all()


def test_the_same_call_again_trains_nothing_and_other_settings_are_refused(runs: Path) -> None:
    first = latlas.fit_prior(runs / "vae", progress=False, **FLOW)
    again = latlas.fit_prior(runs / "vae", progress=False, **FLOW)
    assert again.run.outcome.stopped == "already finished"
    assert (again.own, again.fitted) == pytest.approx((first.own, first.fitted))
    with pytest.raises(RunError, match=r"made_of\.draws is 4 there, 3 asked.*; remove .*prior"):
        latlas.fit_prior(runs / "vae", draws=3, progress=False, **FLOW)


def test_other_weights_of_the_run_are_refused(runs: Path) -> None:
    """The latents that the prior was fitted to are those of the weights it was fitted with."""
    run, prior = runs / "vae", runs / "vae/prior/model.safetensors"
    latlas.fit_prior(run, progress=False, **FLOW)
    before = prior.read_bytes()
    latlas.train("vae", "digits", out=runs / "other", progress=False, seed=1, **TINY)
    shutil.copy(runs / "other/model.safetensors", run / "model.safetensors")
    with pytest.raises(RunError, match=r"model.safetensors belongs to another run"):
        latlas.sample(run, 2)
    shutil.copy(runs / "other/run.json", run / "run.json")
    with pytest.raises(RunError, match=r"was fitted to other weights.*; remove .*vae/prior, and"):
        latlas.fit_prior(run, progress=False, **FLOW)
    assert prior.read_bytes() == before
    shutil.rmtree(run / "prior")
    assert latlas.fit_prior(run, progress=False, **FLOW).run.outcome.stopped == "budget"


def test_an_interrupted_fit_ends_with_the_same_bits(runs: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(runs / "vae", tmp_path / "whole")
    whole = latlas.fit_prior(tmp_path / "whole", progress=False, **FLOW)
    result = []

    def stop(self: Progress, images: int, share: float) -> None:
        if images >= 2000 and not result:
            result.append(signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(Progress, "advance", stop)
    cut = latlas.fit_prior(runs / "vae", progress=False, **FLOW)
    assert cut.run.outcome.stopped == "interrupt"
    assert cut.fitted is None
    assert latlas.load(runs / "vae").model.fitted_prior is None
    went_on = latlas.fit_prior(runs / "vae", progress=False, **FLOW)
    assert went_on.run.outcome.images == whole.run.outcome.images
    for mine, theirs in zip(went_on.run.model.parameters(), whole.run.model.parameters(),
                            strict=True):
        assert torch.equal(mine, theirs)


def test_changed_data_are_refused_unless_accepted(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    """The fit goes on with the examples there are now, in the units it began with."""
    x = np.random.default_rng(0).normal(size=(400, 3))

    def write(n: int) -> None:
        np.savetxt(tmp_path / "t.csv", x[:n], delimiter=",", header="a,b,c", comments="")

    write(350)
    run = tmp_path / "run"
    latlas.train("pca", str(tmp_path / "t.csv"), out=run, progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "advance", lambda self, images, share: (
            images >= 2000 and signal.raise_signal(signal.SIGINT)))
        latlas.fit_prior(run, progress=False, **FLOW)
    space = latlas.load(run / "prior").space
    write(400)
    with pytest.raises(RunError, match=r"were added; remove .*accept_changed_data=True"):
        latlas.fit_prior(run, progress=False, **FLOW)
    tokens = ["fit-prior", str(run), *(part for key, value in FLOW.items()
                                       for part in ("--set", f"{key}={value}"))]
    assert cli.run(tokens) == 2
    assert "or go on with --accept-changed-data" in capsys.readouterr().err
    assert cli.run([*tokens, "--accept-changed-data"]) == 0
    assert latlas.load(run / "prior").space == space and latlas.load(run / "prior").finished
    assert cli.run(tokens) == 0  # the data are the new ones from now on


def test_latents_are_draws_of_the_posterior(runs: Path) -> None:
    model = latlas.load(runs / "vae").model
    data = latlas.open_data(None, "validation", like=runs / "vae").subset(np.arange(3))
    latents = sample_posterior(model, data, 400)
    assert latents.dtype == np.float32
    q = model.encode(torch.from_numpy(data.space.to_model(data.take("x").astype(np.float32))))
    assert isinstance(q, Normal)
    parts = latents.reshape(400, 3, -1)
    sd = torch.exp(0.5 * q.log_var).numpy()
    np.testing.assert_array_less(np.abs(parts.mean(0) - q.mean.numpy()), 5 * sd / 20)
    np.testing.assert_allclose(parts.std(0) / sd, 1, atol=0.2)
    np.testing.assert_array_equal(latents, sample_posterior(model, data, 400))


def test_latents_are_of_the_examples_the_run_was_trained_on(runs: Path) -> None:
    run = latlas.load(runs / "vae")
    latents = encode_training_data(run, training_data(as_source(None, run)), 4, 0, "digits")
    assert len(latents.train) == 4 * len(latlas.open_data(None, "train", like=runs / "vae"))
    standard = latents.train.space.to_model(latents.train.x)
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(standard.std(0), 1, atol=1e-4)
    assert latents.validation.space == latents.train.space


def test_what_cannot_be_fitted_is_refused(runs: Path, tmp_path: Path) -> None:
    latlas.train("conditional-vae", "digits", out=runs / "part", progress=False, condition="part",
                 **TINY | {"images": 64})
    with pytest.raises(CapabilityError, match="given a part of the image"):
        latlas.fit_prior(runs / "part", progress=False, **FLOW)
    latlas.fit_prior(runs / "pca", progress=False, **FLOW)
    with pytest.raises(CapabilityError, match="flow-matching cannot encode; `fit-prior` needs"):
        latlas.fit_prior(runs / "pca/prior", progress=False, **FLOW)
    with pytest.raises(ConfigError, match="unknown option 'widht'"):
        latlas.fit_prior(runs / "vae", widht=3)
    (runs / "ae/model.safetensors").unlink()
    with pytest.raises(RunError, match="not trained to its end"):
        latlas.fit_prior(runs / "ae", progress=False, **FLOW)
    with pytest.raises(CapabilityError, match="`latlas fit-prior RUN` fits one"):
        latlas.sample(runs / "vae", 3, latents="fitted")
    with pytest.raises(ConfigError, match="unknown latents"):
        latlas.sample(runs / "vae", 3, latents="onw")


def test_the_command_line_from_fit_to_metrics(runs: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    run, settings = str(runs / "vae"), [f"{k}={v}" for k, v in FLOW.items() if k != "images"]
    options = [part for text in settings for part in ("--set", text)]
    assert cli.run(["fit-prior", run, "--images", "4k", *options, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["run"] == str(runs / "vae/prior")
    assert result["fitted"] is not None
    assert cli.run(["fit-prior", run, "--images", "4k", *options]) == 0
    assert "under the fitted one" in capsys.readouterr().out
    assert cli.run(["sample", run, "--latents", "own", "--out", str(runs / "own.npz")]) == 0
    assert cli.run(["sample", run, "--out", str(runs / "fitted.npz")]) == 0
    assert not np.array_equal(*(np.load(runs / f"{n}.npz")["x"] for n in ("own", "fitted")))
    capsys.readouterr()
    assert cli.run(["evaluate", run, "--draws", "2", "--samples", "60", "--features", "pixels",
                    "--json"]) == 0
    own, fitted = json.loads(capsys.readouterr().out)["evaluations"]
    assert [own["name"], fitted["name"]] == ["vae", "vae, fitted prior"]
    keys = {f["key"] for f in fitted["metrics"]}
    assert {"precision", "coverage"} <= keys < {f["key"] for f in own["metrics"]}
    assert "nats" not in keys


@pytest.mark.slow
def test_the_report_shows_both(runs: Path) -> None:
    latlas.fit_prior(runs / "vae", progress=False, **FLOW)
    page = latlas.report(runs / "vae", draws=2, samples=60).html
    assert "samples from the fitted prior" in page
    assert "vae, fitted prior" in page


def test_a_fitted_prior_is_nearer_to_the_latents(tmp_path: Path) -> None:
    """An autoencoder's latents of two clusters, of which one Gaussian is a poor prior; so short a
    fit succeeds for two seeds of three."""
    rng = np.random.default_rng(1)
    x = rng.choice([-3.0, 3.0], (1500, 2)) + 0.2 * rng.standard_normal((1500, 2))
    latlas.train("ae", x.astype(np.float32), out=tmp_path / "ae", progress=False, latent_dim=2,
              **{**TINY, "images": 60_000})
    source = as_source(x.astype(np.float32))
    result = latlas.fit_prior(tmp_path / "ae", source, progress=False, learning_rate=5e-3,
                            batch_size=64, **{**FLOW, "images": 75_000, "width": 64, "steps": 8})
    assert result.fitted > result.own + 0.7
    examples = {p: latlas.sample(tmp_path / "ae", 500, latents=p) for p in ("own", "fitted")}
    far = {p: (np.abs(np.abs(v) - 3) > 1).any(1).mean() for p, v in examples.items()}
    assert far["own"] > 0.5
    assert far["fitted"] < 0.6 * far["own"]


def photos(n: int = 60, size: int = 28) -> np.ndarray:
    """Images with a bright square somewhere."""
    rng, x = np.random.default_rng(0), np.zeros((n, 1, size, size), np.uint8)
    for image, row, column in zip(x, *rng.integers(0, size - 8, (2, n)), strict=True):
        image[0, row:row + 8, column:column + 8] = 200
    return x


SMALL = {"images": 640, "batch_size": 16, "threads": 1, "precision": "fp32", "latent_dim": 3,
         "width": 4, "progress": False}


def test_samples_of_images_are_drawn_from_a_prior_fitted_at_the_end(tmp_path: Path) -> None:
    run = latlas.train("vae", photos(), out=tmp_path / "run", **SMALL)
    prior = latlas.load(tmp_path / "run/prior")
    assert run.model.fitted_prior is not None and prior.model_name == "flow-matching"
    assert prior.ending.images == 4 * 640 and run.outcome.stopped == "budget"
    own, auto = (latlas.sample(tmp_path / "run", 8, latents=kind) for kind in ("own", "auto"))
    assert not np.array_equal(own, auto)
    assert latlas.sample(run, 8) == pytest.approx(np.asarray(auto))
    again = latlas.train("vae", photos(), out=tmp_path / "run", **SMALL)
    assert again.outcome.stopped == "already finished" and again.model.fitted_prior is not None


def test_a_run_without_a_folder_has_its_prior(tmp_path: Path) -> None:
    run = latlas.train("ae", photos(), **SMALL)
    assert run.model.fitted_prior is not None and run.path is None


@pytest.mark.parametrize(("model", "data", "more"), [
    ("vae", photos(), {"prior_share": 0}), ("vae", photos(size=16), {}),
    ("vae", photos(), {"prior": "mixture"}), ("vae", "moons", {}),
    ("conditional-vae", photos(), {"condition": "part"}), ("pca", photos(), {})])
def test_no_prior_is_fitted_where_it_is_not_asked_for(tmp_path, model, data, more) -> None:
    own = {k: v for k, v in SMALL.items() if model != "pca" or k in ("threads", "progress")}
    run = latlas.train(model, data, out=tmp_path / "run", **own | more)
    assert run.model.fitted_prior is None and not (tmp_path / "run/prior").exists()


def test_a_share_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prior_share=0.2: gan has no latents that a prior"):
        latlas.train("gan", photos(), out=tmp_path / "run", images=64, prior_share=0.2)
    assert not (tmp_path / "run").exists()


def test_a_prior_that_was_cut_goes_on_with_the_same_command(tmp_path: Path) -> None:
    """And one that a person fitted stays."""
    whole = latlas.train("vae", photos(), out=tmp_path / "whole", **SMALL)
    run = latlas.train("vae", photos(), out=tmp_path / "run", **SMALL | {"prior_share": 0})
    assert run.model.fitted_prior is None
    shutil.rmtree(tmp_path / "cut", ignore_errors=True)
    latlas.train("vae", photos(), out=tmp_path / "cut", **SMALL)
    (tmp_path / "cut/prior/model.safetensors").unlink()
    again = latlas.train("vae", photos(), out=tmp_path / "cut", **SMALL)
    for name, value in whole.model.fitted_prior.state_dict().items():
        assert torch.equal(value, again.model.fitted_prior.state_dict()[name])


def test_minutes_are_those_of_both(tmp_path: Path) -> None:
    start = time.monotonic()
    plan = plan_of("vae", {"minutes": 0.2, "latent_dim": 3, "width": 4, "threads": 1})
    run = learn(plan, training_data(as_source(photos())), tmp_path / "run", progress=False)
    parts = [json.loads((folder / "run.json").read_text())["chosen"]["minutes"]
             for folder in (tmp_path / "run", tmp_path / "run/prior")]
    assert run.model.fitted_prior is not None and parts == pytest.approx([0.15, 0.05])
    assert time.monotonic() - start < 3 * 12  # of a machine that others use


def two_classes(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Points of a class with one example in twelve, and of one with the rest, in another place."""
    rng, label = np.random.default_rng(2), (np.arange(n) % 12 == 0).astype(np.int64)
    x = rng.standard_normal((n, 2)) * [[0.3, 1.0]] + label[:, None] * [4.0, -3.0]
    return x.astype(np.float32), label


def test_a_flow_of_given_classes_begins_with_the_moments_of_each() -> None:
    """Exactly, before any step; the variance within classes stands for that of a single example,
    and of a class without any."""
    x, label = torch.tensor([[1.0, -2.0], [3.0, 0.0], [5.0, 5.0]]), torch.tensor([0, 0, 1])
    space = Points((2,)).replace(classes=("a", "b", "none"))
    config = models.get("flow-matching").config(condition="label", width=8, depth=0)
    flow = models.build("flow-matching", config, space)
    flow.prepare([Batch(x[:2], label[:2]), Batch(x[2:], label[2:])], 3)
    means = torch.tensor([[2.0, -1.0], [5.0, 5.0], [0.0, 0.0]])
    variances = torch.full((3, 2), 2.0)
    for code in (0, 1, 2):
        classes = torch.full((20_000,), code)
        z = flow.sample(20_000, noise=Noise(0), condition=classes)
        torch.testing.assert_close(z.mean(0), means[code], atol=0.08, rtol=0)
        torch.testing.assert_close(z.var(0), variances[code], atol=0.05, rtol=0.05)
        exact = Normal(means[code], variances[code].log()).log_prob(z[:50])
        own = flow.log_density(z[:50], condition=classes[:50])
        torch.testing.assert_close(own, exact, atol=1e-3, rtol=1e-3)


def test_a_flow_of_given_classes_has_the_moments_of_each() -> None:
    """Of a class with one row in twelve, too: and its density is that of the class."""
    x, label = two_classes(1200)
    run = latlas.train("flow-matching", (x, label), condition="label", images=150_000, width=64,
                       depth=2, threads=1, precision="fp32", progress=False)
    for code in (0, 1):
        mine, drawn = x[label == code], np.asarray(latlas.sample(run, 2000, label=str(code)))
        np.testing.assert_allclose(drawn.mean(0), mine.mean(0), atol=0.25)
        np.testing.assert_allclose(drawn.std(0), mine.std(0), atol=0.2)
        exact = Normal(torch.tensor([4.0, -3.0]) * code,
                       2 * torch.tensor([0.3, 1.0]).log()).log_prob(torch.from_numpy(mine))
        own, other = (latlas.score(run, (mine, np.full(len(mine), c))).mean
                      for c in (code, 1 - code))
        assert abs(own - exact.mean().item()) < 0.3 and own > other + 3
    with pytest.raises(DataError, match="needs a label for every example"):
        latlas.sample(run, 3)
    with pytest.raises(DataError, match="condition=label needs labels and this data has none"):
        latlas.train("flow-matching", x, condition="label", images=64, progress=False)


def test_samples_of_a_class_come_from_a_prior_of_its_latents(tmp_path: Path) -> None:
    """The posteriors of the classes are put far apart: a class of three examples has its own."""
    label = (np.arange(60) % 20 == 0).astype(np.int64)
    run = latlas.train("conditional-vae", (photos(), label), out=tmp_path / "run",
                       **SMALL | {"prior_share": 0})
    source, encode = as_source((photos(), label)), type(run.model).encode

    def apart(model, x, *, condition=None):
        q = encode(model, x, condition=condition)
        return Normal(q.mean + 6.0 * condition[:, None] - 3.0, q.log_var)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.model), "encode", apart)
        fit = latlas.fit_prior(tmp_path / "run", source, draws=20, progress=False,
                               **FLOW | {"images": 60_000, "width": 64})
        latents = encode_training_data(run, training_data(source), 20, 0, "photos").train
    assert fit.fitted > fit.own + 2
    prior = latlas.load(tmp_path / "run").model.fitted_prior
    for code in (0, 1):
        mine = latents.x[latents.label == code]
        assert len(mine) == 20 * (label[:60] == code)[training_data(source).train.index].sum()
        drawn = prior.sample(1000, Noise(0), torch.full((1000,), code)).numpy()
        np.testing.assert_allclose(drawn.mean(0), mine.mean(0), atol=0.3)
        np.testing.assert_allclose(drawn.std(0), mine.std(0), atol=0.3)


def test_a_conditional_run_ends_with_a_prior_of_every_class(tmp_path: Path) -> None:
    """``--latents own`` draws from N(0, I) as ever, and an evaluation has both."""
    label = np.arange(60) % 2
    run = latlas.train("conditional-vae", (photos(), label), out=tmp_path / "run", **SMALL)
    assert latlas.load(tmp_path / "run/prior").model.condition_dim == 2
    bare = latlas.load(tmp_path / "run")
    bare.model.fitted_prior = None
    own, auto = (latlas.sample(tmp_path / "run", 8, label="1", latents=kind)
                 for kind in ("own", "auto"))
    np.testing.assert_array_equal(own, latlas.sample(bare, 8, label="1"))
    assert not np.array_equal(own, auto)
    result = latlas.evaluate(run, (photos(), label), split="all", draws=2, samples=40,
                             features="pixels", metrics=["samples"])
    assert result.fitted is not None and result.fitted.get("frechet") is not None


def test_a_fit_of_classes_that_was_stopped_goes_on_with_their_units(tmp_path: Path) -> None:
    data, more = two_classes(200), {"condition": "label", "width": 16, "depth": 1,
                                    "batch_size": 20, "images": 400, "threads": 1,
                                    "precision": "fp32", "checkpoint_seconds": 1e9}
    whole = latlas.train("flow-matching", data, out=tmp_path / "whole", progress=False, **more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "advance", lambda self, images, share: signal.raise_signal(
            signal.SIGINT) if images == 200 else None)
        run = latlas.train("flow-matching", data, out=tmp_path / "run", progress=False, **more)
    assert run.outcome.stopped == "interrupt"
    run = latlas.train("flow-matching", data, out=tmp_path / "run", progress=False, **more)
    assert run.outcome.stopped == "budget"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[name])
