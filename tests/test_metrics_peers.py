"""The metrics that torchmetrics and prdc also give, by their formulas, to 1e-4.

Both formulas are written out here as those packages have them, full matrices and all; neither is
a dependency.
"""

from __future__ import annotations

import numpy as np
import pytest

from latlas.metrics.distances import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)


def fid(real, fake):
    """torchmetrics.image.fid: the trace of the root by the eigenvalues of the plain product."""
    means = [x.mean(0) for x in (real, fake)]
    covariances = [(x - m).T @ (x - m) / (len(x) - 1) for x, m in zip((real, fake), means,
                                                                      strict=True)]
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)).real.sum()
    return (np.square(means[0] - means[1]).sum() + np.trace(covariances[0])
            + np.trace(covariances[1]) - 2 * roots)


def kid(real, fake, degree=3):
    """torchmetrics.image.kid: poly_mmd with gamma 1/d, coef 1, diagonals left out."""
    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** degree

    m = len(real)
    xx, yy, xy = kernel(real, real), kernel(fake, fake), kernel(real, fake)
    within = (xx.sum() - np.trace(xx)) + (yy.sum() - np.trace(yy))
    return within / (m * (m - 1)) - 2 * xy.sum() / m**2


def prdc(real, fake, k):
    """prdc.compute_prdc: the k-th smallest of a row of distances (itself the 0-th) is a radius."""
    def distances(a, b):
        return np.sqrt(np.maximum(np.square(a[:, None] - b[None]).sum(-1), 0))

    reals = np.partition(distances(real, real), k, -1)[:, k]
    fakes = np.partition(distances(fake, fake), k, -1)[:, k]
    apart = distances(real, fake)
    return {"precision": (apart < reals[:, None]).any(0).mean(),
            "recall": (apart < fakes[None]).any(1).mean(),
            "density": (apart < reals[:, None]).sum(0).mean() / k,
            "coverage": (apart.min(1) < reals).mean()}


@pytest.fixture(scope="module", params=[(8, np.float64), (64, np.float32)])
def sets(request):
    d, kind = request.param
    rng = np.random.default_rng(d)
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    real, fake = rng.normal(size=(300, d)) @ mix, rng.normal(size=(300, d)) @ mix * 1.1 + 0.1
    return real.astype(kind), fake.astype(kind)


def test_distances_are_torchmetrics(sets):
    real, fake = sets
    wide = [x.astype(np.float64) for x in sets]
    assert frechet_distance(real, fake) == pytest.approx(fid(*wide), abs=1e-4)
    assert kernel_distance(real, fake) == pytest.approx(kid(*wide), abs=1e-4)


@pytest.mark.parametrize("k", [3, 5])
def test_shares_are_prdcs(sets, k):
    real, fake = sets
    expected = prdc(real.astype(np.float64), fake.astype(np.float64), k)
    found = *precision_recall(real, fake, k), *density_coverage(real, fake, k)
    assert found == pytest.approx(tuple(expected.values()), abs=1e-4)
