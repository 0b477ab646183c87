"""A folder of pictures that anybody can judge: houses, hills, sun or moon, clouds and trees.

    python benchmarks/scenes.py FOLDER --n 2000 --size 64

Every scene has a sky that fades, up to three ranges of hills, a house with windows and a roof, some
trees of two kinds, and clouds, all of random sizes, places and colours; one in five is at night.
A model has learnt them if its houses have four corners and its roofs sit on them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

#: drawn so many times larger and then reduced, so that edges are smooth
SUPERSAMPLING = 4
WALLS = [(214, 120, 96), (236, 214, 170), (205, 205, 214), (150, 176, 205), (226, 180, 96)]
ROOFS = [(132, 48, 40), (88, 66, 54), (70, 78, 96), (160, 84, 40)]


class Canvas:
    """A picture that is drawn on in shares of its side, by day or by night."""

    def __init__(self, rng: np.random.Generator, side: int, night: bool) -> None:
        self.rng, self.side, self.night = rng, side, night
        top = (12, 16, 48) if night else (70 + rng.integers(50), 130 + rng.integers(50), 225)
        low = (64, 56, 104) if night else (190, 220, 240 - rng.integers(70))
        share = np.linspace(0, 1, side)[:, None, None]
        fade = (1 - share) * np.array(top) + share * np.array(low)
        self.image = Image.fromarray(np.broadcast_to(fade, (side, side, 3)).astype(np.uint8))
        self.draw = ImageDraw.Draw(self.image)

    def shade(self, colour: tuple[int, ...]) -> tuple[int, ...]:
        """A colour in this light, never twice the same."""
        light = 0.45 if self.night else 1.0
        return tuple(int(np.clip(light * c + self.rng.normal(0, 5), 0, 255)) for c in colour)

    def disc(self, x: float, y: float, r: float, colour: tuple[int, ...]) -> None:
        self.draw.ellipse([self.side * v for v in (x - r, y - r, x + r, y + r)], fill=colour)

    def box(self, x: float, y: float, wide: float, high: float, colour: tuple[int, ...]) -> None:
        """A rectangle that stands on y, with its middle at x."""
        self.draw.rectangle([self.side * v for v in (x - wide / 2, y - high, x + wide / 2, y)],
                            fill=colour)

    def polygon(self, corners: list[tuple[float, float]], colour: tuple[int, ...]) -> None:
        self.draw.polygon([(self.side * x, self.side * y) for x, y in corners], fill=colour)


def sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Sun or moon, and up to three clouds."""
    canvas.disc(rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.25), rng.uniform(0.05, 0.1),
                (235, 235, 215) if canvas.night else (255, 222, 80))
    for _ in range(rng.integers(4)):
        x, y, r = rng.uniform(0, 1), rng.uniform(0.08, 0.3), rng.uniform(0.03, 0.06)
        for step in (-1.2, 0.0, 1.2):
            canvas.disc(x + step * r, y - r * (step == 0) / 2, r, canvas.shade((250, 250, 250)))


def land(canvas: Canvas, rng: np.random.Generator) -> float:
    """Hills and a meadow; where the meadow begins."""
    horizon, across = rng.uniform(0.5, 0.62), np.linspace(0, 1, 60)
    for layer in range(rng.integers(1, 4)):
        waves = sum(rng.normal(0, 0.035) * np.sin(rng.uniform(2, 9) * across + rng.uniform(0, 6))
                    for _ in range(3))
        heights = horizon - 0.1 + 0.07 * layer + waves
        canvas.polygon([*zip(across, heights, strict=True), (1, 1), (0, 1)], canvas.shade(
            (60 + 22 * layer, 120 + 22 * layer, 70 + rng.integers(30))))
    ground = horizon + rng.uniform(0.06, 0.12)
    canvas.box(0.5, 1, 1, 1 - ground, canvas.shade((110 + rng.integers(40), 170, 80)))
    return float(ground)


def tree(canvas: Canvas, rng: np.random.Generator, x: float, y: float, height: float) -> None:
    """A round one or a fir."""
    canvas.box(x, y, height / 7, height / 3, canvas.shade((100, 70, 40)))
    leaves = canvas.shade((30 + rng.integers(50), 100 + rng.integers(50), 50))
    if rng.random() < 0.5:
        canvas.disc(x, y - 0.62 * height, height / 3, leaves)
    else:
        canvas.polygon([(x - height / 3.2, y - height / 4), (x, y - height),
                        (x + height / 3.2, y - height / 4)], leaves)


def house(canvas: Canvas, rng: np.random.Generator, x: float, y: float, wide: float,
          high: float) -> None:
    """Walls, a roof that juts out, a door, two windows that are lit by night."""
    canvas.box(x, y, wide, high, canvas.shade(WALLS[rng.integers(len(WALLS))]))
    eaves, jut = y - high, wide * (0.5 + 1 / 9)
    canvas.polygon([(x - jut, eaves), (x, eaves - high * rng.uniform(0.5, 0.9)), (x + jut, eaves)],
                   canvas.shade(ROOFS[rng.integers(len(ROOFS))]))
    canvas.box(x + wide * rng.uniform(-0.25, 0.25), y, 0.16 * wide, high / 2,
               canvas.shade((90, 56, 36)))
    for at in (-0.34, 0.34):
        light = (255, 214, 110) if canvas.night else canvas.shade((120, 160, 190))
        canvas.box(x + at * wide, y - 0.45 * high, 0.18 * wide, 0.33 * high, light)


def scene(rng: np.random.Generator, size: int) -> Image.Image:
    """One RGB picture, ``size`` by ``size``."""
    canvas = Canvas(rng, size * SUPERSAMPLING, night=rng.random() < 0.2)
    sky(canvas, rng)
    ground = land(canvas, rng)
    for _ in range(rng.integers(0, 3)):
        tree(canvas, rng, rng.uniform(0.05, 0.95), ground + rng.uniform(0, 0.05),
             rng.uniform(0.15, 0.25))
    house(canvas, rng, rng.uniform(0.25, 0.75), ground + rng.uniform(0.08, 0.22),
          rng.uniform(0.25, 0.42), rng.uniform(0.16, 0.26))
    for _ in range(rng.integers(0, 3)):
        tree(canvas, rng, rng.uniform(0.05, 0.95), rng.uniform(0.85, 0.97),
             rng.uniform(0.25, 0.42))
    return canvas.image.resize((size, size), Image.Resampling.BOX)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=2000, help="how many")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for i in range(args.n):
        scene(np.random.default_rng([args.seed, i]), args.size).save(args.folder / f"{i:05}.png")


if __name__ == "__main__":
    main()
