"""Convolutions whose gradient by the input is quick to differentiate again (R1, R2): of y = x ∗ W
v · ∂x = (v ∗ W) · ∂y, a convolution and a gradient by W. torch convolves examples with examples."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _gradient(by: int, grad: Tensor, x: Tensor, weight: Tensor, *how: Any) -> Tensor:
    """Of a convolution, by x (0) or by W (1)."""
    gradients: list[Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *how, [1, 1], False, [0, 0], 1, [by == 0, by == 1, False])
    return gradients[by]


class _ByInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, x: Tensor, *how: Any) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.how = how
        return _gradient(0, grad, x, weight, *how)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:  # type: ignore[override]
        grad, weight = ctx.saved_tensors
        by_weight = _gradient(1, grad, v, weight, *ctx.how) if ctx.needs_input_grad[1] else None
        return F.conv2d(v, weight, None, *ctx.how), by_weight, None, None, None


class _ByWeight(torch.autograd.Function):
    """Nothing, with the gradient by W and bias: a node of its own, which a backward pass to the
    input alone leaves out. x comes in a list, because its gradient does not come from here."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Any, x: list[Tensor], *how: Any) -> Tensor:
        ctx.save_for_backward(weight, x[0])
        ctx.how = how[1:]
        return weight.new_empty(1).expand(how[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        weight, x = ctx.saved_tensors
        by_bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[1] else None
        return _gradient(1, grad, x, weight, *ctx.how), by_bias, None, None, None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Any, nothing: Tensor, *how: Any) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return F.conv2d(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        by_x = _ByInput.apply(grad, weight, x.detach(), *ctx.how)  # type: ignore[no-untyped-call]
        return by_x, None, None, grad, None, None


class Conv2d(nn.Conv2d):
    """With stride and zero padding; ``penalised`` where its gradient will be differentiated."""
    penalised = False

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not (self.penalised and x.requires_grad and torch.is_grad_enabled()
                and x.device.type == "cpu" and x.dim() == 4):
            return super()._conv_forward(x, weight, bias)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        how = [int(s) for s in self.stride], [int(p) for p in self.padding]
        size = [(n + 2 * p - k) // s + 1
                for n, k, s, p in zip(x.shape[2:], weight.shape[2:], *how, strict=True)]
        nothing = _ByWeight.apply(weight, bias, [x], [len(x), len(weight), *size], *how)
        return _Convolution.apply(x, weight, bias, nothing, *how)  # type: ignore[no-any-return]
