"""``score``: how probable a model finds each example, nats in data units, with standard errors;
and :class:`Scorer`, which scores or encodes batches in other processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from latlas.core.errors import CapabilityError, ConfigError, say_notes, say_option, unknown
from latlas.render.text import counted
from latlas.run import Run, as_run, observation_hint
from latlas.verbs import common
from latlas.verbs.common import Array, DataLike, Out, Output, Progress, RunLike, Seed, Split
from latlas.verbs.results import ShardParts

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.data.dataset import Dataset

#: draws of z per example where none are asked for
DRAWS = {"exact": 0, "elbo": 1, "iw": 100, "naive": 10_000, "ais": 16}
METHODS = {"auto": "", "exact": "exact", "elbo": "evidence lower bound",
           "iw": "importance-weighted bound", "naive": "naive sampling from the prior",
           "ais": "annealed importance sampling"}
#: a number that fewer effective draws than this carry is not to be relied on
RELIABLE_ESS = 10.0
#: what :class:`Scorer` does, and where it looks for examples when no column is named
VERBS, COLUMNS = ("encode", "outliers", "score"), ("x", "data", "example", "item", "image")
#: examples that a :class:`Scorer` takes at once where their values need no draws
TOGETHER = 512


@dataclass(eq=False, repr=False)
class Scores(common.Result):
    """Log-likelihoods per example.

    Attributes:
        nats: (n,) float64, log p(x) or a lower bound of it, in data units.
        se: (n,) standard error of ``nats`` over the draws; 0 if exact, NaN for one draw.
        ess: (n,) effective sample size of the draws; infinite if exact, NaN for ``elbo``.
        method: ``exact``, ``elbo``, ``iw``, ``naive`` or ``ais``.
        draws: of z for each example, 0 if exact; ``dims`` scalars in an example.
        base_measure: what the likelihood is of: ``integers``, ``data units``, …
        acceptance: of ``ais``: share of moves that were accepted, near 0.65 if all is well.
        names: (n,) of the examples' files, if they have any.
    """

    nats: Array
    se: Array
    ess: Array
    method: str
    draws: int
    dims: int
    base_measure: str | None
    acceptance: float = math.nan
    names: Any = None

    @property
    def bits_per_dim(self) -> Array:
        """−nats / (dims · log 2), per example."""
        return np.asarray(-self.nats / (self.dims * math.log(2)))

    @property
    def mean(self) -> float:
        """Average nats."""
        return float(self.nats.mean())

    @property
    def standard_error(self) -> float:
        """Of :attr:`mean`, over examples; NaN for a single one."""
        n = len(self.nats)
        return float(self.nats.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan

    @property
    def unreliable(self) -> Array:
        """(n,) bool: numbers that fewer than 10 effective draws carry."""
        return np.asarray(self.ess < RELIABLE_ESS)

    def columns(self) -> dict[str, Array]:
        """Of every example."""
        return {"nats": self.nats, "se": self.se, "bits_per_dim": self.bits_per_dim,
                "ess": self.ess, "unreliable": self.unreliable}

    def as_columns(self) -> dict[str, Any]:
        return {"example": common.titles(self.names, len(self.nats)), **self.columns()}

    def facts(self) -> dict[str, Any]:
        finite = np.isfinite(self.ess).all()
        return {"examples": len(self.nats), "method": self.method, "draws": self.draws,
                "nats": self.mean, "standard_error": self.standard_error,
                "bits_per_dim": float(self.bits_per_dim.mean()), "base_measure": self.base_measure,
                "se_median": float(np.median(self.se)) if self.draws > 1 else None,
                "ess_median": float(np.median(self.ess)) if finite else None,
                "acceptance": self.acceptance, "unreliable": int(self.unreliable.sum())}

    def text(self) -> str:
        facts, n = self.facts(), counted(len(self.nats), "example")
        how = METHODS[self.method] + (f", {counted(self.draws, 'draw')}" if self.draws else "")
        spread = f" ± {self.standard_error:.3f}" if len(self.nats) > 1 else ""
        lines = [f"log-likelihood {self.mean:.3f}{spread} nats per example ({how}; {n}; base "
                 f"measure: {self.base_measure or 'not stated'})"]
        if self.base_measure == "integers":
            lines.append(f"bits per dimension {facts['bits_per_dim']:.4f}")
        if facts["se_median"] is not None:
            lines.append("standard error of an example's log-likelihood over the draws: median "
                         f"{facts['se_median']:.3f} nats")
        if facts["ess_median"] is not None:
            lines.append(f"effective sample size: median {facts['ess_median']:.1f}; "
                         f"{counted(facts['unreliable'], 'example')} under 10")
        if self.method == "ais":
            lines.append(f"moves accepted: {self.acceptance:.1%}")
        return "\n".join(lines)


@common.verb
def score(run: RunLike, data: DataLike = None, *, split: Split = None,
          method: Literal["auto", "exact", "elbo", "iw", "naive", "ais"] = "auto",
          draws: Annotated[int | None, common.Bounds(1, 100_000_000)] = None,
          temperatures: Annotated[int | None, common.Bounds(1, 100_000_000)] = None,
          leapfrog: Annotated[int | None, common.Bounds(1, 1_000_000)] = None,
          observation_sd: Annotated[float | None, common.AMOUNT] = None,
          precision: Literal["fp32", "bf16"] = "fp32",
          n: common.FirstN = None, shard: common.Shard = None, block: common.BlockSize = 4096,
          seed: Seed = 0,
          out: Annotated[Out, Output("", "A row per example: .csv, .parquet, .npz; with --shard a "
                                         "folder.")] = None,
          progress: Progress | None = None, **read: Any) -> Scores | ShardParts:
    """Log-likelihood of every example, in nats and bits per dimension, with its standard error and
    effective sample size.

    elbo: E_q[log p(x|z)] − KL(q ‖ p), mean of K draws. iw: log 1/K Σ p(x, z_k)/q(z_k|x) (Burda et
    al. 2016, eq. 8), which rises to log p(x). naive: log 1/K Σ p(x|z_k) with z_k from the prior,
    the same for all examples of a batch. ais: annealed importance sampling (Neal 2001) from the
    prior by Hamiltonian Monte Carlo, which needs no encoder. All are lower bounds in expectation;
    the last three are logarithms of unbiased estimates.

    Args:
        method: auto: exact where the model can, else iw; ais with --observation-sd.
        draws: Draws of z per example (chains of ais). Default: 100 for iw, 10,000 for naive, 16
            chains for ais, 1 for elbo.
        temperatures: ais: steps from the prior to the posterior. Default: 1,000.
        leapfrog: ais: leapfrog steps at each temperature. Default: 10.
        observation_sd: For a decoder without a likelihood, by ais or naive: standard deviation of
            x around decode(z), in model units.
        precision: Of the networks. bf16 moves the mean of iw by less than 0.01 nats, an example by
            about 0.06; sums are fp32 or wider in any case.

    Raises:
        CapabilityError: a model without a likelihood, or without the method asked for.
    """
    from latlas.verbs import shards

    run = as_run(run)
    run.require("score" if observation_sd is None else "decode", "score")
    shards.check_output(shard, out, block)
    examples = run.open(data, split, **read).subset(slice(0, n))
    model = run.model
    options: dict[str, Any] = {
        "method": method, "draws": draws, "temperatures": temperatures, "leapfrog": leapfrog,
        "observation_sd": observation_sd, "precision": precision, "seed": seed}
    if shard is None:
        return scored(model, examples, progress=progress, **options).saved(out)
    return shards.write_parts(
        "score", model, examples, lambda part, count: scored(
            model, part, progress=count, **options).columns(),
        shard=shard, out=out, block=block, progress=progress, **options)


def scored(model: Model, data: Dataset, *, method: str = "auto", draws: int | None = None,
           temperatures: int | None = None, leapfrog: int | None = None,
           observation_sd: float | None = None, precision: str = "fp32", seed: int = 0,
           progress: Progress | None = None) -> Scores:
    """:func:`score` of a model; ``progress`` counts examples, times draws with ``naive`` and
    temperatures with ``ais``."""
    from latlas.core.devices import autocast, keep_freed_memory
    from latlas.verbs.estimators import GaussianObservation, Settings, estimates
    from latlas.verbs.passes import base_measure_of, inference

    method = method_of(model, method, observation_sd)
    annealing = {k: v for k, v in (("temperatures", temperatures), ("leapfrog", leapfrog))
                 if v is not None}
    if annealing and method != "ais":
        option = next(iter(annealing))
        raise ConfigError(f"{say_option(option)} belongs to {say_option('method', 'ais')}, not to "
                          f"{method}", option=option)
    for option, value in {"draws": draws, **annealing}.items():
        if value is not None:
            common.POSITIVE.check(option, value)
    settings = Settings(DRAWS[method] if draws is None or method == "exact" else draws,
                        **annealing)
    observes: Any = model if observation_sd is None else GaussianObservation(model, observation_sd)
    keep_freed_memory()
    with inference(model, gradients=method == "ais"), autocast(model.device, precision):
        parts = list(estimates(model, observes, data, method, settings, seed, progress))
    nats, se, ess = (np.concatenate([getattr(part, key).double().cpu().numpy() for part in parts])
                     for key in ("nats", "se", "ess"))
    acceptance = math.nan if method != "ais" else float(np.concatenate(
        [part.acceptance.double().cpu().numpy() for part in parts]).mean())  # type: ignore[union-attr]
    measure = base_measure_of(model) if observation_sd is None else observes.base_measure
    return Scores(nats, se, ess, method, settings.draws, model.space.dims, measure, acceptance,
                  data.take("names"))


def method_of(model: Model, method: str, observation_sd: float | None = None) -> str:
    """The estimator that ``auto`` stands for; refuses one that this model cannot be scored by."""
    from latlas.core.model import BoundsDensity, Decodes, Encodes, Observes
    from latlas.verbs.passes import can

    name = type(model).__name__.lower()
    common.one_of("method", method, METHODS)
    if observation_sd is not None:
        if not 0 < observation_sd < math.inf:
            raise ConfigError(f"{say_option('observation_sd', observation_sd)}: a standard "
                              "deviation is above 0", option="observation_sd")
        if can(model, "score"):
            raise ConfigError(f"{name} has a likelihood of its own; leave out "
                              f"{say_option('observation_sd')}", option="observation_sd")
        if not isinstance(model, Decodes) or model.prior is None:
            raise CapabilityError(f"{name} has no decoder with a prior; "
                                  f"{say_option('observation_sd')} needs both")
        if method not in ("auto", "naive", "ais"):
            raise CapabilityError(f"{say_option('method', method)} needs a likelihood; with "
                                  f"{say_option('observation_sd')} use "
                                  f"{say_option('method', 'ais')} or naive")
        return "ais" if method == "auto" else method
    if not can(model, "score"):
        raise CapabilityError(f"{name} has no likelihood. {observation_hint()}")
    if method == "auto":
        return "exact" if model.exact_likelihood else "iw"
    decoder = isinstance(model, Observes) and model.prior is not None
    proposes = not model.exact_likelihood or (decoder and isinstance(model, Encodes))
    able, what = {"exact": (model.exact_likelihood, "exact likelihood"),
                  "elbo": (isinstance(model, BoundsDensity), "ELBO"),
                  "iw": (proposes, "q(z|x) to draw from"),
                  "naive": (decoder, "p(x|z) with a prior"),
                  "ais": (decoder, "p(x|z) with a prior")}[method]
    if not able:
        raise CapabilityError(f"{name} has no {what}; use {say_option('method', 'auto')}",
                              option="method")
    return method


class Scorer:
    """A run that takes a batch, a dictionary of arrays, and gives one: for Ray, Spark, a pool.

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
        device: ``auto``, ``cpu``, ``cuda``, …; ``model`` as of :func:`latlas.load`.
        options: of the verb (``method="iw", draws=100, seed=0``).
    """

    def __init__(self, run: str | Path, verb: str = "score", *, column: str | None = None,
                 label: str | None = None, keep: tuple[str, ...] = (), together: int = 1,
                 device: str = "auto", model: str | None = None, **options: Any) -> None:
        if together < 1:
            raise ConfigError(f"{say_option('together', together)}: at least 1", option="together")
        self.path, self.verb, self.column, self.label = str(run), verb, column, label
        self.keep, self.together, self.device = tuple(keep), together, device
        self.model, self.options = model, options

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("run", "normality")}

    @cached_property
    def run(self) -> Run:
        """Opened once a process."""
        run = Run(self.path, device=self.device, model=self.model)
        if self.verb in ("score", "encode"):
            run.require(self.verb)
        elif self.verb not in VERBS:
            raise ConfigError(unknown("verb", self.verb, VERBS))
        return run

    @cached_property
    def normality(self) -> Any:
        """What is outlying, by the run's held-out examples; worked out once a process."""
        from latlas.verbs.outlier_data import open_with_truth
        from latlas.verbs.outliers import method_of, normality_of

        run, options = self.run, {"fpr": 0.01, **self.options}
        options["method"] = method_of(run, self.options.get("method", "auto"))
        lenient = options["method"] == "ensemble"
        train = None
        if lenient or options.get("contamination") is not None:
            train = open_with_truth(run, None, "train", lenient=lenient).examples
        return normality_of(run, train, open_with_truth(
            run, None, "validation", lenient=lenient).examples, **options)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Results of every example, (n,) each, after the columns that are kept. ConfigError: no
        such column, or none that is known to hold examples."""
        from latlas.core.noise import derive
        from latlas.data.keys import digest_of
        from latlas.verbs.passes import encoded

        model, options = self.run.model, dict(self.options)
        examples = self._examples(batch)
        draws = self.verb == "score" and not (
            model.exact_likelihood and options.get("method", "auto") in ("auto", "exact"))
        size, parts = self.together if draws else TOGETHER, []
        for rows in (slice(i, i + size) for i in range(0, len(examples), size)):
            label = None if examples.label is None else examples.label[rows]
            part = replace(examples, x=examples.x[rows], label=label)  # its rows count from 0
            if self.verb == "encode":
                parts.append({f"z{i}": z for i, z in enumerate(encoded(model, part).T)})
            elif self.verb == "outliers":
                parts.append(self.normality.columns(part, None))
            else:
                if draws:  # the seed is the examples' own: any batch gives them the same draws
                    content = digest_of(np.asarray(part.x, np.float32))  # of whatever type
                    options["seed"] = derive(self.options.get("seed", 0), "scorer", content)
                parts.append(scored(model, part, **options).columns())
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**{name: _column(batch, name) for name in self.keep}, **joined}

    def _examples(self, batch: Mapping[str, Any]) -> Dataset:
        """Those of a batch; for the ensemble a table's rows unfilled, with gaps and new words,
        as the verb reads them."""
        from latlas.data.frames import Frame
        from latlas.data.tables import as_frame, numbers_of
        from latlas.verbs.normality import Normality

        own = [c.name for c in getattr(self.run.space, "fields", ()) if c.learnt]
        x: Any
        if self.column is None and own and set(own) <= set(batch):
            x = as_frame({name: _column(batch, name) for name in own})
            if self.verb == "outliers" and not isinstance(self.normality, Normality):
                space: Any = self.run.space
                data = numbers_of(Frame(x), space.fields, "the batch", fill=False, lenient=True)
                say_notes(data.notes)
                return replace(data, space=space)
        else:
            name = self.column or next((name for name in COLUMNS if name in batch), None)
            if name is None:
                raise ConfigError(f"no column of {', '.join(batch)} is known to hold examples: "
                                  f"name it with {say_option('column', '…')}", option="column")
            x = _column(batch, name)
        return self.run.open(x if self.label is None else (x, _column(batch, self.label)))


def _column(batch: Mapping[str, Any], name: str) -> Any:
    """A column as one array: rows that are arrays or lists of their own are stacked."""
    if name not in batch:
        raise ConfigError(f"no column {name!r} in the batch; it has {', '.join(batch)}")
    values = np.asarray(batch[name])
    nested = values.dtype == object and len(values) and not isinstance(values[0], str)
    return np.stack([np.asarray(v) for v in values]) if nested else values
