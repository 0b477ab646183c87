"""Does a generator drop modes? ``ring``, ``grid`` and stacked digits, by their usual metrics.

``ring`` has 8 Gaussians, ``grid`` 25 (Srivastava et al. 2017; Lin et al. 2018), stacked digits
100: two digits drawn independently, one in each channel. Metrics of 2,500 samples: modes with a
sample within three standard deviations; the share of samples within that distance of a mode (98.9%
of real ones are); KL of the frequencies of the modes from uniform. A classifier of single digits
gives the mode of a stacked digit.

    python benchmarks/gan_modes.py ring grid --seeds 3
    python benchmarks/gan_modes.py stacked --digits mnist.npz --minutes 30 \\
        --objectives relativistic non-saturating
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import table
from numpy.typing import NDArray

import latlas
from latlas.core.space import Images
from latlas.data import open_source
from latlas.data.dataset import Dataset, Source, make
from latlas.metrics.features import train_classifier

Array = NDArray[Any]
SAMPLES, EXAMPLES = 2500, 100_000
_ANGLE, _TICKS = np.arange(8) * np.pi / 4, np.arange(-4.0, 5.0, 2.0)
#: centres of the modes, and their standard deviation
MODES = {"ring": (np.c_[np.cos(_ANGLE), np.sin(_ANGLE)], 0.01),
         "grid": (np.stack(np.meshgrid(_TICKS, _TICKS), -1).reshape(-1, 2), 0.05)}


def main() -> None:
    """Train every objective with every seed on every data set, and tabulate."""
    options, rows = arguments(), []
    for data in options.data:
        source, evaluate = opened(data, options)
        for objective in options.objectives:
            for seed in range(options.seeds):
                results = evaluate(samples(source, objective, seed, options))
                rows.append([data, objective, str(seed), *results])
                print(*rows[-1], flush=True)
    print(table(["data", "objective", "seed", "modes", "high quality", "KL"], rows))


def samples(source: Source, objective: str, seed: int, options: argparse.Namespace) -> Array:
    """Of a model trained with the defaults but for the objective."""
    budget = {"minutes": options.minutes} if options.minutes else {}
    # the classic recipes unchanged: without the penalties of the default
    plain = {} if objective in ("relativistic", "wasserstein") else {"penalty": "none"}
    args = dict(text.split("=", 1) for text in options.set)
    model = latlas.train("gan", source, objective=objective, seed=seed, progress=False,
                         **(budget | plain | args)).model
    return latlas.sample(model, SAMPLES, seed=seed + 1)


def opened(data: str, options: argparse.Namespace) -> tuple[Source, Callable[[Array], list[str]]]:
    """Training data, and the function that evaluates samples."""
    if data == "stacked":
        return stacked(options.digits)
    source = open_source(data)
    return source, lambda output: of_points(output, *MODES[data])


def of_points(samples: Array, centres: Array, sd: float) -> list[str]:
    """Modes, share of high quality, KL over the nearest modes."""
    distance = np.linalg.norm(samples[:, None] - centres, axis=2)
    near, good = distance.argmin(1), distance.min(1) < 3 * sd
    modes = len(np.unique(near[good]))
    return [f"{modes}/{len(centres)}", f"{good.mean():.3f}", f"{kl(near, len(centres)):.4f}"]


def kl(modes: Array, count: int) -> float:
    """Σ p log(p / uniform) over the modes of samples, nats."""
    p = np.bincount(modes, minlength=count) / len(modes)
    return float((p * np.log(np.maximum(p, 1e-300) * count)).sum())


def stacked(path: Path) -> tuple[Source, Callable[[Array], list[str]]]:
    """Pairs of training digits, and a classifier of single ones."""
    with np.load(path) as file:
        digits, label = file["x_train"], file["y_train"].astype(np.int64)
        unseen, truth = file["x_test"], file["y_test"].astype(np.int64)
    pairs = np.random.default_rng(0).integers(len(digits), size=(EXAMPLES, 2))
    space = Images((2, *digits.shape[1:]), 256)
    source = make("stacked", Dataset(digits[pairs], space))
    read = train_classifier(Images((1, *digits.shape[1:]), 256), digits[:, None], label)
    print(f"the classifier reads {read.accuracy(unseen[:, None], truth):.4f} of the test digits")

    def evaluate(samples: Array) -> list[str]:
        tens, ones = (read.predict(samples[:, k, None]) for k in (0, 1))
        modes = 10 * tens + ones
        return [f"{len(np.unique(modes))}/100", "–", f"{kl(modes, 100):.4f}"]
    return source, evaluate


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="+", choices=("ring", "grid", "stacked"))
    parser.add_argument("--objectives", nargs="+", default=["relativistic"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="of a run; default: the model's own budget")
    parser.add_argument("--digits", type=Path, help="for stacked: an npz of digits (MNIST)")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value")
    return parser.parse_args()


if __name__ == "__main__":
    main()
