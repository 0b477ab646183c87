"""An unlabelled minority: does weighting the data by the model's own latents help it?

    python benchmarks/fairness.py
    python benchmarks/fairness.py --data fashion_mnist.npz --skews rotated,inverted,subclass

A share of the training examples is changed (rotated, inverted, …), or of each class a hidden half
is thinned out; the test set has as many examples of either kind. All rows train the same classifier
with the same budget and optimiser. The oracle alone knows the groups, and nothing is tuned by them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from sklearn.cluster import KMeans

from latlas.core.model import Batch, Weights
from latlas.core.options import parse
from latlas.core.space import Space
from latlas.data import open_source, split
from latlas.data.batches import Batches
from latlas.data.dataset import Dataset
from latlas.engine.callbacks import Reweighting
from latlas.engine.options import TrainOptions
from latlas.engine.progress import Log, Progress
from latlas.engine.trainer import Trainer
from latlas.metrics.rarity import effective_share, guarded, standardised
from latlas.models import MODELS
from latlas.models.debiasing_vae import DebiasingVAE
from latlas.verbs.encode import classify

Array = NDArray[Any]
BATCH = 64
#: clusters of a class, and the rate η at which the shares of groups follow their losses
CLUSTERS, DRO_RATE = 5, 1.0


class Oracle(DebiasingVAE):
    """Knows the groups: each counts the same from the first steps on."""

    minority: Array
    reweighting_interval = 0.002

    def sampling_weights(self, batches: Iterable[Batch]) -> Weights:
        share = self.minority.mean()
        return Weights(torch.from_numpy(np.where(self.minority, 0.5 / share, 0.5 / (1 - share))))


class GroupDRO(DebiasingVAE):
    """Clusters of the latents within each class stand in for groups, and the worst counts more.

    q_g ← q_g exp(η · mean loss of g), normalised, at every interval (Sagawa et al. 2020, algorithm
    1, with sampling in place of weighted steps); clusters by k-means, once, before the first
    (Sohoni et al. 2020). The guard of the effective sample is the library's.
    """

    shares: Array | None = None
    group: Array

    @torch.no_grad()
    def sampling_weights(self, batches: Iterable[Batch]) -> Weights:
        latents, losses, labels = self.latents_and_losses(batches)
        if self.shares is None:  # of the averaged model, which is one object all along
            self.group = clusters(latents, labels)
            self.shares = np.bincount(self.group) / len(self.group)
        count = np.bincount(self.group)
        mean = np.bincount(self.group, losses) / count
        self.shares = self.shares * np.exp(DRO_RATE * mean)
        self.shares /= self.shares.sum()
        guard = guarded((self.shares / count)[self.group], "loss")
        return Weights(torch.from_numpy(guard.weights), guard.metrics, guard.words)


def clusters(latents: Array, labels: Array) -> Array:
    """(n,) number of each example's cluster within its class."""
    numbers = np.empty(len(latents), np.int64)
    for k, label in enumerate(np.unique(labels)):
        mine = labels == label
        kmeans = KMeans(min(CLUSTERS, mine.sum()), n_init=4, random_state=0)
        numbers[mine] = CLUSTERS * k + kmeans.fit_predict(standardised(latents[mine]))
    return np.unique(numbers, return_inverse=True)[1]


#: name: class and settings of a row
ROWS: dict[str, tuple[type[DebiasingVAE], dict[str, Any]]] = {
    "plain": (DebiasingVAE, {"reweighting": "none", "vae_weight": 0}),
    "plain + VAE": (DebiasingVAE, {"reweighting": "none"}),
    "product pooled": (DebiasingVAE, {"reweighting": "product", "within": "all"}),
    "maximum pooled": (DebiasingVAE, {"reweighting": "maximum", "within": "all"}),
    "product": (DebiasingVAE, {"reweighting": "product"}),
    "loss alone": (DebiasingVAE, {"reweighting": "loss", "neighbours": 1}),
    "loss": (DebiasingVAE, {"reweighting": "loss"}),
    "group DRO": (GroupDRO, {}),
    "oracle": (Oracle, {}),
}


def shifted(x: Array) -> Array:
    """Down and to the right by a quarter of the side."""
    by, y = x.shape[-1] // 4, np.zeros_like(x)
    y[..., by:, by:] = x[..., :-by, :-by]
    return y


def red(x: Array) -> Array:
    """The first channel alone: what was white is red."""
    y = np.zeros_like(x)
    y[:, 0] = x[:, 0]
    return y


def in_colour(x: Array, space: Space) -> tuple[Array, Space]:
    """Grey images with three equal channels."""
    if x.shape[1] == 3:
        return x, space
    return np.repeat(x, 3, 1), space.replace(shape=(3, *space.shape[1:]))


CHANGES: dict[str, tuple[Callable[[Array], Array], float]] = {
    "rotated": (lambda x: np.rot90(x, 1, (2, 3)).copy(), 0.05),
    "inverted": (lambda x: x.max() - x, 0.05),
    "shifted": (shifted, 0.03),
    "coloured": (red, 0.05),
    "thick": (lambda x: ndimage.grey_dilation(x, (1, 1, 2, 2)), 0.03),
}
SKEWS = (*CHANGES, "subclass")


@dataclass(frozen=True)
class Task:
    """Training examples with a hidden minority, and a test set of as many of either kind."""

    train: Dataset
    minority: Array
    test: Dataset
    changed: Array


def planted(x: Array, y: Array, space: Space, skew: str, seed: int, share: float | None) -> Task:
    """A third of the examples is for testing."""
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = order[:len(x) // 3], order[len(x) // 3:]
    x, space = in_colour(x, space) if skew == "coloured" else (x, space)
    make = _subclass if skew == "subclass" else _changed
    return make(x, y, space, skew, seed, share, train, test)


def _changed(x: Array, y: Array, space: Space, skew: str, seed: int, share: float | None,
             train: Array, test: Array) -> Task:
    change, usual = CHANGES[skew]
    minority = np.zeros(len(train), bool)
    n = round((share or usual) * len(train))
    minority[np.random.default_rng(seed + 1).choice(len(train), n, replace=False)] = True
    examples = x[train].copy()
    examples[minority] = change(examples[minority])
    both = np.concatenate([x[test], change(x[test])])
    return Task(Dataset(examples, space, y[train]), minority,
                Dataset(both, space, np.tile(y[test], 2)), np.arange(len(both)) >= len(test))


def _subclass(x: Array, y: Array, space: Space, skew: str, seed: int, share: float | None,
              train: Array, test: Array) -> Task:
    """Classes k and k + K/2 are one, and the latter is kept at a share of the examples."""
    half = len(space.classes) // 2
    hidden = y >= half
    keep = round((share or 0.03) * (~hidden[train]).sum())
    train = np.concatenate([train[~hidden[train]], train[hidden[train]][:keep]])
    small = min(hidden[test].sum(), (~hidden[test]).sum())
    test = np.concatenate([test[~hidden[test]][:small], test[hidden[test]][:small]])
    space = space.replace(classes=space.classes[:half])
    return Task(Dataset(x[train], space, y[train] % half), hidden[train],
                Dataset(x[test], space, y[test] % half), hidden[test])


def run(row: str, task: Task, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train one row: its accuracies, the minority's lift and the effective share at the end."""
    model_class, settings = ROWS[row]
    torch.manual_seed(seed)
    sizes = {"width": args.width, "depth": 1, "network": "mlp"}
    config = parse(MODELS["debiasing-vae"].config, {**sizes, **settings})
    model = model_class(config, task.train.space)
    if isinstance(model, Oracle):
        model.minority = task.minority
    images = round(args.epochs * len(task.train))
    training = TrainOptions(images=images, batch_size=BATCH, seed=seed, threads=1, device="cpu",
                            **MODELS["debiasing-vae"].training)
    trainer = Trainer(model, training, budget=images, precision="fp32", n_train=len(task.train))
    values = _advance(trainer, Batches(task.train, BATCH, seed), -(-images // BATCH))
    right = classify(trainer.averaged(), task.test).code == task.test.label
    groups = right[~task.changed].mean(), right[task.changed].mean()
    return {"worst": min(groups), "mean": float(np.mean(groups)),
            "lift": values[task.minority].mean() / values.mean(), "ess": effective_share(values)}


def _advance(trainer: Trainer, batches: Batches, steps: int) -> Array:
    """All steps; the last weights of the examples."""
    reweighting = Reweighting(batches)
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder), Progress())
        for index in range(steps):
            trainer.step(batches.at(index))
            if trainer.model.reweighting_interval > 0:
                reweighting.after_step(trainer, log)
    n = len(batches.data)
    return np.ones(n) if reweighting.weights is None else reweighting.weights.numpy()


@dataclass(frozen=True)
class Line:
    """One row over all seeds; gains over plain training with 95% intervals paired by seed."""

    skew: str
    row: str
    worst: float
    gain: float
    half_width: float
    closed: float
    mean: float
    mean_gain: float
    mean_half_width: float
    lift: float
    ess: float

    @property
    def text(self) -> str:
        """Of the table; ``debiased`` where the interval excludes zero."""
        word = "debiased" if self.gain > self.half_width else ""
        return (f"{self.skew:9} {self.row:14} {self.worst:.3f}  {self.gain:+.3f} ± "
                f"{self.half_width:.3f}  {self.closed:6.0%}  {self.mean:.3f}  "
                f"{self.mean_gain:+.3f} ± {self.mean_half_width:.3f}  {self.lift:5.2f}  "
                f"{self.ess:.2f}  {word}")


def lines(skew: str, results: dict[str, list[dict[str, float]]]) -> list[Line]:
    """A line for each row of one skew."""
    table = {row: {k: np.array([seed[k] for seed in seeds]) for k in seeds[0]}
             for row, seeds in results.items()}
    plain, oracle = table["plain"], table.get("oracle")
    gap = np.nan if oracle is None else (oracle["worst"] - plain["worst"]).mean()
    gap = gap if gap > 0 else np.nan  # what the oracle does not gain cannot be closed
    return [Line(skew, row, v["worst"].mean(), *interval(v["worst"] - plain["worst"]),
                 (v["worst"] - plain["worst"]).mean() / gap, v["mean"].mean(),
                 *interval(v["mean"] - plain["mean"]), v["lift"].mean(), v["ess"].mean())
            for row, v in table.items()]


def interval(values: Array) -> tuple[float, float]:
    """Mean and half-width of its 95% interval by Student's t."""
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return float(values.mean()), float(half)


def main() -> None:
    """The table, one skew after the other."""
    torch.set_num_threads(1)
    args = arguments()
    examples = split(open_source(args.data), "all")
    keep = np.random.default_rng(0).permutation(len(examples))[:args.examples]
    x, y = np.asarray(examples.take("x"))[keep], np.asarray(examples.take("label"))[keep]
    print("skew      row           worst  gain             closed  mean   gain             lift   "
          "ESS")
    table = []
    for skew in args.skews.split(","):
        results: dict[str, list[dict[str, float]]] = {row: [] for row in args.rows.split(",")}
        for seed in range(args.seeds):
            task = planted(x, y, examples.space, skew, seed, args.share)
            for row, seeds in results.items():
                seeds.append(run(row, task, seed, args))
        table += lines(skew, results)
        print("\n".join(line.text for line in table[-len(results):]), flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(line) for line in table], indent=1))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="a labelled source of images")
    parser.add_argument("--skews", default="rotated,inverted,shifted", help=", ".join(SKEWS))
    parser.add_argument("--rows", default=",".join(ROWS), help="commas between; with plain")
    parser.add_argument("--share", type=float, help="of the minority; default: 3%% to 5%% by skew")
    parser.add_argument("--examples", type=int, default=6000, help="at most so many")
    parser.add_argument("--epochs", type=float, default=40, help="passes over the training data")
    parser.add_argument("--width", type=int, default=128, help="units of a hidden layer")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
