"""The verbs as functions: data in, NumPy arrays out, in the units of the file.

Every function takes a run folder or a model, and data as a source's name, a file or folder, an
array (n, \\*shape), a pair (items, labels), two sources for two domains, or what :func:`open_data`
returns. What a model cannot do is said before any data is read. torch is imported when a verb is
called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.api.auditing import audit
from latlas.api.making import (
    decode,
    directions,
    edit,
    interpolate,
    mix,
    prior_codes,
    project,
    sample,
    translate,
    traverse,
)
from latlas.api.runs import (
    Array,
    Count,
    Items,
    Run,
    both,
    load,
    model_of,
    open_data,
    remember,
    training_items,
)
from latlas.api.scorer import Scorer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latlas.api.priors import Fitted
    from latlas.api.training import Trained
    from latlas.data.dataset import Source
    from latlas.data.pairs import PairSource
    from latlas.tasks.compare import Comparison
    from latlas.tasks.evaluate import Evaluation
    from latlas.tasks.outliers import Outliers
    from latlas.tasks.score import Scores
    from latlas.tasks.shards import Written
    from latlas.tasks.weights import ItemWeights

__all__ = ["Scorer", "audit", "classify", "compare", "decode", "denoise", "directions", "edit",
           "encode", "evaluate", "fit_prior", "interpolate", "list_models", "load", "mix",
           "open_data", "outliers", "prior_codes", "project", "reconstruct", "sample", "score",
           "train", "translate", "traverse", "weights", "write_parts", "write_report"]


def list_models() -> dict[str, str]:
    """Name and one line of every model."""
    from latlas.models import MODELS

    return {name: entry.summary for name, entry in MODELS.items()}


def train(model: str = "vae", data: Items = "digits", *, out: str | Path | None = None,
          progress: bool = True, start: str | Path | None = None, split: str = "train",
          encoder: Any = None, decoder: Any = None, **settings: Any) -> Trained:
    """Train a model; the same call again goes on where it stopped, or loads the finished run.

    Args:
        model: a name of :func:`models`, or ``module:Class``.
        data: a source; arrays are divided into train, validation and test like any other.
        out: the run folder; without one nothing is kept but the model returned.
        start: a run whose weights to start from.
        split: ``train``, or ``all`` to hold nothing back.
        encoder, decoder: ``nn.Module``s of your own.
        settings: any field of the model's config or of ``TrainOptions``
            (``latent_dim=32, minutes=5``), or another network of the model (``generator=…``).

    Raises:
        LatlasError: in one line what is wrong with a setting, the data or the run folder.
    """
    from latlas.api.items import as_source
    from latlas.api.training import execute, parts, plan

    networks = {k: v for k, v in settings.items() if callable(v)}
    asked = plan(model, {k: v for k, v in settings.items() if k not in networks}, split=split,
                 start=start)
    networks |= {k: v for k, v in (("encoder", encoder), ("decoder", decoder)) if v is not None}
    source = as_source(data)
    done = execute(asked, parts(source, split), None if out is None else Path(out), progress,
                   networks)
    remember(done.model, source.spec)
    return done


def fit_prior(run: str | Path, data: Items = None, *, draws: int = 4, progress: bool = True,
              **settings: Any) -> Fitted:
    """Fit a second prior to the codes of a run's training items, in RUN/prior, by flow matching.

    :func:`load` then gives a model that carries it and :func:`sample` draws from it. The same call
    again goes on where it stopped.

    Args:
        data: by default what the run was trained on.
        draws: of q(z|x) for every item.
        settings: of the model ``flow-matching`` and of training (``minutes=5``).

    Raises:
        LatlasError: in one line what is wrong with the run, the data or a setting.
    """
    from latlas.api.items import as_source, known
    from latlas.api.priors import fit

    source = None if data is None else as_source(data, known(run))
    return fit(Path(run), source, settings, draws=draws, progress=progress)


def encode(run: Run, data: Items = None, split: str | None = None, *,
           progress: Count | None = None, **options: Any) -> NDArray[np.float32]:
    """The mean code of every item, (n, latent_dim) float32."""
    from latlas.tasks import read

    return read.encode(*both(run, data, split, options, "encode"), progress=progress)


def reconstruct(run: Run, data: Items = None, split: str | None = None, *,
                progress: Count | None = None, **options: Any) -> Array:
    """Every item encoded and decoded, (n, \\*shape)."""
    from latlas.tasks import read

    return read.reconstruct(*both(run, data, split, options, "reconstruct"), progress=progress)


def denoise(run: Run, data: Items = None, split: str | None = None, *,
            progress: Count | None = None, **options: Any) -> Array:
    """The clean item behind every noisy one, (n, \\*shape)."""
    from latlas.tasks import read

    return read.denoise(*both(run, data, split, options, "denoise"), progress=progress)


def score(run: Run, data: Items = None, split: str | None = None, *, draws: int | None = None,
          method: str = "auto", seed: int = 0, precision: str = "auto",
          temperatures: int | None = None, leapfrog: int | None = None,
          observation_sd: float | None = None,
          progress: Count | None = None, **options: Any) -> Scores:
    """Log-likelihood of every item: ``.nats``, ``.se``, ``.ess``, ``.bits_per_dim``, ``.mean``.

    ``method`` is auto, exact, elbo, iw, naive or ais; see :func:`latlas.tasks.score.score`.
    """
    from latlas.tasks.score import score as score_items

    needed = "score" if observation_sd is None else "decode"
    model, items = both(run, data, split, options, needed)
    return score_items(model, items, draws=draws, method=method, seed=seed, precision=precision,
                       temperatures=temperatures, leapfrog=leapfrog,
                       observation_sd=observation_sd, progress=progress)


def write_parts(task: str, run: Run, data: Items = None, split: str | None = None, *,
                out: str | Path, shard: str = "1/1", block: int = 4096,
                source: dict[str, Any] | None = None, normal: Items = None,
                progress: Count | None = None, **options: Any) -> Written:
    """``score``, ``encode`` or ``outliers`` over one share of the items, as Parquet parts in a
    folder.

    The same call again writes the parts that are missing; all shards together hold what one call
    over everything gives.

    Args:
        shard: ``2/8`` is the second of eight.
        block: items of a part, a multiple of 512.
        source: options of the source; ``options`` are the task's own.
        normal: of ``outliers``, as there.
    """
    from latlas.api.items import normal_items, open_marked
    from latlas.tasks import shards

    share, what = shards.Shard.parse(shard), shards.verb(task)
    if what.ready:  # labels are of no use, and may be of other classes than the run's
        items, held = open_marked(run, data, split, **source or {})[0], normal_items(run, normal)
        model = model_of(run, None)
    else:
        held = None
        model, items = both(run, data, split, source or {}, what.capability)
    return shards.write_parts(task, model, items, out, share, block=block, normal=held,
                              progress=progress, **options)


def outliers(run: Run, data: Items = None, split: str | None = None, *, odd: str | None = None,
             false_alarms: float = 0.01, method: str = "auto", normal: Items = None,
             controls: bool = True, seed: int = 0, progress: Count | None = None,
             **options: Any) -> Outliers:
    """Which items do not belong: ``.score``, ``.flag``, ``.order``, ``.rankings()``.

    Args:
        data: with labels (items, 0 or 1), or a labelled source, the figures are computed too.
        odd: classes of ``data`` that are outliers, commas between; ``1`` where they are 0 and 1.
        false_alarms: the share of normal items that the threshold lets through by mistake.
        method: ``auto``, ``nats``, ``error`` or ``typicality``.
        normal: items that set the threshold; by default those the run held out while training.
        controls: also an isolation forest and probabilistic PCA, fitted to the training items.
    """
    from latlas.api.items import normal_items, open_marked
    from latlas.tasks.outliers import outliers as rank

    if method != "auto":
        from latlas.api.items import require
        require(run, {"nats": "score", "error": "reconstruct"}.get(method, "encode"), "outliers")
    items, marks = open_marked(run, data, split, odd=odd, **options)
    train = open_marked(run, None, "train")[0] if controls else None
    return rank(model_of(run, None), items, normal=normal_items(run, normal), train=train,
                odd=marks, false_alarms=false_alarms, method=method, seed=seed, progress=progress)


def classify(run: Run, data: Items = None, split: str | None = None, *,
             progress: Count | None = None, **options: Any) -> Array:
    """log p(class|x) of every item, (n, classes) float32, in the order of ``space.classes``."""
    from latlas.tasks.classify import classify as name

    return name(*both(run, data, split, options, "classify"), progress=progress)


def weights(run: Run, data: Items = None, split: str | None = None, *, method: str = "auto",
            within: str = "auto", share: float | None = None, clip: float | None = None,
            bins: int | None = None, alpha: float | None = None,
            progress: Count | None = None, **options: Any) -> ItemWeights:
    """How often each item should come, the rarer the more: ``.weight``, ``.rarity``.

    Args:
        data: by default the items the run was trained on; of a source that is named, all.
        method, within, share, clip, bins, alpha: see :func:`latlas.tasks.weights.weights`.
    """
    from latlas.tasks.weights import weights as weigh

    split = split or ("train" if data is None else "all")
    model, items = both(run, data, split, options, "encode")
    return weigh(model, items, method=method, within=within, share=share, clip=clip, bins=bins,
                 alpha=alpha, progress=progress)


def evaluate(run: Run, data: Items = None, split: str | None = None, *, draws: int = 100,
             features: Any = "auto", samples: int = 2000, seed: int = 0,
             metrics: Sequence[str] = (), factors: Sequence[str] = (), prior: str = "own",
             name: str = "", to: str = "B", cache: str | Path | None = None,
             progress: Count | None = None, **options: Any) -> Evaluation:
    """Every figure the model allows, on held-out data, with controls.

    Args:
        metrics: some groups only: likelihood, reconstruction, translation, classification, code,
            disentanglement, latent, samples.
        factors: names of the known factors that disentanglement is judged by.
        prior: ``fitted``: only the figures of samples, from the prior of :func:`fit_prior`.
        to: the domain that a model of two translates to.
        cache: folder that keeps what is known of the real items; of a run folder RUN/cache.
    """
    from latlas.tasks.evaluate import evaluate as evaluate_model

    model, test = both(run, data, split, options, None)
    train = training_items(run, data, options)
    return evaluate_model(model, train=train, test=test, draws=draws, features=features,
                          samples=samples, seed=seed, name=name or _name(run), prior=prior,
                          metrics=metrics, factors=factors, to=to, cache=_cache(run, cache),
                          progress=progress)


def evaluate_priors(run: Run, *args: Any, name: str = "", **settings: Any) -> list[Evaluation]:
    """:func:`evaluate`, and again with the fitted prior where there is one."""
    from latlas.tasks.generate import priors_of

    model = model_of(run, None)
    settings["cache"] = _cache(run, settings.get("cache"))
    found = [evaluate(model, *args, name=name or _name(run), **settings)]
    samples = "samples" in (settings.get("metrics") or ("samples",))
    for prior in priors_of(model)[1:] if samples else ():
        found.append(evaluate(model, *args, name=f"{found[0].name}, fitted prior", prior=prior,
                              **settings))
    return found


def _cache(run: Run, folder: str | Path | None) -> Path | None:
    """Where what is known of real items is kept: beside the run, unless told otherwise."""
    if folder is not None:
        return Path(folder)
    return Path(run) / "cache" if isinstance(run, (str, Path)) else None


def _name(run: Run) -> str:
    """The folder's name; a model is named by its class."""
    return Path(run).resolve().name if isinstance(run, (str, Path)) else ""


def compare(runs: Sequence[Run], data: Items = None, split: str | None = None, *,
            options: dict[str, Any] | None = None, **settings: Any) -> Comparison:
    """:func:`evaluate` of several runs on the same items: by default those of the first run.

    Args:
        options: of the source; ``settings`` those of :func:`evaluate`.
    """
    from latlas.api.items import default_split, known
    from latlas.tasks.compare import compare as tabulate

    source = open_source_for(runs[0], data, **(options or {}))
    split = split or default_split(source, known(runs[0]))
    settings["cache"] = _cache(runs[0], settings.get("cache"))
    return tabulate([e for run in runs
                     for e in evaluate_priors(run, source, split, **settings)])


def open_source_for(run: Run, data: Items = None, **options: Any) -> Source | PairSource:
    """The whole source, all splits, opened with the options that ``run`` was trained with."""
    from latlas.api.items import as_source, known

    return as_source(data, known(run), **options)


def write_report(run: str | Path, out: str | Path | None = None, data: Items = None, *,
                 draws: int = 100, samples: int = 2000, seed: int = 0,
                 to: str | None = None) -> Path:
    """One HTML file about a run, pictures inline; ``RUN/report.html`` by default.

    ``to`` chooses one of the domains that it translates to; by default each has its section.
    """
    from latlas.api.reporting import write

    path = Path(out) if out else Path(run) / "report.html"
    write([Path(run)], path, data, draws=draws, samples=samples, seed=seed, to=to)
    return path
