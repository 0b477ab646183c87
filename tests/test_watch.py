"""Monitored models: roll-back from numbers that are not finite, alarms, and sample snapshots."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import nn

import latlas
from latlas import snapshots
from latlas.core import files
from latlas.core.errors import TrainingError
from latlas.core.files import create_run, load_tree
from latlas.core.model import Batch, Loss, Model, Phase, Step, TrainingDefaults
from latlas.core.space import Images, Points
from latlas.data.dataset import Dataset
from latlas.data.standard import open_ring
from latlas.engine.callbacks import Callback, Monitor
from latlas.engine.progress import Bar, Progress
from latlas.engine.train import train
from latlas.engine.trainer import NORM_EVERY, NotFinite, Trainer
from latlas.snapshots import SampleMonitor


class Steps(Model):
    """Its weight rises by the learning rate at every step; from step ``at`` on a step longer than
    ``longest`` makes the next loss NaN, and so the weight."""

    latent_dim = 1
    defaults = TrainingDefaults(monitored=True)
    phases = (Phase("climb", ("weight",)),)

    def __init__(self, at: int = 10, longest: float = 0.06) -> None:
        super().__init__(None, Points((1,)))
        self.at, self.longest = at, longest
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("before", torch.zeros(1))

    def loss(self, batch: Batch, step: Step) -> Loss:
        long = bool(self.weight - self.before > self.longest)
        self.before.copy_(self.weight.detach())
        total = -self.weight.sum() * (torch.nan if long and step.index >= self.at else 1.0)
        return Loss(total, {"height": total})


DATA = Dataset(np.zeros((32, 1), np.float32), Points((1,)))


class Recorder(Progress):
    """Keeps the warnings; may stop once, or die once, at so many examples."""

    def __init__(self, stop: int = 0, die: int = 0) -> None:
        self.warnings: list[str] = []
        self.stop, self.die = stop, die

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def advance(self, images: int, share: float) -> None:
        if images == self.stop:
            self.stop = 0
            signal.raise_signal(signal.SIGINT)
        if images == self.die:
            self.die = 0
            raise KeyboardInterrupt


def climb(path, progress=None, model=None, **more):
    """20 steps of 16 examples at a steady rate of 0.1."""
    training = tiny.options(learning_rate=0.1, warmup=0.0, schedule="constant", ema=0.0,
                            **({"checkpoint_seconds": 1000.0} | more))
    model = model or Steps()
    run = create_run(path, {"model": "steps"})
    return model, train(model, DATA, None, training, run, progress or Progress())


def meta_of(path):
    return load_tree(path / "model.safetensors")[1]


# ------------------------------------------------------------------------------ roll-back

def test_nan_goes_back_and_on_at_half_the_rate(tmp_path):
    """Steps 0 … 9 of 0.1; step 10 fails, is found after it, and step 9 is made again of 0.05."""
    progress = Recorder()
    model, outcome = climb(tmp_path / "run", progress)
    assert outcome.stopped == "budget" and outcome.images == 320
    assert model.weight.item() == pytest.approx(9 * 0.1 + 11 * 0.05, rel=1e-4)
    assert meta_of(tmp_path / "run")["rollbacks"] == 1
    assert len(progress.warnings) == 1
    assert "height is not a finite number at 176 examples" in progress.warnings[0]
    assert "going on from 144 examples at 0.5 of the learning rate" in progress.warnings[0]
    lines = [json.loads(s) for s in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines if "alarm" in line] == [144]
    assert [line["images"] for line in lines if "height" in line] == list(range(16, 321, 16))
    assert not list((tmp_path / "run").glob("rollback*"))


def test_before_the_first_checkpoint_it_begins_again(tmp_path):
    """At step 0 there is nothing else to go back to than the initial weights."""
    model, _ = climb(tmp_path / "run", model=Steps(at=1))
    assert model.weight.item() == pytest.approx(20 * 0.05, rel=1e-4)


def test_it_may_take_several_halvings(tmp_path):
    model, _ = climb(tmp_path / "run", model=Steps(longest=0.03))
    assert meta_of(tmp_path / "run")["rollbacks"] == 2
    assert model.weight.item() < 9 * 0.1 + 11 * 0.05


def test_what_does_not_help_ends_in_one_line(tmp_path):
    progress = Recorder()
    with pytest.raises(TrainingError, match=r"height is not .* after 3 roll-backs") as caught:
        climb(tmp_path / "run", progress, model=Steps(longest=0.001))
    assert "\n" not in str(caught.value) and len(progress.warnings) == 3


def test_a_model_that_is_not_monitored_stops(tmp_path):
    class Plain(Steps):
        defaults = TrainingDefaults()

    with pytest.raises(NotFinite, match=r"^height is not .* no checkpoint was made before"):
        climb(tmp_path / "run", model=Plain())
    assert not list((tmp_path / "run").glob("rollback*"))


def test_nothing_looks_at_weights_that_are_not_finite(tmp_path, monkeypatch):
    """Steps 10 and on fail between two lines of the log; snapshots are due after every step."""
    monkeypatch.setattr("latlas.engine.train.LOG_LINES", 5)
    finite = []

    class Look(Callback):
        def after_step(self, trainer, log):
            finite.append(bool(trainer.model.weight.isfinite()))
            return False

    run = create_run(tmp_path / "run", {"model": "steps"})
    train(Steps(), DATA, None, tiny.options(learning_rate=0.1, warmup=0.0, schedule="constant",
                                            ema=0.0), run, callbacks=[Look()])
    assert len(finite) > 20 and all(finite)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Where a run ends that goes back twice and is never killed."""
    return climb(tmp_path_factory.mktemp("runs") / "whole", model=Steps(longest=0.03))[0].weight


@pytest.mark.parametrize("at", [16, 160, 176, 304])
@pytest.mark.parametrize("how", ["stop", "die"])
@pytest.mark.parametrize("seconds", [1000.0, 0.0])
def test_a_run_that_is_killed_takes_the_same_way(tmp_path, whole, at, how, seconds):
    progress = Recorder(**{how: at})
    again = {"model": Steps(longest=0.03), "checkpoint_seconds": seconds}
    try:
        climb(tmp_path / "run", progress, **again)
    except KeyboardInterrupt:
        assert how == "die"
    assert not (tmp_path / "run/model.safetensors").exists()
    model, _ = climb(tmp_path / "run", **(again | {"model": Steps(longest=0.03)}))
    assert torch.equal(model.weight, whole)
    assert meta_of(tmp_path / "run")["rollbacks"] == 2


@pytest.mark.parametrize("at", range(100, 1600, 300))
def test_places_to_go_back_to_may_lie_far_apart(tmp_path, at):
    """100 steps, a place every fourth; the 63rd fails and the 57th is made again."""
    whole, _ = climb(tmp_path / "whole", model=Steps(at=62), images=1600)
    assert whole.weight.item() == pytest.approx(56 * 0.1 + 44 * 0.05, rel=1e-4)
    stop = at - at % 16
    climb(tmp_path / "run", Recorder(stop=stop), model=Steps(at=62), images=1600)
    rollbacks = sorted(int(f.stem.partition("-")[2]) for f in (tmp_path / "run").glob("rollback-*"))
    assert len(rollbacks) <= 3
    model, _ = climb(tmp_path / "run", model=Steps(at=62), images=1600)
    assert torch.equal(model.weight, whole.weight)


def test_a_checkpoint_never_holds_what_is_not_finite(tmp_path):
    """Saved after every step, also after the one that broke."""
    seen = []
    save = files.save_tree

    def look(path, tensors, meta):
        seen.append(path.name)
        assert all(v.isfinite().all() for v in tensors.values())
        save(path, tensors, meta)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "save_tree", look)
        climb(tmp_path / "run", checkpoint_seconds=0.0)
    assert seen.count("checkpoint.safetensors") > 15


# ------------------------------------------------------------------------------ gradients

def test_norms_of_gradients_are_logged_by_phase():
    model = Steps(longest=9.0)
    trainer = Trainer(model, tiny.options(), budget=320, precision="fp32")
    for _ in range(NORM_EVERY + 1):
        trainer.step(Batch(torch.zeros(16, 1)))
    assert trainer.counts["gradient/climb"] == 2
    assert trainer.drain()["gradient/climb"] == pytest.approx(1.0)
    model.defaults = TrainingDefaults()
    for _ in range(NORM_EVERY):
        trainer.step(Batch(torch.zeros(16, 1)))
    assert trainer.drain().keys() == {"height"}


# ------------------------------------------------------------------------------ alarms

def alarms_of(monitor, n, progress=0.5, **terms):
    named = {k if k == "ada_signal" else k.replace("_", "/"): v for k, v in terms.items()}
    named |= {"D(real)": named.pop("real"), "D(fake)": named.pop("fake")} if "real" in named else {}
    return [text for _ in range(n) for text in monitor.alarms(named, progress)]


def test_a_discriminator_that_wins_for_long_is_told_once():
    monitor = Monitor()
    assert alarms_of(monitor, 19, real=20.0, fake=-15.0, ada_signal=1.0) == []
    assert alarms_of(monitor, 1, real=2.0, fake=1.0, ada_signal=1.0) == []  # a pause begins anew
    said = alarms_of(monitor, 50, real=20.0, fake=-15.0, ada_signal=1.0)
    assert len(said) == 1 and "D(real) 20, D(fake) -15" in said[0] and "gamma" in said[0]
    assert alarms_of(Monitor(), 50, real=20.0, fake=-15.0, ada_signal=0.5) == []


def test_collapse_and_divergence_are_told():
    assert alarms_of(Monitor(), 9, samples_spread=0.5) == []
    assert alarms_of(Monitor(), 9, progress=0.05, samples_spread=0.01) == []
    assert "collapsed" in alarms_of(Monitor(), 2, samples_spread=0.02)[0]
    assert "diverges" in alarms_of(Monitor(), 5, real=-3e5, fake=2e5)[0]


def test_alarms_survive_a_checkpoint():
    monitor, after = Monitor(), Monitor()
    alarms_of(monitor, 1, samples_spread=0.02)
    after.restore({}, json.loads(json.dumps(monitor.state()[1])))
    assert len(alarms_of(after, 1, samples_spread=0.02)) == 1
    again = Monitor()
    again.restore(*after.state())
    assert alarms_of(again, 9, samples_spread=0.02) == []


def test_the_bar_prints_a_warning(capsys):
    bar = Bar()
    bar.begin("begun", 10)
    bar.warn("something [is] odd")
    assert "warning: something [is] odd" in capsys.readouterr().err


# ------------------------------------------------------------------------------ snapshots

class Handed(Model):
    """Samples of the examples that it holds, drawn by the noise; or the first, over and over."""

    def __init__(self, data: Dataset, one: bool = False) -> None:
        super().__init__(None, data.space)
        self.latent_dim, self.one = 1, one
        x = np.asarray(data.take("x"), np.float32)
        self.x = torch.from_numpy(np.asarray(data.space.to_model(x), np.float32))

    def sample(self, n, *, noise, condition=None):
        rows = noise.integers(len(self.x), n)
        return self.x[rows * 0 if self.one else rows]


def test_the_spread_is_one_for_real_items_and_zero_for_one_item():
    for data in (tiny.images(n=300), tiny.points(2000), tiny.table(200)):
        watcher = SampleMonitor(None, data)
        assert watcher.take(Handed(data), 0)["samples/spread"] == pytest.approx(1, abs=0.1)
        assert watcher.take(Handed(data, one=True), 0)["samples/spread"] == 0


def test_points_with_labels_tell_their_modes():
    data = open_ring(n=2000).base
    some = data.subset(np.flatnonzero(data.label < 3))
    terms = SampleMonitor(None, data).take(Handed(some), 0)
    assert terms["samples/modes"] == 3 and terms["samples/within"] > 0.97
    plain = Dataset(data.x, Points((2,)))
    assert SampleMonitor(None, plain).take(Handed(plain), 0).keys() == {"samples/spread"}


def test_samples_that_are_no_numbers_are_no_terms():
    data = tiny.points(200)
    model = Handed(data)
    model.x[:] = torch.nan
    assert SampleMonitor(None, data).take(model, 0) == {}


def test_a_look_is_the_same_every_time_and_leaves_torchs_generator(tmp_path):
    data = tiny.images()
    watcher, model, before = SampleMonitor(tmp_path, data), Handed(data), torch.get_rng_state()
    for images in (0, 100):
        watcher.take(model, images)
    first, second = ((tmp_path / f"{n:010d}.png").read_bytes() for n in (0, 100))
    assert first == second and torch.equal(before, torch.get_rng_state())
    watcher.finish(model)
    with Image.open(tmp_path / "history.gif") as film, Image.open(
            tmp_path / "0000000000.png") as grid:
        assert film.size[0] >= grid.size[0]


GAN = {"images": 640, "batch_size": 32, "width": 16, "depth": 1, "threads": 1,
       "precision": "fp32", "progress": False}


def lines_of(run):
    return [json.loads(s) for s in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_gan_leaves_grids_and_their_history(tmp_path):
    latlas.train("gan", "digits", out=tmp_path / "run", sample_snapshots=5, **GAN)
    names = sorted(f.name for f in (tmp_path / "run/samples").iterdir())
    assert names == [f"{n:010d}.png" for n in range(0, 641, 128)] + ["history.gif"]
    with Image.open(tmp_path / "run/samples/history.gif") as film:
        assert 2 < film.n_frames <= 6  # equal ones are shown as one
    lines = lines_of(tmp_path / "run")
    assert [line["images"] for line in lines if "samples/spread" in line] == list(
        range(0, 641, 128))
    assert any("gradient/generator" in line for line in lines)


def test_looks_do_not_change_training(tmp_path):
    runs = {n: tmp_path / str(n) for n in (0, 5)}
    models = [latlas.train("gan", "digits", out=run, sample_snapshots=n, **GAN).model
              for n, run in runs.items()]
    assert torch.equal(*map(tiny.weights, models))
    assert not (runs[0] / "samples").exists()
    terms = [[line["D(real)"] for line in lines_of(run) if "D(real)" in line]
             for run in runs.values()]
    assert terms[0] == terms[1]


def test_a_vae_is_not_monitored(tmp_path):
    latlas.train("vae", "digits", out=tmp_path / "run", **GAN)
    assert not (tmp_path / "run/samples").exists()
    assert not any("/" in name and not name.startswith("validation") for line in
                   lines_of(tmp_path / "run") for name in line)


def test_points_and_classes_are_monitored_too(tmp_path):
    latlas.train("gan", "ring", out=tmp_path / "ring", **GAN)
    assert {"samples/spread", "samples/modes", "samples/within"} <= set().union(
        *lines_of(tmp_path / "ring"))
    latlas.train("conditional-gan", "digits", out=tmp_path / "digits", sample_snapshots=2, **GAN)
    assert len(list((tmp_path / "digits/samples").glob("*.png"))) == 3


# ------------------------------------------------------------------------------ classes of images

@pytest.fixture
def at_once(monkeypatch):
    """Learning to tell classes is worth it at the first look."""
    for name, value in (("LEAST", 0.0), ("SHARE", 1e9), ("MOST", 1e9)):
        monkeypatch.setattr(snapshots, name, value)


def test_labelled_pictures_tell_the_classes_they_reach(at_once, quick_classifier):
    label = np.arange(300) % 3
    shades = np.random.default_rng(0).integers(0, 4, (300, 1, 8, 8), np.uint8)
    shades += (6 * label[:, None, None, None]).astype(np.uint8)
    data = Dataset(shades, Images((1, 8, 8), 17, classes=tuple("abc")), label)
    watcher = SampleMonitor(None, data)
    for classes in (1, 2, 3):
        some = data.subset(np.flatnonzero(data.label < classes))
        assert watcher.take(Handed(some), 0)["samples/modes"] == classes
    plain = Dataset(data.x, Images((1, 8, 8), 17))
    for few in (plain, data.subset(slice(0, 90)), data.subset(np.flatnonzero(data.label == 1))):
        assert SampleMonitor(None, few).take(Handed(few), 0).keys() == {"samples/spread"}


@pytest.mark.parametrize(("seconds", "elapsed", "cheap"), [
    (1.0, 29.0, False), (1.0, 49.0, False), (1.0, 51.0, True), (19.0, 960.0, True),
    (21.0, 1e6, False)])
def test_classes_are_learnt_when_it_costs_little(monkeypatch, seconds, elapsed, cheap):
    """At most a fiftieth of the time that has gone by, and twenty seconds."""
    clock, timed = [5.0], []
    monkeypatch.setattr(snapshots.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(snapshots, "learning_seconds",
                        lambda *_, **__: timed.append(1) or seconds)
    monitor = SampleMonitor(None, tiny.images(n=300))
    clock[0] += elapsed
    assert [monitor.is_cheap("cpu") for _ in range(2)] == [cheap, cheap]
    assert len(timed) == (elapsed >= 30)


def test_learning_classes_does_not_change_training_and_serves_the_evaluation(
        tmp_path, monkeypatch, at_once, quick_classifier):
    run = latlas.train("gan", "digits", out=tmp_path / "told", sample_snapshots=5, **GAN)
    assert all(line["samples/modes"] >= 1 for line in lines_of(tmp_path / "told")
               if "samples/spread" in line)
    rollbacks = list((tmp_path / "told/cache").iterdir())
    assert len(rollbacks) == 1 and rollbacks[0].name.startswith("classifier-")
    latlas.evaluate(tmp_path / "told", samples=100, metrics=["samples"])
    assert rollbacks == list((tmp_path / "told/cache").glob("classifier-*"))
    monkeypatch.setattr(snapshots, "LEAST", 1e9)
    plain = latlas.train("gan", "digits", out=tmp_path / "plain", sample_snapshots=5, **GAN)
    assert torch.equal(tiny.weights(run.model), tiny.weights(plain.model))
