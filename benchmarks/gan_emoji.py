"""Few images: does growing help, do styles mix, can held-out images be projected?

Emoji come in variants (skin tones, genders), and more than half of a random test set has a variant
in training. They are therefore divided by their base code points: whole groups are held out, a
fifth of the images. No model here is chosen by them.

The rows have the same training minutes: `progressive-gan`; the same network at full size from the
start (``grow=false``); `style-gan`. All use adaptive augmentation, as there are few images. Samples
are compared with as many held-out images, several times: mean ± standard deviation over draws of
the samples and of the directions. The last line compares as many training images with the held-out
ones, which is what a perfect model would get.

For the style-gan it also writes grids in which the image of each row has the coarse, middle or fine
styles of each column's; and held-out images, one of a group, beside their projections (``latlas
project``) and the nearest training images by squared difference of pixels.

    python benchmarks/gan_emoji.py noto_emoji_128.zip --size 32 --minutes 20
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from common import metrics_table, run_arguments, spent, trained, write_json
from emoji import emoji, of_different_groups
from numpy.typing import NDArray

import latlas
from latlas.data import split
from latlas.data.dataset import Dataset, Source, partition
from latlas.metrics.arrays import nearest
from latlas.metrics.table import KINDS, Metric
from latlas.verbs.evaluate import evaluated
from latlas.verbs.styles import LEVELS
from latlas.verbs.write import write_examples

#: name of a row → model and its settings
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "progressive-gan": ("progressive-gan", {}),
    "without-growth": ("progressive-gan", {"grow": False}),
    "style-gan": ("style-gan", {"augment": "ada"})}
#: features → metrics shown
SHOWN = {"pixels": ("sliced", "near_copies"),
         "random-conv": ("sliced", "frechet", "precision", "recall", "density", "coverage")}
#: seeds of the images that are mixed
MIXED = range(1, 6), range(11, 18)


def main() -> None:
    """Train or read every row, evaluate it, tabulate; mix and project with styles."""
    options = arguments()
    source = emoji(options.data, options.size)
    train, held = split(source, "train"), held_out(source)
    print(f"{len(train):,} images to train on, {len(held):,} held out", flush=True)
    results: dict[str, dict[str, Metric]] = {}
    for row in options.models:
        run = trained(row, ROWS[row][0], source, options, **ROWS[row][1])
        model = latlas.load(run, device=options.device).model
        latlas.sample(model, 64, seed=options.seed).save(run.with_suffix(".png"))
        results[row] = measure(model, run, train, held, options)
        print(f"{row}: {results[row]['sliced Wasserstein, pixels'].text()}", flush=True)
    print("\n" + metrics_table(results, "training images"))
    extra = styles(train, held, options) if "style-gan" in options.models else {}
    write_json(options.json, {"settings": {k: str(v) for k, v in vars(options).items()},
                              "measured": {row: {t: f.to_json() for t, f in metrics.items()}
                                           for row, metrics in results.values()}, **extra})


def held_out(source: Source) -> Dataset:
    """The validation and the test part: adversarial models choose nothing by the former."""
    parts = partition(source)
    return split(source, "all").subset(np.sort(np.r_[parts["validation"], parts["test"]]))


def measure(model: Any, run: Path, train: Dataset, held: Dataset,
            options: argparse.Namespace) -> dict[str, Metric]:
    """Title to metric, mean over draws of the samples, its error their standard deviation."""
    minutes, seen = spent(run)
    results = {"minutes": Metric("examples", round(minutes, 1)),
             "images seen": Metric("examples", seen)}
    for features, keys in SHOWN.items():
        draws = [evaluated(model, train=train, test=held, features=features, samples=len(held),
                           seed=options.seed + i, metrics=("samples",))
                 for i in range(options.draws)]
        results |= {f"{KINDS[key].title}, {features}": averaged(key, draws) for key in keys}
    return results


def averaged(key: str, draws: list[Any]) -> Metric:
    """Mean and standard deviation of one metric, and the mean of its control."""
    values, controls = zip(*((f.value, f.control) for e in draws for f in (e.get(key),)),
                           strict=True)
    error = statistics.stdev(values) if len(values) > 1 else None
    return Metric(key, statistics.mean(values), error, statistics.mean(controls))


def styles(train: Dataset, held: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Mixing grids, and held-out images beside projections and nearest training images."""
    run = options.out / f"style-gan-{options.seed}"
    model = latlas.load(run, device=options.device).model
    for layers in LEVELS:
        latlas.mix(model, *MIXED, layers=layers).save(options.out / f"mix-{layers}.png")
    chosen = of_different_groups(held, options.projections, options.seed)
    results = latlas.project(model, chosen, n=None, train=train, starts=options.starts,
                           steps=options.steps, space=options.space, seed=options.seed)
    beside = np.stack([results.originals, results.values, closest(chosen, train)], 1)
    write_examples(options.out / "projections.png", beside.reshape(-1, *beside.shape[2:]),
                   model.space, columns=12)
    won = float((results.error < results.nearest).mean())
    print(f"\n{len(chosen)} held-out images, mean squared difference in model units: projection "
          f"{results.error.mean():.4f}, nearest training image {results.nearest.mean():.4f}; the "
          f"projection is nearer in {won:.0%}")
    return {"projection": results.error.tolist(), "nearest": results.nearest.tolist()}


def closest(data: Dataset, train: Dataset) -> NDArray[Any]:
    """The training example nearest to each example."""
    flat = [np.asarray(part.take("x")).reshape(len(part), -1) for part in (data, train)]
    return train.take("x")[nearest(*flat)[1][:, 0]]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = run_arguments((__doc__ or "").splitlines()[0], tuple(ROWS), minutes=20.0,
                           out="runs/gan-emoji")
    parser.add_argument("data", type=Path, help="a zip or folder of emoji_u….png")
    parser.add_argument("--models", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--draws", type=int, default=5, help="times that samples are drawn")
    parser.add_argument("--projections", type=int, default=16, help="held-out images projected")
    parser.add_argument("--starts", type=int, default=8, help="of each projection")
    parser.add_argument("--steps", type=int, default=200, help="of each start")
    parser.add_argument("--space", choices=("w", "z"), default="w", help="that is searched")
    return parser.parse_args()


if __name__ == "__main__":
    main()
