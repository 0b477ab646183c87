"""Motion found between two images, and what of a change it explains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latlas.core import motion
from latlas.metrics.paired import flicker, motions
from latlas.models import cycle_gan


def blobs(n=6, size=(32, 40), channels=2, seed=0):
    """Smooth random images in 0 … 1 as functions of place: (places (n, …, 2)) to (n, C, …)."""
    rng = torch.Generator().manual_seed(seed)
    centre = 20 * (torch.rand(n, channels, 7, 2, generator=rng) - 0.5)
    height = torch.rand(n, channels, 7, generator=rng) / 2

    def at(places):
        away = places[:, None, None] - centre[..., None, None, :]
        return (height[..., None, None] * torch.exp(-away.square().sum(-1) / 30)).sum(2)
    return lambda transform: at(motion.places(transform, *size))


def rigid(angle, across, down):
    """Motions (n, 2, 3) of a turn by radians about the middle, then a shift, pixels (each (n,))."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin, across], 1),
                        torch.stack([sin, cos, down], 1)], 1)


def still(n=6):
    return torch.eye(2, 3).repeat(n, 1, 1)


def moves(n=6, seed=1, turn=0.12, shift=1.5):
    rng = torch.Generator().manual_seed(seed)
    angle, across, down = (2 * torch.rand(3, n, generator=rng) - 1)
    return rigid(turn * angle, shift * across, shift * down)


def test_a_turn_and_shift_takes_places_where_it_says():
    way = rigid(torch.tensor([np.pi / 2]), torch.tensor([3.0]), torch.tensor([0.0]))
    places = motion.places(way, 3, 5)[0]
    assert places[1, 2].tolist() == pytest.approx([3, 0], abs=1e-6)  # the middle
    assert places[1, 4].tolist() == pytest.approx([3, 2], abs=1e-6)  # two to the right: now below
    both = motion.after(moves(), moves(seed=2))
    one = torch.einsum("nij,nhwj->nhwi", moves(seed=2)[:, :, :2], motion.places(moves(), 4, 4))
    torch.testing.assert_close(motion.places(both, 4, 4),
                               one + moves(seed=2)[:, None, None, :, 2])
    back = torch.linalg.inv(both[:, :, :2])
    back = torch.cat([back, -back @ both[:, :, 2:]], 2)
    torch.testing.assert_close(motion.after(both, back), still(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(32, 40), (33, 21), (80, 64)])
def test_moved_pictures_are_the_pictures_at_the_places(size):
    x, transform = blobs(size=size), moves()
    inside = motion.inside(transform, *size)
    error = (motion.warped(x(still()), transform) - x(transform)) * inside
    assert error.abs().max() < 0.02
    assert 0.8 < inside.mean() < 1
    whole = rigid(torch.zeros(1), torch.tensor([2.0]), torch.tensor([-1.0]))
    seen = motion.inside(whole, 4, 5)[0, 0]
    assert seen.tolist() == [[0] * 5, *[[1, 1, 1, 0, 0]] * 3]
    picture = torch.rand(1, 1, 4, 5)
    torch.testing.assert_close(motion.warped(picture, whole)[0, 0, 1:, :3], picture[0, 0, :3, 2:])


def test_the_motion_is_found():
    x, transform = blobs(n=20), moves(20)
    result = motion.estimate(x(still(20)), x(transform))
    error = (motion.places(result, 32, 40) - motion.places(transform, 32, 40)).norm(dim=-1)
    assert error.mean((1, 2)).max() < 0.1  # pixels
    zoom = torch.tensor([[[1.1, 0, 0], [0, 1.1, 0]]]).repeat(20, 1, 1)
    result = motion.estimate(x(still(20)), x(zoom))
    error = motion.places(result, 32, 40) - motion.places(zoom, 32, 40)
    assert error.norm(dim=-1).mean((1, 2)).max() < 0.1


def test_places_and_motions_are_exact_in_training_of_half_precision():
    x, transform = blobs(n=2), moves(2)
    a, b = x(still(2)), x(transform)
    outside = motion.places(transform, 32, 40), motion.estimate(a, b), motion.warped(a, transform)
    with torch.autocast("cpu", torch.bfloat16):
        within = (motion.places(transform, 32, 40), motion.estimate(a, b),
                  motion.warped(a, transform))
    for one, other in zip(outside, within, strict=True):
        assert one.dtype == other.dtype == torch.float32 and torch.equal(one, other)


def test_what_moves_by_itself_does_not_lead_the_motion_astray():
    x, transform = blobs(n=20, channels=1), moves(20, shift=1.0, turn=0.05)
    a, b = x(still(20)), x(transform)
    a[:, :, 4:9, 4:9], b[:, :, 4:9, 8:13] = 0.5, 0.5  # a square that goes its own way
    result = motion.estimate(a, b)
    error = (motion.places(result, 32, 40) - motion.places(transform, 32, 40)).norm(dim=-1)
    assert error.mean((1, 2)).median() < 0.25
    weight = motion.explained(a, b, result, 1.0)[:, 0]
    assert weight[:, 5:8, 10:12].mean() < 0.3 and weight[:, 20:28, 15:25].mean() > 0.95


def test_pictures_without_anything_on_them_do_not_move():
    for level in (0.0, 1.0):
        flat = torch.full((2, 3, 16, 16), level)
        torch.testing.assert_close(motion.estimate(flat, flat), still(2))


def test_what_is_explained_is_by_the_formula():
    a, b = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    b[0, 0, 3, 3], b[0, 1, 3, 3] = 0.2, 0.4
    weight = motion.explained(a, b, still(1), scale=2.0)
    expected = torch.ones(1, 1, 8, 8)
    expected[0, 0, 3, 3] = np.exp(-50 * (0.1**2 + 0.2**2))
    torch.testing.assert_close(weight, expected)


def test_flicker_is_what_the_motion_does_not_explain():
    x, transform = blobs(), moves()
    before, later = ((255 * x(w)).numpy() for w in (still(), transform))
    none = flicker(before, later, transform.numpy(), 255.0)
    assert none.shape == (6,) and none.max() < 4e-3  # it moved, and nothing else
    assert flicker(before, later, still().numpy(), 255.0).min() > 2 * none.max()
    brighter = flicker(before, later + 51, transform.numpy(), 255.0)
    np.testing.assert_allclose(brighter, 0.2, atol=1e-3)
    visible = np.zeros((6, 1, 32, 40), np.float32)
    visible[:, :, 10:20, 10:20] = 0.5
    later[:, :, :5] += 51  # where nobody looks
    assert flicker(before, later, transform.numpy(), 255.0, visible).max() < 4e-3
    result, weight = motions(before, later, 255.0)
    assert result.shape == (6, 2, 3) and weight.shape == (6, 1, 32, 40)


def test_the_term_is_zero_for_what_moves_along_and_has_a_slope_for_what_does_not():
    x, way = blobs(), moves()
    before, later = x(still()).requires_grad_(), (x(way) + 0.3).requires_grad_()
    weight = motion.inside(way, 32, 40)
    paid = cycle_gan.flicker(before, later, way, weight)
    torch.testing.assert_close(paid, 0.3 * weight.mean((1, 2, 3)), atol=1e-3, rtol=0)
    paid.sum().backward()
    assert before.grad.sum() < 0 < later.grad.sum()
    assert cycle_gan.flicker(x(still()), x(way), way, weight).max() < 4e-3
