"""Few of a kind: does ``latlas audit`` find the 20 examples that are left of one class?

For each class in turn all but 20 of its training images are taken out, a VAE is trained on what
is left, without labels, and ``latlas audit`` ranks the very examples it was trained on. Shown is
the share of the 20 that is among the rarest 5%, beside that by −log p under PPCA with 20 axes, by
the VAE's own likelihood (its bound), and by the product of the code's histograms; 0.05 is chance.

    python benchmarks/audit.py fashion_mnist.npz --json audit.json

What ``--json`` holds already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import table
from numpy.typing import NDArray

import latlas
from latlas.data import open_source
from latlas.metrics.outliers import ppca_surprise
from latlas.run import Run
from latlas.verbs.estimators import elbo_parts

Array = NDArray[Any]
KEPT, SHARE = 20, 0.05
SCORES = ("audit", "PPCA, 20 axes", "bound", "histograms", "processor seconds")


def main() -> None:
    """Every class, then the table."""
    options = arguments()
    source = open_source(str(options.data))
    rows = source.parts["train"]  # all of it: nothing is held out
    x, label = source.base.x[rows], source.base.label[rows]
    found = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for code in options.classes or range(int(label.max()) + 1):
        key = f"{code}|{options.seed}"
        if key not in found:
            found[key] = measure(x, label, code, options)
            print(key, found[key], flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found, source.space.classes)


def measure(x: Array, label: Array, code: int, options: argparse.Namespace) -> dict[str, float]:
    """The share of the few among the rarest, by name of the score."""
    rng = np.random.default_rng([options.seed, code])
    few = rng.choice(np.flatnonzero(label == code), KEPT, replace=False)
    rows = np.sort(np.concatenate([np.flatnonzero(label != code), few]))
    items, mark = x[rows], np.isin(rows, few)
    begun = time.process_time()
    model = latlas.train("vae", items, split="all", images=options.images, seed=options.seed,
                         threads=1, width=256, depth=1, batch_size=256, latent_dim=32,
                         progress=False).model
    audit = latlas.audit(model, items, seed=options.seed)
    seconds = time.process_time() - begun
    bound = elbo_parts(model, Run.of(model).open(items), seed=options.seed)["bound"]
    scores = {"audit": audit.rarity, "PPCA, 20 axes": ppca_surprise(items, items, 20),
              "bound": -bound, "histograms": -np.log(audit.density).sum(1)}
    return {name: among_rarest(score, mark) for name, score in scores.items()} | {
        "processor seconds": seconds}


def among_rarest(score: Array, mark: Array) -> float:
    """Share of the marked examples that are among the 5% with the greatest scores."""
    first = np.argsort(-score, kind="stable")[:round(SHARE * len(score))]
    return float(mark[first].sum() / mark.sum())


def show(found: dict[str, dict[str, float]], classes: tuple[str, ...]) -> None:
    """One row for each class, and the mean."""
    rows = [[classes[int(key.split("|")[0])] if classes else key, *_cells(values)]
            for key, values in sorted(found.items())]
    mean = {name: float(np.mean([v[name] for v in found.values()])) for name in SCORES}
    print(table(["class", *SCORES], [*rows, ["mean", *_cells(mean, 3)]]))
    print(f"audit / PPCA: {mean['audit'] / max(mean['PPCA, 20 axes'], 1e-9):.2f}")


def _cells(values: dict[str, float], places: int = 2) -> list[str]:
    return [f"{values[name]:.{places}f}" for name in SCORES[:-1]] + [f"{values[SCORES[-1]]:.0f}"]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="labelled images: fashion_mnist.npz")
    parser.add_argument("--images", type=int, default=300_000, help="examples to train on")
    parser.add_argument("--classes", type=int, nargs="+", help="codes; default: every class")
    parser.add_argument("--seed", type=int, default=0, help="which 20 are left, and training")
    parser.add_argument("--json", type=Path, help="every measurement, read and written here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
