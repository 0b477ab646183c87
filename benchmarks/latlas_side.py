"""The same networks under latlas."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import CORES, Case, Clock
from numpy.typing import NDArray
from torch import nn

from latlas.core.files import create_run, read_run
from latlas.core.model import Model
from latlas.core.space import Images
from latlas.data.dataset import Dataset
from latlas.engine.options import TrainOptions
from latlas.engine.progress import Progress
from latlas.engine.train import train
from latlas.models import build as build_model
from latlas.models import get
from latlas.verbs.score import score


class Stopwatch(Progress):
    """Times the steps after the first ``warm`` examples."""

    def __init__(self, warm: int, device: str) -> None:
        self.warm, self.device = warm, device
        self.marks: list[tuple[int, Clock]] = []

    def advance(self, images: int, share: float) -> None:
        if share >= 1 if self.marks else images >= self.warm:
            self.marks.append((images, Clock.now(self.device)))

    def took(self) -> dict[str, float]:
        """Seconds per example."""
        (first, begun), (last, ended) = self.marks
        return ended.since(begun, last - first)


def dataset(x: NDArray[np.uint8]) -> Dataset:
    """Images (N, 28, 28) as they are."""
    return Dataset(x[:, None], Images((1, 28, 28)))


def build(case: Case, networks: tuple[nn.Module, nn.Module]) -> Model:
    """``vae`` (``beta-vae`` where β ≠ 1) around these networks, cross-entropy on gray values."""
    name = "vae" if case.beta == 1 else "beta-vae"
    more = {} if case.beta == 1 else {"beta": case.beta}
    config = get(name).config(latent_dim=case.latent_dim, likelihood="bernoulli", **more)
    encoder, decoder = networks
    return build_model(name, config, Images((1, 28, 28)), encoder=encoder, decoder=decoder)


def options(case: Case, images: int, threads: int, precision: str, device: str) -> TrainOptions:
    """pythae's optimiser: Adam at a constant 1e-3. With all cores allowed latlas picks how many.

    The average of the weights stays on: it costs latlas time, not pythae.
    """
    return TrainOptions(images=images, batch_size=case.batch_size, learning_rate=1e-3,
                        schedule="constant", warmup=0.0, precision=precision, device=device,
                        threads=0 if threads == CORES else threads, checkpoint_seconds=1e9)


def train_speed(case: Case, x: NDArray[np.uint8], images: int, warm: int, task: dict[str, Any],
                precision: str) -> dict[str, Any]:
    """Seconds per image of ``train`` after its choices by timing and ``warm`` examples."""
    watch = Stopwatch(warm, task["device"])
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "run", {})
        train(build(case, case.networks()), dataset(x), None,
              options(case, warm + images, task["threads"], precision, task["device"]), run, watch)
        chosen = read_run(run)["chosen"]
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return {**watch.took(), "loss": last["loss"], "chosen": chosen}


def trained(case: Case, x: NDArray[np.uint8], images: int) -> Model:
    """A model trained for so many images, ready to be scored."""
    model = build(case, case.networks())
    with tempfile.TemporaryDirectory() as folder:
        train(model, dataset(x), None, options(case, images, 1, "fp32", "cpu"),
              create_run(Path(folder) / "run", {}))
    return model.eval()


def likelihood(case: Case, networks: tuple[nn.Module, nn.Module], x: NDArray[np.uint8],
               draws: int, device: str) -> dict[str, Any]:
    """Mean nats per example of the importance-weighted bound, and seconds per example."""
    model = build(case, networks).to(device).eval()
    examples = dataset(x)
    score(model, examples.subset(slice(0, 2)), draws=draws)
    begun = Clock.now(device)
    scores = score(model, examples, draws=draws, seed=1)
    took = Clock.now(device).since(begun, len(examples))
    return {**took, "nats": scores.mean, "ess": float(np.median(scores.ess))}
