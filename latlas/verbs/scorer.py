"""A run as a function on batches that can be sent to other processes: Ray, Spark, a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlas.core.errors import ConfigError, say_option, unknown
from latlas.run import Run
from latlas.verbs.common import Array, Progress

if TYPE_CHECKING:
    from latlas.data.dataset import Dataset

#: examples of a batch whose values need no draws
TOGETHER = 512
VERBS = ("encode", "outliers", "score")
#: where examples are looked for when no column is named
NAMES = ("x", "data", "example", "item", "image")


class Scorer:
    """A run that takes a batch, a dictionary of arrays, and gives one.

    It is pickled as the run's path and its options; every process loads the model once, when it
    is first called. What an example gets depends on the example, the options and the seed alone:
    not on its neighbours, the order of the batches or the process. (Sums of other batch shapes may
    round the last bits otherwise.)

    Args:
        run: a run folder that every process can read.
        verb: ``score`` (nats, bits_per_dim, ess, unreliable …), ``encode`` (z0, z1, …) or
            ``outliers`` (score, flag; the threshold is set by the run's own held-out examples,
            which every process must be able to read).
        column: which column holds the examples, (n, *shape) or flattened, in data units. By
            default a table's own columns by name, else ``x``, ``data``, ``example`` or ``image``.
        label: the column of a conditional model's labels.
        keep: columns of the batch that are handed on beside the results, such as a key.
        together: examples whose draws are made at once. More than 1 is faster where an example
            needs little work, and makes its draws depend on the examples beside it.
        device: ``auto``, ``cpu``, ``cuda``, …
        options: of the verb (``method="iw", draws=100, seed=0``).
    """

    def __init__(self, run: str | Path, verb: str = "score", *, column: str | None = None,
                 label: str | None = None, keep: tuple[str, ...] = (), together: int = 1,
                 device: str = "auto", **options: Any) -> None:
        if together < 1:
            raise ConfigError(f"{say_option('together', together)}: at least 1", option="together")
        self.path, self.verb, self.column, self.label = str(run), verb, column, label
        self.keep, self.together, self.device = tuple(keep), together, device
        self.options = options

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("run", "columns")}

    @cached_property
    def run(self) -> Run:
        """Opened once a process."""
        return Run(self.path, device=self.device)

    @cached_property
    def columns(self) -> Columns:
        """The verb's columns, with what is worked out once a process."""
        if self.verb in ("score", "encode"):
            self.run.require(self.verb)
        return Columns(self.verb, self.run, **self.options)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Results of every example, (n,) each, after the columns that are kept.

        Raises:
            ConfigError: no such column, or none that is known to hold examples.
        """
        from latlas.core.noise import derive
        from latlas.verbs.shards import digest_of

        columns = self.columns
        x = self._examples(batch)
        examples = self.run.open(x if self.label is None else (x, _column(batch, self.label)))
        size = self.together if columns.draws else TOGETHER
        parts = []
        for first in range(0, len(examples), size):
            part, options = _alone(examples, first, first + size), {}
            if columns.draws:  # the seed is the examples' own: any batch gives them the same draws
                content = digest_of(np.asarray(part.x, np.float32))  # whatever type they came in
                options["seed"] = derive(self.options.get("seed", 0), "scorer", content)
            parts.append(columns(part, None, **options))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**{name: _column(batch, name) for name in self.keep}, **joined}

    def _examples(self, batch: Mapping[str, Any]) -> Any:
        own = self.run.space.columns
        if self.column is not None:
            return _column(batch, self.column)
        if own and set(own) <= set(batch):
            return np.column_stack([_column(batch, name) for name in own])
        name = next((name for name in NAMES if name in batch), None)
        if name is None:
            raise ConfigError(f"no column of {', '.join(batch)} is known to hold examples: name it "
                              f"with {say_option('column', '…')}", option="column")
        return _column(batch, name)


class Columns:
    """A verb as a function of examples to columns: one value per example each.

    What is worked out once, from the run's held-out examples, serves every batch.

    Attributes:
        draws: random draws that differ between examples are behind the values.
    """

    def __init__(self, verb: str, run: Run, **options: Any) -> None:
        if verb not in VERBS:
            raise ConfigError(unknown("verb", verb, VERBS))
        self.verb, self.model, self.options = verb, run.model, options
        exact = self.model.exact_likelihood and options.get("method", "auto") in ("auto", "exact")
        self.draws = verb == "score" and not exact
        if verb == "outliers":
            from latlas.verbs.outliers import Normality, method_of, open_with_truth

            method = method_of(run, options.get("method", "auto"))
            normal = open_with_truth(run, None, "validation")[0]
            self.normality = Normality(self.model, normal,
                                       **{"fpr": 0.01, **options, "method": method})

    def __call__(self, data: Dataset, progress: Progress | None = None,
                 **options: Any) -> dict[str, Array]:
        """Columns of these examples; ``options`` beside those of all batches."""
        if self.verb == "encode":
            from latlas.verbs.passes import encoded

            return {f"z{i}": z for i, z in enumerate(encoded(self.model, data, progress).T)}
        if self.verb == "outliers":
            return self.normality.columns(data, progress)
        from latlas.verbs.score import scored

        return scored(self.model, data, **{**self.options, **options}).columns()


def _alone(examples: Dataset, start: int, stop: int) -> Dataset:
    """Some of the examples, as if there were no others: their rows count from 0."""
    label = None if examples.label is None else examples.label[start:stop]
    return replace(examples, x=examples.x[start:stop], label=label)


def _column(batch: Mapping[str, Any], name: str) -> Any:
    """A column as one array: rows that are arrays or lists of their own are stacked."""
    if name not in batch:
        raise ConfigError(f"no column {name!r} in the batch; it has {', '.join(batch)}")
    values = np.asarray(batch[name])
    nested = values.dtype == object and len(values) and not isinstance(values[0], str)
    return np.stack([np.asarray(v) for v in values]) if nested else values
