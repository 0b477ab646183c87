"""The metrics of a model on held-out data, group by group, each beside the control that could
explain it. A group is a generator of metrics; whole sentences that a reader must know it adds to
``notes``. Those of samples are computed in ``sample_quality``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.model import BoundsDensity, Model
from latlas.core.noise import derive
from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.data.pairs import Data, PairDataset
from latlas.metrics import disentanglement as scores_of
from latlas.metrics import latent_space as latent_metrics
from latlas.metrics import paired
from latlas.metrics.latent_space import active_units
from latlas.metrics.likelihood import diagonal_gaussian, summary
from latlas.metrics.paired import flicker, motions
from latlas.metrics.table import Metric
from latlas.verbs import passes
from latlas.verbs.common import Array, Progress
from latlas.verbs.estimators import elbo_parts
from latlas.verbs.passes import can, drawn_examples, evenly_spaced, examples_of, log_probabilities
from latlas.verbs.sample_quality import Cache, metrics_of
from latlas.verbs.score import RELIABLE_ESS, scored
from latlas.verbs.translating import domains, must_reach, translated

#: examples that disentanglement is measured on, at most
FACTORED = 10_000
#: a symmetric shape looks the same at several angles, so no latents of its image can hold the angle
AMBIGUOUS = "orientation"
#: training images whose median is the best constant image, and pairs of neighbouring frames that
#: flicker is measured on, at most
MEDIAN_OF, PAIRS = 2000, 1000
#: held-out examples that supports, mixtures and neighbours are taken over, at most, and the bytes
#: of them that neighbours are looked for in
EXAMPLES, BYTES = 2000, 100_000_000
#: paths between draws of the prior, and points on each
PATHS, POINTS = 48, 65


def likelihood(model: Model, train: Dataset, test: Dataset, draws: int, seed: int,
               notes: list[str], progress: Progress | None = None) -> Iterator[Metric]:
    """The control is a diagonal Gaussian on the model's own base measure, where it has one."""
    scores, dims = scored(model, test, draws=draws, seed=seed, progress=progress), train.space.dims
    mean, title, flag = None, "", ""
    if scores.base_measure not in ("integers", "data units"):
        notes.append(f"The likelihood is one of {scores.base_measure or 'an unstated kind'}: not "
                     "compared with a Gaussian, nor with models of another base measure.")
    else:
        some = examples_of(evenly_spaced(train, max(2_000, 20_000_000 // dims)))
        step = 1.0 if scores.base_measure == "integers" else 0.0
        try:
            mean, title = float(np.concatenate([
                diagonal_gaussian(some, part, step=step)
                for part in _chunks(test, max(1, 4_000_000 // dims))]).mean()), "diagonal Gaussian"
        except DataError as error:
            notes.append(f"No diagonal Gaussian as control: {error}.")
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


def reconstruction(model: Model, train: Dataset, test: Dataset) -> Iterator[Metric]:
    errors = summary(passes.squared_errors(model, test))
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


def classification(model: Model, train: Dataset, test: Dataset) -> Iterator[Metric]:
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


def encoding(model: Model, test: Dataset) -> Iterator[Metric]:
    z = passes.encoded(model, test)
    if len(z) > 1:
        yield Metric("active_units", active_units(z))
    yield Metric("latent_dim", model.latent_dim)


def disentanglement(model: Model, data: Dataset, factors: Sequence[str], seed: int,
                    notes: list[str]) -> Iterator[Metric]:
    """Every score, beside rotated latents (control) and the factors as latents (ceiling).

    Args:
        factors: names; by default all that vary but ``orientation``.
    """
    names, values = known_factors(data, factors, notes)
    notes.append(f"Disentanglement is of the factors {', '.join(names)}, on {len(values):,} "
                 "examples.")
    z = passes.encoded(model, data.subset(slice(0, FACTORED)))
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
    first 10,000 examples. DataError: the data have no factors, none of that name, or fewer than two
    to keep apart."""
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


def translation(model: Any, train: Data, test: Data, features: Any, samples: int, to: str,
                seed: int, notes: list[str], cache: Path | None = None) -> Iterator[Metric]:
    """Of test examples translated to domain ``to``.

    Of pairs the control is the pixelwise median of the training images of that domain. As samples
    of the domain the translations are judged like any others.

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
    if source.clip is not None:  # change beyond the motion of the input, where it explains that
        after = np.flatnonzero(np.diff(np.asarray(source.take("clip"))) == 0) + 1
        later = after[np.unique(np.linspace(0, len(after) - 1, min(len(after), PAIRS)).astype(int))]
        motion, weight = motions(x[later - 1], x[later], top)
        explained = weight.sum((1, 2, 3)) > 0
        if explained.any():
            later, motion, weight = later[explained], motion[explained], weight[explained]
            control = flicker(x[later - 1], x[later], motion, top, weight)
            values = flicker(outputs[later - 1], outputs[later], motion, _top(into), weight)
            yield _mean("flicker", values, float(control.mean()), "the input")
            notes.append(f"Flicker is taken over the {explained.mean() * weight.mean():.0%} of the "
                         "places whose motion was found.")
        else:
            notes.append("No frame follows another by a motion that was found: nothing is said of "
                         "flicker.")
    notes.append(f"As samples translations are judged among the images of {to}.")
    yield from metrics_of(outputs[:samples], None, domain, target, features, seed,
                          str(model.device), notes, Cache(cache))


def _top(space: Space) -> float:
    """The highest level of its images."""
    return float((space.levels or 2) - 1)


def _mean(key: str, values: Array, *control: Any) -> Metric:
    """Mean over examples, with its standard error; the PSNR of equal images is infinite."""
    if not np.isfinite(values).all():
        return Metric(key, float(values.mean()), None, *control)
    mean = summary(values)
    return Metric(key, mean.mean, mean.standard_error, *control)


def sample_quality(model: Model, train: Dataset, test: Dataset, features: Any, samples: int,
                   seed: int, latents: str, notes: list[str],
                   cache: Path | None = None) -> Iterator[Metric]:
    """Every metric of samples (``latents`` own or fitted), each with its held-out control and that
    of training copies."""
    n = min(samples, len(test), len(train) // 2)
    condition = passes.sample_conditions(model, test, n, seed)
    values = drawn_examples(model, n, seed=derive(seed, "evaluate"), latents=latents,
                            condition=condition)
    label = None  # the class that each was drawn for; other conditions are no class
    if condition is not None and condition.dim() == 1 and not condition.is_floating_point():
        label = np.asarray(condition.cpu().numpy(), np.int64)
    yield from metrics_of(values, label, train, test, features, seed, str(model.device), notes,
                          Cache(cache), from_prior=has_latent_space(model))


# ------------------------------------------------------------------------------ latent space

def latent_space(model: Any, test: Dataset, seed: int, notes: list[str]) -> Iterator[Metric]:
    """Continuity of models with a prior and a decoder; what the latents of an encoder hold."""
    few = evenly_spaced(test, EXAMPLES)
    if has_latent_space(model) and len(few) > 1 and (near := neighbour_distance(model, few)):
        draws = prior_draws(model, EXAMPLES, seed)
        paths = latent_metrics.arcs(draws[:PATHS], draws[PATHS:2 * PATHS], draws.mean(0), POINTS)
        condition = passes.sample_conditions(model, few, PATHS, seed)
        ways = [decoder_means(model, path, None if condition is None else condition[i:i + 1])
                for i, path in enumerate(paths)]
        spectrum = latent_metrics.continuity(
            np.stack([latent_metrics.lengths(x) for x in ways]),
            latent_metrics.lengths(paths) / np.sqrt(draws.var(0).mean()), near)
        fade = max(float(np.linalg.norm(x[-1] - x[0])) for x in ways) / (POINTS - 1)
        yield Metric("slope_median", spectrum.median)
        yield Metric("slope_high", spectrum.high)
        if spectrum.median:
            yield Metric("lipschitz_ratio", spectrum.unevenness)
        yield Metric("largest_jump", spectrum.largest_jump, control=fade / near,
                     control_name="cross-fade")
    if not can(model, "encode") or len(few) <= model.latent_dim + 1:
        return
    means, log_var = passes.posteriors(model, few)
    if log_var is not None:  # the KL part of the ELBO and what it is made of
        def log_prior(z: Array) -> Array:
            with passes.inference(model):
                log_p = model.prior.log_prob(passes.latents_tensor(model, z))
                return np.asarray(log_p.double().cpu())

        prior = None if model.prior is None else log_prior
        parts = latent_metrics.elbo_surgery(means, log_var, log_prior=prior,
                                            seed=derive(seed, "surgery"))
        values = {key: summary(v.sum(1) if v.ndim == 2 else v) for key, v in parts.items()}
        # whether the prior is N(0, I) is told by its density: a verb knows no families
        normal = -0.5 * (np.square(means, dtype=np.float64) + np.log(2 * np.pi)).sum(1)
        if prior and not np.allclose(prior(means), normal, rtol=1e-4):
            values.pop("dimension_kl")  # part of KL(q(z) ‖ p(z)) under N(0, I) alone
        for key in ("information", "information_upper", "marginal_kl", "total_correlation",
                    "dimension_kl"):
            if key in values:
                yield Metric(key, values[key].mean, values[key].standard_error)
        room = np.log(len(means))
        if values["information"].mean > room - 1:
            notes.append(f"The latents hold more of an example than {len(means):,} examples can "
                         f"show (log n = {room:.1f} nats): I(x; z) is a lower bound, KL(q(z) ‖ "
                         "p(z)) and total correlation are upper bounds.")
    linear = latent_metrics.linear_total_correlation(means, log_var)
    # infinite where one dimension is a sum of others, as the charts of an atlas are
    yield from [Metric("linear_tc", linear)] * bool(np.isfinite(linear))


def has_latent_space(model: Model) -> bool:
    """Whether draws of a prior can be decoded."""
    return model.prior is not None and can(model, "decode")


def prior_draws(model: Any, n: int, seed: int = 0) -> Array:
    """(n, latent_dim) float64 draws of the model's prior."""
    with passes.inference(model):
        draws = model.prior.sample(n, passes.noise(model, seed, "prior"))
        return np.asarray(draws.double().cpu())


def decoder_means(model: Any, latents: Array, condition: Tensor | None) -> Array:
    """Means of p(x|z), (n, dims) float32 in model units: data units are rounded in images."""
    z = passes.latents_tensor(model, latents)
    with passes.inference(model):
        x: Tensor = model.decode(z, **passes.broadcast_condition(model, condition, len(z))).mean
        return np.asarray(x.float().flatten(1).cpu())


def neighbour_distance(model: Model, few: Dataset) -> float:
    """Median distance of a held-out example to the nearest other, model units."""
    most = max(2, BYTES // (4 * model.space.dims))
    x = model.space.to_model(examples_of(evenly_spaced(few, most)).astype(np.float32))
    return latent_metrics.neighbour_distance(np.asarray(x, np.float32).reshape(len(x), -1))
