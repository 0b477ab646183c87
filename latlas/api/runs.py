"""Runs and items as the verbs take them: opened, and a run's own found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.data.dataset import Dataset

Array = Any  # NDArray in the file's units
Run = Any  # a run folder (str, Path) or a Model
Items = Any  # str, Path, array, (array, labels), two sources, Dataset or Source
Count = Callable[[int, int], None]  # called with (items done, items in all)


def load(run: str | Path, *, device: str = "auto", **modules: Any) -> Model:
    """The model of a run folder, on a GPU where there is one.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        modules: its networks, if they were your own (``encoder=…``).
    """
    from latlas.checkpoint import load as load_model
    from latlas.checkpoint import run_info
    from latlas.engine.processes import pick_device

    model = load_model(run, device=str(pick_device(device)), **modules)
    return remember(model, run_info(run).data)


def open_data(data: Items = None, split: str | None = None, *, like: Run | None = None,
              **options: Any) -> Dataset:
    """Items of a source, in the units and columns of ``like`` (a run or model) if given.

    Args:
        data: what to open; ``None`` is what ``like`` was trained on.
        split: ``train``, ``validation``, ``test`` or ``all``. By default ``test`` where the
            source has a test part or ``like`` was trained on it, else ``all``.
        options: of the source (``image_size=64, label="class"``).
    """
    from latlas.api.items import open_items

    return open_items(like, data, split, **options)


def remember(model: Model, spec: Any) -> Model:
    """So that tasks find the data a model was trained on without being told."""
    model.trained_on = spec
    return model


def model_of(run: Run, capability: str | None, task: str | None = None) -> Model:
    """The model of a run, after the check that it can do the task."""
    from latlas.api.items import require

    if capability is not None:
        require(run, capability, task)
    return load(run) if isinstance(run, (str, Path)) else run


def both(run: Run, data: Items, split: str | None, options: dict[str, Any],
         capability: str | None) -> tuple[Model, Dataset]:
    """Model and items: capability first, then the data, then the weights."""
    from latlas.api.items import require

    if capability is not None:
        require(run, capability)
    items = open_data(data, split, like=run, **options)
    return model_of(run, None), items


def training_items(run: Run, data: Items, options: dict[str, Any]) -> Dataset:
    """What the model was trained on; the train part of ``data`` where that cannot be opened."""
    from latlas.api.items import known
    from latlas.core.errors import DataError

    try:
        if known(run).spec is not None:
            return open_data(None, "train", like=run)
    except DataError:
        if data is None:
            raise
    return open_data(data, "train", like=run, **options)
