"""Both players of ``gan`` against what they are known to learn, and its words for bad input."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from latlas import models
from latlas.core.batch import Batch
from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Phase, Step
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.engine.trainer import Trainer
from latlas.models.gan import GAN
from latlas.networks.discriminator import spread

POINTS = Space("points", (2,))


class JudgeAlone(GAN):
    """The generator makes N((1, 0), I) and stays as it is."""

    phases = (Phase("discriminator", ("discriminator",)),)


class Shifted(nn.Module):
    def forward(self, z):
        return z + torch.tensor([1.0, 0.0])


@pytest.mark.parametrize("objective", ["non-saturating", "minimax", "relativistic"])
def test_the_discriminator_learns_the_ratio_of_known_densities(objective):
    """p = N((−1, 0), I), q = N((1, 0), I): p / (p + q) = σ(−2 x₀)."""
    config = tiny.small("gan", width=64, latent_dim=2, objective=objective, penalty="none")
    torch.manual_seed(0)
    model = JudgeAlone(config, POINTS, generator=Shifted())
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


def step_of(model, batch, phase):
    step = Step(0, 0, 0.0, Noise(1))
    return model.loss(batch, phase, step), step


def test_the_penalty_is_half_gamma_times_both_slopes():
    data = tiny.points()
    plain, held = (model_of(data, gamma=g, penalty="r1+r2") for g in (0.0, 3.0))
    batch = Batch(torch.as_tensor(data.x[:8]))
    without, _ = step_of(plain, batch, "discriminator")
    found, _ = step_of(held, batch, "discriminator")
    slopes = found.terms["r1"] + found.terms["r2"]
    torch.testing.assert_close(found.total - without.total, 1.5 * slopes)


def test_gamma_falls_geometrically_to_its_share():
    model = model_of(tiny.points(), gamma=2.0, gamma_end=0.1)
    found = [model.gamma(Step(0, 0, p, Noise(0))) for p in (0.0, 0.5, 1.0)]
    assert found == pytest.approx([2.0, 2 * 0.1 ** 0.5, 0.2])


def test_a_lazy_penalty_is_a_phase_of_its_own():
    model = model_of(tiny.points(), penalty_every=4)
    assert [p.name for p in model.phases] == ["discriminator", "penalty", "generator"]
    assert model.phases[1].every == 4
    batch = Batch(torch.as_tensor(tiny.points().x[:8]))
    assert "r1" in step_of(model, batch, "penalty")[0].terms
    assert "r1" not in step_of(model, batch, "discriminator")[0].terms


@pytest.mark.parametrize(("penalty", "calls"), [("r1", 1), ("r2", 1), ("r1+r2", 2), ("gp", 1)])
def test_a_lazy_penalty_is_the_eager_one_and_runs_the_discriminator_where_it_is_taken(
        penalty, calls):
    data = tiny.points()
    eager, lazy = (model_of(data, penalty=penalty, penalty_every=k) for k in (1, 2))
    batch, seen = Batch(torch.as_tensor(data.x[:8])), []
    whole, plain = (step_of(m, batch, "discriminator")[0] for m in (eager, lazy))
    step = Step(0, 0, 0.0, Noise(1))
    lazy.loss(batch, "discriminator", step)
    lazy.discriminator.register_forward_hook(lambda *_: seen.append(1))
    alone = lazy.loss(batch, "penalty", step)
    assert len(seen) == calls
    torch.testing.assert_close(alone.total, whole.total - plain.total)
    assert alone.terms.items() <= whole.terms.items()


def test_fakes_are_made_once_a_step():
    model, made = model_of(tiny.points()), []
    model.generator.register_forward_hook(lambda *_: made.append(1))
    batch = Batch(torch.as_tensor(tiny.points().x[:8]))
    _, step = step_of(model, batch, "discriminator")
    model.loss(batch, "generator", step)
    assert len(made) == 1


def test_spread_is_the_groups_mean_deviation():
    h = torch.randn(6, 4)
    groups = h.reshape(2, 3, 4).numpy()
    wanted = np.sqrt(groups.var(1) + 1e-8).mean(1).repeat(3)[:, None]
    torch.testing.assert_close(spread(h, 3), torch.as_tensor(wanted))
    with pytest.raises(ConfigError, match=r"minibatch_std=4.*batch of 6"):
        spread(h, 4)


def test_spectral_norm_bounds_every_layer():
    data = tiny.pictures()
    model = model_of(data, network="mlp", spectral_norm=True, objective="hinge", penalty="none")
    for _ in range(30):  # power iteration: one round a call
        model.discriminator(torch.randn(4, *data.space.shape))
    sizes = [torch.linalg.matrix_norm(m.weight, 2).item() for m in model.discriminator.modules()
             if isinstance(m, nn.Linear)]
    assert len(sizes) > 1 and max(sizes) < 1.01


def test_a_class_is_made_by_its_label_and_judged_by_it():
    data = tiny.pictures()
    model = model_of(data, "conditional-gan")
    z = torch.randn(2, 3, model.latent_dim)
    labels = torch.tensor([0, 1, 1])
    both = model.decode(z, condition=labels).mean
    torch.testing.assert_close(both[1], model.decode(z[1], condition=labels).mean)
    assert not torch.equal(model.decode(z[0], condition=1 - labels).mean, both[0])
    with pytest.raises(DataError, match="needs a label"):
        model.decode(z)


@pytest.mark.parametrize("classes", [(), ("only",)])
def test_a_conditional_gan_needs_two_classes(classes):
    space = Space("points", (2,), classes=classes)
    label = np.zeros(20, np.int64) if classes else None
    data = Dataset(np.zeros((20, 2), np.float32), space, label)
    with pytest.raises(DataError, match="two classes or more"):
        model_of(data, "conditional-gan")


def test_gamma_and_networks_follow_the_data():
    small = models.build("gan", models.get("gan").config(), POINTS)
    assert (small.config.network, small.config.penalty) == ("mlp", "r1+r2")
    large = Space.picture((3, 64, 64))
    config = models.build("gan", models.get("gan").config(), large).config
    assert (config.network, config.latent_dim) == ("conv", 64)
    assert config.gamma > small.config.gamma
