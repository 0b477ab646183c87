"""From settings and data to a run: the one place that joins models, data and engine."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas import models
from latlas.core.errors import (
    CapabilityError,
    ConfigError,
    DataError,
    RunError,
    say_notes,
    say_option,
)
from latlas.core.files import (
    MODEL,
    alone,
    create_run,
    differs,
    discard_unstarted,
    has_weights,
    remove_parts,
    save_json,
)
from latlas.core.options import check_names, fields_of, parse, to_json
from latlas.core.record import RUN, read_run
from latlas.core.space import Table
from latlas.data import split as part_of
from latlas.data.dataset import Dataset, Source, standardised
from latlas.data.fitting import as_source, conform, in_run
from latlas.data.keys import Keys
from latlas.data.pairs import Data, PairSource, first_side, sides_for
from latlas.engine.options import BUDGETS, TrainOptions, batch_size_of, with_defaults
from latlas.run import PRIOR, Run, weights_file_digest

if TYPE_CHECKING:
    from latlas.core.model import Model

#: of the fit of a prior: latents to see where no budget is given; at most so many numbers in all
PRIOR_IMAGES, MOST_NUMBERS = 4_000_000, 100_000_000
#: held-out latents whose density is compared, and probes of the trace for each
CHECKED, PROBES = 1000, 2


@dataclass(frozen=True)
class Plan:
    """What will be trained and how, checked; making one reads no data. Minutes count from
    ``started``, a ``time.monotonic()``, or else from the beginning of training."""

    model: str
    config: Any
    options: TrainOptions
    split: str = "train"
    init_from: Path | None = None
    started: float | None = None


@dataclass(frozen=True)
class TrainingData:
    """What is trained on, what is held out to keep the best weights by, and how it was named.

    ``inputs`` is what else the examples depend on: a run that goes on must share it. ``basis`` is
    what the examples were computed from, where they were.
    """

    train: Data
    validation: Data | None = None
    spec: Mapping[str, Any] | None = None
    inputs: Mapping[str, Any] | None = None
    basis: tuple[Data, Data | None] | None = None


def train(model: str = "vae", data: Any = "digits", *, out: str | Path | None = None,
          progress: bool = True, init_from: str | Path | None = None, split: str = "train",
          encoder: Any = None, decoder: Any = None, accept_changed_data: bool = False,
          **settings: Any) -> Run:
    """Train a model; the same call again goes on where it stopped, or loads the finished run.

    Args:
        model: a name of :func:`latlas.list_models`, or ``module:Class``.
        data: a source; arrays are divided into train, validation and test like any other.
        out: the run folder; without one nothing is kept but the run that is returned.
        init_from: a run whose weights to start from.
        split: ``train``, or ``all`` to hold nothing back.
        encoder, decoder: ``nn.Module``s of your own.
        accept_changed_data: go on although examples were added, removed, or moved to another split
            since the run began; otherwise that is refused.
        settings: any option of the model's config or of ``TrainOptions``
            (``latent_dim=32, minutes=5``), or another part of the model (``generator=…``, and
            ``objective=Objective(…)`` of adversarial models).

    Returns:
        The run; ``run.outcome`` says how training ended.

    Raises:
        LatlasError: in one line what is wrong with a setting, the data or the run folder.
    """
    started = time.monotonic()
    networks = {k: v for k, v in settings.items() if callable(v) or is_dataclass(v)}
    plan = plan_of(model, {k: v for k, v in settings.items() if k not in networks}, split=split,
                   init_from=init_from)
    networks |= {k: v for k, v in (("encoder", encoder), ("decoder", decoder)) if v is not None}
    examples = training_data(as_source(data), split, began(out) if accept_changed_data else None)
    return execute(replace(plan, started=started), examples, out, progress, networks,
                   accept_changed_data)


def plan_of(model: str, settings: Mapping[str, Any], *, split: str = "train",
            init_from: str | Path | None = None, origin: str = "train()") -> Plan:
    """Settings of the model's config and of training, told apart and checked.

    Raises:
        ConfigError: an unknown model or setting, a value that does not fit, two budgets.
    """
    entry = models.get(model)
    own, training = ({info.name: info for info in fields_of(cls)}
                     for cls in (entry.config, TrainOptions))
    check_names(settings, training | own, origin)
    if split not in ("train", "all"):
        raise ConfigError(f"{origin}: {say_option('split', split)}: train on `train` or `all`",
                          option="split")
    return Plan(model, parse(entry.config, {k: v for k, v in settings.items() if k in own}, origin),
                with_defaults(entry.training, {k: v for k, v in settings.items() if k not in own},
                              origin), split, None if init_from is None else Path(init_from))


def training_data(source: Source | PairSource, split: str = "train",
                  like: Run | None = None) -> TrainingData:
    """The examples to train on, and those held out: none of ``all``, nor where there are too few;
    in the units of ``like``, a run that goes on."""
    if like is not None:
        source = in_run(source, like)
    say_notes(source.notes)
    examples, held_out = part_of(source, split), None
    if split != "all":
        with suppress(DataError):
            held_out = part_of(source, "validation")
    if like is not None:
        examples = conform(examples, like.space, source.name)
        held_out = None if held_out is None else conform(held_out, like.space, source.name)
    return TrainingData(examples, held_out, source.spec)


def began(out: str | Path | None) -> Run | None:
    """The run that is in a folder already."""
    return Run(out) if out is not None and (Path(out) / RUN).is_file() else None


def config_for(plan: Plan, examples: Any) -> Any:
    """The model's config, where it chooses by the number of examples with that choice."""
    fit = getattr(plan.config, "for_examples", None)
    return fit(examples.space, len(examples)) if fit else plan.config


def execute(plan: Plan, data: TrainingData, out: str | Path | None = None, progress: bool = True,
            modules: Mapping[str, Any] | None = None, accept_changed_data: bool = False) -> Run:
    """Train in ``out``; without one in a temporary folder that is removed at the end.

    Raises:
        RunError: ``out`` holds another run, or one of other data, unless that is accepted.
    """
    import torch

    from latlas.core.devices import join, pick_device
    from latlas.core.noise import derive
    from latlas.engine.progress import Bar, Progress
    from latlas.engine.train import train as train_model

    if out is None:
        with tempfile.TemporaryDirectory(prefix="latlas-") as temporary:
            run = execute(plan, data, temporary, progress, modules)
            return Run.of(run.model, data=data.spec, outcome=run.outcome)
    out, modules = Path(out), modules or {}
    # of two domains nothing is held out: no example of one has its own in the other
    needs = models.load_class(models.get(plan.model)).needs
    examples, note = sides_for(data.train, needs, plan.model)
    held_out = None if needs == "domains" or data.validation is None else sides_for(
        data.validation, needs, plan.model)[0]

    context = join(pick_device(plan.options.device))
    with torch.random.fork_rng(devices=[]):  # the first weights depend on the seed alone
        torch.manual_seed(derive(plan.options.seed, "weights"))
        model = models.build(plan.model, config_for(plan, examples), examples.space, **modules)
    if plan.init_from is not None:
        _load_weights(model, plan.init_from, modules)
    batch_size_of(model, len(examples), plan.options, context)  # refused before there is a folder

    config = to_json(model.config)
    if config.get("latent_dim") == 0:  # the size that was chosen: a later rule changes nothing
        config["latent_dim"] = model.latent_dim
    request = {"model": plan.model, "config": config, "space": model.space.to_json(),
               "data": data.spec, "split": plan.split, "training": to_json(plan.options),
               "custom": sorted(modules), "from": plan.init_from and str(plan.init_from),
               **({"made_of": data.inputs} if data.inputs else {})}
    if context.is_main:
        keys = Keys.of(*(data.basis or (examples, held_out)))
        claim(out, request, keys, accept_changed_data)
    context.agree(None)  # nobody opens it before it is there
    with _in_folder(out) if context.is_main else nullcontext(), \
            Bar() if progress and context.is_main else nullcontext(Progress()) as show:
        if context.is_main:
            keep(out, keys)
        if note:
            show.warn(note)
        watched = context.is_main and model.defaults.monitored and not (out / MODEL).is_file()
        callbacks = [_snapshots(plan, examples, out)] if watched and len(examples) else []
        outcome = train_model(model, examples, held_out, plan.options, out, show, callbacks,
                              plan.started)
    if outcome.stopped in ("already finished", "interrupt"):  # not trained to the end here
        run = Run(out, device=str(model.device), **modules)
        run.outcome = outcome
        _ = run.model
        return run
    return Run.of(model.eval().requires_grad_(False), data=data.spec, path=out, outcome=outcome)


def _snapshots(plan: Plan, examples: Data, out: Path) -> Any:
    """What looks at an adversarial model's samples, or translations, while it trains."""
    from latlas.snapshots import SampleMonitor, TranslationSheets

    folder = out / "samples" if plan.options.sample_snapshots else None
    return SampleMonitor(folder, examples, plan.options.seed, out / "cache") if isinstance(
        examples, Dataset) else TranslationSheets(folder, examples)


def claim(out: Path, request: dict[str, Any], keys: Keys, accept: bool) -> None:
    """Make a run folder, or find the same request in it, and the same data.

    Raises:
        RunError: another request, or data that have changed since, and how, unless accepted.
    """
    record = read_run(out) if (out / RUN).is_file() else None
    if record and not has_weights(out) and differs(record, request):
        with alone(out):  # nobody has begun what was asked for
            discard_unstarted(out)
    elif record and not accept and has_weights(out):
        before = Keys.load(out)
        changes = keys.changes(before) if before else "" if record.get("examples") in (
            None, keys.content.to_json()) else "they have another digest"
        # numbers of the space follow from the data
        if changes and differs(record, request).partition(".")[0] in ("", "space"):
            raise RunError(f"the data that {out} was trained on have changed: {changes}",
                           what=str(out), option="accept_changed_data",
                           hint="choose another --out, or go on with "
                           + say_option("accept_changed_data", True))
    create_run(out, request, examples=keys.content.to_json())


def keep(out: Path, keys: Keys) -> None:
    """Note what is trained on from now on, and what was before."""
    before = Keys.load(out)
    if before is None or keys.changes(before):
        keys = keys if before is None or not has_weights(out) else keys.after(before)
        keys.save(out)
    record = read_run(out)
    if record.get("examples") != keys.content.to_json():
        save_json(out / RUN, {**record, "examples": keys.content.to_json()})


@contextmanager
def _in_folder(out: Path) -> Iterator[None]:
    """Alone in a run folder, of which nothing stays if training fails before its first step."""
    with alone(out):
        remove_parts(out)
        try:
            yield
        except BaseException:
            discard_unstarted(out)
            raise


def _load_weights(model: Model, init_from: Path, modules: Mapping[str, Any]) -> None:
    """Start from another run's weights; it must have the same networks."""
    run = Run(init_from, device="cpu")
    run.modules = {k: v for k, v in modules.items() if k in run.record.get("custom", ())}
    theirs, mine = run.model.state_dict(), model.state_dict()
    wrong = [k for k in mine if k not in theirs or theirs[k].shape != mine[k].shape]
    if wrong:
        raise RunError(f"cannot start from {init_from}: {wrong[0]} differs in shape or is missing "
                       "there; use the same model, sizes and data shape")
    model.load_state_dict({k: theirs[k] for k in mine})


# ----------------------------------------------------------------- a prior fitted to the latents


@dataclass(frozen=True)
class PriorFit:
    """How the fit of a prior ended.

    Attributes:
        run: the run of the flow, in RUN/prior.
        own, fitted: mean log-density of held-out latents under the model's own prior (NaN where
            it has none) and under the fitted one, nats; ``None`` before the fit has ended. The
            gain estimates by how much KL(q(z) ‖ p(z)) fell.
    """

    run: Run
    own: float | None = None
    fitted: float | None = None


def fit_prior(run: str | Path | Run, data: Any = None, *, draws: int = 4, progress: bool = True,
              accept_changed_data: bool = False, origin: str = "fit_prior()",
              read: Mapping[str, Any] | None = None, **settings: Any) -> PriorFit:
    """Fit a second prior to the latents of a run's training examples, in RUN/prior, by flow
    matching.

    The model of the run then carries it, and :func:`latlas.sample` draws from it. The same call
    again goes on where it stopped.

    Args:
        data: by default what the run was trained on; ``read`` are options of the source.
        draws: of q(z|x) for every example.
        accept_changed_data: go on although the examples have changed since the fit began.
        settings: of the model ``flow-matching`` and of training (``minutes=5``).

    Raises:
        CapabilityError: a model without an encoder, or one that is conditional.
        RunError: a run that is not finished, or whose fitted prior has other settings.
    """
    import numpy as np
    import torch

    from latlas.core.noise import Noise

    started, run = time.monotonic(), run if isinstance(run, Run) else Run(run)
    run.require("encode", "fit-prior")
    if run.conditional:
        raise CapabilityError(f"{run.model_name} is conditional; a fitted prior takes no condition")
    if run.path is None or not run.finished:
        raise RunError(f"{run.path or run.name} is not trained to its end; the same `latlas train` "
                       "goes on")
    if all(settings.get(name) is None for name in BUDGETS):
        settings["images"] = PRIOR_IMAGES
    plan = plan_of("flow-matching", settings, origin=origin)
    run.device = plan.options.device
    data = encode_training_data(run, data, draws, plan.options.seed, read or {})
    folder = run.path / PRIOR
    try:
        fit = execute(replace(plan, started=started), data, folder, progress,
                      accept_changed_data=accept_changed_data)
    except RunError as error:
        if not error.option:  # nothing differs from what was fitted before
            raise
        go_on = f", or go on with {say_option(error.option, True)}" if (
            error.option == "accept_changed_data") else ""
        raise RunError(error.message, hint=f"remove {folder} to fit another prior{go_on}") \
            from error
    assert fit.outcome is not None
    if fit.outcome.stopped == "interrupt":
        return PriorFit(fit)
    latents, flow, prior = first_side(data.validation or data.train), fit.model, run.model.prior
    rows = np.random.default_rng(0).permutation(len(latents))[:CHECKED]
    z = torch.as_tensor(np.asarray(latents.x[rows]), device=run.model.device)
    x = flow.to(z.device).space.to_model(z)
    noise = Noise(0, z.device)
    probes = [2.0 * noise.integers(2, *x.shape) - 1 for _ in range(PROBES)]
    density = torch.stack([flow.log_density(x, probe) for probe in probes]).mean().item()  # type: ignore[operator]
    return PriorFit(fit, math.nan if prior is None else prior.log_prob(z).mean().item(),
                    density - flow.space.log_volume)


def encode_training_data(run: Run, data: Any, draws: int, seed: int,
               read: Mapping[str, Any]) -> TrainingData:
    """Draws of q(z|x) for the examples that a run was trained on, one for those held out; as a
    table in units of its own."""
    from latlas.verbs.passes import sample_posterior

    assert run.path is not None
    source = as_source(data, run, **read)
    examples = training_data(source, run.record.get("split", "train"))
    model = run.model
    draws = max(1, min(draws, MOST_NUMBERS // (len(examples.train) * model.latent_dim)))

    def table(data: Dataset, draws: int) -> Dataset:
        latents = sample_posterior(model, conform(data, run.space, source.name), draws, seed=seed)
        names = tuple(f"z{i}" for i in range(latents.shape[1]))
        return Dataset(latents, Table.of_numbers(names))

    train = table(first_side(examples.train), draws)
    held_out = None if examples.validation is None else table(first_side(examples.validation), 1)
    # a fit that goes on keeps the units it began with, to the last bit
    folder = run.path / PRIOR
    space = Run(folder).space if (folder / RUN).is_file() else standardised(
        train.space, train.x)
    return TrainingData(replace(train, space=space), held_out and replace(held_out, space=space),
                        inputs={"weights": weights_file_digest(run.path), "draws": draws},
                        basis=(examples.train, examples.validation))
