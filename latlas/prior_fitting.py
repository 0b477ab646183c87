"""A prior that is fitted to the latents of a run: at the end of training, or by ``fit_prior``."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latlas import models
from latlas.core.errors import CapabilityError, ConfigError, RunError, say_option, say_setting
from latlas.core.record import RUN
from latlas.core.space import Table
from latlas.data.dataset import Dataset, standardised
from latlas.data.fitting import as_source, conform
from latlas.data.pairs import first_side
from latlas.engine.options import BUDGETS
from latlas.run import PRIOR, Run, weights_file_digest
from latlas.training import Plan, TrainingData, execute, plan_of, training_data

#: of the fit of a prior: latents to see where no budget is given; at most so many numbers in all
PRIOR_IMAGES, MOST_NUMBERS = 4_000_000, 100_000_000
#: held-out latents whose density is compared, and probes of the trace for each
CHECKED, PROBES = 1000, 2
#: of a prior that is fitted at the end of training: draws of q(z|x), and latents to see for each
#: example that the model has seen
DRAWS, LATENTS_PER_EXAMPLE = 4, 4
#: numbers of an image from which on N(0, I) makes blotches of it
LARGE_IMAGE = 28 * 28


def prior_share(plan: Plan, data: TrainingData) -> float:
    """Share of the budget for a prior of the latents: as the person says, or else the model's own,
    of images whose prior is not learnt with the rest.

    ConfigError: a share of a model whose latents no prior is fitted to: those of one that is given
    a part of the image, or of one without an encoder.
    """
    model, share = models.load_class(models.get(plan.model)), plan.options.prior_share
    space = data.train.space if isinstance(data.train, Dataset) else None
    possible = model.defaults.prior_share > 0 and getattr(plan.config, "condition", "") != "part"
    if share is not None:
        if share and not possible:
            raise ConfigError(f"{say_setting('prior_share', share)}: {plan.model} has no latents "
                              "that a prior is fitted to", option="prior_share")
        return share
    large = space is not None and space.kind == "image" and space.dims >= LARGE_IMAGE
    learnt = getattr(plan.config, "prior", "standard") != "standard"
    return model.defaults.prior_share if possible and large and not learnt else 0.0


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
        CapabilityError: a model without an encoder, or one that is given a part of the image.
        RunError: a run that is not finished, or whose fitted prior has other settings.
    """
    started, run = time.monotonic(), run if isinstance(run, Run) else Run(run)
    run.require("encode", "fit-prior")
    condition = condition_of(run)
    if run.path is None or not run.finished:
        raise RunError(f"{run.path or run.name} is not trained to its end; the same `latlas train` "
                       "goes on")
    if all(settings.get(name) is None for name in BUDGETS):
        settings["images"] = PRIOR_IMAGES
    plan = plan_of("flow-matching", {"condition": condition, **settings}, origin=origin)
    run.device = plan.options.device
    source = as_source(data, run, **(read or {}))
    data = encode_training_data(run, training_data(source, run.record.get("split", "train")),
                                draws, plan.options.seed, source.name)
    folder = run.path / PRIOR
    try:
        fit = execute(replace(plan, started=started), data, folder, progress,
                      accept_changed_data=accept_changed_data)
    except RunError as error:
        if not error.option:  # nothing differs from what was fitted before
            raise
        go_on = f", or go on with {say_option(error.option, True)}"
        raise RunError(error.message, hint=f"remove {folder} to fit another prior" + (
            go_on if error.option == "accept_changed_data" else "")) from error
    assert fit.outcome is not None
    if fit.outcome.stopped == "interrupt":
        return PriorFit(fit)
    return PriorFit(fit, *densities(run, fit, first_side(data.validation or data.train)))


def densities(run: Run, fit: Run, latents: Dataset) -> tuple[float, float]:
    """Mean log-density, nats, of some latents under the prior of a run's model (NaN where it has
    none) and under the fitted one, whose trace is estimated by probes."""
    import numpy as np
    import torch

    from latlas.core.noise import Noise

    flow, prior = fit.model, run.model.prior
    rows = np.random.default_rng(0).permutation(len(latents))[:CHECKED]
    z = torch.as_tensor(np.asarray(latents.x[rows]), device=run.model.device)
    label = None if latents.label is None else torch.as_tensor(latents.label[rows], device=z.device)
    x, noise = flow.to(z.device).space.to_model(z), Noise(0, z.device)
    probes = [2.0 * noise.integers(2, *x.shape) - 1 for _ in range(PROBES)]
    density = torch.stack([flow.log_density(x, probe, label)  # type: ignore[operator]
                           for probe in probes]).mean().item()
    return (math.nan if prior is None else prior.log_prob(z).mean().item(),
            density - flow.space.log_volume)


def condition_of(run: Run) -> str:
    """What the model is given, and so a prior fitted to its latents: ``label`` or ``none``.
    CapabilityError: a part of the image."""
    condition: str = getattr(run.config, "condition", "none")
    if condition == "part":
        raise CapabilityError(f"this {run.model_name} is given a part of the image, for which no "
                              "prior is fitted")
    return condition


def encode_training_data(run: Run, examples: TrainingData, draws: int, seed: int,
                         name: str) -> TrainingData:
    """Draws of q(z|x) for the examples that a run was trained on, one for those held out, with
    the examples' labels where the model is given them; as a table in units of its own. ``name`` is
    that of the examples' source."""
    import numpy as np

    from latlas.verbs.passes import sample_posterior

    assert run.path is not None
    model = run.model
    draws = max(1, min(draws, MOST_NUMBERS // (len(examples.train) * model.latent_dim)))

    def table(data: Dataset, draws: int) -> Dataset:
        data = conform(data, run.space, name)
        latents = sample_posterior(model, data, draws, seed=seed)
        names = tuple(f"z{i}" for i in range(latents.shape[1]))
        label = data.take("label") if model.takes_condition else None
        return Dataset(latents, Table.of_numbers(names)) if label is None else Dataset(
            latents, Table.of_numbers(names).replace(classes=run.space.classes),
            np.tile(label, draws))

    train = table(first_side(examples.train), draws)
    held_out = None if examples.validation is None else table(first_side(examples.validation), 1)
    # a fit that goes on keeps the units it began with, to the last bit
    folder = run.path / PRIOR
    space = Run(folder).space if (folder / RUN).is_file() else standardised(
        train.space, train.x)
    return TrainingData(replace(train, space=space), held_out and replace(held_out, space=space),
                        inputs={"weights": weights_file_digest(run.path), "draws": draws},
                        basis=(examples.train, examples.validation))
