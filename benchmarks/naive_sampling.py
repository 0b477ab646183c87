"""Why draws from the prior do not estimate log p(x): four estimators, one plot, one table.

    python benchmarks/naive_sampling.py --data mnist.npz                # trains a small VAE first
    python benchmarks/naive_sampling.py --data mnist.npz --run runs/vae-mnist
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import latlas

DRAWS = {"naive": (1, 10, 100, 1_000, 10_000, 100_000), "elbo": (1, 10, 100, 1_000),
         "iw": (1, 10, 100, 1_000, 10_000)}
NAMES = {"naive": "naive: z from the prior", "elbo": "ELBO", "iw": "importance-weighted: z from q",
         "ais": "annealed importance sampling"}
COLOURS = {"naive": "#d55e00", "elbo": "#666666", "iw": "#0072b2", "ais": "#009e73"}
SETTINGS = {"likelihood": "bernoulli", "binarize": "dynamic", "latent_dim": 20, "width": 256,
            "depth": 1, "dropout": 0.0}


def measure(model: Any, data: Any, method: str, draws: int, **more: Any) -> dict[str, Any]:
    """One row: mean over the examples, its effective sample size, the error of one example."""
    start = time.perf_counter()
    scores = latlas.score(model, data, method=method, draws=draws, precision="fp32", **more)
    return {"method": method, "draws": draws, "nats": scores.mean, "examples": scores.nats.tolist(),
            "ess": float(np.median(scores.ess)), "unreliable": float(scores.unreliable.mean()),
            "se": float(np.median(scores.se)), "seconds": time.perf_counter() - start,
            "acceptance": scores.acceptance}


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Against the number of draws: the mean estimate, its upper end, the effective sample size."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, (whole, top, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    most = max(r["draws"] for r in rows)
    for method, colour in COLOURS.items():
        mine = [r for r in rows if r["method"] == method]
        draw = _line if method == "ais" else _curve
        for panel in (whole, top):
            draw(panel, mine, "nats", colour, NAMES[method])
        if method != "elbo":
            draw(right, mine, "ess", colour, "_")
    right.plot([1, most], [1, most], ":", color="#999999", label="as many as draws")
    right.axhspan(0.9, 10, color="#d55e00", alpha=0.08, label="unreliable: under 10")
    for panel in (whole, top, right):
        panel.set(xscale="log", xlabel="draws of z per example", ylabel="mean log p(x), nats")
    best, bound = (max(r["nats"] for r in rows if r["method"] in m) for m in (COLOURS, ("elbo",)))
    top.set(ylim=(bound - 0.5 * (best - bound), best + 0.2 * (best - bound)))
    right.set(yscale="log", ylim=(0.9, 1000), ylabel="median effective sample size")
    whole.legend(frameon=False, fontsize="small", loc="lower right")
    right.legend(frameon=False, fontsize="small", loc=(0.5, 0.7))
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _curve(panel: Any, rows: list[dict[str, Any]], key: str, colour: str, name: str) -> None:
    panel.plot([r["draws"] for r in rows], [r[key] for r in rows], "o-", color=colour, label=name)


def _line(panel: Any, rows: list[dict[str, Any]], key: str, colour: str, name: str) -> None:
    for row in rows:
        panel.axhline(row[key], ls="--", color=colour,
                      label=name if name == "_" else f"{name}, {row['draws']} chains")


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a row per method and number of draws."""
    lines = ["| method | draws | mean log p(x), nats | median se of an example | median ESS | "
             "examples with ESS < 10 | s |", "| --- " * 7 + "|"]
    for row in rows:
        ess, few = ((f"{row['ess']:.1f}", f"{row['unreliable']:.0%}") if row["method"] != "elbo"
                    else ("—", "—"))
        se = f"{row['se']:.3f}" if row["draws"] > 1 else "—"
        lines.append(f"| {row['method']} | {row['draws']:,} | {row['nats']:.2f} | {se} | {ess} | "
                     f"{few} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Train or load a model, estimate with every method, write the plot, print the table."""
    options = argparse.ArgumentParser(description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", default="digits")
    options.add_argument("--run", type=Path, help="a trained VAE; default: train one")
    options.add_argument("--images", default="500k", help="budget of the VAE")
    options.add_argument("--examples", type=int, default=100, help="test examples")
    options.add_argument("--chains", type=int, default=16, help="of annealed importance sampling")
    options.add_argument("--temperatures", type=int, default=1000)
    options.add_argument("--threads", type=int, default=1, help="of the training")
    options.add_argument("--plot", type=Path, default=Path("docs/images/likelihood-estimators.png"))
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    run = latlas.load(args.run) if args.run else latlas.train(
        "vae", args.data, images=args.images, progress=False, threads=args.threads,
        **SETTINGS)
    model = run.model
    data = latlas.open_data(args.data, "test", like=run).subset(slice(0, args.examples))
    asked_for = [(m, k, {}) for m, every in DRAWS.items() for k in every]
    annealing = ("ais", args.chains, {"temperatures": args.temperatures})
    rows = []
    for method, draws, more in [*asked_for, annealing]:
        rows.append(measure(model, data, method, draws, **more))
        print({k: v for k, v in rows[-1].items() if k != "examples"}, flush=True)
    plot(rows, f"{Path(args.data).stem}: {len(data)} held-out examples, a VAE with "
         f"{model.latent_dim} latent dimensions", args.plot)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
