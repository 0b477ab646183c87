"""The split rule: shares, groups, determinism, units from train alone."""

import numpy as np
import pytest

from latlas.core.errors import DataError
from latlas.core.space import Points, Table
from latlas.data import Dataset, open_source, split
from latlas.data.dataset import make, partition


def table(x, **more):
    x = np.asarray(x, np.float32)
    space = Table.of_numbers([f"x{i}" for i in range(x.shape[1])])
    return make("table", Dataset(x, space, **more))


def noise(n, d=2):
    return np.random.default_rng(1).standard_normal((n, d))


def test_tenths_cover_everything_once():
    for n, exact in ((150, True), (4000, False)):
        parts = partition(table(noise(n)))
        sizes = [len(parts[k]) for k in ("train", "validation", "test")]
        assert sum(sizes) == n and sizes[1:] == [n // 10, n // 10] if exact else all(
            abs(size - n / 10) < 4 * np.sqrt(n * 0.09) for size in sizes[1:])
        assert sorted(np.concatenate(list(parts.values()))) == list(range(n))
        assert all((np.diff(rows) > 0).all() for rows in parts.values())


@pytest.mark.parametrize("seed", range(10))
def test_no_example_changes_its_split_when_others_come_and_go(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1000, 2)).astype(np.float32)
    before = {tuple(x[i]): name for name, rows in partition(table(x)).items() for i in rows}
    keep = rng.permutation(1000)[:rng.integers(300, 1000)]
    changed = np.concatenate([x[keep], rng.standard_normal((rng.integers(0, 500), 2))])
    changed = changed[rng.permutation(len(changed))].astype(np.float32)
    for name, rows in partition(table(changed)).items():
        assert all(before.get(tuple(changed[i]), name) == name for i in rows)


def test_equal_examples_are_together_unless_there_are_hardly_others():
    x = np.repeat(noise(600), 2, axis=0)
    for rows in partition(table(x)).values():
        assert (np.bincount(rows // 2)[np.unique(rows // 2)] == 2).all()
    few = np.random.default_rng(0).integers(0, 2, (1000, 3))
    parts = partition(table(few))
    assert all(len(np.unique(few[rows], axis=0)) == 8 for rows in parts.values())
    assert 60 < len(parts["test"]) < 140


def test_a_seed_decides_and_zero_is_the_default():
    source = table(noise(100))
    again = partition(table(noise(100)))
    assert all(np.array_equal(partition(source)[k], again[k]) for k in again)
    assert not np.array_equal(partition(source, 1)["test"], again["test"])


@pytest.mark.parametrize("seed", range(20))
def test_related_items_stay_together(seed):
    group = np.random.default_rng(seed).integers(0, 300, 2000)
    parts = partition(table(noise(2000), group=group), seed)
    seen = [set(group[rows]) for rows in parts.values()]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert 80 <= len(parts["test"]) <= 330 and 80 <= len(parts["validation"]) <= 330


def test_a_large_group_goes_to_train():
    group = np.where(np.arange(100) < 50, 0, np.arange(100))
    for seed in range(10):
        assert set(range(50)) <= set(partition(table(noise(100), group=group), seed)["train"])


def test_the_files_own_parts_are_kept():
    data = table(noise(300)).base
    source = make("own", data, parts={"train": np.arange(200), "test": np.arange(200, 300)})
    parts = partition(source)
    assert np.array_equal(parts["test"], np.arange(200, 300))
    assert 2 <= len(parts["validation"]) <= 25
    assert np.array_equal(np.sort(np.r_[parts["train"], parts["validation"]]), np.arange(200))
    assert len(split(source, "all")) == 300


def test_a_validation_part_without_test_is_tested_on():
    data = table(noise(100)).base
    parts = partition(make("v", data, parts={"train": np.arange(80),
                                             "validation": np.arange(80, 100)}))
    assert np.array_equal(parts["test"], np.arange(80, 100)) and len(parts["validation"]) == 4


def test_units_come_from_the_train_split_alone():
    x = noise(100, 2) * [3, 5] + [10, -4]
    parts = {"train": np.arange(0, 80), "validation": np.arange(80, 90), "test": np.arange(90, 100)}
    source = make("own", table(x).base, parts=parts)
    rows = parts["train"]
    space = split(source, "test").space
    np.testing.assert_allclose(space.location, x[rows].mean(0), rtol=1e-5)
    np.testing.assert_allclose(space.scale, x[rows].std(0), rtol=1e-5)
    x[90:] = 1e6
    assert make("own", table(x).base, parts=parts).space == space == source.space
    assert split(table(x), "train", seed=3).space != table(x).space


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
