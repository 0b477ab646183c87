"""Quality against the number of latent dimensions: PCA, AE and VAE on held-out examples.

Draws one plot and prints one table.

    python benchmarks/code_size.py                              # the embedded digits, minutes
    python benchmarks/code_size.py --data mnist.npz --images 3M
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import latlas

SIZES = (1, 2, 4, 8, 16, 32)
MODELS = ("pca", "ae", "vae")
COLOURS = {"pca": "#666666", "ae": "#0072b2", "vae": "#d55e00"}


def measure(model: str, size: int, data: str, images: str, draws: int, seed: int) -> dict[str, Any]:
    """Train one model; squared error per scalar (range 0–1) and bits/dim on the test examples."""
    settings = {} if model == "pca" else {"images": images, "seed": seed}
    done = latlas.train(model, data, latent_dim=size, progress=False, **settings)
    test = latlas.open_data(data, "test", like=done.model)
    span = max(1, (done.model.space.levels or 2) - 1)
    error = (latlas.reconstruct(done.model, test).astype(float) - test.take("x")) / span
    row = {"model": model, "size": size, "mse": float(np.square(error).mean())}
    if model != "ae":
        scores = latlas.score(done.model, test, draws=draws)
        bits = scores.bits_per_dim
        row |= {"bits_per_dim": float(bits.mean()),
                "standard_error": float(bits.std(ddof=1) / np.sqrt(len(bits)))}
    return row


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Two panels: squared error and bits per dimension against the size of the code."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for panel, key, label in zip(panels, ("mse", "bits_per_dim"),
                                 ("squared error per pixel (range 0–1)", "bits per dimension"),
                                 strict=True):
        for model in MODELS:
            points = [(r["size"], r[key]) for r in rows if r["model"] == model and key in r]
            if points:
                panel.plot(*zip(*points, strict=True), "o-", color=COLOURS[model], label=model)
        panel.set_xscale("log", base=2)
        panel.set_xticks(sorted({r["size"] for r in rows}), sorted({r["size"] for r in rows}))
        panel.set_xlabel("size of the code")
        panel.set_ylabel(label)
        panel.legend(frameon=False)
    panels[0].set_yscale("log")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a row per model and size."""
    lines = ["| model | size of the code | squared error | bits/dim |", "| --- | --- | --- | --- |"]
    for row in rows:
        bits = (f"{row['bits_per_dim']:.3f} ± {row['standard_error']:.3f}"
                if "bits_per_dim" in row else "—")
        lines.append(f"| {row['model']} | {row['size']} | {row['mse']:.5f} | {bits} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every model at every size, write the plot, print the table."""
    options = argparse.ArgumentParser(description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", default="digits")
    options.add_argument("--images", default="400k", help="budget of each ae and vae")
    options.add_argument("--draws", type=int, default=200)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--plot", type=Path, default=Path("docs/images/code-size.png"))
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    rows = []
    for model in MODELS:
        for size in args.sizes:
            rows.append(measure(model, size, args.data, args.images, args.draws,
                                args.seed))
            print(rows[-1], flush=True)
    plot(rows, f"{Path(args.data).stem}: held-out examples", args.plot)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
