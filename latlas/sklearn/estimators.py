"""scikit-learn estimators on tables: fit, transform, inverse_transform, score_samples, sample.

    make_pipeline(SimpleImputer(), VAE(n_components=8, minutes=1)).fit(X)

The models are those of the command line. What a fitted estimator says of a row depends on that
row alone: rows are processed in batches of one fixed size, and every row meets the same draws.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from latlas.core.errors import LatlasError, say_notes
from latlas.core.model import Model
from latlas.core.noise import SharedNoise, derive
from latlas.core.space import Table
from latlas.data.dataset import Dataset
from latlas.learning import learn
from latlas.metrics.scales import deviation, standardised
from latlas.models import get
from latlas.training import Plan, TrainingData, plan_of
from latlas.verbs.passes import drawn_examples

Array = NDArray[Any]
Method = TypeVar("Method", bound=Callable[..., Any])
#: rows of a batch; short batches are filled up, so that a row's result never depends on its batch
ROWS = 256
#: held-out rows below which early choice of weights is not worth the rows
FEWEST_HELD_OUT = 20
#: standard deviations beyond which a value is cut: its square is far from float32's largest
FARTHEST = 1e15
#: rows by which it is seen whether a column's values can still be told apart
COMPARED = 1000


def _available(capability: str) -> Callable[[Method], Method]:
    """A method that estimators have only where their model can."""
    return available_if(lambda estimator: capability in get(estimator.model).provides)


class LatentModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Any latlas model as an estimator on a table of numbers.

    Args:
        model: a name that ``latlas models`` lists.
        n_components: number of latent dimensions; ``None`` chooses from the number of columns.
        images, epochs, minutes: training budget, at most one; ``None`` is automatic.
        validation_fraction: share of the rows held out to keep the best weights by; not used
            where that is fewer than 20 rows, nor by ``pca``.
        draws: of the latents per row, for the likelihood of models without an exact one.
        settings: any other setting of the model or of training, name to value.
        random_state: decides weights, order and draws.

    Attributes:
        model_: the trained model, on rows standardised by ``mean_`` and ``scale_``, constant
            columns by 1, and cut at 10¹⁵ standard deviations;
            ``n_features_in_``, ``feature_names_in_`` as in scikit-learn.

    Raises:
        ValueError: from ``fit``: an unknown model or setting, or data that do not suit it.
    """

    def __init__(self, model: str = "vae", *, n_components: int | None = None,
                 images: int | None = None, epochs: float | None = None,
                 minutes: float | None = None, validation_fraction: float = 0.1,
                 draws: int = 100, settings: dict[str, Any] | None = None,
                 random_state: Any = None) -> None:
        self.model = model
        self.n_components = n_components
        self.images = images
        self.epochs = epochs
        self.minutes = minutes
        self.validation_fraction = validation_fraction
        self.draws = draws
        self.settings = settings
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Train on the rows of ``X`` (n, d), which are standardised inside."""
        least = 2 if self.model == "pca" else 1  # PCA leaves at least one direction to noise
        x = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2,
                          ensure_min_features=least).astype(np.float64)
        own = {"latent_dim": self.n_components, "images": self.images, "epochs": self.epochs,
               "minutes": self.minutes}
        # one thread and fp32 unless set: what is chosen by timing may differ between two fits
        settings = {"precision": "fp32", "threads": 1, "device": "cpu",
                    "seed": seed_of(self.random_state), **(self.settings or {}),
                    **{k: v for k, v in own.items() if v is not None}}
        with as_value_error():
            plan = plan_of(self.model, settings, split="all", origin=type(self).__name__)
            order = np.random.default_rng(seed_of(self.random_state)).permutation(len(x))
            n = int(self.validation_fraction * len(x))
            n = n if n >= FEWEST_HELD_OUT and self.model != "pca" else 0
            train = x[order[n:]]  # the rows to train on decide the units
            whole = np.frexp(np.abs(train).max(0))[1]  # powers of two: nothing is rounded
            self.mean_ = np.ldexp(np.ldexp(train, -whole).mean(0), whole)
            scale = deviation(train, self.mean_)
            self.scale_ = np.where(scale > 0, scale, 1.0)
            standard = standardised(x, self.mean_, self.scale_, FARTHEST)
            say_what_collapses(X, x, standard)
            data = table(standard)
            parts = TrainingData(data.subset(np.sort(order[n:])),
                                 data.subset(order[:n]) if n else None)
            self.model_: Any = trained(plan, parts).cpu()
        self._n_features_out = self.model_.latent_dim
        return self

    def transform(self, X: ArrayLike) -> Array:
        """The mean latents of every row, (n, n_components)."""
        rows, dtype = self._standardised(X)
        latents = in_batches(rows, lambda batch: self.model_.encode(batch).mean)
        return latents.numpy().astype(dtype)

    @_available("decode")
    def inverse_transform(self, X: ArrayLike) -> Array:
        """The row at every latent vector, (n, n_features_in_)."""
        check_is_fitted(self)
        z = check_array(X, dtype=[np.float64, np.float32])
        if z.shape[1] != self._n_features_out:
            raise ValueError(f"the latents have {z.shape[1]} columns, the model's "
                             f"{self._n_features_out}")
        rows = in_batches(torch.from_numpy(z.astype(np.float32)),
                          lambda latents: self.model_.decode(latents).mean)
        x: Array = rows.numpy() * self.scale_ + self.mean_
        # columns may be larger than float32's largest
        return x.astype(z.dtype) if np.abs(x).max() < np.finfo(z.dtype).max else x

    @_available("score")
    def score_samples(self, X: ArrayLike) -> Array:
        """Log-likelihood of every row (or a lower bound of it) in nats, (n,)."""
        rows, _ = self._standardised(X)
        nats = in_batches(rows, log_likelihood(self.model_, "score_samples", self.draws))
        return nats.numpy().astype(np.float64) - np.log(self.scale_).sum()

    @_available("score")
    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean of :meth:`score_samples`: higher is better."""
        return float(np.mean(self.score_samples(X)))

    @_available("sample")
    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """New rows, (n_samples, n_features_in_); by default the estimator's own random state."""
        check_is_fitted(self)
        state = self.random_state if random_state is None else random_state
        with as_value_error():
            rows = drawn_examples(self.model_, n_samples, seed=seed_of(state))
        return rows * self.scale_ + self.mean_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _standardised(self, X: ArrayLike) -> tuple[Tensor, Any]:
        """The rows of ``X`` as the model takes them, and their dtype."""
        check_is_fitted(self)
        x: Array = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return torch.from_numpy(standardised(x, self.mean_, self.scale_, FARTHEST)), x.dtype


class PCA(LatentModel):
    """Probabilistic PCA: exact likelihood, closed form."""

    def __init__(self, n_components: int | None = None, *, settings: dict[str, Any] | None = None,
                 random_state: Any = None) -> None:
        super().__init__("pca", n_components=n_components, settings=settings,
                         random_state=random_state)


class AE(LatentModel):
    """Autoencoder: squared error through a bottleneck; no likelihood."""

    def __init__(self, n_components: int | None = None, *, images: int | None = None,
                 epochs: float | None = None, minutes: float | None = None,
                 validation_fraction: float = 0.1, settings: dict[str, Any] | None = None,
                 random_state: Any = None) -> None:
        super().__init__("ae", n_components=n_components, images=images, epochs=epochs,
                         minutes=minutes, validation_fraction=validation_fraction,
                         settings=settings, random_state=random_state)


class VAE(LatentModel):
    """Variational autoencoder: latents, samples, and a bound on the likelihood."""

    def __init__(self, n_components: int | None = None, *, images: int | None = None,
                 epochs: float | None = None, minutes: float | None = None,
                 validation_fraction: float = 0.1, draws: int = 100,
                 settings: dict[str, Any] | None = None, random_state: Any = None) -> None:
        super().__init__("vae", n_components=n_components, images=images, epochs=epochs,
                         minutes=minutes, validation_fraction=validation_fraction, draws=draws,
                         settings=settings, random_state=random_state)


def trained(plan: Plan, parts: TrainingData) -> Model:
    """The model of a plan trained to its end; Ctrl-C ends the caller too."""
    run = learn(plan, parts, progress=False)
    if run.outcome is not None and run.outcome.stopped == "interrupt":
        raise KeyboardInterrupt
    return run.model


def in_batches(rows: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """``of`` over batches of exactly :data:`ROWS` rows, the last one filled up with zeros."""
    parts = []
    with torch.inference_mode():
        for part in rows.split(ROWS):
            full = part.new_zeros(ROWS, *part.shape[1:])
            full[:len(part)] = part
            parts.append(of(full)[:len(part)])
    return torch.cat(parts)


def log_likelihood(model: Any, name: str, draws: int) -> Callable[[Tensor], Tensor]:
    """log p(x) of a batch, nats; every row meets the same draws."""
    def of(batch: Tensor) -> Tensor:
        return model.log_likelihood(batch, noise=SharedNoise(derive(name)), draws=draws)[0]
    return of


def say_what_collapses(raw: Any, x: Array, standard: Array) -> None:
    """Name the columns most of whose distinct values are no longer told apart, as they were given,
    in float64 ``x`` or in float32 ``standard``, (n, d) each."""
    rows = np.unique(np.linspace(0, len(x) - 1, COMPARED).astype(np.int64))
    names = list(getattr(raw, "columns", range(x.shape[1])))
    columns = [raw[name] for name in names] if hasattr(raw, "columns") else np.asarray(raw).T
    lost = []
    for name, column, before, after in zip(names, map(np.asarray, columns), x[rows].T,
                                           standard[rows].T, strict=True):
        before = column[rows] if column.dtype.kind in "iu" else before  # some are beyond 2⁵³
        if 2 * len(np.unique(after)) <= len(np.unique(before)):
            lost.append(str(name))
    if lost:
        say_notes([f"most distinct values of column{'s' * (len(lost) > 1)} {', '.join(lost)} are "
                   "equal once they are standardised in float32; scale or leave out what is wild"])


def table(rows: Array) -> Dataset:
    """(n, d) float32 as a data set of numbers."""
    names = tuple(f"x{i}" for i in range(rows.shape[1]))
    return Dataset(rows, Table.of_numbers(names))


def seed_of(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextmanager
def as_value_error() -> Iterator[None]:
    """scikit-learn's callers expect a ValueError for parameters and data that do not fit."""
    try:
        yield
    except LatlasError as error:
        raise ValueError(str(error)) from error
