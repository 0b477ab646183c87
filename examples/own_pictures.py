"""A folder of images: train, draw new ones, walk between two, write a report.

    python examples/own_pictures.py photos/ --image-size 64 --images 2_000_000 --out runs/photos
    python examples/own_pictures.py                  # on shapes drawn into a temporary folder
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import latlas
from latlas.data import open_source, split
from latlas.run import Run
from latlas.verbs.write import write_examples


def main() -> None:
    """From images to a model, a grid of samples, a walk and a page about it all."""
    args = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or shapes_in(Path(temporary) / "shapes")
        source = open_source(folder, image_size=args.image_size)
        run = latlas.train("vae", source, out=args.out / "run", images=int(args.images))
        show(run, split(source, "test"), args.out)
        print("report:", latlas.report(run, data=source, draws=20).save(args.out / "report.html"))


def show(run: Run, unseen: object, out: Path) -> None:
    """New images, and a walk between two that the model has not seen."""
    first, last = latlas.encode(run, unseen)[:2]
    walk = latlas.interpolate(run, first, last, steps=16, method="slerp")
    print(latlas.sample(run, 64).save(out / "samples.png"))
    print(walk.save(out / "walk.gif"))


def shapes_in(folder: Path, n: int = 3000) -> Path:
    """A folder of sprites, one PNG each, so that the script runs anywhere."""
    data = latlas.open_data("shapes", "all", n=n, image_size=16)
    write_examples(f"{folder}/", data.take("x"), data.space)
    return folder


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="images; default: drawn shapes")
    parser.add_argument("--image-size", type=int, default=16, help="pixels a side")
    parser.add_argument("--images", type=float, default=200_000, help="examples to train on")
    parser.add_argument("--out", type=Path, default=Path("runs/own-pictures"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
