"""The resize rule: shorter side to the size asked for (Lanczos, antialiased), then centre crop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


def resize_picture(image: Image, size: int) -> Image:
    """A Pillow image as size × size: shorter side to ``size``, then the centre."""
    from PIL import Image as pil

    width, height = image.size
    if (width, height) == (size, size):
        return image
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)  # what a crop afterwards would keep
    return image.resize((size, size), pil.Resampling.LANCZOS, box=box)


def resize_planes(x: NDArray[Any], size: int, top: float | None) -> NDArray[Any]:
    """Pictures (n, C, H, W) as (n, C, size, size), plane by plane, clipped to 0 … ``top``."""
    from PIL import Image as pil

    if x.shape[2:] == (size, size):
        return x
    planes = x.reshape(-1, *x.shape[2:]).astype(np.float32)
    out = np.stack([np.asarray(resize_picture(pil.fromarray(p), size)) for p in planes])
    out = out if top is None else np.clip(np.rint(out), 0, top)
    return out.reshape(*x.shape[:2], size, size).astype(x.dtype)


def nearest_planes(x: NDArray[Any], size: int) -> NDArray[Any]:
    """Class ids (..., H, W) as (..., size, size): the same cut, the nearest id."""
    height, width = x.shape[-2:]
    short = min(height, width)
    steps = (np.arange(size) + 0.5) * short / size
    rows = ((height - short) / 2 + steps).astype(np.int64)
    columns = ((width - short) / 2 + steps).astype(np.int64)
    return np.ascontiguousarray(x[..., rows[:, None], columns])
