"""Generator and discriminator of ``gan``, for images, rows and points."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from latlas.core.errors import ConfigError
from latlas.core.space import Space
from latlas.networks.conv import ConvDecoder, ConvEncoder
from latlas.networks.mlp import leaky_mlp
from latlas.networks.reordered import penalised

#: slope of :class:`Squashed` far out; octaves of :class:`Waves`
LEAK, OCTAVES = 0.005, 5


class Squashed(nn.Module):
    """A network whose output y becomes tanh y + 0.005 y.

    Pixels pile up at −1 and 1; without the curve a discriminator would see the overshoot. Through
    tanh alone no gradient comes back from there: digits on black became black altogether.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.network(*inputs)
        return out.tanh() + LEAK * out


class Perceptron(nn.Module):
    """(n, inputs) and an optional (n, condition) to (n, *shape) by a :func:`leaky_mlp`."""

    def __init__(self, shape: tuple[int, ...], inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.shape = shape
        self.layers = leaky_mlp(inputs, math.prod(shape), width, depth)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        out: Tensor = self.layers(z if c is None else torch.cat([z, c], 1))
        return out.unflatten(1, self.shape)


def make_generator(space: Space, inputs: int, condition: int = 0, *, network: str, width: int,
                   depth: int) -> nn.Module:
    """(n, inputs) and an optional (n, condition) to (n, *shape)."""
    if network == "mlp":
        generator: nn.Module = Perceptron(space.shape, inputs + condition, width, depth)
    else:
        generator = ConvDecoder(space.shape, inputs, condition, width=width, depth=depth,
                                refined=True)
    return Squashed(generator) if space.kind == "image" else generator


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
    """(n, *shape) to logits (n, 1), or to (n, 1 + classes) with ``class_logits``.

    The first logit is how real an example is, the others are log-odds of its classes. Of a class y
    that is given the first adds ⟨embedding of y, features⟩ / √features (projection, Miyato & Koyama
    2018, eq. 3), of a cluster likewise, and of content with a linear map in place of the embedding.

    Args:
        trunk: (n, *shape) to features (n, features).
        classes, clusters, content_dims: how many there are; 0 without.
        class_logits: whether there are logits of classes, too (AC-GAN).
        minibatch_std: examples of a group whose spread the first logit reads
            (:func:`minibatch_deviation`); 0 without.
        bias: of the first logit; it has no effect on shift-invariant objectives.
    """

    def __init__(self, trunk: nn.Module, features: int, *, classes: int = 0, clusters: int = 0,
                 content_dims: int = 0, class_logits: bool = False, minibatch_std: int = 0,
                 bias: bool = True) -> None:
        super().__init__()
        self.trunk, self.minibatch_std = trunk, minibatch_std
        self.head = nn.Linear(features + bool(minibatch_std), 1, bias=bias)
        self.of_class = nn.Embedding(classes, features) if classes else None
        self.of_cluster = nn.Embedding(clusters, features) if clusters else None
        self.of_content = nn.Linear(content_dims, features, bias=False) if content_dims else None
        if self.of_content is not None:  # as long as the embeddings of classes
            nn.init.normal_(self.of_content.weight, std=1 / math.sqrt(content_dims))
        self.class_logits = nn.Linear(features, classes) if class_logits else None
        penalised(trunk)

    def forward(self, x: Tensor, label: Tensor | None = None, cluster: Tensor | None = None,
                content: Tensor | None = None) -> Tensor:
        h = self.trunk(x)
        size = self.minibatch_std
        out: Tensor = self.head(torch.cat([h, minibatch_deviation(h, size)], 1) if size else h)
        for embed, condition in ((self.of_class, label), (self.of_cluster, cluster),
                                 (self.of_content, content)):
            if embed is not None and condition is not None:
                match = (embed(condition).to(h.dtype) * h).sum(1, keepdim=True)
                out = out + match / math.sqrt(h.shape[1])
        return out if self.class_logits is None else torch.cat([out, self.class_logits(h)], 1)


def make_discriminator(space: Space, *, network: str, width: int, depth: int,
                       spectral: bool = False, **options: int) -> Discriminator:
    """A :class:`Discriminator` with a fully connected trunk, or the encoder of images.

    A fully connected one has half as many layers as the generator: its task is the smaller one.
    """
    features = width if network == "mlp" else 8 * width
    if network == "mlp":
        waves: list[nn.Module] = [] if space.kind == "image" else [Waves()]
        inputs = space.dims * (1 + 2 * OCTAVES * len(waves))
        layers = leaky_mlp(inputs, 1, width, max(1, depth // 2))
        trunk = nn.Sequential(nn.Flatten(), *waves, *list(layers)[:-1])  # not the last linear map
    else:
        encoder = ConvEncoder(space.shape, features, width=width, depth=depth)
        trunk = nn.Sequential(encoder, nn.SiLU())
    discriminator = Discriminator(trunk, features, **options)  # type: ignore[arg-type]
    if spectral:
        for layer in discriminator.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                if not layer.weight.any():  # no direction to take the largest singular value of
                    layer.reset_parameters()
                spectral_norm(layer)
    return discriminator


def minibatch_deviation(h: Tensor, group: int) -> Tensor:
    """How much the examples of a group differ, (n, d) to (n, 1), the same for all of a group.

    The mean over features of the standard deviation over the group (Karras et al. 2018,
    section 3). It couples the examples of a group.

    Raises:
        ConfigError: n is no multiple of ``group``.
    """
    if len(h) % group:
        raise ConfigError(f"minibatch_std={group}: a batch of {len(h)} cannot be cut into groups "
                          "of that size; choose a divisor of batch_size")
    grouped = h.float().unflatten(0, (-1, group))
    sd = (grouped.var(1, correction=0) + 1e-8).sqrt().mean(1, keepdim=True)
    return sd.repeat_interleave(group, 0).to(h.dtype)
