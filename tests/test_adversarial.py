"""Objectives and penalties against hand-made values; both players against known optima."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from latlas.core.noise import Noise
from latlas.core.precision import autocast
from latlas.networks import augment
from latlas.objectives.adversarial import OBJECTIVES
from latlas.objectives.penalties import between, off_unit, slopes

REAL, FAKE = torch.tensor([2.0, -1.0, 0.3]), torch.tensor([-0.5, 0.7, 1.4])


@pytest.mark.parametrize(("name", "judge", "fool"), [
    ("minimax", lambda r, f: -r.sigmoid().log() - (1 - f.sigmoid()).log(),
     lambda r, f: (1 - f.sigmoid()).log()),
    ("non-saturating", lambda r, f: -r.sigmoid().log() - (1 - f.sigmoid()).log(),
     lambda r, f: -f.sigmoid().log()),
    ("least-squares", lambda r, f: 0.5 * (r - 1) ** 2 + 0.5 * f ** 2,
     lambda r, f: 0.5 * (f - 1) ** 2),
    ("hinge", lambda r, f: (1 - r).clamp(min=0) + (1 + f).clamp(min=0), lambda r, f: -f),
    ("wasserstein", lambda r, f: f - r, lambda r, f: -f),
    ("relativistic", lambda r, f: -(r - f).sigmoid().log(), lambda r, f: -(f - r).sigmoid().log())])
def test_objectives_are_what_the_table_says(name, judge, fool):
    objective = OBJECTIVES[name]
    torch.testing.assert_close(objective.discriminator(REAL, FAKE), judge(REAL, FAKE))
    torch.testing.assert_close(objective.generator(REAL, FAKE), fool(REAL, FAKE))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_generator_gains_by_what_looks_more_real(name):
    objective, fake = OBJECTIVES[name], FAKE.clone().requires_grad_()
    objective.generator(REAL, fake).sum().backward()
    assert objective.paired == (name == "relativistic")
    if name != "least-squares":  # which also pulls back what is more real than real
        assert (fake.grad < 0).all()


def test_slopes_of_a_quadratic():
    x = torch.randn(5, 3, requires_grad=True)
    a = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    found, = slopes([(a * x.square()).sum(1)], [x])
    torch.testing.assert_close(found, (2 * a * x).square().sum(1))
    gradient, = torch.autograd.grad(found.mean(), a)  # of the penalty, in D's parameters
    torch.testing.assert_close(gradient, (8 * a * x.square()).mean(0))
    unit = torch.randn(5, 3, requires_grad=True)
    torch.testing.assert_close(off_unit((unit * torch.tensor([0.6, 0.8, 0.0])).sum(1), unit),
                               torch.zeros(5), atol=1e-5, rtol=0)


def test_between_lies_on_the_line():
    real, fake = torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2)
    share = torch.tensor([0.0, 0.25, 0.5, 1.0])
    torch.testing.assert_close(between(real, fake, share)[:, 0, 0, 0], share)


# ------------------------------------------------------------------------------ augmentation

def pictures(n=64, channels=3, side=16):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_probability_nothing_changes(precision):
    x = pictures(8)
    with autocast(x.device, precision):
        same = augment.adaptive(x, torch.zeros(()), Noise(0))
    torch.testing.assert_close(same, x, atol=1e-5, rtol=1e-5)


def test_an_oblong_picture_is_turned_and_stretched_as_a_square_one():
    """In pixels, that is, though places are −1 … 1 along either side."""
    square, oblong = (augment._geometry(torch.zeros(500, 1, 16, wide), torch.tensor(0.8), Noise(3))
                      for wide in (16, 48))
    pixels = torch.tensor([48.0, 16.0])
    linear = pixels[:, None] * oblong[:, :2, :2] / pixels
    torch.testing.assert_close(linear, square[:, :2, :2])
    shift = (pixels / 2 * oblong[:, :2, 2]).norm(dim=1)  # by 2 SHIFT of half a side, at most
    assert 0.8 * 6.3 < shift.max() < 6.4 and (square[:, :2, 2].norm(dim=1) > 0.1).any()


def test_with_probability_one_everything_does():
    x = pictures(8)
    moved = augment.adaptive(x, torch.ones(()), Noise(0))
    assert moved.shape == x.shape and ((moved - x).abs().flatten(1).mean(1) > 0.1).all()


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_the_share_of_pictures_that_change(p):
    """A picture stays only if none of its changes is made; two of eleven may do nothing."""
    x = pictures(2000, 3, 8)
    same = (augment.adaptive(x, torch.tensor(p), Noise(1)) - x).abs().flatten(1).amax(1) < 1e-4
    least, most = (1 - p) ** 11, (1 - p) ** 9 * (1 - p / 4) * (1 - p / 2)
    assert 0.6 * least < same.float().mean() < 1.4 * most + 0.002


def test_a_quarter_turn_is_exact():
    x, quarter = pictures(1), torch.tensor([math.pi / 2])
    turned = augment._resampled(x, augment._rotation(quarter))
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_colours_turn_about_grey():
    colour = torch.tensor([[1.0, -0.5, -0.5]]).view(1, 3, 1, 1)
    third = augment._about_grey(colour, torch.tensor(2 * math.pi / 3).view(1, 1, 1, 1))
    assert sorted(third.flatten().tolist()) == pytest.approx([-0.5, -0.5, 1.0])
    assert third.flatten().argmax() != 0


def test_shifts_are_whole_pixels():
    x = pictures(2, 1, 6)
    moved = augment._shifted(x, torch.tensor([[1, 0], [0, -2]]))
    torch.testing.assert_close(moved[0, :, 1:], x[0, :, :-1])
    torch.testing.assert_close(moved[1, :, :, :-2], x[1, :, :, 2:])
    assert not moved[0, :, 0].any() and not moved[1, :, :, -2:].any()


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_augmentations_pass_gradients_and_follow_the_noise(name):
    change, x = augment.AUGMENTATIONS[name], pictures(6).requires_grad_()
    p = torch.tensor(0.8)
    first, again, other = (change(x, p, Noise(s)) for s in (3, 3, 4))
    torch.testing.assert_close(first, again)
    assert not torch.equal(first, other)
    F.mse_loss(first, torch.zeros_like(first)).backward()
    assert x.grad.abs().flatten(1).sum(1).all()
