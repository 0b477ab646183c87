"""How a model is trained. Torch-free, so that help and checks are instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latlas.core.errors import ConfigError
from latlas.core.options import option, parse

BUDGETS = ("images", "epochs", "minutes")


@dataclass(frozen=True)
class TrainOptions:
    """Every setting of a training run; the same for all models.

    At most one of ``images``, ``epochs`` and ``minutes`` is given; with none the budget is chosen
    from the data. Time is counted in images (items) seen.
    """

    images: int | None = option(None, "budget: items to see", low=1)
    epochs: float | None = option(None, "budget: passes over the training data", low=1e-6)
    minutes: float | None = option(None, "budget: wall-clock minutes, measured at the start and "
                                         "turned into items", low=1e-3)
    batch_size: int = option(0, "items per step, over all processes; 0 = by the data's size, "
                                "64 … 256, or what the model needs", low=0)
    learning_rate: float = option(1e-3, "peak step size of Adam; 0 = the model's own", low=0)
    betas: tuple[float, float] = option((0.9, 0.999), "Adam's two decay rates", low=0, high=1)
    adam_eps: float = option(1e-8, "Adam's epsilon, added to its denominators", low=0)
    weight_decay: float = option(0.0, "decoupled decay (AdamW) of the weights, not of "
                                       "biases", low=0)
    clip_norm: float | None = option(None, "largest norm of a step's gradient; none = as it is",
                                     low=0)
    schedule: str = option("cosine", "learning rate over the budget; stages: eight, each three "
                                     "times as long as the one before and a seventh of a decade "
                                     "lower", choices=("cosine", "constant", "stages"))
    warmup: float = option(0.01, "share of the budget over which the learning rate rises",
                           low=0, high=1)
    ema: float = option(0.02, "half-life of the averaged weights, as a share of the items seen; "
                              "0 = no averaging", low=0, high=1)
    precision: str = option("auto", "number format of the networks; auto = the fastest on this "
                                    "machine; mixed = bf16 but for transposed convolutions",
                            choices=("auto", "fp32", "bf16", "mixed"))
    threads: int = option(0, "processor threads; 0 = the fastest, by timing a few steps", low=0)
    layout: str = option("auto", "memory layout of pictures",
                         choices=("auto", "contiguous", "channels_last"))
    patience: int = option(0, "stop after this many checks on held-out data without a better "
                              "one; 0 = never", low=0)
    validate_every: int = option(0, "items between checks on held-out data; 0 = automatic", low=0)
    checkpoint_seconds: float = option(60.0, "seconds between checkpoints", low=0)
    previews: int = option(20, "grids of the same samples that an adversarial model on pictures "
                               "leaves in RUN/samples while it learns; 0 = none", low=0)
    seed: int = option(0, "decides the initial weights, the order of the data, and every draw",
                       low=0)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps")
    tensorboard: bool = option(False, "also write TensorBoard events into the run folder")

    def __post_init__(self) -> None:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)}: give at most one budget "
                              f"({', '.join(BUDGETS)})")

    @property
    def budget(self) -> str | None:
        """Which budget was given; None is automatic."""
        return next((name for name in BUDGETS if getattr(self, name) is not None), None)


def with_defaults(defaults: Mapping[str, Any], given: Mapping[str, Any],
                  where: str = "--set") -> TrainOptions:
    """A model's own defaults with the user's settings over them.

    A budget the user gives replaces the model's default budget.
    """
    own = dict(defaults)
    if any(given.get(name) is not None for name in BUDGETS):
        own = {k: v for k, v in own.items() if k not in BUDGETS}
    return parse(TrainOptions, {**own, **given}, where)
