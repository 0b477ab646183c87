"""Tiny data, tiny networks, and one way to train them, for the tests of models and engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latlas import models
from latlas.core.files import create_run
from latlas.core.model import Model
from latlas.core.options import fields_of, parse, to_json
from latlas.core.space import Images, Table
from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.engine import train as engine
from latlas.engine.options import TrainOptions
from latlas.engine.progress import Progress
from latlas.engine.train import Outcome


def images(shape: tuple[int, int, int] = (1, 8, 8), n: int = 90, levels: int = 17) -> Dataset:
    """Blobs whose place depends on the class, three classes, integers 0 … levels−1."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3
    row, column = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    centre = rng.uniform(1, 3, (n, 2)) + label[:, None]
    distance = (row - centre[:, 0, None, None]) ** 2 + (column - centre[:, 1, None, None]) ** 2
    ink = np.exp(-distance / 6)[:, None] * rng.uniform(0.5, 1.0, (n, shape[0], 1, 1))
    x = np.rint(ink * (levels - 1)).astype(np.uint8)
    return Dataset(x, Images(shape, levels, classes=("a", "b", "c")), label)


def pairs(shape: tuple[int, int, int] = (1, 8, 8), n: int = 90) -> PairDataset:
    """Blobs, and beside each the same in two colours, darker."""
    one = images(shape, n)
    x = np.concatenate([one.x[:, :1] // 2, 16 - one.x[:, :1]], 1)
    return PairDataset(Dataset(one.x, Images(shape, 17)),
                       Dataset(x, Images((2, *shape[1:]), 17)))


def domains() -> PairDataset:
    """The two sides of pairs, one of them in another order and fewer."""
    both = pairs()
    few = Dataset(both.b.x[::-2].copy(), both.b.space)
    return PairDataset(both.a, few, aligned=False)


def clips() -> PairDataset:
    """Two domains of drifting blobs: 18 clips of five frames and 12 of four, the latter in two
    colours."""
    sides = []
    for n, length in ((18, 5), (12, 4)):
        base = np.pad(images(n=n).x, [(0, 0), (0, 0), (0, 8), (0, 8)])
        x = np.concatenate([np.roll(base, i, (2, 3))[:, None, :, :12, :12] for i in range(length)],
                           1).reshape(-1, 1, 12, 12)
        x = x if length == 5 else np.concatenate([x // 2, 16 - x], 1)
        clip = np.arange(n).repeat(length)
        sides.append(Dataset(x, Images(x.shape[1:], 17, frames=True), group=clip, clip=clip,
                             duration=np.full(len(x), 40, np.float32)))
    return PairDataset(*sides, aligned=False)


def data_for(name: str) -> Any:
    """What a model can learn from: images, pairs of them, or two domains."""
    return {"pix2pix": pairs, "cycle-gan": domains}.get(name, images)()


def table(n: int = 90, columns: int = 5) -> Dataset:
    """Correlated columns of very different units."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 2)) @ rng.standard_normal((2, columns))
    x = (x + 0.3 * rng.standard_normal((n, columns))) * 10.0 ** np.arange(columns)
    space = Table.of_numbers("abcdefgh"[:columns], tuple(x.mean(0)), tuple(x.std(0)))
    return Dataset(x.astype(np.float32), space)


def points(n: int = 256) -> Dataset:
    """The eight Gaussians of ``ring``."""
    from latlas.data.standard import open_ring
    return open_ring(n=n).base


def small(name: str, **settings: Any) -> Any:
    """The config of a model with networks of width 16 and depth 1, where it has networks."""
    config = models.get(name).config
    names = {field.name for field in fields_of(config)}
    sizes = {k: v for k, v in (("width", 16), ("depth", 1), ("latent_dim", 3)) if k in names}
    return parse(config, sizes | settings)


def build(name: str, data: Any, config: Any, modules: dict[str, Any] | None = None,
          seed: int = 0) -> Model:
    """A model whose first weights depend on the seed alone."""
    torch.default_generator.manual_seed(seed)
    return models.build(name, config, data.space, **(modules or {}))


def options(**more: Any) -> TrainOptions:
    """Nothing left to timing: fp32, one thread, 20 steps of 16 examples."""
    fixed = {"images": 320, "batch_size": 16, "precision": "fp32", "threads": 1, "device": "cpu",
             "layout": "channels_last"}
    return TrainOptions(**(fixed | more))


def train(path: Path, name: str, data: Any, config: Any, *,
          training: TrainOptions | None = None, validation: Dataset | None = None,
          modules: Callable[[], dict[str, Any]] = dict,
          progress: Any = None) -> tuple[Model, Outcome]:
    """Train in a run folder as the API does: the same call again goes on.

    Raises:
        KeyboardInterrupt: a signal stopped it that ``progress`` did not send, as of a time limit on
            a busy machine. Training obeys and returns what it has, which nothing is to be compared
            with.
    """
    training, networks = training or options(), modules_of(modules)
    model = build(name, data, config, networks, training.seed)
    request = {"model": name, "config": to_json(model.config), "space": data.space.to_json(),
               "data": None, "training": to_json(training), "custom": sorted(networks)}
    create_run(path, request)
    outcome = engine.train(model, data, validation, training, path, progress)
    if progress is None and outcome.stopped == "interrupt":
        raise KeyboardInterrupt("a signal from outside stopped the training of a test")
    return model.eval(), outcome


def modules_of(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Networks of the user's own, the same first weights at every call."""
    torch.default_generator.manual_seed(7)
    return make()


def weights(model: Model) -> torch.Tensor:
    """Every number of the state as one float64 vector."""
    return torch.cat([v.double().flatten() for v in model.state_dict().values()])


class At(Progress):
    """Calls ``act`` once, as soon as so many examples were seen."""

    def __init__(self, images: int, act: Callable[[], Any]) -> None:
        self.images, self.act, self.done = images, act, False

    def advance(self, images: int, share: float = 0.0) -> None:
        if images >= self.images and not self.done:
            self.done = True
            self.act()


def before_steps(optimiser, look):
    """Call ``look`` before every step of an optimiser."""
    step = optimiser.step

    def looked_at(*args):
        look()
        step(*args)

    optimiser.step = looked_at
