"""Number formats: bf16 where the processor has instructions for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch


def has_bf16(device: torch.device) -> bool:
    """The processor has bf16 instructions (which emulation would only imitate)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Matrix products and convolutions in ``bf16``, or nothing for ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
