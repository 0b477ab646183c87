"""Many processes under ``torchrun``: who we are, and gradients averaged in one all-reduce."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latlas.core.errors import ConfigError, unknown


@dataclass(frozen=True)
class DistributedContext:
    """This process's rank and how many processes share the global batch."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
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
    if device.type == "cuda":  # where NCCL puts the objects of a broadcast
        torch.cuda.set_device(device)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return DistributedContext(torch.distributed.get_rank(), size)


def pick_device(name: str) -> torch.device:
    """``auto``: a GPU where there is one. Under ``torchrun`` ``cuda`` is this process's own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
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
