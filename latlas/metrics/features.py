"""Features that the sample-quality metrics are computed on. Nothing is ever downloaded.

=============  ===================================================================================
``pixels``     all scalars of an example in model units, flattened
``columns``    all scalars, each standardised on the training data
``random-conv``  a convolutional network with seeded random weights (images of any size)
``spectrum``   how strong each spatial frequency is in images: sharpness, grain, colour
``classifier`` last hidden layer of a small network trained here on the data's own labels
a module, a file  any ``nn.Module``, TorchScript file or exported program (.pt2) of the user
``auto``       ``classifier`` if there are labels, else ``random-conv`` for images, else
               ``columns``
=============  ===================================================================================
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
WIDTH = 64  # columns of the two built-in networks: few, so that few suffice for a covariance


def features(source: str | Path | nn.Module, space: Space, data: Array | None = None,
             labels: Array | None = None, *, seed: int = 0, device: str = "cpu") -> Extractor:
    """A function from examples (n, \\*shape) in data units to features (n, d) float32.

    Args:
        source: a name of the table above, a file, or a module. Modules and files are given model
            units, (n, \\*shape) float32 (images in [−1, 1]); what they return is flattened.
        data: (N, \\*shape) training examples in data units; needed by ``columns``, ``classifier``.
        labels: (N,) class codes; negative ones mark examples without a label.
        seed: decides random weights and the training of the classifier.
    Raises:
        ConfigError: an unknown name, an unreadable file, or something missing that a name needs.
    """
    if isinstance(source, nn.Module):
        return Network(source.to(device), space, device)
    source = resolved(source, space, labels)
    if source in NAMES:
        return _named(str(source), space, data, labels, seed, device)
    return Network(_module_file(source), space, device)


def resolved(source: str | Path, space: Space, labels: Array | None) -> str | Path:
    """What ``auto`` stands for with such data; any other source as it is."""
    if source != "auto":
        return source
    if labels is not None and len(np.unique(labels[labels >= 0])) > 1:
        return "classifier"
    return "random-conv" if space.kind == "image" else "columns"


def _named(name: str, space: Space, data: Array | None, labels: Array | None, seed: int,
           device: str) -> Extractor:
    if name == "pixels":
        return Pixels(space)
    if name == "random-conv":
        return Network(random_convolutions(space, seed).to(device), space, device)
    if name == "spectrum":
        return Network(Spectrum(space).to(device), space, device)
    if data is None or not len(data):
        raise ConfigError(f"features {name!r} need training data")
    if name == "columns":
        return Columns.fit(data)
    return train_classifier(space, data, labels, seed=seed, device=device)


@dataclass(frozen=True)
class Pixels:
    """Model units, flattened."""

    space: Space

    def __call__(self, x: Array) -> Array:
        x = np.asarray(x).astype(np.float32)
        return np.asarray(self.space.to_model(x), np.float32).reshape(len(x), -1)


@dataclass(frozen=True)
class Columns:
    """(v − mean) / sd of every scalar; a constant one is only centred."""

    mean: Array
    sd: Array

    @classmethod
    def fit(cls, data: Array) -> Columns:
        flat = np.asarray(data).reshape(len(data), -1)
        sd = flat.std(0, dtype=np.float64)
        return cls(flat.mean(0, dtype=np.float64), np.where(sd > 0, sd, 1.0))

    def __call__(self, x: Array) -> Array:
        flat = np.asarray(x).reshape(len(x), -1)
        return ((flat - self.mean) / self.sd).astype(np.float32)


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
    body: nn.Module = _seeded(lambda: _body(space)[:-1], seed)
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
                     device: str = "cpu", steps: int | None = None,
                     batch_size: int = 128) -> Classifier:
    """Train the small network on the labelled examples by Adam.

    ``steps`` None means ten epochs, 300 … 1,000 steps.

    Label smoothing keeps the features of the training examples from running away from those of
    unseen ones. Judge samples by it only beside a held-out control that it has not seen.
    """
    x, y = _labelled(data, labels)
    body, head = _seeded_classifier(space, max(len(space.classes), int(y.max()) + 1), seed)
    network = nn.Sequential(body, head).to(device)
    steps = classifier_steps(len(x), batch_size) if steps is None else steps
    rows = np.random.default_rng(seed).integers(len(x), size=(steps, batch_size))
    batches = ((_to_model(space, x[r]).to(device), torch.from_numpy(y[r]).to(device)) for r in rows)
    with _threads_for(space):
        _descend(network, batches, steps)
    network.eval().requires_grad_(False)
    return Classifier(body, space, device, head=head)


def classifier_steps(items: int, batch_size: int = 128) -> int:
    """Steps of :func:`train_classifier`: ten epochs, 300 … 1,000."""
    return int(np.clip(10 * items // batch_size, 300, 1000))


def restored_classifier(space: Space, weights: Mapping[str, Tensor],
                        device: str = "cpu") -> Classifier:
    """A classifier that was trained before, from its :meth:`Classifier.weights`."""
    body, head = _seeded_classifier(space, len(weights["1.bias"]), 0)
    network = nn.Sequential(body, head)
    network.load_state_dict(dict(weights))
    network.to(device).eval().requires_grad_(False)
    return Classifier(body, space, device, head=head)


def _seeded_classifier(space: Space, classes: int, seed: int) -> tuple[nn.Module, nn.Linear]:
    pair: tuple[nn.Module, nn.Linear] = _seeded(
        lambda: (_body(space), nn.Linear(WIDTH, classes)), seed)
    return pair


def _descend(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], steps: int) -> None:
    """Adam with a cosine schedule from 2e-3 to 0."""
    optimiser = torch.optim.Adam(network.parameters())
    for step, (x, target) in enumerate(batches):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / steps))
        loss = F.cross_entropy(network(x), target, label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


@contextmanager
def _threads_for(space: Space) -> Iterator[None]:
    """One thread for examples so small that several would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if space.dims <= 256 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _labelled(data: Array, labels: Array | None) -> tuple[Array, Array]:
    if labels is None:
        raise ConfigError("features 'classifier' need labels: name them, or use 'random-conv'")
    if len(labels) != len(data):
        raise DataError(f"{len(labels)} labels for {len(data)} examples")
    labelled = np.flatnonzero(np.asarray(labels) >= 0)
    y = np.asarray(labels)[labelled].astype(np.int64)
    if len(np.unique(y)) < 2:
        raise ConfigError("features 'classifier' need labels of at least two classes: "
                          "use 'random-conv' or 'pixels'")
    return (data if len(labelled) == len(data) else data[labelled]), y


def _body(space: Space) -> nn.Sequential:
    """(n, \\*shape) to (n, 64), by convolutions for images, else by two linear layers."""
    if space.kind != "image":
        return nn.Sequential(nn.Flatten(), nn.Linear(space.dims, 2 * WIDTH), nn.SiLU(),
                             nn.Linear(2 * WIDTH, WIDTH), nn.SiLU())
    channels, height, width = space.shape
    layers: list[nn.Module] = []
    # full resolution is affordable, and needed, only in tiny images
    stride, outer = (1 if max(height, width) <= 8 else 2), 32
    while not layers or max(height, width) > 4:
        layers += [nn.Conv2d(channels, outer, 3, stride, 1), nn.SiLU()]
        height, width = -(-height // stride), -(-width // stride)
        channels, stride, outer = outer, 2, 64
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, WIDTH),
                         nn.SiLU())


def _to_model(space: Space, x: Array) -> Tensor:
    values = space.to_model(np.asarray(x).astype(np.float32))
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _seeded(build: Callable[[], Any], seed: int) -> Any:
    """Build with seeded initial weights; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


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
            script: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        return script.eval()
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"features: cannot read {path} as a module: {reason}") from error
