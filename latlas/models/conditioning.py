"""How networks are told of a class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

#: how a class is named where a conditional model misses one
NAME_IT = "name the class with --label or, of data, its column with --data-option label=NAME"


def class_vectors(label: Tensor, classes: int, latent_dim: int) -> Tensor:
    """Class codes (n,) as one-hot (n, classes), to stand beside latents.

    The 1 is √(2 · latent_dim), longer than a latent vector: beside it a plain 1 is so faint that
    a VAE's latents learn the class as well, and samples then ignore the label.
    """
    return (2 * latent_dim) ** 0.5 * F.one_hot(label.long(), classes).float()
