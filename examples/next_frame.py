"""The next frame from a still: a conditional VAE draws several, pix2pix has one answer.

    python examples/next_frame.py                              # a ball that turns at random
    python examples/next_frame.py films/ --image-size 32 --images 1e6 --pairs 1e5
    python examples/next_frame.py film.gif

``films/`` holds a folder of frames for each film, in the order of their names. The VAE learns from
both frames under each other, and draws the lower half where the upper one is known. Writes a row
for each of eight held-out stills: the still, five draws, the answer of pix2pix, the true next
frame; prints how near they come. The last films are held out, or, of a single one, its end.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from completion import hidden
from PIL import Image, ImageSequence

import latlas
from latlas.core.space import Images
from latlas.data import open_pair, open_source
from latlas.data.dataset import Dataset, make
from latlas.metrics import paired
from latlas.verbs.write import write_examples

ROWS, DRAWS = 8, 5
SIDE, FILMS, FRAMES = 16, 200, 12  # of the films that are made up
STEPS = np.array([(0, 3), (3, 0), (0, -3), (-3, 0)])  # pixels from one frame to the next


@dataclass(frozen=True)
class Neighbours:
    """Frames (n, C, H, W) and the ones after them, in the films' order; which are held out."""

    still: Any
    following: Any
    parts: dict[str, Any]


def main() -> None:
    """Train both on neighbours, look at stills that were never seen."""
    args = arguments()
    pairs = neighbours(films_of(args))
    unseen = pairs.parts["test"]
    still, truth = pairs.still[unseen], pairs.following[unseen]
    drawn, answer = draws(pairs, still, args), answers(pairs, still, args)
    report(drawn, answer, still, truth)
    rows = np.unique(np.linspace(0, len(still) - 1, ROWS).round().astype(int))
    shown = np.stack([x[rows] for x in (still, *drawn, answer, truth)], 1)
    space = Images(still.shape[1:])
    print(write_examples(args.out, shown.reshape(-1, *space.shape), space, columns=DRAWS + 3))


def draws(pairs: Neighbours, still: Any, args: argparse.Namespace) -> list[Any]:
    """Next frames of a conditional VAE, as often as they are drawn."""
    both = np.concatenate([pairs.still, pairs.following], 2)
    source = make("frames", Dataset(both, Images(both.shape[1:])), parts=pairs.parts)
    model = latlas.train("conditional-vae", source, condition="part", part="top", network="conv",
                         latent_dim=8, batch_size=32, learning_rate=2e-3,
                         images=int(args.images)).model
    given = hidden(np.concatenate([still, still], 2), "top")
    output = [latlas.sample(model, len(still), seed=seed, given=given) for seed in range(DRAWS)]
    return [x[:, :, still.shape[2]:] for x in output]


def answers(pairs: Neighbours, still: Any, args: argparse.Namespace) -> Any:
    """Next frames of pix2pix."""
    sides = [make(name, Dataset(x, Images(x.shape[1:])), parts=pairs.parts)
             for name, x in (("still", pairs.still), ("next", pairs.following))]
    model = latlas.train("pix2pix", open_pair(*sides, paired=True), images=int(args.pairs),
                         batch_size=16, width=32, learning_rate=1e-3).model
    return latlas.translate(model, Dataset(still, model.space.a)).values


def report(drawn: list[Any], answer: Any, still: Any, truth: Any) -> None:
    """Mean absolute difference to the true next frame, range 0 … 1, and PSNR in dB."""
    each = np.stack([paired.l1(x, truth, 255.0) for x in drawn])
    lines = {"the still itself": still, "one draw of the VAE": drawn[0], "pix2pix": answer}
    for name, output in lines.items():
        print(f"{name}: L1 {paired.l1(output, truth, 255.0).mean():.4f}, "
              f"PSNR {paired.psnr(output, truth, 255.0).mean():.2f} dB")
    print(f"the best of {DRAWS} draws: L1 {each.min(0).mean():.4f}")


def neighbours(films: list[Any]) -> Neighbours:
    """All pairs of neighbours; a tenth of the films, or the end of a single one, for testing."""
    still, following = (np.concatenate([film[a:b] for film in films])
                        for a, b in ((0, -1), (1, None)))
    counts = [len(film) - 1 for film in films]
    last = -(-len(films) // 10) if len(films) > 1 else 0
    unseen = sum(counts[len(films) - last:]) or max(1, counts[0] // 10)
    rows = np.arange(len(still))
    return Neighbours(still, following, {"train": rows[:-unseen], "test": rows[-unseen:]})


def films_of(args: argparse.Namespace) -> list[Any]:
    """Films (frames, C, H, W) of 8 bit: from folders, from a GIF, or made up."""
    if args.films is None:
        return [ball(np.random.default_rng(seed)) for seed in range(FILMS)]
    if args.films.is_file():
        return [of_gif(args.films, args.image_size)]
    folders = sorted(p for p in args.films.iterdir() if p.is_dir()) or [args.films]
    return [open_source(str(folder), image_size=args.image_size, mode="RGB", label="none").base.x
            for folder in folders]


def of_gif(path: Path, size: int) -> Any:
    """The frames of a GIF, (frames, 3, size, size)."""
    with Image.open(path) as film:
        frames = [frame.convert("RGB").resize((size, size)) for frame in
                  ImageSequence.Iterator(film)]
    return np.stack([np.asarray(frame).transpose(2, 0, 1) for frame in frames])


def ball(rng: np.random.Generator) -> Any:
    """A soft ball whose tail says where it came from; it goes straight on, or left, or right."""
    where, heading, frames = rng.uniform(0, SIDE, 2), rng.integers(4), []
    for _ in range(FRAMES):
        frames.append(np.maximum(spot(where, 1.6), 0.5 * spot(where - STEPS[heading], 1.2)))
        heading = (heading + rng.integers(-1, 2)) % 4
        where = where + STEPS[heading]
    return (255 * np.stack(frames)).astype(np.uint8)[:, None]


def spot(where: Any, radius: float) -> Any:
    """A round spot on a plane whose edges meet, (SIDE, SIDE)."""
    away = [np.minimum(d, SIDE - d) ** 2 for d in
            ((np.arange(SIDE) - centre) % SIDE for centre in where)]
    return np.exp(-(away[0][:, None] + away[1][None]) / (2 * radius**2))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("films", nargs="?", type=Path,
                        help="a folder of folders of frames, or a GIF; default: made up")
    parser.add_argument("--image-size", type=int, default=32, help="pixels a side, of your films")
    parser.add_argument("--images", type=float, default=20_000, help="for the VAE to train on")
    parser.add_argument("--pairs", type=float, default=4_000, help="for pix2pix to train on")
    parser.add_argument("--out", type=Path, default=Path("runs/next-frame.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
