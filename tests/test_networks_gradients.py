"""Convolutions whose gradient is differentiated: the same numbers as torch's own layers have."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latlas.networks.conv import Conv2d, flat
from latlas.networks.equalised import EqualConv
from latlas.networks.gan import penalise
from latlas.networks.translators import mirrored


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def layers(*args, **named):
    """One of ours, whose gradient is penalised, and torch's own with the same weights."""
    mine, known = Conv2d(*args, **named), nn.Conv2d(*args, **named)
    known.load_state_dict(mine.state_dict())
    mine.penalised = True
    return mine, known


STRIDED = [(3, 2, 1), (4, 2, 1), ((4, 3), (2, 1), (1, 0)), (3, 1, 1)]


@pytest.mark.parametrize(("kernel", "stride", "padding"), STRIDED)
def test_gradients_through_strided_convolutions_are_derived_as_torch_does(kernel, stride, padding):
    def penalty(layer):
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x).float().pow(3).sum()
        slope = torch.autograd.grad(out, x, create_graph=True)[0]
        return torch.autograd.grad(slope.square().sum(), list(layer.parameters()))

    x = torch.randn(4, 64, 9, 8, requires_grad=True)
    for f, r in zip(*map(penalty, layers(64, 64, kernel, stride, padding)), strict=True):
        torch.testing.assert_close(f, r, rtol=0.03, atol=0.03 * r.abs().max().item())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_in_bf16_it_is_the_same_layer(layout, bias):
    mine, known = layers(64, 64, 4, 2, 1, bias=bias)
    x = torch.randn(5, 64, 9, 8).to(memory_format=layout).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        made, wanted = mine(x), known(x)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made, wanted)
    found, right = (torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])
                    for y, layer in ((made, mine), (wanted, known)))
    for f, r in zip(found, right, strict=True):  # bf16 has 8 bits, summed in another order
        torch.testing.assert_close(f, r, rtol=0.02, atol=0.02 * r.abs().max().item())


def test_a_pass_that_only_goes_through_takes_no_gradient_of_weights(monkeypatch):
    def never(*_):
        raise AssertionError("not asked for")

    layer, x = layers(64, 64, 4, 2, 1)[0], torch.randn(4, 64, 8, 8, requires_grad=True)
    total = layer(x).square().sum()
    monkeypatch.setattr(torch.nn.grad, "conv2d_weight", never)
    total.backward(inputs=[x], retain_graph=True)
    with pytest.raises(AssertionError, match="not asked for"):
        total.backward(inputs=list(layer.parameters()))


def of_slopes(network, x):
    """Gradients by the weights of what R1 makes of a network's output, beside that output."""
    out = network(x).pow(3).flatten(1).sum(1)
    slope = torch.autograd.grad(out.sum(), x, create_graph=True)[0]
    return torch.autograd.grad((out + slope.square().flatten(1).sum(1)).sum(),
                               list(network.parameters()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_networks_that_are_penalised_have_the_gradients_they_had(layout):
    plain = nn.Sequential(Conv2d(3, 8, 3, 2, 1), nn.SiLU(), Conv2d(8, 6, (4, 3), (2, 1), 1),
                          nn.SiLU(), EqualConv(6, 4), nn.SiLU(), EqualConv(4, 2, 1, bias=False))
    plain = plain.double().to(memory_format=layout)
    quick = copy.deepcopy(plain)
    penalise(quick)
    assert [m.penalised for m in quick[::2]] == [True] * 4 and not plain[0].penalised
    x = doubles(3, 3, 9, 10)
    assert type(quick[0](x).grad_fn).__name__ == "_PassedBackward"
    assert type(quick[0](x.detach()).grad_fn).__name__ == "ConvolutionBackward0"
    torch.testing.assert_close(quick(x), plain(x))
    torch.testing.assert_close(of_slopes(quick, x), of_slopes(plain, x))


@pytest.mark.parametrize(("kernel", "stride", "padding"), STRIDED)
def test_derivatives_of_any_order_are_those_of_a_convolution(kernel, stride, padding):
    quick, layer = (m.double() for m in layers(3, 4, kernel, stride, padding))
    x = doubles(2, 3, 5, 6)

    def sharpness(module):
        """Of the gradients by all, the norm's gradient, and that of its norm in turn."""
        given = [x, *module.parameters()]
        total = module(x).pow(3).sum()
        for _ in range(2):
            found = torch.autograd.grad(total, given, create_graph=True)
            total = torch.stack([g.square().sum().sqrt() for g in found]).sum()
        return torch.autograd.grad(total, given)

    torch.testing.assert_close(sharpness(quick), sharpness(layer))


def test_one_picture_and_evaluation_are_left_to_torch():
    mine, known = layers(4, 4, 3, padding=1)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    torch.testing.assert_close(mine(x[0]), known(x[0]))
    with torch.no_grad():
        assert torch.equal(mine(x), known(x))


def test_rows_give_gradients_back_in_the_layout_that_images_had():
    x = doubles(2, 3, 4, 5)
    torch.testing.assert_close(flat(x), x.flatten(1))
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: flat(v).pow(3), last)
    for layout in (torch.contiguous_format, torch.channels_last):
        h = x.detach().contiguous(memory_format=layout).requires_grad_()
        gradient = torch.autograd.grad(flat(h).square().sum(), h)[0]
        torch.testing.assert_close(gradient, 2 * h)
        assert gradient.is_contiguous(memory_format=layout)


def test_edges_are_mirrored():
    layer, x = mirrored(2, 3, 5), torch.randn(2, 2, 6, 7)
    padded = F.pad(x, [2] * 4, mode="reflect")
    torch.testing.assert_close(layer(x), F.conv2d(padded, layer.conv.weight, layer.conv.bias))
