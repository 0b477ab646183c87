"""Features that the sample-quality metrics are computed on, and outlines that an audit compares.
Nothing is ever downloaded.

- ``pixels``: all scalars of an example in model units, flattened
- ``columns``: all scalars, each standardised on the training data
- ``random-conv``: a convolutional network with seeded random weights (images of any size)
- ``spectrum``: how strong each spatial frequency is in images: sharpness, grain, colour
- ``classifier``: last hidden layer of a small network trained here on the data's own labels
- a module, a file: any ``nn.Module``, TorchScript file or exported program (.pt2) of the user
- ``auto``: ``classifier`` if there are labels, else ``random-conv`` for images, else ``columns``
"""

import math
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from latlas.core.errors import ConfigError, DataError, unknown
from latlas.core.space import Space
from latlas.metrics.arrays import Array

#: (n, \*shape) in data units to (n, d) float32
Extractor = Callable[[Array], Array]
NAMES = ("auto", "pixels", "columns", "random-conv", "spectrum", "classifier")
#: pixels a side of the squares whose frequencies are told apart; mean square of what is not seen: a
#: contrast of one hundredth of the range
SQUARE, UNSEEN = 4, 0.02**2
#: grey, red against blue, both against green: orthonormal
OPPONENT = ((1, 1, 1), (1, 0, -1), (1, -2, 1))
#: examples of a step of the classifier
BATCH = 128
WIDTH = 64  # columns of the two built-in networks: few, so that few suffice for a covariance
#: of outlines: directions told apart over half a turn; parts along the shorter side, pixels of one
#: at least
DIRECTIONS, PARTS, LEAST = 8, 7, 2


def features(source: str | Path | nn.Module, space: Space, data: Array | None = None,
             labels: Array | None = None, *, seed: int = 0, device: str = "cpu") -> Extractor:
    """A function from examples (n, \\*shape) in data units to features (n, d) float32.

    Args:
        source: a name of the list above, a file, or a module. Modules and files are given model
            units, (n, \\*shape) float32 (images in [−1, 1]); what they return is flattened.
        data: (N, \\*shape) training examples in data units; needed by ``columns``, ``classifier``.
        labels: (N,) class codes; negative ones mark examples without a label.
        seed: decides random weights and the training of the classifier.

    ConfigError: an unknown name, an unreadable file, or something missing that a name needs.
    """
    if not isinstance(source, nn.Module):
        source = resolved(source, space, labels)
    if source == "pixels":
        return lambda x: _to_model(space, x).flatten(1).numpy()
    if source in ("columns", "classifier"):
        if data is None or not len(data):
            raise ConfigError(f"features {source!r} need training data")
        if source == "classifier":
            return train_classifier(space, data, labels, seed=seed, device=device)
        flat = np.asarray(data).reshape(len(data), -1)
        mean, sd = flat.mean(0, dtype=np.float64), flat.std(0, dtype=np.float64)
        sd = np.where(sd > 0, sd, 1.0)  # a constant column is only centred
        return lambda x: ((np.asarray(x).reshape(len(x), -1) - mean) / sd).astype(np.float32)
    if source == "random-conv":
        source = random_convolutions(space, seed)
    elif source == "spectrum":
        source = Spectrum(space)
    module = source if isinstance(source, nn.Module) else _module_file(source)
    return Network(module.to(device), space, device)


def resolved(source: str | Path, space: Space, labels: Array | None) -> str | Path:
    """What ``auto`` stands for with such data; any other source as it is."""
    if source != "auto":
        return source
    if labels is not None and len(np.unique(labels[labels >= 0])) > 1:
        return "classifier"
    return "random-conv" if space.kind == "image" else "columns"


@dataclass(frozen=True)
class Network:
    """A module applied in evaluation mode, batch by batch, without gradients, in fp32."""

    module: nn.Module
    space: Space
    device: str = "cpu"
    batch_size: int = 512

    @torch.no_grad()
    def __call__(self, x: Array) -> Array:
        was_training = self.module.training
        if was_training:
            self.module.eval()
        batches = (x[i:i + self.batch_size] for i in range(0, len(x), self.batch_size))
        out = [self.module(_to_model(self.space, batch).to(self.device)).float().flatten(1)
               for batch in batches]
        if was_training:
            self.module.train()
        return torch.cat(out).cpu().numpy()


@dataclass(frozen=True)
class Classifier(Network):
    """``module`` is the network up to its last hidden layer, ``head`` the linear layer on it."""

    head: nn.Linear = field(kw_only=True)

    def predict(self, x: Array) -> Array:
        """(n,) most probable class codes."""
        return self.classify(self(x))

    @torch.no_grad()
    def classify(self, features: Array) -> NDArray[np.int64]:
        """(n,) most probable class codes of examples by their features (n, 64)."""
        logits: Tensor = self.head(torch.from_numpy(np.asarray(features)).to(self.device))
        return logits.argmax(1).cpu().numpy()

    def weights(self) -> dict[str, Tensor]:
        """What :func:`restored_classifier` makes it from again."""
        return dict(nn.Sequential(self.module, self.head).state_dict())

    def accuracy(self, x: Array, labels: Array) -> float:
        """Share of examples whose predicted class is their label."""
        return float((self.predict(x) == labels).mean())


def random_convolutions(space: Space, seed: int = 0) -> nn.Module:
    """Strided 3×3 convolutions down to 4 pixels and a projection to 64, He-normal, never trained.

    Random features tell samples apart that no trained network has an opinion on (Naeem et al.
    2020, section 4). The same seed gives the same weights on every machine.
    """
    if space.kind != "image":
        raise ConfigError("features 'random-conv' need images: use 'columns' for this data")
    body = _seeded_classifier(space, 1, seed)[0][:-1]
    generator = torch.Generator().manual_seed(seed)
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.1, generator=generator)
    return body.eval().requires_grad_(False)


class Spectrum(nn.Module):
    """(n, C, H, W) to (n, 16 C): log mean square of each coefficient of a 4 × 4 cosine transform.

    Over squares at every second pixel, of colours as grey and two differences. Blur lacks what is
    fine, grain has too much of it, and features that sum an image up see neither (statistics of
    local cosine transforms judge quality in Saad, Bovik & Charrier 2012).
    """

    filters: Tensor
    colours: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        if space.kind != "image" or min(space.shape[1:]) < SQUARE:
            raise ConfigError(f"features 'spectrum' need images of at least {SQUARE} by {SQUARE} "
                              "pixels: use 'columns' for this data")
        k, at = torch.arange(SQUARE)[:, None], torch.arange(SQUARE)
        waves = (math.pi * (2 * at + 1) * k / (2 * SQUARE)).cos()
        waves = F.normalize(waves, dim=1)
        self.register_buffer("filters", torch.einsum("ai,bj->abij", waves, waves).flatten(0, 1))
        colours = torch.tensor(OPPONENT).float() if space.shape[0] == 3 else torch.eye(
            space.shape[0])
        self.register_buffer("colours", F.normalize(colours, dim=1))

    def forward(self, x: Tensor) -> Tensor:
        planes = torch.einsum("kc,nchw->nkhw", self.colours, x + 1).flatten(0, 1)[:, None]
        strong = F.conv2d(planes, self.filters[:, None], stride=SQUARE // 2).square().mean((2, 3))
        return (strong + UNSEEN).log().view(len(x), -1)


def train_classifier(space: Space, data: Array, labels: Array | None, *, seed: int = 0,
                     device: str = "cpu", steps: int | None = None) -> Classifier:
    """Train the small network on the labelled examples: Adam, its rate a cosine from 2e-3 to 0.

    ``steps`` None means :func:`classifier_steps`. Label smoothing keeps the features of the
    training examples from running away from those of unseen ones. Judge samples by it only beside
    a held-out control that it has not seen.
    """
    if labels is None:
        raise ConfigError("features 'classifier' need labels: name them, or use 'random-conv'")
    if len(labels) != len(data):
        raise DataError(f"{len(labels)} labels for {len(data)} examples")
    labelled = np.flatnonzero(np.asarray(labels) >= 0)
    y = np.asarray(labels)[labelled].astype(np.int64)
    if len(np.unique(y)) < 2:
        raise ConfigError("features 'classifier' need labels of at least two classes: "
                          "use 'random-conv' or 'pixels'")
    x = data if len(labelled) == len(data) else data[labelled]
    body, head = _seeded_classifier(space, max(len(space.classes), int(y.max()) + 1), seed)
    network = nn.Sequential(body, head).to(device)
    steps = classifier_steps(len(x)) if steps is None else steps
    optimiser = torch.optim.Adam(network.parameters())
    threads = torch.get_num_threads()
    if space.dims <= 256:  # on such small examples several would only wait for each other
        torch.set_num_threads(1)
    try:
        order = np.random.default_rng(seed).integers(len(x), size=(steps, BATCH))
        for step, rows in enumerate(order):
            optimiser.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / steps))
            logits = network(_to_model(space, x[rows]).to(device))
            loss = F.cross_entropy(logits, torch.from_numpy(y[rows]).to(device),
                                   label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    finally:
        torch.set_num_threads(threads)
    network.eval().requires_grad_(False)
    return Classifier(body, space, device, head=head)


def classifier_steps(examples: int) -> int:
    """Steps of :func:`train_classifier`: ten epochs, 300 … 1,000."""
    return int(np.clip(10 * examples // BATCH, 300, 1000))


def restored_classifier(space: Space, weights: Mapping[str, Tensor],
                        device: str = "cpu") -> Classifier:
    """A classifier that was trained before, from its :meth:`Classifier.weights`."""
    body, head = _seeded_classifier(space, len(weights["1.bias"]), 0)
    network = nn.Sequential(body, head)
    network.load_state_dict(dict(weights))
    network.to(device).eval().requires_grad_(False)
    return Classifier(body, space, device, head=head)


def _seeded_classifier(space: Space, classes: int, seed: int) -> tuple[nn.Sequential, nn.Linear]:
    """(n, \\*shape) to (n, 64), by convolutions for images, else by two linear layers; and (n, 64)
    to (n, classes). The caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if space.kind != "image":
            body = nn.Sequential(nn.Flatten(), nn.Linear(space.dims, 2 * WIDTH), nn.SiLU(),
                                 nn.Linear(2 * WIDTH, WIDTH), nn.SiLU())
            return body, nn.Linear(WIDTH, classes)
        channels, height, width = space.shape
        layers: list[nn.Module] = []
        # full resolution is affordable, and needed, only in tiny images
        stride, outer = (1 if max(height, width) <= 8 else 2), 32
        while not layers or max(height, width) > 4:
            layers += [nn.Conv2d(channels, outer, 3, stride, 1), nn.SiLU()]
            height, width = -(-height // stride), -(-width // stride)
            channels, stride, outer = outer, 2, 64
        body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, WIDTH),
                             nn.SiLU())
        return body, nn.Linear(WIDTH, classes)


def _to_model(space: Space, x: Array) -> Tensor:
    values = space.to_model(np.asarray(x).astype(np.float32))
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _module_file(path: str | Path) -> nn.Module:
    """A TorchScript file or, by the suffix .pt2, an exported program (batch size dynamic)."""
    path = Path(path)
    if not path.is_file():
        hint = unknown("features", str(path), NAMES)
        raise ConfigError(f"{hint}, a module, or the path of a TorchScript or .pt2 file")
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"features: {path} is neither a TorchScript file nor an exported program")
    try:
        if path.suffix == ".pt2":
            module = torch.export.load(path).module()
            module.training = False  # its mode is fixed at export, and eval() refuses
            return module
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            script: nn.Module = torch.jit.load(path, map_location="cpu")
        return script.eval()
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"features: cannot read {path} as a module: {reason}") from error


def outlines(x: Tensor) -> Tensor:
    """Images (n, C, H, W) to (n, 8 · parts): the roots of histograms of oriented gradients.

    As Dalal & Triggs 2005: Sobel's slope of the channel where it is steepest; its size goes to the
    two nearest of 8 directions (light to dark as dark to light), and to the nearest of about 7 × 7
    parts of the image, in shares that fall linearly. Not normalised by blocks, which makes a
    plain surface's grain as strong as an outline; the root keeps strong edges from drowning weak
    ones (Hellinger's distance). An image one pixel high or wide has none, (n, 0).
    """
    n, channels, height, width = x.shape
    if min(height, width) < LEAST:
        return x.new_empty(n, 0)
    # slopes down and to the right, (n, H, W), of the channel where they are steepest
    across = x.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    slopes = F.conv2d(wide, torch.stack([across.T, across])[:, None])
    slopes = slopes.view(n, channels, 2, height, width)
    channel = slopes.square().sum(2).argmax(1)[:, None, None].expand(-1, -1, 2, -1, -1)
    down, right = slopes.gather(1, channel)[:, 0].unbind(1)

    size, turn = torch.hypot(down, right), torch.atan2(down, right) / math.pi % 1
    place = turn * DIRECTIONS
    first = place.floor()
    share = place - first
    first = first.long() % DIRECTIONS  # rounding may reach the end
    histogram = size.new_zeros(n, DIRECTIONS, height, width)
    for direction, part in ((first, 1 - share), ((first + 1) % DIRECTIONS, share)):
        histogram.scatter_add_(1, direction[:, None], (size * part)[:, None])

    # sums over parts with weights like a tent, (n, 8, parts down, parts across)
    side = max(LEAST, min(height, width) // PARTS)
    tent = 1 - (torch.arange(2 * side, device=x.device, dtype=x.dtype) - (side - 0.5)).abs() / side
    sums = F.conv2d(histogram.flatten(0, 1)[:, None], (tent[:, None] * tent)[None, None],
                    stride=side, padding=side // 2)
    return sums.view(n, DIRECTIONS, *sums.shape[2:]).clamp_min(0).sqrt().flatten(1)
