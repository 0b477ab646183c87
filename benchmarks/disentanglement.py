"""Disentanglement of `shapes` by the VAE and its variants: mean ± sd over seeds of every figure.

Every model has the same networks, code, pictures and budget. The networks are those of the source
of β-VAE for such pictures (Higgins et al. 2017, table 1: ReLU down, tanh up), narrower. Below the
models stand the controls: their own codes rotated, which know as much and are entangled, and the
factors themselves as codes.

    python benchmarks/disentanglement.py --seeds 3 --minutes 20
"""

from __future__ import annotations

import argparse
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from common import table, write_json
from torch import nn

import latlas
from latlas.data import open_source
from latlas.tasks.figures import KINDS

#: name of a row → model and its settings
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "VAE (β = 1)": ("beta-vae", {"beta": 1.0}),
    "β-VAE (β = 4)": ("beta-vae", {"beta": 4.0}),
    "β-TC-VAE": ("beta-tc-vae", {}),
    "FactorVAE": ("factor-vae", {}),
}
FIGURES = [key for key, kind in KINDS.items() if kind.group == "Disentanglement"]
#: size of the code
CODE = 10
#: new pictures cost nothing, so nothing has to keep a network from learning them by heart
SETTINGS = {"latent_dim": CODE, "likelihood": "bernoulli", "dropout": 0.0, "weight_decay": 0.0,
            "batch_size": 128, "progress": False}


def main() -> None:
    """Train and judge every model with every seed."""
    options = arguments()
    source = open_source("shapes", n=options.items, image_size=options.size)
    found: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in options.models}
    for seed in range(options.seeds):
        for name in options.models:
            found[name].append(measure(name, source, options, seed))
            print(f"{name}, seed {seed}: MIG {found[name][-1]['value']['mig']:.3f}", flush=True)
    print("\n" + table(["", *(KINDS[key].title for key in FIGURES)], rows(found)))
    write_json(options.json, {"settings": {k: str(v) for k, v in vars(options).items()},
                              "measured": found})


def measure(name: str, source: Any, options: argparse.Namespace,
            seed: int) -> dict[str, dict[str, float]]:
    """Every figure of one run, with its control and its ceiling."""
    model, own = MODELS[name]
    budget = {"images": options.images} if options.images else {"minutes": options.minutes}
    out = options.out and options.out / f"{model}-{own.get('beta', '')}-{seed}"
    asked = dict(text.split("=", 1) for text in options.set)
    encoder, decoder = networks(options.size, options.width, seed)
    trained = latlas.train(model, source, out=out, seed=seed, threads=options.threads,
                           encoder=encoder, decoder=decoder, **(SETTINGS | own | budget | asked))
    judged = latlas.evaluate(trained.model, source, "test", metrics=("disentanglement",))
    return {part: {f.key: getattr(f, part) for f in judged.figures}
            for part in ("value", "control", "ceiling")}


def networks(size: int, width: int, seed: int) -> tuple[nn.Module, nn.Module]:
    """Two hidden layers of ReLU down to the code, three of tanh up to the pixels' logits."""
    torch.manual_seed(seed)
    down, up = [size * size, width, width], [CODE, width, width, width]
    encoder = [layer for pair in pairwise(down) for layer in (nn.Linear(*pair), nn.ReLU())]
    decoder = [layer for pair in pairwise(up) for layer in (nn.Linear(*pair), nn.Tanh())]
    logits = nn.Linear(width, size * size), nn.Unflatten(1, (1, size, size))
    return (nn.Sequential(nn.Flatten(), *encoder, nn.Linear(width, 2 * CODE)),
            nn.Sequential(*decoder, *logits))


def rows(found: dict[str, list[dict[str, dict[str, float]]]]) -> list[list[str]]:
    """The models, their rotated codes, and the oracle, which is the same for all."""
    parts = [("value", "{}"), ("control", "{}, rotated")]
    lines = [[title.format(name), *(spread([run[part][key] for run in runs]) for key in FIGURES)]
             for part, title in parts for name, runs in found.items()]
    first = next(iter(found.values()))[0]["ceiling"]
    return [*lines, ["the factors as codes", *(f"{first[key]:.3f}" for key in FIGURES)]]


def spread(values: list[float]) -> str:
    """``0.312 ± 0.021``, the standard deviation over runs."""
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0, help="of one run")
    parser.add_argument("--images", type=int, help="items of one run, instead of minutes")
    parser.add_argument("--items", type=int, default=100_000, help="pictures; a tenth is the test")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--width", type=int, default=512, help="of a hidden layer")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=0, help="0: the fastest")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value",
                        help="settings of all models, such as batch_size=64")
    parser.add_argument("--out", type=Path, help="keep run folders here; finished ones are read")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
