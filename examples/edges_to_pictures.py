"""Images from their edges: pairs are made from images alone, pix2pix learns the way back.

    python examples/edges_to_pictures.py                     # digits, painted from top to bottom
    python examples/edges_to_pictures.py photos/ --image-size 64 --minutes 40

Writes a row of edges, translation and image for each of 24 held-out images.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import latlas
from latlas.core.space import Images
from latlas.data import open_pair, open_source, split
from latlas.data.dataset import make
from latlas.verbs.write import write_examples

STEEP = 80  # of 255: what two neighbours differ by at an edge
TOP, BOTTOM = (250, 220, 60), (200, 30, 160)  # colours of the digits
#: of the digits, so that they take seconds
QUICK = {"batch_size": 16, "width": 16, "learning_rate": 1e-3}
#: of your own, which are few: the inner levels of a deep U-Net would learn them by heart
FEW = {"depth": 2, "blocks": 6, "width": 48, "discriminator_width": 16, "l1": 30.0,
       "learning_rate": 1e-3}


def main() -> None:
    """Make pairs, train on them, translate edges that were never seen."""
    args = arguments()
    images = source_of(args).base
    edges = replace(images, x=edges_of(images.x), space=Images(
        (1, *images.space.shape[1:])))
    pairs = open_pair(make("edges", edges), make("images", images), paired=True)
    how = ({"minutes": args.minutes, **FEW} if args.folder
           else {"images": int(args.images), **QUICK})
    model = latlas.train("pix2pix", pairs, out=args.run, **how).model
    unseen = split(pairs, "test").subset(slice(0, 24))
    columns = [unseen.a.take("x"), latlas.translate(model, unseen).values, unseen.b.take("x")]
    print(write_examples(args.out, side_by_side(columns), model.space.b,
                         columns=3 * len(columns)))


def source_of(args: argparse.Namespace) -> Any:
    """Images of a folder or zip on white, or digits of 16 pixels, painted, on black."""
    if args.folder is not None:
        return open_source(args.folder, image_size=args.image_size, mode="RGB")
    digits = open_source("digits").base
    ink = digits.x.repeat(2, 2).repeat(2, 3) / 16
    x = (ink * np.linspace(TOP, BOTTOM, 16).T[:, :, None]).astype(np.uint8)
    return make("digits", replace(digits, x=x, space=Images((3, 16, 16))))


def edges_of(x: Any) -> Any:
    """White where the pixel to the right or below is another: (n, C, H, W) to (n, 1, H, W)."""
    levels = x.astype(np.int16)
    steps = [np.abs(np.diff(levels, axis=axis, append=np.take(levels, [-1], axis))).max(1)
             for axis in (2, 3)]
    return np.where(np.maximum(*steps) > STEEP, 255, 0).astype(np.uint8)[:, None]


def side_by_side(columns: list[Any]) -> Any:
    """Images (n, C, H, W) of several kinds in turn, all in three channels."""
    coloured = [np.broadcast_to(x, (len(x), 3, *x.shape[2:])) for x in columns]
    return np.stack(coloured, 1).reshape(-1, *coloured[0].shape[1:])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="a folder or zip; default: digits")
    parser.add_argument("--image-size", type=int, default=64,
                        help="pixels a side, of the folder's")
    parser.add_argument("--minutes", type=float, default=40.0, help="to train on your own")
    parser.add_argument("--images", type=float, default=8_000, help="to train on, of the digits")
    parser.add_argument("--run", type=Path, help="keep the trained model in this folder")
    parser.add_argument("--out", type=Path, default=Path("runs/edges-to-pictures.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
