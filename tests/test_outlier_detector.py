"""The detector of outlying rows: robust, deterministic, calibrated, as both libraries have it."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from latlas.core.errors import DataNote
from latlas.metrics.scales import IQR, NormalScores, RobustScale
from latlas.metrics.surprise import soft_maximum, standardised
from latlas.sklearn import OutlierDetector, PyODDetector

QUICK = {"latent_dims": (2,), "settings": {"images": 50_000, "width": 16}, "random_state": 0}
#: skipped by scikit-learn itself: they need packages that are not installed
SKIPPED = {"check_array_api_input", "check_classifier_data_not_an_array"}


def near_a_curve(n: int, share: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows near a curve in five columns; the columns of a share of them are out of step."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-2, 2, n)
    rows = np.stack([t, t**2, np.sin(2 * t), np.cos(2 * t), t**3], 1)
    outlier = rng.random(n) < share
    rows[outlier] = np.stack([rng.permutation(column) for column in rows[outlier].T], 1)
    return rows + rng.normal(scale=0.05, size=rows.shape), outlier


@pytest.fixture(scope="module")
def fitted() -> tuple[OutlierDetector, np.ndarray, np.ndarray]:
    x, outlier = near_a_curve(1500, 0.05)
    return OutlierDetector(0.05, **QUICK).fit(x), x, outlier


SMALL = OutlierDetector(latent_dims=(1,), settings={"images": 200, "width": 8}, random_state=0)


@pytest.mark.parametrize("small", [SMALL, PyODDetector(detector=SMALL)],
                         ids=lambda e: type(e).__name__)
def test_check_estimator(small) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about the checks it skips
        results = check_estimator(small, on_fail="raise", on_skip=None)
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert sum(r["status"] == "passed" for r in results) > 38


def test_rows_out_of_step_are_found_in_rows_never_seen(fitted) -> None:
    """Each column alone is as it should be; only together are they outliers."""
    x, outlier = near_a_curve(1000, 0.05, seed=1)
    assert roc_auc_score(outlier, -fitted[0].score_samples(x)) > 0.93


def test_predictions_follow_the_threshold(fitted) -> None:
    detector, x, _ = fitted
    decided = detector.decision_function(x)
    np.testing.assert_allclose(decided, detector.score_samples(x) - detector.offset_)
    assert ((detector.predict(x) == -1) == (decided < 0)).all()
    assert (detector.predict(x) == -1).mean() == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("wild", [10.0, 1e6])
def test_planted_outliers_do_not_teach_that_they_are_normal(wild) -> None:
    """A tenth of the rows is a cluster far off, which an untrimmed model would fit."""
    x, _ = near_a_curve(600)
    planted = np.full((60, 5), wild) + np.random.default_rng(1).normal(size=(60, 5))
    detector = OutlierDetector(**QUICK).fit(np.concatenate([x, planted]))
    normal = detector.score_samples(near_a_curve(300, seed=2)[0])
    assert (detector.score_samples(planted) < np.quantile(normal, 0.02)).all()


def test_the_same_seed_gives_the_same_scores(fitted) -> None:
    detector, x, _ = fitted
    again = clone(detector).fit(x)
    np.testing.assert_array_equal(again.score_samples(x), detector.score_samples(x))
    other = clone(detector).set_params(random_state=1).fit(x)
    assert np.abs(other.score_samples(x) - detector.score_samples(x)).max() > 1e-3


def test_a_row_alone_scores_as_among_others(fitted) -> None:
    detector, x, _ = fitted
    alone = np.concatenate([detector.score_samples(row[None]) for row in x[:5]])
    np.testing.assert_allclose(detector.score_samples(x)[:5], alone, rtol=1e-9)


def test_copies_and_pipelines(fitted) -> None:
    detector, x, _ = fitted
    copy = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(copy.score_samples(x), detector.score_samples(x))
    assert set(make_pipeline(StandardScaler(), clone(detector)).fit_predict(x)) == {-1, 1}


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_new_normal_rows_are_flagged_as_often_as_asked(share) -> None:
    x, new = near_a_curve(4000, seed=3)[0], near_a_curve(4000, seed=4)[0]
    detector = OutlierDetector(fpr=share, validation_fraction=0.5, **QUICK).fit(x)
    flagged = (detector.predict(new) == -1).mean()
    # of the held-out rows that set the threshold, and of the new ones that are counted
    error = np.sqrt(share * (1 - share) * (1 / 2000 + 1 / 4000))
    assert abs(flagged - share) < 3.5 * error


def test_false_alarms_are_those_of_rows_that_were_not_fitted() -> None:
    """Of few rows in many columns, those that were fitted lie far nearer than any new ones."""
    flagged = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(620, 40)) @ rng.normal(size=(40, 40))
        detector = OutlierDetector(fpr=0.1, validation_fraction=0.5, latent_dims=(),
                                   random_state=seed).fit(x[:120])
        flagged.append((detector.predict(x[120:]) == -1).mean())
    # six of the 60 held-out rows lie above the threshold
    error = np.sqrt(0.1 * 0.9 * (1 / 62 + 1 / 500) / len(flagged))
    assert np.mean(flagged) == pytest.approx(6 / 61, abs=3.5 * error)


def test_a_tenth_of_outliers_that_hide_each_other_are_all_found_without_vaes() -> None:
    """In a direction that hardly varies otherwise. Left out once, some would still hide the rest:
    of one fit 45% are found, of two 86%."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(2, 6))
    x = rng.normal(size=(1000, 2)) @ plane + 0.1 * rng.normal(size=(1000, 6))
    x[:100] += np.linalg.svd(plane)[2][-1]  # each column alone is as it should be
    detector = OutlierDetector(0.1, latent_dims=(), random_state=0).fit(x)
    assert (detector.predict(x[:100]) == -1).mean() > 0.97


def test_beta_changes_the_scores(fitted) -> None:
    detector, x, _ = fitted
    heavy = clone(detector).set_params(beta=8.0).fit(x)
    light = detector.score_samples(x)
    assert np.abs(heavy.score_samples(x) - light).mean() > 0.05 * light.std()


def test_pyods_conventions(fitted) -> None:
    detector, x, _ = fitted
    pyod = PyODDetector(0.05, detector=detector).fit(x)
    np.testing.assert_array_equal(pyod.decision_scores_, -detector.score_samples(x))
    np.testing.assert_array_equal(pyod.labels_, pyod.predict(x))
    assert ((pyod.decision_scores_ > pyod.threshold_) == pyod.labels_.astype(bool)).all()
    assert pyod.labels_.mean() == pytest.approx(0.05, abs=0.01)
    for method in ("linear", "unify"):
        chance = pyod.predict_proba(x, method)
        assert chance.shape == (len(x), 2) and (chance >= 0).all()
        np.testing.assert_allclose(chance.sum(1), 1)
        assert chance[pyod.decision_scores_.argmax(), 1] == chance[:, 1].max()
    with pytest.raises(ValueError, match="linear or unify"):
        pyod.predict_proba(x, "other")


def test_pyods_fit_predict_and_confidence(fitted) -> None:
    """Confidence by the binomial sum of the paper (Perini et al. 2020), term by term."""
    detector, x, _ = fitted
    pyod = PyODDetector(0.05, detector=detector)
    np.testing.assert_array_equal(pyod.fit_predict(x), pyod.labels_)
    new = np.concatenate([near_a_curve(6, seed=5)[0], x[:3], np.full((1, 5), 9.0)])
    labels, confidence = pyod.predict(new, return_confidence=True)
    np.testing.assert_array_equal(labels, pyod.predict(new))
    n, highest = len(x), 75  # ⌊1500 · 0.05⌋
    for score, label, value in zip(pyod.decision_function(new), labels, confidence, strict=True):
        p = (1 + sum(score >= other for other in pyod.decision_scores_)) / (2 + n)
        log_terms = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
                     + k * math.log(p) + (n - k) * math.log1p(-p)
                     for k in range(n - highest + 1, n + 1)]
        outlier = math.fsum(math.exp(term) for term in log_terms)
        assert value == pytest.approx(outlier if label else 1 - outlier, abs=1e-9)
    assert confidence[-1] == pytest.approx(1) and labels[-1] == 1
    chance, same = pyod.predict_proba(new, return_confidence=True)
    np.testing.assert_array_equal(chance, pyod.predict_proba(new))
    np.testing.assert_array_equal(same, confidence)


@pytest.mark.parametrize("columns", [1, 5])
@pytest.mark.parametrize("latent_dims", [(), (2,)])
def test_automatic_contamination_is_that_of_the_table(columns, latent_dims) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, columns)) @ rng.normal(size=(columns, columns))
    detector = OutlierDetector("auto", **{**QUICK, "latent_dims": latent_dims})
    assert (detector.fit_predict(x) == -1).mean() < 0.02
    x[:50] += 8 * x.std(0)
    flagged = detector.fit_predict(x) == -1
    assert flagged[:50].all() and flagged[50:].mean() < 0.01
    pyod = PyODDetector("auto", detector=detector)
    np.testing.assert_array_equal(pyod.fit_predict(x), flagged)
    assert pyod.predict_confidence(x)[:50].mean() > 0.9


def test_one_column_is_ranked_by_how_far_out_and_how_rare_a_value_is() -> None:
    """Between two groups, too: there a value is near the median, and only the VAE tells."""
    x = np.random.default_rng(0).normal(size=(600, 1)) * 0.1 + np.repeat([[-2.0], [2.0]], 300, 0)
    detector = OutlierDetector(0.01, latent_dims=(1, 1, 1), random_state=0).fit(x)
    assert detector.gaussian_ is None
    far, between, inside = detector.score_samples([[9.0], [0.0], [2.0]])
    assert far < inside and between < inside


@pytest.mark.parametrize("unit", [1e-307, 1e-50, 1e39, 1e200, 1e306])
def test_the_unit_of_a_column_does_not_matter(unit) -> None:
    x, _ = near_a_curve(400)
    x[7, 2], x[9, 4] = 60, -40
    other = x * [1, 1, unit, 1, 1]
    for dims in ((), (2,)):
        detector = OutlierDetector(**{**QUICK, "latent_dims": dims})
        before = detector.fit(x).score_samples(x)
        np.testing.assert_allclose(clone(detector).fit(other).score_samples(other), before,
                                   rtol=1e-4, atol=1e-4)
        assert set(np.argsort(before)[:2]) == {7, 9}


def test_a_column_from_1e_50_to_9e_50_counts() -> None:
    x = np.random.default_rng(0).uniform(1e-50, 9e-50, (300, 2))
    x[3, 0] = 2e-48
    assert OutlierDetector(latent_dims=(), random_state=0).fit(x).score_samples(x).argmin() == 3


def test_columns_that_float32_cannot_tell_apart_are_named() -> None:
    x = np.random.default_rng(0).integers(0, 50, (300, 2)) + np.array([2**62, 2**40])
    with pytest.warns(DataNote, match="column 0 are equal"):
        OutlierDetector(latent_dims=(), random_state=0).fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OutlierDetector(latent_dims=(), random_state=0).fit(x[:, 1:])


def test_wild_values_do_not_set_a_columns_scale() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (1000, 3))
    x[:, 1] = 7
    x[:, 2] = rng.random(1000) < 0.1
    x[:80, 0] = 1e9
    scale = RobustScale.of(x, 5.0)
    assert scale.centre[0] == pytest.approx(3, abs=0.6) and scale.scale[0] < 12
    assert scale.scale[1] == 1 and 0.2 < scale.scale[2] < 0.5
    out = scale(x)
    assert np.abs(out).max() == 5 and (out[:, 1] == 0).all()


def test_one_member_does_not_outvote_the_others() -> None:
    scores = np.array([[0.0, 1.0, 1e9], [0.0, 1.0, -1.0]])
    reference = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    t = standardised(scores, reference)
    np.testing.assert_allclose(t[1], [0, IQR / 2, -IQR / 2])
    combined = soft_maximum(t, np.array([1.0, 1.0]))
    assert combined[0] == 0 and combined[1] == pytest.approx(np.log1p(IQR / 2))
    assert 15 < combined[2] < 25


def test_a_soft_maximum_lies_between_mean_and_largest() -> None:
    t = np.random.default_rng(0).normal(0, 3, (3, 500))
    s, weights = np.sign(t) * np.log1p(np.abs(t)), np.array([1.0, 1.0, 2.0])
    result = soft_maximum(t, weights)
    assert (result <= s.max(0) + 1e-12).all() and (result >= weights @ s / 4 - 1e-12).all()
    power = np.sqrt(weights @ np.exp(2 * s) / 4)
    np.testing.assert_allclose(result, np.log(power))


@pytest.mark.parametrize(("change", "message"), [
    ({"contamination": 0.7}, "contamination=0.7"),
    ({"contamination": "automatic"}, "contamination='automatic': auto"),
    ({"clip": 0.0}, "clip=0.0"),
    ({"trimmed_fraction": 0.9}, "trimmed_fraction must be"),
    ({"settings": {"wdith": 3}}, "did you mean 'width'"),
    ({"latent_dims": (-1,)}, "latent_dim must be"),
    ({"fpr": 0.001}, "needs 999 held-out normal examples, there are 30")])
def test_what_cannot_be_is_a_value_error(change, message) -> None:
    detector = OutlierDetector(**{**QUICK, **change})
    with pytest.raises(ValueError, match=message):
        detector.fit(near_a_curve(300)[0])


def test_too_few_rows_for_a_threshold_are_refused_before_the_long_work(monkeypatch) -> None:
    monkeypatch.setattr(OutlierDetector, "_train_vaes", None)
    for n, there in ((300, 30), (100, 0)):
        with pytest.raises(ValueError, match=f"needs 99 held-out .*, there are {there}"):
            OutlierDetector(fpr=0.01, **QUICK).fit(near_a_curve(n)[0])


def test_confidence_goes_by_as_many_outliers_as_the_threshold_makes() -> None:
    """With fpr the contamination, which the wrapper has in any case, decides nothing."""
    detector, x = OutlierDetector(latent_dims=(), fpr=0.05, random_state=0), near_a_curve(400)[0]
    confidences = [PyODDetector(share, detector=detector).fit(x).predict_confidence(x)
                   for share in (0.01, 0.4)]
    np.testing.assert_array_equal(*confidences)


def test_rows_with_infinite_values_or_too_few_of_them_are_refused() -> None:
    x = near_a_curve(50)[0]
    x[3, 2] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        OutlierDetector(**QUICK).fit(x)
    with pytest.raises(ValueError, match="minimum of 5"):
        OutlierDetector(**QUICK).fit(near_a_curve(4)[0])


def with_gaps(x: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)


@pytest.mark.parametrize("dims", [(), (2,)])
def test_gaps_make_a_row_neither_more_nor_less_outlying(dims) -> None:
    x, new = near_a_curve(1500)[0], with_gaps(near_a_curve(1500, seed=1)[0], 0.2, 1)
    detector = OutlierDetector(**{**QUICK, "latent_dims": dims}).fit(with_gaps(x, 0.2))
    score, gap = -detector.score_samples(new), np.isnan(new).any(1)
    assert 0.45 < roc_auc_score(gap, score) < 0.55
    odd = near_a_curve(300, seed=2)[0]
    odd[:, 1] += 9.0
    odd[:, 3:] = np.nan
    assert roc_auc_score(np.arange(1800) >= 1500, np.concatenate(
        [score, -detector.score_samples(odd)])) > 0.97


def frame_of(n: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    place = rng.integers(0, 3, n)
    pay = np.exp(rng.normal(3 + 0.5 * place, 0.3, n))
    gap = rng.random(n) < 0.1
    return pl.DataFrame({
        "place": np.array(["Ulm", "Bonn", "Jena"])[place],
        "pay": [None if g else float(v) for v, g in zip(pay, gap, strict=True)],
        "owner": rng.random(n) < 0.3,
        "since": np.datetime64("2020-01-01") + rng.integers(0, 900, n)})


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_frames_with_gaps_and_words_go_straight_in(kind) -> None:
    data, new = frame_of(600), frame_of(200, 1)
    new[3, "pay"], new[5, "place"] = 4000.0, "Trier"
    if kind == "pandas":
        data, new = data.to_pandas(), new.to_pandas()
    detector = OutlierDetector(0.05, **QUICK)
    flagged = detector.fit_predict(data) == -1
    assert flagged.mean() == pytest.approx(0.05, abs=0.01)
    with pytest.warns(DataNote, match="place holds 'Trier'"):
        score = detector.score_samples(new)
    assert np.argmin(score) == 3 and 5 in np.argsort(score)[:6]
    copy = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(copy.score_samples(new), score)


def test_normal_scores_are_normal_and_go_on_straight() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([np.exp(rng.normal(0, 1, 5000)), np.full(5000, 3.0), rng.poisson(1, 5000)], 1)
    scale = NormalScores.of(with_gaps(x, 0.1), clip=50.0)
    z = scale(x)
    assert np.quantile(z[:, 0], [0.1, 0.5, 0.9]) == pytest.approx([-1.28, 0, 1.28], abs=0.06)
    assert (z[:, 1] == 0).all() and np.isnan(scale(np.full((1, 3), np.nan))).all()
    np.testing.assert_allclose(scale.inverse(z), x, rtol=1e-9, atol=1e-9)
    ends = scale(np.array([[30.0, 0, 0], [40.0, 0, 0], [50.0, 0, 0]]))[:, 0]
    assert ends[2] - ends[1] == pytest.approx(ends[1] - ends[0]) and ends[0] > 5
