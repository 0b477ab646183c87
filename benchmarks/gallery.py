"""A gallery: several models trained on folders of images for equal minutes, as a person would.

    python benchmarks/gallery.py emoji=noto_emoji_128.zip crops=crops/ scenes=scenes/ --minutes 10

Every run is `latlas train MODEL --data FOLDER --minutes M` as a command of its own, timed by the
clock on the wall. Its samples are judged by Fréchet distances of two kinds of features, beside the
control that compares held-out images with others, and written as a sheet under one of real images.
Runs, metrics and sheets that are there are not done again. --jobs trains several at once, on one
thread each. --size 0 leaves the size of the images to each run; distances of two sizes cannot be
compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import machine, table
from PIL import Image

import latlas
from latlas.render.imaging import grid

MODELS = ("pca", "vae", "latent-flow", "gan")
FEATURES = ("random-conv", "spectrum")
SHOWN = 24
COLUMNS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="NAME=FOLDER or archive of images")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--size", type=int, default=64, help="pixels a side; 0: each run's own")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/gallery"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(machine("cpu"), flush=True)
    sets = dict(pair.split("=", 1) for pair in options.data)
    jobs = [(name, model) for name in sets for model in options.models]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda job: measured(*job, sets[job[0]], options), jobs))
    print(table(["images", "model", "size", "clock, s", "epochs", "images/s",
                 *(f"Fréchet, {f}" for f in FEATURES), "near copies"], rows))
    for name in sets:
        sheet(name, options)


def measured(name: str, model: str, source: str, options: argparse.Namespace) -> list[str]:
    """The line of a run in the table; what is not there yet is trained and judged."""
    run = options.out / f"{name}-{model}"
    notes = run.with_suffix(".json")
    threads = {"OMP_NUM_THREADS": "1"} if options.jobs > 1 else {}
    if not notes.exists():
        size = ["--image-size", str(options.size)] if options.size else []
        budget = [] if model == "pca" else ["--minutes", str(options.minutes)]
        start = time.monotonic()
        command("train", model, "--data", source, "--out", run, *size, *budget, **threads)
        result: dict[str, Any] = {"clock": time.monotonic() - start}
        for features in FEATURES:
            out = run / f"{features}.json"
            command("evaluate", run, "--metrics", "samples", "--features", features, "--out", out,
                    **threads)
            result[features] = json.loads(out.read_text())
        notes.write_text(json.dumps(result, indent=1))
    result, run_of = json.loads(notes.read_text()), latlas.Run(run)
    metrics = {features: {m["key"]: m for m in last(result[features])["metrics"]}
               for features in FEATURES}
    ending = run_of.ending
    reached = [f"{ending.epochs:.0f}", f"{ending.images / ending.seconds:.0f}"] if (
        ending and ending.steps) else ["–", "–"]
    return [name, model, "×".join(map(str, run_of.space.shape[1:])), f"{result['clock']:.0f}",
            *reached, *(of_control(metrics[f]["frechet"]) for f in FEATURES),
            of_control(metrics[FEATURES[0]]["near_copies"])]


def last(evaluation: dict[str, Any]) -> dict[str, Any]:
    """That of the samples that are drawn without a further option: of a fitted prior, if any."""
    return evaluation.get("evaluations", [evaluation])[-1]


def of_control(metric: dict[str, Any]) -> str:
    """A value, and that of held-out data in its place."""
    return f"{metric['value']:.3g} ({metric['control']:.3g})"


def sheet(name: str, options: argparse.Namespace) -> None:
    """A file of real images, and one of samples of each model."""
    for i, model in enumerate(options.models):
        run = latlas.Run(options.out / f"{name}-{model}")
        if i == 0:
            real = grid(run.open(split="test").take("x")[:SHOWN], columns=COLUMNS, scale=1)
            Image.fromarray(real).save(options.out / f"{name}-real.png")
        samples = grid(latlas.sample(run, n=SHOWN, seed=1).values, columns=COLUMNS, scale=1)
        Image.fromarray(samples).save(options.out / f"{name}-{model}.png")


def command(*arguments: object, **environment: str) -> None:
    """A command of latlas, which must succeed; its last lines are printed if it does not."""
    done = subprocess.run([sys.executable, "-m", "latlas", *map(str, arguments)],
                          env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"latlas {' '.join(map(str, arguments))} failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
