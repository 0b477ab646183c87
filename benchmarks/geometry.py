"""Do geodesics keep to the data, and do their lengths depend on the training run?

Two questions about VAEs on images with classes, both on held-out examples:

1. Support. Between pairs of one class: the share of places, at equal distances along the decoded
   path, whose decoded image lies outside the support of held-out examples (``latlas.metrics.
   latent_space.reach`` above 1). Geodesics of ``uncertain``, ``pullback`` and ``density`` against
   straight lines; the differences are paired, their 95% intervals by bootstrap over pairs. The
   share of the decoded ends themselves says what a path through data can reach.
2. Retraining. The coefficient of variation, over training runs that differ in their seed alone, of
   the distance between the same held-out examples: Euclidean in the latents, by the geodesic of the
   one decoder, by that of an ensemble of decoders trained anew on the run's codes. The mean over
   pairs, with its 95% interval by bootstrap over pairs.

    python benchmarks/geometry.py --data mnist.npz --images 720_000 --runs 10 --runs-in runs

Runs that are in the folder of ``--runs-in`` are not trained again, and distances measured there
with the same options not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import latlas
from latlas import geometry
from latlas.metrics.latent_space import reach
from latlas.verbs.latent_metric import in_model_units, metric_of
from latlas.verbs.passes import decoded, encoded, examples_of
from latlas.verbs.sample_quality import feature_extractor

PLACES, SUPPORT, CODES = 33, 2000, 5000


def main() -> None:
    options = arguments()
    folder = Path(options.runs_in or tempfile.mkdtemp())
    train, test = (latlas.open_data(options.data, part) for part in ("train", "test"))
    rng = np.random.default_rng(0)
    pairs = pairs_within_classes(np.asarray(test.take("label")), options.pairs, rng)
    result: dict[str, Any] = {"data": options.data, "latent_dim": options.latent_dim,
                              "images": options.images, "pairs": options.pairs,
                              "runs": options.runs, "members": options.members}
    models = [trained(folder / f"seed{seed}", seed, options) for seed in range(options.runs)]
    result["support"] = support(models[0], train, test, pairs, options, rng)
    if options.runs > 1:
        lengths = [distances(models[seed], folder / f"seed{seed}", train, test,
                             pairs[:options.distances], options, seed)
                   for seed in range(options.runs)]
        result["retraining"] = variation(lengths, rng)
    print(f"{options.data}: VAE, {options.latent_dim} latent dimensions, {options.images:,} "
          f"examples each\n")
    print(f"Share of a path outside the support, {len(pairs)} pairs within a class\n")
    print("| path | share | less than straight lines | 95% interval |\n| --- | --- | --- | --- |")
    for name, row in result["support"].items():
        print(f"| {name} | {row['share']:.4f} | {row['gain']:+.4f} | "
              f"{row['low']:+.4f} … {row['high']:+.4f} |")
    for name, row in result.get("retraining", {}).items():
        if name == next(iter(result["retraining"])):
            print(f"\nVariation of distances over {options.runs} training runs\n")
            print("| distance | coefficient of variation | 95% interval |\n| --- | --- | --- |")
        print(f"| {name} | {row['cv']:.4f} | {row['low']:.4f} … {row['high']:.4f} |")
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def pairs_within_classes(label: np.ndarray, n: int, rng: Any) -> np.ndarray:
    """(n, 2) different rows of one class, classes in turn."""
    classes = np.unique(label)
    return np.stack([rng.choice(np.flatnonzero(label == classes[i % len(classes)]), 2, False)
                     for i in range(n)])


def trained(folder: Path, seed: int, options: argparse.Namespace) -> Any:
    """The model of a run, trained if it is not there."""
    if not (folder / "model.safetensors").is_file():
        latlas.train("vae", options.data, latent_dim=options.latent_dim, likelihood="bernoulli",
                     images=options.images, seed=seed, prior_share=0, out=folder)
    return latlas.load(folder, device="cpu").model


def support(model: Any, train: Any, test: Any, pairs: np.ndarray, options: Any,
            rng: Any) -> dict[str, Any]:
    """Share of every path outside the support, per kind of path."""
    known = train.subset(slice(0, CODES))
    codes, x = np.asarray(encoded(model, known), np.float64), in_model_units(model, known)
    ends = np.asarray(encoded(model, test.subset(pairs.ravel())), np.float64).reshape(
        len(pairs), 2, -1)
    plain = geometry.pullback(model)
    share = np.linspace(0, 1, PLACES)[:, None]
    paths = {"straight line": ends[:, :1] + share * (ends[:, 1:] - ends[:, :1])}
    for kind in ("pullback", "uncertain", "density"):
        metric = metric_of(kind, model, codes, x)
        paths[f"geodesic, {kind}"] = geometry.geodesics(
            metric, ends[:, 0], ends[:, 1], segments=options.segments,
            tolerance=1e-6).latents
    extract = feature_extractor(options.features, train, 0)
    real = extract(examples_of(test.subset(rng.permutation(len(test))[:SUPPORT])))
    outside = {}
    for name, path in paths.items():
        places = geometry.resample(path, plain, PLACES)[:, 1:-1]
        images = decoded(model, places.reshape(-1, places.shape[2]))
        outside[name] = (reach(real, extract(images)) > 1).reshape(len(pairs), -1).mean(1)
    at_ends = decoded(model, ends.reshape(-1, ends.shape[2]))
    outside["the ends themselves"] = (reach(real, extract(at_ends)) > 1).reshape(-1, 2).mean(1)
    return {name: {"share": float(values.mean()), **interval(
        outside["straight line"] - values, "gain", rng)} for name, values in outside.items()}


def distances(model: Any, folder: Path, train: Any, test: Any, pairs: np.ndarray, options: Any,
              seed: int) -> dict[str, np.ndarray]:
    """Lengths (pairs,) between the same held-out examples in one run's latents, by kind."""
    file = folder / f"distances-{len(pairs)}-{options.members}-{options.steps}-{options.refit}.npz"
    if file.is_file():
        return dict(np.load(file))
    known = train.subset(slice(0, options.refit))
    a, b = np.asarray(encoded(model, test.subset(pairs.ravel())), np.float64).reshape(
        len(pairs), 2, -1).swapaxes(0, 1)
    z, x = np.asarray(encoded(model, known), np.float64), in_model_units(model, known)
    members = geometry.retrained_decoders(model, z, x.reshape(-1, *model.space.shape),
                                          options.members, steps=options.steps, seed=seed)
    lengths = {"Euclidean": np.linalg.norm(a - b, axis=1)}
    for name, metric in (("one decoder", geometry.pullback(model)),
                         ("ensemble", geometry.ensemble(members))):
        lengths[name] = geometry.geodesics(metric, a, b, segments=16, tolerance=1e-6).length
    np.savez(file, **lengths)
    return lengths


def variation(lengths: list[dict[str, np.ndarray]], rng: Any) -> dict[str, Any]:
    """Coefficients of variation over runs of distances between the same examples."""
    rows = {name: np.stack([run[name] for run in lengths]) for name in lengths[0]}
    return {name: interval(np.std(values, 0, ddof=1) / np.mean(values, 0), "cv", rng)
            for name, values in rows.items()}


def interval(values: np.ndarray, name: str, rng: Any, draws: int = 2000) -> dict[str, float]:
    """Mean, and its 95% interval by bootstrap."""
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {name: float(values.mean()), "low": float(low), "high": float(high)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--latent-dim", type=int, default=2)
    parser.add_argument("--images", type=int, default=720_000, help="that a run learns from")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--distances", type=int, default=100, help="pairs whose lengths vary")
    parser.add_argument("--segments", type=int, default=32, help="of a path whose support counts")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3000, help="of every decoder trained anew")
    parser.add_argument("--refit", type=int, default=20_000, help="codes they are trained on")
    parser.add_argument("--features", default="auto")
    parser.add_argument("--runs-in", default="", help="folder of the runs; a temporary one")
    parser.add_argument("--out", default="", help="JSON of the numbers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
