"""From settings and a source to a trained run: the one place that joins models, data and engine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.core.errors import ConfigError, DataError, RunError
from latlas.core.options import divide, parse, to_json
from latlas.engine.options import TrainOptions, with_defaults
from latlas.models import get

if TYPE_CHECKING:
    from latlas.core.folders import RunFolder
    from latlas.core.model import Model
    from latlas.data.dataset import Source
    from latlas.data.pairs import Data, PairSource
    from latlas.engine.loop import Outcome
    from latlas.engine.processes import DistributedContext
    from latlas.engine.watch import Looks


@dataclass(frozen=True)
class Plan:
    """What will be trained and how, checked; making one imports no torch and reads no data."""

    model: str
    config: Any
    options: TrainOptions
    split: str = "train"
    start: Path | None = None


@dataclass(frozen=True)
class Parts:
    """What is trained on, what is held out to keep the best weights by, and how it was named.

    ``made_of`` is what else made the items: a run that goes on must share it.
    """

    train: Data
    validation: Data | None = None
    spec: Mapping[str, Any] | None = None
    made_of: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Trained:
    """A trained model, its run folder (``None`` if it was temporary), and how training ended."""

    model: Model
    run: Path | None
    outcome: Outcome


def plan(model: str, settings: Mapping[str, Any], *, split: str = "train",
         start: str | Path | None = None, where: str = "train()") -> Plan:
    """Settings divided between the model's config and training.

    Raises:
        ConfigError: an unknown model or setting, a value that does not fit, two budgets.
    """
    entry = get(model)
    own, training = divide(settings, entry.config, TrainOptions, where=where)
    if split not in ("train", "all"):
        raise ConfigError(f"{where} split={split}: train on `train` or `all`")
    return Plan(model, parse(entry.config, own, where),
                with_defaults(entry.training, training, where), split,
                None if start is None else Path(start))


def execute(plan: Plan, data: Parts, out: Path | None, progress: bool,
            modules: Mapping[str, Any]) -> Trained:
    """Train in ``out``; without one in a temporary folder that is removed at the end."""
    if out is not None:
        return _train(plan, data, out, progress, modules)
    with tempfile.TemporaryDirectory(prefix="latlas-") as folder:
        done = _train(plan, data, Path(folder), progress, modules)
    return Trained(done.model, None, done.outcome)


def _train(plan: Plan, data: Parts, out: Path, progress: bool,
           modules: Mapping[str, Any]) -> Trained:
    from latlas.engine.choose import batch_size_of
    from latlas.engine.loop import fit
    from latlas.engine.processes import join, pick_device
    from latlas.engine.progress import Bar, Silent

    data, notes = _sides(plan, data)
    world = join(pick_device(plan.options.device))
    model = _build(plan, data.train, modules)
    batch_size_of(model, len(data.train), plan.options, world)  # refused before there is a folder
    run = _folder(plan, data, out, model, modules, world)
    alone = run.alone() if world.leads else nullcontext()
    # the bar gives the terminal back whatever ends the training
    with alone, Bar() if progress and world.leads else nullcontext(Silent()) as show:
        for note in notes:
            show.warn(note)
        outcome = fit(model, data.train, data.validation, plan.options, run, show,
                      _looks(model, data.train, plan.options, run) if world.leads else None)
    return Trained(_result(model, run, outcome, modules), out, outcome)


def _sides(plan: Plan, data: Parts) -> tuple[Parts, list[str]]:
    """The data with the sides that the model needs, and what to say about it.

    Of two domains nothing is held out to keep weights by: no item of one has its own in the other.
    """
    from latlas.data.pairs import sides_for
    from latlas.models import load_class

    needs = getattr(load_class(get(plan.model)), "needs", None)
    train, note = sides_for(data.train, needs, plan.model)
    held = None if needs == "domains" else data.validation
    held = None if held is None else sides_for(held, needs, plan.model)[0]
    return replace(data, train=train, validation=held), [note] if note else []


def _looks(model: Model, train: Any, options: TrainOptions, run: RunFolder) -> Looks | None:
    """What looks at the samples of a model that is watched."""
    if not model.defaults.monitored or run.finished or len(train) == 0:
        return None
    from latlas.tasks.watching import Sheets, Watcher

    if model.needs is not None:
        return Sheets(run.path / "samples", train) if options.previews else None
    return Watcher(run.path / "samples" if options.previews else None, train, options.seed,
                   run.path / "cache")


def parts(source: Source | PairSource, which: str = "train") -> Parts:
    """The items to train on, and those held out: none of ``all``, nor where there are too few."""
    from latlas.data import split

    train = split(source, which)
    if which == "all":
        return Parts(train, None, source.spec)
    try:
        return Parts(train, split(source, "validation"), source.spec)
    except DataError:
        return Parts(train, None, source.spec)


def _build(plan: Plan, train: Any, modules: Mapping[str, Any]) -> Model:
    """A fresh model whose first weights depend on the seed alone, or those of ``plan.start``."""
    import torch

    from latlas.core.noise import derive
    from latlas.models import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(plan.options.seed, "weights"))
        model = build(plan.model, plan.config, train.space, **modules)
    if plan.start is not None:
        _take_weights(model, plan.start, modules)
    return model


def _take_weights(model: Model, start: Path, modules: Mapping[str, Any]) -> None:
    """Start from another run's weights; it must have the same networks."""
    from latlas.checkpoint import load, run_info

    used = {k: v for k, v in modules.items() if k in run_info(start).custom}
    theirs, mine = load(start, **used).state_dict(), model.state_dict()
    wrong = [k for k in mine if k not in theirs or theirs[k].shape != mine[k].shape]
    if wrong:
        raise RunError(f"cannot start from {start}: {wrong[0]} differs in shape or is missing "
                       "there; use the same model, sizes and data shape")
    model.load_state_dict({k: theirs[k] for k in mine})


def _folder(plan: Plan, data: Parts, out: Path, model: Model, modules: Mapping[str, Any],
            world: DistributedContext) -> RunFolder:
    """The run folder, made by the leading process, opened by the others."""
    from latlas.core.folders import open_run, start

    request = {"model": plan.model, "config": _resolved(model),
               "space": model.space.to_json(), "data": data.spec, "split": plan.split,
               "training": to_json(plan.options), "custom": sorted(modules),
               "from": None if plan.start is None else str(plan.start),
               **({"made_of": data.made_of} if data.made_of else {})}
    run = start(out, request) if world.leads else None
    world.agree(None)  # nobody opens it before it is there
    return run or open_run(out)


def _resolved(model: Model) -> dict[str, Any]:
    """The config with the size of the code that was chosen: a later rule changes nothing."""
    config = to_json(model.config)
    left = config.get("latent_dim") == 0
    return {**config, "latent_dim": model.latent_dim} if left else config


def _result(model: Model, run: RunFolder, outcome: Outcome,
            modules: Mapping[str, Any]) -> Model:
    """The model to use: from the folder where this call did not train it to the end."""
    if outcome.stopped in ("already finished", "interrupt"):
        from latlas.checkpoint import load

        return load(run.path, **modules)
    return model.eval().requires_grad_(False)
