"""The debiasing VAE: where its mask is, how it weighs its data, and the order that follows."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import polars
import pytest
import tiny
import torch
import torch.nn.functional as F

import latlas
from latlas.core.errors import CapabilityError, ConfigError, DataError, TrainingError
from latlas.core.files import create_run, load_tree
from latlas.core.model import Batch, Step, Weights
from latlas.core.noise import Noise
from latlas.core.space import Images
from latlas.data.batches import Batches, Sweep, systematic
from latlas.data.dataset import Dataset
from latlas.engine.callbacks import Reweighting
from latlas.engine.progress import Log, Progress
from latlas.engine.train import train
from latlas.engine.trainer import Trainer
from latlas.metrics import rarity
from latlas.models.debiasing_vae import DebiasingVAE
from latlas.verbs.encode import Predictions, classify
from latlas.verbs.passes import encoded
from latlas.verbs.weights import weights


def build_model(data: Dataset | None = None, **settings):
    data = data or tiny.images()
    return tiny.build("debiasing-vae", data, tiny.small("debiasing-vae", **settings)), data


def step(seed: int = 0) -> Step:
    return Step(0, 0, 0.0, Noise(seed))


def parts(model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy and negative bound of every example, each computed here."""
    q = model.encode(batch.x)
    z = q.sample(Noise(0))
    kl = 0.5 * (q.mean.square() + q.log_var.exp() - 1 - q.log_var).sum(1)
    bound = kl - model.decode(z).log_prob(batch.x)
    return -model.classify(batch.x)[torch.arange(len(batch)), batch.label], bound


def test_the_mask_is_on_the_vaes_term_alone():
    """Cross-entropy of every example; the bound of those of class b."""
    model, data = build_model(debias_classes="b", vae_weight=0.25, dropout=0)
    batch = next(iter(Sweep(data, 30)))
    classification, bound = parts(model, batch)
    mask = (batch.label == 1).float()
    assert 0 < mask.sum() < 30
    expected = classification.mean() + 0.25 * (mask * bound).mean()
    torch.testing.assert_close(model.loss(batch, step()).total, expected)


def test_items_of_other_classes_teach_the_classifier_and_not_the_decoder():
    model, data = build_model(debias_classes="b")
    batch = next(iter(Sweep(data.subset(np.flatnonzero(data.label != 1)), 30)))
    result = model.loss(batch, step())
    result.total.backward()
    torch.testing.assert_close(result.total, parts(model, batch)[0].mean())
    assert all(p.grad is None or not p.grad.any() for p in model.decoder.parameters())
    assert any(p.grad.any() for p in model.encoder.parameters())


def test_the_published_weight_is_one_over_the_scalars():
    assert build_model()[0].vae_weight == 1 / 64
    assert build_model(vae_weight=0)[0].vae_weight == 0


def test_logits_and_codes_are_of_one_encoder():
    model, data = build_model()
    batch = next(iter(Sweep(data, 7)))
    out = model.encoder(batch.x)
    assert out.shape == (7, 2 * 3 + 3)
    torch.testing.assert_close(model.encode(batch.x).mean, out[:, :3])
    torch.testing.assert_close(model.classify(batch.x), F.log_softmax(out[:, 6:], -1))


@pytest.mark.parametrize("form", ["product", "maximum"])
@pytest.mark.parametrize("within", ["class", "all"])
@pytest.mark.parametrize("settings", [{"share": 0.5}, {"share": 0.5, "clip": 1.5, "bins": 7},
                                      {"clip": 3.0, "alpha": 0.01}])
def test_weights_are_those_of_the_codes_histograms(form, within, settings):
    """Of latents in evaluation mode, of examples in model units; 60 of each class, so that every
    class has a histogram of its own, and settings that are not the defaults."""
    model, data = build_model(tiny.images(n=180), reweighting=form, within=within, **settings)
    latents = encoded(model, data)

    def weigh(groups):
        density = rarity.densities(latents, groups, settings.get("bins", rarity.BINS))
        return rarity.guarded(density, form, settings.get("share", rarity.SHARE),
                              settings.get("clip", rarity.CLIP), settings.get("alpha"))

    by_class, pooled = weigh(data.label), weigh(None)
    expected = by_class if within == "class" else pooled
    weights = model.eval().sampling_weights(Sweep(data, 32))
    np.testing.assert_allclose(weights.values, expected.weights, rtol=1e-5)
    assert weights.metrics["weights/alpha"] == pytest.approx(expected.alpha, rel=1e-4)
    assert abs(by_class.weights - pooled.weights).max() > 0.1


def test_weights_by_the_loss_grow_with_it():
    model, data = build_model(reweighting="loss", neighbours=1)
    result = model.sampling_weights(Sweep(data, 32)).values.numpy()
    loss = -classify(model, data).log_p[np.arange(len(data)), data.label]
    assert np.array_equal(np.argsort(result), np.argsort(loss))


def test_only_audited_classes_are_weighed():
    model, data = build_model(debias_classes="a, c")
    result = model.sampling_weights(Sweep(data, 32)).values.numpy()
    assert (result[data.label == 1] == 1).all()
    assert result[data.label != 1].mean() == pytest.approx(1)
    assert result[data.label != 1].std() > 0.1


def test_systematic_draws_are_as_many_as_the_weights_say():
    w = torch.from_numpy(np.random.default_rng(0).exponential(size=200))
    drawn = torch.bincount(systematic(w, torch.Generator().manual_seed(1)), minlength=200)
    expected = 200 * w / w.sum()
    assert drawn.sum() == 200
    assert ((drawn - expected).abs() < 1 + 1e-9).all()
    assert not systematic(torch.tensor([0.0, 1.0, 0.0]), torch.Generator()).ne(1).any()


def rows_of(batches: Batches, steps: range) -> torch.Tensor:
    return torch.cat([batches.at(k).index for k in steps])


def test_equal_weights_give_permutations_and_all_ranks_one_order():
    data = tiny.images()
    even = Batches(data, 16, seed=3)
    even.reweigh(torch.full((90,), 2.0))
    assert sorted(rows_of(even, range(45))[:90].tolist()) == list(range(90))
    w = torch.linspace(0, 1, 90)
    whole, *ranks = (Batches(data, 16, 3, rank=r, world=n) for r, n in ((0, 1), (0, 2), (1, 2)))
    for batches in (whole, *ranks):
        batches.at(0)  # an order without weights is not kept
        batches.reweigh(w)
    for k in (0, 5, 11):
        both = torch.cat([r.at(k).index for r in ranks])
        assert torch.equal(whole.at(k).index, both)
    count = torch.bincount(rows_of(whole, range(450)), minlength=90).float()
    assert torch.corrcoef(torch.stack([count, w]))[0, 1] > 0.99
    again = Batches(data, 16, 3)
    again.reweigh(w)
    assert torch.equal(again.at(7).index, whole.at(7).index)


def test_weights_of_a_subset_are_of_its_rows():
    data = tiny.images().subset(np.arange(40, 60))
    batches = Batches(data, 10)
    batches.reweigh(torch.tensor([0.0] * 19 + [1.0]))
    assert (batches.at(0).index == 59).all()


def test_a_run_that_is_killed_between_two_looks_goes_on_by_the_same_weights(tmp_path):
    """20 steps, weights before steps 7 and 14, stopped after step 11. The weights differ by so much
    that their order is far from that of equal ones."""
    settings = {"reweighting_interval": 0.35, "reweighting": "product", "share": 0.2}
    data, config = tiny.images(), tiny.small("debiasing-vae", **settings)
    whole = tiny.train(tmp_path / "whole", "debiasing-vae", data, config)[0]
    stop = tiny.At(176, lambda: signal.raise_signal(signal.SIGINT))
    tiny.train(tmp_path / "run", "debiasing-vae", data, config, progress=stop)
    held, meta = load_tree(tmp_path / "run/checkpoint.safetensors")
    assert meta["step"] == 11 and held["order.weights"].shape == (90,)
    assert held["order.weights"].max() > 4 and held["order.weights"].median() < 0.5
    again = tiny.train(tmp_path / "run", "debiasing-vae", data, config)[0]
    assert torch.equal(tiny.weights(whole), tiny.weights(again))
    plain = tiny.train(tmp_path / "plain", "debiasing-vae", data,
                       tiny.small("debiasing-vae", reweighting="none"))[0]
    assert not torch.equal(tiny.weights(whole), tiny.weights(plain))


class ClassC(DebiasingVAE):
    """Wants the last of three classes alone, and keeps the rows it is trained on."""

    def __init__(self, *args, **modules):
        super().__init__(*args, **modules)
        self.rows: list[torch.Tensor] = []

    def loss(self, batch, step):
        self.rows.append(batch.index)
        return super().loss(batch, step)

    def sampling_weights(self, batches):
        return Weights(torch.cat([(batch.label == 2).double() for batch in batches]))


def train_class_c(path, progress=None):
    """20 steps of 18 of the 90 examples, five an epoch, and weights before step 10."""
    data = tiny.images()
    model = ClassC(tiny.small("debiasing-vae", reweighting_interval=0.5), data.space)
    train(model, data, None, tiny.options(images=360, batch_size=18),
          create_run(path, {"model": "class c"}), progress)
    return model


def test_training_follows_the_weights_from_the_step_at_which_they_are_due(tmp_path):
    """Two epochs of everything, then two in which each of 30 examples comes three times."""
    epochs = torch.stack(train_class_c(tmp_path / "run").rows).view(4, 90)
    counts = [torch.bincount(rows, minlength=90).tolist() for rows in epochs]
    assert counts[:2] == [[1] * 90] * 2
    assert counts[2:] == [[0, 0, 3] * 30] * 2


def test_a_resumed_run_draws_by_the_weights_of_its_checkpoint(tmp_path):
    """Stopped after step 12; no weights are due before step 20, which is never made."""
    whole = train_class_c(tmp_path / "whole")
    stop = tiny.At(12 * 18, lambda: signal.raise_signal(signal.SIGINT))
    first = train_class_c(tmp_path / "run", stop)
    second = train_class_c(tmp_path / "run")
    assert (len(first.rows), len(second.rows)) == (12, 8)
    assert torch.equal(torch.cat(first.rows + second.rows), torch.cat(whole.rows))


def test_weights_are_logged(tmp_path):
    data = tiny.images()
    config = tiny.small("debiasing-vae", reweighting_interval=0.5)
    tiny.train(tmp_path, "debiasing-vae", data, config)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "weights/alpha" in line]
    assert [line["images"] for line in logged] == [160]
    assert logged[0]["weights/effective_share"] >= 0.2
    assert {"weights/clipped", "weights/greatest"} <= logged[0].keys()


class Askew(DebiasingVAE):
    """Weighs by numbers that are none."""

    def sampling_weights(self, batches):
        return Weights(torch.tensor([-1.0] + [1.0] * 89))


def test_weights_that_are_none_stop_the_run(tmp_path):
    data = tiny.images()
    model = Askew(tiny.small("debiasing-vae"), data.space)
    trainer = Trainer(model, tiny.options(), budget=320, precision="fp32")
    reweighting, log = Reweighting(Batches(data, 16)), Log(tmp_path, Progress())
    for index in (0, 1):
        trainer.index = index
        reweighting.after_step(trainer, log)
    assert reweighting.weights is None
    trainer.index = 2
    with pytest.raises(TrainingError, match="weights of the data at step 2"):
        reweighting.after_step(trainer, log)


def test_what_it_cannot_learn_from_is_said(tmp_path):
    table = tiny.table()
    with pytest.raises(DataError, match="labels of two classes or more"):
        build_model(table)
    data = tiny.images()
    alone = Images((1, 8, 8), 17, classes=("a",))
    with pytest.raises(DataError, match="this data has 1"):
        build_model(Dataset(data.x, alone, data.label * 0))
    with pytest.raises(ConfigError, match="debias_classes=z"):
        build_model(debias_classes="z")
    with pytest.raises(ConfigError, match=r"trimmed_fraction=0\.1"):
        build_model(trimmed_fraction=0.1)
    with pytest.raises(DataError, match="30 training examples"):
        tiny.train(tmp_path, "debiasing-vae", data, tiny.small("debiasing-vae", debias_classes="b"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A debiasing VAE, a VAE and a GAN on digits, hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    small = {"images": 640, "batch_size": 64, "width": 16, "depth": 1, "threads": 1,
             "precision": "fp32", "progress": False}
    for name in ("debiasing-vae", "vae", "gan"):
        latlas.train(name, "digits", out=folder / name, **small)
    return folder


def test_weights_of_any_model_with_an_encoder(runs):
    result = latlas.weights(runs / "vae", share=0.4)
    examples = latlas.open_data("digits", "train")
    assert result.method == "product" and len(result.weight) == len(examples)
    latents = latlas.encode(runs / "vae", examples)
    expected = rarity.guarded(rarity.densities(latents, examples.take("label")), "product", 0.4)
    np.testing.assert_allclose(result.weight, expected.weights, rtol=1e-5)
    density = rarity.densities(latents, examples.take("label"))
    np.testing.assert_allclose(result.rarity, -np.log(density))
    assert result.effective_share >= 0.4
    pooled = latlas.weights(runs / "vae", "digits", method="maximum", within="all")
    assert len(pooled.weight) == 1797
    assert list(pooled.table()) == ["example", "weight"]
    pooled.dimensions = True
    assert list(pooled.table())[2:] == [f"rarity_{i}" for i in range(16)]


def test_its_own_weights_are_those_of_training(runs):
    result = latlas.weights(runs / "debiasing-vae")
    model = latlas.load(runs / "debiasing-vae").model
    examples = latlas.open_data("digits", "train")
    assert result.method == "own"
    np.testing.assert_allclose(result.weight, model.sampling_weights(Sweep(examples, 512)).values,
                               rtol=1e-6)
    with pytest.raises(ConfigError, match="share= is for method=product or maximum"):
        latlas.weights(runs / "debiasing-vae", share=0.5)


def test_weights_that_cannot_be_had_are_refused(runs):
    with pytest.raises(CapabilityError, match="gan cannot encode"):
        latlas.weights(runs / "gan")
    with pytest.raises(ConfigError, match="method=own"):
        latlas.weights(runs / "vae", method="own")
    x = latlas.open_data("digits", "test").take("x")
    with pytest.raises(DataError, match="40 examples are too few"):
        latlas.weights(runs / "vae", x[:40])
    with pytest.raises(DataError, match="no dimension of the latents varies"):
        latlas.weights(runs / "vae", x[:1].repeat(80, 0))
    with pytest.raises(DataError, match="needs a label for every example"):
        latlas.weights(runs / "debiasing-vae", x)
    with pytest.raises(ConfigError, match="within=class"):
        latlas.weights(runs / "vae", x, within="class")
    with pytest.raises(ConfigError, match="method"):
        weights(latlas.load(runs / "vae"), latlas.open_data("digits"), method="sum")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
def test_the_command_writes_a_table(runs, tmp_path, suffix, capsys):

    from latlas.cli import __main__ as cli

    out = tmp_path / f"weights{suffix}"
    assert cli.run(["weights", str(runs / "vae"), "--out", str(out), "--method", "maximum"]) == 0
    said = capsys.readouterr().out
    assert "effective sample" in said and "alpha" in said
    if suffix == ".npz":
        table = np.load(out)
    else:
        table = polars.read_csv(out) if suffix == ".csv" else polars.read_parquet(out)
    weight = np.asarray(table["weight"])
    np.testing.assert_allclose(weight, latlas.weights(runs / "vae", method="maximum").weight)
    assert weight.mean() == pytest.approx(1)


def test_metrics_of_classification(runs):
    examples = latlas.open_data("digits", "test")
    result = latlas.evaluate(runs / "debiasing-vae", metrics=["classification"])
    log_p = latlas.classify(runs / "debiasing-vae", examples).log_p
    assert log_p.shape == (len(examples), 10)
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-5)
    label = examples.take("label")
    right = log_p.argmax(1) == label
    assert result.get("accuracy").value == pytest.approx(right.mean())
    assert result.get("accuracy_worst").value == pytest.approx(
        min(right[label == c].mean() for c in range(10)))
    assert result.get("cross_entropy").value == pytest.approx(
        -log_p[np.arange(len(label)), label].mean(), rel=1e-5)
    with pytest.raises(CapabilityError, match="cannot classify"):
        latlas.classify(runs / "vae", examples)


def test_the_command_classify_writes_a_row_per_item(runs, tmp_path, capsys):
    from latlas.cli import __main__ as cli

    out = tmp_path / "classes.csv"
    assert cli.run(["classify", str(runs / "debiasing-vae"), "--out", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    examples = latlas.open_data("digits", "test")
    log_p, label = latlas.classify(runs / "debiasing-vae", examples).log_p, examples.take("label")
    table = polars.read_csv(out)
    assert table["class"].to_list() == log_p.argmax(1).tolist()
    assert table["label"].to_list() == label.tolist()
    np.testing.assert_allclose(table["p_7"], np.exp(log_p[:, 7]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["probability"], np.exp(log_p.max(1)), rtol=1e-4)
    right = log_p.argmax(1) == label
    assert facts["accuracy"]["mean"] == pytest.approx(right.mean())
    assert facts["cross_entropy"] == pytest.approx(
        -log_p[np.arange(len(label)), label].mean(), rel=1e-5)
    assert [c["accuracy"] for c in facts["classes"]] == pytest.approx(
        [right[label == c].mean() for c in range(10)])
    assert sum(c["predicted"] for c in facts["classes"]) == facts["examples"] == len(examples)


def test_the_command_classify_says_what_is_wrong(runs, tmp_path, capsys):
    from latlas.cli import __main__ as cli

    plain = tmp_path / "plain.npz"
    np.savez(plain, x=latlas.open_data("digits", "test").take("x")[:60])
    model, out = str(runs / "debiasing-vae"), tmp_path / "classes.csv"
    assert cli.run(["classify", model, "--data", str(plain), "--out", str(out),
                    "--data-option", "levels=17"]) == 0
    assert "60 examples, without labels" in capsys.readouterr().out
    assert "label" not in polars.read_csv(out).columns
    for tokens, words in (([str(runs / "vae")], "vae cannot classify; `classify` needs an output"),
                         ([model, "--data", "moons"], "the run's data are"),
                         ([model, "--out", str(tmp_path / "classes.txt")], "classes.txt")):
        assert cli.run(["classify", *tokens]) == 2
        assert words in capsys.readouterr().err
    assert not (runs / "vae" / "classes.csv").exists()


def test_predictions_of_examples_of_which_some_have_labels():
    log_p = np.log(np.array([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1], [0.2, 0.8]]))
    label = np.array([0, 0, -1, -1])
    predictions = Predictions(log_p, ("cat", "dog"), label, ["a", "b", "c", "d"])
    assert predictions.accuracy.mean == 0.5 and predictions.accuracy.n == 2
    assert predictions.cross_entropy == pytest.approx(-np.log([0.7, 0.4]).mean())
    cat, dog = predictions.by_class
    assert (cat.predicted, cat.count, cat.accuracy) == (2, 2, 0.5)
    assert (dog.predicted, dog.count, dog.accuracy) == (2, 0, None)
    assert predictions.table()["label"].tolist() == ["cat", "cat", "", ""]
    assert Predictions(log_p, ("cat", "dog")).accuracy is None


def test_the_coloured_minority_of_the_benchmark_is_red_and_the_rest_grey(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import fairness

    data = tiny.images(n=120)
    task = fairness.planted(data.x, data.label, data.space, "coloured", 0, None)
    x, shape = task.train.x, (3, 8, 8)
    assert x.shape[1:] == shape == task.test.space.shape and task.minority.sum() == 4
    assert x[task.minority, 0].any() and not x[task.minority, 1:].any()
    grey = x[~task.minority]
    np.testing.assert_array_equal(grey, np.repeat(grey[:, :1], 3, 1))
    assert task.changed.sum() == len(task.test) / 2 == 40
