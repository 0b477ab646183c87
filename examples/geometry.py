"""What a latent space's straight lines are worth: a sphere, a swiss roll, digits.

    python examples/geometry.py
    python examples/geometry.py --data mnist.npz --minutes 5

Writes ``sphere.png`` and ``geometry.png`` to the current folder.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import latlas
from latlas import geometry


def sphere(z: torch.Tensor) -> torch.Tensor:
    """A chart of the unit sphere: angle from the pole, longitude. (n, 2) to (n, 3)."""
    return torch.stack([z[:, 0].sin() * z[:, 1].cos(), z[:, 0].sin() * z[:, 1].sin(),
                        z[:, 0].cos()], 1)


def swiss_roll(z: torch.Tensor) -> torch.Tensor:
    """A sheet that is rolled up: angle and height. (n, 2) to (n, 3)."""
    return torch.stack([z[:, 0] * z[:, 0].cos(), z[:, 0] * z[:, 0].sin(), z[:, 1]], 1)


def main() -> None:
    """Two surfaces whose geometry is known, then a decoder that was learnt."""
    args = arguments()

    metric = geometry.pullback(sphere)
    start, end = np.array([[0.5, -1.2]]), np.array([[0.6, 1.3]])
    path = geometry.geodesics(metric, start, end)
    a, b = (sphere(torch.as_tensor(z)).numpy()[0] for z in (start, end))
    print("Sphere: from one place to another")
    print(f"  along a straight line of the chart {path.line[0]:.9f}")
    print(f"  along the geodesic                 {path.length[0]:.9f} ± {path.error[0]:.0e}")
    print(f"  along the great circle, exactly    {np.arccos(a @ b):.9f}")
    draw(path.latents[0], start[0], end[0]).savefig("sphere.png", dpi=120)

    roll = geometry.pullback(swiss_roll)
    z = np.random.default_rng(0).uniform([4.7, 0], [14, 20], (60, 2))
    far = geometry.distances(roll, z, segments=64)
    outside = np.linalg.norm(np.diff(swiss_roll(torch.as_tensor(z)).numpy()[[0, 1]], axis=0))
    label = geometry.k_medoids(far, 3).label
    angle = [z[label == k, 0].mean() for k in range(3)]
    print(f"Swiss roll: two points are {outside:.1f} apart in space and {far[0, 1]:.1f} on the "
          f"sheet; three clusters by geodesic distance lie around the angles "
          f"{', '.join(f'{v:.1f}' for v in sorted(angle))}")

    budget: dict[str, Any] = {"minutes": args.minutes} if args.minutes else {"images": args.images}
    run = latlas.train("vae", args.data, latent_dim=2, seed=0, **budget)
    result = latlas.measure_geometry(run, data=args.data, metric="uncertain", pairs=8)
    result.save("geometry.png")
    print(result.text())
    checks = result.checks
    print(f"As a chart: rank {checks.rank.min()} or more, {checks.folds} of {len(checks.rank)} "
          "codes beside a fold or an overlap")


def draw(path: np.ndarray, start: np.ndarray, end: np.ndarray) -> Figure:
    """Great circle and straight line of the chart, in the chart and on the sphere."""
    line = start + np.linspace(0, 1, len(path))[:, None] * (end - start)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    chart, space = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2, projection="3d")
    u, v = np.meshgrid(np.linspace(0, np.pi, 25), np.linspace(-np.pi, np.pi, 49))
    grid = sphere(torch.as_tensor(np.stack([u.ravel(), v.ravel()], 1))).numpy()
    space.plot_wireframe(*grid.T.reshape(3, *u.shape), color="#cccccc", linewidth=0.4)
    for z, name, colour in ((line, "straight line", "#E69F00"), (path, "geodesic", "#0072B2")):
        chart.plot(z[:, 1], z[:, 0], color=colour, label=name)
        space.plot(*sphere(torch.as_tensor(z)).numpy().T, color=colour, linewidth=2)
    chart.set(xlabel="longitude", ylabel="angle from the pole", title="the chart")
    chart.invert_yaxis()
    chart.legend()
    space.set(title="the sphere")
    space.set_axis_off()
    space.view_init(60, 0)
    return figure


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=float, default=60_000, help="training budget, examples")
    parser.add_argument("--minutes", type=float, default=0.0, help="training budget instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
