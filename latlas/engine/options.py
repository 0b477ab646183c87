"""How a model is trained. Torch-free, so that help and checks are instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latlas.core.errors import ConfigError
from latlas.core.options import option, parse

if TYPE_CHECKING:
    from latlas.core.devices import DistributedContext
    from latlas.core.model import Model

#: minutes that a run takes at most where no budget is given
DEFAULT_MINUTES = 12.0
BUDGETS = ("images", "epochs", "minutes")


@dataclass(frozen=True)
class TrainOptions:
    """Every setting of a training run; the same for all models.

    At most one of ``images``, ``epochs`` and ``minutes`` is given; with none the budget follows
    from the size of the data. Time is counted in images (examples) seen.
    """

    images: int | None = option(None, "budget: examples to see", low=1)
    epochs: float | None = option(None, "budget: passes over the training data", low=1e-6)
    minutes: float | None = option(None, "budget: wall-clock minutes, measured at the start and "
                                         "turned into examples", low=1e-3)
    batch_size: int = option(0, "examples per step, over all processes; 0 = by the data's size, "
                                "64 … 256, or what the model needs", low=0)
    accumulate: int = option(1, "parts that each process computes its share of a batch in, one "
                                "after the other, which takes less memory", low=1)
    learning_rate: float = option(1e-3, "Adam's learning rate at its peak; 0 = the model's own",
                                  low=0)
    betas: tuple[float, float] = option((0.9, 0.999), "Adam's two decay rates", low=0, high=1)
    adam_eps: float = option(1e-8, "Adam's epsilon, added to its denominators", low=0)
    weight_decay: float = option(0.0, "decoupled decay (AdamW) of the weights, not of "
                                       "biases", low=0)
    clip_norm: float | None = option(None, "largest norm of a step's gradient; none = no clipping",
                                     low=0)
    schedule: str = option("cosine", "learning rate over the budget; stages: eight, each three "
                                     "times as long as the one before and a seventh of a decade "
                                     "lower", choices=("cosine", "constant", "stages"))
    warmup: float = option(0.01, "share of the budget over which the learning rate rises",
                           low=0, high=1)
    ema: float = option(0.02, "half-life of the averaged weights, as a share of the examples seen; "
                              "0 = no averaging", low=0, high=1)
    precision: str = option("auto", "dtype of the networks' products; auto = bf16 where the "
                                    "processor has it; mixed = bf16 but for transposed "
                                    "convolutions", choices=("auto", "fp32", "bf16", "mixed"))
    threads: int = option(0, "processor threads; 0 = one or all, by timing a few steps", low=0,
                         high=1024)
    layout: str = option("auto", "memory layout of images; auto = channels_last for plain "
                                 "convolutions", choices=("auto", "contiguous", "channels_last"))
    prior_share: float | None = option(None, "share of the budget for a prior fitted to the "
                                       "latents at the end, from which samples are drawn; none = "
                                       "0.25 for images of 28 x 28 pixels or more and models that "
                                       "encode", low=0, high=0.9)
    patience: int = option(0, "stop after this many held-out checks without a better one; 0 = "
                              "never", low=0)
    validate_every: int = option(0, "examples between checks on held-out data; 0 = 25 checks in "
                                    "a run", low=0)
    checkpoint_seconds: float = option(60.0, "seconds between checkpoints", low=0)
    sample_snapshots: int = option(20, "grids of the same samples that an adversarial model of "
                                       "images leaves in RUN/samples while it trains; 0 = none",
                                   low=0)
    seed: int = option(0, "decides the initial weights, the order of the data, and every draw",
                       low=0)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps")
    deterministic: bool = option(False, "on a GPU, kernels that give the same bits every time, "
                                        "where there are such; slower")
    cuda_graphs: bool = option(False, "on a GPU, replay a step that was recorded, for models whose "
                                      "steps are bound by the processor")
    tensorboard: bool = option(False, "also write TensorBoard events into the run folder")

    def __post_init__(self) -> None:
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(budgets) > 1:
            raise ConfigError(f"{' and '.join(budgets)}: give at most one budget "
                              f"({', '.join(BUDGETS)})", option=budgets[1])


def with_defaults(defaults: Mapping[str, Any], settings: Mapping[str, Any],
                  origin: str = "--set") -> TrainOptions:
    """A model's own defaults with the person's settings over them; a budget among these replaces
    the model's."""
    budget = any(settings.get(name) is not None for name in BUDGETS)
    own = {k: v for k, v in defaults.items() if not (budget and k in BUDGETS)}
    return parse(TrainOptions, {**own, **settings}, origin)


def default_images(n: int) -> int:
    """Examples to see where no budget is set: 40 epochs, at least 200,000, at most 10 million."""
    return min(max(200_000, 40 * n), 10_000_000)


def batch_size_of(model: Model, n: int, options: TrainOptions,
                  distributed: DistributedContext) -> int:
    """Examples of a step over all processes: ``batch_size``, or else a power of two near n/100, 64
    … 256, within the model's bounds. ConfigError: the batch size does not divide over processes, or
    there into groups."""
    defaults, size = model.defaults, options.batch_size
    name = defaults.batch_multiple
    group = getattr(model.config, name, 0) or 1
    unit = group * distributed.size * options.accumulate
    if not size:
        size = next(power for power in (256, 128, 64) if power * 100 <= n or power == 64)
        size = max(size, defaults.min_batch_size)
        size = min(size, defaults.max_batch_size or size)
        return -(-size // unit) * unit
    if size % unit:
        processes = f" over {distributed.size} processes" if distributed.size > 1 else ""
        if options.accumulate > 1:
            processes += f" into {options.accumulate} parts (accumulate)"
        groups, other = (f" into groups of {group} ({name})", f", or another {name}") if (
            group > 1) else ("", "")
        raise ConfigError(f"batch_size={size} does not divide{processes}{groups}",
                          option="batch_size", hint=f"choose a multiple of {unit}{other}")
    return size
