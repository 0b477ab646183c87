"""Training speed and peak memory: latlas's engine against pythae's trainer, in alternation.

Both have the same networks, batch size, loss (summed binary cross-entropy + β·KL), Adam at 1e-3,
images and number of images. Warm-up, evaluation and saving are outside the timed part of both;
progress bars are off in both. pythae has its defaults (fp32, its DataLoader in the main process);
latlas has its defaults, and "latlas fp32" shows what it does without bf16.

    python benchmarks/train_speed.py --data mnist.npz --threads 1 2
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from common import (
    CASES,
    Measured,
    answer,
    arguments,
    as_unit,
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

#: name of a side → precision latlas is held to; ``None`` is pythae
SIDES = {"pythae": None, "latlas": "auto", "latlas fp32": "fp32"}
WARM = 3_000


def main() -> None:
    """Measure, or compare."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    if options.measure:
        answer(measure(options.measure))
    else:
        compare(options)


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """One side, one case: seconds per image, final loss, peak memory. Runs in a subprocess."""
    torch.set_num_threads(task["threads"])
    case, precision = CASES[task["case"]], SIDES[task["side"]]
    x = images(task["data"])
    if precision is None:
        import pythae_side
        result = pythae_side.train_speed(case, as_unit(x), case.images, WARM, task["device"])
    else:
        import latlas_side
        result = latlas_side.train_speed(case, x, case.images, WARM, task, precision)
    return result | peak_memory(task["device"])


def compare(options: Namespace) -> None:
    """All sides in turn, ``rounds`` times, for each case and number of threads."""
    data: dict[str, Any] = {"machine": machine(options.device), "measured": []}
    print(data["machine"])
    for threads in options.threads:
        rows = []
        for name in options.cases:
            results = run_rounds(
                SIDES, options.rounds, lambda side, name=name, threads=threads: ask(
                    "train_speed.py", _task(options, name, side, threads), threads))
            data["measured"].append({"threads": threads, "case": name, "sides": results})
            rows += _rows(name, results)
        print(f"\n{threads} thread{'s' * (threads > 1)}, {options.rounds} rounds: "
              "median (least … greatest)\n")
        print(table(HEAD, rows), flush=True)
    write_json(options.json, data)


def _task(options: Namespace, case: str, side: str, threads: int) -> dict[str, Any]:
    return {"case": case, "side": side, "threads": threads, "device": options.device,
            "data": None if options.data is None else str(options.data)}


HEAD = ["case", "side", "images/s", "times pythae", "by CPU time", "peak MiB", "of pythae's",
        "without torch", "of pythae's"]


def _rows(name: str, results: Measured) -> list[list[str]]:
    case, base = CASES[name], results["pythae"]
    return [[f"{case.title}, batch {case.batch_size}", side,
             spread((1 / m["seconds"] for m in measured), 0), ratio(base, measured, "seconds"),
             ratio(base, measured, "cpu_seconds"), *memory(measured, base)]
            for side, measured in results.items()]


if __name__ == "__main__":
    main()
