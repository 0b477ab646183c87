"""``style-gan``: its layers against the forms they are usually written in, and what styles do."""

from __future__ import annotations

import math
import signal

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

import latlas
from latlas import models
from latlas.core.errors import ConfigError
from latlas.core.model import Batch, HasStyles, Step
from latlas.core.noise import Noise
from latlas.core.space import Images
from latlas.networks import equalised
from latlas.objectives.adversarial import path_lengths


def model_of(shape=(3, 16, 16), **settings):
    data = tiny.images(shape)
    return tiny.build("style-gan", data, tiny.small("style-gan", **settings)).eval()


def grouped(x, weight, styles):
    """StyleGAN2's form: filters of every example's own, one group of the convolution for each."""
    n, (o, i, k, _) = len(x), weight.shape
    each = weight[None] * styles[:, None, :, None, None]
    each = each * (each.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    h = F.conv2d(x.reshape(1, n * i, *x.shape[2:]), each.reshape(n * o, i, k, k), padding=k // 2,
                 groups=n)
    return h.reshape(n, o, *h.shape[2:])


def test_scales_around_one_convolution_equal_a_group_for_every_item():
    torch.manual_seed(0)
    x, weight, styles = torch.randn(5, 7, 9, 6), torch.randn(4, 7, 3, 3), torch.randn(5, 7) + 1
    shift = torch.randn(4)
    found = equalised.modulated(x, weight, styles, shift, gain=2.0)
    wanted = 2 * grouped(x, weight, styles) + shift[:, None, None]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    given = [t.double().requires_grad_() for t in (x, weight, styles, shift)]
    ours = torch.autograd.grad(equalised.modulated(*given).square().sum(), given[:3])
    theirs = torch.autograd.grad((grouped(*given[:3]) + given[3][:, None, None]).square().sum(),
                                 given[:3])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [0.1, 10.0])
def test_outputs_have_unit_variance_whatever_the_style(size):
    torch.manual_seed(0)
    x, weight = torch.randn(4, 64, 32, 32), torch.randn(8, 64, 3, 3)
    h = equalised.modulated(x, weight, size * (torch.randn(4, 64) + 1), torch.zeros(8))
    inside = h[..., 1:-1, 1:-1].var((2, 3))  # at the edges there are fewer inputs
    assert ((inside > 0.8) & (inside < 1.2)).all() and 0.97 < inside.mean() < 1.03


def test_equalised_layers_keep_variance_and_start_at_one():
    torch.manual_seed(0)
    x = torch.randn(512, 300)
    for layer in (equalised.EqualLinear(300, 200), equalised.EqualLinear(300, 200, rate=0.01)):
        assert layer(x).var().item() == pytest.approx(1, abs=0.05)
    through = equalised.leaky(equalised.EqualLinear(300, 200, gain=equalised.GAIN)(x))
    assert through.square().mean().item() == pytest.approx(1.04, abs=0.06)  # 1 + SLOPE²
    conv = equalised.EqualConv(32, 16)
    assert conv(torch.randn(8, 32, 12, 12))[..., 1:-1, 1:-1].var().item() == pytest.approx(1,
                                                                                        abs=0.1)
    started = equalised.EqualLinear(3, 2, gain=2.0, rate=0.1, start=1.0)
    torch.testing.assert_close(started(torch.zeros(1, 3)), torch.ones(1, 2))


def test_a_rate_is_the_layers_share_of_a_step():
    """Adam moves every weight by its rate: the layer's output by that times ``rate``."""
    x = torch.ones(1, 4)
    moved = []
    for rate in (1.0, 0.01):
        torch.manual_seed(0)
        layer = equalised.EqualLinear(4, 3, rate=rate)
        before = layer(x)
        with torch.no_grad():
            layer.weight.add_(1e-3)
        moved.append((layer(x) - before).mean().item())
    assert moved[1] == pytest.approx(0.01 * moved[0], rel=1e-2)


def test_the_mapping_learns_at_a_hundredth_of_the_rate():
    """Karras et al. 2019, appendix C: a step of every weight moves w by a hundredth as much."""
    torch.manual_seed(0)
    mapping = equalised.Mapping(64, 64, 1)
    w = mapping(torch.randn(1, 64))
    bias, = torch.autograd.grad(w.sum(), mapping.layers[0].bias)
    slope = torch.where(w[0] > 0, 1.0, equalised.SLOPE)
    torch.testing.assert_close(bias, slope * 0.01 * math.sqrt(2))
    assert mapping.layers[0].weight.std().item() == pytest.approx(100, rel=0.05)
    assert w.square().mean().item() == pytest.approx(1.04, abs=0.5)  # and starts at unit size


def sensitivity(synthesis, w):
    """‖∂ image / ∂w_k‖ of every layer k, of one direction of the image."""
    image = synthesis(w.requires_grad_())
    gradient, = torch.autograd.grad((image * torch.randn_like(image)).sum(), w)
    return gradient.norm(dim=(0, 2))


def test_every_layer_is_given_the_style_of_its_own_place():
    """Where a layer's own style is made to say nothing, the image depends on w_k no more."""
    torch.manual_seed(0)
    w = torch.randn(2, 5, 6)
    synthesis = equalised.Synthesis(3, [(4, 4), (8, 8), (16, 16)], [8, 6, 4], 6)
    for colour in synthesis.colours:
        nn.init.zeros_(colour.style.weight)
    assert (sensitivity(synthesis, w) > 1e-4).all()
    for k, layer in enumerate(synthesis.layers):
        weight = layer.style.weight.detach().clone()
        nn.init.zeros_(layer.style.weight)
        assert (sensitivity(synthesis, w) > 1e-4).tolist() == [j != k for j in range(5)]
        layer.style.weight.data.copy_(weight)


def test_every_size_is_coloured_by_the_style_of_its_last_layer():
    torch.manual_seed(0)
    synthesis = equalised.Synthesis(3, [(4, 4), (8, 8), (16, 16)], [8, 6, 4], 6)
    for layer in synthesis.layers:
        nn.init.zeros_(layer.style.weight)
    depends = sensitivity(synthesis, torch.randn(2, 5, 6)) > 1e-4
    assert depends.tolist() == [True, False, True, False, True]


@pytest.mark.parametrize(("large", "small"), [((9, 12), (5, 6)), ((28, 28), (14, 14)),
                                              ((4, 9), (4, 5))])
def test_sizes_are_hit_and_constants_stay(large, small):
    x = torch.full((1, 2, *large), 3.0)
    less = equalised.shrunk(x, small)
    assert less.shape[2:] == small
    torch.testing.assert_close(less, torch.full_like(less, 3.0))
    torch.testing.assert_close(equalised.enlarged(less, large), x)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 9, 12), (1, 8, 30)])
def test_pictures_of_any_size(shape):
    model = model_of(shape, width=4, depth=0)
    assert isinstance(model, HasStyles)
    assert model.sample(3, noise=Noise(0)).shape == (3, *shape)
    assert model.layer_sizes[-1] == shape[1:]
    assert model.discriminator(torch.zeros(4, *shape)).shape == (4, 1)


def test_truncation_draws_towards_the_mean():
    model = model_of()
    z = torch.randn(6, model.latent_dim)
    w, mean = model.to_w(z), model.mean_w()
    torch.testing.assert_close(model.to_w(z, 0.25), mean + 0.25 * (w - mean))
    examples = model.decode_w(model.to_w(z, 0.0)).mean
    torch.testing.assert_close(examples, model.decode_w(mean[None]).mean.expand_as(examples))
    apart = [model.sample(6, noise=Noise(3), truncation=psi).var(0).sum() for psi in (0, 0.5, 1)]
    assert apart[0] < apart[1] < apart[2]


def test_the_mean_style_is_that_of_the_prior():
    model = model_of()
    with torch.no_grad():
        w = model.to_w(torch.randn(20_000, model.latent_dim))
    error = w.std(0) * math.sqrt(1 / 20_000 + 1 / 4096)
    assert ((model.mean_w() - w.mean(0)).abs() < 5 * error + 1e-6).all()


def test_mixing_switches_at_the_layer():
    model = model_of()
    first, second = model.to_w(torch.randn(2, 4, model.latent_dim).flatten(0, 1)).chunk(2)
    layers = len(model.layer_sizes)
    whole = model.decode_w(second).mean
    torch.testing.assert_close(model.decode_w(model.mix(first, second, 0)).mean, whole)
    whole = model.decode_w(first).mean
    torch.testing.assert_close(model.decode_w(model.mix(first, second, layers)).mean, whole)
    some = model.mix(first, second, torch.tensor([0, 1, 2, layers]))
    assert torch.equal(some[1, 0], first[1]) and torch.equal(some[1, 1], second[1])
    assert torch.equal(some[2, 1], first[2]) and torch.equal(some[0], second[0].expand(layers, -1))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_fakes_with_two_styles(share):
    model = model_of(style_mixing=share)
    w = model.mixed_styles(2000, Noise(0))
    two = (w[:, 0] != w[:, -1]).any(1)
    assert two.float().mean().item() == pytest.approx(share, abs=0.04)
    switch = (w[:, 1:] != w[:, :-1]).any(2).sum(1)
    assert torch.equal(switch > 0, two) and switch.max() <= 1


def test_the_grain_follows_the_noise_and_stays_in_decode():
    model = model_of()
    with torch.no_grad():
        for layer in model.generator.synthesis.layers:
            layer.strength.fill_(0.5)
        w = model.to_w(torch.randn(3, model.latent_dim))
        first, again, other = (model.decode_w(w, noise=Noise(s)).mean for s in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert torch.equal(model.decode_w(w).mean, model.decode_w(w).mean)
        z = torch.randn(3, model.latent_dim)
        torch.testing.assert_close(model.decode(z).mean, model.decode_w(model.to_w(z)).mean)


def test_path_lengths_of_a_linear_generator():
    """x = A Σ_l w_l: J_lᵀ y = Aᵀ y for every layer."""
    torch.manual_seed(0)
    a, y = torch.randn(2 * 3 * 4, 5), torch.randn(6, 2, 3, 4)
    w = torch.randn(6, 7, 5, requires_grad=True)
    output = (w.sum(1) @ a.T).reshape(6, 2, 3, 4)
    expected = (y.flatten(1) @ a).norm(dim=1) / math.sqrt(12)
    torch.testing.assert_close(path_lengths(output, w, y), expected)


def path_phase(model, batch):
    """The losses of a step up to path-length regularisation, which comes last, and its own."""
    losses = model.losses(batch, Step(0, 0, 0.0, Noise(5)))
    return losses, next(loss for name, loss in losses if name == "path")


def test_the_penalty_on_paths_and_its_running_mean():
    model, batch = model_of(path_weight=3.0), Batch(torch.zeros(8, 3, 16, 16))
    losses, result = path_phase(model, batch)
    length = result.terms["path length"].detach()
    _, first = path_phase(model, batch)
    torch.testing.assert_close(result.total, first.total)  # nothing changes in a loss
    assert next(losses, None) is None  # the phase is over
    torch.testing.assert_close(model.path_length, length)
    model.path_length.copy_(length / 2)
    losses, _ = path_phase(model, batch)
    assert next(losses, None) is None
    torch.testing.assert_close(model.path_length, 1.01 * length / 2)
    model.path_length.fill_(1e6)  # far from any length: the square of what lies between
    _, far = path_phase(model, batch)
    assert far.total.item() == pytest.approx(3 * (0.99 * 1e6) ** 2, rel=1e-3)


def test_the_running_mean_of_path_lengths_is_a_constant_of_the_penalty():
    """An image, and so its path length ℓ, is linear in the last convolutions θ of all sizes:
    θ · ∂ℓ/∂θ = ℓ. With a = 2ℓ − 0.01 ℓ held constant, θ · ∂(ℓ − a)²/∂θ = 2 (ℓ − a) ℓ; through a
    it would be 0.99 of that."""
    model, batch = model_of(path_weight=3.0, minibatch_std=0), Batch(torch.zeros(2, 3, 16, 16))
    length = path_phase(model, batch)[1].terms["path length"].item()
    model.path_length.fill_(2 * length)
    total = path_phase(model, batch)[1].total
    last = [colour.conv.weight for colour in model.generator.synthesis.colours]
    along = sum((g * p).sum() for g, p in zip(torch.autograd.grad(total, last), last, strict=True))
    mean = 2 * length - 0.01 * length
    assert total.item() == pytest.approx(3 * (length - mean) ** 2, rel=1e-4)
    assert along.item() == pytest.approx(3 * 2 * (length - mean) * length, rel=1e-4)


def test_path_lengths_are_regularised_at_every_eighth_step():
    model, batch = model_of(), Batch(torch.zeros(4, 3, 16, 16))
    due = [k for k in range(17) if "path" in dict(model.losses(batch, Step(k, 0, 0.0, Noise(5))))]
    assert due == [0, 8, 16] and model.phases[-1].every == 8


def test_the_path_penalty_reaches_the_mapping():
    model, batch = model_of(), Batch(torch.zeros(8, 3, 16, 16))
    path_phase(model, batch)[1].total.backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in model.generator.mapping.layers)
    assert all(p.grad is None for p in model.discriminator.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_between_two_path_penalties_it_ends_with_the_same_bits(tmp_path, precision):
    def train(path, progress=None):
        config = tiny.small("style-gan", augment="ada", r1_interval=4, width=8)
        training = tiny.options(images=320, precision=precision, ema=0.5)
        return tiny.train(path, "style-gan", tiny.images((1, 12, 12)), config,
                          training=training, progress=progress)[0]
    whole = train(tmp_path / "whole")
    assert whole.path_length > 0
    train(tmp_path / "run", tiny.At(176, lambda: signal.raise_signal(signal.SIGINT)))
    assert torch.equal(tiny.weights(train(tmp_path / "run")), tiny.weights(whole))


@pytest.mark.parametrize("name", ["style-gan", "progressive-gan"])
@pytest.mark.parametrize(("data", "settings", "words"), [
    (tiny.points, {}, r"needs images.*train gan"),
    (lambda: tiny.images((1, 7, 9)), {}, r"at least 8 by 8 pixels, these are 7 by 9"),
    (tiny.images, {"depth": 9}, r"depth=9: images of 8 by 8 pixels cannot be halved")])
def test_what_cannot_be_is_said_in_one_line(name, data, settings, words):
    with pytest.raises(ConfigError, match=words) as caught:
        tiny.build(name, data(), tiny.small(name, **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gan", "style-gan", "progressive-gan"])
def test_it_can_be_built_as_it_comes(name):
    """Sizes that nobody named are chosen before any layer is made."""
    model = models.build(name, models.get(name).config(), Images((3, 16, 16)))
    assert model.sample(2, noise=Noise(0)).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("name", ["style-gan", "progressive-gan"])
def test_a_batch_that_is_no_multiple_of_the_group_is_named(tmp_path, name):
    with pytest.raises(ConfigError, match=r"batch_size=6 .*groups of 4 \(minibatch_std\)"):
        tiny.train(tmp_path / "run", name, tiny.images(), tiny.small(name),
                   training=tiny.options(batch_size=6))


def test_what_people_do_with_styles():
    """Mixing, directions and truncation are verbs of whatever has styles."""
    model = model_of()
    table = latlas.mix(model, [1, 2], [3], layers="all")
    assert table.shape == (3, 2, 3, 16, 16)
    assert (table[1, 1] == table[0, 1]).all()  # every style is the column's
    still = latlas.sample(model, 3, truncation=0.0)
    assert abs(still[0].astype(int) - still[1]).max() <= 1  # no grain yet: its strength is 0
    assert latlas.directions(model, 2).space == "w"
