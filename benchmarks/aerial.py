"""Pairs for translation that anybody can judge: aerial pictures and their maps.

    python benchmarks/aerial.py FOLDER --n 1100 --size 128
    latlas train pix2pix --data FOLDER --minutes 15

An aerial picture has fields, some of them parks, sometimes a river, a grid of streets with houses
along them, sometimes a main road, and trees that hide parts of all. Its map has flat colours and
thin roads. FOLDER/A holds the pictures, FOLDER/B the maps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

#: drawn so many times larger and then reduced
SUPERSAMPLING = 3
#: colours of a kind of field on the picture; the second kind is a park on the map
FIELDS = [(96, 105, 70), (70, 88, 55), (120, 112, 84), (105, 105, 98), (140, 128, 100)]
GROUND, PARK, WATER, HOUSE = (242, 239, 233), (200, 225, 175), (170, 205, 230), (228, 222, 212)
STREET, EDGE, MAIN = (255, 255, 255), (205, 200, 195), (250, 200, 110)
ROOFS = [(150, 140, 132), (120, 90, 78), (175, 172, 168), (100, 98, 100)]
Points = list[tuple[float, float]]


def grain(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Noise of three scales, (side, side, 1)."""
    total = np.zeros((side, side))
    for scale, strength in ((40, 10), (10, 8), (3, 7)):
        coarse = Image.fromarray(rng.normal(size=2 * (side // scale,)).astype(np.float32))
        total += strength * np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return total[..., None]


def fields(rng: np.random.Generator, side: int) -> tuple[Image.Image, Image.Image]:
    """Picture and map of the ground alone."""
    places = rng.uniform(0, side, (rng.integers(4, 12), 2))
    rows, columns = np.mgrid[:side, :side]
    nearest = ((rows[..., None] - places[:, 0])**2 + (columns[..., None] - places[:, 1])**2
               ).argmin(-1)
    kinds = rng.integers(len(FIELDS), size=len(places))
    colours = np.array(FIELDS)[kinds] + rng.normal(0, 12, (len(places), 3))
    flat = np.where(kinds[:, None] == 1, PARK, GROUND)
    picture = np.clip(colours[nearest] + grain(rng, side), 0, 255)
    return (Image.fromarray(picture.astype(np.uint8)),
            Image.fromarray(flat[nearest].astype(np.uint8)))


def houses(rng: np.random.Generator, streets: NDArray[np.float64], side: int,
           place: Callable[[float, float], tuple[float, float]]) -> Iterator[Points]:
    """Corners of houses on both sides of streets, few of them or many; ``place`` turns the grid."""
    share = rng.uniform(0.25, 0.95)
    for u, v, beside in product(streets, np.arange(-2, 2, 0.075) * side, (-0.055, 0.055)):
        if rng.random() < share:
            wide, high = rng.uniform(0.018, 0.03, 2) * side
            yield [place(u + beside * side + a * wide, v + b * high)
                   for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def aerial(rng: np.random.Generator, size: int) -> tuple[Image.Image, Image.Image]:
    """A picture and its map, RGB, ``size`` by ``size``."""
    side = size * SUPERSAMPLING
    picture, plan = fields(rng, side)
    photo, flat = ImageDraw.Draw(picture), ImageDraw.Draw(plan)

    def line(points: Points, wide: float, on_photo: Any, on_map: Any) -> None:
        photo.line(points, on_photo, int(1.5 * wide * side), "curve")
        flat.line(points, on_map, int(wide * side), "curve")

    if rng.random() < 0.2:
        bed = rng.uniform(0, side) + rng.normal(0, 0.12 * side, 6)
        line([*zip(bed, np.linspace(-20, side + 20, 6), strict=True)], rng.uniform(0.06, 0.2),
             (50, 66, 72), WATER)
    turn, centre = rng.uniform(0, np.pi), rng.uniform(0, side, 2)

    def place(u: float, v: float) -> tuple[float, float]:
        return (float(centre[0] + u * np.cos(turn) - v * np.sin(turn)),
                float(centre[1] + u * np.sin(turn) + v * np.cos(turn)))

    across, along = (side * rng.uniform(*steps) * (np.arange(-12, 13) + rng.normal(0, 0.05, 25))
                     for steps in ((0.16, 0.4), (0.2, 0.5)))
    for corners in houses(rng, across, side, place):
        photo.polygon([(x + 3, y + 4) for x, y in corners], (45, 48, 45))
        photo.polygon(corners, ROOFS[rng.integers(len(ROOFS))])
        flat.polygon(corners, HOUSE)
    streets = [*([place(u, -3 * side), place(u, 3 * side)] for u in across),
               *([place(-3 * side, v), place(3 * side, v)] for v in along)]
    asphalt = 3 * (int(rng.uniform(100, 140)),)
    for colour, more in ((EDGE, 0.01), (STREET, 0.0)):
        for ends in streets:
            line(ends, 0.018 + more, asphalt, colour)
    if rng.random() < 0.35:
        begin, way = rng.uniform(0, side, 2), rng.normal(size=2)
        way *= 3 * side / np.hypot(*way)
        line([tuple(begin - way), tuple(begin + way)], 0.05, asphalt, MAIN)
    for _ in range(rng.integers(20, 220)):
        (x, y), r = rng.uniform(0, side, 2), rng.uniform(0.008, 0.022) * side
        photo.ellipse([x - r + 3, y - r + 3, x + r + 3, y + r + 3], (28, 34, 24))
        photo.ellipse([x - r, y - r, x + r, y + r], (45, 62 + int(rng.integers(30)), 36))
    small = [im.resize((size, size), Image.Resampling.BOX) for im in (picture, plan)]
    light = (np.asarray(small[0]) + rng.normal(0, 6, (size, size, 3))) * rng.uniform(0.8, 1.15)
    return Image.fromarray(np.clip(light, 0, 255).astype(np.uint8)), small[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=1100, help="how many pairs")
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for i in range(args.n):
        sides = aerial(np.random.default_rng([args.seed, i]), args.size)
        for name, image in zip("AB", sides, strict=True):
            (args.folder / name).mkdir(parents=True, exist_ok=True)
            image.save(args.folder / name / f"{i:05}.png")


if __name__ == "__main__":
    main()
