"""Sums in another order: the same numbers and gradients as torch's own layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latlas.networks.reordered import FEW, Transposed, convolved, mirrored


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("size", "edge"), [((8, 9), 1), ((8, 9), 3), ((4, 5), 3)])
def test_edges_are_mirrored_as_torch_does(size, edge):
    x = doubles(2, 3, *size)
    made, known = mirrored(x, edge), F.pad(x, [edge] * 4, mode="reflect")
    assert torch.equal(made, known)
    weight = torch.randn_like(known)
    mine, theirs = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (made, known))
    torch.testing.assert_close(mine, theirs)
    assert torch.autograd.gradgradcheck(lambda v: mirrored(v, edge), x)


def test_mirroring_keeps_the_number_format_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert mirrored(torch.randn(1, 1, 8, 8).bfloat16(), 1).dtype == torch.bfloat16


@pytest.mark.parametrize("outputs", [1, 3, 20])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_to_few_channels_is_the_same_row_by_row(outputs, bias):
    conv, x = nn.Conv2d(4, outputs, 7, bias=bias).double(), doubles(2, 4, 11, 12)
    same(convolved(x, conv).double(), conv(x), [x, *conv.parameters()], 1e-5)


@pytest.mark.parametrize(("size", "kernel", "stride"), [
    ((4, 4), (4, 4), (2, 2)), ((3, 5), (4, 3), (2, 1)), ((16, 17), (4, 4), (2, 2))])
@pytest.mark.parametrize("bias", [True, False])
def test_a_transposed_convolution_of_few_pixels_is_one_product(size, kernel, stride, bias):
    mine = Transposed(6, 5, kernel, stride=stride, padding=1, bias=bias).double()
    theirs = nn.ConvTranspose2d(6, 5, kernel, stride=stride, padding=1, bias=bias).double()
    theirs.load_state_dict(mine.state_dict())
    x = doubles(2, 6, *size)
    assert (len(x) * size[0] * size[1] <= FEW) == (size[0] < 16)  # both ways are taken
    known = theirs(x)
    gradients = torch.autograd.grad(known.square().sum(), [x, *theirs.parameters()])
    made = mine(x)
    found = torch.autograd.grad(made.square().sum(), [x, *mine.parameters()])
    torch.testing.assert_close(made, known)
    torch.testing.assert_close(found, gradients)


def same(made, known, inputs, tolerance):
    torch.testing.assert_close(made, known, rtol=tolerance, atol=tolerance)
    mine, theirs = (torch.autograd.grad(y.square().sum(), inputs) for y in (made, known))
    torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=10 * tolerance)
