"""How one image moves into the next: a turn, a zoom and a shift, found without a network.

A motion (n, 2, 3) takes places in the later image to those in the earlier one that show the same.
Places are in pixels, across and down from the middle of the image. All functions take
(n, C, H, W) of any unit and are differentiable with respect to images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from latlas.core.devices import exact

#: how much smaller images are where a motion is sought first, the sides they keep at least, and
#: the steps at each size
SCALES, LEAST, STEPS = (8, 4, 2, 1), 12, 4
#: of the mean curvature, added to every one of them: what images do not show is left as it is;
#: rounding that a place at the edge is allowed, pixels
DAMPING, EDGE = 1e-3, 1e-3
#: what is so many times as far off as usual loses three quarters of its weight
SPREAD = 2.0
#: how fast what the motion does not explain loses its weight, images in 0 … 1 (Lai et al. 2018,
#: section 3.2)
SHARPNESS = 50.0


@exact
def after(first: Tensor, then: Tensor) -> Tensor:
    """The motion that takes places by ``first`` and the result by ``then``, (n, 2, 3) each."""
    turned = then[:, :, :2] @ first
    return torch.cat([turned[:, :, :2], turned[:, :, 2:] + then[:, :, 2:]], 2)


def warped(x: Tensor, motion: Tensor) -> Tensor:
    """The earlier images as they look after the motion, float32; edges are repeated beyond."""
    height, width = x.shape[2:]
    across, down = places(motion, height, width).unbind(-1)
    grid = torch.stack([across / (width / 2), down / (height / 2)], -1)
    return F.grid_sample(x.float(), grid, mode="bicubic", padding_mode="border",
                         align_corners=False)


@exact
def places(motion: Tensor, height: int, width: int) -> Tensor:
    """Where every pixel of the later image was, (n, H, W, 2): across, down."""
    down, across = torch.meshgrid(*(torch.arange(size, device=motion.device) - (size - 1) / 2
                                    for size in (height, width)), indexing="ij")
    points = torch.stack([across, down, torch.ones_like(across)], -1)
    return torch.einsum("nij,hwj->nhwi", motion.float(), points)


def inside(motion: Tensor, height: int, width: int) -> Tensor:
    """1 where a pixel of the later image was within the earlier one, else 0: (n, 1, H, W)."""
    across, down = places(motion, height, width).abs().unbind(-1)
    within = (across <= (width - 1) / 2 + EDGE) & (down <= (height - 1) / 2 + EDGE)
    return within[:, None].float()


def explained(earlier: Tensor, later: Tensor, motion: Tensor, scale: float) -> Tensor:
    """How well the motion explains every place: exp(−50 Σ_c d²), 0 from outside, (n, 1, H, W).

    d is the difference of the later image and the earlier one after the motion, over the length
    ``scale`` of their range (Lai et al. 2018, section 3.2, whose flow comes from a network).
    """
    error = ((later.float() - warped(earlier, motion)) / scale).square().sum(1, keepdim=True)
    return torch.exp(-SHARPNESS * error) * inside(motion, *later.shape[2:])


def grey(x: Tensor) -> Tensor:
    """Mean over channels, (n, 1, H, W) float32: enough to see motion by."""
    return x.float().mean(1, keepdim=True)


@exact
@torch.no_grad()
def estimate(earlier: Tensor, later: Tensor) -> Tensor:
    """The turn, zoom and shift (n, 2, 3) after which ``earlier`` is nearest ``later``.

    Gauss-Newton on the squared difference, coarse to fine (Lucas & Kanade 1981; of parametric
    motions Bergen et al. 1992), every pixel weighted by 1 / (1 + r²/σ²)², so that what moves by
    itself counts little (Geman & McClure's function, as Black & Anandan 1996 use it; σ is twice the
    mean |r| where the image is steep). Motions of up to about a tenth of the side are found.
    """
    size = later.shape[2:]
    still = torch.eye(2, 3, device=later.device).repeat(len(later), 1, 1)
    motion = still
    for scale in SCALES:
        if scale > 1 and min(size) < scale * LEAST:
            continue
        a, b = (x.float() if scale == 1 else F.interpolate(
            x.float(), [-(-side // scale) for side in size], mode="area") for x in (earlier, later))
        ratio = b.shape[3] / size[1], b.shape[2] / size[0]
        small = _rescaled(motion, *ratio)
        height, width = b.shape[2:]
        side = max(height, width) / 2  # so that turns count like shifts at the edge
        u, v = (places(still[:1], height, width) / side).unbind(-1)
        for _ in range(STEPS):  # the small motion, taken before, that explains most of what is left
            now = warped(a, small)
            down, across = torch.gradient(now, dim=(2, 3))
            slopes = torch.stack([across * u + down * v, down * u - across * v, across, down], -1)
            residual = b - now
            error, steep = (x.square().sum(1, keepdim=True).sqrt()
                            for x in (residual, torch.hypot(across, down)))
            usual = ((error * steep).sum((2, 3), keepdim=True)
                     / steep.sum((2, 3), keepdim=True).clamp_min(1e-12))
            weight = inside(small, height, width) / (
                1 + (error / (SPREAD * usual).clamp_min(1e-6)).square()).square()
            weighted = (slopes * weight[..., None]).flatten(1, 3).mT
            curve = weighted @ slopes.flatten(1, 3)
            pull = (weighted @ residual.flatten(1)[..., None])[..., 0]
            mean = curve.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
            damped = curve + (DAMPING * mean + 1e-9) * torch.eye(4, device=now.device)
            zoom, turn, right, below = torch.linalg.solve_ex(damped, pull).result.unbind(1)
            zoom, turn = zoom / side, turn / side
            small = after(torch.stack([torch.stack([1 + zoom, -turn, right], 1),
                                       torch.stack([turn, 1 + zoom, below], 1)], 1), small)
        motion = _rescaled(small, 1 / ratio[0], 1 / ratio[1])
    return torch.where(motion.isfinite().all(2, keepdim=True).all(1, keepdim=True), motion, still)


def _rescaled(motion: Tensor, wider: float, higher: float) -> Tensor:
    """The same motion of images whose sides are so many times as long."""
    shift = torch.stack([motion[:, 0, 2:] * wider, motion[:, 1, 2:] * higher], 1)
    return torch.cat([motion[:, :, :2], shift], 2)
