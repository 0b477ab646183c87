"""A run as a function on batches that can be sent to other processes: Ray, Spark, a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlas.core.errors import ConfigError

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.core.space import Space
    from latlas.data.dataset import Dataset

Columns = dict[str, Any]
#: items of a batch whose values need no draws
TOGETHER = 512
#: where items are looked for when no column is named
NAMES = ("x", "data", "item", "image")


class Scorer:
    """A run that takes a batch, a dictionary of arrays, and gives one.

    It is pickled as the run's path and its options; every process loads the model once, when it
    is first called. What an item gets depends on the item, the options and the seed alone: not on
    its neighbours, the order of the batches or the process. (Sums of other batch shapes may round
    the last bits otherwise.)

    Args:
        run: a run folder that every process can read.
        task: ``score`` (nats, bits_per_dim, ess, unreliable …), ``encode`` (z0, z1, …) or
            ``outliers`` (score, flag; the threshold is set by the run's own held-out items, which
            every process must be able to read).
        column: which column holds the items, (n, \\*shape) or flattened, in data units. By
            default a table's own columns by name, else ``x``, ``data``, ``item`` or ``image``.
        label: the column of a conditional model's labels.
        keep: columns of the batch that are handed on beside the results, such as a key.
        together: items whose draws are made at once. More than 1 is faster where an item needs
            little work, and makes its draws depend on the items beside it.
        device: ``auto``, ``cpu``, ``cuda``, …
        options: of the task (``method="iw", draws=100, seed=0``).
    """

    def __init__(self, run: str | Path, task: str = "score", *, column: str | None = None,
                 label: str | None = None, keep: tuple[str, ...] = (), together: int = 1,
                 device: str = "auto", **options: Any) -> None:
        if together < 1:
            raise ConfigError(f"together={together}: at least 1")
        self.run, self.task, self.column, self.label = str(run), task, column, label
        self.keep, self.together, self.device = tuple(keep), together, device
        self.options = options
        self._model: Model | None = None
        self._ready: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_ready": None}

    def __call__(self, batch: Mapping[str, Any]) -> Columns:
        """Results of every item, (n,) each, after the columns that are kept.

        Raises:
            ConfigError: no such column, or none that is known to hold items.
        """
        from latlas.api.items import open_items
        from latlas.tasks.shards import verb

        what, model = verb(self.task), self.model
        items = open_items(model, self._arrays(batch, model.space))
        size = self.together if what.draws(model, **self.options) else TOGETHER
        parts = [self._part(_alone(items, i, i + size)) for i in range(0, len(items), size)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**{name: _column(batch, name) for name in self.keep}, **found}

    @property
    def model(self) -> Model:
        """The run's model, loaded once a process."""
        if self._model is None:
            from latlas import api
            from latlas.api.items import require
            from latlas.tasks.shards import verb

            require(self.run, verb(self.task).capability, self.task)
            self._model = api.load(self.run, device=self.device)
        return self._model

    @property
    def ready(self) -> dict[str, Any]:
        """The options of every part, with what is worked out once a process."""
        if self._ready is None:
            from latlas.api.items import normal_items
            from latlas.tasks.shards import verb

            what, model = verb(self.task), self.model
            self._ready = what.prepared(model, normal_items(model) if what.ready else None,
                                        self.options)
        return self._ready

    def _part(self, items: Dataset) -> Columns:
        """The seed is the items' own: any batch they come in gives them the same draws."""
        from latlas.core.noise import derive
        from latlas.tasks.shards import print_of, verb

        what, options = verb(self.task), dict(self.ready)
        if what.draws(self.model, **options):
            content = print_of(np.asarray(items.x, np.float32))  # whatever type they came in
            options["seed"] = derive(options.get("seed", 0), "scorer", content)
        return what.columns(self.model, items, **options)

    def _arrays(self, batch: Mapping[str, Any], space: Space) -> Any:
        x = self._items(batch, space)
        return x if self.label is None else (x, _column(batch, self.label))

    def _items(self, batch: Mapping[str, Any], space: Space) -> Any:
        if self.column is not None:
            return _column(batch, self.column)
        if space.columns and set(space.columns) <= set(batch):
            return np.column_stack([_column(batch, name) for name in space.columns])
        known = [name for name in NAMES if name in batch]
        if not known:
            raise ConfigError(f"no column of {', '.join(batch)} is known to hold items: name it "
                              "with column=…")
        return _column(batch, known[0])


def _alone(items: Dataset, start: int, stop: int) -> Dataset:
    """Some of the items, as if there were no others: their rows count from 0."""
    label = None if items.label is None else items.label[start:stop]
    return replace(items, x=items.x[start:stop], label=label)


def _column(batch: Mapping[str, Any], name: str) -> Any:
    """A column as one array: rows that are arrays or lists of their own are stacked."""
    if name not in batch:
        raise ConfigError(f"no column {name!r} in the batch; it has {', '.join(batch)}")
    values = np.asarray(batch[name])
    nested = values.dtype == object and len(values) and not isinstance(values[0], str)
    return np.stack([np.asarray(v) for v in values]) if nested else values
