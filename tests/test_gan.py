"""``gan``: what its networks are known to learn, its steps, and its words for bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

import latlas
from latlas import models
from latlas.cli import __main__ as cli
from latlas.core.devices import DistributedContext
from latlas.core.errors import ConfigError, DataError, RunError
from latlas.core.model import Batch, Phase, Step
from latlas.core.noise import Noise
from latlas.core.space import Images, Points
from latlas.data.batches import Batches, Sweep
from latlas.data.dataset import Dataset
from latlas.engine.options import batch_size_of
from latlas.engine.resolve import resolve
from latlas.engine.trainer import Trainer
from latlas.models import gan
from latlas.models.gan import GAN
from latlas.models.priors import StandardNormal
from latlas.networks.gan import Waves, make_generator, minibatch_deviation
from latlas.objectives import adversarial
from latlas.objectives.adversarial import Objective, find_objective

POINTS = Points((2,))


class DiscriminatorAlone(GAN):
    """The generator makes N((1, 0), I) and stays as it is."""

    phases = (Phase("discriminator", ("discriminator",)),)

    def losses(self, batch, step):
        yield next(super().losses(batch, step))


class Shifted(nn.Module):
    def forward(self, z):
        return z + torch.tensor([1.0, 0.0])


@pytest.mark.parametrize("objective", ["non-saturating", "minimax", "relativistic"])
def test_the_discriminator_learns_the_ratio_of_known_densities(objective):
    """p = N((−1, 0), I), q = N((1, 0), I): p / (p + q) = σ(−2 x₀)."""
    config = tiny.small("gan", width=64, latent_dim=2, objective=objective, penalty="none")
    torch.manual_seed(0)
    model = DiscriminatorAlone(config, POINTS, generator=Shifted())
    steps, batch = 1500, 512
    options = tiny.options(images=steps * batch, batch_size=batch, learning_rate=3e-3)
    trainer, noise = Trainer(model, options, budget=steps * batch, precision="fp32"), Noise(7)
    for _ in range(steps):
        trainer.step(Batch(noise.normal(batch, 2) - torch.tensor([1.0, 0.0])))
    grid = torch.cartesian_prod(torch.linspace(-2, 2, 17), torch.linspace(-1.5, 1.5, 13))
    with torch.no_grad():
        odds = model.discriminator(grid)[:, 0]
    if objective == "relativistic":  # which knows the odds but for a constant
        odds = odds - (odds + 2 * grid[:, 0]).mean()
    assert (odds.sigmoid() - (-2 * grid[:, 0]).sigmoid()).abs().max() < 0.05


def model_of(data, name="gan", **settings):
    return tiny.build(name, data, tiny.small(name, **settings))


def losses_of(model, batch, **step):
    """The losses of one step, by phase."""
    return dict(model.losses(batch, Step(0, 0, 0.0, Noise(1), **step)))


def shown_to(network):
    """The inputs of a network from here on."""
    inputs = []
    network.register_forward_hook(lambda _, args, out: inputs.append(args[0].detach()))
    return inputs


def test_the_penalty_is_half_gamma_times_both_slopes():
    data = tiny.points()
    plain, held_out = (model_of(data, gamma=g, penalty="r1+r2") for g in (0.0, 3.0))
    batch = Batch(torch.as_tensor(data.x[:8]))
    without, result = (losses_of(m, batch)["discriminator"] for m in (plain, held_out))
    slopes = result.terms["r1"] + result.terms["r2"]
    torch.testing.assert_close(result.total - without.total, 1.5 * slopes)


def test_gamma_falls_geometrically_to_its_share():
    model = model_of(tiny.points(), gamma=2.0, gamma_end=0.1)
    d_inputs = [torch.zeros(3, 2) for _ in range(2)]
    found = [model.adversarial.penalty(lambda x: x.sum(1, keepdim=True), d_inputs,
                                       Step(0, 0, p, Noise(0)))[0]
             / 2 for p in (0.0, 0.5, 1.0)]  # both gradients are (1, 1), of square 2
    assert [v.item() for v in found] == pytest.approx([2.0, 2 * 0.1 ** 0.5, 0.2])


def test_a_lazy_penalty_is_a_phase_of_its_own():
    model = model_of(tiny.points(), r1_interval=4)
    assert [p.name for p in model.phases] == ["discriminator", "penalty", "generator"]
    assert model.phases[1].every == 4
    batch = Batch(torch.as_tensor(tiny.points().x[:8]))
    result = losses_of(model, batch)
    assert list(result) == ["discriminator", "penalty", "generator"]
    assert "r1" in result["penalty"].terms and "r1" not in result["discriminator"].terms
    due = [k for k in range(9) if "penalty" in dict(model.losses(batch, Step(k, 0, 0.0, Noise(1))))]
    assert due == [0, 4, 8]


@pytest.mark.parametrize(("penalty", "examples"), [("r1", 8), ("r2", 8), ("r1+r2", 16), ("gp", 8)])
def test_a_lazy_penalty_is_the_eager_one_and_runs_the_discriminator_where_it_is_taken(
        penalty, examples):
    data = tiny.points()
    eager, lazy = (model_of(data, penalty=penalty, r1_interval=k) for k in (1, 2))
    batch = Batch(torch.as_tensor(data.x[:8]))
    whole = losses_of(eager, batch)["discriminator"]
    losses = lazy.losses(batch, Step(0, 0, 0.0, Noise(1)))
    plain = next(losses)[1]
    inputs = shown_to(lazy.discriminator)
    name, alone = next(losses)
    assert name == "penalty" and sum(map(len, inputs)) == examples
    torch.testing.assert_close(alone.total, whole.total - plain.total)
    assert alone.terms.items() <= whole.terms.items()


@pytest.mark.parametrize("every", [1, 2])
def test_real_items_and_fakes_in_one_batch_change_nothing(every):
    data, result = tiny.images(), []
    for together in (True, False):
        model = model_of(data, network="conv", n_clusters=3, minibatch_std=4, r1_interval=every)
        model.prepare(Sweep(data, 50), len(data))
        model.adversarial.concat_real_fake, batch = together, Batches(data, 8).at(0)
        losses, total = model.losses(batch, Step(0, 0, 0.0, Noise(1))), 0.0
        inputs = shown_to(model.discriminator)
        for _ in model.phases[:-1]:
            total = total + next(losses)[1].total
        assert {len(x) for x in inputs} == {16 if together else 8}
        result.append([total, *torch.autograd.grad(total, list(model.discriminator.parameters()))])
    torch.testing.assert_close(*result)


def test_a_discriminator_of_ones_own_sees_real_items_and_fakes_apart():
    own = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 1))
    model = GAN(tiny.small("gan"), tiny.points().space, discriminator=own)
    inputs = shown_to(own)
    next(model.losses(Batch(torch.as_tensor(tiny.points().x[:8])), Step(0, 0, 0.0, Noise(1))))
    assert [len(x) for x in inputs] == [8, 8]


def test_fakes_are_made_once_a_step():
    model = model_of(tiny.points())
    latents = shown_to(model.generator)
    result = losses_of(model, Batch(torch.as_tensor(tiny.points().x[:8])))
    assert list(result) == ["discriminator", "generator"] and len(latents) == 1


def test_the_textbook_gan():
    """D: −log σ(D(x)) − log(1 − σ(D(G(z)))), G: −log σ(D(G(z))), z ~ N(0, I), nothing else."""
    data = tiny.images()
    model = model_of(data, prior="normal", objective="non-saturating", penalty="none",
                     augment="none")
    assert isinstance(model.prior, StandardNormal) and model.latent_dim == 3
    batch = Batch(torch.as_tensor(data.x[:8], dtype=torch.float32))
    latents, result = shown_to(model.generator), losses_of(model, batch)
    assert torch.equal(latents[0], Noise(1).normal(8, 3))
    real, fake = (model.discriminator(x)[:, 0].sigmoid()
                  for x in (batch.x, model.generator(latents[0])))
    torch.testing.assert_close(result["discriminator"].total,
                               -(real.log() + (1 - fake).log()).mean())
    torch.testing.assert_close(result["generator"].total, -fake.log().mean())


@pytest.mark.parametrize("name", ["gan", "conditional-gan", "style-gan", "progressive-gan"])
def test_an_objective_may_be_given(name):
    data = tiny.images()
    own = Objective(lambda real, fake: fake - 2 * real, lambda real, fake: -3 * fake)
    model = models.build(name, tiny.small(name, penalty="none", minibatch_std=0), data.space,
                         objective=own)
    assert model.describe(9).startswith("own objective, no penalty")
    result = losses_of(model, Batches(data, 8).at(0))
    terms = result["discriminator"].terms
    torch.testing.assert_close(terms["discriminator"], terms["D(fake)"] - 2 * terms["D(real)"])
    assert model.objective is own and find_objective("relativistic").generator_uses_real


def test_minibatch_deviation_is_the_groups_mean_deviation():
    h = torch.randn(6, 4)
    groups = h.reshape(2, 3, 4).numpy()
    expected = np.sqrt(groups.var(1) + 1e-8).mean(1).repeat(3)[:, None]
    torch.testing.assert_close(minibatch_deviation(h, 3), torch.as_tensor(expected))
    with pytest.raises(ConfigError, match=r"minibatch_std=4.*batch of 6"):
        minibatch_deviation(h, 4)


def test_spectral_norm_bounds_every_layer():
    data = tiny.images()
    model = model_of(data, network="mlp", spectral_norm=True, objective="hinge", penalty="none")
    for _ in range(30):  # power iteration: one round a call
        model.discriminator(torch.randn(4, *data.space.shape))
    sizes = [torch.linalg.matrix_norm(m.weight, 2).item() for m in model.discriminator.modules()
             if isinstance(m, nn.Linear)]
    assert len(sizes) > 1 and max(sizes) < 1.01


def test_a_class_is_made_by_its_label_and_judged_by_it():
    data = tiny.images()
    model = model_of(data, "conditional-gan")
    z = torch.randn(2, 3, model.latent_dim)
    labels = torch.tensor([0, 1, 1])
    both = model.decode(z, condition=labels).mean
    torch.testing.assert_close(both[1], model.decode(z[1], condition=labels).mean)
    assert not torch.equal(model.decode(z[0], condition=1 - labels).mean, both[0])
    with pytest.raises(DataError, match="needs a label"):
        model.decode(z)


def test_both_players_pay_for_classes_that_are_not_named():
    data = tiny.images()
    batch = Batch(torch.as_tensor(data.x[:8], dtype=torch.float32), torch.as_tensor(data.label[:8]))
    silent, named = (model_of(data, "conditional-gan", class_loss_weight=w, penalty="none")
                     for w in (0, 2))
    named.load_state_dict(silent.state_dict(), strict=False)
    inputs = shown_to(named.discriminator)
    both, own = (losses_of(m, batch) for m in (silent, named))
    fakes = inputs[0][8:]
    for phase, x in (("discriminator", batch.x), ("generator", fakes)):
        without, result = both[phase], own[phase]
        expected_log = torch.log_softmax(named.discriminator(x, batch.label)[:, 1:], 1)
        expected = -2 * expected_log[torch.arange(8), batch.label].mean()
        torch.testing.assert_close(result.total - without.total, expected, rtol=1e-4, atol=1e-5)
    assert silent.discriminator(batch.x, batch.label).shape == (8, 1)


def test_a_discriminator_of_ones_own_tells_all_classes_or_none():
    data = tiny.images()
    batch = Batch(torch.as_tensor(data.x[:8], dtype=torch.float32), torch.as_tensor(data.label[:8]))

    class Three(nn.Module):
        def forward(self, x, label):
            return x.flatten(1)[:, :3]

    model = models.build("conditional-gan", tiny.small("conditional-gan", penalty="none"),
                         data.space, discriminator=Three())
    with pytest.raises(ConfigError, match=r"it gives \(n, 3\)"):
        losses_of(model, batch)


@pytest.mark.parametrize("side", [(28, 28), (9, 12), (33, 64)])
def test_a_generator_of_pictures_starts_with_their_spread(side):
    space = Images((2, *side))
    torch.manual_seed(0)
    make = make_generator(space, 16, 3, network="conv", width=8, depth=0)
    with torch.no_grad():
        output = make(torch.randn(64, 16), torch.randn(64, 3))
    assert output.shape == (64, 2, *side)
    assert 0.2 < output.std() < 0.9 and output.mean().abs() < 0.2


def test_waves_are_sines_of_octaves():
    x = torch.tensor([[0.5, -2.0]])
    turns = [v * np.pi / 2 * f for v in (0.5, -2.0) for f in (1, 2)]
    expected = [0.5, -2.0, *np.sin(turns), *np.cos(turns)]
    torch.testing.assert_close(Waves(2)(x)[0], torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("classes", [(), ("only",)])
def test_a_conditional_gan_needs_two_classes(classes):
    space = Points((2,), classes=classes)
    label = np.zeros(20, np.int64) if classes else None
    data = Dataset(np.zeros((20, 2), np.float32), space, label)
    with pytest.raises(DataError, match="two classes or more"):
        model_of(data, "conditional-gan")


def test_gamma_and_networks_follow_the_data():
    small = models.build("gan", models.get("gan").config(), POINTS)
    assert (small.config.network, small.config.penalty) == ("mlp", "r1+r2")
    assert (small.config.gamma, small.config.gamma_end) == (1.0, 0.01)
    held_out = models.build("gan", models.get("gan").config(objective="wasserstein"), POINTS).config
    assert (held_out.penalty, held_out.gamma, held_out.gamma_end) == ("gp", 10.0, 1.0)
    large = Images((3, 64, 64))
    config = models.build("gan", models.get("gan").config(), large).config
    assert (config.network, config.latent_dim) == ("light", 64)
    assert config.gamma > small.config.gamma
    slim = models.build("gan", models.get("gan").config(), Images((1, 3, 100)))
    assert slim.config.network == "mlp"


def test_one_code_is_one_item():
    model = models.build("gan", models.get("gan").config(), Images((1, 8, 8)))
    z = model.sample_latents(3, noise=Noise(0))
    torch.testing.assert_close(model.decode(z[1]).mean, model.decode(z).mean[1])
    assert model.decode(z[None, None]).mean.shape == (1, 1, 3, 1, 8, 8)


@pytest.mark.parametrize("world", [1, 2])
def test_augmentation_counts_the_items_of_all_processes(world):
    model = models.build("gan", models.get("gan").config(augment="ada"), Images((1, 8, 8)))
    model.update_ada_p(torch.ones(()), 32 // world, Step(0, 0, 0.0, Noise(0, world=world)))
    assert model.augment_p.item() == pytest.approx(32 / 500_000)


def test_augmentation_follows_the_signal_of_the_step():
    model = model_of(tiny.images(), augment="ada", minibatch_std=0)
    batch = Batches(tiny.images(), 8).at(0)
    for start in (0.5, 0.0):
        model.augment_p.fill_(start)
        terms = losses_of(model, batch)["discriminator"].terms
        assert terms["augmented"] == start  # what was in use
        change = 8 / 500_000 * (1 if terms["ada_signal"] > 0.6 else -1)
        assert model.augment_p.item() == pytest.approx(max(0.0, start + change))


def own_players(outputs=64):
    discriminator = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    return {"generator": nn.Sequential(nn.Linear(3, outputs), nn.Unflatten(1, (1, 8, 8))),
            "discriminator": discriminator}


def test_players_of_ones_own(tmp_path):
    output = own_players()
    run = latlas.train("gan", grey((8, 8)), out=tmp_path / "run", progress=False, latent_dim=3,
                        **output, **FEW)
    assert run.model.generator is output["generator"]
    again = latlas.load(tmp_path / "run", **own_players()).model
    assert torch.equal(tiny.weights(again), tiny.weights(run.model))
    for players, words in ((own_players(32), "generator must turn"), ({"generator": print},
                           "generator must be a torch"), ({"up": output["generator"]}, "no up of")):
        with pytest.raises(ConfigError, match=words):
            latlas.train("gan", grey((8, 8)), progress=False, latent_dim=3, **players, **FEW)


def test_the_objective_of_the_docs(monkeypatch):
    """docs/gans.md gives one to `train` directly, and by a name."""
    monkeypatch.setattr(adversarial, "_registered", {})
    page = (Path(__file__).parent.parent / "docs/gans.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    block = next(b for b in blocks if "register_objective" in b)
    exec(compile(block, "page", "exec", dont_inherit=True), {})
    assert list(adversarial._registered) == ["softened"]


def test_an_objective_of_ones_own_trains_and_is_asked_for_again(tmp_path):
    own = Objective(*(lambda real, fake, sign=sign: sign * (fake - real) for sign in (1, -1)),
                    generator_uses_real=True, shift_invariant=True)
    run = latlas.train("gan", grey((8, 8)), out=tmp_path / "run", progress=False, objective=own,
                       **FEW)
    assert run.model.objective is own and run.model.discriminator.head.bias is None
    with pytest.raises(RunError, match="objective=…"):
        _ = latlas.load(tmp_path / "run").model
    again = latlas.load(tmp_path / "run", objective=own).model
    assert torch.equal(tiny.weights(again), tiny.weights(run.model))


# ------------------------------------------------------------------------------ what users give

FEW = {"images": 64, "batch_size": 16, "width": 8, "threads": 1, "precision": "fp32",
       "device": "cpu", "sample_snapshots": 2}


def grey(side, n=60):
    """Images of noise, (n, H, W), and three classes."""
    return np.random.default_rng(0).integers(0, 256, (n, *side), np.uint8), np.arange(n) % 3


@pytest.mark.parametrize("side", [(1, 1), (2, 2), (3, 5), (4, 4), (12, 20), (33, 9)])
@pytest.mark.parametrize("name", ["gan", "conditional-gan"])
def test_pictures_may_be_tiny_or_oblong(name, side):
    run = latlas.train(name, grey(side), progress=False, augment="ada", **FEW)
    result = latlas.sample(run.model, 3, label="1" if name.startswith("cond") else None)
    assert result.shape == (3, 1, *side)


@pytest.mark.parametrize(("name", "data", "settings", "words"), [
    ("conditional-gan", grey((8, 8))[0], {}, "two classes or more, this data has none"),
    ("conditional-gan", (grey((8, 8))[0], np.zeros(60, int)), {}, "this data has 1"),
    ("style-gan", grey((4, 4)), {}, "style-gan needs .* 8 by 8 pixels, these are 4 by 4"),
    ("progressive-gan", grey((20, 3)), {}, "progressive-gan needs .* these are 20 by 3"),
    ("gan", grey((3, 5)), {"network": "conv"}, "4 by 4 pixels, these are 3 by 5"),
    ("style-gan", grey((9, 9)), {"batch_size": 2}, r"batch_size=2 .*groups of 4 \(minibatch_std"),
    ("gan", grey((9, 9)), {"batch_size": 10, "minibatch_std": 4}, "choose a multiple of 4"),
    ("gan", grey((9, 9)), {"minibatch_std": 1}, "minibatch_std=1"),
    ("gan", grey((9, 9)), {"gamma": -1}, "gamma must be"),
    ("gan", grey((9, 9)), {"gamma": float("nan")}, "gamma must be"),
    ("gan", grey((9, 9)), {"gamma": float("inf")}, "gamma must be"),
    ("gan", grey((9, 9)), {"gamma_end": 0}, "gamma_end must be"),
    ("gan", grey((9, 9)), {"latent_dim": 10**8}, "latent_dim must be .* 10000"),
    ("gan", np.zeros((60, 2)), {"augment": "ada"}, "augment=ada is for images"),
    ("gan", grey((9, 9)), {"objective": "hinges"}, "unknown objective 'hinges': did you mean 'h"),
    ("gan", grey((9, 9)), {"prior": "normal", "n_clusters": 9}, "n_clusters=9 goes with prior=cl")])
def test_what_cannot_be_is_said_before_there_is_a_folder(tmp_path, name, data, settings, words):
    with pytest.raises((ConfigError, DataError), match=words) as caught:
        latlas.train(name, data, out=tmp_path / "run", progress=False, **(FEW | settings))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def trained(tmp_path, monkeypatch, capsys, n, *more):
    """What the terminal shows of a run on so many images; a tenth of them or one is held out."""
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=grey((8, 8), n)[0])
    small = [f"{k}={v}" for k, v in FEW.items() if k != "images"]
    flags = [word for text in (*small, *more) for word in ("--set", text)]
    assert cli.run(["train", "gan", "--data", "x.npz", "--images", "64", "--out", "run",
                    *flags]) == 0
    return capsys.readouterr().err


def test_the_penaltys_weight_is_shown(tmp_path, monkeypatch, capsys):
    text = trained(tmp_path, monkeypatch, capsys, 200)
    gamma = json.loads((tmp_path / "run/run.json").read_text())["config"]["gamma"]
    assert gamma == 64 / 2048
    assert f"; relativistic, r1+r2 with gamma {gamma:.4g}, at the end {gamma / 10:.4g}" in text
    assert "augment=ada" in text and "memorised" not in text


def test_what_is_chosen_is_shown_and_that_there_is_no_penalty():
    data = tiny.points()
    held_out = model_of(data, gamma=2.0, gamma_end=0.25, r1_interval=4, penalty="r1")
    assert held_out.describe(9) == "relativistic, r1 with gamma 2, at the end 0.5, every 4 steps"
    assert model_of(data, gamma=0.0).describe(9) == "relativistic, no penalty"
    assert model_of(tiny.images()).describe(10_000).endswith("augment=none")


def test_ten_pictures_are_augmented_and_warned_of(tmp_path, monkeypatch, capsys):
    text = trained(tmp_path, monkeypatch, capsys, 10)
    assert "warning: only 8 training images: so few are memorised" in text
    assert "augment=ada, in use, delays that" in text
    lines = [json.loads(s) for s in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert any("augmented" in line for line in lines)
    assert sum("memorised" in line.get("alarm", "") for line in lines) == 1
    plain = model_of(tiny.images(), augment="none")
    assert "augment=ada would delay" in plain.warnings(1)[0] and plain.warnings(1000) == []


def test_a_batch_is_whole_groups_on_every_process():
    data, options = tiny.images(), tiny.options
    model = model_of(data, minibatch_std=3)
    assert batch_size_of(model, 90, options(batch_size=0), DistributedContext()) == 66
    assert batch_size_of(model, 90, options(batch_size=0), DistributedContext(0, 4)) == 72
    assert batch_size_of(model, 90, options(batch_size=12), DistributedContext(1, 2)) == 12
    with pytest.raises(ConfigError, match=r"over 2 .*groups of 3 .*a multiple of 6"):
        batch_size_of(model, 90, options(batch_size=10), DistributedContext(0, 2))
    with pytest.raises(ConfigError, match="multiple of 2"):
        batch_size_of(model_of(data), 90, options(batch_size=9), DistributedContext(0, 2))
    assert batch_size_of(model_of(data), 90, options(batch_size=0), DistributedContext()) == 64


def test_batches_of_pictures_stay_small_however_many_there_are():
    options, examples = tiny.options, 1_000_000
    small, grouped = (model_of(tiny.images(), minibatch_std=k) for k in (0, 6))
    assert batch_size_of(small, examples, options(batch_size=0), DistributedContext()) == 64
    assert batch_size_of(grouped, examples, options(batch_size=0), DistributedContext()) == 66
    assert batch_size_of(small, examples, options(batch_size=256), DistributedContext()) == 256
    assert batch_size_of(model_of(tiny.points()), examples, options(batch_size=0),
                         DistributedContext()) == 512


@pytest.mark.parametrize(("n", "augmented"), [(90, True), (10_000, False)])
def test_what_is_timed_is_augmented_as_training_is(monkeypatch, n, augmented):
    """As often in every step. A budget in minutes would otherwise not be kept where images are
    few, or cut short where they are many."""
    data, how = tiny.images(n=n), tiny.options(images=None, minutes=0.01)
    calls, steps, take = [], [], Trainer.step
    monkeypatch.setattr(gan, "ada_augment", lambda x, p, noise: calls.append(len(x)) or x)
    monkeypatch.setattr(Trainer, "step", lambda self, batch: steps.append(0) or take(self, batch))
    batches = Batches(data, how.batch_size, 0)
    Trainer(model_of(data), how, budget=320, precision="fp32", n_train=n).step(batches.at(0))
    training = list(calls)
    assert bool(training) == augmented
    resolve(model_of(data), batches, how, DistributedContext())
    assert len(steps) > 3 and calls == training * len(steps)


def test_pixels_beyond_the_range_still_have_a_slope():
    """Through tanh alone a generator whose images turned black stays black."""
    output = make_generator(tiny.images().space, 4, network="conv", width=4, depth=1)
    z = torch.randn(3, 4)
    for layer in output.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.bias, -1000.0)
    out = output(z)
    assert out.max() < -1 and torch.autograd.grad(out.sum(), list(output.parameters())[-1])[0] != 0
