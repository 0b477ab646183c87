"""How rare examples are by their latents, and weights by which rare ones come more often.

Densities are histograms of each standardised latent dimension, Q̂_i; weights are the inverse of
their product (Amini et al. 2019, eq. 3) or of the least of them, or grow with the loss of an
example and of those like it. α tempers them until enough of the examples still count.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from latlas.core.errors import ConfigError, DataError, say_number, say_option, unknown
from latlas.metrics.arrays import Array, Float, Index, matrix, nearest

#: what is wrong with latents that are alike
UNVARIED = ("no dimension of the latents varies over these examples, so none is rare: train "
            "longer, or lower the weight of the KL")
#: bins of a histogram of one latent dimension; fewer examples make none
BINS, LEAST_ITEMS = 10, 50
#: examples that a loss is smoothed over; of larger groups neighbours are sought among so many
NEIGHBOURS, REFERENCE = 5, 20_000
#: standard deviations, relative to the size of the latents, that are rounding
TINY = 1e-6
#: effective share that weights leave, and where they are clipped, times their mean
SHARE, CLIP = 0.2, 20.0
#: α is sought between these, in units of a density of standardised latents
ALPHAS = (1e-3, 1e6)


def standardised(latents: Array) -> Float:
    """Latents (n, d) at mean 0 and standard deviation 1; a dimension that does not vary is 0, and
    a DataError says that none does."""
    result = _standard(matrix(latents, "latents", 1).astype(np.float64))
    if not result.any():
        raise DataError(UNVARIED)
    return result


def _standard(values: Float) -> Float:
    mean, sd = values.mean(0), values.std(0)
    varies = sd > TINY * (1 + np.abs(mean))
    return np.where(varies, (values - mean) / np.where(varies, sd, 1), 0.0)


def densities(latents: Array, groups: Array | None = None, bins: int = BINS) -> Float:
    """Q̂_i(z_i), (n, d): for each example and dimension the density of the bin that holds it.

    Of latents (n, d) standardised within each of the ``groups`` (n,), or all together; groups of
    fewer than 50 examples are taken together (DataError: fewer in all). Bins of equal width from
    the least to the greatest latent; count / (n · width), which integrates to 1; density 1 of a
    dimension that does not vary.
    """
    values = matrix(latents, "latents", 1).astype(np.float64)
    if len(values) < LEAST_ITEMS:
        raise DataError(f"{len(values)} examples are too few for histograms of their latents; at "
                        f"least {LEAST_ITEMS}")
    density = np.ones(values.shape)
    parts: list[Any] = [slice(None)] if groups is None else members(groups)
    for rows in parts:
        for i, column in enumerate(_standard(values[rows]).T):
            low, high = column.min(), column.max()
            width = (high - low) / bins
            if width > 0:
                place = np.minimum(((column - low) / width).astype(np.int64), bins - 1)
                counts = np.bincount(place, minlength=bins)
                density[rows, i] = counts[place] / (len(column) * width)
    return density


def members(groups: Array) -> list[Index]:
    """The rows of each group; groups of fewer than 50 are taken together."""
    _, number, count = np.unique(groups, return_inverse=True, return_counts=True)
    number = np.where(count[number] < LEAST_ITEMS, -1, number)
    return [np.flatnonzero(number == k) for k in np.unique(number)]


def smoothed(values: Array, latents: Array, groups: Array, k: int = NEIGHBOURS) -> Float:
    """Each example's mean of ``values`` (n,) over its k nearest of its group, itself among them.

    By Euclidean distance of the latents (n, d), standardised within the group: what is odd about
    one example alone (a wrong label) counts less than what is odd about many alike. Of a group of
    more than 20,000 examples the neighbours are sought among every second, third … example.
    """
    result = np.empty(len(values))
    for rows in members(groups):
        own = _standard(matrix(latents[rows], "latents", 1).astype(np.float64))
        some = slice(None, None, -(-len(rows) // REFERENCE))
        near = nearest(own, own[some], min(k, len(own[some])))[1]
        result[rows] = np.asarray(values, np.float64)[rows[some]][near].mean(1)
    return result


def tempered_weights(values: Array, form: str, alpha: float) -> Float:
    """Weights at mean 1 over the examples, of densities Q̂ (n, d) or of losses (n,).

    ``product``: Π_i 1/(Q̂_i + α) (Amini et al. 2019, eq. 3); ``maximum``: max_i 1/(Q̂_i + α);
    ``loss``: loss / mean loss + α.

    >>> tempered_weights(np.array([[0.5, 0.5], [0.5, 0.125]]), "product", 0.0)
    array([0.4, 1.6])
    >>> tempered_weights(np.array([[0.25, 0.25], [0.5, 0.125]]), "maximum", 0.125)
    array([0.8, 1.2])
    >>> tempered_weights(np.array([1.0, 3.0]), "loss", 0.5)
    array([0.66666667, 1.33333333])
    """
    tiny = np.finfo(float).tiny
    if form == "product":
        logs = -np.log(np.maximum(values, tiny) + alpha).sum(1)
        return at_mean_one(np.exp(logs - logs.max()))
    if form == "maximum":
        return at_mean_one(1 / (np.maximum(values, tiny).min(1) + alpha))
    if form == "loss":
        return at_mean_one(values / max(float(np.mean(values)), tiny) + alpha)
    raise ConfigError(unknown("form", form, ("product", "maximum", "loss")))


def at_mean_one(weights: Array) -> Float:
    """The same weights times one number."""
    return np.asarray(weights / weights.mean(), np.float64)


def effective_share(weights: Array) -> float:
    """(Σw)² / (N Σw²): the share of the examples that so weighted a sample is worth (Kish 1965).

    >>> effective_share(np.array([1.0, 1.0, 0.0, 0.0]))
    0.5
    """
    w = np.asarray(weights, np.float64)
    return float(w.sum() ** 2 / (len(w) * np.square(w).sum()))


@dataclass(frozen=True)
class Guarded:
    """Weights (n,) at mean 1, the α that they were tempered by, their effective sample size as a
    ``share`` of the examples, and the share ``cut`` whose weight was clipped."""

    weights: Float
    alpha: float
    share: float
    cut: float

    @property
    def metrics(self) -> dict[str, float]:
        """For the log."""
        return {"weights/alpha": self.alpha,
                "weights/clipped": self.cut, "weights/greatest": float(self.weights.max())}

    @property
    def words(self) -> str:
        """For the terminal."""
        greatest = say_number(float(self.weights.max()))
        return (f"weights: alpha {self.alpha:.3g}, effective sample {self.share:.0%} of "
                f"{len(self.weights):,} examples, greatest {greatest} times the mean, "
                f"{self.cut:.1%} clipped")


def guarded(values: Array, form: str, share: float = SHARE, most: float = CLIP,
            alpha: float | None = None) -> Guarded:
    """:func:`tempered_weights` with the least α that leaves a share, by bisection of log α.

    Args:
        share: least :func:`effective_share`.
        most: weights are clipped at so many times their mean.
        alpha: another α than that.
    """
    if alpha is None and not 0 < share < 1:
        raise ConfigError(f"{say_option('share', share)}: a share between 0 and 1")

    def weights_of(alpha: float) -> tuple[Float, Float]:
        raw = tempered_weights(values, form, alpha)
        return raw, at_mean_one(np.minimum(at_mean_one(raw), most))

    if alpha is None:
        low, high = map(math.log, ALPHAS)
        alpha = ALPHAS[0]
        if effective_share(weights_of(alpha)[1]) < share:
            for _ in range(40):
                middle = (low + high) / 2
                enough = effective_share(weights_of(math.exp(middle))[1]) >= share
                low, high = (low, middle) if enough else (middle, high)
            alpha = math.exp(high)
    raw, weights = weights_of(alpha)
    return Guarded(weights, alpha, effective_share(weights), float((raw > most).mean()))
