"""Importance-sampled likelihood: latlas against pythae's ``get_nll``, the same trained weights.

The bound is log 1/K Σ p(x, z_k) / q(z_k | x) with K draws, on the same examples in both. pythae
takes one example at a time in batches of ``batch_size`` draws (100 by default; here also all at
once) and repeats x for every draw. The benchmark wraps it in ``no_grad``, which it lacks.

    python benchmarks/likelihood_speed.py --data mnist.npz --draws 1000
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
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
from torch import nn

CASE = "mlp-200-200"
#: name of a side → draws pythae takes at once
SIDES = {"pythae": 100, "pythae, all draws at once": None, "latlas": 0}


def main() -> None:
    """Measure, or compare."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=1_000, help="draws of z for each example")
    parser.add_argument("--examples", type=int, default=100, help="examples that are scored")
    parser.add_argument("--train", type=int, default=300_000, help="examples the model sees before")
    options = parser.parse_args()
    if options.measure:
        answer(measure(options.measure))
    else:
        compare(options)


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """One side: nats and seconds per example, peak memory. Runs in a subprocess."""
    torch.set_num_threads(task["threads"])
    networks = _load(Path(task["weights"]))
    x = np.load(task["examples"])
    draws, device = task["draws"], task["device"]
    if task["side"] == "latlas":
        import latlas_side
        result = latlas_side.likelihood(CASES[CASE], networks, x, draws, device)
    else:
        import pythae_side
        at_once = SIDES[task["side"]] or draws
        result = pythae_side.likelihood(CASES[CASE], networks, as_unit(x), draws, at_once, device)
    return result | peak_memory(device)


def compare(options: Namespace) -> None:
    """Train once, then all sides in turn, ``rounds`` times, for each number of threads."""
    data: dict[str, Any] = {"machine": machine(options.device), "measured": []}
    print(data["machine"])
    with tempfile.TemporaryDirectory() as folder:
        _prepare(options, Path(folder))
        for threads in options.threads:
            results = run_rounds(SIDES, options.rounds, lambda side, threads=threads: ask(
                "likelihood_speed.py", _task(options, side, threads, folder), threads))
            data["measured"].append({"threads": threads, "sides": results})
            print(f"\n{CASES[CASE].title}, {options.examples} examples, {options.draws:,} draws, "
                  f"{threads} thread{'s' * (threads > 1)}, {options.rounds} rounds: "
                  "median (least … greatest)\n")
            print(table(HEAD, _rows(results)), flush=True)
    write_json(options.json, data)


def _task(options: Namespace, side: str, threads: int, folder: str) -> dict[str, Any]:
    return {"side": side, "threads": threads, "device": options.device, "draws": options.draws,
            "weights": f"{folder}/networks.pt", "examples": f"{folder}/examples.npy"}


HEAD = ["side", "log-likelihood (nats)", "ms per example", "times pythae", "by CPU time",
        "peak MiB",
        "of pythae's", "without torch", "of pythae's"]


def _rows(results: Measured) -> list[list[str]]:
    base = results["pythae"]
    return [[side, spread(m["nats"] for m in measured),
             spread(1e3 * m["seconds"] for m in measured), ratio(base, measured, "seconds"),
             ratio(base, measured, "cpu_seconds"), *memory(measured, base)]
            for side, measured in results.items()]


def _prepare(options: Namespace, folder: Path) -> None:
    """The weights and examples that every side reads."""
    import latlas_side
    x = images(options.data)
    model = latlas_side.trained(CASES[CASE], x, options.train)
    torch.save({"encoder": model.encoder.state_dict(), "decoder": model.decoder.state_dict()},
               folder / "networks.pt")
    np.save(folder / "examples.npy", x[:options.examples])


def _load(path: Path) -> tuple[nn.Module, nn.Module]:
    weights = torch.load(path, weights_only=True)
    encoder, decoder = CASES[CASE].networks()
    encoder.load_state_dict(weights["encoder"])
    decoder.load_state_dict(weights["decoder"])
    return encoder, decoder


if __name__ == "__main__":
    main()
