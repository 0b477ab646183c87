"""Table 1 of "Importance Weighted Autoencoders" (Burda et al. 2016), MNIST, and where it stands.

VAE and IWAE with k = 1, 5, 50 draws and one or two stochastic layers: the paper's networks (50
latent dimensions and two hidden layers of 200 tanh units; 100 and 50, with 100 units between),
initial weights, Adam with ε = 1e-4, batches of 20, stochastic binarisation at every step, and eight
stages of 3,280 passes in all. All rows together take days on a processor:

    python benchmarks/reproduce/iwae.py --data mnist.npz                      # as published
    python benchmarks/reproduce/iwae.py --data mnist.npz --budget 0.01        # a hundredth of it
    python benchmarks/reproduce/iwae.py --data mnist.npz --layers 1 --models iwae --k 50 \\
        --minutes 90 --batch 100 --precision bf16 --set gradient=dreg

A shorter budget shortens every stage alike. Runs are kept under ``--out``. The same command
continues a stopped run, and scores finished ones again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latlas.core.noise import Noise, derive
from latlas.data import Dataset, Source, open_source, split
from latlas.data.batches import Sweep
from latlas.data.dataset import partition
from latlas.metrics.latent_space import active_units
from latlas.training import TrainingData, execute, plan_of
from latlas.verbs.passes import inference
from latlas.verbs.score import score

sys.path.append(str(Path(__file__).parents[1]))
from common import table, write_json

PASSES = 3280
#: sizes of the layers of latents, and of the hidden layers below each of them
CODES = {1: (50,), 2: (100, 50)}
HIDDEN = (200, 100)
#: negative log-likelihood, 5,000 draws, and active units: (model, layers, k)
PUBLISHED = {
    ("vae", 1, 1): (86.76, "19"), ("vae", 1, 5): (86.47, "20"), ("vae", 1, 50): (86.35, "20"),
    ("iwae", 1, 1): (86.76, "19"), ("iwae", 1, 5): (85.54, "22"), ("iwae", 1, 50): (84.78, "25"),
    ("vae", 2, 1): (85.33, "16+5"), ("vae", 2, 5): (85.01, "17+5"), ("vae", 2, 50): (84.78, "17+5"),
    ("iwae", 2, 1): (85.33, "16+5"), ("iwae", 2, 5): (83.89, "21+5"),
    ("iwae", 2, 50): (82.90, "26+7")}
PAPER = {"learning_rate": 1e-3, "betas": (0.9, 0.999), "adam_eps": 1e-4, "schedule": "stages",
         "warmup": 0.0, "weight_decay": 0.0, "ema": 0.0, "likelihood": "bernoulli",
         "binarize": "dynamic", "gradient": "reparameterised", "dropout": 0.0}


@dataclass(frozen=True)
class Row:
    """One line of the table: nats, and what was spent on it."""

    model: str
    layers: int
    k: int
    passes: float
    nats: float
    error: float
    units: str
    images_per_second: float


def main() -> None:
    """Train and score every row and print it, then the table."""
    args = arguments()
    torch.set_num_threads(args.threads)
    source, rows = open_source(args.data), []
    for model, layers, k in product(args.models, args.layers, args.k):
        rows.append(measure(model, layers, k, source, args))
        print(*cells(rows[-1]), sep="  ", file=sys.stderr, flush=True)
    print(table(HEAD, [cells(row) for row in rows]))
    write_json(args.json, {"settings": {k: str(v) for k, v in vars(args).items()},
                            "rows": [asdict(row) for row in rows]})


def measure(model: str, layers: int, k: int, source: Source, args: argparse.Namespace) -> Row:
    """Train on everything but the test examples, as the paper does; score those."""
    rows = partition(source)
    train = replace(split(source, "all"), rows=np.union1d(rows["train"], rows["validation"]))
    done = execute(plan_of("hierarchical-vae" if layers > 1 else "iwae",
                           settings(model, layers, k, args)),
                   TrainingData(train, None, source.spec),
                   args.out / f"{model if k > 1 else 'vae'}-{layers}-{k}", args.progress,
                   networks(layers, train, args.seed))
    test = split(source, "test").subset(slice(0, args.examples))
    scores = score(done.model, test, draws=args.draws)
    spent = json.loads((done.path / "metrics.jsonl").read_text().splitlines()[-1])
    return Row(model, layers, k, spent["images"] / len(train), -scores.mean,
               scores.standard_error, units(done.model, test), spent["images"] / spent["seconds"])


def settings(model: str, layers: int, k: int, args: argparse.Namespace) -> dict[str, Any]:
    """Of the model and of its training; what was given with --set goes last."""
    code = {"latent_dim": CODES[1][0]} if layers == 1 else {"latents": CODES[layers]}
    bound = "importance" if model == "iwae" or k == 1 else "average"  # of one draw they are equal
    budget = ({"minutes": args.minutes} if args.minutes else
              {"epochs": PASSES * args.budget if args.epochs is None else args.epochs})
    run = {"batch_size": args.batch, "precision": args.precision, "threads": args.threads,
           "device": args.device, "seed": args.seed}
    return {**PAPER, **code, **budget, **run, "draws": k, "bound": bound, **dict(args.set)}


class Unit(nn.Module):
    """Pixels from −1 … 1 to 0 … 1, as the paper's network sees them."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) / 2


def networks(layers: int, train: Dataset, seed: int) -> dict[str, nn.Module]:
    """Encoder, decoder, and for two layers what joins them; log σ² from the same layer."""
    torch.manual_seed(derive(seed, "networks"))
    shape, latents = train.space.shape, CODES[layers]
    dims = math.prod(shape)
    joins = list(zip(pairwise(latents), HIDDEN[1:], strict=False))
    results: dict[str, nn.Module] = {
        "encoder": nn.Sequential(nn.Flatten(), Unit(), *tanh(dims, HIDDEN[0], 2 * latents[0])),
        "decoder": nn.Sequential(*tanh(latents[0], HIDDEN[0], dims), nn.Unflatten(1, shape))}
    if joins:
        results["up"] = nn.ModuleList([tanh(a, h, 2 * b) for (a, b), h in joins])
        results["down"] = nn.ModuleList([tanh(b, h, 2 * a) for (a, b), h in joins])
    with torch.no_grad():
        results["decoder"][-2].bias.copy_(mean_logits(train))
    return results


def tanh(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers; weights as by Glorot & Bengio (2010), biases 0."""
    layers = [nn.Linear(a, b) for a, b in pairwise((inputs, hidden, hidden, outputs))]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def mean_logits(train: Dataset) -> Tensor:
    """Of every pixel's mean over the data: where the decoder's last bias starts."""
    ink = train.take("x").mean(0, dtype=np.float64).ravel() / (train.space.levels - 1)
    return torch.logit(torch.from_numpy(ink), 1e-3).float()


def units(model: Any, data: Dataset) -> str:
    """Active units of every layer, ``16+5``: posterior means that vary by more than 0.01."""
    noise = Noise(derive("units"), model.device)
    with inference(model):
        latents = torch.cat([model.encode(model.likelihood.preprocess(batch.x, noise)).mean
                           for batch in Sweep(data, 500, model.device)]).cpu().numpy()
    sizes = [size for size, in getattr(model, "latent_shapes", [(latents.shape[1],)])]
    layers = np.split(latents, np.cumsum(sizes)[:-1], axis=1)
    return "+".join(str(active_units(layer)) for layer in layers)


HEAD = ["model", "layers", "k", "passes", "−log p(x), nats", "published", "difference",
        "active units", "published", "images/s"]


def cells(row: Row) -> list[str]:
    """A line of the table."""
    nats, active = PUBLISHED.get((row.model, row.layers, row.k), (math.nan, ""))
    return [row.model, str(row.layers), str(row.k), f"{row.passes:,.1f}",
            f"{row.nats:.2f} ± {row.error:.2f}", f"{nats:.2f}", f"{row.nats - nats:+.2f}",
            row.units, active, f"{row.images_per_second:,.0f}"]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="images; the paper's: mnist.npz")
    parser.add_argument("--models", nargs="+", choices=("vae", "iwae"), default=["vae", "iwae"])
    parser.add_argument("--layers", nargs="+", type=int, choices=CODES, default=[1, 2])
    parser.add_argument("--k", nargs="+", type=int, default=[1, 5, 50], help="draws in training")
    parser.add_argument("--budget", type=float, default=1.0, help="share of the 3,280 passes")
    parser.add_argument("--epochs", type=float, help="passes instead of a share")
    parser.add_argument("--minutes", type=float, help="minutes for every row instead")
    parser.add_argument("--batch", type=int, default=20, help="examples per step")
    parser.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="fp32",
                        help="of training; likelihoods are in fp32")
    parser.add_argument("--set", nargs="+", default=[], type=setting, metavar="NAME=VALUE",
                        help="any other setting (gradient=dreg ema=0.02 schedule=cosine)")
    parser.add_argument("--draws", type=int, default=1000, help="in scoring; the paper's: 5,000")
    parser.add_argument("--examples", type=int, help="test examples to score; default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/iwae"))
    parser.add_argument("--json", type=Path, help="write the table here as well")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def setting(text: str) -> tuple[str, str]:
    """``name=value``."""
    name, _, value = text.partition("=")
    return name, value


if __name__ == "__main__":
    main()
