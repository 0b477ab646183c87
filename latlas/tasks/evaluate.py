"""How good is a model: every figure on held-out data, each beside the control that could explain
it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, DataError, unknown
from latlas.core.model import BoundsDensity, Model
from latlas.data.dataset import Dataset
from latlas.metrics.latent import active_units
from latlas.metrics.likelihood import diagonal_gaussian, summary
from latlas.tasks import disentanglement, quality, translation
from latlas.tasks.cache import Cache
from latlas.tasks.classify import classification
from latlas.tasks.common import Array, Progress, base_measure_of, can, check, items_of, some_of
from latlas.tasks.figures import Figure
from latlas.tasks.generate import which_prior
from latlas.tasks.latent_space import latent_figures
from latlas.tasks.quality import feature_extractor
from latlas.tasks.read import encode, squared_errors
from latlas.tasks.score import RELIABLE_ESS, Scores, elbo_parts, score

__all__ = ["METRICS", "Evaluation", "evaluate", "feature_extractor"]

#: groups of figures and what a model must be able to do for them, in the order they are printed
METRICS = {"likelihood": "score", "reconstruction": "reconstruct", "translation": "translate",
           "classification": "classify", "code": "encode", "disentanglement": "encode",
           "latent": "decode", "samples": "sample"}


@dataclass(frozen=True)
class Evaluation:
    """All figures of one model on one held-out set.

    Attributes:
        name: of the model or run.
        base_measure: what the likelihood is a likelihood of; ``None`` without one.
        figures: in the order they are printed.
        notes: whole sentences a reader of the figures must know.
        settings: draws, samples, features, seed, items.
    """

    name: str
    base_measure: str | None
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> Figure | None:
        """The figure of this key, if the model has it."""
        return next((f for f in self.figures if f.key == key), None)

    def rows(self) -> list[dict[str, str]]:
        """One row per figure: group, figure, value, control, memoriser, flag, explanation."""
        from latlas.tasks.compare import row_of

        return [row_of(figure) for figure in self.figures]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {"name": self.name, "base_measure": self.base_measure, "settings": self.settings,
                "notes": list(self.notes), "figures": [f.to_json() for f in self.figures]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evaluation:
        """The inverse of :meth:`to_json`."""
        return cls(data["name"], data["base_measure"],
                   tuple(Figure.from_json(f) for f in data["figures"]), tuple(data["notes"]),
                   data["settings"])


def evaluate(model: Model, *, train: Dataset, test: Dataset, draws: int = 100,
             features: Any = "auto", samples: int = 2000, seed: int = 0, name: str = "",
             metrics: Sequence[str] = (), factors: Sequence[str] = (), prior: str = "own",
             to: str = "B", cache: Path | None = None,
             progress: Progress | None = None) -> Evaluation:
    """Every figure this model can have on ``test``, each with its control.

    Args:
        train: what the model was trained on: for the controls and the memorisation test.
        draws: of z per item for the importance-weighted bound.
        features: what sample quality is judged on (see ``latlas.metrics.features``), or the
            function :func:`feature_extractor` made once for several models.
        samples: how many are drawn, at most; equal numbers of real items are compared.
        prior: ``own``, or ``fitted``: only the figures of samples, drawn from that prior.
        to: the domain that a model of two translates to.
        metrics: groups of :data:`METRICS`; by default all that the model and the data allow.
        factors: names of those that disentanglement is judged by; see there.
        cache: folder that keeps the features of the real items and the classifier behind them, so
            that a second evaluation on the same items need not make them again.
        progress: called as (items scored, items) while the likelihood is computed.

    Raises:
        ConfigError: no such group; CapabilityError: one asked for that the model cannot have;
            DataError: disentanglement asked for, and the data have no known factors.
    """
    log, prior = _Log(), which_prior(model, prior)
    wanted = _wanted(model, test, ("samples",) if prior == "fitted" else metrics)
    settings = {"draws": draws, "samples": samples, "features": _named(features), "seed": seed,
                "items": len(test), "prior": prior}
    if can(model, "translate"):
        settings["to"] = to
    makers: dict[str, Callable[[], Iterator[Figure]]] = {
        "likelihood": lambda: _likelihood(model, train, test, draws, seed, progress, log.notes),
        "reconstruction": lambda: _reconstruction(model, train, test),
        "translation": lambda: translation.figures(model, train, test, features, samples, to, seed,
                                                   log.notes, Cache(cache)),
        "classification": lambda: classification(model, train, test),
        "code": lambda: _code(model, test),
        "disentanglement": lambda: disentanglement.figures(model, test, factors, seed, log.notes),
        "latent": lambda: latent_figures(model, test, seed, log.notes),
        "samples": lambda: quality.figures(model, train, test, features, samples, seed, prior,
                                           log.notes, Cache(cache))}
    for group in wanted:
        log.take(makers[group]())
    return Evaluation(name or type(model).__name__.lower(), base_measure_of(model),
                      tuple(log.figures), tuple(log.notes), settings)


def _wanted(model: Model, test: Dataset, asked: Sequence[str]) -> list[str]:
    """Groups in the order they are printed."""
    for group in asked:
        if group not in METRICS:
            raise ConfigError(unknown("group of metrics", group, METRICS))
        check(model, METRICS[group])
    if asked:
        return [group for group in METRICS if group in asked]
    return [group for group, capability in METRICS.items() if can(model, capability)
            and (group != "disentanglement" or disentanglement.has_factors(test))
            and (group != "classification" or test.label is not None)]


class _Log:
    """Figures and notes as they come."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.notes: list[str] = []

    def take(self, figures: Iterator[Figure]) -> None:
        self.figures.extend(figures)


def _likelihood(model: Model, train: Dataset, test: Dataset, draws: int, seed: int,
                progress: Progress | None, notes: list[str]) -> Iterator[Figure]:
    scores = score(model, test, draws=draws, seed=seed, progress=progress)
    control = _diagonal(scores, train, test, notes)
    name = "diagonal Gaussian" if control is not None else ""
    flag = _flag(scores, notes)
    mean = None if control is None else float(control.mean())
    yield Figure("nats", scores.mean, scores.standard_error, mean, name, flag=flag)
    if model.space.levels is not None:
        per = -1 / (scores.dims * np.log(2))
        yield Figure("bits_per_dim", float(scores.mean * per),
                     abs(float(scores.standard_error * per)),
                     None if mean is None else float(mean * per), name, flag=flag)
    if scores.method == "iw":
        yield Figure("ess_median", float(np.median(scores.ess)))
        yield Figure("ess_min", float(scores.ess.min()))
    if isinstance(model, BoundsDensity):
        yield from _elbo(model, test, seed)


def _elbo(model: Model, test: Dataset, seed: int) -> Iterator[Figure]:
    parts = elbo_parts(model, test, seed=seed)
    for key, part in (("elbo", "bound"), ("elbo_reconstruction", "reconstruction"),
                      ("elbo_kl", "kl")):
        figure = summary(parts[part])
        yield Figure(key, figure.mean, figure.standard_error)


def _flag(scores: Scores, notes: list[str]) -> str:
    """Too few effective draws for too many items make the figure unreliable."""
    few = float(scores.unreliable.mean())
    if not few:
        return ""
    notes.append(f"{few:.1%} of the items have an effective sample size under {RELIABLE_ESS:g} of "
                 f"{scores.draws} draws: for them the importance-weighted bound is loose; more "
                 "draws raise it.")
    return "ESS < 10" if np.median(scores.ess) < RELIABLE_ESS else ""


def _diagonal(scores: Scores, train: Dataset, test: Dataset, notes: list[str]) -> Array | None:
    """The control on the model's own base_measure; ``None`` where a Gaussian is no control."""
    if scores.base_measure not in ("integers", "data units"):
        notes.append(f"The likelihood is one of {scores.base_measure or 'an unstated kind'}: not "
                     "compared with a Gaussian, nor with models of another base_measure.")
        return None
    dims = train.space.dims
    seen = items_of(some_of(train, max(2_000, 20_000_000 // dims)))
    step = 1.0 if scores.base_measure == "integers" else 0.0
    try:
        parts = [diagonal_gaussian(seen, part, step=step)
                 for part in _chunks(test, max(1, 4_000_000 // dims))]
    except DataError as error:
        notes.append(f"No diagonal Gaussian as control: {error}.")
        return None
    return np.concatenate(parts)


def _reconstruction(model: Model, train: Dataset, test: Dataset) -> Iterator[Figure]:
    errors = summary(squared_errors(model, test))
    known = items_of(some_of(train, max(2_000, 20_000_000 // train.space.dims)))
    mean = known.mean(0, dtype=np.float64)
    fill = float(np.mean([np.square(part - mean).mean() for part in _chunks(test, 512)]))
    yield Figure("mse", errors.mean, errors.standard_error, fill, "training mean")
    if model.space.levels is not None:
        top = (model.space.levels - 1) ** 2
        yield Figure("mse_unit", errors.mean / top, errors.standard_error / top, fill / top,
                     "training mean")


def _code(model: Model, test: Dataset) -> Iterator[Figure]:
    codes = encode(model, test)
    if len(codes) > 1:
        yield Figure("active_units", active_units(codes))
    yield Figure("latent_dim", model.latent_dim)


def _named(source: Any) -> str:
    return type(source).__name__ if callable(source) else str(source)


def _chunks(data: Dataset, size: int) -> Iterator[Array]:
    for start in range(0, len(data), size):
        yield items_of(data.subset(slice(start, start + size)))
