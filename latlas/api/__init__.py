"""The verbs as functions: data in, NumPy arrays out, in the units of the file.

Every function takes a run folder or a model, and data as a source's name, a file or folder, an
array (n, \\*shape), a pair (items, labels), or what :func:`open_data` returns. What a model cannot
do is said before any data is read. torch is imported when a verb is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.api.scorer import Scorer
from latlas.core.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latlas.api.priors import Fitted
    from latlas.api.training import Trained
    from latlas.core.model import Model
    from latlas.data.dataset import Dataset
    from latlas.data.source import Source
    from latlas.tasks.compare import Comparison
    from latlas.tasks.evaluate import Evaluation
    from latlas.tasks.outliers import Outliers
    from latlas.tasks.project import Projection
    from latlas.tasks.score import Scores
    from latlas.tasks.shards import Written
    from latlas.tasks.styles import Directions

Array = Any  # NDArray in the file's units
Run = Any  # a run folder (str, Path) or a Model
Items = Any  # str, Path, array, (array, labels), Dataset or Source
Count = Callable[[int, int], None]  # called with (items done, items in all)

__all__ = ["Scorer", "compare", "decode", "denoise", "directions", "edit", "encode", "evaluate",
           "fit_prior", "interpolate", "list_models", "load", "mix", "open_data", "outliers",
           "project", "reconstruct", "sample", "score", "train", "traverse", "write_parts",
           "write_report"]


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
            (``latent_dim=32, minutes=5``).

    Raises:
        LatlasError: in one line what is wrong with a setting, the data or the run folder.
    """
    from latlas.api.items import as_source
    from latlas.api.training import execute, parts, plan

    asked = plan(model, settings, split=split, start=start)
    networks = {k: v for k, v in (("encoder", encoder), ("decoder", decoder)) if v is not None}
    source = as_source(data)
    done = execute(asked, parts(source, split), None if out is None else Path(out), progress,
                   networks)
    _remember(done.model, source.spec)
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
    return _remember(model, run_info(run).data)


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


def sample(run: Run, n: int = 16, *, seed: int = 0, seeds: Sequence[int] | None = None,
           label: Any = None, given: Items = None, mean: bool | None = None, prior: str = "auto",
           truncation: float = 1.0) -> Array:
    """``n`` new items, (n, \\*shape).

    Args:
        seeds: one item of each, whatever ``n`` and ``seed`` are.
        label: for a conditional model: a class name, or several that take turns.
        given: for a model of a part of the picture: the pictures to complete, taking turns.
        mean: the mean of p(x|z), or a draw from it. By default pictures are means, tables and
            points are drawn.
        prior: the model's ``own``, the one ``fitted`` to its codes by :func:`fit_prior`, or
            ``auto``: the fitted one where there is one.
        truncation: ψ, how far styles are taken from their mean: below 1 more likely pictures and
            less varied ones; of a model that has styles.
    """
    from latlas.api.items import require_styles
    from latlas.tasks import generate

    require_styles(run, "sample truncation", truncation != 1)
    model = _model(run, "sample")
    settings: Any = {"mean": mean, "prior": prior, "truncation": truncation}
    if seeds is not None:
        settings["condition"] = _condition(model, len(seeds), label, given)
        return generate.sample_seeds(model, seeds, **settings)
    condition = _condition(model, n, label, given)
    return generate.sample(model, n, seed=seed, condition=condition, **settings)


def decode(run: Run, codes: Any, *, label: Any = None, given: Items = None) -> Array:
    """The item at each code (n, latent_dim); ``label`` and ``given`` as for :func:`sample`."""
    from latlas.tasks import generate

    model = _model(run, "decode")
    return generate.decode(model, codes, condition=_condition(model, len(codes), label, given))


def interpolate(run: Run, start: Any, end: Any, *, steps: int = 8, path: str = "line",
                space: str = "z", label: Any = None, given: Items = None) -> Array:
    """Items on the way from one code to another, (steps, \\*shape); ``path`` line or circle.

    ``space`` w goes from the style of the first to that of the last. ``label`` as for
    :func:`sample`; of the pictures ``given`` the first serves the whole way.
    """
    from latlas.api.items import require_styles
    from latlas.tasks import generate

    require_styles(run, "interpolate space=w", space == "w")
    model = _model(run, "decode", "interpolate")
    condition = _condition(model, 1 if given is not None else steps, label, given)
    return generate.interpolate(model, start, end, steps, path,  # type: ignore[arg-type]
                                space=space, condition=condition)


def traverse(run: Run, *, code: Any = None, dims: Sequence[int] | None = None, span: float = 3.0,
             steps: int = 7, codes: Any = None, label: Any = None,
             given: Items = None) -> Array:
    """One dimension of the code varied at a time, (len(dims), steps, \\*shape).

    Args:
        codes: (n, latent_dim) of data, which set centre, spans, and most active dimension first.
        label: as for :func:`sample`; of the pictures ``given`` the first serves every step.
    """
    from latlas.tasks import generate

    model = _model(run, "decode", "traverse")
    n = (model.latent_dim if dims is None else len(dims)) * steps
    condition = _condition(model, 1 if given is not None else n, label, given)
    return generate.traverse(model, code=code, dims=dims, span=span, steps=steps, codes=codes,
                             condition=condition)


def project(run: Run, data: Items = None, split: str | None = None, *, starts: int = 8,
            steps: int = 200, space: str = "auto", features: Any = None, seed: int = 0,
            progress: Count | None = None, **options: Any) -> Projection:
    """The code whose decoded item is nearest to each given one, by descent on the code.

    ``.codes``, ``.items``, ``.error`` beside ``.nearest``, that of the nearest training item, and
    ``.way``, what was decoded on the way; see :func:`latlas.tasks.project.project`.
    """
    from latlas.api.items import require_styles
    from latlas.tasks.project import project as find

    require_styles(run, "project space=w", space == "w")
    model, items = _both(run, data, split, options, "decode")
    return find(model, items, train=_training_items(run, data, options), starts=starts,
                steps=steps, space=space, features=features, seed=seed, progress=progress)


def mix(run: Run, rows: Sequence[int], columns: Sequence[int], *, layers: str = "coarse",
        truncation: float = 1.0) -> Array:
    """The picture of each seed of ``rows`` with some styles of each of ``columns``,
    (rows + 1, columns + 1, \\*shape): first row and column are the pictures themselves.

    ``layers``: coarse, middle, fine, or numbers of layers (``0-3,6``).
    """
    from latlas.tasks import styles

    return styles.mix(_model(run, "mix"), rows, columns, layers=layers,
                      truncation=truncation)


def directions(run: Run, k: int | None = None, *, data: Items = None, split: str | None = None,
               label: Any = None, seed: int = 0, **options: Any) -> Directions:
    """Directions of the codes, or styles, in which items change most: ``.axes``, ``.share``.

    ``k`` is 8, or all of fewer, by default; ``data`` are encoded where the model has an encoder
    and no styles; ``label`` is the class that is decoded by a conditional model.
    """
    from latlas.tasks import styles

    model = _model(run, "decode", "directions")
    items = None if data is None else open_data(data, split, like=run, **options)
    return styles.directions(model, k, data=items, seed=seed, condition=_one(model, label))


def edit(run: Run, found: Directions, *, seed: int | None = None, steps: int = 7,
         span: float = 3.0, layers: str = "all", label: Any = None) -> Array:
    """One direction of :func:`directions` at a time, (k, steps, \\*shape), around the item of
    ``seed`` or the mean; ``layers`` are the styles that change, ``label`` as there."""
    from latlas.api.items import require_styles
    from latlas.tasks import styles

    require_styles(run, "edit layers", layers != "all")
    model = _model(run, "decode", "edit")
    return styles.edits(model, found, seed=seed, steps=steps, span=span, layers=layers,
                        condition=_one(model, label))


def encode(run: Run, data: Items = None, split: str | None = None, *,
           progress: Count | None = None, **options: Any) -> NDArray[np.float32]:
    """The mean code of every item, (n, latent_dim) float32."""
    from latlas.tasks import read

    return read.encode(*_both(run, data, split, options, "encode"), progress=progress)


def reconstruct(run: Run, data: Items = None, split: str | None = None, *,
                progress: Count | None = None, **options: Any) -> Array:
    """Every item encoded and decoded, (n, \\*shape)."""
    from latlas.tasks import read

    return read.reconstruct(*_both(run, data, split, options, "reconstruct"), progress=progress)


def denoise(run: Run, data: Items = None, split: str | None = None, *,
            progress: Count | None = None, **options: Any) -> Array:
    """The clean item behind every noisy one, (n, \\*shape)."""
    from latlas.tasks import read

    return read.denoise(*_both(run, data, split, options, "denoise"), progress=progress)


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
    model, items = _both(run, data, split, options, needed)
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
        model = _model(run, None)
    else:
        held = None
        model, items = _both(run, data, split, source or {}, what.capability)
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
    return rank(_model(run, None), items, normal=normal_items(run, normal), train=train, odd=marks,
                false_alarms=false_alarms, method=method, seed=seed, progress=progress)


def evaluate(run: Run, data: Items = None, split: str | None = None, *, draws: int = 100,
             features: Any = "auto", samples: int = 2000, seed: int = 0,
             metrics: Sequence[str] = (), factors: Sequence[str] = (), prior: str = "own",
             name: str = "", cache: str | Path | None = None, progress: Count | None = None,
             **options: Any) -> Evaluation:
    """Every figure the model allows, on held-out data, with controls.

    Args:
        metrics: some groups only: likelihood, reconstruction, code, disentanglement, latent,
            samples.
        factors: names of the known factors that disentanglement is judged by.
        prior: ``fitted``: only the figures of samples, from the prior of :func:`fit_prior`.
        cache: folder that keeps what is known of the real items; of a run folder RUN/cache.
    """
    from latlas.tasks.evaluate import evaluate as evaluate_model

    model, test = _both(run, data, split, options, None)
    train = _training_items(run, data, options)
    return evaluate_model(model, train=train, test=test, draws=draws, features=features,
                          samples=samples, seed=seed, name=name or _name(run), prior=prior,
                          metrics=metrics, factors=factors, cache=_cache(run, cache),
                          progress=progress)


def evaluate_priors(run: Run, *args: Any, name: str = "", **settings: Any) -> list[Evaluation]:
    """:func:`evaluate`, and again with the fitted prior where there is one."""
    from latlas.tasks.generate import priors_of

    model = _model(run, None)
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


def _training_items(run: Run, data: Items, options: dict[str, Any]) -> Dataset:
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


def compare(runs: Sequence[Run], data: Items = None, split: str | None = None, *,
            options: dict[str, Any] | None = None, **settings: Any) -> Comparison:
    """:func:`evaluate` of several runs on the same items: by default those of the first run.

    Args:
        options: of the source; ``settings`` those of :func:`evaluate`.
    """
    from latlas.tasks.compare import compare as tabulate

    source = open_source_for(runs[0], data, **(options or {}))
    settings["cache"] = _cache(runs[0], settings.get("cache"))
    return tabulate([e for run in runs
                     for e in evaluate_priors(run, source, split, **settings)])


def open_source_for(run: Run, data: Items = None, **options: Any) -> Source:
    """The whole source, all splits, opened with the options that ``run`` was trained with."""
    from latlas.api.items import as_source, known

    return as_source(data, known(run), **options)


def write_report(run: str | Path, out: str | Path | None = None, data: Items = None, *,
                 draws: int = 100, samples: int = 2000, seed: int = 0) -> Path:
    """One HTML file about a run, pictures inline; ``RUN/report.html`` by default."""
    from latlas.api.reporting import write

    path = Path(out) if out else Path(run) / "report.html"
    write([Path(run)], path, data, draws=draws, samples=samples, seed=seed)
    return path


def _remember(model: Model, spec: Any) -> Model:
    """So that tasks find the data a model was trained on without being told."""
    model.trained_on = spec
    return model


def _model(run: Run, capability: str | None, task: str | None = None) -> Model:
    """The model of a run, after the check that it can do the task."""
    from latlas.api.items import require

    if capability is not None:
        require(run, capability, task)
    return load(run) if isinstance(run, (str, Path)) else run


def _both(run: Run, data: Items, split: str | None, options: dict[str, Any],
          capability: str | None) -> tuple[Model, Dataset]:
    """Model and items: capability first, then the data, then the weights."""
    from latlas.api.items import require

    if capability is not None:
        require(run, capability)
    items = open_data(data, split, like=run, **options)
    return _model(run, None), items


def _condition(model: Model, n: int, label: Any, given: Items = None) -> Any:
    """What a conditional model is given for each of ``n`` items; ``None`` if nothing was named."""
    import numpy as np

    if label is None and given is None:
        return None
    _must_take(model, "label" if given is None else "given")
    if given is not None:
        return _parts(model, n, given)
    from latlas.api.items import class_codes

    return np.resize(class_codes(model.space, label), n)


def _one(model: Model, label: Any) -> Any:
    """One class for all items; ``None`` if none was named."""
    if isinstance(label, (list, tuple)) and len(label) != 1:
        raise ConfigError(f"label={','.join(map(str, label))}: name one class for all items")
    return _condition(model, 1, label)


def _must_take(model: Model, option: str) -> None:
    """Raise CapabilityError if the model is not conditioned on what an option names."""
    name, takes = type(model).__name__, "none"
    if getattr(model, "condition_dim", 0):
        takes = "given" if getattr(model.config, "condition", "") == "part" else "label"
    if takes == "none":
        raise CapabilityError(f"{name} is not conditional; leave out `{option}`, or train a model "
                              "that is: conditional-gan, conditional-vae")
    if takes != option:
        raise CapabilityError(f"this {name} is conditioned on {_TAKEN[takes]}: name it with "
                              f"`{takes}`, not `{option}`")


#: what the options of a conditional model name
_TAKEN = {"label": "a label", "given": "a part of a picture"}


def _parts(model: Model, n: int, given: Items) -> Any:
    """The known part of each of ``n`` pictures, (n, C + 1, H, W)."""
    from latlas.data.batches import Sweep
    from latlas.tasks.common import condition_of

    items = open_data(given, like=model)
    rows = [i % len(items) for i in range(n)]
    batch = next(iter(Sweep(items.subset(rows), n)))  # type: ignore[arg-type]
    return condition_of(model, batch)["condition"]
