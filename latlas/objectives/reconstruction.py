"""How the losses of a batch's items become one number."""

from __future__ import annotations

from torch import Tensor


def trimmed_mean(losses: Tensor, share: float) -> Tensor:
    """Mean of the items' losses (n,) without the largest ⌊share · n⌋ of them.

    Least trimmed squares (Rousseeuw 1984) for any loss: what fits worst, outliers above all, does
    not move the weights. It couples the items of a batch. ``share`` 0 is the plain mean.

    >>> import torch
    >>> trimmed_mean(torch.tensor([1.0, 2.0, 300.0]), 0.34)
    tensor(1.5000)
    """
    left_out = int(share * len(losses))
    if left_out == 0:
        return losses.mean()
    return losses.topk(len(losses) - left_out, largest=False, sorted=False).values.mean()
