"""Day to night and back, without pairs: cycle-gan learns from two heaps of images.

    python examples/recolouring.py                    # coloured digits by day and by night
    python examples/recolouring.py day/ night/ --image-size 64 --minutes 60

Writes a row of day, the same by night and by day again for each of 24 held-out images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import latlas
from latlas.core.space import Images
from latlas.data import open_pair, open_source, split
from latlas.data.dataset import Dataset
from latlas.verbs.write import write_examples

#: of the digits, so that they take seconds
QUICK = {"batch_size": 16, "network": "unet", "width": 16, "learning_rate": 1e-3}


def main() -> None:
    """Train on two heaps, translate images that were never seen there and back."""
    args = arguments()
    sides = args.folders or (digits(0, (40, 110, 190), 1.0), digits(1, (10, 10, 40), 0.5))
    source = open_pair(*sides, **({"image_size": args.image_size} if args.folders else {}))
    how = {"minutes": args.minutes} if args.folders else {"images": int(args.images), **QUICK}
    model = latlas.train("cycle-gan", source, out=args.run, **how).model
    day = split(source, "test").a.subset(slice(0, 24))
    night = latlas.translate(model, day, to="B").values
    again = latlas.translate(model, Dataset(night, model.space.b), to="A").values
    rows = np.stack([day.take("x"), night, again], 1)
    print(write_examples(args.out, rows.reshape(-1, *rows.shape[2:]), model.space.a,
                         columns=9))


def digits(half: int, sky: Any, bright: float) -> Any:
    """Every second digit, of 16 pixels, in a colour of its own in front of a sky."""
    data = open_source("digits").base
    ink = data.x[half::2].repeat(2, 2).repeat(2, 3) / 16
    colours = np.random.default_rng(half).uniform(100, 255, (len(ink), 3, 1, 1))
    x = ink * bright * colours + (1 - ink) * np.array(sky)[:, None, None]
    return Dataset(x.round().astype(np.uint8), Images((3, 16, 16)))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", help="two sources of images; default: digits")
    parser.add_argument("--image-size", type=int, default=64, help="pixels a side, of the folders")
    parser.add_argument("--minutes", type=float, default=40.0, help="to train on your own")
    parser.add_argument("--images", type=float, default=4_000, help="to train on, of the digits")
    parser.add_argument("--run", type=Path, help="keep the trained model in this folder")
    parser.add_argument("--out", type=Path, default=Path("runs/recolouring.png"))
    args = parser.parse_args()
    if len(args.folders) not in (0, 2):
        parser.error("name two sources of images, or none")
    return args


if __name__ == "__main__":
    main()
