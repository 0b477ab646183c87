"""Completeness and continuity of latent spaces: a VAE and an AE of equal size, side by side.

Both have the same network, number of latent dimensions and number of images; the AE samples from a
Gaussian fitted to its latents. Two more columns: the same VAE with a flow-matching prior fitted to
its latents (``latlas fit-prior``), and a VAE whose KL weighs so much that all its units are
inactive. Coverage and active units show that, though its one image may score well in completeness.

    python benchmarks/latent_space.py --data mnist.npz --images 400000
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import latlas
from latlas.metrics.distances import support_distance
from latlas.metrics.features import features
from latlas.verbs.evaluate import Evaluation, side_by_side
from latlas.verbs.sample_quality import feature_extractor

SHOWN = ("completeness", "coverage", "active_units", "latent_dim", "slope_median", "slope_high",
         "lipschitz_ratio", "largest_jump", "information", "information_upper", "marginal_kl",
         "total_correlation", "linear_tc", "dimension_kl", "frechet", "precision", "mse")


#: name of a row → model, its settings, its share of the images
ROWS: dict[str, tuple[str, dict[str, float], float]] = {
    "vae": ("vae", {}, 1.0), "ae": ("ae", {}, 1.0),
    "collapsed": ("beta-vae", {"beta": 1000.0}, 0.1)}


def main() -> None:
    """Train, evaluate, print."""
    options = arguments()
    train, test = (latlas.open_data(options.data, part) for part in ("train", "test"))
    extract = feature_extractor("auto", train, options.seed)
    models = {name: trained(name, options) for name in ROWS}
    evaluate = partial(latlas.evaluate, data=test, draws=1, samples=options.samples,
                    features=extract, seed=options.seed)
    results = [replace(evaluate(model, latents="own"), name=name) for name, model in models.items()]
    results.insert(1, replace(
        evaluate(with_fitted_prior(options), latents="fitted"), name="vae, fitted prior"))
    print(f"{options.data}: {options.images:,} images each, {options.network}, "
          f"{options.latent_dim} latent dimensions, seed {options.seed}\n")
    print(markdown(results))
    print("\nshare of draws within the support, by features, neighbours and share of balls kept\n")
    print(supports(models, test, {"auto": extract, **{
        name: features(name, train.space) for name in ("random-conv", "pixels")}}, options))


def trained(name: str, options: argparse.Namespace) -> Any:
    """The run of one column, trained, or loaded where it was."""
    model, settings, share = ROWS[name]
    return latlas.train(
        model, options.data, out=folder(name, options), images=int(share * options.images),
        progress=False, seed=options.seed, threads=1, device="cpu",
        latent_dim=options.latent_dim, network=options.network, **settings)


def folder(name: str, options: argparse.Namespace) -> Path:
    """The run folder of one column."""
    return Path(options.out / f"{name}-{options.latent_dim}-{options.seed}")


def with_fitted_prior(options: argparse.Namespace) -> Any:
    """The VAE again, now with a second prior that knows where its latents lie."""
    run = folder("vae", options)
    latlas.fit_prior(run, progress=False, seed=options.seed, threads=1, device="cpu")
    return latlas.load(run).model


def supports(models: dict[str, Any], test: Any, extractors: dict[str, Any],
             options: argparse.Namespace) -> str:
    """Whether the order of the models hangs on how the support is drawn."""
    drawn = {name: latlas.sample(model, options.samples, seed=options.seed + 1).values
             for name, model in models.items()}
    lines = ["| features | k | kept | " + " | ".join(models) + " |",
             "| --- " * (3 + len(models)) + "|"]
    for title, extract in extractors.items():
        real = extract(test.take("x")[:options.samples])
        decoded = [extract(examples) for examples in drawn.values()]
        for k, keep in product((3, 5, 10), (0.5, 1.0)):
            shares = [(support_distance(real, x, k, keep=keep) <= 1).mean() for x in decoded]
            lines.append(f"| {title} | {k} | {keep:g} | "
                         + " | ".join(f"{share:.3f}" for share in shares) + " |")
    return "\n".join(lines)


def markdown(results: list[Evaluation]) -> str:
    """A row per metric, a column per model, and what held-out data gets."""
    lines = [line for line in side_by_side(results).lines() if line.key in SHOWN]
    head = ["", *(e.name for e in results), "control"]
    body = [[line.title, *line.cells, line.control] for line in lines]
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def arguments() -> argparse.Namespace:
    """What may be set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="a source with labels")
    parser.add_argument("--images", type=int, default=400_000)
    parser.add_argument("--latent-dim", type=int, default=16)
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/latent-space"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
