"""Whole steps of models of several players, in alternation: what benchmarks of them share."""

from __future__ import annotations

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
from common import (
    Clock,
    Measured,
    answer,
    arguments,
    ask,
    images,
    machine,
    memory,
    peak_memory,
    ratio,
    run_rounds,
    spread,
    table,
    write_json,
)
from numpy.typing import NDArray

from latlas.core.devices import DistributedContext, apply_layout, keep_freed_memory
from latlas.core.model import Model
from latlas.data.batches import Batches
from latlas.data.pairs import Data
from latlas.engine.options import TrainOptions
from latlas.engine.resolve import resolve
from latlas.engine.trainer import Trainer

#: Adam's, of both sides
RATE, BETAS = 2e-4, (0.5, 0.999)
#: steps before the clock starts, and the least number of timed ones
WARM, LEAST = 2, 4
Step = Callable[[], None]
#: a measurement's settings to a step and what latlas chose for it
Making = Callable[[dict[str, Any]], tuple[Step, dict[str, Any]]]


class Case(Protocol):
    """What is trained; ``title`` names it in the table."""

    @property
    def title(self) -> str: ...

    @property
    def batch_size(self) -> int: ...


def latlas_step(model: Model, data: Data, batch_size: int, task: Mapping[str, Any],
                precision: str) -> tuple[Step, dict[str, Any]]:
    """One step of latlas's trainer, with the options of a long run, and what they are."""
    keep_freed_memory()
    model.to(task["device"])
    options = TrainOptions(minutes=30, batch_size=batch_size, learning_rate=RATE, betas=BETAS,
                           schedule="constant", warmup=0.0, precision=precision,
                           threads=task["threads"], device=task["device"])
    batches = Batches(data, batch_size, device=task["device"])
    resolved = resolve(model, batches, options, DistributedContext())
    apply_layout(model, resolved.layout)
    trainer = Trainer(model, options, budget=resolved.images, precision=resolved.precision,
                      n_train=len(data))
    return lambda: trainer.step(batches.at(trainer.index)), msgspec.to_builtins(resolved)


def timed(step: Step, items: int, device: str, seconds: float,
          period: int = 1) -> dict[str, float]:
    """Seconds per example: the median of so long a time, of ``period`` steps each."""
    for _ in range(WARM * period):
        step()
    clocks = [Clock.now(device)]
    while len(clocks) <= LEAST or clocks[-1].wall - clocks[0].wall < seconds:
        for _ in range(period):
            step()
        clocks.append(Clock.now(device))
    steps = [late.since(early, items * period) for early, late in pairwise(clocks)]
    return {key: statistics.median(s[key] for s in steps) for key in steps[0]}


def coloured(path: Path | None, side: int, items: int) -> NDArray[np.uint8]:
    """Images of 28 by 28, enlarged and framed: (examples, 3, side, side)."""
    times = side // 28
    x = images(path, items)[:items].repeat(times, 1).repeat(times, 2)
    edge = (side - 28 * times) // 2
    framed = np.pad(x, ((0, 0), (edge, edge), (edge, edge)))
    return np.ascontiguousarray(np.repeat(framed[:, None], 3, 1))


def run(script: str, doc: str, cases: Mapping[str, Case], sides: list[str],
        make: Making) -> None:
    """Measure, or compare all sides in turn; ratios are to the first of them."""
    parser = _arguments(doc, cases, sides)
    options = parser.parse_args()
    if options.measure:
        answer(_measure(options.measure, cases[options.measure["case"]], make))
    else:
        _compare(script, options, cases)


def _arguments(doc: str, cases: Mapping[str, Case], sides: list[str]) -> ArgumentParser:
    parser = arguments(doc)
    parser.add_argument("--cases", nargs="+", choices=cases, default=list(cases))
    parser.add_argument("--sides", nargs="+", choices=sides, default=sides)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement")
    return parser


def _measure(task: dict[str, Any], case: Case, make: Making) -> dict[str, Any]:
    """One side, one case: seconds per example and peak memory. Runs in a subprocess."""
    torch.set_num_threads(task["threads"])
    step, chosen = make(task)
    took = timed(step, case.batch_size, task["device"], task["seconds"],
                 getattr(case, "period", 1))
    return {**took, "chosen": chosen, **peak_memory(task["device"])}


def _compare(script: str, options: Namespace, cases: Mapping[str, Case]) -> None:
    """All sides in turn, ``rounds`` times, for each case and number of threads."""
    data: dict[str, Any] = {"machine": machine(options.device), "measured": []}
    print(data["machine"])
    for threads in options.threads:
        rows = []
        for name in options.cases:
            found = run_rounds(options.sides, options.rounds,
                               lambda side, name=name, threads=threads: ask(
                                   script, _task(options, name, side, threads), threads))
            data["measured"].append({"threads": threads, "case": name, "sides": found})
            rows += _rows(cases[name], found)
        print(f"\n{threads} thread{'s' * (threads > 1)}, {options.rounds} rounds: "
              "median (least … greatest)\n")
        print(table(HEAD, rows), flush=True)
    write_json(options.json, data)


def _task(options: Namespace, case: str, side: str, threads: int) -> dict[str, Any]:
    return {"case": case, "side": side, "threads": threads, "device": options.device,
            "seconds": options.seconds, "data": None if options.data is None else str(options.data)}


HEAD = ["case", "side", "images/s", "times plain", "by CPU time", "chosen", "peak MiB",
        "of plain's"]


def _rows(case: Case, found: Measured) -> list[list[str]]:
    base = next(iter(found.values()))
    return [[f"{case.title}, batch {case.batch_size}", side,
             spread((1 / m["seconds"] for m in measured), _digits(measured)),
             ratio(base, measured, "seconds"), ratio(base, measured, "cpu_seconds"),
             _chosen(measured[-1]["chosen"]), *memory(measured, base)[:2]]
            for side, measured in found.items()]


def _digits(measured: list[dict[str, Any]]) -> int:
    """Decimals of a speed: two for steps of a second."""
    return 0 if measured[0]["seconds"] < 0.05 else 2


def _chosen(chosen: dict[str, Any]) -> str:
    return f"{chosen['precision']}, {chosen['layout']}" if chosen else "fp32"
