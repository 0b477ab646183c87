"""Histograms of the directions of edges."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from latlas.metrics.features import outlines


def by_pixels(x, side):
    """The same of one image (C, H, W), pixel by pixel, by the words of the docstring."""
    slopes = np.stack([[ndimage.correlate(c, k, mode="nearest") for c in x]
                       for k in (np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]) / 8,
                                 np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8)])
    height, width = x.shape[1:]
    tall, wide = ((n + 2 * (side // 2) - 2 * side) // side + 1 for n in (height, width))
    result = np.zeros((8, tall, wide))
    for i in range(height):
        for j in range(width):
            c = np.square(slopes[:, :, i, j]).sum(0).argmax()
            down, right = slopes[:, c, i, j]
            turn = math.atan2(down, right) / math.pi % 1 * 8
            for p in range(tall):
                for q in range(wide):
                    near = [1 - abs(at + side // 2 - side * part - (side - 0.5)) / side
                            for at, part in ((i, p), (j, q))]
                    if min(near) > 0:
                        amount = math.hypot(down, right) * near[0] * near[1]
                        result[int(turn) % 8, p, q] += amount * (1 - turn % 1)
                        result[(int(turn) + 1) % 8, p, q] += amount * (turn % 1)
    return np.sqrt(result).ravel()


@pytest.mark.parametrize(("shape", "side"), [((1, 8, 8), 2), ((3, 14, 9), 2), ((1, 28, 21), 3)])
def test_outlines_are_those_of_every_pixel(shape, side):
    x = torch.rand(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.stack([by_pixels(image, side) for image in x.numpy()])
    np.testing.assert_allclose(outlines(x).numpy(), expected, atol=1e-9)


def test_outlines_do_not_tell_light_from_dark_nor_see_an_even_change():
    x = torch.rand(2, 1, 12, 12, dtype=torch.float64)
    np.testing.assert_allclose(outlines(-x), outlines(x), atol=1e-6)
    np.testing.assert_allclose(outlines(x + 3), outlines(x), atol=1e-6)
    np.testing.assert_allclose(outlines(4 * x), 2 * outlines(x), atol=1e-6)
    assert not outlines(torch.ones(2, 3, 12, 12)).any()
