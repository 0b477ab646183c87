"""Adversarial models of images beside a VAE with a fitted prior, on features of a classifier.

Every row has the same training minutes: `gan`, `conditional-gan`, and a VAE with a second prior
fitted to its latents by flow matching (``latlas fit-prior``), which takes its share of the VAE's
minutes; `style-gan` on request.

The reference is the test images. As many samples are compared with it, and as many real training
images as the control, in the last line. The classifier has seen neither: it learns from the other
half of the training images. For the conditional model the table also has the label accuracy of
samples: the share that the classifier assigns to the class it was drawn for. The control's is the
classifier's accuracy on new real images, which a perfect model would get.

    python benchmarks/gan_pictures.py fashion_mnist.npz --minutes 30

Rows can be trained separately (``--models gan``, one process for each core) and tabulated later:
the same command with all of them reads the finished runs under ``--out``. A grid of samples of
every row is written there too, ten of each class for conditional models.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import (
    ended,
    image_classifier,
    metrics_table,
    row_settings,
    run_arguments,
    spent,
    trained,
    write_json,
)

import latlas
from latlas.data import open_source, split
from latlas.data.dataset import Source
from latlas.metrics.table import KINDS, Metric
from latlas.verbs.evaluate import Evaluation
from latlas.verbs.write import write_examples

ROWS = ("gan", "conditional-gan", "vae", "style-gan")
VAE = "vae, fitted prior"
SHOWN = ("kernel", "precision", "recall", "density", "coverage", "two_sample", "near_copies",
         "diversity", "label_accuracy")


def main() -> None:
    """Train or read every row, evaluate it, and tabulate."""
    options = arguments()
    source = open_source(str(options.data))
    results: dict[str, Evaluation] = {}
    features = image_classifier(split(source, "train"), split(source, "test"), options,
                     "test images") if options.classifier_steps else "auto"
    for row in options.models:
        title, run = VAE if row == "vae" else row, run_of(row, source, options)
        model = latlas.load(run, device=options.device).model
        draw(model, options.out / f"{row}-{options.seed}.png", options.seed)
        results[title] = replace(latlas.evaluate(
            model, source, split="test", metrics=("samples",), samples=options.samples,
            features=features, seed=options.seed, latents="fitted" if row == "vae" else "own",
            cache=options.out / "cache"), name=title)
        print(f"{title}: Fréchet distance {results[title].get('frechet').text()}", flush=True)
    sides = min(e.get("examples").value for e in results.values())
    print(f"\n{options.data.stem}, {sides:,.0f} images a side\n")
    rows = {name: row_of(name, results, options) for name in results}
    print(metrics_table(rows, "held-out data"))
    write_json(options.json, {"settings": {k: str(v) for k, v in vars(options).items()},
                              "measured": [e.to_json() for e in results.values()]})


def run_of(row: str, source: Source, options: argparse.Namespace) -> Path:
    """The finished run of a row; of the VAE with its second prior."""
    if row != "vae":
        return trained(row, row, source, options)
    share = options.prior_share * options.minutes
    run = trained(row, row, source, options, minutes=options.minutes - share)
    ended(latlas.fit_prior(run, **row_settings("prior", options, share)).run)
    return run


def draw(model: Any, path: Path, seed: int) -> None:
    """A grid of samples, a column for each class where they can be asked for."""
    classes = list(model.space.classes) if getattr(model, "condition_dim", 0) else []
    output = latlas.sample(model, 10 * (len(classes) or 10), seed=seed, label=classes or None)
    write_examples(path, output.values, model.space, columns=len(classes) or 10)


def row_of(name: str, results: dict[str, Evaluation],
           options: argparse.Namespace) -> dict[str, Any]:
    """Title to metric."""
    row = {f.key: f for f in results[name].metrics}
    distance = row["frechet"]
    minutes, seen = took(name, options)
    return {"minutes": Metric("examples", round(minutes, 1)),
            "images seen": Metric("examples", seen),
            KINDS["frechet"].title: distance,
            "of held-out data's": Metric("frechet", distance.value / (distance.control or 1)),
            **({} if VAE not in results else {
                "of the VAE's": Metric("frechet",
                                       distance.value / results[VAE].get("frechet").value)}),
            **{KINDS[key].title: row[key] for key in SHOWN if key in row}}


def took(name: str, options: argparse.Namespace) -> tuple[float, int]:
    """Minutes of training, and images seen."""
    run = options.out / f"{'vae' if name == VAE else name}-{options.seed}"
    minutes, seen = spent(run)
    return minutes + (spent(run / "prior")[0] if name == VAE else 0), seen


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = run_arguments((__doc__ or "").splitlines()[0], (*ROWS, "prior"), minutes=30.0,
                           out="runs/gan-pictures")
    parser.add_argument("data", type=Path, help="images with labels (mnist.npz)")
    parser.add_argument("--models", nargs="+", choices=ROWS, default=ROWS[:3])
    parser.add_argument("--samples", type=int, default=5000, help="images a side, at most")
    parser.add_argument("--prior-share", type=float, default=0.1,
                        help="share of the VAE's minutes that the fit of its prior takes")
    parser.add_argument("--classifier-steps", type=int, default=0,
                        help="train the classifier for so many steps, and on the whole half; 0: as "
                             "`latlas evaluate` does")
    return parser.parse_args()


if __name__ == "__main__":
    main()
