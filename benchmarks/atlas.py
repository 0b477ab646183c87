"""Does an atlas cover what one chart cannot? ``atlas-vae`` beside a VAE of equal width and depth.

A sphere and a torus in space, by held-out points and the charts in charge of them: the error of
reconstructions; the distance of samples from the surface; the importance-weighted bound; folds of
the encoder, points where it turns the surface over (the smaller part of a chart); folds of the
decoder, latents beside a fold or under an overlap (:func:`latlas.geometry.chart_checks`); tears,
neighbours on the surface whose way through the chart is five times their distance; on the sphere
geodesics of 32 pairs against great circles. Two rings in the plane, and the eight Gaussians of
``ring``: the share of samples off the support, with a 95 % interval over seeds and samples.

    python benchmarks/atlas.py --seeds 3 --out atlas/
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import table
from numpy.typing import NDArray
from scipy.spatial import cKDTree

import latlas
from latlas.geometry import atlas_geodesics, chart_checks, geodesics, pullback

Array = NDArray[Any]
MODELS = ("vae", "atlas-vae")
#: training examples, held-out ones, samples; radii of the torus; thickness of the rings
EXAMPLES, HELD_OUT, SAMPLES = 10_000, 2_000, 4_000
LARGE, SMALL, THICKNESS = 1.0, 0.4, 0.02


def sphere(n: int, seed: int) -> Array:
    """Even on the unit sphere, (n, 3)."""
    x = np.random.default_rng(seed).standard_normal((n, 3))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def torus(n: int, seed: int) -> Array:
    """Even on a torus, (n, 3): angles around the tube by rejection."""
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(0, 2 * np.pi, (2, 4 * n))
    from_axis = LARGE + SMALL * np.cos(v)
    keep = np.flatnonzero(rng.uniform(0, LARGE + SMALL, 4 * n) < from_axis)[:n]
    x = np.c_[from_axis * np.cos(u), from_axis * np.sin(u), SMALL * np.sin(v)]
    return np.asarray(x[keep], np.float32)


def rings(n: int, seed: int) -> Array:
    """Two rings of radius 1 beside each other, (n, 2)."""
    rng = np.random.default_rng(seed)
    angle, side = rng.uniform(0, 2 * np.pi, n), 2 * rng.integers(0, 2, n) - 1
    x = np.c_[1.5 * side + np.cos(angle), np.sin(angle)]
    return np.asarray(x + THICKNESS * rng.standard_normal((n, 2)), np.float32)


#: distance of points from the surface
SURFACES: dict[str, tuple[Callable[[int, int], Array], Callable[[Array], Array]]] = {
    "sphere": (sphere, lambda x: np.abs(np.linalg.norm(x, axis=1) - 1)),
    "torus": (torus, lambda x: np.abs(np.hypot(
        np.hypot(x[:, 0], x[:, 1]) - LARGE, x[:, 2]) - SMALL))}
_ANGLE = np.arange(8) * np.pi / 4
#: distance of points from the middle of the support, and its standard deviation
SUPPORTS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "rings": (lambda x: np.abs(np.hypot(np.abs(x[:, 0]) - 1.5, x[:, 1]) - 1), THICKNESS),
    "ring": (lambda x: np.linalg.norm(
        x[:, None] - np.c_[np.cos(_ANGLE), np.sin(_ANGLE)], axis=2).min(1), 0.01)}


def main() -> None:
    """Train, measure, print two tables, draw two figures."""
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [row for name in SURFACES for row in surface_rows(name, options)]
    print(table(["surface", "model", "weights", "bound, nats", "error of reconstructions: median",
                 "99%", "samples off the surface: median", "99%", "folds of the encoder",
                 "folds of the decoder", "tears",
                 "error of geodesics: median", "largest"], rows), "\n", flush=True)
    print(table(["support", "model", "samples off the support", "95% interval"],
                [row for name in SUPPORTS for row in support_rows(name, options)]))


def trained(model: str, data: Any, seed: int, options: argparse.Namespace, **settings: Any) -> Any:
    """The model, of the options' width and the default depth."""
    charts = {"n_charts": options.charts} if model == "atlas-vae" else {}
    return latlas.train(model, data, images=options.images, width=options.width, threads=1,
                        device="cpu", precision="fp32", progress=False, seed=seed, **charts,
                        **settings).model


def surface_rows(name: str, options: argparse.Namespace) -> list[list[str]]:
    """One row a model; a figure of the charts."""
    points, distance = SURFACES[name]
    held_out, rows = points(HELD_OUT, 1), []
    for model_name in MODELS:
        model = trained(model_name, points(EXAMPLES, 0), 0, options, latent_dim=2)
        x = torch.as_tensor(model.space.to_model(held_out)).float()
        with torch.no_grad():
            back = model.space.to_data(model.decode(model.encode(x).mean).mean).numpy()
        error = np.linalg.norm(back - held_out, axis=1)
        off = distance(latlas.sample(model, SAMPLES, seed=1).values)
        bound = latlas.score(model, held_out, method="iw").nats.mean()
        lengths = [np.quantile(v, q) for v in (error, off) for q in (0.5, 0.99)]
        shares = [*folds_and_tears(model, held_out, name)]
        if name == "sphere":
            shares += np.quantile(against_great_circles(model, x), (0.5, 1)).tolist()
        rows.append([name, model_name, f"{sum(p.numel() for p in model.parameters()):,}",
                     f"{bound:.2f}", *(f"{v:.4f}" for v in lengths),
                     *(f"{v:.2%}" for v in shares)] + [""] * (5 - len(shares)))
        print(*rows[-1], flush=True)
        if model_name == "atlas-vae":
            draw_charts(model, held_out, options.out / f"{name}.png")
    return rows


def charts_of(model: Any, x: torch.Tensor) -> Iterator[tuple[Any, Any, Array]]:
    """Encoder and decoder of every chart, and the rows of the examples it is in charge of; a VAE
    has one chart, of all. Float64."""
    twin: Any = deepcopy(model).double().eval().requires_grad_(False)
    if not hasattr(twin, "n_charts"):
        yield lambda x: twin.encode(x).mean, lambda z: twin.decode(z).mean, np.arange(len(x))
        return
    chart = np.asarray(twin.encode_chart(x)[0])
    for k in np.flatnonzero(np.bincount(chart) > 1).tolist():
        yield (lambda x, k=k: twin.encode_chart(x, k)[1],
               lambda z, k=k: twin.decode_chart(k, z).mean, np.flatnonzero(chart == k))


def folds_and_tears(model: Any, points: Array, surface: str) -> tuple[float, float, float]:
    """Shares of the points: folds of the encoder, folds of the decoder, tears."""
    outward = torch.as_tensor(points).double()
    if surface == "torus":
        ring = outward[:, :2] / outward[:, :2].norm(dim=1, keepdim=True)
        outward = (outward - LARGE * torch.cat([ring, 0 * ring[:, :1]], 1)) / SMALL
    first = torch.linalg.cross(outward, outward.roll(1, 1))
    first = first / first.norm(dim=1, keepdim=True)
    tangents = torch.stack([first, torch.linalg.cross(outward, first)])
    x = model.space.to_model(torch.as_tensor(points).double()).double()
    near = model.space.to_model(torch.as_tensor(points).double() + 1e-5 * tangents).double()
    neighbour = cKDTree(np.asarray(x)).query(np.asarray(x), 5)[1][:, 4]
    counts = np.zeros(3)
    for encode, decode, rows in charts_of(model, x):
        z, metric = encode(x[rows]), pullback(decode)
        turned = np.asarray(torch.linalg.det(
            torch.stack([encode(t[rows]) - z for t in near], 2))) < 0
        share = torch.linspace(0, 1, 33, dtype=z.dtype)[:, None]
        way = z[:, None] + share * (encode(x[neighbour[rows]]) - z)[:, None]
        torn = metric.length(way) > 5 * np.asarray((x[rows] - x[neighbour[rows]]).norm(dim=1))
        counts += [min(turned.sum(), (~turned).sum()), chart_checks(metric, z).folds, torn.sum()]
    return tuple((counts / len(x)).tolist())


def against_great_circles(model: Any, x: torch.Tensor, pairs: int = 32) -> Array:
    """Relative errors of the lengths of geodesics between held-out points of the sphere."""
    a, b = x[:pairs], x[pairs:2 * pairs]
    ends = [model.space.to_data(v).double().numpy() for v in (a, b)]
    exact = 2 * np.arcsin(np.linalg.norm(ends[0] - ends[1], axis=1) / 2)
    if hasattr(model, "n_charts"):
        length = atlas_geodesics(model, a, b, landmarks=x, neighbours=15).length
    else:
        with torch.no_grad():
            codes = model.encode(x).mean
        length = geodesics(pullback(model), codes[:pairs], codes[pairs:2 * pairs]).length
    # model units: columns have nearly the same scale
    return np.abs(length * float(np.mean(model.space.scale)) / exact - 1)


def support_rows(name: str, options: argparse.Namespace) -> list[list[str]]:
    """One row a model: the share over all seeds, and a bootstrap over seeds and samples."""
    distance, sd = SUPPORTS[name]
    rows, samples = [], {}
    for model in MODELS:
        off = []
        for seed in range(options.seeds):
            data = "ring" if name == "ring" else rings(EXAMPLES, seed)
            samples[model] = latlas.sample(trained(model, data, seed, options), SAMPLES,
                                           seed=seed + 1).values
            off.append(distance(samples[model]) > 5 * sd)
        rng, every = np.random.default_rng(0), np.stack(off)
        means = [np.mean([rng.choice(every[seed], SAMPLES).mean()
                          for seed in rng.integers(len(every), size=len(every))])
                 for _ in range(300)]
        low, high = np.quantile(means, (0.025, 0.975))
        rows.append([name, model, f"{every.mean():.2%}", f"{low:.2%} … {high:.2%}"])
    figure, axes = plt.subplots(1, len(MODELS), figsize=(8, 3), sharex=True, sharey=True)
    for axis, (model, points) in zip(axes, samples.items(), strict=True):
        axis.scatter(*points.T, s=1, alpha=0.3)
        axis.set(title=model, aspect="equal")
    figure.savefig(options.out / f"{name}.png", dpi=90, bbox_inches="tight")
    plt.close(figure)
    return rows


def draw_charts(model: Any, points: Array, path: Path) -> None:
    """Held-out points by chart, and beside them the grid of each chart over its own latents."""
    with torch.no_grad():
        chart, z = model.encode_chart(torch.as_tensor(model.space.to_model(points)).float())
    columns = (model.n_charts + 2) // 2
    figure, size = plt.figure(figsize=(2.6 * columns, 5)), np.abs(points).max()
    axes = [figure.add_subplot(2, columns, i + 1, projection="3d", xlim=(-size, size),
                               ylim=(-size, size), zlim=(-size, size))
            for i in range(model.n_charts + 1)]
    axes[0].scatter(*points.T, c=[f"C{k}" for k in chart], s=3)
    ticks = torch.linspace(-2.5, 2.5, 26)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1)
    for k, axis in enumerate(axes[1:]):
        with torch.no_grad():
            surface = model.space.to_data(model.decode_chart(k, grid).mean).numpy()
            empty = torch.cdist(grid, z[chart == k][None]).amin(-1) > 0.4
        surface[empty.numpy()] = np.nan
        axis.plot_wireframe(*np.moveaxis(surface, -1, 0), linewidth=0.5, color=f"C{k}")
        axis.set_title(f"chart {k}: {int((chart == k).sum())}", fontsize=8)
    for axis in axes:
        axis.set_axis_off()
        axis.set_box_aspect((1, 1, 1))
    figure.savefig(path, dpi=90, bbox_inches="tight")
    plt.close(figure)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500_000, help="examples a model learns from")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--charts", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1, help="of models of rings")
    parser.add_argument("--out", type=Path, default=Path("atlas"), help="folder of figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
