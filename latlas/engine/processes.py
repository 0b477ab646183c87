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

    def check(self, batch_size: int) -> None:
        """The global batch must divide evenly, or the mean of means is not the mean."""
        if batch_size % self.size:
            raise ConfigError(f"batch_size={batch_size} does not divide over {self.size} "
                              f"processes; choose a multiple of {self.size}")

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

    def any(self, here: bool) -> bool:
        """Whether it holds on some process."""
        if self.size == 1:
            return here
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, here)
        return any(found)


def join(device: torch.device) -> DistributedContext:
    """The world ``torchrun`` describes in the environment; a single process otherwise."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return DistributedContext()
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return DistributedContext(torch.distributed.get_rank(), size)


def pick_device(name: str) -> torch.device:
    """``auto``: a GPU where there is one (this process's own under ``torchrun``)."""
    if name != "auto":
        return _checked(name)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def _checked(name: str) -> torch.device:
    if name.partition(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
        raise ConfigError(unknown("device", name, ["auto", "cpu", "cuda", "cuda:1", "mps"]))
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={name} cannot be used: {reason}") from error
    return device
