"""Images of one data set as outliers among another's: MNIST and Fashion-MNIST, both directions.

A VAE is trained on one; the test examples of both are ranked by the score of ``latlas outliers``
for images and by the raw likelihood. The controls need no model: PPCA, an isolation forest, the
number of non-zero pixels and the size of the compressed image. The last two are used as they are,
reversed, and as the distance from the training mean.

    python benchmarks/outlier_pictures.py --data mnist.npz fashion_mnist.npz
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from common import table
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

import latlas
from latlas.data import open_source, split
from latlas.metrics.outliers import ppca_surprise

Array = NDArray[Any]
#: training images that the simple controls are fitted to
FITTED = 10_000


def main() -> None:
    """Both directions, every seed."""
    options = arguments()
    results = []
    for normal, outliers in (options.data, options.data[::-1]):
        for seed in range(options.seeds):
            results.append({"normal": normal.stem, "outliers": outliers.stem, "seed": seed,
                          **measure(normal, outliers, seed, options)})
            print(_shown(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure(normal: Path, outliers: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Area under the curve, average precision and flagged share, by name of the score."""
    source, strange = open_source(str(normal)), open_source(str(outliers))
    begun = time.process_time()
    model = latlas.train("vae", source, images=options.images, seed=seed, threads=1, width=256,
                         depth=1, batch_size=256, progress=False).model
    seconds = time.process_time() - begun
    examples = np.concatenate([split(s, "test").take("x")[:options.examples]
                               for s in (source, strange)])
    marks = np.arange(len(examples)) >= len(examples) // 2
    held_out = split(source, "validation")
    ask = {"reference": held_out, "fpr": 0.01}
    main_one = latlas.outliers(model, (examples, marks), controls=False, **ask)
    nats = latlas.outliers(model, (examples, marks), controls=False, method="nats", **ask)
    train = split(source, "train").take("x")[:FITTED]
    scores = {"latlas typicality": main_one.score, "raw likelihood": nats.score,
              **controls(train, examples)}
    return {"train_seconds": seconds, "flagged outliers": float(main_one.flag[marks].mean()),
            "flagged normal": float(main_one.flag[~marks].mean()),
            "scores": {name: [float(roc_auc_score(marks, s)),
                              float(average_precision_score(marks, s))]
                       for name, s in scores.items()}}


def controls(train: Array, examples: Array) -> dict[str, Array]:
    """Scores of the examples, (n,) each, that know nothing but simple statistics."""
    results = {f"PPCA, {k} axes": ppca_surprise(train, examples, k) for k in (10, 50, 200)}
    for name, of in {"non-zero pixels": _ink, "compressed size": _size}.items():
        mine, mean = of(examples), of(train).mean()
        results |= {name: mine, f"{name}, reversed": -mine,
                  f"{name}, distance from the mean": abs(mine - mean)}
    return results


def _ink(x: Array) -> Array:
    return (x > 0).reshape(len(x), -1).sum(1).astype(np.float64)


def _size(x: Array) -> Array:
    return np.array([len(zlib.compress(image.tobytes(), 9)) for image in x], np.float64)


def _shown(result: dict[str, Any]) -> str:
    rows = [[name, f"{a:.4f}", f"{p:.4f}"] for name, (a, p) in result["scores"].items()]
    return (f"\ntrained on {result['normal']} ({result['train_seconds']:.0f} processor seconds), "
            f"outliers {result['outliers']}, seed {result['seed']}: at FPR 1% it flags "
            f"{result['flagged outliers']:.1%} of the outliers and "
            f"{result['flagged normal']:.2%} of the rest\n\n"
            + table(["score", "ROC AUC", "average precision"], rows))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, nargs=2, required=True, help="two sources of images")
    parser.add_argument("--images", type=int, default=300_000, help="examples to train on")
    parser.add_argument("--examples", type=int, default=10_000, help="test examples of each kind")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
