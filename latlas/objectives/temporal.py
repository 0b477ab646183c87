"""How much images change from one frame to the next beyond their motion."""

from __future__ import annotations

from torch import Tensor

from latlas.core.motion import warped


def flicker(earlier: Tensor, later: Tensor, motion: Tensor, weight: Tensor) -> Tensor:
    """mean over places and channels of w |later − W(earlier)|, of each pair: (n,).

    The short-term temporal loss of Lai et al. (2018, section 3.2; Ruder et al. 2016, eq. 7, with
    squares).

    Args:
        earlier, later: (n, C, H, W) what was made of two frames that follow each other.
        motion: (n, 2, 3) of the frames, see :mod:`latlas.core.motion`.
        weight: (n, 1, H, W), how well the motion explains the frames themselves.
    """
    return (weight * (later.float() - warped(earlier, motion)).abs()).flatten(1).mean(1)
