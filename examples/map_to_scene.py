"""From a map of classes to the scene: pix2pix paints what the map says lies where.

    python examples/map_to_scene.py                       # shapes in the evening sun, made up
    python examples/map_to_scene.py scenes/ --image-size 64 --minutes 40

``scenes/`` holds ``A/`` with the maps, one class id for each pixel (grey or by a palette, saved
without loss), and ``B/`` with the images, under equal names. Writes a row of map, translation and
scene for each of 24 held-out maps; prints how near the translations come, beside the best that can
be done by one colour for each class.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import latlas
from latlas.core.space import Images
from latlas.data import PairDataset, open_pair, open_source, split
from latlas.data.dataset import Dataset
from latlas.metrics import paired
from latlas.render import imaging
from latlas.verbs.translating import sheet
from latlas.verbs.write import write_bytes

SIDE, SCENES = 24, 1500  # of the scenes that are made up
SHOWN = 24
COLOURS = np.array([(220, 60, 50), (60, 160, 70), (240, 200, 60), (80, 90, 200)])  # of the shapes
#: of the made-up scenes, so that they take seconds
QUICK = {"batch_size": 16, "width": 16, "learning_rate": 2e-3}


def main() -> None:
    """Train on pairs of map and scene, translate maps that were never seen."""
    args = arguments()
    source = source_of(args)
    how = {"minutes": args.minutes} if args.scenes else {"images": int(args.images), **QUICK}
    model = latlas.train("pix2pix", source, out=args.run, **how).model
    train, test = split(source, "train"), split(source, "test")
    truth = test.b.take("x")
    for name, output in (("pix2pix", latlas.translate(model, test).values),
                       ("one colour for each class", coloured(train, test.a.take("x")))):
        print(f"{name}: L1 {paired.l1(output, truth, 255.0).mean():.4f}, "
              f"PSNR {paired.psnr(output, truth, 255.0).mean():.2f} dB")
    rows = sheet(model, test.subset(slice(0, SHOWN)))
    grid = imaging.grid(rows.reshape(-1, *rows.shape[2:]), 256, columns=9)
    write_bytes(args.out, imaging.png(grid))
    print(f"wrote {rows.shape[0]} rows to {args.out}: map | pix2pix | scene")


def coloured(train: PairDataset, maps: Any) -> Any:
    """Maps (n, K, H, W) with the median colour of each class in training: the best L1."""
    seen, scenes = train.a.take("x").argmax(1), np.moveaxis(train.b.take("x"), 1, -1)
    palette = [np.median(scenes[seen == k], 0) for k in range(maps.shape[1])]
    return np.moveaxis(np.stack(palette)[maps.argmax(1)], -1, 1).round().astype(np.uint8)


def source_of(args: argparse.Namespace) -> Any:
    """Pairs of map and scene: those of a folder or zip, or made up."""
    if args.scenes is not None:
        return open_source(args.scenes, maps="A", image_size=args.image_size)
    ids, scenes = made_up(np.random.default_rng(0))
    return open_pair(ids, Dataset(scenes, Images(scenes.shape[1:])), paired=True, maps="A")


def made_up(rng: np.random.Generator) -> tuple[Any, Any]:
    """Ids (n, S, S): sky 0, ground 1, shapes from 2 on; scenes (n, 3, S, S) in light from above."""
    shapes = latlas.open_data("shapes", "all", n=SCENES, image_size=SIDE)
    inside, kind = shapes.take("x")[:, 0] > 127, shapes.take("label")
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    horizon = rng.integers(SIDE // 2, SIDE - 4, (SCENES, 1, 1))
    ids = np.where(inside, 2 + kind[:, None, None], rows >= horizon).astype(np.uint8)
    light = 1.15 - 0.7 * rows / SIDE
    texture = 0.85 + 0.15 * ((rows // 2 + columns // 2) % 2)
    sky = np.array([120, 150, 220])[:, None, None] * (0.6 + 0.6 * rows / SIDE)
    ground = np.array([150, 120, 80])[:, None, None] * texture
    body = COLOURS[kind][:, :, None, None] * light
    scenes = np.where((ids >= 2)[:, None], body, np.where((ids == 1)[:, None], ground, sky))
    return ids, (scenes + rng.normal(0, 3, scenes.shape)).clip(0, 255).astype(np.uint8)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="?", type=Path,
                        help="a folder or zip with A/ (maps) and B/ (images); default: made up")
    parser.add_argument("--image-size", type=int, default=64,
                        help="pixels a side, of the folder's")
    parser.add_argument("--minutes", type=float, default=40.0, help="to train on your own")
    parser.add_argument("--images", type=float, default=6_000, help="to train on, of made-up ones")
    parser.add_argument("--run", type=Path, help="keep the trained model in this folder")
    parser.add_argument("--out", type=Path, default=Path("runs/map-to-scene.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
