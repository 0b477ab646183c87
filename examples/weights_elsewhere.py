"""Weights of a run's examples, used by models outside latlas: in PyTorch and in scikit-learn.

    python examples/weights_elsewhere.py
    python examples/weights_elsewhere.py --images 2e5

Of handwritten digits one in twenty is a negative, and nothing says which. A VAE of all of them
finds them rare by their latents; a linear network draws its batches by the weights, a logistic
regression takes them as they are. The test set has as many negatives as positives.
"""

from __future__ import annotations

import argparse

import numpy as np
import polars
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import latlas

Array = NDArray[np.float64]


def main() -> None:
    """Accuracy on negatives without the weights and with them."""
    args = arguments()
    x, y, negative = digits("train", 0.05)
    model = latlas.train("vae", (x, y), split="all", images=int(args.images), width=64,
                         depth=1, out=args.run, progress=False).model
    latlas.weights(model, (x, y), out=args.out)

    weight = polars.read_parquet(args.out)["weight"].to_numpy()
    lift = weight[negative].mean() / weight.mean()
    print(f"{args.out}: {len(weight)} examples; negatives weigh {lift:.2f} times the mean")
    for name, fit in (("WeightedRandomSampler", network), ("sample_weight", regression)):
        plain, weighed = (fit(x, y, w) for w in (np.ones(len(y)), weight))
        print(f"{name:22} accuracy on negatives {plain:.3f} without weights, {weighed:.3f} with")


def digits(split: str, share: float) -> tuple[Array, NDArray[np.int64], NDArray[np.bool_]]:
    """Images (n, 1, 8, 8) of 0 … 16, a share of them negatives; classes; which are negatives."""
    examples = latlas.open_data("digits", split)
    x, y = np.asarray(examples.take("x")), np.asarray(examples.take("label"))
    negative = np.random.default_rng(0).random(len(x)) < share
    return np.where(negative[:, None, None, None], 16 - x, x), y, negative


def network(x: Array, y: NDArray[np.int64], weight: Array) -> float:
    """A layer of 64 units whose batches are drawn by the weights."""
    torch.manual_seed(0)
    examples = TensorDataset(torch.from_numpy(flat(x)).float(), torch.from_numpy(y))
    sampler = WeightedRandomSampler(weight.tolist(), 20 * len(y))
    output = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimiser = torch.optim.Adam(output.parameters(), 3e-3)
    for batch, label in DataLoader(examples, 64, sampler=sampler):
        loss = torch.nn.functional.cross_entropy(output(batch), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    outliers, truth, _ = digits("test", 1.0)
    with torch.no_grad():
        named = output(torch.from_numpy(flat(outliers)).float()).argmax(1).numpy()
    return float((named == truth).mean())


def regression(x: Array, y: NDArray[np.int64], weight: Array) -> float:
    """A logistic regression in which each example counts as its weight says."""
    fitted = LogisticRegression(max_iter=2000).fit(flat(x), y, sample_weight=weight)
    outliers, truth, _ = digits("test", 1.0)
    return float(fitted.score(flat(outliers), truth))


def flat(x: Array) -> Array:
    """(n, 1, 8, 8) to (n, 64) in 0 … 1."""
    return np.asarray(x.reshape(len(x), -1) / 16)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=float, default=50_000, help="examples the VAE sees")
    parser.add_argument("--run", default="runs/weights", help="run folder of the VAE")
    parser.add_argument("--out", default="weights.parquet", help="file of the weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
