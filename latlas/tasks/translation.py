"""How good are translations? Beside what was wanted, beside the other domain, there and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.metrics import paired
from latlas.metrics.flicker import flicker, motions
from latlas.metrics.likelihood import summary
from latlas.tasks import quality
from latlas.tasks.cache import Cache
from latlas.tasks.common import Array, items_of, some_of
from latlas.tasks.figures import Figure
from latlas.tasks.translate import made_for, must_reach, translate

#: training pictures whose median is the best constant picture
MEDIAN_OF = 2000
#: pairs of neighbouring frames that flicker is judged by, at most
PAIRS = 1000
MEASURES = {"l1": paired.l1, "psnr": paired.psnr, "ssim": paired.ssim}


def figures(model: Any, train: Any, test: Any, source: Any, samples: int, to: str,
            seed: int, notes: list[str], cache: Cache) -> Iterator[Figure]:
    """Of test items translated to domain ``to``.

    Beside the pictures that pairs want, the control is the pixelwise median of the training
    pictures of that domain. As samples of the domain, it is real pictures, as everywhere.

    Raises:
        ConfigError: the model does not reach this domain; DataError: the data have one side.
    """
    must_reach(model, to)
    if not (isinstance(test, PairDataset) and isinstance(train, PairDataset)):
        raise DataError("translations are judged against the other domain, and the data have one "
                        "side: give data of two (docs/data.md)")
    seen, wanted = (test.a, test.b) if to == "B" else (test.b, test.a)
    domain = train.b if to == "B" else train.a
    made = translate(model, seen, to=to)
    if test.aligned:
        yield from _beside(made, wanted, domain)
    else:
        notes.append("No pairs are known, so nothing says how near a translation is to its own.")
    if len(model.ways) > 1:
        yield from _back(model, made, seen, to)
    if seen.clip is not None:
        yield from _flicker(made, seen, made_for(model.space, to), notes)
    notes.append(f"As samples translations are judged among the pictures of {to}.")
    yield from quality.figures_of(made[:samples], None, domain, wanted, source, seed,
                                  str(model.device), notes, cache)


def _beside(made: Array, wanted: Dataset, domain: Dataset) -> Iterator[Figure]:
    """How near each is to the one that belongs to it."""
    top, true = _top(wanted), items_of(wanted)
    middle = np.median(items_of(some_of(domain, MEDIAN_OF)), 0)
    constant = np.broadcast_to(middle, true.shape)
    for key, measure in MEASURES.items():
        control = float(measure(constant, true, top).mean())
        yield _mean(key, measure(made, true, top), control, "median picture")


def _back(model: Any, made: Array, seen: Dataset, to: str) -> Iterator[Figure]:
    """How far an item is from itself after the way there and back."""
    there = Dataset(made, made_for(model.space, to))
    back = translate(model, there, to="A" if to == "B" else "B")
    yield _mean("cycle", paired.l1(back, items_of(seen), _top(seen)))


def _flicker(made: Array, seen: Dataset, into: Space, notes: list[str]) -> Iterator[Figure]:
    """How much translated frames change beyond the motion of their input, where that explains the
    input; the control is what the input itself changes there."""
    later, x = _followers(seen), items_of(seen)
    motion, weight = motions(x[later - 1], x[later], _top(seen))
    kept = weight.sum((1, 2, 3)) > 0
    if not kept.any():
        notes.append("No frame follows another by a motion that was found: nothing is said of "
                     "flicker.")
        return
    later, motion, weight = later[kept], motion[kept], weight[kept]
    own = flicker(x[later - 1], x[later], motion, _top(seen), weight)
    values = flicker(made[later - 1], made[later], motion, float((into.levels or 2) - 1), weight)
    yield _mean("flicker", values, float(own.mean()), "the input")
    notes.append(f"Flicker is taken over the {kept.mean() * weight.mean():.0%} of the places whose "
                 "motion was found.")


def _followers(seen: Dataset) -> NDArray[np.int64]:
    """Places of some frames that follow another of their clip."""
    later = np.flatnonzero(np.diff(np.asarray(seen.take("clip"))) == 0) + 1
    return later[np.unique(np.linspace(0, len(later) - 1, min(len(later), PAIRS)).astype(int))]


def _mean(key: str, values: Array, *control: Any) -> Figure:
    """Mean of the items, with its standard error; the PSNR of equal pictures is infinite."""
    if not np.isfinite(values).all():
        return Figure(key, float(values.mean()), None, *control)
    found = summary(values)
    return Figure(key, found.mean, found.standard_error, *control)


def _top(data: Dataset) -> float:
    """The largest level of its pictures."""
    return float((data.space.levels or 2) - 1)
