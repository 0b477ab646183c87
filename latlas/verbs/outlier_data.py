"""The examples that outliers are looked for among, and which of them are outliers by a label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, DataError, say_notes, say_option, unknown
from latlas.core.space import Table
from latlas.data.dataset import Dataset, Source
from latlas.data.fitting import as_source, conform, default_split, is_arrays, with_own_labels
from latlas.data.frames import Frame, is_frame
from latlas.data.pairs import first_side
from latlas.data.tables import numbers_of
from latlas.run import Run
from latlas.verbs.common import Array

#: reasons of a row, at most
REASONS = 3


@dataclass(frozen=True)
class Opened:
    """Examples without their labels, which of them are outliers if that is known, and of a table
    the source they are of."""

    examples: Dataset
    truth: Array | None = None
    source: Any = None


def open_with_truth(run: Run, data: Any = None, split: str | None = None,
                    outlier_label: str | None = None, *, lenient: bool = False,
                    **read: Any) -> Opened:
    """The examples of :meth:`Run.open` without their labels, and which of them are outliers.

    Args:
        data: labels of a pair (array, labels) are true or 1 for outliers.
        outlier_label: classes that are outliers, commas between, in the words of ``data``, which
            need not be the run's. ``None`` takes ``1`` where the classes are 0 and 1.
        lenient: a table is read as it comes, with its gaps and with words that are new.

    ConfigError: no such class.
    """
    if is_arrays(data) and not is_frame(data):
        x, labels = data if isinstance(data, tuple) else (data, None)
        examples = run.open(x, split)
        if labels is None:
            return Opened(examples)
        truth = np.asarray(labels)
        if truth.shape != (len(examples),) or not np.isin(truth, (0, 1)).all():
            raise DataError(f"labels of outliers must be {len(examples)} numbers that are 0 or 1 "
                            "(1: outlier)")
        return Opened(examples, truth.astype(bool))
    source = as_source(data, run, **read)
    if lenient and isinstance(source, Source) and isinstance(source.base.space, Table):
        classes = list(source.base.space.classes)
        source = replace(source, base=rows_of(source, run), problems=())
        part = source.split(split or default_split(source, run))
        label, examples = part.take("label"), replace(part, label=None)
    else:
        source = with_own_labels(source, run)
        part = first_side(source.split(split or default_split(source, run)))
        label, classes = part.take("label"), list(part.space.classes)
        examples = conform(replace(part, label=None), run.space, source.name)
    if outlier_label is not None and label is None:
        raise ConfigError(f"{say_option('outlier_label', outlier_label)}: the data have no labels; "
                          f"name their column with {say_option('label')}", option="outlier_label")
    if label is None or (outlier_label is None and set(classes) != {"0", "1"}):
        return Opened(examples, None, source)
    names = [name.strip() for name in (outlier_label or "1").split(",")]
    for name in names:
        if name not in classes:
            raise ConfigError(unknown("class", name, classes), option="outlier_label")
    return Opened(examples, np.isin(label, [classes.index(name) for name in names]), source)


def rows_of(source: Any, run: Any) -> Dataset:
    """All examples of a source of a table in the columns of a run, with nothing filled in: gaps
    stay, values that do not fit and columns that are missing become gaps, new words stay new; each
    is a note."""
    space = run.space
    if not isinstance(source.frame, Frame):
        return conform(source.base, space, source.name)  # type: ignore[no-any-return]
    data = numbers_of(source.frame, space.fields, source.name, fill=False, lenient=True)
    say_notes(data.notes)
    return replace(source.base, x=data.x, key=data.key, group=data.group, names=data.names,
                   space=space)
