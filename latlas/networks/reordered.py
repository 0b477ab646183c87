"""Convolutions in an order of sums that a processor does faster; what they compute is the same.

Measured with torch 2.13 on one core with AVX-512 bf16, forward and backward: see each function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: channels that a processor's library fills a convolution's outputs up to
FILLED = 16
#: pixels over the batch up to which a layer's time is that of moving its weights
FEW = 256
#: channels from which, and numbers up to which, the windows of a convolution are worth laying out
DEEP, LAID_OUT = 64, 8_000_000


class _Mirror(torch.autograd.Function):
    """Rows and columns beyond the edge are those within it, in any number format.

    ``F.pad`` goes back pixel by pixel, and autocast widens it to fp32: 0.58 ms against 0.20 ms for
    256 × 32 × 32 in bf16.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, edge: int) -> Tensor:
        e, height, width = edge, x.shape[-2], x.shape[-1]
        ctx.edge = e
        out = x.new_empty(*x.shape[:-2], height + 2 * e, width + 2 * e)
        out[..., e:-e, e:-e] = x
        out[..., e:-e, :e] = x[..., 1:e + 1].flip(-1)
        out[..., e:-e, -e:] = x[..., -e - 1:-1].flip(-1)
        out[..., :e, :] = out[..., e + 1:2 * e + 1, :].flip(-2)
        out[..., -e:, :] = out[..., -2 * e - 1:-e - 1, :].flip(-2)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        e, gradient = ctx.edge, gradients[0]
        rows = gradient[..., e:-e, :].clone()
        rows[..., 1:e + 1, :] += gradient[..., :e, :].flip(-2)
        rows[..., -e - 1:-1, :] += gradient[..., -e:, :].flip(-2)
        out = rows[..., e:-e].clone()
        out[..., 1:e + 1] += rows[..., :e].flip(-1)
        out[..., -e - 1:-1] += rows[..., -e:].flip(-1)
        return out, None


def mirrored(x: Tensor, edge: int) -> Tensor:
    """Images (n, C, H, W) with ``edge`` more pixels on every side, mirrored; under min(H, W)."""
    out: Tensor = _Mirror.apply(x, edge)  # type: ignore[no-untyped-call]
    return out


def convolved(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A convolution without stride or padding, row by row of its kernel where that is cheaper.

    A few outputs are computed as 16 channels, so a kernel of 7 × 7 to 3 channels is five times the
    work. As 1 × 7 to 21 channels whose rows are then added, it takes 7 ms instead of 14 ms (64
    channels of 128 × 128, bf16). The sum is in fp32.
    """
    outputs, kernel = conv.out_channels, conv.kernel_size[0]
    if x.device.type != "cpu" or 2 * outputs > FILLED or kernel < 3:
        out: Tensor = conv(x)
        return out
    weight = conv.weight.transpose(1, 2).reshape(outputs * kernel, -1, 1, conv.kernel_size[1])
    rows = F.conv2d(x, weight).unflatten(1, (outputs, kernel))
    height = x.shape[2] - kernel + 1
    total = rows[:, :, 0, :height].float()
    for k in range(1, kernel):
        total = total + rows[:, :, k, k:k + height]
    return total if conv.bias is None else total + conv.bias[:, None, None]


class _Convolution(torch.autograd.Function):
    """A convolution that leaves the gradients of weights and bias to :class:`_Learnt`.

    So that a pass which only goes through this layer does not take them: whether a gradient is
    asked for is decided by nodes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, learnt: Tensor,
                *how: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return torch.convolution(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = (_ToInput.apply(gradients[0], weight, x.detach(), *ctx.how)
                if ctx.needs_input_grad[0] else None)
        return (to_x, None, None, gradients[0], *[None] * len(ctx.how))


class _ToInput(torch.autograd.Function):
    """The gradient by the input x, and that of a function of it by the two it is made of.

    ⟨v, ∂x⟩ is ⟨v ∗ W, ∂y⟩, so v stands in the place of x: one more convolution, and one more
    gradient by weights. torch convolves examples with examples, with the stride as dilation. By
    weights from 64 × 14 × 14 to 128 channels with stride 2, batch 128, 18 ms instead of 68 ms; from
    64 × 32 × 32 to as many without stride, batch 64, 146 ms instead of 240 ms (fp32, AVX2).
    """

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, x: Tensor, *how: Any) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.how = how
        return _gradients(gradient, x, weight, how, 0)[0]

    @staticmethod
    def backward(ctx: Any, *vectors: Tensor) -> tuple[Tensor | None, ...]:
        (gradient, weight), v, how = ctx.saved_tensors, vectors[0], ctx.how
        to_weight = _gradients(gradient, v, weight, how, 1)[1] if ctx.needs_input_grad[1] else None
        return (torch.convolution(v, weight, None, *how), to_weight, None, *[None] * len(how))


class _Learnt(torch.autograd.Function):
    """Stands for what weights and bias do in a convolution of x; has their gradients.

    x comes in a list: the convolution itself sends its gradient, but that of the weights is a
    function of x too, and may be differentiated by it.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, hidden: list[Tensor],
                size: list[int], windows: bool, *how: Any) -> Tensor:
        ctx.save_for_backward(weight, hidden[0])
        ctx.windows, ctx.how = windows, how
        return weight.new_empty(1).expand(size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight, x), out, how = ctx.saved_tensors, gradients[0], ctx.how
        stride, padding, _, transposed, *_ = how
        large, small = (out, x) if transposed else (x, out)
        to_weight = (_by_windows(large, small, weight.shape[2:], stride, padding) if ctx.windows
                     else _gradients(out, x, weight, how, 1)[1])
        to_bias = out.sum((0, 2, 3)) if ctx.needs_input_grad[1] else None
        return (to_weight, to_bias, *[None] * (3 + len(how)))


def _gradients(out: Tensor, x: Tensor, weight: Tensor, how: Any, wanted: int) -> list[Tensor]:
    """Of a convolution, by x (``wanted`` 0) or by its weights (1); the others are nothing."""
    mask = [k == wanted for k in range(3)]
    result: list[Tensor] = torch.ops.aten.convolution_backward(out, x, weight, None, *how, mask)
    return result


def _by_windows(large: Tensor, small: Tensor, kernel: torch.Size, stride: list[int],
                padding: list[int]) -> Tensor:
    """(c, C, *kernel): products of (n, c, h, w) and of the windows of (n, C, H, W), summed."""
    edges = [side for width in reversed(padding) for side in (width, width)]
    wide = F.pad(large.permute(0, 2, 3, 1), [0, 0, *edges]).contiguous()  # channels side by side
    item, row, column, _ = wide.stride()
    windows = wide.as_strided(
        (len(wide), *small.shape[2:], *kernel, wide.shape[3]),
        (item, stride[0] * row, stride[1] * column, row, column, 1)).flatten(3).flatten(0, 2)
    result = small.permute(0, 2, 3, 1).flatten(0, 2).t() @ windows
    return result.unflatten(1, (*kernel, wide.shape[3])).permute(0, 3, 1, 2)


def convolved_twice(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
                    padding: Sequence[int], transposed: bool = False,
                    windows: bool = False) -> Tensor:
    """A convolution, in the number format of a processor's products here, that is quick to
    differentiate twice (:class:`_ToInput`); ``windows`` for the weights' gradient by them."""
    if _halved():
        x, weight, bias = x.bfloat16(), weight.bfloat16(), bias if bias is None else bias.bfloat16()
    how = list(stride), list(padding), [1, 1], transposed, [0, 0], 1
    channels = weight.shape[1] if transposed else weight.shape[0]
    size = [len(x), channels, *(
        (n - 1) * step - 2 * edge + k if transposed else (n + 2 * edge - k) // step + 1
        for n, step, edge, k in zip(x.shape[2:], *how[:2], weight.shape[2:], strict=True))]
    learnt = _Learnt.apply(weight, bias, [x], size, windows, *how)  # type: ignore
    still = None if bias is None else bias.detach()
    out: Tensor = _Convolution.apply(x, weight, still, learnt, *how)  # type: ignore
    return out


class Twice:
    """A convolution through which slopes may be differentiated.

    Attributes:
        twice: they are (:func:`penalised`).
    """

    twice = False

    def quick(self, x: Tensor) -> bool:
        """:func:`convolved_twice` pays: a processor takes gradients, by x among others."""
        return self.twice and x.requires_grad and _graph_on_cpu(x)


def penalised(network: nn.Module) -> None:
    """Prepare a network whose slope by its input is to be differentiated (R1, R2)."""
    for layer in network.modules():
        if isinstance(layer, Twice):
            layer.twice = True


def _graph_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dim() == 4 and torch.is_grad_enabled()


class _Flat(torch.autograd.Function):
    """Examples in a row each; the gradient comes back in the memory layout that they had.

    It would come as a row is, and what meets it further back reads two layouts at once, which
    takes five times as long.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        ctx.like = h.shape[1:], memory_format(h)
        return h.flatten(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        shape, layout = ctx.like
        return gradients[0].reshape(-1, *shape).contiguous(memory_format=layout)


def flat(h: Tensor) -> Tensor:
    """(n, C, H, W) to (n, C H W)."""
    if memory_format(h) == torch.contiguous_format or not (h.requires_grad and _graph_on_cpu(h)):
        return h.flatten(1)
    out: Tensor = _Flat.apply(h)  # type: ignore[no-untyped-call]
    return out


def memory_format(t: Tensor) -> torch.memory_format:
    """Channels last where a tensor (·, ·, ·, ·) lies so, and not the other way as well."""
    last = not t.is_contiguous() and t.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def strided(x: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor | None:
    """The layer's output where :class:`_Convolution` is faster, else nothing.

    Where slopes through it are differentiated, and for weights of many channels, with few pixels,
    in bf16: from 128 × 8 × 8 to 256 channels by 4 × 4 and stride 2, batch 64, 3.3 ms instead of
    6.0 ms; with 64 × 28 × 28 it would be slower.
    """
    windows = _graph_on_cpu(x) and _halved() and _worth_windows(x, layer)
    twice = isinstance(layer, Twice) and layer.quick(x)
    if not (windows or twice) or not _ordinary(layer):
        return None
    stride, padding = ([int(v) for v in pair] for pair in (layer.stride, layer.padding))
    return convolved_twice(x, layer.weight, layer.bias, stride, padding,
                           isinstance(layer, nn.ConvTranspose2d), windows)


def _worth_windows(x: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    transposed = isinstance(layer, nn.ConvTranspose2d)
    channels, steps = layer.out_channels if transposed else layer.in_channels, layer.stride
    area = x.shape[-2] * x.shape[-1] / (1 if transposed else steps[0] * steps[1])
    laid_out = len(x) * area * channels * math.prod(layer.kernel_size)
    return steps[0] * steps[1] > 1 and channels >= DEEP and laid_out <= LAID_OUT


def _ordinary(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Nothing but a stride and zeros around the edges."""
    plain = layer.groups == 1 and not any(layer.output_padding) and set(layer.dilation) == {1}
    return plain and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _halved() -> bool:
    """Whether a processor's products are in bf16 here."""
    return (torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16)


class Strided(Twice, nn.Conv2d):
    """:func:`strided` where that pays."""

    def forward(self, x: Tensor) -> Tensor:
        out = strided(x, self)
        return super().forward(x) if out is None else out


class StridedTransposed(nn.ConvTranspose2d):
    """:func:`strided` where that pays."""

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        out = strided(x, self)
        return super().forward(x, output_size) if out is None else out


class Transposed(StridedTransposed):
    """Of few pixels as one product of matrices: weights stay as they lie in memory.

    512 to 512 channels from 4 × 4, batch 4, bf16: 7.5 ms instead of 18.4 ms. Else as
    :func:`strided`.
    """

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        n, _, height, width = x.shape
        if x.device.type != "cpu" or n * height * width > FEW:
            return super().forward(x, output_size)
        parts = torch.matmul(self.weight.flatten(1).t(), x.flatten(2))
        (down, across), (above, beside) = self.stride, self.edge
        size = ((height - 1) * down - 2 * above + self.kernel_size[0],
                (width - 1) * across - 2 * beside + self.kernel_size[1])
        out = F.fold(parts, size, (self.kernel_size[0], self.kernel_size[1]),
                     padding=self.edge, stride=(down, across))
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)

    @property
    def edge(self) -> tuple[int, int]:
        """Rows and columns that are left out at every side; its padding is never a word."""
        above, beside = (int(part) for part in self.padding)
        return above, beside
