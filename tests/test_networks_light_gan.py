"""The light networks of ``gan``: sizes, scale, gates, second derivatives, and where they serve."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

import latlas
from latlas import models
from latlas.core.errors import ConfigError
from latlas.core.model import Step
from latlas.core.noise import Noise
from latlas.core.space import Images
from latlas.data.batches import Batches
from latlas.data.dataset import Dataset
from latlas.networks.gan import make_generator
from latlas.networks.light_gan import LightGenerator, LightTrunk, Rise, channels
from latlas.objectives import adversarial


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 48, 51), (4, 16, 100), (2, 65, 33)])
def test_any_size_is_hit_exactly_and_read(shape):
    images = LightGenerator(shape, 5, 2, width=4)(torch.randn(3, 5), torch.randn(3, 2))
    assert images.shape == (3, *shape)
    assert LightTrunk(shape, 7, width=4)(images).shape == (3, 7)


def test_levels_cost_alike_whatever_the_image():
    """Multiplications of a residual convolution: width² at a pixel, four times as many pixels at
    half as many channels."""
    wide = channels(8, 5)
    cost = [c**2 * (128 // 2**level) ** 2 for level, c in enumerate(wide)]
    assert len(set(cost)) == 1
    assert max(channels(8, 9)) == 128 and max(channels(32, 9)) == 256


def test_signals_keep_their_scale_at_the_start():
    """Of images that vary slowly, as photographs do; also through many levels."""
    images = nn.functional.interpolate(torch.randn(32, 3, 4, 4), (128, 128), mode="bilinear")
    trunk = LightTrunk((3, 128, 128), 64, width=16)
    make = make_generator(Images((3, 128, 128)), 16, network="light", width=8, depth=0)
    squares = []
    for level in [*trunk.levels, *make.network.levels]:
        level.register_forward_hook(lambda _, args, out: squares.append(out.square().mean().item()))
    with torch.no_grad():
        trunk(images / images.std())
        fakes = make(torch.randn(64, 16))
    assert len(squares) == 9 and all(0.1 < square < 6 for square in squares)
    assert 0.2 < fakes.std() < 0.9 and fakes.mean().abs() < 0.5


def test_a_gate_scales_channels_by_what_the_coarse_level_shows():
    level = Rise(4, 3, (16, 16), reads=2)
    h, coarse = torch.randn(2, 4, 8, 8), torch.randn(2, 2, 5, 4)
    with torch.no_grad():
        plain, shares = level(h), level(h, coarse) / level(h)
        torch.testing.assert_close(shares, shares[:, :, :1, :1].expand_as(shares))
        assert shares.min() > 0 and shares.max() < 2 and shares.std() > 0.05
        level.gate.weight.zero_()
        torch.testing.assert_close(level(h, coarse), plain)


def test_examples_do_not_see_each_other():
    make, read = LightGenerator((3, 32, 32), 5, width=4), LightTrunk((3, 32, 32), 6, width=4)
    z = torch.randn(4, 5)
    with torch.no_grad():
        torch.testing.assert_close(make(z)[1:2], make(z[1:2]))
        torch.testing.assert_close(read(make(z))[1:2], read(make(z[1:2])))


def test_channels_last_gives_the_same_numbers():
    make = LightGenerator((3, 32, 32), 5, width=8)
    z = torch.randn(4, 5)
    plain = make(z)
    last = make.to(memory_format=torch.channels_last)(z)
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-5)


def test_the_gradient_penalty_can_be_differentiated_through_what_is_overwritten():
    """By finite differences, in float64: activations and sums are in place."""
    read = LightTrunk((1, 16, 16), 2, width=2).double()
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    weight = read.levels[0].first.weight

    def penalty(change):
        out = torch.func.functional_call(read, {"levels.0.first.weight": weight + change}, (x,))
        gradient, = torch.autograd.grad(out.sum(), x, create_graph=True)
        return gradient.square().sum()
    # piecewise linear: away from the edges of its pieces, which steps of 1e-7 hardly cross
    change = torch.zeros_like(weight, requires_grad=True)
    direction = torch.randn_like(weight)
    slope, = torch.autograd.grad(penalty(change), change)
    near = [penalty(sign * 1e-7 * direction).item() for sign in (1, -1)]
    assert (slope * direction).sum().item() == pytest.approx((near[0] - near[1]) / 2e-7, rel=1e-4)


@pytest.mark.parametrize(("sides", "chosen"), [
    ((32, 32), ("conv", 64, 1)), ((47, 200), ("conv", 64, 1)), ((48, 48), ("light", 16, 4)),
    ((64, 96), ("light", 16, 4)), ((128, 128), ("light", 8, 4))])
def test_large_images_have_light_networks_and_a_lazy_penalty(sides, chosen):
    config = models.get("gan").config().resolve(Images((3, *sides)))
    assert (config.network, config.width, config.r1_interval) == chosen
    own = models.get("gan").config(network="conv", r1_interval=2).resolve(Images((3, *sides)))
    assert (own.network, own.width, own.r1_interval) == ("conv", 64, 2)


def test_images_too_small_for_them_are_refused():
    with pytest.raises(ConfigError, match=r"network=light needs .* 16 by 16 .*network=conv"):
        models.build("gan", models.get("gan").config(network="light"), Images((3, 15, 40)))


def light(n=24, **settings):
    """A small light gan, and data of 48 by 48."""
    x = np.random.default_rng(0).integers(0, 256, (n, 3, 48, 48), np.uint8)
    data = Dataset(x, Images((3, 48, 48)))
    return tiny.build("gan", data, models.get("gan").config(width=2, **settings)), data


def test_the_generators_loss_keeps_no_memory_of_the_real_images():
    model, data = light()
    model.prepare([Batches(data, 8).at(k) for k in range(3)], len(data))
    outputs = []
    model.discriminator.register_forward_hook(lambda _, args, out: outputs.append(out))
    phases = dict(model.losses(Batches(data, 8).at(0), Step(1, 0, 0.0, Noise(1))))
    fake, real = outputs[-2:]
    assert fake.requires_grad and not real.requires_grad
    both = adversarial.generator_loss("relativistic", real[:, 0], fake[:, 0])
    torch.testing.assert_close(phases["generator"].terms["generator"], both)


def test_a_step_enters_at_most_eight_files():
    model, data = light(augment="ada")
    model.prepare([Batches(data, 8).at(k) for k in range(3)], len(data))
    batch, entered = Batches(data, 8).at(0), set()
    package = str(Path(latlas.__file__).parent)

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(package):
            entered.add(frame.f_code.co_filename)
    sys.setprofile(note)
    try:
        losses = dict(model.losses(batch, Step(0, 0, 0.0, Noise(1), len(data))))
    finally:
        sys.setprofile(None)
    assert list(losses) == ["discriminator", "penalty", "generator"]
    assert len(entered) <= 8, sorted(entered)


def test_a_light_gan_learns_where_discs_are():
    """Of 48 pixels, bright on black: the mean of samples is that of the images, nearly."""
    rng, (rows, columns) = np.random.default_rng(0), np.mgrid[:48, :48]
    x = np.zeros((200, 3, 48, 48), np.uint8)
    for image in x:
        middle, radius = rng.uniform(18, 30, 2), rng.uniform(8, 14)
        inside = np.hypot(rows - middle[0], columns - middle[1]) < radius
        image[:, inside] = rng.integers(120, 256, (3, 1))
    run = latlas.train("gan", x, progress=False, width=4, batch_size=8, images=3200, threads=1,
                       learning_rate=2e-3, sample_snapshots=0, content_dims=8, augment="none")
    mean = np.asarray(latlas.sample(run.model, 64), float).mean(0)
    assert run.model.config.network == "light"
    assert np.abs(mean - x.mean(0)).mean() < 0.25 * np.abs(x.mean() - x.mean(0)).mean()
