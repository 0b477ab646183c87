"""Flicker of translated clips, with the temporal term of `cycle-gan` and without it.

Clips are digits that turn and drift by a known motion. One domain has upright digits as they are;
the other has digits on coloured paper, as in ``translation.py digits``; no digit is in both. Both
are smoothed a little (σ 0.7 pixels), so that motion by fractions of a pixel loses nothing. Every
row trains for the same time from the same seed. Flicker is the mean difference of a translated
frame and the previous one after the known motion, where the previous frame shows the place. A
classifier, trained on real frames of the target domain, measures whether digits keep their class.
The last line has the same metrics of the target domain's real clips, and of training examples in
place of samples.

    python benchmarks/frames.py mnist.npz --minutes 20

Rows can be trained separately (``--models plain``) and tabulated later: finished runs are read. A
strip of clips is written beside the runs; above each row is its input.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import image_classifier, metrics_table, run_arguments, trained, write_json
from numpy.typing import NDArray
from scipy import ndimage
from translation import QUICK, SMOOTH, cost, mean, target_parts, textured, titled, write_columns

import latlas
from latlas.core import motion
from latlas.core.space import Images
from latlas.data import PairSource, open_pair, open_source, split
from latlas.data.dataset import Dataset, make, partition
from latlas.metrics.paired import flicker
from latlas.metrics.table import KINDS, Metric
from latlas.verbs.translating import translated

#: row → its settings beside those
ROWS: dict[str, dict[str, Any]] = {"temporal": {}, "plain": {"temporal": 0.0}}
#: frames of a clip; pixels a side of a frame, and of the canvas it is a window of
FRAMES, SIDE, CANVAS = 8, 28, 44
#: at most: radians and pixels from frame to frame; the turn in the middle of a clip deviates by 0.1
TURN, DRIFT, TILT = 0.12, 0.6, 0.1
#: clips of the strip
SHOWN = 4
Pictures = NDArray[np.uint8]


def main() -> None:
    """Train or read every row, evaluate it in both directions, and tabulate."""
    options = arguments()
    source, motions_of = two_domains(options.data, options.clips)
    print(f"{len(split(source, 'train')) // FRAMES:,} clips of each domain to train on", flush=True)
    readers = {to: image_classifier(*target_parts(source, to), options, f"real test frames of {to}")
               for to in "BA"}
    runs = {row: trained(row, "cycle-gan", source, options, **QUICK, **ROWS[row])
            for row in options.models}
    results: dict[str, dict[str, Metric]] = {}
    for to in "BA":
        of = {f"{row} to {to}": cost(run) | direction(run, source, to, motions_of, readers[to],
                                                      options) for row, run in runs.items()}
        print("\n" + metrics_table(of, f"real examples of {to}"), flush=True)
        _share(of, to)
        results |= of
    write_json(options.json, {"settings": {k: str(v) for k, v in vars(options).items()},
                              "measured": {row: {t: f.to_json() for t, f in metrics.items()}
                                           for row, metrics in results.items()}})


def _share(of: dict[str, dict[str, Metric]], to: str) -> None:
    title = KINDS["flicker"].title
    values = [of[f"{row} to {to}"][title].value for row in ROWS if f"{row} to {to}" in of]
    if len(values) == len(ROWS):
        print(f"to {to}: {values[0] / values[1]:.3f} of the flicker without the term (target: 0.6)")


# ------------------------------------------------------------------------------ clips

def two_domains(path: Path, most: int) -> tuple[PairSource, dict[str, NDArray[np.float32]]]:
    """Clips of digits as they are and of painted ones, and the motion (N, 2, 3) of every frame of
    a domain from the one before it."""
    opened = open_source(str(path))
    base, rows = opened.base, partition(opened)
    order = np.random.default_rng(0).permutation(rows["train"])[:2 * most]
    halves = [np.sort(order[i::2]) for i in (0, 1)]
    sides, motions_of = [], {}
    for name, half, paint in zip("AB", halves, (None, textured), strict=True):
        chosen = [half, rows["test"][:len(half) // 8]]
        data, motions_of[name] = clips(base, np.concatenate(chosen), paint, "AB".index(name))
        cut = len(half) * FRAMES
        sides.append(make(name, data, parts={"train": np.arange(cut),
                                             "test": np.arange(cut, len(data))}))
    return open_pair(*sides), motions_of


def clips(base: Dataset, rows: NDArray[np.int64], paint: Any, seed: int) -> tuple[
        Dataset, NDArray[np.float32]]:
    """A clip of every digit, painted by ``paint``, and the motions; rows of the result are clip by
    clip."""
    pad = (CANVAS - base.x.shape[2]) // 2
    canvas = np.pad(base.x[rows], [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    canvas = canvas if paint is None else paint(canvas)
    canvas = ndimage.gaussian_filter(canvas, (0, 0, SMOOTH, SMOOTH), mode="nearest")
    motions = random_motions(len(rows), seed)
    before = motions[:, :-1].flatten(0, 1)
    back = torch.linalg.inv(before[:, :, :2])
    undone = torch.cat([back, -back @ before[:, :, 2:]], 2)
    step = motion.after(motions[:, 1:].flatten(0, 1), undone)
    still = torch.eye(2, 3).expand(len(rows), 1, 2, 3)
    moved = torch.cat([still, step.unflatten(0, (len(rows), FRAMES - 1))], 1).flatten(0, 1)
    clip = np.repeat(np.arange(len(rows)), FRAMES)
    x = np.concatenate([filmed(canvas[i], motions[i]) for i in range(len(rows))])
    space = Images(x.shape[1:], classes=base.space.classes, frames=True)
    data = Dataset(x, space, base.label[rows][clip], group=clip, clip=clip)
    return data, moved.numpy().astype(np.float32)


def random_motions(n: int, seed: int) -> torch.Tensor:
    """Motions (n, FRAMES, 2, 3) from places in every frame of a clip to places on its canvas."""
    rng = np.random.default_rng([seed, n])
    time = np.arange(FRAMES) - (FRAMES - 1) / 2
    turn, across, down = (rng.uniform(-most, most, (n, 1)) for most in (TURN, DRIFT, DRIFT))
    angles = turn * time + rng.normal(0, TILT, (n, 1))
    angle, across, down = (torch.from_numpy(v).float().flatten() for v in (
        angles, across * time, down * time))
    cos, sin = angle.cos(), angle.sin()
    motions = torch.stack([torch.stack([cos, -sin, across], 1),
                           torch.stack([sin, cos, down], 1)], 1)
    return motions.unflatten(0, (n, FRAMES))


def filmed(canvas: Pictures, motions: torch.Tensor) -> Pictures:
    """Frames (FRAMES, C, SIDE, SIDE) of a canvas (C, CANVAS, CANVAS) that moves."""
    large = torch.from_numpy(canvas).float().expand(FRAMES, *canvas.shape)
    edge = (CANVAS - SIDE) // 2
    seen = motion.warped(large, motions)[:, :, edge:-edge, edge:-edge]
    return seen.clamp(0, 255).round().byte().numpy()


# ------------------------------------------------------------------------------ judging

def direction(run: Path, source: PairSource, to: str, motions_of: dict[str, NDArray[np.float32]],
              reader: Any, options: argparse.Namespace) -> dict[str, Metric]:
    """Title to metric of test clips translated to a domain; draws a strip of some."""
    model, test = latlas.load(run, device=options.device).model, split(source, "test")
    seen, other = (test.a, test.b) if to == "B" else (test.b, test.a)
    labels, output = seen.take("label"), translated(model, seen, to=to)
    real = other.take("x"), motions_of[to][other.rows]
    motions = motions_of["A" if to == "B" else "B"][seen.rows]
    results = {
        "flicker": mean("flicker", unsteady(output, motions), float(unsteady(*real).mean())),
        "label_accuracy": mean("label_accuracy", (reader.predict(output) == labels).astype(float),
                               reader.accuracy(real[0], other.take("label")))}
    evaluation = latlas.evaluate(model, source, split="test", metrics=("translation",), to=to,
                                features=reader, samples=options.samples, seed=options.seed)
    results |= {f.key: f for f in evaluation.metrics if f.key in ("cycle", "frechet")}
    path = run.with_name(f"{run.name}-to-{to}.png")
    n = min(SHOWN, len(seen) // FRAMES)
    rows = [np.broadcast_to(x[:n * FRAMES], (n * FRAMES, 3, SIDE, SIDE)).reshape(
        n, FRAMES, 3, SIDE, SIDE) for x in (seen.take("x"), output)]
    write_columns(path, [np.stack(rows, 1).reshape(-1, 3, SIDE, SIDE)], FRAMES)
    print(f"{path}: every second row the translation")
    return titled(results)


def unsteady(x: Pictures, motions: NDArray[np.float32]) -> NDArray[np.float64]:
    """Flicker (clips · (FRAMES − 1),) of clips one after the other."""
    later = np.flatnonzero(np.arange(len(x)) % FRAMES)
    return flicker(x[later - 1], x[later], motions[later], 255.0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = run_arguments((__doc__ or "").splitlines()[0], list(ROWS), minutes=20.0,
                           out="runs/frames")
    parser.add_argument("data", type=Path, help="grey images with labels (mnist.npz)")
    parser.add_argument("--models", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--clips", type=int, default=4000, help="of each domain, to train on")
    parser.add_argument("--samples", type=int, default=2000, help="a side, at most")
    parser.add_argument("--classifier-steps", type=int, default=0,
                        help="steps of the classifiers; 0: as `latlas evaluate`")
    return parser.parse_args()


if __name__ == "__main__":
    main()
