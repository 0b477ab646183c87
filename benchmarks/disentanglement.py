"""Disentanglement of `shapes` by the VAE and its variants: mean ± sd over seeds of every metric.

Every model has the same networks, number of latent dimensions, images and budget. The controls
stand below the models: their own latents rotated (equally informative, but entangled), and the
factors as latents.

    python benchmarks/disentanglement.py --seeds 3 --minutes 20
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path
from typing import Any

from common import table, write_json

import latlas
from latlas.data import open_source
from latlas.metrics.table import KINDS

#: name of a row → model and its settings
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "VAE (β = 1)": ("beta-vae", {"beta": 1.0}),
    "VAE, annealed": ("beta-vae", {"beta": 1.0, "kl_weight_start": 20.0, "kl_warmup": 0.6}),
    "β-VAE (β = 4)": ("beta-vae", {"beta": 4.0}),
    "β-TC-VAE": ("beta-tc-vae", {}),
    "FactorVAE": ("factor-vae", {}),
}
FIGURES = [key for key, kind in KINDS.items() if kind.group == "disentanglement"]
#: new images cost nothing, so nothing has to keep a network from learning them by heart
SETTINGS = {"latent_dim": 10, "likelihood": "bernoulli", "network": "mlp", "width": 512,
            "dropout": 0.0, "weight_decay": 0.0, "batch_size": 128, "progress": False}


def main() -> None:
    """Train and evaluate every model with every seed."""
    options = arguments()
    source = open_source("shapes", n=options.examples, image_size=options.size)
    results: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in options.models}
    for seed in range(options.seeds):
        for name in options.models:
            results[name].append(measure(name, source, options, seed))
            print(f"{name}, seed {seed}: MIG {results[name][-1]['value']['mig']:.3f}", flush=True)
    print("\n" + table(["", *(KINDS[key].title for key in FIGURES)], rows(results)))
    write_json(options.json, {"settings": {k: str(v) for k, v in vars(options).items()},
                              "measured": results})


def measure(name: str, source: Any, options: argparse.Namespace,
            seed: int) -> dict[str, dict[str, float]]:
    """Every metric of one run, with its control and its ceiling."""
    model, own = MODELS[name]
    budget = {"images": options.images} if options.images else {"minutes": options.minutes}
    out = options.out and options.out / re.sub(r"\W+", "-", f"{name} {seed}")
    args = dict(text.split("=", 1) for text in options.set)
    trained = latlas.train(model, source, out=out, seed=seed, threads=options.threads,
                           **(SETTINGS | own | budget | args))
    evaluation = latlas.evaluate(trained.model, source, split="test", metrics=("disentanglement",))
    return {part: {f.key: getattr(f, part) for f in evaluation.metrics}
            for part in ("value", "control", "ceiling")}


def rows(results: dict[str, list[dict[str, dict[str, float]]]]) -> list[list[str]]:
    """The models, their rotated latents, and the oracle, which is the same for all."""
    parts = [("value", "{}"), ("control", "{}, rotated")]
    lines = [[title.format(name), *(spread([run[part][key] for run in runs]) for key in FIGURES)]
             for part, title in parts for name, runs in results.items()]
    first = next(iter(results.values()))[0]["ceiling"]
    return [*lines, ["the factors as latents", *(f"{first[key]:.3f}" for key in FIGURES)]]


def spread(values: list[float]) -> str:
    """``0.312 ± 0.021``, the standard deviation over runs."""
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0, help="of one run")
    parser.add_argument("--images", type=int, help="examples of one run, instead of minutes")
    parser.add_argument("--examples", type=int, default=100_000, help="images; a tenth is the test")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=0, help="0: the fastest")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value",
                        help="settings of all models, such as width=256")
    parser.add_argument("--out", type=Path, help="keep run folders here; finished ones are read")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
