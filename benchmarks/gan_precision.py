"""Does adversarial training in bf16 go as in fp32? Both penalties on, the same images and seed.

The run in bf16 trains for the minutes given, the one in fp32 on as many images. The table has the
adversarial losses, the squared gradients at real examples and at fakes (R1 and R2), and the
gradient norms of both networks, as means over tenths of the run; and the Fréchet distance of
samples at the end. ``--curves`` plots them.

    python benchmarks/gan_precision.py fashion_mnist.npz --minutes 20 --curves docs/images

A processor without bf16 instructions emulates convolutions in bf16, ten to twenty times as slowly
as in fp32. ``--widened`` computes every product of bf16 numbers in fp32 and rounds the result to
bf16. The instructions do the same, with sums in fp32, but for the order of the sums. The course of
training is then that of bf16; the time is not.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import image_classifier, run_arguments, spent, table, trained, write_json
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import latlas
from latlas.data import open_source, split
from latlas.render import plots
from latlas.verbs.sections import read_metrics

PRECISIONS = ("bf16", "fp32")
SHOWN = ("discriminator", "generator", "r1", "r2", "gradient/discriminator", "gradient/generator")
PARTS = 10
Curve = tuple[NDArray[Any], NDArray[Any]]
_aten = torch.ops.aten
PRODUCTS = {_aten.convolution.default, _aten.convolution_backward.default, _aten.mm.default,
            _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default}


class Widened(TorchDispatchMode):
    """Products of bf16 tensors in fp32, their results rounded to bf16."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        halved = func in PRODUCTS and args[0].dtype == torch.bfloat16
        if not halved:
            return func(*args, **(kwargs or {}))
        given = tree_map_only(torch.Tensor, torch.Tensor.float, (args, kwargs or {}))
        return tree_map_only(torch.Tensor, torch.Tensor.bfloat16, func(*given[0], **given[1]))


def main() -> None:
    """Train both, tabulate their courses side by side, and evaluate their samples."""
    options = arguments()
    source = open_source(str(options.data))
    runs: dict[str, Path] = {}
    for precision in PRECISIONS:
        if runs:
            options.set.append((precision, "images", spent(runs["bf16"])[1]))
        with Widened() if options.widened and precision == "bf16" else nullcontext():
            runs[precision] = trained(precision, "gan", source, options, precision=precision)
    results = {name: read_metrics(run) for name, run in runs.items()}
    for key in SHOWN:
        parts = {name: tenths(*curves[key]) for name, curves in results.items()}
        print(f"\n{key}\n" + table(["share of the run", *parts], [
            [f"{(k + 1) / PARTS:.0%}", *(part[k] for part in parts.values())]
            for k in range(PARTS)]))
        if options.curves:
            draw(options.curves, key, {name: curves[key] for name, curves in results.items()})
    features = image_classifier(split(source, "train"), split(source, "test"), options,
                                "test images")
    rows = []
    for name, run in runs.items():
        distance = latlas.evaluate(run, source, split="test", metrics=("samples",),
                                   features=features, samples=options.samples).get("frechet")
        minutes, images = spent(run)
        rows.append([name, f"{minutes:.1f}", f"{images:,}", distance.text()])
    print("\n" + table(["", "minutes", "images seen", "Fréchet distance"], rows))
    write_json(options.json, {"settings": {k: str(v) for k, v in vars(options).items()},
                              "measured": rows})


def tenths(at: NDArray[Any], values: NDArray[Any]) -> list[str]:
    """Means of the values over the parts of a run, where there are any."""
    parts = np.array_split(np.arange(len(at)), np.searchsorted(at, np.linspace(
        0, at[-1], PARTS + 1)[1:-1], side="right"))
    return [f"{values[part].mean():.3f}" if len(part) else "–" for part in parts]


def draw(folder: Path, key: str, curves: dict[str, Curve]) -> None:
    """``gan-precision-KEY.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gan-precision-{key.replace('/', '-')}.png"
    path.write_bytes(plots.curves(curves, x="images seen", y=key))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = run_arguments((__doc__ or "").splitlines()[0], PRECISIONS, minutes=20.0,
                           out="runs/gan-precision")
    parser.add_argument("data", type=Path, help="images with labels (mnist.npz)")
    parser.add_argument("--samples", type=int, default=5000, help="images a side, at most")
    parser.add_argument("--classifier-steps", type=int, default=0, help="as in gan_pictures.py")
    parser.add_argument("--widened", action="store_true",
                        help="take products of bf16 numbers in fp32, and round")
    parser.add_argument("--curves", type=Path, help="draw them into this folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
