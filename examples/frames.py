"""Clips from one domain to another and back, steady in time: cycle-gan with its temporal term.

    python examples/frames.py                     # digits that turn and drift, by day and by night
    python examples/frames.py day/ night/ --image-size 64 --minutes 60

Each folder holds clips: sub-folders of frames, GIFs, animated WebP, videos. Writes a GIF of the
first held-out clip by day, a GIF of what it is by night, and says how much such clips flicker.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latlas
from latlas.core import motion
from latlas.core.space import Images
from latlas.data import open_pair, open_source, split
from latlas.data.dataset import Dataset
from latlas.render.films import write_film
from latlas.verbs.evaluate import evaluated
from latlas.verbs.translating import clips_of, translated

#: of the digits, so that they take seconds
QUICK = {"batch_size": 8, "network": "unet", "width": 12, "depth": 2, "learning_rate": 1e-3}
#: clips of a domain, frames of a clip, pixels a side of a frame
CLIPS, FRAMES, SIDE = 60, 6, 16


def main() -> None:
    """Train on clips, translate one that was never seen, and measure its flicker."""
    args = arguments()
    sides = args.folders or (digits(0, (40, 110, 190), 1.0), digits(1, (10, 10, 40), 0.5))
    options = {"image_size": args.image_size, "frames": True} if args.folders else {}
    source = open_pair(*sides, **options)
    how = {"minutes": args.minutes} if args.folders else {"images": int(args.images), **QUICK}
    model = latlas.train("cycle-gan", source, out=args.run, **how).model
    test = split(source, "test")
    day = test.a.subset(clips_of(test.a)[0].frames)
    args.out.mkdir(parents=True, exist_ok=True)
    write_film(args.out / "day.gif", day.take("x"), model.space.a, day.take("duration"))
    write_film(args.out / "night.gif", translated(model, day), model.space.b,
               day.take("duration"))
    results = evaluated(model, train=split(source, "train"), test=test, metrics=["translation"])
    metric = results.get("flicker")
    print(f"{args.out}/night.gif: {metric.text()} of flicker, the input "
          f"{metric.control:.4f}")


def digits(half: int, sky: Any, bright: float) -> Dataset:
    """Every second digit, in a colour of its own in front of a sky, as it turns and drifts."""
    data = open_source("digits").base
    rng = np.random.default_rng(half)
    ink = data.x[half::2][:CLIPS].repeat(2, 2).repeat(2, 3) / 16
    turn, across, down = (torch.from_numpy(rng.uniform(-most, most, (CLIPS, 1)))
                          * (torch.arange(FRAMES) - FRAMES / 2) for most in (0.1, 0.4, 0.4))
    angle, across, down = (part.flatten().float() for part in (turn, across, down))
    motions = torch.stack([torch.stack([angle.cos(), -angle.sin(), across], 1),
                           torch.stack([angle.sin(), angle.cos(), down], 1)], 1)
    frames = torch.from_numpy(ink).repeat_interleave(FRAMES, 0)
    moved = motion.warped(frames, motions).clamp(0, 1).numpy()
    colours = rng.uniform(100, 255, (CLIPS, 3, 1, 1)).repeat(FRAMES, 0)
    x = moved * bright * colours + (1 - moved) * np.array(sky)[:, None, None]
    clip = np.arange(CLIPS).repeat(FRAMES)
    space = Images((3, SIDE, SIDE), frames=True)
    return Dataset(x.round().astype(np.uint8), space, group=clip, clip=clip,
                   duration=np.full(len(x), 80, np.float32))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", help="two sources of clips; default: digits")
    parser.add_argument("--image-size", type=int, default=64, help="pixels a side, of the folders")
    parser.add_argument("--minutes", type=float, default=40.0, help="to train on your own")
    parser.add_argument("--images", type=float, default=2_000, help="to train on, of the digits")
    parser.add_argument("--run", type=Path, help="keep the trained model in this folder")
    parser.add_argument("--out", type=Path, default=Path("runs/frames"), help="folder of the GIFs")
    args = parser.parse_args()
    if len(args.folders) not in (0, 2):
        parser.error("name two sources of clips, or none")
    return args


if __name__ == "__main__":
    main()
