"""Digests of what every model and verb computes, to compare before and after a change of the code.

    python benchmarks/golden.py --out before.txt
    python benchmarks/golden.py --against before.txt    # prints what differs, exits 1 if anything
    python benchmarks/golden.py --only vae gan/conv

Every model learns for a few steps on tiny data, with a fixed seed, one thread, fp32 and one memory
layout. A line is ``CASE RESULT DIGEST ~RMS``: the digest is of every bit, of tensors and arrays in
their order without their names; numbers that stand alone count to six digits. The root mean square
of all numbers tells a change of the last bits, or of the order alone, from another one. Digests of
two machines, or of two versions of torch, do not compare.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_cases import Case, cases, write_data
from threadpoolctl import threadpool_limits

import latlas
from latlas.data.batches import Batches
from latlas.data.pairs import PairDataset
from latlas.models import gan
from latlas.run import Run

#: nothing left to timing
FIXED = {"images": 80, "batch_size": 16, "seed": 3, "precision": "fp32", "threads": 1,
         "layout": "contiguous", "device": "cpu", "sample_snapshots": 0}
#: metrics that were renamed: new name to the name in the baseline
RENAMED = {"data_copying": "copying_z", "examples": "examples", "label_accuracy": "label_match",
           "lipschitz_ratio": "unevenness"}
Values = list[Any]  # arrays, tensors, numbers and words, in a fixed order
Calls = Iterator[tuple[str, Callable[[], Values]]]


# ------------------------------------------------------------------ all that is called of latlas

def train(model: str, source: Any, folder: Path, settings: dict[str, Any]) -> Values:
    """Weights of a model trained in a run folder; it goes on where it stopped there.

    Networks of the user's own are trained in place, so each call has copies.
    """
    result = latlas.train(model, source, out=folder, progress=False, **deepcopy(settings))
    return tensors(result.model)


def log_of(folder: Path) -> Values:
    """The numbers of metrics.jsonl, line by line, but for times."""
    file = folder / "metrics.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    return [value for line in lines for name, value in json.loads(line).items()
            if name != "seconds" and isinstance(value, int | float)]


def tensors(model: Any) -> Values:
    """Parameters and buffers in the order in which the model declares them."""
    return list(model.state_dict().values())


@contextmanager
def at_step(step: int, act: Callable[[Any], None]) -> Iterator[None]:
    """Call ``act`` with the batch of a step of training, the first time that it is drawn."""
    original, pending = Batches.at, [step]

    def at(self: Batches, index: int) -> Any:
        batch = original(self, index)
        if pending == [index]:
            pending.clear()
            act(batch)
        return batch

    Batches.at = at  # type: ignore[method-assign]
    try:
        yield
    finally:
        Batches.at = original  # type: ignore[method-assign]


def stop(batch: Any) -> None:
    """As Ctrl-C does: the step is finished, a checkpoint saved."""
    signal.raise_signal(signal.SIGINT)


def spoil(batch: Any) -> None:
    """Numbers from which the weights become NaN."""
    batch.x.fill_(math.nan)


def hasten_augmentation() -> None:
    """Augmentation that adapts sets in within a few steps, not after thousands."""
    gan.ADA_TARGET, gan.ADA_EXAMPLES = -0.5, 200


def metrics_of(evaluation: Any) -> Values:
    """NAME=value, error, value of the control, of copies of training examples; sorted by name."""
    return sorted(f"{RENAMED.get(m.key, m.key)}=" + " ".join(
        "-" if v is None else f"{v:.6g}" for v in (m.value, m.error, m.control, m.training_copies))
        for m in evaluation.metrics)


#: the values in what a verb returns; of other verbs it is one array
RESULTS: dict[str, Callable[[Any], Values]] = {
    "score": lambda r: [r.nats, r.se, r.ess, r.bits_per_dim, r.acceptance],
    "classify": lambda r: [r.log_p],
    "project": lambda r: [r.latents, r.values, r.path, r.error, r.nearest],
    "directions": lambda r: [r.centre, r.axes, r.sd, r.share],
    "outliers": lambda r: [r.score, r.reference, r.threshold, *r.controls.values()],
    "weights": lambda r: [r.weight, r.rarity, r.effective_share],
    "audit": lambda r: [r.latents, r.rarity, r.by_latent, r.by_example, r.by_walk, r.density,
                        r.weights.weights, *(c.examples for c in r.clusters),
                        *(v for g in r.groups for v in (g.count, g.rarity, g.error, g.nats,
                                                        g.accuracy))],
    "evaluate": metrics_of,
    "fit_prior": lambda r: [*tensors(r.run.model), r.own, r.fitted],
    "translate": lambda r: ([r.values] if r.clips is None else [clip.x for clip in r.clips]),
}


def loaded(run: Path, modules: dict[str, Any]) -> Any:
    """A run with its model."""
    return latlas.load(run, device="cpu", **deepcopy(modules))


def without_data(run: Any) -> Any:
    """The model of a run alone, of which no data are encoded unless they are named."""
    return Run.of(run.model if isinstance(run, Run) else loaded(run, {}).model)


def verb(name: str, run: Any, *args: Any, **options: Any) -> Values:
    """What a verb says of a run, a folder or a model."""
    result = getattr(latlas, name)(run, *args, **options)
    return RESULTS.get(name, lambda array: [np.asarray(array)])(result)


def edited(run: Any, directions: dict[str, Any], **options: Any) -> Values:
    run = without_data(run)
    return [np.asarray(latlas.edit(run, latlas.directions(run, 2, **directions), **options))]


def scored(run: Path, task: str, source: Any, **options: Any) -> Values:
    """Columns of a batch of the first examples."""
    x = latlas.open_data(source, "test", like=run).take("x")
    return numeric(latlas.Scorer(run, task, **options)({"x": x[:9]}))


def parts(run: Path, task: str, folder: Path, **options: Any) -> Values:
    import polars

    getattr(latlas, task)(run, shard="1/1", out=folder, block=512, **options)
    return numeric(polars.read_parquet(sorted(folder.glob("*.parquet"))).to_dict(as_series=False))


def numeric(columns: dict[str, Any]) -> Values:
    arrays = map(np.asarray, columns.values())
    return [array for array in arrays if array.dtype.kind in "biuf"]


def examples(source: Any, split: str) -> Values:
    """Examples and labels as they are read."""
    data = latlas.open_data(source, split)
    sides = [data.a, data.b] if isinstance(data, PairDataset) else [data]
    return [side.take(name) for side in sides for name in ("x", "label")]


# ------------------------------------------------------------------------------ digests

def digest(values: Values) -> str:
    """Of shapes, types and bytes; and the root mean square of all finite numbers."""
    state, squares, count = blake2b(digest_size=8), [], 0
    for value in values:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            state.update(f"{array.shape} {array.dtype} ".encode() + array.tobytes())
            finite = array[np.isfinite(array)].astype(np.float64)
            squares.append(float(np.square(finite).sum()))
            count += finite.size
        else:
            number = isinstance(value, int | float | np.number) and math.isfinite(value)
            state.update(f"{value:.6g};".encode() if number else f"{value};".encode())
            squares += [float(value) ** 2] if number else []
            count += number
    size = f" ~{math.sqrt(math.fsum(squares) / count):.6g}" if count else ""
    return state.hexdigest() + size


# ------------------------------------------------------------------------------ verbs

def generated(run: Any, case: Case, source: Any) -> Calls:
    """Verbs that make examples."""
    can, condition = case.can, case.batch_condition(source)
    label = {k: v for k, v in condition.items() if k == "label"}
    if "sample" not in can:
        return
    yield "sample", lambda: verb("sample", run, 7, seed=1, **condition)
    yield "sample-mean", lambda: verb("sample", run, 7, seed=1, mean=True, **condition)
    yield "sample-drawn", lambda: verb("sample", run, 7, seed=1, mean=False, **condition)
    yield "sample-seeds", lambda: verb("sample", run, seeds=[3, 5, 8], **condition)
    if label == {"label": "1"}:
        yield "sample-labels", lambda: verb("sample", run, 7, label=["2", "0"])
    if "decode" not in can:
        return

    @cache
    def z() -> Any:
        return verb("prior_latents", run, 6, seed=2, **label)[0]

    yield "latents", lambda: [z()]
    yield "decode", lambda: verb("decode", run, z(), **condition)
    yield "line", lambda: verb("interpolate", run, z()[0], z()[1], steps=5, **condition)
    yield "circle", lambda: verb("interpolate", run, z()[0], z()[1], steps=5, method="slerp",
                                 **condition)
    yield "traverse", lambda: verb(
        "traverse", without_data(run), dims=[0, 2], steps=3, **condition)
    yield "traverse-data", lambda: verb("traverse", run, latents=z(), start=z()[3], dims=[0, 2],
                                        steps=3, **condition)
    yield "project", lambda: verb("project", run, split="test", n=None, starts=3, steps=4)
    if condition != label:
        return
    yield "directions", lambda: verb("directions", without_data(run), 2, seed=4, **label)
    yield "edit", lambda: edited(run, label, steps=3, **label)
    yield "edit-seed", lambda: edited(run, label, seed=5, steps=3, span=2.0, **label)
    if "encode" in can:
        yield "directions-data", lambda: verb("directions", run, 2, data=source, split="test",
                                              **label)
    if "styles" not in can:
        return
    yield "sample-truncated", lambda: verb("sample", run, 7, truncation=0.6)
    yield "line-styles", lambda: verb("interpolate", run, z()[0], z()[1], steps=5, space="w")
    yield "project-styles", lambda: verb("project", run, split="test", n=None, starts=2,
                                         steps=3, space="w")
    yield "project-latents", lambda: verb("project", run, split="test", n=None, starts=2,
                                          steps=3, space="z", features="random-conv")
    yield "mix", lambda: verb("mix", run, [1, 2], [3, 4, 5])
    yield "mix-fine", lambda: verb("mix", run, [1], [3], layers="fine", truncation=0.7)
    yield "edit-coarse", lambda: edited(run, {}, steps=3, layers="coarse")


def inferred(run: Any, case: Case, source: Any) -> Calls:
    """Verbs that say something of examples."""
    can = case.can
    for name in ("encode", "reconstruct", "denoise", "classify"):
        if name in can:
            yield name, lambda name=name: verb(name, run)
    for way in sorted({"to-A", "to-B"} & can):
        yield f"translate-{way}", lambda way=way: verb("translate", run, to=way[-1])
    for method in ("exact", "elbo", "iw", "naive", "ais"):
        if method in can:
            more = {} if method == "exact" else {"draws": 40 if method == "naive" else 5}
            more |= {"temperatures": 4, "leapfrog": 2} if method == "ais" else {}
            yield f"score-{method}", lambda method=method, more=more: verb(
                "score", run, method=method, seed=6, precision="fp32", **more)
    if "observed" in can:
        yield "score-observed-naive", lambda: verb("score", run, method="naive", draws=40,
                                                   observation_sd=0.3)
        yield "score-observed-ais", lambda: verb("score", run, draws=3, temperatures=4,
                                                 leapfrog=2, observation_sd=0.3)


#: options of what is written in parts and scored in batches
TASKS: dict[str, dict[str, Any]] = {
    "score": {"draws": 3, "seed": 2}, "encode": {}, "outliers": {"fpr": 0.1}}


def evaluated(run: Any, case: Case, source: Any) -> Calls:
    """Verbs that evaluate examples or the model. The second prior comes last: samples are from it
    then."""
    can, few = case.can, {"draws": 5, "seed": 7, "samples": 40}
    few["features"] = "auto" if "classifier" in can else "pixels"
    if "evaluate" in can:
        yield "evaluate", lambda: verb("evaluate", run, **few)
    if "to-A" in can:
        yield "evaluate-to-A", lambda: verb("evaluate", run, to="A", **few)
    for task in sorted(TASKS.keys() & can if "parts" in can else ()):
        more = TASKS[task]
        yield f"parts-{task}", lambda task=task, more=more: parts(
            run, task, run.parent / f"{run.name}-{task}", **more)
        if not case.condition:
            yield f"scorer-{task}", lambda task=task, more=more: scored(
                run, task, source, **more)
    if "weights" in can:
        yield "rarity", lambda: verb("weights", run)
        yield "rarity-maximum", lambda: verb("weights", run, split="all", method="maximum",
                                              within="all", share=0.4, clip=3.0, bins=6)
    if "outliers" not in can:
        return
    for method in ("nats", "error", "typicality"):
        if method != "nats" or "score" in can:
            yield f"outliers-{method}", lambda method=method: verb(
                "outliers", run, method=method, fpr=0.1, seed=8,
                controls=method == "error")
    yield "audit", lambda: verb("audit", run, draws=2, seed=9)
    yield "prior-fitted", lambda: verb("fit_prior", run, progress=False, draws=2, width=8, depth=1,
                                       **{**FIXED, "images": 48})
    yield "sample-fitted", lambda: verb("sample", run, 7, seed=1, latents="fitted")
    yield "evaluate-fitted", lambda: verb("evaluate", run, latents="fitted", **few)


# ------------------------------------------------------------------------------ the whole

def learnt(run: Path, case: Case, source: Any) -> Calls:
    """Weights and log of a run, and weights of one that stopped at a quarter and went on."""
    settings = {**FIXED, **case.settings}
    steps = (settings["images"] or 0) // (settings["batch_size"] or 64)

    def unbroken() -> Values:
        with at_step(2, spoil) if case.spoilt else nullcontext():
            return train(case.model, source, run, settings)

    def resumed() -> Values:
        other = run.with_name(f"{run.name}-resumed")
        with at_step(max(1, steps // 4 - 1), stop):
            train(case.model, source, other, settings)
        if (other / "model.safetensors").exists():
            raise AssertionError("it was not stopped")
        values = train(case.model, source, other, settings)
        if digest(values) != digest(tensors(loaded(run, case.modules).model)):
            raise AssertionError("it ends with other weights than an unbroken run")
        return values

    yield "weights", unbroken
    yield "log", lambda: log_of(run)
    if case.model != "pca" and not case.spoilt:
        yield "resumed", resumed


def line_of(label: str, name: str, call: Callable[[], Values], folder: Path) -> str:
    """A digest, or in one line why there is none: the other results still count."""
    try:
        return f"{label} {name} {digest(call())}"
    except Exception as error:
        text = f"{label} {name} FAILED {type(error).__name__}: {error}"
        return text.replace(str(folder), "").splitlines()[0]


def lines(only: Sequence[str], folder: Path) -> Iterator[str]:
    """Of the data, then case by case."""
    sources = write_data(folder)
    chosen = [case for case in cases() if not only or case.label in only]
    for name in dict.fromkeys(case.data for case in chosen):
        for split in ("train", "validation", "test"):
            yield line_of(f"data/{name}", split, lambda name=name, split=split: examples(
                sources[name], split), folder)
    for case in chosen:
        run, source = folder / "runs" / case.label.replace("/", "-"), sources[case.data]
        for verbs in (learnt, generated, inferred, evaluated):
            if verbs is generated and case.modules:
                run = loaded(run, case.modules)
            for name, call in verbs(run, case, source):
                yield line_of(case.label, name, call, folder)


def compared(old: Sequence[str], new: Sequence[str], only: Sequence[str]) -> list[str]:
    """Lines that differ, those of ``old`` with a minus. Lines that only ``old`` has do not count
    for cases that are not named."""
    before, after = ({tuple(line.split(" ", 2)[:2]): line for line in side} for side in (old, new))
    keys = [key for key in before if not only or key in after or key[0] in only]
    keys += [key for key in after if key not in before]
    return [f"{sign} {side[key]}" for key in keys if before.get(key) != after.get(key)
            for sign, side in (("-", before), ("+", after)) if key in side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE", choices=[
        case.label for case in cases()], help="these cases alone: vae, gan/conv …")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the lines to a file")
    parser.add_argument("--against", type=Path, metavar="FILE",
                        help="print only what differs from the lines of a file; exit 1 if any does")
    options = parser.parse_args()
    old = options.against.read_text("utf-8").splitlines() if options.against else []
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    torch.set_num_threads(1)
    hasten_augmentation()
    begun, printed = time.monotonic(), []
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        for line in lines(options.only, Path(folder)):
            printed.append(line)
            if not options.against:
                print(line, flush=True)
    if options.out:
        options.out.write_text("".join(f"{line}\n" for line in printed), "utf-8")
    different = compared(old, printed, options.only) if options.against else []
    print("".join(f"{line}\n" for line in different), end="")
    failures = sum(" FAILED " in line for line in printed)
    print(f"{len(printed):,} digests, {failures} failed, {len(different)} lines differ, "
          f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    sys.exit(1 if different or failures else 0)


if __name__ == "__main__":
    main()
