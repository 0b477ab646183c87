"""Summaries of log-likelihoods and log weights, and the control every density stands beside."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

from latlas.core.errors import DataError
from latlas.metrics.arrays import Array, Float, pair


@dataclass(frozen=True)
class Summary:
    """Mean over n examples and the standard error of that mean, in the examples' unit."""

    mean: float
    standard_error: float
    n: int


def summary(values: Array) -> Summary:
    """Mean and standard error (sd over n − 1, divided by √n; NaN for n = 1) of (n,) values."""
    x = np.asarray(values, np.float64).ravel()
    if not len(x):
        raise DataError("no values to summarise")
    error = float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else float("nan")
    return Summary(float(x.mean()), error, len(x))


def bits_per_dim(nats: Array | float, dims: int) -> Array | float:
    """Log-likelihood in nats per example to bits per dimension: −nats / (dims · log 2)."""
    return -nats / (dims * math.log(2))


def log_mean_exp(values: Array, axis: int = 0) -> Float:
    """log of the mean of exp(values) along ``axis``, without overflow."""
    values = np.asarray(values, np.float64)
    return np.asarray(logsumexp(values, axis=axis)) - math.log(values.shape[axis])


def effective_sample_size(log_weights: Array, axis: int = 0) -> Float:
    """(Σ w)² / Σ w² along ``axis`` (Kong 1992) from unnormalised log weights, e.g. (K, n), in nats:
    K if all weights are equal, 1 if one rules."""
    log_weights = np.asarray(log_weights, np.float64)
    log_size = 2 * logsumexp(log_weights, axis=axis) - logsumexp(2 * log_weights, axis=axis)
    return np.asarray(np.exp(log_size))


def diagonal_gaussian(train: Array, test: Array, *, step: float = 0.0) -> Float:
    """The control: log-likelihood of test examples under independent Gaussians fitted to training.

    Args:
        train, test: (t, d) and (n, d), or (…, \\*shape), flattened; in the units of the metric.
        step: 0 for a density. The width of a level for integer data: then the probability of the
            bin x ± step/2 under N(mean, var + step²/12), on the base_measure of a discretised
            likelihood, and no less than the expected log-density of uniformly dequantised data.
    Returns:
        (n,) nats per example. DataError for a constant column and step = 0: unbounded density.
    """
    train, test = (np.asarray(x).reshape(len(x), -1) for x in (train, test))
    train, test = pair(train, test, ("training data", "test data"), 1)
    mean, variance = train.mean(0, dtype=np.float64), train.var(0, dtype=np.float64) + step**2 / 12
    if (variance == 0).any():
        raise DataError(f"column {int(np.argmin(variance))} of the training data is constant, its "
                        "density unbounded: dequantise the data, or leave the column out")
    z = (test - mean) / np.sqrt(variance)
    if step == 0:
        return np.asarray((norm.logpdf(z) - 0.5 * np.log(variance)).sum(1))
    # log[Φ(z + h) − Φ(z − h)], taken in the lower tail, where logs stay exact
    low, half = -np.abs(z), step / 2 / np.sqrt(variance)
    upper, lower = norm.logcdf(low + half), norm.logcdf(low - half)
    return np.asarray((upper + np.log(-np.expm1(lower - upper))).sum(1))
