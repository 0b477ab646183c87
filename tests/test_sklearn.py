"""The estimators behave as scikit-learn's own, and PCA's likelihood is the exact one."""

from __future__ import annotations

import pickle
import signal
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.decomposition import PCA as ReferencePCA
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from latlas.core.errors import DataNote
from latlas.sklearn import AE, PCA, VAE, LatentModel

TINY = {"settings": {"width": 16, "depth": 1}}
ESTIMATORS = [PCA(), AE(images=300, **TINY), VAE(images=300, draws=4, **TINY),
              LatentModel("beta-vae", images=300, draws=4, **TINY)]
#: skipped by scikit-learn itself: it needs the optional package array_api_compat
SKIPPED = {"check_array_api_input"}


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 2)) @ rng.normal(size=(2, 5)) * 3 + 0.5 * rng.normal(
        size=(300, 5)) + 10


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_check_estimator(estimator: LatentModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about the checks it skips
        results = check_estimator(estimator, on_fail="raise", on_skip=None)
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert sum(r["status"] == "passed" for r in results) > 40


def test_ppca_scores_as_scikit_learn(rows: np.ndarray) -> None:
    scaled = StandardScaler().fit(rows)
    reference = ReferencePCA(2).fit(scaled.transform(rows))
    expected = reference.score_samples(scaled.transform(rows)) - np.log(scaled.scale_).sum()
    np.testing.assert_allclose(PCA(2).fit(rows).score_samples(rows), expected, atol=2e-4)


def test_score_is_a_density_in_the_units_of_the_data(rows: np.ndarray) -> None:
    """In other units the log-density changes by the log of the unit."""
    small, large = PCA(2).fit(rows), PCA(2).fit(rows * 1000)
    difference = small.score(rows) - large.score(rows * 1000)
    assert difference == pytest.approx(5 * np.log(1000), abs=1e-3)


def test_a_trained_vae_nears_the_true_density(rows: np.ndarray) -> None:
    truth = multivariate_normal(rows.mean(0), np.cov(rows.T)).logpdf(rows).mean()
    vae = VAE(2, images=40_000, random_state=0, settings={"width": 32, "depth": 1}).fit(rows)
    independent = multivariate_normal(rows.mean(0), np.diag(rows.var(0))).logpdf(rows).mean()
    assert independent < vae.score(rows) < truth + 0.5
    rebuilt = vae.inverse_transform(vae.transform(rows))
    assert np.square(rebuilt - rows).mean() < 0.5 * rows.var(0).mean()


def test_large_offsets_keep_their_digits() -> None:
    """Seconds since 1970 do not fit in float32."""
    x = np.random.default_rng(0).normal(size=(200, 3)) + 1.7e9
    assert PCA(1).fit(x).score(x) == pytest.approx(PCA(1).fit(x - 1.7e9).score(x - 1.7e9), abs=1e-3)


@pytest.mark.parametrize("unit", [1e-307, 1e-50, 1e39, 1e200, 1e305])
def test_the_unit_of_a_column_moves_the_log_density_alone(unit: float, rows: np.ndarray) -> None:
    """However large or small, and the row far out stays the least probable."""
    rows = np.concatenate([rows, rows[:1] + np.array([0, 90, 0, 0, 0])])
    other = rows * [1, unit, 1, 1, 1]
    for estimator in (PCA(2), VAE(2, images=1000, random_state=0, **TINY)):
        score = estimator.fit(rows).score_samples(rows)
        moved = clone(estimator).fit(other)
        np.testing.assert_allclose(moved.score_samples(other), score - np.log(unit), rtol=1e-3,
                                   atol=1e-2)
        assert score.argmin() == len(rows) - 1
        rebuilt = moved.inverse_transform(moved.transform(other).astype(np.float32))
        assert np.isfinite(rebuilt).all()
        beyond = other[:2].copy()
        beyond[0, 1], beyond[1, 0] = 1.7e308, -1.7e308
        scores = moved.score_samples(beyond)
        assert np.isfinite(scores).all() and (scores < score.min() - np.log(unit)).all()


def test_columns_that_float32_cannot_tell_apart_are_named(rows: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"time": 2**62 + np.arange(300) % 50, "x": rows[:, 0],
                              "y": rows[:, 1]})
    with pytest.warns(DataNote, match="column time are equal"):
        PCA(1).fit(frame)


def test_the_same_seed_gives_the_same_model(rows: np.ndarray) -> None:
    make = VAE(2, images=500, random_state=3, **TINY)
    first, again = make.fit(rows).transform(rows), clone(make).fit(rows).transform(rows)
    np.testing.assert_array_equal(first, again)
    other = clone(make).set_params(random_state=4).fit(rows).transform(rows)
    assert np.abs(first - other).max() > 1e-3


def test_a_row_alone_scores_as_among_others(rows: np.ndarray) -> None:
    vae = VAE(2, images=500, draws=8, **TINY).fit(rows)
    alone = np.concatenate([vae.score_samples(row[None]) for row in rows[:5]])
    np.testing.assert_allclose(vae.score_samples(rows)[:5], alone, rtol=1e-6)


def test_pipelines_pickles_and_cross_validation(rows: np.ndarray) -> None:
    pipe = make_pipeline(StandardScaler(), PCA(2)).fit(rows)
    copy = pickle.loads(pickle.dumps(pipe))
    np.testing.assert_array_equal(copy.transform(rows), pipe.transform(rows))
    assert list(PCA(2).fit(rows).get_feature_names_out()) == ["pca0", "pca1"]
    assert np.isfinite(cross_val_score(PCA(2), rows, cv=3)).all()


def test_ctrl_c_ends_the_fit(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine saves and returns; an estimator has nowhere to go on from."""
    from latlas.engine import train

    monkeypatch.setattr(train, "_stop_signals", lambda: nullcontext([signal.SIGINT]))
    with pytest.raises(KeyboardInterrupt):
        VAE(images=500, **TINY).fit(rows)


def test_samples_have_the_mean_and_the_covariance_of_the_model(rows: np.ndarray) -> None:
    """Whitened by the exact ones they have mean 0 and covariance 1, within five standard errors."""
    rows, n = rows * [1, 10, 100, 0.1, 1], 20_000
    scaled = StandardScaler().fit(rows)
    precision = ReferencePCA(2).fit(scaled.transform(rows)).get_precision()
    drawn = scaled.transform(PCA(2).fit(rows).sample(n, random_state=0))
    white = drawn @ np.linalg.cholesky(precision)
    np.testing.assert_allclose(white.mean(0), 0, atol=5 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=5 * np.sqrt(2 / n))


def test_a_random_state_decides_samples(rows: np.ndarray) -> None:
    pca = PCA(2, random_state=3).fit(rows)
    np.testing.assert_array_equal(pca.sample(9), pca.sample(9, random_state=3))
    assert not np.isin(pca.sample(9, random_state=4), pca.sample(9)).any()
    assert len(np.unique(pca.sample(9), axis=0)) == 9


def test_what_a_model_cannot_is_absent() -> None:
    assert not hasattr(AE(), "score_samples")
    assert hasattr(VAE(), "score_samples")


@pytest.mark.parametrize(("estimator", "message"), [
    (LatentModel("vea"), "did you mean 'vae'"),
    (VAE(settings={"latentdim": 3}), "did you mean 'latent_dim'"),
    (VAE(images=10, epochs=1), "at most one budget"),
    (VAE(n_components=-1), "latent_dim must be"),
    (PCA(n_components=5), "latent_dim")])
def test_errors_are_value_errors(estimator: LatentModel, message: str, rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.fit(rows)


def test_codes_of_another_width_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="3 columns, the model's 2"):
        PCA(2).fit(rows).inverse_transform(np.zeros((4, 3)))
