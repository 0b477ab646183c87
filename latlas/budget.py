"""What a budget of minutes suffices for: the widest of a model's networks that learn in it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from latlas import models
from latlas.core.errors import LatlasError, say_notes, say_number, say_setting
from latlas.data.pairs import sides_for
from latlas.engine.options import DEFAULT_MINUTES, batch_size_of
from latlas.run import Run
from latlas.training import Plan, TrainingData, began, config_for

#: share of the minutes after whose trial a model is timed; share of them that is for steps
TRIAL, STEPPING = 0.05, 0.9


def within_minutes(plan: Plan, data: TrainingData, out: str | Path | None) -> Plan:
    """The plan with the first of the config's ``levels`` of which this machine sees enough examples
    in the minutes, or the last; as it is for other budgets and models. They are timed from the last
    one up, so that wide networks are only where there is time for that. A run that goes on, or
    begins from another's weights, keeps its level.
    """
    options, kind = plan.options, models.load_class(models.get(plan.model))
    if options.images or options.epochs or not hasattr(plan.config, "levels"):
        return plan
    examples: Any = sides_for(data.train, kind.needs, plan.model)[0]
    space, n = examples.space, len(examples)
    levels = plan.config.levels(space)
    if len(levels) < 2:
        return plan
    run = began(out) or (plan.init_from and Run(plan.init_from))
    if run:
        config = run.record["config"]
        differ = [k for k in vars(levels[0]) if len({getattr(level, k) for level in levels}) > 1]
        before = [level for level in levels
                  if all(config.get(k) == getattr(level, k) for k in differ)]
        return replace(plan, config=before[0]) if before else plan
    minutes = plan.options_of_training.minutes or DEFAULT_MINUTES
    chosen, epochs = levels[-1], 0.0
    for level in reversed(levels):
        try:
            seconds, _ = trial(replace(plan, config=level), n, examples)
        except LatlasError:  # an option does not fit; training says why
            return plan
        images = 60 * STEPPING * minutes / seconds
        if level is not levels[-1] and not level.suffices(images, n):
            say_notes([f"networks of width {chosen.width}, with which this machine sees about "
                       f"{say_number(epochs, 2)} epochs in {minutes:g} minutes "
                       f"({say_number(images / n, 2)} with width {level.width}, too few for it); "
                       f"{say_setting('width', levels[0].width)} is the published one"])
            break
        chosen, epochs = level, images / n
    return replace(plan, config=chosen)


def trial(plan: Plan, n: int, examples: Any) -> tuple[float, int]:
    """Seconds per example of training on ``n`` such as some ``examples``, and the batch size; where
    the minutes are to decide on the networks of the narrowest: they are made narrower before images
    are made smaller."""
    import torch

    from latlas.core.devices import join, pick_device
    from latlas.data.batches import Batches, Sweep
    from latlas.engine.resolve import resolve

    if hasattr(plan.config, "levels"):
        plan = replace(plan, config=plan.config.levels(examples.space)[-1])
    with ExitStack() as restored:
        restored.enter_context(torch.random.fork_rng(devices=[]))
        restored.callback(torch.set_num_threads, torch.get_num_threads())
        model = models.build(plan.model, config_for(plan, examples), examples.space)
        model.to(pick_device(plan.options.device, mps=not model.defaults.needs_float64))
        context, options = join(model.device), plan.options
        options = replace(
            options, batch_size=batch_size_of(model, n, options, context),
            learning_rate=options.learning_rate or model.defaults.learning_rate,
            minutes=TRIAL * (options.minutes or DEFAULT_MINUTES))
        model.prepare(Sweep(examples, device=model.device), n)
        chosen = resolve(model, Batches(examples, options.batch_size, device=model.device),
                         options, context)
    return 1 / chosen.examples_per_second, options.batch_size
