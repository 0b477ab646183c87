"""Feature extractors: shapes, determinism, what is refused, and that a classifier classifies."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from torch import nn

from latlas.core.errors import ConfigError, DataError
from latlas.core.space import Images, Table
from latlas.metrics.features import Classifier, features, train_classifier

DIGITS = Images((1, 8, 8), levels=17)
KNOWN = [0.1355, -0.3848, 0.1483]
TABLE = Table.of_numbers(3, location=(1.0, 2.0, 3.0), scale=(2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x.reshape(-1, 1, 8, 8).astype(np.uint8), y.astype(np.int64)


@pytest.fixture(scope="module")
def classifier(digits):
    x, y = digits
    return features("auto", DIGITS, x[:1200], y[:1200])


def noise(shape, n=6, levels=256):
    return np.random.default_rng(0).integers(0, levels, (n, *shape)).astype(np.uint8)


def test_pixels_are_model_units():
    out = features("pixels", DIGITS)(np.array([[[[0] * 8] * 7 + [[16] * 8]]], np.uint8))
    np.testing.assert_array_equal(out, [[-1.0] * 56 + [1.0] * 8])
    assert out.dtype == np.float32


def test_pixels_of_a_table_are_standardised():
    out = features("pixels", TABLE)(np.array([[3.0, 2.0, 1.0]]))
    np.testing.assert_allclose(out, [[1, 0, -1]])


def test_columns_are_standardised_on_the_training_data():
    train = np.random.default_rng(1).normal(5, 3, (100, 3))
    train[:, 2] = 7
    out = features("auto", TABLE, train)(train)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(0), [1, 1, 0], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 31), (4, 1, 5), (2, 64, 32)])
def test_random_convolutions_take_any_size(shape):
    space, x = Images(shape), noise(shape)
    out = features("random-conv", space)(x)
    assert out.shape == (6, 64)
    assert np.isfinite(out).all()
    assert 0.05 < out.std() < 20


def test_random_convolutions_follow_their_seed_and_touch_no_global_state():
    x = noise((1, 8, 8))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (features("random-conv", DIGITS, seed=s)(x) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_random_convolutions_have_known_values():
    """The same weights on every machine: published metrics stay comparable."""
    out = features("random-conv", DIGITS)(np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8) % 17)
    np.testing.assert_allclose(out[0, :3], KNOWN, atol=1e-4)


def test_a_spectrum_is_the_mean_square_of_cosine_transforms():
    space = Images((3, 8, 10))
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 10), np.uint8)
    output = features("spectrum", space)(x).reshape(2, 3, 4, 4)
    red, green, blue = (x[1, c] / 127.5 for c in range(3))
    colours = ((red + green + blue) / 3**.5, (red - blue) / 2**.5, (red - 2 * green + blue) / 6**.5)
    for k, plane in enumerate(colours):
        squares = [dctn(plane[i:i + 4, j:j + 4], norm="ortho")**2
                   for i in range(0, 5, 2) for j in range(0, 7, 2)]
        expected = np.log(np.mean(squares, 0) + 0.02**2)
        np.testing.assert_allclose(output[1, k], expected, atol=1e-4)


def test_a_spectrum_knows_blur_from_grain():
    space, rng = Images((1, 16, 16)), np.random.default_rng(0)
    sharp = rng.integers(0, 256, (40, 1, 16, 16), np.uint8)
    blurred = np.stack([gaussian_filter(x[0].astype(float), 1)[None] for x in sharp])
    fine = features("spectrum", space)
    change = (fine(blurred) - fine(sharp)).mean(0).reshape(4, 4)
    assert change[3, 3] < change[1, 1] < change[0, 0] + 0.5
    assert change[3, 3] < -3


def test_classifier_knows_unseen_digits(classifier, digits):
    x, y = digits
    assert isinstance(classifier, Classifier)
    assert classifier.accuracy(x[1200:], y[1200:]) > 0.9
    assert classifier(x[1200:]).shape == (597, 64)


def test_classifier_is_seeded(digits):
    x, y = digits
    one, two, other = (train_classifier(DIGITS, x[:300], y[:300], seed=s, steps=20)(x[:4])
                       for s in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0.01


def test_items_without_label_are_left_out(digits):
    x, y = digits
    nowhere = np.where(np.arange(400) < 300, y[:400], -1)
    one = train_classifier(DIGITS, x[:400], nowhere, steps=20)
    two = train_classifier(DIGITS, x[:300], y[:300], steps=20)
    np.testing.assert_array_equal(one(x[:4]), two(x[:4]))


def test_classifier_of_a_table():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 400)
    x = rng.normal(size=(400, 3)) + 4 * y[:, None]
    result = features("classifier", TABLE, x, y)
    assert isinstance(result, Classifier)
    assert result.accuracy(x, y) > 0.98


def test_auto_without_labels():
    assert features("auto", DIGITS)(noise((1, 8, 8), levels=17)).shape == (6, 64)
    x = np.random.default_rng(3).normal(size=(4, 3))
    standardised = features("columns", TABLE, x)(x)
    np.testing.assert_array_equal(features("auto", TABLE, x)(x), standardised)
    one_class = features("auto", DIGITS, noise((1, 8, 8)), np.zeros(6, np.int64))
    assert not isinstance(one_class, Classifier)


class Halves(nn.Module):
    """Means of the upper and lower half; dropout shows whether it was put in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(torch.stack([x[:, :, :4].mean((2, 3)), x[:, :, 4:].mean((2, 3))], 1))


def halves(x):
    v = x.astype(np.float64) / 8 - 1
    return np.stack([v[:, 0, :4].mean((1, 2)), v[:, 0, 4:].mean((1, 2))], 1)


def test_a_module_is_given_model_units_and_left_in_its_mode():
    x, module = noise((1, 8, 8), n=700, levels=17), Halves()
    np.testing.assert_allclose(features(module, DIGITS)(x), halves(x), atol=1e-6)
    assert module.training


def test_a_torchscript_file(tmp_path):
    x, path = noise((1, 8, 8), levels=17), tmp_path / "halves.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Halves().eval()).save(path)
    np.testing.assert_allclose(features(path, DIGITS)(x), halves(x), atol=1e-6)


def test_an_exported_program(tmp_path):
    x, path = noise((1, 8, 8), n=700, levels=17), tmp_path / "halves.pt2"
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(Halves().eval(), (torch.zeros(3, 1, 8, 8),),
                                          dynamic_shapes=({0: batch},)), path)
    np.testing.assert_allclose(features(path, DIGITS)(x), halves(x), atol=1e-6)


@pytest.mark.parametrize(("source", "space", "words"), [
    ("random-cov", DIGITS, "did you mean 'random-conv'"),
    ("random-conv", TABLE, "need images"),
    ("spectrum", TABLE, "need images"),
    ("spectrum", Images((1, 3, 9)), "at least 4 by 4"),
    ("classifier", TABLE, "need training data"),
    ("columns", TABLE, "need training data"),
])
def test_refusals(source, space, words):
    with pytest.raises(ConfigError, match=words):
        features(source, space)


def test_classifier_refuses_missing_or_single_labels():
    x = noise((1, 8, 8))
    with pytest.raises(ConfigError, match="need labels"):
        features("classifier", DIGITS, x)
    with pytest.raises(ConfigError, match="at least two classes"):
        features("classifier", DIGITS, x, np.zeros(6, np.int64))
    with pytest.raises(DataError, match="2 labels for 6 examples"):
        features("classifier", DIGITS, x, np.arange(2))


@pytest.mark.parametrize("name", ["broken.pt", "broken.pt2"])
def test_unreadable_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"not a module")
    with pytest.raises(ConfigError, match=name):
        features(path, DIGITS)
