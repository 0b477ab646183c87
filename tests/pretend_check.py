"""What a model does on the pretend GPU, in a process of its own: see :mod:`test_pretend_cuda`.

    python pretend_check.py FOLDER CASE …

prints one JSON object per case: failures, waits and launches of a step, uses of float64, steps that
were replayed, and how far the weights are from those of the CPU.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tiny
import torch
from pretend_cuda import PACKAGE, pretend_cuda, steps_watched
from test_contract import CASES, Case

import latlas
from latlas.core.errors import DataNote
from latlas.core.files import load_tree
from latlas.data import batches
from latlas.data.dataset import Dataset
from latlas.run import Run

#: eight steps and one more, with log lines, held-out checks and a snapshot among them; with a large
#: epsilon Adam makes no whole steps of the rounding errors of a gradient that is nearly zero
TRAINING = {"images": 16 * 9, "sample_snapshots": 1, "validate_every": 64, "adam_eps": 1e-3}
#: how a model is trained: the share of the device that data may take, and the options
WAYS: dict[str, tuple[float, dict[str, Any]]] = {
    "fp32": (1.0, {}), "bf16": (1.0, {"precision": "bf16"}), "pinned": (0.0, {}),
    "recorded": (1.0, {"cuda_graphs": True})}


def verbs(run: Run, data: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What a person does with a run, by name."""
    model: Any = run.model
    data = data if isinstance(data, Dataset) else data.a
    few, two = data.subset(slice(0, 6)), data.subset(slice(0, 2))
    condition: dict[str, Any] = {} if model.takes_condition is None else (
        {"label": model.space.classes[0]} if model.takes_condition == "label" else {"given": few})
    z = np.random.default_rng(0).standard_normal((6, getattr(model, "latent_dim", 1)))
    z = z.astype(np.float32)
    of_capability: dict[str, list[tuple[str, Callable[[], Any]]]] = {
        "sample": [("sample", lambda: latlas.sample(run, 6, **condition))],
        "encode": [("encode", lambda: latlas.encode(run, few)),
                   ("reconstruct", lambda: latlas.reconstruct(run, few))],
        "decode": [("decode", lambda: latlas.decode(run, z, **condition)),
                   *([("interpolate", lambda: latlas.interpolate(run, z[0], z[1], steps=3,
                                                                 **condition)),
                      ("traverse", lambda: latlas.traverse(run, dims=[0], steps=3, **condition))]
                     if "given" not in condition else [])],
        "score": [("score", lambda: latlas.score(run, few, draws=3))],
        "classify": [("classify", lambda: latlas.classify(run, few)),
                     ("weights", lambda: latlas.weights(run, data))],
        "denoise": [("denoise", lambda: latlas.denoise(run, few))],
        "mix": [("mix", lambda: latlas.mix(run, [0, 1], [2])),
                ("project", lambda: latlas.project(run, two, starts=2, steps=2))],
        "translate": [("translate", lambda: latlas.translate(run, few))]}
    for capability, some in of_capability.items():
        if run.can(capability):
            yield from some
    if run.can("encode") and model.takes_condition is None:
        yield "outliers", lambda: latlas.outliers(run, few, reference=data, controls=False,
                                                  fpr=0.2)
    if run.model_name == "vae":
        yield "ais", lambda: latlas.score(run, two, method="ais", draws=2, temperatures=2,
                                          leapfrog=1)
        yield "evaluate", lambda: latlas.evaluate(run, data.subset(slice(0, 40)), draws=3,
                                                  metrics=["likelihood", "reconstruction"])


def blame(error: BaseException) -> str:
    """The innermost line of latlas in a traceback, and what was said."""
    places = [f"{f.filename[len(PACKAGE):]}:{f.lineno}" for f in traceback.extract_tb(
        error.__traceback__) if f.filename.startswith(PACKAGE)]
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{(places or ['?'])[-1]} {type(error).__name__}: {first[:300]}"


def check(case: Case, folder: Path, guard: Path) -> dict[str, Any]:
    """Train on the pretend device in four ways and on the CPU, and use every verb."""
    data, failures = case.data(), dict[str, str]()
    waits, weights = set[str](), dict[str, Any]()
    result: dict[str, Any] = {"case": str(case), "failures": failures}
    for way, (resident, options) in WAYS.items():
        with pretend_cuda(guard) as log, steps_watched(log), mock.patch.object(
                batches, "RESIDENT_SHARE", resident), warnings.catch_warnings():
            warnings.simplefilter("ignore", DataNote)
            try:
                model = case.train(folder / way, validation=data, training=tiny.options(
                    device="cuda", **TRAINING, **options))
                if str(model.device) != "cuda:0":
                    failures[f"train {way}"] = f"trained on {model.device}"
                weights[way] = load_tree(folder / way / "model.safetensors")[0]
            except Exception as error:
                failures[f"train {way}"] = blame(error)
        waits |= {f"{what}: {place}" for what, place in log.waits}
        if way == "fp32":
            result |= {"launches": log.launches // 9, "float64": sorted(log.float64)}
        elif way == "recorded":
            result["replays"] = log.replays
    result["waits"] = sorted(waits)
    case.train(folder / "cpu", validation=data, training=tiny.options(**TRAINING))
    on_cpu = load_tree(folder / "cpu" / "model.safetensors")[0]
    result["distances"] = {way: max(
        float((there[k].double() - on_cpu[k].double()).abs().max()) for k in on_cpu
        if on_cpu[k].numel()) for way, there in weights.items()}
    with pretend_cuda(guard):
        run = Run(folder / "fp32", device="cuda", **tiny.modules_of(case.modules))
        for name, verb in verbs(run, data):
            try:
                verb()
            except Exception as error:
                failures[name] = blame(error)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    chosen = {str(case): case for case in CASES}
    for name in sys.argv[2:] or chosen:
        warnings.simplefilter("ignore", DataNote)
        print(json.dumps(check(chosen[name], out / name.replace(":", "-"), out.parent / "guard")),
              flush=True)
