"""Convolutional networks: exact sizes, independent examples, conditions that act, layout."""

import pytest
import torch
from torch import nn

from latlas.core.errors import ConfigError
from latlas.networks.conv import ConvDecoder, ConvEncoder, Up, down, flat, pyramid

SHAPES = [(1, 28, 28), (3, 32, 32), (4, 64, 64), (1, 4, 4), (2, 5, 7), (1, 8, 9), (5, 33, 12),
          (1, 105, 105), (3, 4, 50), (1, 63, 65)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_is_hit_exactly(shape):
    x = torch.randn(2, *shape)
    assert ConvEncoder(shape, 6, width=4)(x).shape == (2, 6)
    assert ConvDecoder(shape, 6, width=4)(torch.randn(2, 6)).shape == x.shape
    wide = ConvDecoder(shape, 6, condition=3, multiplier=2, width=4)
    assert wide(torch.randn(2, 6), torch.randn(2, 3)).shape == (2, 2 * shape[0], *shape[1:])


@pytest.mark.parametrize("shape", SHAPES)
def test_coarsest_level_is_4_to_7(shape):
    assert all(4 <= side <= 7 for side in pyramid(*shape[1:])[-1])
    assert len(pyramid(*shape[1:])) >= 2


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_is_the_number_of_levels(depth):
    encoder = ConvEncoder((1, 16, 6), 2, width=2, depth=depth)
    assert sum(isinstance(m, nn.Conv2d) for m in encoder.modules()) == depth
    decoder = ConvDecoder((1, 16, 6), 2, width=2, depth=depth)
    assert decoder(torch.randn(3, 2)).shape == (3, 1, 16, 6)
    assert encoder(torch.randn(3, 1, 16, 6)).shape == (3, 2)


def test_channels_double_up_to_a_cap():
    encoder = ConvEncoder((3, 256, 256), 2, width=2)
    widths = [m.out_channels for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [2, 4, 8, 16, 16, 16]


@pytest.mark.parametrize("large", [(8, 8), (7, 8), (9, 5)])
def test_up_has_the_size_of_what_down_came_from(large):
    small = tuple((side + 1) // 2 for side in large)
    h = down(1, 2, large, small)(torch.randn(1, 1, *large))
    assert h.shape == (1, 2, *small)
    assert Up(2, 3, small, large)(h).shape == (1, 3, *large)


@pytest.mark.parametrize(("small", "large"), [((5, 7), (10, 14)), ((4, 3), (7, 6)),
                                              ((4, 5), (8, 5)), ((4, 5), (4, 9))])
def test_up_is_a_repeated_pixel_and_a_convolution(small, large):
    up, h = Up(2, 3, small, large), torch.randn(2, 2, *small)
    nn.init.normal_(up.bias)
    repeated = torch.nn.functional.pad(h, (1, 1, 1, 1), mode="replicate")
    for axis, stride in zip((2, 3), up.stride, strict=True):
        repeated = repeated.repeat_interleave(stride, axis)
    kernel = up.weight.transpose(0, 1).flip(2, 3)
    whole = torch.nn.functional.conv2d(repeated, kernel, up.bias, padding=1)
    ends = [(stride, stride + side) for stride, side in zip(up.stride, large, strict=True)]
    expected = whole[..., slice(*ends[0]), slice(*ends[1])]
    torch.testing.assert_close(up(h), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [16, 15, 28])
def test_no_weights_make_a_checkerboard_of_a_constant(side):
    """At the start and after steps that ask for a checkerboard: inside and at the border."""
    half = (side + 1) // 2
    up, h = Up(3, 2, (half, half), (side, side)), torch.randn(1, 3, 1, 1).expand(4, 3, half, half)
    board = (torch.arange(side)[:, None] + torch.arange(side)) % 2 * 2.0 - 1
    adam = torch.optim.Adam(up.parameters(), 0.1)
    for _ in range(5):
        out = up(h)
        assert (out - out[..., :1, :1]).abs().max() < 1e-5
        adam.zero_grad()
        (out - board).square().mean().backward()
        adam.step()


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 17, 13), (2, 28, 28), (1, 45, 64)])
def test_samples_have_no_power_at_the_nyquist_frequency(shape):
    """Nor after steps towards noise, which has as much of it as of anything else."""
    decoder, z = ConvDecoder(shape, 6, width=4), torch.randn(64, 6)
    adam = torch.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(6):
        x = decoder(z)
        even = x[..., 1:2 * ((shape[1] - 1) // 2) + 1, 1:2 * ((shape[2] - 1) // 2) + 1].detach()
        for axis in (-1, -2):  # the mean of pairs of neighbours has a zero there
            sign = torch.tensor([1.0, -1.0]).repeat(even.shape[axis] // 2)
            alternating = (even * (sign if axis == -1 else sign[:, None])).mean(axis)
            assert alternating.square().mean() < 0.02 * even.square().mean()
        adam.zero_grad()
        (x - torch.randn_like(x)).square().mean().backward()
        adam.step()


def test_every_pixel_reaches_the_code_and_is_reached_by_it():
    shape = (1, 13, 10)
    x = torch.randn(1, *shape, requires_grad=True)
    ConvEncoder(shape, 3, width=4)(x).square().sum().backward()
    assert (x.grad != 0).all()
    decoder, z = ConvDecoder(shape, 3, width=4), torch.randn(2, 3)
    first, second = decoder(z)
    assert (first != second).all()


def test_items_do_not_see_each_other():
    shape = (2, 9, 9)
    encoder, decoder = ConvEncoder(shape, 3, width=4), ConvDecoder(shape, 3, width=4)
    x, z = torch.randn(5, *shape), torch.randn(5, 3)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]))
    torch.testing.assert_close(decoder(z)[1:2], decoder(z[1:2]))
    assert encoder.training and not list(encoder.buffers())


def test_a_condition_acts_through_a_nonlinearity():
    """Were the output a sum f(x) + g(c), the mixed second difference would be zero."""
    shape = (1, 8, 8)
    encoder = ConvEncoder(shape, 4, condition=3, width=8)
    decoder = ConvDecoder(shape, 4, condition=3, width=8)
    c, d = torch.eye(3)[:1] * 5, torch.eye(3)[1:2] * 5
    for net, make in ((encoder, lambda: torch.randn(1, *shape)),
                      (decoder, lambda: torch.randn(1, 4))):
        a, b = make(), make()
        mixed = net(a, c) - net(a, d) - net(b, c) + net(b, d)
        assert mixed.abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_last_gives_the_same_numbers(dtype):
    shape = (3, 16, 11)
    nets = ConvEncoder(shape, 4, condition=2, width=8), ConvDecoder(shape, 4, 2, width=8)
    x, z, c = torch.randn(3, *shape), torch.randn(3, 4), torch.randn(3, 2)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        before = nets[0](x, c), nets[1](z, c)
        for net in nets:
            net.to(memory_format=torch.channels_last)
        after = nets[0](x.contiguous(memory_format=torch.channels_last), c), nets[1](z, c)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


def test_rows_give_gradients_back_in_the_layout_that_images_had():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(flat(x), x.flatten(1))
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: flat(v).pow(3), last)
    for layout in (torch.contiguous_format, torch.channels_last):
        h = x.detach().contiguous(memory_format=layout).requires_grad_()
        gradient = torch.autograd.grad(flat(h).square().sum(), h)[0]
        torch.testing.assert_close(gradient, 2 * h)
        assert gradient.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("shape", [(3, 128, 128), (1, 45, 28)])
def test_signals_keep_their_scale_at_the_start(shape):
    """Through all levels; PyTorch's own start shrinks them about tenfold."""
    with torch.no_grad():
        code = ConvEncoder(shape, 200)(torch.randn(4, *shape))
        image = ConvDecoder(shape, 20)(torch.randn(50, 20))
    assert 0.5 < code.square().mean().sqrt() < 2
    assert 0.5 < image.square().mean().sqrt() < 2


def test_an_autoencoder_of_both_learns():
    shape = (1, 12, 12)
    rows = torch.arange(12.0)
    x = torch.stack([((rows - a)[:, None] ** 2 + (rows - b) ** 2 < 6).float()
                     for a in (3, 6, 9) for b in (3, 6, 9)])[:, None] * 2 - 1
    encoder, decoder = ConvEncoder(shape, 4, width=8), ConvDecoder(shape, 4, width=8)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    for _ in range(120):
        optimiser.zero_grad()
        error = (decoder(encoder(x)) - x).square().mean()
        error.backward()
        optimiser.step()
    assert error < 0.3 * x.var()


@pytest.mark.parametrize(("shape", "message"), [((1, 3, 8), "at least 4 by 4 pixels, these are 3"),
                                                ((30,), r"needs images \(C, H, W\)")])
@pytest.mark.parametrize("net", [ConvEncoder, ConvDecoder])
def test_shapes_that_do_not_fit(net, shape, message):
    with pytest.raises(ConfigError, match=message):
        net(shape, 2)
