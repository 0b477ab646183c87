"""``train`` and ``continue_training``: what people call to learn from data."""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from latlas import budget, models
from latlas.core.errors import (
    ConfigError,
    LatlasError,
    RunError,
    say_notes,
    say_number,
    say_option,
    say_setting,
)
from latlas.core.files import MODEL
from latlas.core.options import to_json
from latlas.core.space import Images
from latlas.data.archives import sole_archive
from latlas.data.dataset import Dataset
from latlas.data.fitting import as_source
from latlas.data.imagefiles import sizes_in
from latlas.data.opening import holds_images
from latlas.engine.options import BUDGETS, DEFAULT_MINUTES
from latlas.prior_fitting import (
    DRAWS,
    LATENTS_PER_EXAMPLE,
    PRIOR_IMAGES,
    condition_of,
    encode_training_data,
    prior_share,
)
from latlas.run import PRIOR, Run
from latlas.training import (
    Plan,
    TrainingData,
    began,
    execute,
    plan_of,
    training_data,
)

#: sizes that images are brought to where the minutes do not suffice for their own, and those at
#: which a model is timed; at the last one where the images are larger than 64 pixels
IMAGE_SIZES, MEASURED = (32, 48, 64, 96, 128, 192, 256), (32, 64, 96)
#: steps that are enough for a larger size than 64, whose epochs are the model's; steps and epochs
#: for one up to that
ENOUGH, BARELY = 1000, (300, 3.0)


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
    if isinstance(data, str | Path) and (read := with_image_size(plan, data, out, {})):
        data = {"source": str(data), **read}
    examples = training_data(as_source(data), split, began(out) if accept_changed_data else None)
    return learn(replace(plan, started=started), examples, out, progress, networks,
                 accept_changed_data)


def with_image_size(plan: Plan, data: Any, out: str | Path | None,
                    read: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a source of images, with the size that the minutes suffice for where none is
    named: the largest of which this machine sees enough steps and epochs, by steps at two or three
    sizes. A run that goes on has its own."""
    read = {k: v for k, v in read.items() if v is not None}
    options, places = plan.options, data if isinstance(data, tuple | list) else [data]
    model = models.load_class(models.get(plan.model))
    if "image_size" in read or options.images or options.epochs or not hasattr(
            model, "phases") or not all(map(holds_images, places)):
        return read
    if out is not None and (run := began(out)) is not None:
        size = (run.data or {}).get("image_size")
        return read | ({"image_size": size} if size else {})
    place = sole_archive(Path(places[0]).expanduser())
    n, (channels, *sides) = sizes_in(place, read.get("mode"))
    native = min(sides)
    translates = model.needs is not None
    if translates and len(places) == 1 and read.get("pair") != "side":
        n //= 2  # of either side
    if n == 0 or native <= IMAGE_SIZES[0]:
        return read
    minutes, enough_epochs = options.minutes or DEFAULT_MINUTES, model.defaults.large_image_epochs
    try:  # networks may differ between small images and large ones
        timed = {size: seconds_per_example(plan, n, channels, size)
                 for size in MEASURED[:3 if native > MEASURED[1] else 2]}
    except LatlasError:  # the options do not fit such images; training says why
        return read
    middle, batch_size = timed[MEASURED[1]]

    def examples(size: int) -> float:
        """By a power of the side; 2 would be by the number of pixels."""
        low, high = MEASURED[1:] if size > MEASURED[1] else MEASURED[:2]
        power = min(max(math.log(timed[high][0] / timed[low][0], high / low), 0.5), 2.5)
        return 60 * 0.9 * minutes / middle * (MEASURED[1] / size) ** power

    def suffice(size: int) -> bool:
        steps, epochs = (ENOUGH, enough_epochs) if size > MEASURED[1] else BARELY
        if translates:  # every place of an image has its own target
            epochs = min(epochs, BARELY[1])
        return examples(size) >= max(steps * batch_size, epochs * n)

    if suffice(native):
        return read
    size = max([size for size in IMAGE_SIZES if size < native and suffice(size)],
               default=IMAGE_SIZES[0])
    say_notes([f"images are read at {size}x{size}, of which this machine sees about "
               f"{say_number(examples(size) / n, 2)} epochs in {minutes:g} minutes "
               f"({say_number(examples(native) / n, 2)} at {native}x{native}); "
               f"{say_option('image_size', 'N')} chooses another size"])
    return read | {"image_size": size}


def seconds_per_example(plan: Plan, n: int, channels: int, side: int) -> tuple[float, int]:
    """Of training on ``n`` images of ``side`` by ``side`` pixels, by a trial on noise; and the
    batch size."""
    import numpy as np

    from latlas.data.pairs import PairDataset

    needs = models.load_class(models.get(plan.model)).needs
    x = np.random.default_rng(0).integers(0, 256, (256, channels, side, side), np.uint8)
    one = Dataset(x, Images(x.shape[1:], classes=("a", "b")), np.arange(256) % 2)
    return budget.trial(plan, n, PairDataset(one, one, needs == "pairs") if needs else one)


def learn(plan: Plan, data: TrainingData, out: str | Path | None = None, progress: bool = True,
          modules: Mapping[str, Any] | None = None, accept_changed_data: bool = False) -> Run:
    """Train, then fit a prior to the latents in the share of the budget that is left for it; where
    ``out`` is not named in a temporary folder that is removed at the end.

    The aggregate posterior of images is far from N(0, I), from which samples are blotches however
    good the bound is (Tomczak & Welling 2018; Dai & Wipf 2019).

    Raises:
        RunError: as :func:`latlas.training.execute`.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="latlas-") as temporary:
            run = learn(plan, data, temporary, progress, modules)
            return Run.of(run.model, data=data.spec, outcome=run.outcome)
    share = prior_share(plan, data)
    if not modules:
        plan = budget.within_minutes(plan, data, out)
    if not share:
        return execute(plan, data, out, progress, modules, accept_changed_data)
    plan = replace(plan, share=1 - share, started=plan.started or time.monotonic())
    run = execute(plan, data, out, progress, modules, accept_changed_data)
    if not run.finished or run.path is None or (run.path / PRIOR / MODEL).is_file():
        return run
    minutes = plan.options.minutes
    trained = run.ending.images if run.ending else 0
    settings: dict[str, Any] = {"seed": plan.options.seed, "device": plan.options.device,
                                "threads": plan.options.threads, "condition": condition_of(run)}
    if minutes:
        settings["minutes"] = minutes * share
    else:
        settings["images"] = min(PRIOR_IMAGES, max(1, LATENTS_PER_EXAMPLE * trained))
    if progress:
        print("fitting a prior to the latents, from which samples are drawn "
              f"({say_setting('prior_share', 0)} leaves it out)", file=sys.stderr)
    latents = encode_training_data(run, data, DRAWS, plan.options.seed, "the training data")
    assert plan.started is not None
    nominal = plan.started + 60 * (minutes or 0) * plan.share
    fit = execute(replace(plan_of("flow-matching", settings), started=min(time.monotonic(), nominal)
                          if minutes else None), latents, run.path / PRIOR, progress)
    whole = Run(out, device=run.device, **(modules or {}))
    whole.outcome = run.outcome if fit.finished else fit.outcome
    return whole


def continue_training(run: str | Path | Run, data: Any = None, *, out: str | Path | None = None,
                      progress: bool = True, read: Mapping[str, Any] | None = None,
                      origin: str = "continue_training()", started: float | None = None,
                      **settings: Any) -> Run:
    """Train a finished run's model on, from its weights, into a new run folder.

    The optimiser and the schedule begin anew. Called again, it goes on where it stopped.

    Args:
        data: by default what the run was trained on; other data are read in the run's own units.
        out: by default the run's folder with the next free number: ``runs/vae-photos-2``.
        read: options of the source.
        settings: of training (``minutes=20``); the others are those of the run, and so is the
            model's config.

    Raises:
        RunError: a run that is not finished, or one of modules of one's own.
        ConfigError: a setting that is not one of training.
    """
    started, run = started or time.monotonic(), run if isinstance(run, Run) else Run(run)
    if run.path is None or not run.finished:
        raise RunError(f"{run.path or run.name} is not trained to its end; the same `latlas train` "
                       "goes on")
    if run.record.get("custom"):
        raise RunError(f"{run.path} was trained with modules of its own: pass them to "
                       "latlas.train(…, init_from=…)")
    own, config = run.record["training"], to_json(run.config)
    for name in settings:
        if name in config and name not in own:
            raise ConfigError(f"{origin}: {name} belongs to the model, which stays as it is; "
                              f"`latlas train {run.model_name} --from {run.path}` begins another")
    replaced = any(settings.get(name) is not None for name in BUDGETS)
    plan = plan_of(run.model_name, {
        **config, **{k: v for k, v in own.items() if v is not None and not (
            replaced and k in BUDGETS)}, **settings},
        split=run.record.get("split", "train"), init_from=run.path, origin=origin)
    examples = training_data(as_source(data, run, **(read or {})), plan.split, run)
    if examples.spec and isinstance(run.space, Images) and holds_images(data):
        channels, height, width = run.space.shape  # what it is read in from now on
        units = {"image_size": height if height == width else None,
                 "mode": {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)}
        examples = replace(examples, spec={
            **{k: v for k, v in units.items() if v}, **examples.spec})
    folder = Path(out) if out is not None else _next_folder(run.path)
    if progress:
        words = f"training goes on in {folder}"  # whose name may be no text
        print(words.encode("utf-8", "replace").decode(), file=sys.stderr)
    return learn(replace(plan, started=started), examples, folder, progress)


def _next_folder(path: Path) -> Path:
    """Beside a run, under the first number that is free, or of one that was begun from it."""
    for number in itertools.count(2):
        folder = path.with_name(f"{path.name}-{number}")
        if not folder.exists():
            return folder
        before = began(folder)
        if before is not None and not before.finished and before.record.get("from") == str(path):
            return folder
    raise AssertionError
