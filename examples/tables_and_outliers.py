"""A table with a few outliers, ranked: by the likelihood of PCA and a VAE, by the outlier detector.

    python examples/tables_and_outliers.py
    python examples/tables_and_outliers.py 6_cardio.npz     # X (n, d), y: 1 for outliers
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from latlas.sklearn import PCA, VAE, OutlierDetector

Array = NDArray[np.float64]


def main() -> None:
    """The rows that a model of most rows finds least likely are the outliers.

    The detector leaves the rows that fit worst out of training, and is an ensemble.
    """
    args = arguments()
    rows, outliers = read(args.file) if args.file else made_up()
    vae = VAE(n_components=2, images=int(args.images), draws=20)
    for model in (PCA(n_components=2), vae, OutlierDetector()):
        surprise = -model.set_params(random_state=0).fit(rows).score_samples(rows)
        print(f"{type(model).__name__:15} ROC AUC {roc_auc_score(outliers, surprise):.3f}, "
              f"average precision {average_precision_score(outliers, surprise):.3f}; "
              f"most surprising rows: {np.argsort(-surprise)[:5].tolist()}")


def made_up(n: int = 1000, share: float = 0.03) -> tuple[Array, Array]:
    """Rows near a curve in five columns; the columns of the outliers are out of step."""
    rng = np.random.default_rng(0)
    t = rng.uniform(-2, 2, n)
    rows = np.stack([t, t**2, np.sin(2 * t), np.cos(2 * t), t**3], 1)
    outliers = rng.random(n) < share
    rows[outliers] = np.stack([rng.permutation(column) for column in rows[outliers].T], 1)
    return rows + rng.normal(scale=0.05, size=rows.shape), outliers


def read(file: Path) -> tuple[Array, Array]:
    """Rows, and which of them are outliers."""
    with np.load(file) as data:
        return data["X"], data["y"]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="an .npz with X and y; default: made up")
    parser.add_argument("--images", type=float, default=100_000, help="rows to train on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
