"""Where and how tensors are computed: device, processes under ``torchrun``, dtype, memory.

Of the dtypes ``mixed`` is bf16 with transposed convolutions left in fp32, which a processor's
library runs faster for some kernels and strides.
"""

import atexit
import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from latlas.core.errors import ConfigError, unknown

#: numbers that glibc has for its two thresholds, and the bytes that both are set to
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _LIMIT = -1, -3, 1 << 30
P = ParamSpec("P")
R = TypeVar("R")


def pick_device(name: str, mps: bool = False) -> torch.device:
    """``auto``: a GPU where there is one; Apple's only if ``mps``, for it has no float64, which
    some models and most verbs take. Under ``torchrun`` ``cuda`` is this process's own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if (
            mps and torch.backends.mps.is_available()) else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
        raise ConfigError(unknown("device", name, ["auto", "cpu", "cuda", "cuda:1", "mps"]),
                          option="device")
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name} cannot be used: {str(error).splitlines()[0]}",
                          option="device") from error
    return device


@dataclass(frozen=True)
class DistributedContext:
    """This process's rank and how many processes share the global batch."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Rank 0 writes files and shows progress."""
        return self.rank == 0

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replace every gradient by its mean over processes: one flat all-reduce."""
        if self.size == 1:
            return
        flat = torch.cat([g.reshape(-1) for g in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([g.numel() for g in gradients])
        torch._foreach_copy_(list(gradients), [p.view_as(g) for p, g in
                                               zip(parts, gradients, strict=True)])

    def agree(self, value: Any) -> Any:
        """Rank 0's value on every process."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def sum(self, values: Tensor) -> Tensor:
        """Its sum over processes."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, value: bool) -> bool:
        """Whether it is true on some process."""
        if self.size == 1:
            return value
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return any(values)


def join(device: torch.device) -> DistributedContext:
    """The processes that ``torchrun`` describes in the environment; a single one otherwise."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return DistributedContext()
    gpu = device.type == "cuda"
    if gpu:  # where NCCL puts the objects of a broadcast
        torch.cuda.set_device(device)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if gpu else "gloo",
                                             device_id=device if gpu else None)
        atexit.register(torch.distributed.destroy_process_group)
    return DistributedContext(torch.distributed.get_rank(), size)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device; to a GPU by way of pinned memory, for which the host need not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else (
        tensor.to(device))


@cache
def keep_freed_memory() -> bool:
    """Ask glibc's malloc to reuse blocks of up to 1 GiB; whether it could be asked.

    By default each large tensor of a step is mapped and unmapped anew, and the kernel fills every
    page with zeros: 500 page faults a step, a third of the time of a small MLP in bf16. Other
    platforms' allocators are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_M_TRIM_THRESHOLD, _LIMIT)
                    and libc.mallopt(_M_MMAP_THRESHOLD, _LIMIT))
    except (OSError, AttributeError):
        return False


def has_bf16(device: torch.device) -> bool:
    """The processor has bf16 instructions (which emulation would only imitate)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
    outer: list[bool] = []

    def enter_fp32(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        outer.append(torch.is_autocast_enabled("cpu"))
        torch.set_autocast_enabled("cpu", False)
        return tuple(v.float() if isinstance(v, Tensor) else v for v in args)

    def leave_fp32(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        torch.set_autocast_enabled("cpu", outer.pop())

    handles = [handle for m in (fp32_modules if precision == "mixed" else ()) for handle in (
        m.register_forward_pre_hook(enter_fp32),
        m.register_forward_hook(leave_fp32, always_call=True))]
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32"):
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def numerics(deterministic: bool = False) -> Iterator[None]:
    """On a GPU products and convolutions of fp32 are in fp32 inside, none in TF32, which has ten
    bits of a number; cuDNN takes the algorithm that it thinks is best and times none.

    Args:
        deterministic: kernels that give the same bits every time; what has none warns.
    """
    backends, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = backends.allow_tf32, matmul.allow_tf32, backends.benchmark, backends.deterministic
    modes = torch.are_deterministic_algorithms_enabled(), (
        torch.is_deterministic_algorithms_warn_only_enabled())
    backends.allow_tf32 = matmul.allow_tf32 = backends.benchmark = False
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS begins
        backends.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        backends.allow_tf32, matmul.allow_tf32, backends.benchmark, backends.deterministic = before
        if deterministic:
            torch.use_deterministic_algorithms(modes[0], warn_only=modes[1])


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose first argument is a tensor, and whose products are in fp32 under any
    autocast."""
    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        first: Any = args[0]
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)
    return wrapper
