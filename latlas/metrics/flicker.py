"""How much a clip changes from frame to frame beyond its motion."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latlas.core import motion

Array = NDArray[Any]
Float = NDArray[np.float64]
#: pairs at a time
CHUNK = 64


def flicker(earlier: Array, later: Array, moved: Array, top: float,
            weight: Array | None = None) -> Float:
    """mean |later − W(earlier)| of each pair of frames (n, C, H, W), as a share of the range.

    W moves the earlier frame (Lai et al. 2018, section 4.2, with squares and a flow of a network).
    The mean is over channels and over places weighted by ``weight``; NaN where all are 0.

    Args:
        moved: (n, 2, 3) their motion, known or found (:func:`motions`), in the terms of
            :mod:`latlas.core.motion`.
        top: the largest level.
        weight: (n, 1, H, W); by default 1 where a place of the later frame is in the earlier one.
    """
    shares = np.zeros(len(later))
    for part in (slice(i, i + CHUNK) for i in range(0, len(later), CHUNK)):
        a, b, flow = (torch.from_numpy(np.asarray(x[part], np.float32))
                      for x in (earlier, later, moved))
        inside = motion.inside(flow, *b.shape[2:]) if weight is None else torch.from_numpy(
            weight[part])
        change = (b - motion.warped(a, flow)).abs().mean(1, keepdim=True)
        shares[part] = ((change * inside).double().sum((1, 2, 3))
                        / inside.double().sum((1, 2, 3))).numpy() / top
    return shares


def motions(earlier: Array, later: Array, top: float) -> tuple[Array, Array]:
    """The motion (n, 2, 3) of each pair of frames, and how well it explains each place of the
    later one (n, 1, H, W); see :func:`latlas.core.motion.explained`."""
    moved, weight = np.zeros((len(later), 2, 3)), np.zeros((len(later), 1, *later.shape[2:]))
    for i in range(0, len(later), CHUNK):
        a, b = (torch.from_numpy(np.asarray(x[i:i + CHUNK], np.float32)) for x in (earlier, later))
        flow = motion.estimate(motion.grey(a / top), motion.grey(b / top))
        moved[i:i + CHUNK] = flow.numpy()
        weight[i:i + CHUNK] = motion.explained(a, b, flow, top).numpy()
    return moved.astype(np.float32), weight.astype(np.float32)
