"""From an item to one number: how real it is, by itself or for a class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from latlas.core.errors import ConfigError
from latlas.core.space import Space
from latlas.networks.conv import ConvEncoder
from latlas.networks.mlp import leaky_mlp
from latlas.networks.reordered import penalised

#: octaves of :class:`Waves`
OCTAVES = 5


class Waves(nn.Module):
    """(n, d) to (n, d (1 + 2 K)): x beside sin and cos of x π/2 · 2^k, k = 0 … K − 1.

    (Mildenhall et al. 2020, eq. 4; Tancik et al. 2020.) A perceptron is slow to learn what changes
    within a small part of its range, such as where a narrow mode ends. x is in standard
    deviations: the waves are 4 … 4/2^(K−1) of them long.
    """

    frequencies: Tensor

    def __init__(self, octaves: int = OCTAVES) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi / 2 * 2.0 ** torch.arange(octaves))

    def forward(self, x: Tensor) -> Tensor:
        turns = (x[..., None] * self.frequencies).flatten(1)
        return torch.cat([x, turns.sin(), turns.cos()], 1)


class Discriminator(nn.Module):
    """(n, *shape), optional class codes (n,), groups (n,) and sketches to (n, 1), or to (n, 1 +
    classes).

    The first number is how real an item is, the others, with ``names``, are the log-odds of its
    classes. Given a class y it adds ⟨embedding of y, features⟩ (Miyato & Koyama 2018, eq. 3), and
    the same for a group, and for a linear map of a sketch.

    Args:
        trunk: (n, *shape) to features (n, features).
        classes, groups: how many there are; 0 without.
        sketch: how many numbers say what an item looks like from afar; 0 without.
        names: whether the classes of items are told.
        group: items whose spread is told (:func:`spread`); 0 without.
        bias: of the output; it has no effect on objectives of differences.
    """

    def __init__(self, trunk: nn.Module, features: int, classes: int = 0, group: int = 0,
                 bias: bool = True, names: bool = False, groups: int = 0,
                 sketch: int = 0) -> None:
        super().__init__()
        self.trunk, self.group = trunk, group
        self.head = nn.Linear(features + bool(group), 1, bias=bias)
        self.embedding = nn.Embedding(classes, features) if classes else None
        self.among = nn.Embedding(groups, features) if groups else None
        self.afar = nn.Linear(sketch, features, bias=False) if sketch else None
        if self.afar is not None:  # as long as the embeddings of classes
            nn.init.normal_(self.afar.weight, std=1 / math.sqrt(sketch))
        self.naming = nn.Linear(features, classes) if names else None
        penalised(trunk)

    def forward(self, x: Tensor, label: Tensor | None = None,
                group: Tensor | None = None, sketch: Tensor | None = None) -> Tensor:
        h = self.trunk(x)
        told = torch.cat([h, spread(h, self.group)], 1) if self.group else h
        out: Tensor = self.head(told)
        for table, given in ((self.embedding, label), (self.among, group), (self.afar, sketch)):
            if table is not None and given is not None:
                match = (table(given).to(h.dtype) * h).sum(1, keepdim=True)
                out = out + match / math.sqrt(h.shape[1])
        return out if self.naming is None else torch.cat([out, self.naming(h)], 1)


def make_discriminator(space: Space, *, kind: str, width: int, depth: int, classes: int = 0,
                       group: int = 0, bias: bool = True, names: bool = False, groups: int = 0,
                       sketch: int = 0, spectral: bool = False) -> Discriminator:
    """One whose trunk is fully connected, or the encoder of pictures."""
    made = Discriminator(trunk(space, kind, width, depth), features(kind, width), classes, group,
                         bias, names, groups, sketch)
    if spectral:
        for layer in made.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                if not layer.weight.any():  # no direction to take the largest singular value of
                    layer.reset_parameters()
                spectral_norm(layer)
    return made


def features(kind: str, width: int) -> int:
    """What the trunk of a discriminator gives."""
    return width if kind == "mlp" else 8 * width


def trunk(space: Space, kind: str, width: int, depth: int) -> nn.Module:
    """(n, *shape) to features, the last of them through an activation.

    Half as many layers as the generator has, if fully connected: its task is the smaller one.
    """
    if kind == "mlp":
        waves: list[nn.Module] = [] if space.kind == "picture" else [Waves()]
        told = space.dims * (1 + 2 * OCTAVES * len(waves))
        layers = leaky_mlp(told, 1, width, max(1, depth // 2))
        return nn.Sequential(nn.Flatten(), *waves, *list(layers)[:-1])  # not the last linear map
    made = ConvEncoder(space.shape, features(kind, width), width=width, depth=depth)
    return nn.Sequential(made, nn.SiLU())


def spread(h: Tensor, group: int) -> Tensor:
    """How much the items of a group differ, (n, d) to (n, 1), the same for all of a group.

    The mean over features of the standard deviation over the group (Karras et al. 2018,
    section 3). It couples the items of a group.

    Raises:
        ConfigError: n is no multiple of ``group``.
    """
    if len(h) % group:
        raise ConfigError(f"minibatch_std={group}: a batch of {len(h)} cannot be cut into groups "
                          "of that size; choose a divisor of batch_size")
    apart = h.float().unflatten(0, (-1, group))
    sd = (apart.var(1, correction=0) + 1e-8).sqrt().mean(1, keepdim=True)
    return sd.repeat_interleave(group, 0).to(h.dtype)
