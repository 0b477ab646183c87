"""README's figure, from the demo's VAE: ``make demo``, then ``python docs/demo_picture.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

import latlas

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RUN, WIDTH = "runs/demo/vae", 12


def tiles(examples: np.ndarray) -> np.ndarray:
    """(n, 1, 8, 8) as one image with ``WIDTH`` examples a row and a gap of a pixel."""
    padded = np.pad(examples[:, 0].reshape(-1, WIDTH, 8, 8), ((0, 0), (0, 0), (0, 1), (0, 1)))
    return padded.transpose(0, 2, 1, 3).reshape(-1, WIDTH * 9)


def main() -> None:
    """Reconstructions, samples and interpolations, one under the other."""
    test = latlas.open_data("digits", "test")
    latents, label = latlas.encode(RUN, test), test.take("label")
    pairs = np.concatenate([test.take("x")[:WIDTH], latlas.reconstruct(RUN, test)[:WIDTH]])
    ends = [(np.flatnonzero(label == a)[0], np.flatnonzero(label == b)[1])
            for a, b in ((0, 6), (4, 9), (3, 5))]
    walks = np.concatenate([latlas.interpolate(RUN, latents[a], latents[b], steps=WIDTH)
                            for a, b in ends])
    parts = {"held-out digits, and their reconstructions from 16 latents": pairs,
             "new digits: samples from the prior": latlas.sample(RUN, 4 * WIDTH, seed=3),
             "interpolations between the latents of two held-out digits": walks}
    figure, panels = plt.subplots(3, 1, figsize=(7.2, 6.6), height_ratios=[2, 4, 3],
                                  layout="constrained")
    for panel, (title, examples) in zip(panels, parts.items(), strict=True):
        panel.imshow(tiles(examples), cmap="gray", interpolation="nearest", vmin=0, vmax=16)
        panel.set_title(title, fontsize=10, loc="left")
        panel.axis("off")
    figure.savefig(Path(__file__).parent / "images/demo.png", dpi=100)


if __name__ == "__main__":
    main()
