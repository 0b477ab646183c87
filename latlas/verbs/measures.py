"""Every metric of a model on held-out data, each beside the control that could explain it.

Those of samples are in ``sample_quality``, those of the latent space in ``latent_space``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, DataError, say_option, unknown
from latlas.core.model import BoundsDensity, Model
from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.data.pairs import Data, PairDataset
from latlas.metrics import disentanglement as scores_of
from latlas.metrics import paired
from latlas.metrics.flicker import flicker, motions
from latlas.metrics.latent import active_units
from latlas.metrics.likelihood import diagonal_gaussian, summary
from latlas.metrics.table import GROUPS, Metric
from latlas.run import Run
from latlas.verbs.common import Array, Progress
from latlas.verbs.comparison import Evaluation
from latlas.verbs.estimators import elbo_parts
from latlas.verbs.latent_space import latent_metrics
from latlas.verbs.passes import (
    base_measure_of,
    can,
    encoded,
    evenly_spaced,
    examples_of,
    log_probabilities,
    squared_errors,
    which_latents,
)
from latlas.verbs.sample_quality import Cache, metrics_of, sample_metrics
from latlas.verbs.score import RELIABLE_ESS, Scores, scored
from latlas.verbs.translating import domains, must_reach, translated

#: examples that disentanglement is measured on, at most
FACTORED = 10_000
#: a symmetric shape looks the same at several angles, so no latents of its image can hold the angle
AMBIGUOUS = "orientation"
#: training images whose median is the best constant image, and pairs of neighbouring frames that
#: flicker is measured on, at most
MEDIAN_OF, PAIRS = 2000, 1000


def measure(model: Model, *, train: Dataset, test: Dataset, draws: int = 100,
            features: Any = "auto", samples: int = 2000, seed: int = 0, name: str = "",
            metrics: Sequence[str] = (), factors: Sequence[str] = (), latents: str = "own",
            to: str = "B", cache: Path | None = None,
            progress: Progress | None = None) -> Evaluation:
    """Every metric this model can have on ``test``, each with its control.

    Args:
        train: what the model was trained on: for the controls and the data-copying test.
        features: what sample quality is judged on (see ``latlas.metrics.features``), or the
            function that ``feature_extractor`` gave once for several models.
        latents: ``own``, or ``fitted``: only the metrics of samples, drawn from that prior.
        cache: folder that keeps the features of the real examples and the classifier behind them.
        draws, samples, metrics, factors, to, progress: as for :func:`latlas.evaluate`.

    Raises:
        ConfigError: no such group. CapabilityError: one asked for that the model cannot have.
        DataError: disentanglement asked for, and the data have no known factors.
    """
    latents, notes = which_latents(model, latents), list[str]()
    chosen = ("samples",) if latents == "fitted" else tuple(metrics)
    for group in chosen:
        if group not in GROUPS:
            raise ConfigError(unknown("group of metrics", group, GROUPS), option="metrics")
        Run.of(model).require(GROUPS[group], group)
    if not chosen:
        chosen = tuple(group for group, capability in GROUPS.items() if can(model, capability)
                       and (group != "disentanglement" or has_factors(test))
                       and (group != "classification" or test.label is not None))
    settings = {"draws": draws, "samples": samples, "features": type(features).__name__ if callable(
        features) else str(features), "seed": seed, "examples": len(test), "latents": latents}
    if can(model, "translate"):
        settings["to"] = to
    makers: dict[str, Callable[[], Iterator[Metric]]] = {
        "likelihood": lambda: _likelihood(model, train, test, draws, seed, progress, notes),
        "reconstruction": lambda: _reconstruction(model, train, test),
        "translation": lambda: _translation(model, train, test, features, samples, to, seed, notes,
                                            Cache(cache)),
        "classification": lambda: _classification(model, train, test),
        "encoding": lambda: _encoding(model, test),
        "disentanglement": lambda: disentanglement(model, test, factors, seed, notes),
        "latent-space": lambda: latent_metrics(model, test, seed, notes),
        "samples": lambda: sample_metrics(model, train, test, features, samples, seed, latents,
                                          notes, Cache(cache))}
    values = [metric for group in GROUPS if group in chosen for metric in makers[group]()]
    return Evaluation(name or type(model).__name__.lower(), base_measure_of(model), tuple(values),
                      tuple(notes), settings)


def _likelihood(model: Model, train: Dataset, test: Dataset, draws: int, seed: int,
                progress: Progress | None, notes: list[str]) -> Iterator[Metric]:
    scores = scored(model, test, draws=draws, seed=seed, progress=progress)
    control = _diagonal(scores, train, test, notes)
    title = "diagonal Gaussian" if control is not None else ""
    mean = None if control is None else float(control.mean())
    flag = ""
    if few := float(scores.unreliable.mean()):
        notes.append(f"{few:.1%} of the examples have an effective sample size under "
                     f"{RELIABLE_ESS:g} of {scores.draws} draws: for them the importance-weighted "
                     "bound is loose; more draws raise it.")
        flag = "ESS < 10" if np.median(scores.ess) < RELIABLE_ESS else ""
    yield Metric("nats", scores.mean, scores.standard_error, mean, title, flag=flag)
    if model.space.levels is not None:
        per = -1 / (scores.dims * np.log(2))
        yield Metric("bits_per_dim", float(scores.mean * per),
                     abs(float(scores.standard_error * per)),
                     None if mean is None else float(mean * per), title, flag=flag)
    if scores.method == "iw":
        yield Metric("ess_median", float(np.median(scores.ess)))
        yield Metric("ess_min", float(scores.ess.min()))
    if isinstance(model, BoundsDensity):
        parts = elbo_parts(model, test, seed=seed)
        for key, part in (("elbo", "bound"), ("elbo_reconstruction", "reconstruction"),
                          ("elbo_kl", "kl")):
            yield _mean(key, parts[part])


def _diagonal(scores: Scores, train: Dataset, test: Dataset, notes: list[str]) -> Array | None:
    """The control on the model's own base measure; ``None`` where a Gaussian is no control."""
    if scores.base_measure not in ("integers", "data units"):
        notes.append(f"The likelihood is one of {scores.base_measure or 'an unstated kind'}: not "
                     "compared with a Gaussian, nor with models of another base measure.")
        return None
    dims = train.space.dims
    fitted_to = examples_of(evenly_spaced(train, max(2_000, 20_000_000 // dims)))
    step = 1.0 if scores.base_measure == "integers" else 0.0
    try:
        return np.concatenate([diagonal_gaussian(fitted_to, part, step=step)
                               for part in _chunks(test, max(1, 4_000_000 // dims))])
    except DataError as error:
        notes.append(f"No diagonal Gaussian as control: {error}.")
        return None


def _reconstruction(model: Model, train: Dataset, test: Dataset) -> Iterator[Metric]:
    errors = summary(squared_errors(model, test))
    some = examples_of(evenly_spaced(train, max(2_000, 20_000_000 // train.space.dims)))
    mean = some.mean(0, dtype=np.float64)
    fill = float(np.mean([np.square(part - mean).mean() for part in _chunks(test, 512)]))
    yield Metric("mse", errors.mean, errors.standard_error, fill, "training mean")
    if model.space.levels is not None:
        top = (model.space.levels - 1) ** 2
        yield Metric("mse_unit", errors.mean / top, errors.standard_error / top, fill / top,
                     "training mean")


def _chunks(data: Dataset, size: int) -> Iterator[Array]:
    for start in range(0, len(data), size):
        yield examples_of(data.subset(slice(start, start + size)))


def _classification(model: Model, train: Dataset, test: Dataset) -> Iterator[Metric]:
    """Accuracy, that of the worst class, and the cross-entropy of held-out examples."""
    label, trained_on = test.take("label"), train.take("label")
    if label is None or trained_on is None:
        raise DataError("metrics of classification need labels; name them with "
                        f"{say_option('label')}")
    log_p = log_probabilities(model, test)
    right, loss = log_p.argmax(1) == label, -log_p[np.arange(len(label)), label]
    shares = (np.bincount(trained_on, minlength=log_p.shape[1]) + 1) / (
        len(trained_on) + log_p.shape[1])
    yield _mean("accuracy", right.astype(np.float64), float((label == shares.argmax()).mean()),
                "commonest class")
    yield Metric("accuracy_worst", min(float(right[label == c].mean()) for c in np.unique(label)))
    yield _mean("cross_entropy", loss.astype(np.float64), float(-np.log(shares[label]).mean()),
                "shares of classes")


def _encoding(model: Model, test: Dataset) -> Iterator[Metric]:
    z = encoded(model, test)
    if len(z) > 1:
        yield Metric("active_units", active_units(z))
    yield Metric("latent_dim", model.latent_dim)


# ------------------------------------------------------------------------------ disentanglement

def disentanglement(model: Model, data: Dataset, factors: Sequence[str] = (), seed: int = 0,
                    notes: list[str] | None = None) -> Iterator[Metric]:
    """Every score, beside rotated latents (control) and the factors as latents (ceiling).

    Args:
        factors: names; by default all that vary but ``orientation``.
        notes: whole sentences that a reader must know are added here.
    """
    notes = [] if notes is None else notes
    names, values = known_factors(data, factors, notes)
    notes.append(f"Disentanglement is of the factors {', '.join(names)}, on {len(values):,} "
                 "examples.")
    z = encoded(model, data.subset(slice(0, FACTORED)))
    own, low, best = (scores_of.disentanglement(latents, values, seed=seed) for latents in (
        z, scores_of.rotated(z, seed=seed), scores_of.oracle(values, z.shape[1], seed=seed)))
    for key, value in own.items():
        yield Metric(key, value, control=low[key], control_name="rotated latents",
                     ceiling=best[key])


def has_factors(data: Dataset) -> bool:
    """Two factors or more: with one there is nothing to keep apart."""
    return data.factors is not None and data.factors.shape[1] > 1


def known_factors(data: Dataset, chosen: Sequence[str],
                  notes: list[str]) -> tuple[list[str], Array]:
    """Names and values (n, f) of the factors, by default all that vary but ``orientation``, of the
    first 10,000 examples.

    Raises:
        DataError: the data have no factors, none of that name, or fewer than two to keep apart.
    """
    if data.factors is None:
        raise DataError("disentanglement needs data whose factors are known, and these have none: "
                        f"use {say_option('data', 'shapes')}, or an npz with an array `factors` "
                        "(n, f)")
    values = np.asarray(data.subset(slice(0, FACTORED)).take("factors"), np.float64)
    names = list(data.space.factors)
    if len(names) != values.shape[1]:
        names = [f"factor{i}" for i in range(values.shape[1])]
    for name in chosen:
        if name not in names:
            raise DataError(unknown("factor", name, names))
    if not chosen:
        chosen = [n for n, v in zip(names, values.T, strict=True) if v.min() < v.max()]
        if AMBIGUOUS in chosen:
            chosen.remove(AMBIGUOUS)
            notes.append(f"The factor {AMBIGUOUS} is left out: a symmetric shape looks the same at "
                         "several. --factors NAME,NAME chooses.")
    if len(chosen) < 2:
        raise DataError(f"disentanglement needs two factors or more that vary, these are "
                        f"{', '.join(chosen) or 'none'} of {', '.join(names)}")
    return list(chosen), values[:, [names.index(name) for name in chosen]]


# ------------------------------------------------------------------------------ translation

def _translation(model: Any, train: Data, test: Data, features: Any, samples: int, to: str,
                 seed: int, notes: list[str], cache: Cache) -> Iterator[Metric]:
    """Of test examples translated to domain ``to``.

    Of pairs the control is the pixelwise median of the training images of that domain. As samples
    of the domain the translations are judged like any others.

    Raises:
        ConfigError: the model does not reach this domain; DataError: the data have one domain.
    """
    must_reach(model, to)
    if not (isinstance(test, PairDataset) and isinstance(train, PairDataset)):
        raise DataError("translations are judged against the other domain, and the data have one "
                        "side: give data of two (docs/data.md)")
    source, target = (test.a, test.b) if to == "B" else (test.b, test.a)
    domain, top = train.b if to == "B" else train.a, _top(source.space)
    outputs, x = translated(model, source, to=to), examples_of(source)
    into = domains(model.space, to)[1]
    if test.aligned:
        truth, level = examples_of(target), _top(target.space)
        constant = np.median(examples_of(evenly_spaced(domain, MEDIAN_OF)), 0)
        for key, distance in (("l1", paired.l1), ("psnr", paired.psnr), ("ssim", paired.ssim)):
            control = distance(np.broadcast_to(constant, truth.shape), truth, level)
            yield _mean(key, distance(outputs, truth, level), float(control.mean()),
                        "median image")
    else:
        notes.append("No pairs are known, so nothing says how near a translation is to its own.")
    if len(model.ways) > 1:
        back = translated(model, Dataset(outputs, into), to="A" if to == "B" else "B")
        yield _mean("cycle", paired.l1(back, x, top))
    if source.clip is not None:
        yield from _flicker(outputs, x, np.asarray(source.take("clip")), top, into, notes)
    notes.append(f"As samples translations are judged among the images of {to}.")
    yield from metrics_of(outputs[:samples], None, domain, target, features, seed,
                          str(model.device), notes, cache)


def _flicker(outputs: Array, x: Array, clip: Array, top: float, into: Space,
             notes: list[str]) -> Iterator[Metric]:
    """How much translated frames change beyond the motion of their input, where that explains the
    input; the control is what the input itself changes there."""
    later = np.flatnonzero(np.diff(clip) == 0) + 1  # frames that follow another of their clip
    later = later[np.unique(np.linspace(0, len(later) - 1, min(len(later), PAIRS)).astype(int))]
    motion, weight = motions(x[later - 1], x[later], top)
    explained = weight.sum((1, 2, 3)) > 0
    if not explained.any():
        notes.append("No frame follows another by a motion that was found: nothing is said of "
                     "flicker.")
        return
    later, motion, weight = later[explained], motion[explained], weight[explained]
    control = flicker(x[later - 1], x[later], motion, top, weight)
    values = flicker(outputs[later - 1], outputs[later], motion, _top(into), weight)
    yield _mean("flicker", values, float(control.mean()), "the input")
    notes.append(f"Flicker is taken over the {explained.mean() * weight.mean():.0%} of the places "
                 "whose motion was found.")


def _top(space: Space) -> float:
    """The highest level of its images."""
    return float((space.levels or 2) - 1)


def _mean(key: str, values: Array, *control: Any) -> Metric:
    """Mean over examples, with its standard error; the PSNR of equal images is infinite."""
    if not np.isfinite(values).all():
        return Metric(key, float(values.mean()), None, *control)
    mean = summary(values)
    return Metric(key, mean.mean, mean.standard_error, *control)
