"""From settings and data to a run: the one place that joins models, data and engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas import models
from latlas.core.errors import (
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
from latlas.data import split as part_of
from latlas.data.dataset import Dataset, Source
from latlas.data.fitting import conform, in_run
from latlas.data.keys import Keys
from latlas.data.pairs import Data, PairSource, sides_for
from latlas.engine.options import TrainOptions, batch_size_of, with_defaults
from latlas.run import Run

if TYPE_CHECKING:
    from latlas.core.model import Model


@dataclass(frozen=True)
class Plan:
    """What will be trained and how, checked; making one reads no data.

    Attributes:
        started: the ``time.monotonic()`` from which minutes count; the beginning of training
            without one.
        share: of the minutes, that training may take.
    """

    model: str
    config: Any
    options: TrainOptions
    split: str = "train"
    init_from: Path | None = None
    started: float | None = None
    share: float = 1.0

    @property
    def options_of_training(self) -> TrainOptions:
        """With its share of the minutes."""
        minutes = self.options.minutes
        return replace(self.options, minutes=minutes and minutes * self.share)


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


def execute(plan: Plan, data: TrainingData, out: str | Path, progress: bool = True,
            modules: Mapping[str, Any] | None = None, accept_changed_data: bool = False) -> Run:
    """Train in a run folder.

    Raises:
        RunError: ``out`` holds another run, or one of other data, unless that is accepted.
    """
    import torch

    from latlas.core.devices import join, pick_device
    from latlas.core.noise import derive
    from latlas.engine.progress import Bar, Progress
    from latlas.engine.train import train as train_model

    out, modules = Path(out), modules or {}
    # of two domains nothing is held out: no example of one has its own in the other
    kind = models.load_class(models.get(plan.model))
    needs = kind.needs
    examples, note = sides_for(data.train, needs, plan.model)
    held_out = None if needs == "domains" or data.validation is None else sides_for(
        data.validation, needs, plan.model)[0]

    context = join(pick_device(plan.options.device, mps=not kind.defaults.needs_float64))
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
        outcome = train_model(model, examples, held_out, plan.options_of_training, out, show,
                              callbacks, plan.started)
    if model.device.type == "mps":  # verbs take float64, which it has not
        model.cpu()
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
