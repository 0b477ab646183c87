"""Precision and memory layout: bf16 where the processor has instructions for it.

``fp32`` and ``bf16`` are dtypes; ``mixed`` is bf16 with transposed convolutions left in fp32, which
a processor's library runs faster for some kernels and strides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

_outer: list[bool] = []
P = ParamSpec("P")
R = TypeVar("R")


def has_bf16(device: torch.device) -> bool:
    """The processor has bf16 instructions (which emulation would only imitate)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def transposed(model: nn.Module) -> list[nn.Module]:
    """The modules that ``mixed`` leaves in fp32."""
    return [m for m in model.modules() if isinstance(m, nn.ConvTranspose2d)]


def apply_layout(model: nn.Module, layout: str) -> None:
    """Put the model's 4-D weights into this memory layout."""
    if layout == "channels_last":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def autocast(device: torch.device, precision: str,
             fp32_modules: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Matrix products and convolutions in bf16 unless ``fp32``; ``mixed`` leaves out
    ``fp32_modules``."""
    modules = fp32_modules if precision == "mixed" else ()
    handles = [h for m in modules for h in (
        m.register_forward_pre_hook(_enter_fp32),
        m.register_forward_hook(_leave_fp32, always_call=True))]
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32"):
            yield
    finally:
        for handle in handles:
            handle.remove()


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose first argument is a tensor, and whose products are in fp32 under any
    autocast."""
    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        first: Any = args[0]
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)
    return wrapper


def _enter_fp32(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Before a module of fp32: autocast off, tensors widened."""
    _outer.append(torch.is_autocast_enabled("cpu"))
    torch.set_autocast_enabled("cpu", False)
    return tuple(v.float() if isinstance(v, Tensor) else v for v in args)


def _leave_fp32(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
    """After it: autocast as before."""
    torch.set_autocast_enabled("cpu", _outer.pop())
