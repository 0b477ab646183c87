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


def scene(rng: np.random.Generator, size: int) -> Image.Image:
    """One RGB picture, ``size`` by ``size``."""
    s = size * SUPERSAMPLING
    night = rng.random() < 0.2
    top, low = ((12, 16, 48), (64, 56, 104)) if night else (
        (70 + rng.integers(50), 130 + rng.integers(50), 225), (190, 220, 240 - rng.integers(70)))
    share = np.linspace(0, 1, s)[:, None, None]
    sky = (1 - share) * np.array(top) + share * np.array(low)
    image = Image.fromarray(np.broadcast_to(sky, (s, s, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)

    def disc(x: float, y: float, r: float, colour: tuple[int, ...]) -> None:
        draw.ellipse([s * (x - r), s * (y - r), s * (x + r), s * (y + r)], fill=colour)

    def shade(colour: tuple[int, ...], light: float = 1.0) -> tuple[int, ...]:
        light *= 0.45 if night else 1.0
        return tuple(int(np.clip(light * c + rng.normal(0, 5), 0, 255)) for c in colour)

    disc(rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.25), rng.uniform(0.05, 0.1),
         (235, 235, 215) if night else (255, 222, 80))
    for _ in range(rng.integers(4)):
        x, y, r = rng.uniform(0, 1), rng.uniform(0.08, 0.3), rng.uniform(0.03, 0.06)
        for step in (-1.2, 0.0, 1.2):
            disc(x + step * r, y - r * (step == 0) / 2, r, shade((250, 250, 250)))

    horizon, across = rng.uniform(0.5, 0.62), np.linspace(0, 1, 60)
    for layer in range(rng.integers(1, 4)):
        waves = sum(rng.normal(0, 0.035) * np.sin(rng.uniform(2, 9) * across + rng.uniform(0, 6))
                    for _ in range(3))
        line = [(s * x, s * y) for x, y in zip(
            across, horizon - 0.1 + 0.07 * layer + waves, strict=True)]
        green = (60 + 22 * layer, 120 + 22 * layer, 70 + rng.integers(30))
        draw.polygon([*line, (s, s), (0, s)], fill=shade(green))
    ground = horizon + rng.uniform(0.06, 0.12)
    draw.rectangle([0, s * ground, s, s], fill=shade((110 + rng.integers(40), 170, 80)))

    def tree(x: float, y: float, height: float) -> None:
        draw.rectangle([s * (x - height / 14), s * (y - height / 3), s * (x + height / 14), s * y],
                       fill=shade((100, 70, 40)))
        leaves = shade((30 + rng.integers(50), 100 + rng.integers(50), 50))
        if rng.random() < 0.5:
            disc(x, y - 0.62 * height, height / 3, leaves)
        else:
            draw.polygon([(s * (x - height / 3.2), s * (y - height / 4)), (s * x, s * (y - height)),
                          (s * (x + height / 3.2), s * (y - height / 4))], fill=leaves)

    def house(x: float, y: float, wide: float, high: float) -> None:
        left, right, eaves = s * (x - wide / 2), s * (x + wide / 2), s * (y - high)
        draw.rectangle([left, eaves, right, s * y], fill=shade(WALLS[rng.integers(len(WALLS))]))
        overhang = s * wide / 9
        draw.polygon([(left - overhang, eaves), (s * x, eaves - s * high * rng.uniform(0.5, 0.9)),
                      (right + overhang, eaves)], fill=shade(ROOFS[rng.integers(len(ROOFS))]))
        door = rng.uniform(-0.25, 0.25)
        draw.rectangle([s * (x + wide * (door - 0.08)), s * (y - 0.5 * high),
                        s * (x + wide * (door + 0.08)), s * y], fill=shade((90, 56, 36)))
        for at in (-0.34, 0.34):
            light = (255, 214, 110) if night else shade((120, 160, 190))
            draw.rectangle([s * (x + wide * (at - 0.09)), s * (y - 0.78 * high),
                            s * (x + wide * (at + 0.09)), s * (y - 0.45 * high)], fill=light)

    for _ in range(rng.integers(0, 3)):
        tree(rng.uniform(0.05, 0.95), ground + rng.uniform(0, 0.05), rng.uniform(0.15, 0.25))
    house(rng.uniform(0.25, 0.75), ground + rng.uniform(0.08, 0.22), rng.uniform(0.25, 0.42),
          rng.uniform(0.16, 0.26))
    for _ in range(rng.integers(0, 3)):
        tree(rng.uniform(0.05, 0.95), rng.uniform(0.85, 0.97), rng.uniform(0.25, 0.42))
    return image.resize((size, size), Image.Resampling.BOX)


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
