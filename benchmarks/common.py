"""What benchmarks share: the images, the networks, subprocesses, tables, rows that are runs.

A measurement of speed is one subprocess, so that neither side warms the other's caches and the
peak memory is its own. The parent runs the sides in turn (A, B, A, B, …) and compares them round
by round, so that a machine that slows down halfway slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

HERE = Path(__file__).parent
LABEL = "MEASURED "
CORES = os.cpu_count() or 1


# ------------------------------------------------------------------------------ images

def images(path: Path | None, examples: int = 60_000) -> NDArray[np.uint8]:
    """(N, 28, 28) uint8: ``x_train`` of an npz, or blobs made here, the same every time."""
    if path is not None:
        with np.load(path) as file:
            return file["x_train"]
    return np.concatenate([_blobs(part, 1_000) for part in range(-(-examples // 1_000))])[:examples]


def _blobs(seed: int, n: int) -> NDArray[np.uint8]:
    """Three soft spots on black: images with few degrees of freedom, as digits have."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(7, 21, (n, 3, 2, 1)).astype(np.float32)
    grid = np.arange(28, dtype=np.float32)
    bump = np.exp(-np.square(grid - centre) / 8)                          # (n, 3, 2, 28)
    spots = (bump[:, :, 0, :, None] * bump[:, :, 1, None, :]).max(axis=1)  # (n, 28, 28)
    return np.round(255 * spots).astype(np.uint8)


# ------------------------------------------------------------------------------ networks

@dataclass(frozen=True)
class Case:
    """One network, as published comparisons train it.

    Attributes:
        hidden: width of the hidden layers of a perceptron; empty means convolutions.
        beta: weight of the divergence; 1 is a plain VAE.
        images: examples of one measurement.
    """

    title: str
    hidden: tuple[int, ...]
    latent_dim: int
    batch_size: int
    beta: float
    images: int

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Encoder (n, 1, 28, 28) → (n, 2·latent_dim) and decoder (n, latent_dim) → logits."""
        torch.manual_seed(0)
        if self.hidden:
            return perceptrons(self.hidden, self.latent_dim)
        return convolutions(self.latent_dim)


CASES = {
    "mlp-512": Case("β-VAE, MLP 784-512-16", (512,), 16, 100, 2.0, 30_000),
    "mlp-200-200": Case("VAE, MLP 784-200-200-50", (200, 200), 50, 64, 1.0, 30_000),
    "conv": Case("VAE, conv 32-64-128, 16 latents", (), 16, 100, 1.0, 10_000),
}


def perceptrons(hidden: tuple[int, ...], latent_dim: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and its mirror image."""
    down, up = (784, *hidden), (latent_dim, *reversed(hidden))
    encoder = [nn.Flatten(), *_layers(down), nn.Linear(down[-1], 2 * latent_dim)]
    decoder = [*_layers(up), nn.Linear(up[-1], 784), nn.Unflatten(1, (1, 28, 28))]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def _layers(widths: tuple[int, ...]) -> list[nn.Module]:
    return [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), nn.ReLU())]


def convolutions(latent_dim: int) -> tuple[nn.Module, nn.Module]:
    """Stride-2 convolutions 32-64-128, 28 → 14 → 7 → 3, and back."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 2 * latent_dim))
    decoder = nn.Sequential(
        nn.Linear(latent_dim, 1152), nn.ReLU(), nn.Unflatten(1, (128, 3, 3)),
        nn.ConvTranspose2d(128, 64, 3, 2), nn.ReLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1),
        nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1))
    return encoder, decoder


# ------------------------------------------------------------------------------ measuring

@dataclass(frozen=True)
class Clock:
    """A moment: wall clock and processor time of this process, the device waited for.

    On a machine that does other work besides, processor time is the steadier of the two.
    """

    wall: float
    cpu: float

    @classmethod
    def now(cls, device: str) -> Clock:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def since(self, other: Clock, examples: int = 1) -> dict[str, float]:
        """Seconds per example."""
        return {"seconds": (self.wall - other.wall) / examples,
                "cpu_seconds": (self.cpu - other.cpu) / examples}


def peak_memory(device: str) -> dict[str, float]:
    """MiB at most: of this process, the part above what torch takes by itself, of the device."""
    peaks = {"memory": _resident("VmHWM") / 2**20}
    peaks["working"] = peaks["memory"] - BASE / 2**20
    if device.startswith("cuda"):
        peaks["device_memory"] = torch.cuda.max_memory_allocated() / 2**20
    return peaks


def _resident(mark: str) -> int:
    """Bytes. Linux's ``ru_maxrss`` starts from the parent's, so the status file goes first."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    marks = [int(line.split()[1]) * 1024 for line in lines if line.startswith(mark)]
    unit = 1 if platform.system() == "Darwin" else 1024
    return marks[0] if marks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


#: resident memory once torch is imported and nothing else is done
BASE = _resident("VmRSS")


def answer(values: dict[str, Any]) -> None:
    """The last line of a measuring subprocess."""
    print(LABEL + json.dumps(values), flush=True)


def ask(script: str, task: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run a measuring subprocess; a failure ends the benchmark with its last lines."""
    quiet = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, str(HERE / script), "--measure", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True,
                          env={**os.environ, **quiet, **limits})
    lines = [line for line in done.stdout.splitlines() if line.startswith(LABEL)]
    if done.returncode or not lines:
        sys.exit(f"{script} failed on {task}:\n{(done.stdout + done.stderr)[-2000:]}")
    return dict(json.loads(lines[-1][len(LABEL):]))


Measured = dict[str, list[dict[str, Any]]]


def run_rounds(sides: Iterable[str], rounds: int,
               measure: Callable[[str], dict[str, Any]]) -> Measured:
    """Every side in turn, ``rounds`` times; says on stderr where it is."""
    results: Measured = {side: [] for side in sides}
    for number in range(rounds):
        for side, measured in results.items():
            measured.append(measure(side))
            took = 1e6 * measured[-1]["seconds"]
            print(f"round {number + 1} of {rounds}, {side}: {took:,.0f} µs an example",
                  file=sys.stderr, flush=True)
    return results


def ratio(above: list[dict[str, Any]], below: list[dict[str, Any]], key: str) -> str:
    """Round by round, so that both numbers of a ratio are from the same minute."""
    return spread(a[key] / b[key] for a, b in zip(above, below, strict=True))


def memory(side: list[dict[str, Any]], base: list[dict[str, Any]]) -> list[str]:
    """Peak memory and its ratio, then the same for the part above torch itself."""
    return [cell for key in ("memory", "working")
            for cell in (spread((m[key] for m in side), 0), ratio(side, base, key))]


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Median, least and greatest: ``2.61 (2.55 … 2.70)``."""
    ordered = sorted(values)
    low, mid, high = ordered[0], statistics.median(ordered), ordered[-1]
    return f"{mid:,.{digits}f} ({low:,.{digits}f} … {high:,.{digits}f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns of equal width, as Markdown, so that it can be pasted into the docs."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * w for w in widths], *rows]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
                     for line in lines)


def machine(device: str) -> str:
    """One line: processor, cores, versions, and how busy it is with other things."""
    names = [f"{name} {_version(name)}" for name in ("torch", "pythae", "latlas")]
    where = torch.cuda.get_device_name() if device.startswith("cuda") else _processor()
    load = f"load {os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else ""
    python = f"Python {platform.python_version()}"
    return "; ".join([f"{where}, {CORES} cores", python, ", ".join(names), load])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in text]
    return f"{names[0] if names else platform.machine()} ({' '.join(flags) or 'no flags known'})"


def write_json(path: Path | None, data: dict[str, Any]) -> None:
    """Every single measurement, not only the medians."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        print(f"every measurement: {path}")


def arguments(description: str) -> argparse.ArgumentParser:
    """The options both benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help="npz with x_train (n, 28, 28); default: blobs")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, CORES}),
                        help="processor threads of both sides; one table for each value")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    return parser


def as_unit(x: NDArray[np.uint8]) -> Tensor:
    """(N, 1, 28, 28) float32 in [0, 1], as pythae takes images; one copy, no temporaries."""
    return torch.from_numpy(x).unsqueeze(1).float().div_(255)


# ------------------------------------------------------------------------------ rows that are runs
# latlas is imported when it is called: it is no part of the other side's measurement.

#: what a setting is meant for, its name and its value
Setting = tuple[str, str, str]


def run_arguments(description: str, rows: Sequence[str], *, minutes: float,
                  out: str) -> argparse.ArgumentParser:
    """The options of a benchmark whose rows are trained models; ``rows`` take settings."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--minutes", type=float, default=minutes, help="of training, for every row")
    parser.add_argument("--out", type=Path, default=Path(out),
                        help="run folders and images; finished runs are read")
    parser.add_argument("--threads", type=int, default=0, help="0: the fastest")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="+", action="extend", default=[],
                        type=lambda text: _setting(text, rows), metavar="[row:]key=value",
                        help=f"a setting of one row ({', '.join(rows)}), or of all models")
    parser.add_argument("--json", type=Path, help="write every metric here")
    return parser


def _setting(text: str, rows: Sequence[str]) -> Setting:
    name, mark, value = text.partition("=")
    row, _, key = name.rpartition(":")
    if not (mark and key) or row not in ("", *rows):
        raise argparse.ArgumentTypeError(f"{text}: give key=value or ROW:key=value; rows are "
                                         + ", ".join(rows))
    return row, key, value


def row_settings(row: str, options: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """How to train a row: the common options, the budget, and what ``--set`` says of it."""
    given = {key: value for of in ("", row) for to, key, value in options.set if to == of}
    budget = {} if given.keys() & {"images", "epochs", "minutes"} else {"minutes": minutes}
    return {"seed": options.seed, "threads": options.threads, "device": options.device,
            "progress": False, **budget, **given}


def trained(row: str, model: str, source: Any, options: argparse.Namespace, *,
            minutes: float | None = None, **settings: Any) -> Path:
    """The run folder of a row, trained to its end, now or before."""
    import latlas

    if options.threads:  # also of what is evaluated without having been trained here
        torch.set_num_threads(options.threads)
    out = Path(options.out) / f"{row}-{options.seed}"
    how = row_settings(row, options, options.minutes if minutes is None else minutes)
    ended(latlas.train(model, source, out=out, **(settings | how)))
    return out


def ended(done: Any) -> None:
    """Leave where training was interrupted; the same command goes on with it."""
    if done.outcome.stopped == "interrupt":
        sys.exit(130)


def image_classifier(train: Any, test: Any, options: argparse.Namespace, what: str) -> Any:
    """A classifier of ``options.classifier_steps`` steps (0: as usual) on the half of the training
    images that is no control."""
    from latlas.metrics.features import train_classifier
    from latlas.metrics.quality import control_split

    half = train.subset(control_split(len(train), options.seed)[0])
    classifier = train_classifier(train.space, half.take("x"), half.take("label"),
                                  seed=options.seed, steps=options.classifier_steps or None)
    accuracy = classifier.accuracy(test.take("x"), test.take("label"))
    print(f"the classifier's accuracy on the {len(test):,} {what}: {accuracy:.4f}", flush=True)
    return classifier


def spent(run: Path) -> tuple[float, int]:
    """Minutes and examples that a finished run took."""
    from latlas.core.files import load_tree

    meta = load_tree(run / "model.safetensors")[1]
    return meta["seconds"] / 60, meta["images"]


def metrics_table(results: dict[str, dict[str, Any]], control: str) -> str:
    """A line for every row, a column for every title of a metric, and the controls below."""
    from latlas.metrics.table import number

    titles = list(dict.fromkeys(title for metrics in results.values() for title in metrics))
    rows = [[name, *(metrics[t].text() if t in metrics else "–" for t in titles)]
            for name, metrics in results.items()]
    controls = {t: f.control for metrics in results.values() for t, f in metrics.items()}
    return table(["", *titles], [*rows, [control, *(number(controls[t]) for t in titles)]])
