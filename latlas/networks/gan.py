"""Generator and discriminator of ``gan``, for images, rows and points, and what augments images."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from latlas.core.errors import ConfigError
from latlas.core.noise import Noise
from latlas.core.space import Space
from latlas.networks.conv import ConvDecoder, ConvEncoder
from latlas.networks.light_gan import LightGenerator, LightTrunk
from latlas.networks.mlp import leaky_mlp

#: slope of :class:`Squashed` far out; octaves of :class:`Waves`
LEAK, OCTAVES = 0.005, 5
#: of ADA: standard deviation of log scale, of brightness, of log contrast and half that of log
#: saturation; largest shift as a share of the side (Karras et al. 2020b, appendix B; logarithms
#: there are of base 2, here natural: changes are 1.44 times as large)
SCALE, BRIGHT, CONTRAST, SHIFT = 0.2, 0.2, 0.5, 0.125
#: of DiffAugment: largest shift and side of the square that is cut out, as shares of the side
SLIDE, HOLE = 0.125, 0.5


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
    elif network == "light":
        generator = LightGenerator(space.shape, inputs, condition, width=width, depth=depth)
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
    """A :class:`Discriminator` with a fully connected trunk, or the encoder of images. A fully
    connected one has half as many layers as the generator: its task is the smaller one."""
    features = width if network == "mlp" else 8 * width
    trunk: nn.Module
    if network == "light":
        trunk = LightTrunk(space.shape, features, width=2 * width, depth=depth)
    elif network == "mlp":
        waves = [] if space.kind == "image" else [Waves()]
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

    ConfigError: n is no multiple of ``group``.
    """
    if len(h) % group:
        raise ConfigError(f"minibatch_std={group}: a batch of {len(h)} cannot be cut into groups "
                          "of that size; choose a divisor of batch_size")
    grouped = h.float().unflatten(0, (-1, group))
    sd = (grouped.var(1, correction=0) + 1e-8).sqrt().mean(1, keepdim=True)
    return sd.repeat_interleave(group, 0).to(h.dtype)


# ------------------------------------------------------------------------------ augmentation
# A discriminator memorises few images unless those that it sees are augmented at random. As long as
# they can be undone in distribution, the generator learns the images as they are (Karras et al.
# 2020b, section 2). All functions take (n, C, H, W) in [−1, 1] and are differentiable.

def diff_augment(x: Tensor, noise: Noise) -> Tensor:
    """Colour, shift and a square cut out, of every image (Zhao et al. 2020, section 3.2)."""
    n, _, height, width = x.shape
    x = x + noise.uniform(n, 1, 1, 1).to(x) - 0.5
    if x.shape[1] == 3:
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * (2 * noise.uniform(n, 1, 1, 1).to(x))
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * (0.5 + noise.uniform(n, 1, 1, 1).to(x))
    down, across = (2 * noise.uniform(n, 2).to(x) - 1).mul(SLIDE).unbind(1)
    x = shift_images(x, torch.stack([down * height, across * width], 1).round().long())
    hole = int(HOLE * height), int(HOLE * width)
    top = (noise.uniform(n, 1).to(x) * (height + 1)).floor() - hole[0] // 2
    start = (noise.uniform(n, 1).to(x) * (width + 1)).floor() - hole[1] // 2
    return x * ~box(x, top, start, *hole)


def shift_images(x: Tensor, shift: Tensor) -> Tensor:
    """Every image moved by whole pixels (n, 2), down and right; zeros move in."""
    n, _, height, width = x.shape
    rows = torch.arange(height, device=x.device) - shift[:, :1]
    columns = torch.arange(width, device=x.device) - shift[:, 1:]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    each = torch.arange(n, device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2) * box(x, shift[:, :1], shift[:, 1:], height, width)


def box(x: Tensor, top: Tensor, start: Tensor, height: int, width: int) -> Tensor:
    """Whether pixels of images lie in a box of theirs, (n, 1, H, W); its corner (n, 1) each."""
    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
    return (((rows >= top) & (rows < top + height))[:, None, :, None]
            & ((columns >= start) & (columns < start + width))[:, None, None, :])


def ada_augment(x: Tensor, p: Tensor, noise: Noise) -> Tensor:
    """Each augmentation with probability ``p`` (a tensor of one number) for every image.

    Horizontal flip; turns by multiples of 90°, by any angle; shift, scale, anisotropic scale;
    brightness, contrast, hue, saturation (Karras et al. 2020b, figure 4a; the pixels are read
    bilinearly, with the image reflected at its edges).
    """
    with torch.autocast(x.device.type, enabled=False):  # in bf16 all places would be blurred
        n, p = len(x), p.to(x)

        def some(values: Tensor, identity: float) -> Tensor:
            chosen = torch.where(noise.uniform(n).to(x) < p, values, identity)
            return chosen.view(n, 1, 1, 1)

        x = resample(x, random_geometry(x, p, noise))
        x = x + some(BRIGHT * noise.normal(n).to(x), 0.0)
        x = x * some((CONTRAST * noise.normal(n).to(x)).exp(), 1.0)
        if x.shape[1] != 3:
            return x
        grey = x.mean(1, keepdim=True)
        colour = rotate_hue(x - grey, some((2 * noise.uniform(n).to(x) - 1) * math.pi, 0.0))
        return grey + colour * some((2 * CONTRAST * noise.normal(n).to(x)).exp(), 1.0)


def random_geometry(x: Tensor, p: Tensor, noise: Noise) -> Tensor:
    """(n, 3, 3), from places in the result to places in the source, both in −1 … 1. Rotations are
    those of the image: until the end places are in units of half its height."""
    n, wide = len(x), x.shape[3] / x.shape[2]

    def some(values: Tensor, identity: float) -> Tensor:
        return torch.where(noise.uniform(n).to(x) < p, values, identity)

    one = torch.ones(n, device=x.device)
    flip = some(1 - 2 * (noise.uniform(n).to(x) < 0.5).float(), 1.0)
    quarter = some((4 * noise.uniform(n).to(x)).floor() * (math.pi / 2), 0.0)
    across, down = (some((2 * noise.uniform(n).to(x) - 1) * 2 * SHIFT, 0.0) for _ in range(2))
    scale, stretch = (some((SCALE * noise.normal(n).to(x)).exp(), 1.0) for _ in range(2))
    turn = some((2 * noise.uniform(n).to(x) - 1) * math.pi, 0.0)
    return (matrix(flip / wide, 0, 0, 1) @ rotation(quarter)
            @ matrix(one, 0, 0, 1, wide * across, down) @ matrix(scale, 0, 0, scale)
            @ matrix(stretch, 0, 0, 1 / stretch) @ rotation(turn) @ matrix(wide * one, 0, 0, 1))


def rotation(angle: Tensor) -> Tensor:
    """(n, 3, 3) of turns by angles (n,)."""
    cos, sin = angle.cos(), angle.sin()
    return matrix(cos, -sin, sin, cos)


def matrix(a: Tensor, b: Tensor | float, c: Tensor | float, d: Tensor | float,
           across: Tensor | float = 0, down: Tensor | float = 0) -> Tensor:
    """(n, 3, 3) of linear maps and shifts."""
    zero = torch.zeros_like(a)
    entries = [zero + entry for entry in (a, b, across, c, d, down, 0, 0, 1)]
    return torch.stack(entries, 1).unflatten(1, (3, 3))


def resample(x: Tensor, geometry: Tensor) -> Tensor:
    """Images read at the places that matrices (n, 3, 3) send theirs to."""
    grid = F.affine_grid(geometry[:, :2], list(x.shape), align_corners=False)
    return F.grid_sample(x, grid.to(x), mode="bilinear", padding_mode="reflection",
                         align_corners=False)


def rotate_hue(colour: Tensor, angle: Tensor) -> Tensor:
    """Colours (n, 3, H, W) that sum to 0, turned about the grey axis (Rodrigues' formula)."""
    sideways = (colour.roll(1, 1) - colour.roll(-1, 1)) / math.sqrt(3)
    return angle.cos() * colour + angle.sin() * sideways
