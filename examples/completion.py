"""Half a digit is given; a conditional VAE draws the rest, pix2pix says what it most likely is.

    python examples/completion.py
    python examples/completion.py --data mnist.npz --part top --images 1e6 --pairs 1e5

Writes a row for each of eight held-out images: what is given, five draws of the conditional VAE,
the one answer of pix2pix, the truth.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import latlas
from latlas.data import open_pair, open_source, split
from latlas.data.dataset import make
from latlas.verbs.write import write_examples

ROWS, DRAWS = 8, 5


def main() -> None:
    """Train on halves, complete halves that were never seen."""
    args = arguments()
    source = open_source(args.data)
    model = latlas.train("conditional-vae", source, condition="part", part=args.part,
                         images=int(args.images)).model
    truth = split(source, "test").subset(slice(0, ROWS)).take("x")
    given = hidden(truth, args.part)
    drawn = [latlas.sample(model, ROWS, seed=seed, given=truth) for seed in range(DRAWS)]
    answer = latlas.translate(translator(source, args), given)
    rows = np.stack([given, *(completed(given, x, args.part) for x in (*drawn, answer)), truth], 1)
    print(write_examples(args.out, rows.reshape(-1, *model.space.shape), model.space,
                         columns=DRAWS + 3))


def translator(source: Any, args: argparse.Namespace) -> Any:
    """pix2pix from halves to wholes."""
    whole = source.base
    halves = replace(whole, x=hidden(whole.x, args.part))
    pairs = open_pair(make("halves", halves), make("wholes", whole), paired=True)
    return latlas.train("pix2pix", pairs, images=int(args.pairs), batch_size=16, width=32,
                        learning_rate=1e-3).model


def known(x: Any, part: str) -> Any:
    """True where a pixel of images (n, C, H, W) is given."""
    rows, columns = np.indices(x.shape[-2:])
    middle = {"top": x.shape[-2] // 2, "left": x.shape[-1] // 2}[part]
    return (rows if part == "top" else columns) < middle


def hidden(x: Any, part: str) -> Any:
    """The images with black where nothing is given."""
    return np.where(known(x, part), x, 0).astype(x.dtype)


def completed(given: Any, output: Any, part: str) -> Any:
    """What was given beside what was drawn."""
    return np.where(known(given, part), given, output)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="a source of images")
    parser.add_argument("--part", choices=("left", "top"), default="left", help="what is given")
    parser.add_argument("--images", type=float, default=40_000, help="for the VAE to train on")
    parser.add_argument("--pairs", type=float, default=10_000, help="for pix2pix to train on")
    parser.add_argument("--out", type=Path, default=Path("runs/completion.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
