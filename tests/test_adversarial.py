"""Adversarial losses, gradient penalties and augmentations against hand-made values."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from latlas.core.devices import autocast
from latlas.core.errors import ConfigError
from latlas.core.noise import Noise
from latlas.networks import gan
from latlas.objectives import adversarial
from latlas.objectives.adversarial import (
    OBJECTIVES,
    Objective,
    ada_signal,
    discriminator_loss,
    find_objective,
    generator_loss,
    gradient_penalty,
    register_objective,
    squared_gradients,
)

REAL, FAKE = torch.tensor([2.0, -1.0, 0.3]), torch.tensor([-0.5, 0.7, 1.4])


@pytest.mark.parametrize(("name", "of_discriminator", "of_generator"), [
    ("minimax", lambda r, f: -r.sigmoid().log() - (1 - f.sigmoid()).log(),
     lambda r, f: (1 - f.sigmoid()).log()),
    ("non-saturating", lambda r, f: -r.sigmoid().log() - (1 - f.sigmoid()).log(),
     lambda r, f: -f.sigmoid().log()),
    ("least-squares", lambda r, f: 0.5 * (r - 1) ** 2 + 0.5 * f ** 2,
     lambda r, f: 0.5 * (f - 1) ** 2),
    ("hinge", lambda r, f: (1 - r).clamp(min=0) + (1 + f).clamp(min=0), lambda r, f: -f),
    ("wasserstein", lambda r, f: f - r, lambda r, f: -f),
    ("relativistic", lambda r, f: -(r - f).sigmoid().log(), lambda r, f: -(f - r).sigmoid().log())])
def test_objectives_are_what_the_table_says(name, of_discriminator, of_generator):
    objective = find_objective(name)
    torch.testing.assert_close(objective.discriminator(REAL, FAKE), of_discriminator(REAL, FAKE))
    torch.testing.assert_close(objective.generator(REAL, FAKE), of_generator(REAL, FAKE))
    for of in (name, objective):
        torch.testing.assert_close(discriminator_loss(of, REAL, FAKE),
                                   of_discriminator(REAL, FAKE).mean())
        torch.testing.assert_close(generator_loss(of, REAL, FAKE), of_generator(REAL, FAKE).mean())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_generator_gains_by_what_looks_more_real(name):
    objective, fake = find_objective(name), FAKE.clone().requires_grad_()
    objective.generator(REAL, fake).sum().backward()
    assert objective.generator_uses_real == (name == "relativistic")
    if name != "least-squares":  # which also pulls back what is more real than real
        assert (fake.grad < 0).all()


def test_the_ada_signal_is_of_signs_about_the_midpoint_of_both_means():
    """Means 2 and 0, so the midpoint is 1: one real output lies above it and three upon it."""
    real, fake = torch.tensor([5.0, 1.0, 1.0, 1.0]), torch.tensor([1.0, -1.0])
    assert ada_signal(real, fake).item() == 0.25
    assert ada_signal(real - 7, fake - 7).item() == 0.25  # a relativistic D has no zero of its own
    assert ada_signal(fake, real).item() == -0.5  # −1 below, 1 upon


def test_an_objective_of_ones_own_has_a_name_that_is_free(monkeypatch):
    monkeypatch.setattr(adversarial, "_registered", {})
    own = Objective(lambda real, fake: 2 * fake - real, lambda real, fake: -3 * fake)
    with pytest.raises(ConfigError, match="unknown objective 'mine'"):
        find_objective("mine")
    register_objective("mine", own)
    assert find_objective("mine") is own
    torch.testing.assert_close(generator_loss("mine", REAL, FAKE), (-3 * FAKE).mean())
    with pytest.raises(ConfigError, match="'hinge' is one of latlas's own"):
        register_objective("hinge", own)
    assert find_objective("hinge") is not own and "mine" not in OBJECTIVES


def test_gradients_of_a_quadratic():
    x = torch.randn(5, 3, requires_grad=True)
    a = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    result, = squared_gradients([(a * x.square()).sum(1)], [x])
    torch.testing.assert_close(result, (2 * a * x).square().sum(1))
    gradient, = torch.autograd.grad(result.mean(), a)  # of the penalty, in D's parameters
    torch.testing.assert_close(gradient, (8 * a * x.square()).mean(0))


@pytest.mark.parametrize("eager", [True, False])
def test_r1_is_of_real_examples_and_r2_of_fakes(eager):
    inputs = [torch.randn(5, 3).requires_grad_() for _ in range(2)]
    a = torch.tensor([1.0, -2.0, 0.5])

    def discriminator(*xs):
        return [(a * x.square()).sum(1) for x in xs]

    logits = discriminator(*inputs) if eager else None
    expected = [(2 * a * x).square().sum(1).mean() for x in inputs]
    for kind, chosen in (("r1", expected[:1]), ("r2", expected[1:]), ("r1+r2", expected)):
        result, parts = gradient_penalty(kind, discriminator, inputs, Noise(0), logits)
        torch.testing.assert_close(result, sum(chosen) / 2)
        assert list(parts) == kind.split("+")
        torch.testing.assert_close(list(parts.values()), chosen)


def test_the_gradient_penalty_is_towards_one_on_the_lines_between():
    real, fake = torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2)
    inputs, direction = [], torch.tensor([0.6, 0.8, 0.0, 0.0])
    for size, expected in ((1.0, 0.0), (3.0, 4.0)):
        def discriminator(*xs, size=size):
            inputs.extend(xs)
            return [x.flatten(1) @ (size * direction) for x in xs]

        result, parts = gradient_penalty("gp", discriminator, [real, fake], Noise(5))
        torch.testing.assert_close(result, torch.tensor(expected), atol=1e-5, rtol=1e-5)
        assert parts == {"gp": result}
    share = Noise(5).uniform(4)  # all pixels of an image go the same share of the way
    torch.testing.assert_close(inputs[0].flatten(1), share[:, None].expand(4, 4))


# ------------------------------------------------------------------------------ augmentation

def images(n=64, channels=3, side=16):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_probability_nothing_changes(precision):
    x = images(8)
    with autocast(x.device, precision):
        same = gan.ada_augment(x, torch.zeros(()), Noise(0))
    torch.testing.assert_close(same, x, atol=1e-5, rtol=1e-5)


def test_an_oblong_picture_is_turned_and_stretched_as_a_square_one():
    """In pixels, that is, though places are −1 … 1 along either side."""
    square, oblong = (gan.random_geometry(torch.zeros(500, 1, 16, wide), torch.tensor(0.8),
                                          Noise(3)) for wide in (16, 48))
    pixels = torch.tensor([48.0, 16.0])
    linear = pixels[:, None] * oblong[:, :2, :2] / pixels
    torch.testing.assert_close(linear, square[:, :2, :2])
    shift = (pixels / 2 * oblong[:, :2, 2]).norm(dim=1)  # by 2 SHIFT of half a side, at most
    assert 0.8 * 6.3 < shift.max() < 6.4 and (square[:, :2, 2].norm(dim=1) > 0.1).any()


def test_with_probability_one_everything_does():
    x = images(8)
    moved = gan.ada_augment(x, torch.ones(()), Noise(0))
    assert moved.shape == x.shape and ((moved - x).abs().flatten(1).mean(1) > 0.1).all()


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_the_share_of_pictures_that_change(p):
    """An image stays only if none of its changes is made; two of eleven may do nothing."""
    x = images(2000, 3, 8)
    same = (gan.ada_augment(x, torch.tensor(p), Noise(1)) - x).abs().flatten(1).amax(1) < 1e-4
    least, most = (1 - p) ** 11, (1 - p) ** 9 * (1 - p / 4) * (1 - p / 2)
    assert 0.6 * least < same.float().mean() < 1.4 * most + 0.002


def test_a_quarter_turn_is_exact():
    x, quarter = images(1), torch.tensor([math.pi / 2])
    turned = gan.resample(x, gan.rotation(quarter))
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_colours_turn_about_grey():
    colour = torch.tensor([[1.0, -0.5, -0.5]]).view(1, 3, 1, 1)
    third = gan.rotate_hue(colour, torch.tensor(2 * math.pi / 3).view(1, 1, 1, 1))
    assert sorted(third.flatten().tolist()) == pytest.approx([-0.5, -0.5, 1.0])
    assert third.flatten().argmax() != 0


def test_shifts_are_whole_pixels():
    x = images(2, 1, 6)
    moved = gan.shift_images(x, torch.tensor([[1, 0], [0, -2]]))
    torch.testing.assert_close(moved[0, :, 1:], x[0, :, :-1])
    torch.testing.assert_close(moved[1, :, :, :-2], x[1, :, :, 2:])
    assert not moved[0, :, 0].any() and not moved[1, :, :, -2:].any()


def test_flips_and_quarter_turns_are_as_frequent_as_their_probability():
    """Grey images: nine changes each of probability p, of which the flip is half the time the
    identity, and the quarter turn a quarter of it. Exactly one change then has the share
    p/2 (1 − 3p/4) (1 − p)⁷, or for each of three turns p/4 (1 − p/2) (1 − p)⁷."""
    n, p = 10_000, 0.2
    x = images(n, 1, 6)
    changed = gan.ada_augment(x, torch.tensor(p), Noise(5))
    rest = (1 - p) ** 7
    turns = [(x.rot90(k, (2, 3)), p / 4 * (1 - p / 2) * rest) for k in (1, 2, 3)]
    for result, share in [(x.flip(3), p / 2 * (1 - 3 * p / 4) * rest), *turns]:
        same = (changed - result).abs().flatten(1).amax(1) < 1e-3
        assert same.float().mean().item() == pytest.approx(share, abs=5 * (share / n) ** 0.5)


def test_a_quarter_of_a_picture_is_cut_out():
    """Of those whose edge is whole, which neither the shift nor the hole has reached."""
    ones = torch.ones(2000, 1, 8, 16)
    black = gan.diff_augment(ones, Noise(2))[:, 0] == 0
    edge = black.clone()
    edge[:, 1:-1, 1:-1] = False
    holes = black[~edge.flatten(1).any(1)]
    assert len(holes) > 10
    assert (holes.sum((1, 2)) == 4 * 8).all()
    assert (holes.any(2).sum(1) == 4).all() and (holes.any(1).sum(1) == 8).all()


@pytest.mark.parametrize("change", [gan.diff_augment,
                                    partial(gan.ada_augment, p=torch.tensor(0.8))])
def test_augmentations_pass_gradients_and_follow_the_noise(change):
    x = images(6).requires_grad_()
    first, again, other = (change(x, noise=Noise(s)) for s in (3, 3, 4))
    torch.testing.assert_close(first, again)
    assert not torch.equal(first, other)
    F.mse_loss(first, torch.zeros_like(first)).backward()
    assert x.grad.abs().flatten(1).sum(1).all()
