"""Outlier detection on tables: ``latlas.sklearn.OutlierDetector`` beside PyOD's detectors.

Every set is an .npz with X (n, d) and y (1 for outliers), in a zip (ADBench, Han et al. 2022).
Detectors are fitted without labels to 70% of the rows, outliers among them, and rank the other 30%.
Columns are standardised by the training rows for every detector, which some of PyOD's need. All
detectors have their defaults and one thread and follow one another on the same split, so that a
machine that slows down slows all. The sets at even places of the sorted names (0, 2, …) are those
on which latlas's defaults were chosen; the others were only reported. Seconds are processor time,
which depends least on other work of the machine.

    pip install -r benchmarks/requirements.txt
    python benchmarks/outliers.py --data adbench20.zip --json outliers.json

What ``--json`` holds already is not measured again.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, table
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

Array = NDArray[Any]
Score = Callable[[Array], Array]
Result = dict[str, float]
DEEP = ("pyod VAE", "pyod AutoEncoder")
REST = 0.3


@dataclass(frozen=True)
class TableSet:
    """One set of the zip; its name without the number it has there."""

    name: str
    x: Array
    y: Array
    chosen: bool


# ------------------------------------------------------------------------------ detectors

#: parameters of latlas's detector, for trying others than its defaults
SETTINGS: dict[str, Any] = {}


def latlas(x: Array, seed: int) -> Score:
    """As it comes, or with ``--settings``."""
    from latlas.sklearn import OutlierDetector

    fitted = OutlierDetector(random_state=seed, **SETTINGS).fit(x)
    return lambda rows: -fitted.score_samples(rows)


def pyod(module: str, name: str, **settings: Any) -> Callable[[Array, int], Score]:
    """A detector of PyOD with its defaults."""
    def fit(x: Array, seed: int) -> Score:
        output = getattr(__import__(f"pyod.models.{module}", fromlist=[name]), name)
        more = {"random_state": seed} if seeded else {}
        return output(**settings, **more).fit(x).decision_function

    seeded = name in ("VAE", "AutoEncoder", "IForest")
    return fit


DETECTORS: dict[str, Callable[[Array, int], Score]] = {
    "latlas": latlas,
    "pyod VAE": pyod("vae", "VAE", verbose=0),
    "pyod AutoEncoder": pyod("auto_encoder", "AutoEncoder", verbose=0),
    "pyod IForest": pyod("iforest", "IForest"),
    "pyod ECOD": pyod("ecod", "ECOD"),
    "pyod KNN": pyod("knn", "KNN"),
    "pyod PCA": pyod("pca", "PCA"),
}


# ------------------------------------------------------------------------------ measuring

def main() -> None:
    """Measure what is not measured yet, then tabulate."""
    options = arguments()
    torch.set_num_threads(1)
    SETTINGS.update(options.settings)
    print(machine("cpu"))
    sets = list(read(options.data, options.sets))
    warm_up(options.detectors)
    done = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for seed in range(options.seeds):
        for dataset in sets:
            for name in options.detectors:
                key = f"{name}|{dataset.name}|{seed}"
                if key not in done:
                    done[key] = measure(name, dataset, seed)
                    save(options.json, done)
                    print(key, " ".join(f"{k} {v:.3f}" for k, v in done[key].items()), flush=True)
    show(done, sets, options)


def measure(name: str, dataset: TableSet, seed: int) -> Result:
    """One detector on one split: ROC AUC and average precision on the rest, seconds to fit."""
    x, rest, y = divided(dataset, seed)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begun = time.process_time()
        score = DETECTORS[name](x, seed)
        seconds = time.process_time() - begun
        outliers = np.nan_to_num(score(rest))
    return {"auroc": float(roc_auc_score(y, outliers)),
            "ap": float(average_precision_score(y, outliers)), "seconds": seconds}


def warm_up(names: list[str]) -> None:
    """A fit of each on a few rows, so that none is charged for what it imports or compiles."""
    rows = np.random.default_rng(0).normal(size=(100, 3))
    for name in names:
        measure(name, TableSet("warm-up", rows, np.arange(100) % 10 == 0, False), 0)


def divided(dataset: TableSet, seed: int) -> tuple[Array, Array, Array]:
    """Training rows, the rest, and the rest's labels; the same share of outliers in both."""
    x, rest, _, y = train_test_split(dataset.x, dataset.y, test_size=REST, random_state=seed,
                                     stratify=dataset.y)
    scaler = StandardScaler().fit(x)
    return scaler.transform(x), scaler.transform(rest), y


def read(path: Path, target: list[str] | None) -> Iterator[TableSet]:
    """The sets of the zip by name; every other one was used to choose defaults."""
    with zipfile.ZipFile(path) as held_out:
        for place, name in enumerate(sorted(n for n in held_out.namelist() if n.endswith(".npz"))):
            title = re.sub(r"^\d+_", "", Path(name).stem)
            if target is None or title in target:
                with np.load(io.BytesIO(held_out.read(name))) as file:
                    x, y = file["X"].astype(np.float64), file["y"].astype(int)
                yield TableSet(title, x, y, place % 2 == 0)


def save(path: Path | None, done: dict[str, Result]) -> None:
    """After every measurement: an interrupted run goes on."""
    if path is not None:
        path.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------ tables

def show(done: dict[str, Result], sets: list[TableSet], options: argparse.Namespace) -> None:
    """Means over all sets, over those used to choose and over the others; then set by set."""
    groups = {"all": sets, "chosen on": [s for s in sets if s.chosen],
              "only reported": [s for s in sets if not s.chosen]}
    for title, members in groups.items():
        if members:
            rows = [_means(done, name, members, options.seeds) for name in options.detectors]
            head = ["detector", "ROC AUC", "average precision", "fit seconds, all sets"]
            print(f"\n{title}: {len(members)} sets, {options.seeds} seeds\n")
            print(table(head, rows))
    for key in ("auroc", "ap", "seconds"):
        print(f"\n{key}, mean over seeds\n")
        print(table(["set", *options.detectors], [
            [s.name, *(f"{_mean(done, d, [s], options.seeds, key):.3f}"
                       for d in options.detectors)] for s in sets]))


def _means(done: dict[str, Result], name: str, sets: list[TableSet], seeds: int) -> list[str]:
    mean = {key: _mean(done, name, sets, seeds, key) for key in ("auroc", "ap", "seconds")}
    return [name, f"{mean['auroc']:.3f}", f"{mean['ap']:.3f}",
            f"{mean['seconds'] * len(sets):,.1f}"]


def _mean(done: dict[str, Result], name: str, sets: list[TableSet], seeds: int, key: str) -> float:
    return float(np.mean([done[f"{name}|{s.name}|{k}"][key] for s in sets for k in range(seeds)]))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a zip of .npz with X and y")
    parser.add_argument("--sets", nargs="+", help="names of sets; default: every set")
    parser.add_argument("--seeds", type=int, default=3, help="splits of every set")
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), choices=DETECTORS)
    parser.add_argument("--settings", type=json.loads, default={},
                        help="parameters of latlas's detector as JSON; use another --json file")
    parser.add_argument("--json", type=Path, help="every measurement, read and written here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
