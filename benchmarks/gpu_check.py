"""What only a GPU can settle, in under ten minutes: python benchmarks/gpu_check.py [--device cuda]

Prints Markdown tables, for docs/scale.md: whether a model ends where it ends on the CPU, with the
same bits every time; what makes the host wait within a step; how long a step takes in each dtype,
as a CUDA graph, and with what latlas leaves off (TF32, timed algorithms of cuDNN); what running out
of memory says. A failure is a cell of a table, and what the minutes do not suffice for is left out.
With --device cpu it shows that the script itself runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from common import table

from latlas import models
from latlas.core import devices
from latlas.core.files import load_tree
from latlas.core.noise import Noise
from latlas.core.options import parse
from latlas.data.batches import Batches, Sweep
from latlas.engine.trainer import Trainer

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import tiny
from test_contract import CASES, Case

BEGAN = time.monotonic()
#: model, shape of an example, batch size, settings: small steps and large ones
STEPS: list[tuple[str, tuple[int, ...], int, dict[str, Any]]] = [
    ("vae", (1, 28, 28), 256, {}), ("vae", (3, 32, 32), 256, {"network": "conv"}),
    ("gan", (3, 32, 32), 64, {"network": "conv"}), ("gan", (3, 64, 64), 32, {}),
    ("latent-flow", (3, 64, 64), 32, {}),
    ("style-gan", (3, 64, 64), 32, {}), ("hierarchical-vae", (1, 28, 28), 256, {})]


def attempt(do: Callable[[], str]) -> str:
    """What it says, or the error in a few words."""
    try:
        return do()
    except Exception as error:
        return f"**{type(error).__name__}**: {(str(error).splitlines() or [''])[0][:80]}"


@contextlib.contextmanager
def draws_of_the_cpu() -> Iterator[None]:
    """Noise is drawn on the CPU and moved, so that both devices see the same."""
    begin, rows = Noise.__init__, Noise._rows

    def on_cpu(self: Any, seed: Any, device: Any = "cpu", rank: int = 0, world: int = 1) -> None:
        begin(self, seed, "cpu", rank, world)
        self.target = device

    def moved(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return rows(self, *args, **kwargs).to(self.target)

    with mock.patch.object(Noise, "__init__", on_cpu), mock.patch.object(Noise, "_rows", moved):
        yield


def weights(case: Case, device: str, **options: Any) -> dict[str, torch.Tensor]:
    """After ten steps of 16 examples."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        training = tiny.options(device=device, images=160, adam_eps=1e-3, **options)
        case.train(run, training=training)
        return load_tree(run / "model.safetensors")[0]


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> str:
    """The largest difference of two weights."""
    far = max(float((a[k].double() - b[k].double()).abs().max()) for k in a if a[k].numel())
    return "same bits" if far == 0 else f"{far:.0e}"


def agreement(case: Case, device: str) -> list[str]:
    """A row of the first table."""
    def with_cpu() -> str:
        with draws_of_the_cpu():
            return distance(*(weights(case, d) for d in ("cpu", device)))

    def twice(**options: Any) -> str:
        return distance(*(weights(case, device, **options) for _ in range(2)))

    def recorded() -> str:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            far = distance(weights(case, device), weights(case, device, cuda_graphs=True))
        return "not recorded" if any("not recorded" in str(n.message) for n in notes) else far

    return [case.name, *map(attempt, (
        with_cpu, twice, lambda: twice(deterministic=True), recorded,
        lambda: distance(weights(case, device), weights(case, device, precision="bf16"))))]


def stepper(name: str, shape: tuple[int, ...], batch: int, device: str, precision: str,
            settings: dict[str, Any], n: int = 2048, **options: Any) -> Callable[[], None]:
    """One step of a training at full size."""
    data = tiny.images(shape, n, 256)
    torch.manual_seed(0)
    model = models.build(name, parse(models.get(name).config, settings), data.space).to(device)
    model.prepare(Sweep(data, device=device), n)
    devices.apply_layout(model, "channels_last" if precision == "bf16" else "contiguous")
    training = tiny.options(batch_size=batch, device=device, **options)
    trainer = Trainer(model, training, budget=10**9, precision=precision, n_train=n)
    batches = Batches(data, batch, device=device)
    return lambda: trainer.step(batches.at(trainer.index))


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def pace(step: Callable[[], None], device: str, seconds: float) -> str:
    """Milliseconds of a step, and of the host alone until it could go on."""
    for _ in range(20):
        step()
    wait(device)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    host = time.perf_counter() - start
    wait(device)
    return f"{1e3 * (time.perf_counter() - start) / steps:.2f} ({1e3 * host / steps:.2f})"


def speed(number: int, device: str, precision: str, seconds: float) -> list[str]:
    """A row of the second table."""
    name, shape, batch, settings = STEPS[number]

    def timed(**options: Any) -> str:
        with devices.numerics():
            return pace(stepper(name, shape, batch, device, precision, settings, **options),
                        device, seconds)

    def with_flag(owner: Any, flag: str) -> str:
        with devices.numerics():
            setattr(owner, flag, True)
            if flag == "allow_tf32":
                torch.backends.cuda.matmul.allow_tf32 = True
            return pace(stepper(name, shape, batch, device, precision, settings), device, seconds)

    def memory() -> str:
        return f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}"

    cells: list[Callable[[], str]] = [timed]
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        cells += [memory, lambda: timed(cuda_graphs=True), lambda: timed(accumulate=2),
                  lambda: with_flag(torch.backends.cudnn, "allow_tf32"),
                  lambda: with_flag(torch.backends.cudnn, "benchmark")]
    return [f"{name} {' × '.join(map(str, shape))}, batch {batch}", precision,
            *map(attempt, cells)]


def waits(number: int, device: str) -> str:
    """Lines of latlas that torch says wait for the device within a step."""
    name, shape, batch, settings = STEPS[number]
    step = stepper(name, shape, batch, device, "bf16", settings)
    for _ in range(17):
        step()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        for _ in range(17):
            step()
    torch.cuda.set_sync_debug_mode("default")
    return ", ".join(sorted({f"{Path(n.filename).name}:{n.lineno}" for n in notes})) or "none"


def fills_memory(device: str) -> str:
    """What is said where a batch does not fit."""
    data = tiny.images((3, 256, 256), 4096, 256)
    with tempfile.TemporaryDirectory() as folder:
        try:
            tiny.train(Path(folder) / "run", "vae", data,
                       parse(models.get("vae").config, {"network": "conv", "width": 512}),
                       training=tiny.options(device=device, batch_size=4096, images=8192))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "it fits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no row is begun")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one timing")
    parser.add_argument("--models", nargs="+", default=list(models.MODELS))
    args = parser.parse_args()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before cuBLAS begins
    gpu = args.device.startswith("cuda")
    print(torch.cuda.get_device_name() if gpu else "CPU", "torch", torch.__version__,
          "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version(), flush=True)

    def left(share: float) -> bool:
        return time.monotonic() - BEGAN < 60 * args.minutes * share

    rows = []
    for case in CASES:
        if str(case) in args.models and case.name != "pca" and left(0.5):
            rows.append(agreement(case, args.device))
            print(".", end="", file=sys.stderr, flush=True)
    print("\nLargest difference of weights after ten steps of tiny networks\n")
    print(table(["model", "GPU, CPU", "twice", "twice, deterministic=true", "cuda_graphs=true",
                 "bf16"], rows), flush=True)
    rows = [speed(i, args.device, precision, args.seconds) for i in range(len(STEPS))
            if STEPS[i][0] in args.models for precision in ("fp32", "bf16") if left(0.95)]
    print("\nMilliseconds of a step (of the host alone)\n")
    head = ["model", "dtype", "as it is", "peak MiB", "cuda_graphs=true", "accumulate=2", "TF32",
            "cudnn.benchmark"]
    print(table(head[:len(rows[0])] if rows else head, rows), flush=True)
    if gpu:
        print("\nWaits within a step\n")
        print(table(["model", "lines"], [[STEPS[i][0], attempt(lambda i=i: waits(i, args.device))]
                                         for i in range(len(STEPS)) if left(1.0)]))
        print(f"\nToo large a batch: {fills_memory(args.device)}")
    print(f"\n{time.monotonic() - BEGAN:.0f} s in all")


if __name__ == "__main__":
    main()
