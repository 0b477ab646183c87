"""Metric, geodesics and chart checks against surfaces whose geometry is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy.integrate import quad
from torch import Tensor

from latlas import geometry, models
from latlas.core.errors import CapabilityError, ConfigError, DataError
from latlas.networks.mlp import MLPDecoder

RNG = np.random.default_rng


def stereographic(z: Tensor) -> Tensor:
    """The unit sphere without its north pole."""
    square = z.square().sum(1, keepdim=True)
    return torch.cat([2 * z, square - 1], 1) / (square + 1)


def spherical(z: Tensor) -> Tensor:
    """The unit sphere by angle from the pole and longitude."""
    return torch.stack([z[:, 0].sin() * z[:, 1].cos(), z[:, 0].sin() * z[:, 1].sin(),
                        z[:, 0].cos()], 1)


def torus(z: Tensor, large: float = 2.0, small: float = 0.7) -> Tensor:
    """By angle round the axis and angle round the tube."""
    across = large + small * z[:, 1].cos()
    return torch.stack([across * z[:, 0].cos(), across * z[:, 0].sin(), small * z[:, 1].sin()], 1)


def swiss_roll(z: Tensor) -> Tensor:
    return torch.stack([z[:, 0] * z[:, 0].cos(), z[:, 0] * z[:, 0].sin(), z[:, 1]], 1)


def on_sphere(z: Any) -> np.ndarray:
    return stereographic(torch.as_tensor(z)).numpy()


def great_circle(a: Any, b: Any) -> np.ndarray:
    return 2 * np.arcsin(np.linalg.norm(on_sphere(a) - on_sphere(b), axis=1) / 2)


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    a, b = RNG(0).normal(size=(2, 32, 2))
    return a, b


def test_lengths_on_a_sphere(pairs: Any) -> None:
    paths = geometry.geodesics(geometry.pullback(stereographic), *pairs)
    exact = great_circle(*pairs)
    wrong = np.abs(paths.length - exact)
    assert np.median(wrong / exact) <= 1e-9 and (wrong / exact).max() <= 1e-7
    assert (wrong <= paths.error).all() and (paths.error <= 1e-5 * exact).all()
    assert (paths.line >= exact).all()
    np.testing.assert_allclose(geometry.pullback(stereographic).energy(paths.latents),
                               paths.lengths[2] ** 2, rtol=1e-9)  # constant speed


def test_polygons_converge_by_order_two_and_extrapolated_lengths_by_order_six(pairs: Any) -> None:
    metric, exact = geometry.pullback(stereographic), great_circle(*pairs)
    long = exact > 1  # whose errors are far above rounding
    raw, extrapolated = [], []
    for segments in (16, 32):
        paths = geometry.geodesics(metric, *pairs, segments=segments, tolerance=1e-13)
        raw.append(np.abs(paths.lengths[2] - exact)[long].mean())
        extrapolated.append(np.abs(paths.length - exact)[long].mean())
    assert math.log2(raw[0] / raw[1]) == pytest.approx(2, abs=0.1)
    assert math.log2(extrapolated[0] / extrapolated[1]) == pytest.approx(6, abs=0.7)


def test_two_charts_of_one_surface_agree(pairs: Any) -> None:
    x = on_sphere(np.concatenate(pairs))
    angles = np.stack([np.arccos(x[:, 2]), np.arctan2(x[:, 1], x[:, 0])], 1)
    # within half a turn both charts hold the shorter great circle
    front = (np.abs(angles[:32, 1] - angles[32:, 1]) < 2)
    one = geometry.geodesics(geometry.pullback(stereographic), *pairs).length
    two = geometry.geodesics(geometry.pullback(spherical), angles[:32], angles[32:]).length
    np.testing.assert_allclose(one[front], two[front], rtol=1e-7)


def test_swiss_roll_is_flat() -> None:
    a, b = RNG(1).uniform([5, 0], [12, 10], (2, 16, 2))
    paths = geometry.geodesics(geometry.pullback(swiss_roll), a, b, segments=64)
    along = np.array([quad(lambda t: math.hypot(1, t), s, e, epsabs=1e-12)[0]
                      for s, e in zip(a[:, 0], b[:, 0], strict=True)])
    exact = np.hypot(along, a[:, 1] - b[:, 1])
    wrong = np.abs(paths.length - exact)
    assert (wrong / exact).max() <= 1e-5 and (wrong <= paths.error).all()
    outside = np.linalg.norm(np.diff(swiss_roll(torch.as_tensor(np.stack([a, b]).reshape(-1, 2)))
                                     .numpy().reshape(2, -1, 3), axis=0)[0], axis=1)
    assert (exact > outside).all()  # and a straight line of the data would be shorter


def test_closed_geodesics_of_a_torus() -> None:
    """Meridians, and the inner and the outer equator, are geodesics."""
    metric = geometry.pullback(torus)
    a = np.array([[0.3, -1.0], [0.0, 0.0], [0.0, math.pi]])
    b = np.array([[0.3, 1.2], [0.8, 0.0], [1.5, math.pi]])
    paths = geometry.geodesics(metric, a, b)
    np.testing.assert_allclose(paths.length, [0.7 * 2.2, 2.7 * 0.8, 1.3 * 1.5], rtol=1e-7)


def test_clairaut_on_a_torus() -> None:
    """ρ² dφ/ds is constant along a geodesic of a surface of revolution."""
    a, b = RNG(2).uniform(-1, 1, (2, 8, 2))
    paths = geometry.geodesics(geometry.pullback(torus), a, b, segments=64)
    z = paths.latents
    middle, turn = (z[:, 1:] + z[:, :-1]) / 2, np.diff(z[..., 0], axis=1)
    momentum = (2 + 0.7 * np.cos(middle[..., 1]))**2 * turn * 64 / paths.length[:, None]
    assert (momentum.std(1) <= 2e-3).all() and momentum.std() > 0.1


def test_a_linear_decoder_has_straight_geodesics_of_exact_length() -> None:
    weight = torch.as_tensor(RNG(3).normal(size=(10, 3)))
    a, b = RNG(4).normal(size=(2, 6, 3))
    paths = geometry.geodesics(geometry.pullback(lambda z: z @ weight.T), a, b)
    line = a[:, None] + np.linspace(0, 1, 33)[:, None] * (b - a)[:, None]
    np.testing.assert_allclose(paths.latents, line, atol=1e-8)
    np.testing.assert_allclose(paths.length, np.linalg.norm((a - b) @ weight.numpy().T, axis=1),
                               rtol=1e-12)
    np.testing.assert_allclose(paths.length, paths.line, rtol=1e-12)
    np.testing.assert_allclose(paths.velocity, b - a, atol=1e-8)


def test_lengths_of_pca_are_exact(tmp_path: Any) -> None:
    data = tiny.table()
    model: Any = tiny.train(tmp_path, "pca", data, tiny.small("pca", latent_dim=2))[0]
    a, b = RNG(5).normal(size=(2, 5, 2))
    paths = geometry.geodesics(geometry.pullback(model), a, b)
    exact = np.linalg.norm((a - b) @ model.weight.numpy().T, axis=1)
    np.testing.assert_allclose(paths.length, exact, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n, e in models.MODELS.items() if "decode" in e.provides])
def test_metric_tensors_of_every_model_equal_those_by_reverse_mode(name: str) -> None:
    model = tiny.build(name, tiny.images(), tiny.small(name))
    for parameter in model.parameters():  # layers that begin at zero bend nothing
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator()
                                             .manual_seed(parameter.numel()))
    condition = torch.tensor([0]) if model.condition_dim else None
    metric = geometry.pullback(model, condition=condition)
    z = torch.as_tensor(RNG(6).normal(size=(3, model.latent_dim)))
    jacobian: Any = torch.autograd.functional.jacobian
    j = torch.stack([jacobian(lambda v: metric.embed(v[None])[0], row) for row in z])
    expected = (j.mT @ j).numpy()
    np.testing.assert_allclose(metric.tensors(z), expected, atol=1e-10 * np.abs(expected).max())


def test_single_precision_is_good_to_six_digits() -> None:
    torch.manual_seed(0)
    net, z = MLPDecoder((1, 28, 28), 8, width=64), RNG(7).normal(size=(50, 8))
    fast, exact = (geometry.pullback(net, dtype=dtype).tensors(z)
                   for dtype in (torch.float32, torch.float64))
    assert np.abs(fast - exact).max() <= 1e-6 * np.abs(exact).max()


def test_magnification_and_condition_number_of_a_torus() -> None:
    metric, z = geometry.pullback(torus), RNG(8).uniform(-3, 3, (20, 2))
    across = 2 + 0.7 * np.cos(z[:, 1])
    np.testing.assert_allclose(metric.magnification(z), 0.7 * across, rtol=1e-12)
    np.testing.assert_allclose(metric.condition_number(z), across / 0.7, rtol=1e-12)
    half = metric.on_plane([0.0, 1.0], [[0.5, 0], [0, 1]]).magnification((z - [0, 1]) * [2, 1])
    np.testing.assert_allclose(half, 0.35 * across, rtol=1e-12)
    assert (metric.rank(z) == 2).all()


def test_exponential_map_undoes_the_logarithm(pairs: Any) -> None:
    metric, (a, b) = geometry.pullback(spherical), (np.array([[1.0, 0.1], [2.0, -1.0]]),
                                                   np.array([[1.5, 1.3], [0.7, 0.2]]))
    velocity = geometry.log_map(metric, a, b)
    np.testing.assert_allclose(geometry.exp_map(metric, a, velocity), b, atol=1e-4)
    g = metric.tensors(a)
    speed = np.sqrt(np.einsum("pi,pij,pj->p", velocity, g, velocity))
    np.testing.assert_allclose(speed, geometry.geodesics(metric, a, b).length, rtol=1e-5)
    # at constant speed: half the velocity leads half the way
    half = geometry.exp_map(metric, a, velocity / 2)
    np.testing.assert_allclose(geometry.geodesics(metric, a, half).length,
                               geometry.geodesics(metric, a, b).length / 2, rtol=1e-5)


def test_exponential_map_of_a_weighted_metric_is_hyperbolic() -> None:
    """1/y² times the flat metric: the half plane, whose geodesics are half circles."""
    metric = geometry.Metric(lambda z: z, lambda z: z[:, 1]**-2.0)
    a, b = np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 1.5], [-0.5, 0.7]])
    exact = np.arccosh(1 + np.square(a - b).sum(1) / (2 * a[:, 1] * b[:, 1]))
    paths = geometry.geodesics(metric, a, b, segments=64)
    np.testing.assert_allclose(paths.length, exact, rtol=1e-7)
    np.testing.assert_allclose(geometry.exp_map(metric, a, paths.velocity), b, atol=1e-5)


def test_frechet_mean_of_points_on_a_sphere() -> None:
    z = RNG(9).normal(size=(12, 2)) * 0.3 + [0.5, 0.3]
    metric = geometry.pullback(stereographic)
    mean = geometry.frechet_mean(metric, z)
    x, m = on_sphere(z), on_sphere(mean.mean[None])[0]
    angle = np.arccos(x @ m)
    tangent = (x - (x @ m)[:, None] * m) * (angle / np.sin(angle))[:, None]
    assert np.linalg.norm(tangent.mean(0)) <= 1e-5  # where the logarithms cancel
    assert mean.variance == pytest.approx(np.square(angle).mean(), rel=1e-6)


def test_k_medoids_by_geodesic_distance() -> None:
    """Two strips of a swiss roll lie closer in space than their own ends."""
    rng = RNG(10)
    z = np.concatenate([rng.uniform([5, 0], [5.6, 14], (9, 2)),
                        rng.uniform([11.3, 0], [11.9, 14], (9, 2))])
    distances = geometry.distances(geometry.pullback(swiss_roll), z, segments=64)
    np.testing.assert_array_equal(distances, distances.T)
    label = geometry.k_medoids(distances, 2).label
    assert len({*label[:9]}) == len({*label[9:]}) == 1 and label[0] != label[-1]
    near = geometry.graph_distances(geometry.pullback(swiss_roll), z, neighbours=17)
    assert (near >= 0.95 * distances).all() and near[0, -1] <= 1.2 * distances[0, -1]


def test_density_bends_geodesics_along_the_data() -> None:
    codes = ring_of_codes()
    metric = geometry.density(codes)
    paths = geometry.geodesics(metric, codes[:8], codes[8:16])
    radius = np.linalg.norm(paths.latents, axis=2)
    assert (np.abs(radius - 1) < 0.25).all() and (paths.length <= paths.line).all()
    # the volume element is the inverse density
    inside, at = metric.magnification([[0.0, 0.0]])[0], metric.magnification(codes)
    assert inside > 100 * np.median(at)


def test_uncertain_decoders_keep_geodesics_near_the_codes() -> None:
    codes = ring_of_codes()
    plain, metric = geometry.pullback(lambda z: z), geometry.uncertain(lambda z: z, codes,
                                                                       noise=0.05)
    places = torch.as_tensor(np.concatenate([codes, [[9.0, 9.0]]]))
    sigma = metric.embed(places)[:, 2]
    assert float(sigma[:-1].median()) == pytest.approx(0.05, rel=0.2)
    assert float(sigma[-1]) == pytest.approx(5.0, rel=1e-3)
    opposite = codes[np.argsort(np.abs(codes[:, 1]))][:40]
    left, right = opposite[opposite[:, 0] < 0][:5], opposite[opposite[:, 0] > 0][:5]
    straight = geometry.geodesics(plain, left, right).latents
    bent = geometry.geodesics(metric, left, right).latents
    assert (np.linalg.norm(straight, axis=2).min(1) < 0.2).all()
    assert (np.linalg.norm(bent, axis=2).min(1) > 0.7).all()


def ring_of_codes() -> np.ndarray:
    codes = RNG(11).normal(size=(600, 2))
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    return codes + RNG(12).normal(size=codes.shape) * 0.05


def test_the_metric_of_an_ensemble_is_the_mean_of_its_members() -> None:
    members = [stereographic, spherical, torus]
    z = RNG(13).normal(size=(5, 2))
    mean = np.mean([geometry.pullback(member).tensors(z) for member in members], 0)
    np.testing.assert_allclose(geometry.ensemble(members).tensors(z), mean, atol=1e-14)


def test_folds_and_overlaps_are_counted() -> None:
    square = RNG(14).uniform(-1, 1, (800, 2))

    def fold(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0].abs(), z[:, 1], 0.1 * z[:, 1]**2], 1)

    def cylinder(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0].cos(), z[:, 0].sin(), z[:, 1]], 1)

    folded = geometry.chart_checks(geometry.pullback(fold), square)
    assert folded.overlaps.mean() > 0.5 and folded.flips.any()
    assert (np.abs(square[folded.flips, 0]) < 0.2).all()  # beside the crease alone
    once = geometry.chart_checks(geometry.pullback(cylinder), square * [2.8, 1])
    twice = geometry.chart_checks(geometry.pullback(cylinder), square * [4.5, 1])
    assert once.folds == 0 and not twice.flips.any()
    doubled = np.abs(square[:, 0] * 4.5) > 2 * math.pi - 4.5
    assert twice.overlaps[doubled].mean() > 0.7 and not twice.overlaps[
        np.abs(square[:, 0] * 4.5) < 2 * math.pi - 4.7].any()
    roll = RNG(15).uniform([5, 0], [14, 20], (1000, 2))
    assert geometry.chart_checks(geometry.pullback(swiss_roll), roll).folds == 0


def test_orders_of_smoothness() -> None:
    z = RNG(16).uniform(-1, 1, (400, 2))
    smooth = geometry.smoothness_order(geometry.pullback(torus), z)
    assert np.abs(smooth - 2).max() < 0.1

    def edge(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0].abs(), z[:, 1]], 1)

    def jump(z: Tensor) -> Tensor:
        return torch.stack([torch.sign(z[:, 0]) + z[:, 0], z[:, 1]], 1)

    # every step crosses the edge at 0
    z = np.stack([np.full(400, 1e-9), z[:, 1]], 1)
    assert np.nanmedian(orders(edge, z)) == pytest.approx(1, abs=0.01)
    assert np.nanmedian(orders(jump, z)) == pytest.approx(0, abs=0.05)


def orders(function: Any, z: np.ndarray) -> np.ndarray:
    wide = np.concatenate([z, [[1.0, 0.0], [-1.0, 0.0]] * 200])  # their spread sets the step
    return geometry.smoothness_order(geometry.pullback(function), wide)[:len(z)]


def test_an_inverse_has_no_error_and_a_wrong_one_has() -> None:
    z = RNG(17).normal(size=(100, 2))
    x = on_sphere(z)

    def inverse(x: Tensor) -> Tensor:
        return x[:, :2] / (1 - x[:, 2:])

    good = geometry.chart_checks(geometry.pullback(stereographic), z, encode=inverse, x=x)
    assert good.latent_error.max() < 1e-9 and good.data_error.max() < 1e-9
    shifted = geometry.chart_checks(geometry.pullback(stereographic), z, x=x + 0.1,
                                    encode=lambda x: inverse(x) + torch.as_tensor(z.std(0)))
    np.testing.assert_allclose(shifted.latent_error, 1, rtol=1e-9)
    spread = np.sqrt(np.square(x - x.mean(0)).sum(1).mean())
    np.testing.assert_allclose(shifted.data_error, math.sqrt(0.03) / spread, rtol=1e-6)


def test_bad_input_is_refused_in_one_line() -> None:
    a, b = RNG(18).normal(size=(2, 4, 2))
    flat = geometry.pullback(lambda z: torch.ones(len(z), 3, dtype=z.dtype) + 0 * z[:, :1])
    for error, words, call in (
            (DataError, "rank 0", lambda: geometry.geodesics(flat, a, b)),
            (DataError, "as many ends", lambda: geometry.geodesics(flat, a, b[:3])),
            (DataError, "finite", lambda: geometry.geodesics(flat, a, b * np.nan)),
            (ConfigError, "multiple of 4", lambda: geometry.geodesics(flat, a, b, segments=10)),
            (CapabilityError, "no decoder", lambda: geometry.pullback(
                tiny.build("flow-matching", tiny.points(), tiny.small("flow-matching")))),
            (CapabilityError, "no mean", lambda: geometry.pullback(DrawsOnly()).tensors(a)),
            (ConfigError, "one decoder", lambda: geometry.ensemble([])),
            (DataError, "2 codes", lambda: geometry.density(a[:1])),
            (ConfigError, "k=9", lambda: geometry.k_medoids(np.zeros((4, 4)), 9)),
            (DataError, "another component", lambda: geometry.graph_distances(
                geometry.pullback(stereographic), np.concatenate([a, b + 50]), neighbours=2)),
            (DataError, "no full rank", lambda: geometry.exp_map(flat, a, b))):
        with pytest.raises(error, match=words) as raised:
            call()
        assert "\n" not in str(raised.value)


class DrawsOnly(torch.nn.Module):
    """A decoder of draws."""

    class Draws:
        def sample(self, noise: Any) -> Tensor:
            return torch.zeros(1)

        def log_prob(self, x: Tensor) -> Tensor:
            return torch.zeros(1)

    def decode(self, z: Tensor, *, condition: Any = None) -> Any:
        return self.Draws()
