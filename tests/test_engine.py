"""Training: parameter groups, lazy phases, rates, averages, budgets, held-out checks, the log."""

from __future__ import annotations

import copy
import json
import math
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from torch import nn
from toy_gan import ToyGAN, ToyGANConfig

from latlas.core.devices import DistributedContext, autocast, transposed
from latlas.core.errors import ConfigError, DataError
from latlas.core.files import create_run, read_run
from latlas.core.model import Batch, Loss, Model, Phase, Step
from latlas.core.noise import Noise, dropout
from latlas.core.space import Points
from latlas.data.batches import Batches, Sweep
from latlas.data.dataset import Dataset
from latlas.engine import resolve as resolving
from latlas.engine.adam import Adam, learning_rate_share, phase_optimisers
from latlas.engine.options import TrainOptions, batch_size_of, default_images, with_defaults
from latlas.engine.progress import Progress
from latlas.engine.resolve import layout_of, resolve
from latlas.engine.train import train
from latlas.engine.trainer import EMA, Trainer
from latlas.run import Run


def run_of(path):
    return create_run(path, {"model": "test"})


def lines_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


class Walk(Model):
    """Two phases whose gradients are known: d/da = 1 and, every third step, d/db = 2."""

    latent_dim = 1
    phases = (Phase("a", ("a",)), Phase("b", ("b",), every=3))

    def __init__(self) -> None:
        super().__init__(None, Points((1,)))
        self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def losses(self, batch: Batch, step: Step):
        index = torch.tensor(float(step.index))
        yield "a", Loss(self.a.weight.sum() + 5 * self.b.weight.sum(), {"a": index})
        if step.index % 3 == 0:
            yield "b", Loss(2 * self.b.weight.sum() + 7 * self.a.weight.sum(), {"b": index})


def walk(**more):
    model = Walk()
    trainer = Trainer(model, tiny.options(**more), budget=320, precision="fp32")
    return model, trainer, Batch(torch.zeros(16, 1))


def test_a_gradient_reaches_its_own_group_and_a_lazy_loss_is_scaled():
    model, trainer, batch = walk()
    pairs = []
    for optimiser in trainer.optimisers:
        tiny.before_steps(optimiser, lambda: pairs.append(
            (model.a.weight.grad, model.b.weight.grad)))
    for _ in range(4):
        trainer.step(batch)
    values = [tuple(None if g is None else g.item() for g in pair) for pair in pairs]
    assert values == [(1, None), (None, 6), (1, None), (1, None), (1, None), (None, 6)]


def test_terms_are_means_over_the_steps_that_had_them():
    _, trainer, batch = walk()
    for _ in range(6):
        trainer.step(batch)
    assert trainer.drain() == {"a": 2.5, "b": 1.5}
    assert trainer.drain() == {}


def test_a_lazy_penalty_adjusts_the_optimiser_it_shares():
    """Karras et al. 2020, appendix B: rate and betas to the power k/(k+1)."""
    model = ToyGAN(ToyGANConfig(), Points((2,)))
    options = tiny.options(learning_rate=1e-3, betas=(0.5, 0.99))
    optimisers = {k: v[1] for k, v in phase_optimisers(model, model.phases, options).items()}
    assert list(optimisers) == ["discriminator", "penalty", "generator"]
    discriminator, penalty, generator = optimisers.values()
    assert discriminator is penalty
    assert discriminator.learning_rate == pytest.approx(1e-3 * 4 / 5)
    assert discriminator.betas == pytest.approx((0.5**0.8, 0.99**0.8))
    assert generator.betas == (0.5, 0.99)


@pytest.mark.parametrize("eps", [1e-8, 1e-1])
def test_adam_takes_the_steps_of_torchs(eps):
    torch.manual_seed(0)
    mine, theirs = (torch.nn.Linear(5, 4) for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    own = Adam(list(mine.parameters()), 0.01, (0.8, 0.95), 0.1, eps)
    groups = [{"params": [theirs.weight], "weight_decay": 0.1},
              {"params": [theirs.bias], "weight_decay": 0.0}]
    peer = torch.optim.AdamW(groups, 0.005, (0.8, 0.95), eps)
    for _ in range(20):
        x = torch.randn(8, 5)
        for network in (mine, theirs):
            network(x).square().sum().backward()
        own.step(0.5)
        peer.step()
        peer.zero_grad()
    assert torch.allclose(mine.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(mine.bias, theirs.bias, atol=1e-6)


def test_adam_takes_the_same_steps_in_every_memory_layout():
    torch.manual_seed(0)
    start, gradients = torch.randn(4, 6, 3, 3), torch.randn(5, 4, 6, 3, 3)
    ends = []
    for weights, slopes in (("contiguous", "contiguous"), ("channels_last", "channels_last"),
                            ("channels_last", "contiguous"), ("contiguous", "channels_last")):
        layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        weight = torch.nn.Parameter(start.clone(memory_format=layout[weights]))
        own = Adam([weight], 0.01, (0.8, 0.95), 0.1)
        for gradient in gradients:
            weight.grad = gradient.clone(memory_format=layout[slopes])
            own.step(0.5)
        assert weight.is_contiguous(memory_format=layout[weights])
        ends.append(weight.detach().contiguous())
    assert all(torch.allclose(end, ends[0], atol=1e-7) for end in ends)
    assert not torch.allclose(ends[0], start, atol=1e-3)


def test_generator_and_discriminator_learn_a_ring(tmp_path):
    """Samples come to lie on the circle, near each of the eight Gaussians; at first none does."""
    data, config = tiny.points(2000), ToyGANConfig()
    turns = torch.arange(8) * (math.pi / 4)
    centres = torch.stack([turns.cos(), turns.sin()], 1)

    def on_circle(model):
        x = model.requires_grad_(False).sample(1000, noise=Noise(1))
        x = x[(x.norm(dim=1) - 1).abs() < 0.1]
        return torch.bincount(torch.cdist(x, centres).argmin(1), minlength=8) / 1000

    assert on_circle(ToyGAN(config, data.space)).sum() < 0.05
    training = tiny.options(images=400 * 128, batch_size=128, betas=(0.5, 0.99),
                            learning_rate=2e-3, schedule="constant")
    model, _ = tiny.train(tmp_path / "run", "toy_gan:ToyGAN", data, config, training=training)
    shares = on_circle(model)
    assert shares.sum() > 0.5 and shares.min() > 0.02
    names = {name for line in lines_of(tmp_path / "run") for name in line}
    assert names == {"images", "seconds", "discriminator", "generator", "penalty"}


def test_fakes_made_once_give_the_generator_the_same_gradient():
    torch.manual_seed(0)
    model = ToyGAN(ToyGANConfig(), Points((2,)))
    batch, step = Batch(torch.randn(16, 2)), Step(0, 0, 0.0, Noise(4))
    shared = dict(model.losses(batch, step))["generator"].total
    fresh = torch.nn.functional.softplus(-model.discriminator(model.sample(16, noise=Noise(4))))
    mine, theirs = (torch.autograd.grad(loss, list(model.generator.parameters()))
                    for loss in (shared, fresh.mean()))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_the_rate_rises_then_falls_as_half_a_cosine():
    options = TrainOptions(warmup=0.1)
    assert learning_rate_share(options, 0.05) == pytest.approx(
        0.5 * (0.01 + 0.99 * (1 + math.cos(0.05 * math.pi)) / 2), rel=1e-6)
    assert learning_rate_share(options, 0.5) == pytest.approx(0.505)
    assert learning_rate_share(options, 1.0) == pytest.approx(0.01)
    steady = TrainOptions(warmup=0.0, schedule="constant")
    assert {learning_rate_share(steady, p) for p in (0.0, 0.5, 1.0)} == {1.0}


def test_stages_are_eight_of_triple_length_a_seventh_of_a_decade_apart():
    options = TrainOptions(warmup=0.0, schedule="stages")
    passes = [math.floor(7 * -math.log10(learning_rate_share(options, p / 3280)) + 0.5)
              for p in range(3280)]
    assert [passes.count(stage) for stage in range(8)] == [3**stage for stage in range(8)]
    assert learning_rate_share(options, 1.0) == pytest.approx(0.1)


def test_clipping_bounds_the_gradient(tmp_path):
    model, trainer, batch = walk(clip_norm=0.25)
    norms = []
    tiny.before_steps(trainer.optimisers[0],
                      lambda: norms.append(model.a.weight.grad.norm().item()))
    trainer.step(batch)
    assert norms == pytest.approx([0.25], rel=1e-4)


def test_the_average_has_the_stated_half_life():
    """Half-life 0.1 of 1,000 examples is 100: after 100 more, half of the way is left."""
    source = Walk()
    average = EMA(source, 0.1)
    with torch.no_grad():
        for p in source.parameters():
            p.fill_(0.0)
        average.update(900)
        for p in average.model.parameters():
            p.fill_(1.0)
    average.update(1000)
    assert average.model.a.weight.item() == pytest.approx(0.5)
    average.update(1000)  # nothing was seen since
    assert average.model.a.weight.item() == pytest.approx(0.5)


def test_without_averaging_the_last_weights_are_kept(tmp_path):
    """Also where the number of steps is no multiple of anything."""
    data, training = tiny.images(), tiny.options(images=7 * 16, ema=0.0)
    model = tiny.build("vae", data, tiny.small("vae"))
    twin = copy.deepcopy(model)
    train(model, data, None, training, run_of(tmp_path / "run"))
    trainer = Trainer(twin, training, budget=7 * 16, precision="fp32", n_train=len(data))
    for k in range(7):
        trainer.step(Batches(data, 16).at(k))
    assert torch.equal(tiny.weights(model), tiny.weights(twin))


def test_a_run_of_few_steps_is_averaged_too(tmp_path):
    data = tiny.images()
    first = tiny.weights(tiny.build("vae", data, tiny.small("vae")))
    model, _ = tiny.train(tmp_path / "run", "vae", data, tiny.small("vae"),
                          training=tiny.options(images=16))
    assert not torch.equal(first, tiny.weights(model))


def test_only_the_modules_named_are_averaged():
    model = ToyGAN(ToyGANConfig(), Points((2,)))
    average = EMA(model, 0.5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    average.update(100)
    now = average.current()
    difference = (model.generator[0].bias - now.generator[0].bias).abs().max()
    assert difference.item() == pytest.approx(0.25)  # one half-life of 50 is two of 100 examples
    assert torch.equal(model.discriminator[0].bias, now.discriminator[0].bias)


def test_shared_weights_are_averaged_once():
    model = Walk()
    model.b.weight = model.a.weight
    average = EMA(model, 0.5)
    with torch.no_grad():
        model.a.weight.add_(1.0)
    average.update(100)
    assert (model.a.weight - average.current().b.weight).item() == pytest.approx(0.25)


def worsening(path, progress=None):
    """Held-out examples unlike the training examples: soon every step makes them worse."""
    data = tiny.images(n=30)
    other = replace(data, x=np.ascontiguousarray(16 - data.x))
    training = tiny.options(images=16_000, patience=6, validate_every=64, learning_rate=0.01)
    return tiny.train(path, "vae", data, tiny.small("vae"), training=training, validation=other,
                      progress=progress)


def test_training_stops_when_held_out_data_gets_no_better_and_keeps_the_best(tmp_path):
    _, outcome = worsening(tmp_path / "run")
    losses = [line["validation/loss"] for line in lines_of(tmp_path / "run")
              if "validation/loss" in line]
    assert outcome.stopped == "patience" and outcome.images < 16_000
    assert outcome.best == min(losses) == losses[-7]


def test_an_interrupted_run_remembers_the_best_weights_and_how_long_ago_they_were(tmp_path):
    model, outcome = worsening(tmp_path / "whole")
    late = outcome.images - 3 * 64  # three checks after the best one
    worsening(tmp_path / "run", tiny.At(late, lambda: signal.raise_signal(signal.SIGINT)))
    unfinished = Run(tmp_path / "run").model
    assert torch.equal(tiny.weights(unfinished), tiny.weights(model))  # not those of its last step
    resumed, again = worsening(tmp_path / "run")
    assert (again.images, again.best) == (outcome.images, outcome.best)
    assert torch.equal(tiny.weights(resumed), tiny.weights(model))


class Draws(Walk):
    """Its loss in a check is a sum of draws, whatever its weights are."""

    phases = (Phase("a", ("a",)),)
    losses = Model.losses

    def loss(self, batch: Batch, step: Step) -> Loss:
        draws = step.noise.normal(len(batch)).sum() + step.noise.uniform(len(batch)).sum()
        total = self.a.weight.sum() * float(torch.is_grad_enabled()) + draws
        return Loss(total, {"draws": draws})


def test_the_draws_of_a_check_are_the_same_in_every_check(tmp_path):
    data = Dataset(np.zeros((32, 1), np.float32), Points((1,)))
    values = []
    for seed in (0, 1):
        train(Draws(), data, data, tiny.options(seed=seed, validate_every=16),
              run_of(tmp_path / str(seed)))
        lines = lines_of(tmp_path / str(seed))
        values.append([line["validation/loss"] for line in lines if "validation/loss" in line])
        assert len({line["draws"] for line in lines if "draws" in line}) == 20
    assert [len(v) for v in values] == [20, 20]
    assert [len(set(v)) for v in values] == [1, 1] and values[0] != values[1]


def test_checks_do_not_change_training(tmp_path):
    data, trained = tiny.images(), []
    for every in (0, 16):
        training = tiny.options(ema=0.0, validate_every=every)
        model = tiny.build("vae", data, tiny.small("vae"))
        train(model, data, data, training, run_of(tmp_path / str(every)))
        trained.append([line["kl"] for line in lines_of(tmp_path / str(every)) if "kl" in line])
    assert trained[0] == trained[1]


def test_what_was_chosen_is_written_before_the_first_step_and_used_again(tmp_path):
    data, config = tiny.images(), tiny.small("vae")
    stop = tiny.At(16, lambda: signal.raise_signal(signal.SIGINT))
    training = tiny.options(precision="auto", images=None, epochs=2)
    tiny.train(tmp_path / "run", "vae", data, config, training=training, progress=stop)
    file = tmp_path / "run/run.json"
    record = json.loads(file.read_text())
    assert record["chosen"]["images"] == 180
    assert record["chosen"]["precision"] in ("fp32", "bf16")
    record["chosen"]["images"] = 100
    file.write_text(json.dumps(record))
    _, outcome = tiny.train(tmp_path / "run", "vae", data, config, training=training)
    assert outcome.images == 112  # seven steps of 16: the budget is reached, never cut short


class FakeTime:
    """A clock that stands still but for what a step is said to take."""

    def __init__(self, monkeypatch):
        self.seconds = 1000.0
        for name in ("perf_counter", "monotonic", "time"):
            monkeypatch.setattr(time, name, lambda: self.seconds)


@pytest.mark.parametrize("seconds", [0.05, 0.2])
def test_minutes_are_kept_whatever_a_step_takes(tmp_path, monkeypatch, seconds):
    """By a clock that every step, those that are timed among them, moves by so many seconds."""
    clock = FakeTime(monkeypatch)

    class Takes(Walk):
        def losses(self, batch, step):
            clock.seconds += seconds
            return super().losses(batch, step)

    data = Dataset(np.zeros((32, 1), np.float32), Points((1,)))
    training, run = tiny.options(images=None, minutes=0.5), run_of(tmp_path / "run")
    outcome = train(Takes(), data, None, training, run)
    assert 27 <= clock.seconds - 1000 <= 30
    assert outcome.stopped == "budget" and outcome.images == read_run(run)["chosen"]["images"]
    assert 16 * 22 / seconds <= outcome.images <= 16 * 30 / seconds
    assert outcome.images % 16 == 0


def test_the_automatic_budget():
    assert [default_images(n) for n in (100, 10_000, 60_000, 10**6)] == [
        200_000, 400_000, 2_400_000, 10_000_000]


def test_the_automatic_batch_size():
    sizes = [batch_size_of(Walk(), n, TrainOptions(), DistributedContext())
             for n in (10, 6400, 12_800, 25_600, 10**6)]
    assert sizes == [64, 64, 128, 256, 256]


def test_two_budgets_are_refused_and_a_given_one_replaces_the_models():
    with pytest.raises(ConfigError, match="images and minutes: give at most one"):
        TrainOptions(images=3, minutes=1)
    assert with_defaults({"epochs": 3.0, "batch_size": 4}, {"minutes": 2}).epochs is None


def test_the_log_counts_items_upward(tmp_path):
    tiny.train(tmp_path / "run", "vae", tiny.images(), tiny.small("vae"),
               validation=tiny.images())
    images = [line["images"] for line in lines_of(tmp_path / "run")]
    assert images == sorted(images) and images[-1] == 320
    assert {"loss", "reconstruction", "kl"} <= lines_of(tmp_path / "run")[0].keys()


def test_the_callers_random_numbers_and_threads_are_left_alone(tmp_path):
    before = torch.get_rng_state()
    data = tiny.images()
    model = tiny.build("vae", data, tiny.small("vae"))
    torch.set_rng_state(before)
    train(model, data, None, tiny.options(threads=2), run_of(tmp_path / "run"))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 1


def test_nothing_to_train_on_is_said(tmp_path):
    data = tiny.images()
    empty = data.subset(slice(0, 0))
    with pytest.raises(DataError, match="no examples"):
        train(tiny.build("vae", data, tiny.small("vae")), empty, None, tiny.options(),
              run_of(tmp_path / "run"))


def test_an_unusable_device_is_named(tmp_path):
    data = tiny.images()
    with pytest.raises(ConfigError, match=r"unknown device .nowhere.: Valid: auto, cpu"):
        train(tiny.build("vae", data, tiny.small("vae")), data, None,
              tiny.options(device="nowhere"), run_of(tmp_path / "run"))


def test_the_layout_follows_the_networks():
    conv = nn.Conv2d(3, 4, 3)
    assert layout_of(conv, TrainOptions()) == "channels_last"
    assert layout_of(nn.Sequential(conv, nn.InstanceNorm2d(4)), TrainOptions()) == "contiguous"
    assert layout_of(nn.Linear(1, 1), TrainOptions()) == "contiguous"
    assert layout_of(conv, TrainOptions(layout="contiguous")) == "contiguous"


def test_batches_see_every_item_equally_often_and_only_depend_on_their_number():
    data = tiny.images(n=30)
    batches = Batches(data, 16, seed=3)
    passes = torch.cat([batches.at(k).index for k in range(15)]).view(8, 30).tolist()
    assert [sorted(rows) for rows in passes] == [list(range(30))] * 8
    assert len({tuple(rows) for rows in [*passes, list(range(30))]}) == 9  # no two in one order
    assert torch.equal(Batches(data, 16, seed=3).at(11).index, batches.at(11).index)
    assert not torch.equal(Batches(data, 16, seed=4).at(11).index, batches.at(11).index)
    shares = [Batches(data, 16, seed=3, rank=r, world=2).at(5).index for r in (0, 1)]
    assert torch.equal(torch.cat(shares), batches.at(5).index)


def test_a_batch_is_in_model_units_and_in_step_with_its_labels():
    data = tiny.images(n=30).subset(np.arange(29, -1, -1))
    batch = next(iter(Sweep(data, 7)))
    assert batch.index.tolist() == list(range(29, 22, -1))
    assert batch.x.min() >= -1 and batch.x.max() <= 1
    np.testing.assert_allclose(batch.x, data.x[batch.index] / 8.0 - 1, atol=1e-6)
    assert torch.equal(batch.label, torch.from_numpy(data.label)[batch.index])


def test_mixed_precision_leaves_transposed_convolutions_in_fp32():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ConvTranspose2d(2, 1, 3))
    dtypes = []
    for module in network:
        module.register_forward_hook(lambda m, inputs, out: dtypes.append(out.dtype))
    x, cpu = torch.zeros(1, 1, 6, 6), torch.device("cpu")
    with autocast(cpu, "mixed", transposed(network)):
        network(x)
        assert torch.is_autocast_enabled("cpu")
    with autocast(cpu, "bf16", transposed(network)):
        network(x)
    assert dtypes == [torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16]
    assert not torch.is_autocast_enabled("cpu")


def test_a_short_run_is_not_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(resolving, "seconds_per_step", lambda *_: pytest.fail("timed"))
    training = tiny.options(images=160, precision="auto", threads=0)
    _, outcome = tiny.train(tmp_path / "run", "vae", tiny.images(), tiny.small("vae"),
                            training=training)
    assert outcome.images == 160


class Drops(Walk):
    """Keeps what dropout leaves of ones."""

    phases = (Phase("a", ("a",)),)

    def losses(self, batch: Batch, step: Step):
        self.dropped = dropout(torch.ones(100_000, 1), 0.4)
        yield "a", Loss(self.a.weight.sum(), {})


def test_dropout_grows_with_the_passes_over_the_data():
    """Its share of zeros after no pass, half of 200, and more."""
    for n, images, share in ((0, 0, 0.4), (10, 0, 0.0), (10, 1000, 0.2), (10, 5000, 0.4)):
        model = Drops()
        trainer = Trainer(model, tiny.options(batch_size=10), budget=9999, precision="fp32",
                          n_train=n)
        trainer.index = images // 10
        trainer.step(Batch(torch.zeros(10, 1)))
        assert (model.dropped == 0).float().mean() == pytest.approx(share, abs=0.01)
        assert model.dropped.mean() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("slow", "threads"), [(1, 2), (2, 1), (0, 2)])
def test_the_faster_number_of_threads_is_taken(tmp_path, monkeypatch, slow, threads):
    """All of them, unless one alone is clearly faster; the speed is measured with those."""
    clock = FakeTime(monkeypatch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    used = [2]
    monkeypatch.setattr(torch, "set_num_threads", lambda n: used.append(n))

    class Takes(Walk):
        def losses(self, batch, step):
            clock.seconds += 0.4 if used[-1] == slow else 0.1
            return super().losses(batch, step)

    data = Dataset(np.zeros((32, 1), np.float32), Points((1,)))
    options = tiny.options(images=16 * 500, threads=0)
    chosen = resolve(Takes(), Batches(data, 16), options, DistributedContext())
    assert (chosen.threads, used[-1]) == (threads, threads)
    assert chosen.examples_per_second == pytest.approx(16 / 0.1)


def test_the_first_line_says_what_will_be_done(tmp_path):
    lines, progress = [], Progress()
    progress.begin = lambda note, *rest: lines.append(note)
    tiny.train(tmp_path / "run", "vae", tiny.images(), tiny.small("vae"), progress=progress)
    assert lines == ["20 steps of 16 examples (3.56 epochs), lr 0.001, fp32, 1 thread, cpu"]


def test_a_phase_whose_part_of_the_budget_is_to_come_has_a_learning_rate(tmp_path):
    """The flow's, while the autoencoder learns: the stages are logarithms of the share."""
    model, _ = tiny.train(tmp_path / "run", "latent-flow", tiny.images(),
                          tiny.small("latent-flow", width=8, draws=1),
                          training=tiny.options(schedule="stages", images=64))
    assert tiny.weights(model).isfinite().all()
