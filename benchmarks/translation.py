"""Translation: edges to emoji in pairs, digits to coloured ones and back without pairs.

``edges``: images on white, and their edges. The edge detector smooths (σ 0.7 pixels), takes Sobel's
gradient of the steepest channel, and keeps its maxima across the line that are over a threshold, or
over a third of it and joined to such a place. Images are divided by their base code points
(``emoji.py``); 500 are held out. The Fréchet distance of ``spectrum`` (48 numbers) measures blur
and missing colour, that of ``random-conv`` (64) how forms are spread over the image. Rows:
`pix2pix`; the same network with ``adversarial=0`` (the absolute difference alone); and images
without learning: one colour, the L1-best of the training images; the true silhouette filled with
one colour, the L1-best of the training silhouettes; the same with the best colour of each image,
which uses the answer and is no bar. Last line: training images in place of samples.

``digits``: upright digits, and other digits inverted, coloured and textured; no digit is in both
domains. A classifier, trained on real examples of the target domain, measures whether translated
test digits keep their class. The last line has its accuracy on the real test examples of that
domain, and the metrics of training examples in place of samples.

    python benchmarks/translation.py edges noto_emoji_128.zip --minutes 40
    python benchmarks/translation.py digits mnist.npz --minutes 40

Rows can be trained separately (``--models pix2pix``) and tabulated later: finished runs are read.
Sheets are written beside the runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import image_classifier, metrics_table, run_arguments, spent, trained, write_json
from emoji import emoji, of_different_groups
from numpy.typing import NDArray
from scipy import ndimage

import latlas
from latlas.core.space import Images
from latlas.data import PairDataset, PairSource, open_pair, open_source, split
from latlas.data.dataset import Dataset, make, partition
from latlas.metrics import paired
from latlas.metrics.likelihood import summary
from latlas.metrics.table import KINDS, Metric
from latlas.verbs.sample_quality import Cache, metrics_of
from latlas.verbs.translating import translated
from latlas.verbs.write import write_examples

#: of digits: small and quick, so that a processor sees enough of them
QUICK = {"network": "unet", "width": 16, "depth": 2, "batch_size": 4, "learning_rate": 1e-3}
#: of edges: few pairs, which the inner levels of a deep U-Net would learn by heart
FEW = {"depth": 2, "blocks": 6, "width": 48, "discriminator_width": 16, "l1": 30.0,
       "learning_rate": 1e-3, "horizontal_flip": True}
#: recipe → its rows, each a model and its settings
ROWS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "edges": {"pix2pix": ("pix2pix", FEW), "l1-alone": ("pix2pix", FEW | {"adversarial": 0.0})},
    "digits": {"cycle-gan": ("cycle-gan", QUICK)}}
#: of edges, features → metrics among the held-out images
AMONG = {"spectrum": ("frechet", "precision", "recall"), "random-conv": ("frechet", "coverage")}
SHOWN = ("frechet", "kernel", "precision", "recall", "density", "coverage")
#: standard deviation of the smoothing, pixels; of Sobel's slope (at most 1,020) that makes an edge
SMOOTH, STEEP = 0.7, 120.0
#: examples of a sheet
SHEET = 24
Pictures = NDArray[np.uint8]
Found = dict[str, dict[str, Metric]]


def main() -> None:
    """Train or read every row, evaluate it, and tabulate."""
    options = arguments()
    results = {"edges": edges_to_emoji, "digits": both_ways}[options.recipe](options)
    write_json(options.json, {"settings": {k: str(v) for k, v in vars(options).items()},
                              "measured": {row: {t: f.to_json() for t, f in metrics.items()}
                                           for row, metrics in results.items()}})


# ------------------------------------------------------------------------------ edges to emoji

@dataclass(frozen=True)
class Emoji:
    """Pairs of edges and images, and how opaque (N, 1, S, S), 0 … 1, the latter are."""

    source: PairSource
    opaque: NDArray[np.float32]


def edges_to_emoji(options: argparse.Namespace) -> Found:
    """Every row among the held-out images, and a sheet of all beside one another."""
    data = edged(options.data, options.size, options.held_out)
    test = split(data.source, "test")
    print(f"{len(split(data.source, 'train')):,} pairs to train on, {len(test):,} held out",
          flush=True)
    output, costs = dict(unlearnt(data)), {}
    for row in options.models:
        run = trained(row, ROWS["edges"][row][0], data.source, options, **ROWS["edges"][row][1])
        model = latlas.load(run, device=options.device).model
        output[row], costs[row] = translated(model, test.a), cost(run)
    names = [*options.models, *(name for name in output if name not in options.models)]
    results = {name: costs.get(name, {}) | beside(output[name], data.source, options.seed)
             for name in names}
    print("\n" + metrics_table(results, "training images") + "\n")
    _bars(results)
    _sheet(options.out / "edges.png", test, [output[name] for name in names])
    print(f"{options.out / 'edges.png'}: edges | {' | '.join(names)} | image")
    return results


def edged(path: Path, size: int, held: int) -> Emoji:
    """The images with their edges; ``held`` of them are the test part, in whole groups."""
    images = emoji(path, size).base
    test = held_out(images.group, held)
    parts = {"train": np.setdiff1d(np.arange(len(images)), test), "test": test}
    a = replace(images, x=edges(images.x), space=Images((1, size, size)))
    opaque = open_source(str(path), image_size=size, mode="RGBA").base.x[:, 3:].astype(np.float32)
    return Emoji(open_pair(make("edges", a, parts=parts), make("emoji", images, parts=parts),
                           paired=True), opaque / 255)


def held_out(group: NDArray[np.int64], n: int, seed: int = 0) -> NDArray[np.int64]:
    """Rows of whole groups at random, ``n`` in all (fewer where no group fills the rest)."""
    sizes, chosen, total = np.bincount(group), [], 0
    for g in np.random.default_rng(seed).permutation(len(sizes)):
        if total + sizes[g] <= n:
            chosen.append(g)
            total += sizes[g]
    return np.flatnonzero(np.isin(group, chosen))


def edges(x: Pictures) -> Pictures:
    """Edges (n, 1, H, W) of images (n, C, H, W): 255 on thin lines, 0 elsewhere (Canny 1986)."""
    return np.concatenate([_edges(x[i:i + 256]) for i in range(0, len(x), 256)])


def _edges(x: Pictures) -> Pictures:
    smooth = ndimage.gaussian_filter(x.astype(np.float32), (0, 0, SMOOTH, SMOOTH), mode="nearest")
    slopes = np.stack([_slope(smooth, axis) for axis in (2, 3)])
    steepest = np.square(slopes).sum(0).argmax(1)[None, :, None]
    down, right = np.take_along_axis(slopes, steepest, 2)[:, :, 0]
    size = np.hypot(down, right)
    across = [np.maximum(np.roll(size, 1, axis), np.roll(size, -1, axis)) for axis in (1, 2)]
    ridge = size >= np.where(np.abs(down) > np.abs(right), *across)
    flat = np.zeros((3, 3, 3))
    flat[1] = 1  # what touches within an image
    lines = ndimage.label(ridge & (size > STEEP / 3), flat)[0]
    strong = np.unique(lines[ridge & (size > STEEP)])
    return np.where(np.isin(lines, strong[strong > 0]), 255, 0).astype(np.uint8)[:, None]


def _slope(x: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Sobel's, within a plane."""
    eased = ndimage.correlate1d(x, [1, 2, 1], 5 - axis, mode="nearest")
    return ndimage.correlate1d(eased, [-1, 0, 1], axis, mode="nearest")


def unlearnt(data: Emoji) -> Iterator[tuple[str, Pictures]]:
    """What can be made for the test part without learning."""
    train, test = (split(data.source, part).b for part in ("train", "test"))
    white, (seen, true) = np.float32(255), (d.take("x") for d in (train, test))
    inside, shape = data.opaque[train.rows][:, 0] > 0.5, data.opaque[test.rows]
    one = np.median(seen, (0, 2, 3))[:, None, None]
    fill = np.median(np.moveaxis(seen, 1, -1)[inside], 0)[:, None, None]
    own = np.stack([np.median(x[:, part[0] > 0.5], 1) if (part > 0.5).any() else fill[:, 0, 0]
                    for x, part in zip(true, shape, strict=True)])[:, :, None, None]
    yield "one colour", np.broadcast_to(one, true.shape).round().astype(np.uint8)
    for name, colour in (("silhouette, one colour", fill), ("silhouette, its own colour", own)):
        yield name, (white + shape * (colour - white)).round().astype(np.uint8)


def beside(output: Pictures, source: PairSource, seed: int) -> dict[str, Metric]:
    """Title to metric: against the targets, and as samples by two kinds of features."""
    train, test = (split(source, part).b for part in ("train", "test"))
    near = {key: mean(key, measure(output, test.take("x"), 255.0))
            for key, measure in (("l1", paired.l1), ("ssim", paired.ssim))}
    results = titled(near)
    for features, keys in AMONG.items():
        among = metrics_of(output, None, train, test, features, seed, "cpu", [], Cache(None))
        results |= {f"{KINDS[f.key].title}, {features}": f for f in among if f.key in keys}
    return results


def _bars(results: Found) -> None:
    """The targets for pix2pix, in numbers."""
    l1, distance = KINDS["l1"].title, f"{KINDS['frechet'].title}, spectrum"
    controls = [results[name][l1].value for name in ("one colour", "silhouette, one colour")]
    if "pix2pix" in results:
        share = results["pix2pix"][l1].value / min(controls)
        print(f"pix2pix: {share:.3f} of the better control's absolute difference (target: 0.8)")
    if {"pix2pix", "l1-alone"} <= results.keys():
        share = results["pix2pix"][distance].value / results["l1-alone"][distance].value
        print(f"pix2pix: {share:.3f} of the Fréchet distance of L1 alone (target: 0.7)")


def _sheet(path: Path, test: PairDataset, output: list[Pictures]) -> None:
    """Input, every row, and target of examples that are no variants of each other."""
    rows = np.searchsorted(test.a.rows, of_different_groups(test.a, SHEET, 0).rows)
    write_columns(path, [x[rows] for x in (test.a.take("x"), *output, test.b.take("x"))])


# ------------------------------------------------------------------------------ digits both ways

def both_ways(options: argparse.Namespace) -> Found:
    """Every row in both directions, and a sheet of each: example, translation, and back."""
    source = two_domains(options.data)
    train = split(source, "train")
    print(f"{len(train.a):,} upright digits, {len(train.b):,} others", flush=True)
    readers = {to: image_classifier(*target_parts(source, to), options,
                                    f"real test examples of {to}") for to in "BA"}
    runs = {row: trained(row, ROWS["digits"][row][0], source, options, **ROWS["digits"][row][1])
            for row in options.models}
    results: Found = {}
    for to in "BA":
        of = {f"{row} to {to}": cost(run) | direction(run, source, to, readers[to], options)
              for row, run in runs.items()}
        print("\n" + metrics_table(of, f"real examples of {to}"), flush=True)
        results |= of
    return results


def two_domains(path: Path) -> PairSource:
    """Digits as they are, and textured: one half of the training part each."""
    opened = open_source(str(path))
    base, rows = opened.base, partition(opened)
    order = np.random.default_rng(0).permutation(rows["train"])
    halves = [np.sort(order[i::2]) for i in (0, 1)]
    sides = [base, replace(base, x=textured(base.x), space=Images(
        (3, *base.space.shape[1:]), classes=base.space.classes))]
    return open_pair(*(make(name, side, parts={**rows, "train": half}) for name, side, half
                       in zip(("upright", "textured"), sides, halves, strict=True)))


def textured(x: Pictures) -> Pictures:
    """Dark ink of one colour on striped paper of a light one (n, 3, H, W); 255 is all ink."""
    parts = range(0, len(x), 1000)
    return np.concatenate([_textured(x[i:i + 1000], np.random.default_rng(i)) for i in parts])


def _textured(x: Pictures, rng: np.random.Generator) -> Pictures:
    n, (height, width) = len(x), x.shape[2:]
    light, dark = (rng.uniform(low, high, (n, 3, 1, 1)) for low, high in ((0.6, 1), (0, 0.35)))
    angle, waves, phase = (rng.uniform(0, high, (n, 1, 1, 1)) for high in (np.pi, 4, 2 * np.pi))
    down, across = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    along = np.cos(angle) * across + np.sin(angle) * down
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * (2 + waves) * along + phase)
    grain = rng.uniform(-0.05, 0.05, (n, 1, height, width))
    paper, ink = light * (1 - 0.3 * stripes) + grain, x / 255.0
    return (255 * (paper * (1 - ink) + dark * ink)).clip(0, 255).round().astype(np.uint8)


def direction(run: Path, source: PairSource, to: str, reader: Any,
              options: argparse.Namespace) -> dict[str, Metric]:
    """Title to metric of test examples translated to a domain; draws a sheet of some."""
    model, test = latlas.load(run, device=options.device).model, split(source, "test")
    seen, other = (test.a, test.b) if to == "B" else (test.b, test.a)
    labels, output = seen.take("label"), translated(model, seen, to=to)
    result = mean("label_accuracy", (reader.predict(output) == labels).astype(float),
                 reader.accuracy(other.take("x"), other.take("label")))
    results = {"label_accuracy": result}
    if to == "A":  # the upright one is known; of the others any colour is right
        results["l1"] = mean("l1", paired.l1(output, other.take("x"), 255.0))
    evaluation = latlas.evaluate(model, source, split="test", metrics=("translation",), to=to,
                                features=reader, samples=options.samples, seed=options.seed)
    results |= {f.key: f for f in evaluation.metrics if f.key in ("cycle", *SHOWN)}
    first = seen.subset(slice(0, SHEET))
    back = translated(model, Dataset(output[:SHEET], other.space), to="A" if to == "B" else "B")
    path = run.with_name(f"{run.name}-to-{to}.png")
    write_columns(path, [first.take("x"), output[:SHEET], back])
    print(f"{path}: example | translation | back")
    return titled(results)


def target_parts(source: PairSource, to: str) -> list[Dataset]:
    """Training and test part of a domain."""
    parts = [split(source, which) for which in ("train", "test")]
    return [part.b if to == "B" else part.a for part in parts]


# ------------------------------------------------------------------------------ both recipes

def cost(run: Path) -> dict[str, Metric]:
    """What a finished run took."""
    minutes, seen = spent(run)
    return {"minutes": Metric("examples", round(minutes, 1)),
            "images seen": Metric("examples", seen)}


def write_columns(path: Path, columns: list[Pictures], across: int = 3) -> None:
    """Examples (n, C, H, W) of several kinds side by side, ``across`` times that in a row."""
    coloured = [np.broadcast_to(x, (len(x), 3, *x.shape[2:])) for x in columns]
    shown = np.stack(coloured, 1)
    write_examples(path, shown.reshape(-1, *shown.shape[2:]), Images(shown.shape[2:]),
                   columns=across * len(columns))


def mean(key: str, values: NDArray[Any], control: float | None = None) -> Metric:
    """A metric with its standard error."""
    results = summary(values)
    return Metric(key, results.mean, results.standard_error, control)


def titled(metrics: dict[str, Metric]) -> dict[str, Metric]:
    """The same by their titles."""
    return {KINDS[key].title: figure for key, figure in metrics.items()}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = run_arguments((__doc__ or "").splitlines()[0], [r for rows in ROWS.values()
                                                             for r in rows],
                           minutes=40.0, out="runs/translation")
    parser.add_argument("recipe", choices=ROWS)
    parser.add_argument("data", type=Path, help="edges: a zip or folder of emoji_u….png; digits: "
                                                "grey images with labels (mnist.npz)")
    parser.add_argument("--models", nargs="+", metavar="ROW", help="rows of the recipe; default "
                                                                   "all of them")
    parser.add_argument("--size", type=int, default=64, help="edges: pixels a side")
    parser.add_argument("--held-out", type=int, default=500, help="edges: images held out")
    parser.add_argument("--samples", type=int, default=5000, help="digits: a side, at most")
    parser.add_argument("--classifier-steps", type=int, default=0,
                        help="digits: steps of the classifiers; 0: as `latlas evaluate`")
    options = parser.parse_args()
    options.models = options.models or list(ROWS[options.recipe])
    if not set(options.models) <= ROWS[options.recipe].keys():
        parser.error(f"--models: rows of {options.recipe} are {', '.join(ROWS[options.recipe])}")
    return options


if __name__ == "__main__":
    main()
