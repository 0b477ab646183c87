"""The split rule: shares, groups, determinism, units from train alone."""

import numpy as np
import pytest

from latlas.core.errors import DataError
from latlas.core.space import Points, Table
from latlas.data import Dataset, open_source, split
from latlas.data.dataset import make, partition


def table(x, **more):
    x = np.asarray(x, np.float32)
    space = Table(x.shape[1:], columns=tuple(f"x{i}" for i in range(x.shape[1])))
    return make("table", Dataset(x, space, **more))


def noise(n, d=2):
    return np.random.default_rng(1).standard_normal((n, d))


def test_tenths_cover_everything_once():
    parts = partition(table(noise(200)))
    assert [len(parts[k]) for k in ("train", "validation", "test")] == [160, 20, 20]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(200))
    assert all((np.diff(rows) > 0).all() for rows in parts.values())


def test_a_seed_decides_and_zero_is_the_default():
    source = table(noise(100))
    again = partition(table(noise(100)))
    assert all(np.array_equal(partition(source)[k], again[k]) for k in again)
    assert not np.array_equal(partition(source, 1)["test"], again["test"])


@pytest.mark.parametrize("seed", range(20))
def test_related_items_stay_together(seed):
    group = np.random.default_rng(seed).integers(0, 60, 300)
    parts = partition(table(noise(300), group=group), seed)
    groups = [set(group[rows]) for rows in parts.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert 20 <= len(parts["test"]) <= 40 and 20 <= len(parts["validation"]) <= 40


def test_a_large_group_goes_to_train():
    group = np.where(np.arange(100) < 50, 0, np.arange(100))
    for seed in range(10):
        assert set(range(50)) <= set(partition(table(noise(100), group=group), seed)["train"])


def test_the_files_own_parts_are_kept():
    data = table(noise(300)).base
    source = make("own", data, parts={"train": np.arange(200), "test": np.arange(200, 300)})
    parts = partition(source)
    assert np.array_equal(parts["test"], np.arange(200, 300))
    assert len(parts["validation"]) == 10
    assert np.array_equal(np.sort(np.r_[parts["train"], parts["validation"]]), np.arange(200))
    assert len(split(source, "all")) == 300


def test_validation_is_at_most_two_thousand():
    data = table(np.zeros((50_010, 1))).base
    parts = {"train": np.arange(50_000), "test": np.arange(50_000, 50_010)}
    source = make("own", data, parts=parts)
    assert len(partition(source)["validation"]) == 2000


def test_a_validation_part_without_test_is_tested_on():
    data = table(noise(100)).base
    parts = partition(make("v", data, parts={"train": np.arange(80),
                                             "validation": np.arange(80, 100)}))
    assert np.array_equal(parts["test"], np.arange(80, 100)) and len(parts["validation"]) == 4


def test_units_come_from_the_train_split_alone():
    x = noise(100, 2) * [3, 5] + [10, -4]
    source = table(x)
    rows = partition(source)["train"]
    space = split(source, "test").space
    np.testing.assert_allclose(space.location, x[rows].mean(0), rtol=1e-5)
    np.testing.assert_allclose(space.scale, x[rows].std(0), rtol=1e-5)
    x[partition(source)["test"]] = 1e6
    assert split(table(x), "train").space == space == source.space
    assert split(source, "train", seed=3).space != space


def test_binary_columns_become_plus_minus_one_and_constants_keep_their_scale():
    x = np.stack([np.arange(50) % 2, np.full(50, 7.0), np.zeros(50)], axis=1)
    space = table(x).space
    assert space.scale == (0.5, 1.0, 1.0) and space.location == (0.5, 7.0, 0.0)


def test_missing_numbers_become_the_median_of_train():
    x = noise(60)
    x[::7, 0] = np.nan
    source = table(x)
    rows, every = partition(source)["train"], split(source, "all")
    expected = np.nanmedian(x[rows, 0].astype(np.float32))
    assert (every.x[::7, 0] == expected).all() and not np.isnan(every.x).any()
    assert np.isnan(source.base.x).sum() == 9  # the source itself stays as in the file
    assert every.x is split(source, "train").x


def test_points_share_one_scale():
    x = noise(50) * [1, 9]
    source = make("p", Dataset(x.astype(np.float32), Points((2,))))
    assert source.space.scale[0] == source.space.scale[1]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_items(n):
    parts = partition(table(noise(n)))
    assert len(parts["train"]) >= 1 and sum(map(len, parts.values())) == n
    assert (len(parts["test"]) > 0) == (n > 1)


def test_bad_requests():
    with pytest.raises(DataError, match="did you mean 'train'"):
        split(table(noise(5)), "trian")
    with pytest.raises(DataError, match="1 examples are too few for a test split"):
        split(table(noise(1)), "test")


def test_standardised_values_have_unit_variance():
    train = split(open_source("grid", n=500), "train")
    x = train.space.to_model(train.take("x"))
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose((x**2).mean(), 1, rtol=1e-4)
