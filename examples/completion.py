"""Half a digit is given, a conditional VAE draws the rest.

    python examples/completion.py
    python examples/completion.py --data mnist.npz --part top --images 1_000_000

Writes a row for each of eight held-out pictures: what is given, five completions, the truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import latlas
from latlas.data import open_source, split
from latlas.tasks.output import write_items

ROWS, DRAWS = 8, 5


def main() -> None:
    """Train on halves, complete halves that were never seen."""
    asked = arguments()
    source = open_source(asked.data)
    model = latlas.train("conditional-vae", source, condition="part", part=asked.part,
                         images=int(asked.images)).model
    truth = split(source, "test").subset(slice(0, ROWS)).take("x")
    given = hidden(truth, asked.part)
    completions = [kept(given, latlas.sample(model, ROWS, seed=seed, given=truth), asked.part)
                   for seed in range(DRAWS)]
    rows = np.stack([given, *completions, truth], 1)
    print(write_items(asked.out, rows.reshape(-1, *model.space.shape), model.space,
                      columns=DRAWS + 2))


def known(x: Any, part: str) -> Any:
    """True where a pixel of pictures (n, C, H, W) is given."""
    rows, columns = np.indices(x.shape[-2:])
    middle = {"top": x.shape[-2] // 2, "left": x.shape[-1] // 2}[part]
    return (rows if part == "top" else columns) < middle


def hidden(x: Any, part: str) -> Any:
    """The pictures with black where nothing is given."""
    return np.where(known(x, part), x, 0).astype(x.dtype)


def kept(given: Any, made: Any, part: str) -> Any:
    """What was given beside what was drawn."""
    return np.where(known(given, part), given, made)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="a source of pictures")
    parser.add_argument("--part", choices=("left", "top"), default="left", help="what is given")
    parser.add_argument("--images", type=float, default=200_000, help="items to train on")
    parser.add_argument("--out", type=Path, default=Path("runs/completion.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
