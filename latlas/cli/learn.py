"""``models``, ``train``, ``demo``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from latlas.cli.flags import (
    LABELLED,
    SOURCE,
    Json,
    Labelled,
    Run,
    Settings,
    Source,
    at_least,
    one_or_two,
    pairs,
)
from latlas.cli.show import emit, table


def models(*, json: Json = False) -> None:
    """List the models and what each can do."""
    from latlas.models import MODELS

    entries = {k: {"summary": v.summary, "provides": sorted(v.provides)}
               for k, v in MODELS.items()}
    rows = [(k, v.summary, ", ".join(sorted(v.provides))) for k, v in MODELS.items()]
    emit(entries, json, table(("model", "", "can"), rows))


def train(
    model: Annotated[str, Parameter(help="A name of `latlas models`, or module:Class.")] = "vae",
    /, *,
    data: Annotated[tuple[str, ...], Parameter(
        negative="", consume_multiple=False, show_default=False,
        help="Source: a name (digits, moons …), file or folder; given twice, two domains. "
             "Default: digits.")] = ("digits",),
    split: Annotated[Literal["train", "all"], Parameter(
        help="Part to train on; all holds nothing back.")] = "train",
    source: Labelled = LABELLED,
    out: Annotated[Path | None, Parameter(
        help="Run folder. Default: runs/MODEL-DATA.")] = None,
    set: Settings = (),
    config: Annotated[Path | None, Parameter(
        help="TOML file of settings; --set and flags win over it.")] = None,
    images: Annotated[str | None, Parameter(help="Budget: items to see (200_000, 2M).")] = None,
    epochs: Annotated[float | None, Parameter(help="Budget: passes over the data.")] = None,
    minutes: Annotated[float | None, Parameter(help="Budget: minutes.")] = None,
    from_: Annotated[Path | None, Parameter(
        name="--from", help="Run folder whose weights to start from.")] = None,
    seed: Annotated[int | None, Parameter(help="Decides weights, order and draws.")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, mps.")] = None,
    json: Json = False,
) -> int:
    """Train a model on your data.

    The same command again goes on where it stopped; Ctrl-C saves first. Without a budget one is
    chosen from the data.
    """
    given = {"images": images, "epochs": epochs, "minutes": minutes, "seed": seed,
             "device": device}
    asked = _plan(model, config, set, given, split, from_)
    folder = out or Path("runs") / f"{_slug(model)}-{_slug('-'.join(map(_stem, data)))}"
    return _run(asked, one_or_two(data), source.options(), folder, json)


def fit_prior(
    run: Run,
    /, *,
    data: Annotated[str | None, Parameter(
        help="Source. Default: what the run was trained on.")] = None,
    source: Source = SOURCE,
    draws: Annotated[int, Parameter(help="Draws of q(z|x) for every training item.")] = 4,
    set: Settings = (),
    config: Annotated[Path | None, Parameter(
        help="TOML file of settings; --set and flags win over it.")] = None,
    images: Annotated[str | None, Parameter(help="Budget: codes to see. Default: 4M.")] = None,
    epochs: Annotated[float | None, Parameter(help="Budget: passes over the codes.")] = None,
    minutes: Annotated[float | None, Parameter(help="Budget: minutes.")] = None,
    seed: Annotated[int | None, Parameter(help="Decides codes, weights, order and draws.")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, mps.")] = None,
    json: Json = False,
) -> int:
    """Fit a second prior to the codes of a run's training items, by flow matching.

    It goes into RUN/prior, and `latlas sample RUN` then draws from it. The same command again
    goes on where it stopped. `latlas train flow-matching --help` lists the settings.
    """
    from latlas.api import open_source_for
    from latlas.api.priors import fit
    from latlas.cli.settings import settings

    at_least("--draws", draws, 1)
    given = {"images": images, "epochs": epochs, "minutes": minutes, "seed": seed,
             "device": device}
    flags = {k: v for k, v in given.items() if v is not None}
    values = settings("flow-matching", config, pairs(set, "--set"), flags)
    named = open_source_for(run, data, **source.options()) if data else None
    return _fitted(run, fit(run, named, values, draws=draws, where="fit-prior"), json)


def _fitted(run: Path, done: Any, json: bool) -> int:
    """What the fit changed."""
    outcome, stopped = done.outcome, done.outcome.stopped == "interrupt"
    text = (f"{done.run}: stopped and saved; the same command goes on" if stopped else
            f"{done.run} is fitted. Log-density of held-out codes, mean: {done.own:.2f} nats under "
            f"the model's own prior,\n{done.fitted:.2f} under the fitted one. Next:\n"
            f"  latlas sample {run}\n  latlas evaluate {run}")
    emit({"run": str(done.run), "stopped": outcome.stopped, "images": outcome.images,
          "seconds": outcome.seconds, "own": done.own, "fitted": done.fitted}, json, text)
    return 130 if stopped else 0


def _plan(model: str, config: Path | None, texts: tuple[str, ...], given: dict[str, Any],
          split: str, start: Path | None) -> Any:
    from latlas.api.training import plan
    from latlas.cli.settings import settings

    flags = {k: v for k, v in given.items() if v is not None}
    values = settings(model, config, pairs(texts, "--set"), flags)
    return plan(model, values, split=split, start=start, where="train")


def _run(asked: Any, data: Any, options: dict[str, Any], folder: Path, json: bool) -> int:
    from latlas.api.training import execute, parts
    from latlas.data import open_source

    items = parts(open_source(data, **options), asked.split)
    done = execute(asked, items, folder, True, {})
    outcome = done.outcome
    result = {"run": str(folder), "model": asked.model, "stopped": outcome.stopped,
              "images": outcome.images, "seconds": outcome.seconds, "best": outcome.best}
    if os.environ.get("RANK", "0") == "0":  # one of the processes of torchrun speaks for all
        emit(result, json, _next(folder, outcome.stopped, done.model.needs is not None))
    return 130 if outcome.stopped == "interrupt" else 0


def _next(folder: Path, stopped: str, translates: bool) -> str:
    """What to do now."""
    if stopped == "interrupt":
        return f"{folder}: stopped and saved; the same command goes on"
    state = "is finished already" if stopped == "already finished" else "is trained"
    verbs = ("translate" if translates else "sample", "evaluate", "report")
    return "\n".join([f"{folder} {state}. Next:", *(f"  latlas {verb} {folder}" for verb in verbs)])


def _stem(data: str) -> str:
    """``../shared/mnist.npz`` is mnist, ``a.zip::b.npz`` is b, ``photos/`` is photos."""
    name = Path(data.rpartition("::")[2]).expanduser().resolve().name
    return name.partition(".")[0] or name


def _slug(text: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    return slug or "data"


def demo(
    *,
    out: Annotated[Path, Parameter(help="Folder of the runs and the report.")] = Path("runs/demo"),
    data: Annotated[str, Parameter(help="Source to show it on.")] = "digits",
    minutes: Annotated[float | None, Parameter(
        help="Training time of each model. Default: each model's own budget.")] = None,
    models: Annotated[tuple[str, ...], Parameter(
        name="--models", consume_multiple=True, negative="",
        help="Models to compare.")] = ("pca", "ae", "vae"),
    seed: Annotated[int, Parameter(help="Decides every random draw.")] = 0,
    json: Json = False,
) -> int:
    """Train pca, ae and vae on handwriting, compare them, and write one HTML report."""
    from latlas.cli.demo import run_demo

    return run_demo(out, data, models, minutes, seed, json)


