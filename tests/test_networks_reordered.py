"""Sums in another order: the same numbers and gradients as torch's own layers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latlas.networks import reordered
from latlas.networks.equalised import EqualConv
from latlas.networks.reordered import (
    FEW,
    Strided,
    StridedTransposed,
    Transposed,
    convolved,
    convolved_twice,
    flat,
    memory_format,
    mirrored,
    penalised,
    strided,
)


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("size", "edge"), [((8, 9), 1), ((8, 9), 3), ((4, 5), 3)])
def test_edges_are_mirrored_as_torch_does(size, edge):
    x = doubles(2, 3, *size)
    output, reference = mirrored(x, edge), F.pad(x, [edge] * 4, mode="reflect")
    assert torch.equal(output, reference)
    weight = torch.randn_like(reference)
    mine, theirs = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (output, reference))
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
    reference = theirs(x)
    gradients = torch.autograd.grad(reference.square().sum(), [x, *theirs.parameters()])
    output = mine(x)
    result = torch.autograd.grad(output.square().sum(), [x, *mine.parameters()])
    torch.testing.assert_close(output, reference)
    torch.testing.assert_close(result, gradients)


def layers(kind, theirs, *args, **named):
    mine = kind(*args, **named)
    reference = theirs(*args, **named)
    reference.load_state_dict(mine.state_dict())
    return mine, reference


STRIDED = [(Strided, nn.Conv2d, 3, 2, 1), (Strided, nn.Conv2d, 4, 2, 1),
           (Strided, nn.Conv2d, (4, 3), (2, 1), (1, 0)),
           (StridedTransposed, nn.ConvTranspose2d, 4, 2, 1),
           (StridedTransposed, nn.ConvTranspose2d, (3, 4), (1, 2), (0, 1))]


@pytest.mark.parametrize(("kind", "theirs", "kernel", "stride", "padding"), STRIDED)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_of_strided_convolutions_have_their_gradient_by_windows(
        kind, theirs, kernel, stride, padding, bias, layout):
    mine, reference = layers(kind, theirs, 64, 64, kernel, stride, padding, bias=bias)
    x = torch.randn(5, 64, 9, 8).to(memory_format=layout).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert type(strided(x, mine).grad_fn).__name__ == "_ConvolutionBackward"
        assert strided(x, Strided(64, 64, 3)) is None  # no stride
        output, expected = mine(x), reference(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected)
    result, right = (torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])
                    for y, layer in ((output, mine), (expected, reference)))
    for f, r in zip(result, right, strict=True):  # bf16 has 8 bits, summed in another order
        torch.testing.assert_close(f, r, rtol=0.02, atol=0.02 * r.abs().max().item())


def test_windows_give_the_exact_gradient():
    large, small = doubles(2, 3, 9, 8), doubles(2, 5, 5, 4)
    weight = doubles(5, 3, 3, 4)
    output = F.conv2d(large, weight, stride=2, padding=1)
    assert output.shape == small.shape
    right = torch.autograd.grad((output * small).sum(), weight)[0]
    result = reordered._by_windows(large, small, weight.shape[2:], [2, 2], [1, 1])
    torch.testing.assert_close(result, right)


@pytest.mark.parametrize(("kind", "theirs", "kernel", "stride", "padding"), STRIDED)
def test_slopes_through_strided_convolutions_are_derived_as_torch_does(
        kind, theirs, kernel, stride, padding):
    def penalty(layer):
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x).float().pow(3).sum()
        slope = torch.autograd.grad(out, x, create_graph=True)[0]
        return torch.autograd.grad(slope.square().sum(), list(layer.parameters()))

    x = torch.randn(4, 64, 9, 8, requires_grad=True)
    for f, r in zip(*map(penalty, layers(kind, theirs, 64, 64, kernel, stride, padding)),
                    strict=True):
        torch.testing.assert_close(f, r, rtol=0.03, atol=0.03 * r.abs().max().item())


def test_a_pass_that_only_goes_through_takes_no_gradient_of_weights(monkeypatch):
    def never(*_):
        raise AssertionError("not asked for")

    layer, x = Strided(64, 64, 4, 2, 1), torch.randn(4, 64, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        total = layer(x).float().square().sum()
    monkeypatch.setattr(reordered, "_by_windows", never)
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
    plain = nn.Sequential(Strided(3, 8, 3, 2, 1), nn.SiLU(), Strided(8, 6, (4, 3), (2, 1), 1),
                          nn.SiLU(), EqualConv(6, 4), nn.SiLU(), EqualConv(4, 2, 1, bias=False))
    plain = plain.double().to(memory_format=layout)
    quick = copy.deepcopy(plain)
    penalised(quick)
    assert [m.twice for m in quick[::2]] == [True] * 4 and not plain[0].twice
    x = doubles(3, 3, 9, 10)
    assert type(quick[0](x).grad_fn).__name__ == "_ConvolutionBackward"
    assert type(quick[0](x.detach()).grad_fn).__name__ == "ConvolutionBackward0"
    torch.testing.assert_close(quick(x), plain(x))
    torch.testing.assert_close(of_slopes(quick, x), of_slopes(plain, x))


@pytest.mark.parametrize(("kind", "theirs", "kernel", "stride", "padding"), STRIDED)
@pytest.mark.parametrize("windows", [False, True])
def test_derivatives_of_any_order_are_those_of_a_convolution(kind, theirs, kernel, stride, padding,
                                                            windows):
    layer = theirs(3, 4, kernel, stride, padding).double()
    transposed, x = theirs is nn.ConvTranspose2d, doubles(2, 3, 5, 6)

    def quick(x, weight, bias):
        return convolved_twice(x, weight, bias, layer.stride, layer.padding, transposed, windows)

    def sharpness(convolve):
        """Of the gradients by all, the norm's gradient, and that of its norm in turn."""
        inputs = [x, *layer.parameters()]
        total = convolve(*inputs).pow(3).sum()
        for _ in range(2):
            result = torch.autograd.grad(total, inputs, create_graph=True)
            total = torch.stack([g.square().sum().sqrt() for g in result]).sum()
        return torch.autograd.grad(total, inputs)

    plain = F.conv_transpose2d if transposed else F.conv2d
    torch.testing.assert_close(
        sharpness(quick), sharpness(lambda x, w, b: plain(x, w, b, stride, padding)))


@pytest.mark.parametrize("more", [{"dilation": 2}, {"groups": 2}, {"padding": "same"},
                                  {"padding": 1, "padding_mode": "circular"}])
def test_whatever_else_a_convolution_can_do_is_left_to_torch(more):
    mine, reference = layers(Strided, nn.Conv2d, 4, 4, 3, **more)
    penalised(mine)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    torch.testing.assert_close(mine(x), reference(x))
    torch.testing.assert_close(mine(x[0]), reference(x[0]))


def test_a_network_with_a_word_of_its_own_keeps_it():
    class Own(nn.Module):
        def twice(self, x):
            return 2 * x

    own = Own()
    penalised(nn.Sequential(own))
    assert own.twice(3) == 6


def test_rows_give_gradients_back_in_the_layout_that_items_had():
    x = doubles(2, 3, 4, 5)
    torch.testing.assert_close(flat(x), x.flatten(1))
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: flat(v).pow(3), last)
    for layout in (torch.contiguous_format, torch.channels_last):
        h = x.detach().contiguous(memory_format=layout).requires_grad_()
        assert memory_format(torch.autograd.grad(flat(h).square().sum(), h)[0]) == layout
    assert memory_format(torch.zeros(2, 1, 4, 5)) == torch.contiguous_format


def same(output, reference, inputs, tolerance):
    torch.testing.assert_close(output, reference, rtol=tolerance, atol=tolerance)
    mine, theirs = (torch.autograd.grad(y.square().sum(), inputs) for y in (output, reference))
    torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=10 * tolerance)
