"""Built-in sources against what is known of them."""

import subprocess
import sys

import numpy as np
import pytest

from latlas.core.errors import DataError
from latlas.data import info, open_source, split
from latlas.data.standard import (
    SHAPES,
    draw,
    ellipse,
    equal_images,
    factor_values,
    heart,
    square,
    triangle,
)


def test_importing_stays_light():
    code = ("import sys, latlas.data; heavy = {'torch', 'sklearn', 'scipy', 'polars', 'PIL'};"
            "sys.exit(len(heavy & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data, truth = split(open_source("digits"), "all"), load_digits()
    assert data.x.dtype == np.uint8 and data.space.levels == 17
    np.testing.assert_array_equal(data.x[:, 0], truth.images)
    np.testing.assert_array_equal(data.label, truth.target)
    assert open_source("digits", label="none").space.classes == ()


@pytest.mark.parametrize("name", ["ring", "grid", "moons", "swiss-roll", "shapes"])
def test_seeds_and_counts(name):
    one, same = open_source(name, n=50), open_source(name, n="50", seed=0)
    other = open_source(name, n=50, seed=1)
    np.testing.assert_array_equal(one.base.x, same.base.x)
    assert not np.array_equal(one.base.x, other.base.x) and len(one.base) == 50
    assert one.spec == {"source": name, "n": 50}
    np.testing.assert_array_equal(open_source(one.spec).base.x, one.base.x)


@pytest.mark.parametrize(("name", "modes", "sd"), [("ring", 8, 0.01), ("grid", 25, 0.05)])
def test_mixtures(name, modes, sd):
    data = open_source(name).base
    centres = np.array([eval(c) for c in data.space.classes])
    error = data.x - centres[data.label]
    assert len(data) == 10_000 and len(centres) == modes
    np.testing.assert_allclose(error.std(), sd, rtol=0.03)
    norms = np.hypot(*centres.T)
    expected = np.ones(8) if name == "ring" else np.hypot(*np.mgrid[-4:5:2, -4:5:2].reshape(2, -1))
    np.testing.assert_allclose(norms, expected, atol=1e-3)


def test_the_swiss_roll_lies_on_its_spiral():
    data = open_source("swiss-roll", n=200, noise=0).base
    np.testing.assert_allclose(np.hypot(*data.x.T), data.factors[:, 0] / 5, rtol=1e-5)


@pytest.mark.parametrize(("shape", "area"), [
    (square, 1.4**2), (ellipse, np.pi / 2), (triangle, 3 * np.sqrt(3) / 4 * 0.9**2),
    (heart, (0.5 + np.pi / 8) / 0.66**2)])
def test_sprites_cover_their_area_at_any_angle(shape, area):
    """The heart is a square of side 1/√2 and two half discs of diameter 1/√2, over 0.66²."""
    index = np.zeros((6, 6), np.int64)
    index[:, 1], index[:, 2], index[:, 3:5] = 5, [0, 3, 7, 11, 20, 33], 16
    covered = draw(shape, factor_values(index), 128).mean(axis=(1, 2))
    np.testing.assert_allclose(covered, area * 0.18**2, rtol=0.02)


def test_sprites_are_where_their_factors_say():
    data = open_source("shapes", n=40, image_size=96).base
    x = data.x[:, 0].astype(np.float64)
    ticks = (np.arange(96) + 0.5) / 96
    centre = np.stack([(x.sum(axis=a) * ticks).sum(-1) / x.sum((1, 2)) for a in (1, 2)], axis=1)
    np.testing.assert_allclose(centre, data.factors[:, 3:5], atol=0.001)
    assert data.space.classes == SHAPES
    np.testing.assert_array_equal(data.label, data.factors[:, 0])


def test_equal_sprites_share_a_group():
    turned = np.array([[0, 2, 1, 3, 3, 0], [0, 2, 11, 3, 3, 0], [2, 2, 1, 3, 3, 0],
                       [2, 2, 11, 3, 3, 0]])
    group = equal_images(turned)
    assert group[0] == group[1] and len(np.unique(group)) == 3
    assert equal_images(turned[1:]).tolist() == group[1:].tolist()  # whatever else there is
    values = factor_values(turned)
    first, second = draw(square, values[:2], 64)
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_colour_and_size():
    source = open_source("shapes", n=10, image_size="16", colour="true")
    assert source.space.shape == (3, 16, 16) and source.space.factors[-1] == "hue"
    assert info(source)["classes"].keys() == set(SHAPES)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("digts", {}, "did you mean 'digits'"),
    ("ring", {"m": 3}, "unknown option 'm'"),
    ("shapes", {"image_sise": 3}, "did you mean 'image_size'"),
    ("ring", {"n": "many"}, "n='many' is not a valid int"),
    ("ring", {"n": 0}, "n=0"),
    ("swiss-roll", {"label": "t"}, "no labels to choose from"),
    ("shapes", {"colour": "perhaps"}, "not a valid bool"),
])
def test_bad_requests(name, options, message):
    with pytest.raises(DataError, match=message):
        open_source(name, **options)
