"""``evaluate``, ``compare``: how good runs are, on held-out data, with controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from latlas.core.errors import ConfigError, unknown
from latlas.metrics.table import GROUPS
from latlas.run import Run, as_run
from latlas.verbs.common import (
    DataLike,
    Domain,
    Flag,
    Out,
    Output,
    Progress,
    RunLike,
    Seed,
    Split,
    at_least,
    listed,
)
from latlas.verbs.comparison import Comparison, Evaluation, side_by_side

Draws = Annotated[int, Flag(int, "Draws of z per example for the importance-weighted bound.")]
Samples = Annotated[int, Flag(int, "Samples drawn to judge their quality, at most.")]
Features = Annotated[Any, Flag(
    str, "What sample quality is judged on: auto, classifier, random-conv, spectrum, pixels, "
         "columns, or a TorchScript file.")]
Groups = Annotated[Sequence[str] | None, Flag(
    str, f"Groups of metrics, with commas between: {', '.join(GROUPS)}. Default: all that apply.",
    listed)]
Factors = Annotated[Sequence[str] | None, Flag(
    str, "Names of the known factors that disentanglement is judged by, with commas between. "
         "Default: all but orientation.", listed)]
LatentsOf = Annotated[Literal["auto", "own", "fitted"], Flag(
    Literal["auto", "own", "fitted"],
    "Whose samples are judged: those of the model's own prior, or of the one of `latlas "
    "fit-prior`, of which nothing else is judged; auto: own, and fitted beside it where there is "
    "one.")]
#: a folder that keeps what is known of the real examples; by default RUN/cache
CacheFolder = Annotated[Any, Flag(None, "")]


def evaluate(run: RunLike, data: DataLike = None, *, split: Split = None, draws: Draws = 100,
             features: Features = "auto", samples: Samples = 2000, metrics: Groups = None,
             factors: Factors = None, latents: LatentsOf = "auto", to: Domain = "B",
             cache: CacheFolder = None, seed: Seed = 0,
             out: Annotated[Out, Output("", "The metrics: .json, .csv, .parquet, .npz.")] = None,
             progress: Progress | None = None, **read: Any) -> Evaluation:
    """How good is a run? Every metric the model allows on held-out data, each beside a control.

    Args:
        cache: Folder that keeps what is known of the real examples. Default: RUN/cache.
    """
    from latlas.verbs import write

    run = as_run(run)
    at_least("draws", draws, 1)
    at_least("samples", samples, 1)
    for group in metrics or ():
        if group not in GROUPS:
            raise ConfigError(unknown("group of metrics", group, GROUPS), option="metrics")
        run.require(GROUPS[group], group)
    write.check_suffix(out, Evaluation.suffixes)
    test, train = run.open(data, split, **read), run.training_examples(data, **read)
    from latlas.verbs.measures import measure
    from latlas.verbs.passes import latents_available

    model: Any = run.model
    options: dict[str, Any] = {
        "train": train, "test": test, "draws": draws, "features": features, "samples": samples,
        "seed": seed, "metrics": metrics or (), "factors": factors or (), "to": to,
        "cache": cache_of(run, cache), "progress": progress}
    result = measure(model, name=run.name, latents="own" if latents == "auto" else latents,
                     **options)
    if (latents == "auto" and "samples" in (metrics or GROUPS)
            and "fitted" in latents_available(model)):
        result = replace(result, fitted=measure(model, name=f"{run.name}, fitted prior",
                                                latents="fitted", **options))
    return result.saved(out)


def compare(runs: Annotated[Any, Flag(tuple[Path, ...], "Run folders.", several=True)],
            data: DataLike = None, *, split: Split = None, draws: Draws = 100,
            features: Features = "auto", samples: Samples = 2000, metrics: Groups = None,
            factors: Factors = None, latents: LatentsOf = "auto", to: Domain = "B",
            cache: CacheFolder = None, seed: Seed = 0,
            device: Annotated[str, Flag(str, "auto, cpu, cuda, cuda:1, mps.")] = "auto",
            out: Annotated[Out, Output("", "The table: .json, .csv, .parquet, .npz.")] = None,
            progress: Progress | None = None, **read: Any) -> Comparison:
    """Several runs in one table, on the same examples: by default those of the first run.

    Args:
        cache: Folder that keeps what is known of the real examples. Default: that of the first run.
    """
    from latlas.data.fitting import as_source, default_split
    from latlas.verbs import write

    if len(runs) < 2:
        raise ConfigError("compare needs two runs or more; `latlas evaluate RUN` is for one",
                          option="runs")
    write.check_suffix(out, Comparison.suffixes)
    opened = [Run(run, device=device) if isinstance(run, str | Path) else as_run(run)
              for run in runs]
    source = as_source(data, opened[0], **read)
    split = split or default_split(source, opened[0])  # type: ignore[assignment]
    evaluations = [evaluate(run, source, split=split, draws=draws, features=features,
                            samples=samples, metrics=metrics, factors=factors, latents=latents,
                            to=to, cache=cache_of(opened[0], cache), seed=seed, progress=progress)
                   for run in opened]
    return side_by_side([column for e in evaluations for column in e.columns]).saved(out)


def cache_of(run: Run, folder: str | Path | None = None) -> Path | None:
    """Where what is known of real examples is kept: in the run's folder, unless told otherwise."""
    if folder is not None:
        return Path(folder)
    return None if run.path is None else run.path / "cache"
