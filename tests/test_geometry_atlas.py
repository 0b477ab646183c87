"""Geodesics across the charts of an atlas of the sphere, and decoders trained anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from latlas import geometry
from latlas.core.distributions import PointMass
from latlas.core.errors import CapabilityError, DataError
from latlas.core.model import Charts
from latlas.core.space import Points
from latlas.geometry.atlas import atlas_geodesics


class Sphere:
    """Two stereographic charts, of the southern and the northern half; ``copies`` beside each other
    are spheres with nothing between."""

    n_charts = 2

    def __init__(self, copies: int = 1) -> None:
        self.n_charts, self.space = 2 * copies, Points((3,))

    def decode_chart(self, k: int, z: Tensor) -> PointMass:
        square = z.square().sum(1, keepdim=True)
        up = (square - 1) * (1 if k % 2 == 0 else -1)
        return PointMass(torch.cat([2 * z, up], 1) / (square + 1) + 10.0 * (k // 2))

    def responsibilities(self, x: Tensor) -> Tensor:
        ball = (x[:, :1] > 5).to(x)
        north = (x[:, 2:] - 10 * ball > 0).to(x)
        share = torch.cat([1 - north, north], 1)
        return torch.cat([(1 - ball) * share, ball * share], 1)[:, :self.n_charts]

    def encode_chart(self, x: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        chart = self.responsibilities(x).argmax(1) if k is None else torch.full((len(x),), k)
        x = x - 10.0 * (chart // 2)[:, None]
        sign = 1 - 2.0 * (chart % 2)
        return chart, x[:, :2] / (1 - sign * x[:, 2])[:, None]


def on_sphere(n: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_geodesics_across_charts_are_great_circles() -> None:
    a, b, landmarks = on_sphere(24, 0), on_sphere(24, 1), on_sphere(400, 2)
    assert isinstance(Sphere(), Charts)
    paths = atlas_geodesics(Sphere(), a, b, landmarks=landmarks)
    exact = 2 * np.arcsin(np.linalg.norm(a - b, axis=1) / 2)
    crossing = (paths.charts[:, :1] != paths.charts[:, -1:])[:, 0]
    assert 6 < crossing.sum() < 18 and (paths.seams[crossing] > 0).all()
    np.testing.assert_allclose(paths.length, exact, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(paths.points, axis=2), 1, rtol=1e-12)
    np.testing.assert_allclose(paths.points[:, 0], a, atol=1e-9)
    np.testing.assert_allclose(paths.points[:, -1], b, atol=1e-9)


def test_pairs_on_two_components_have_no_path() -> None:
    a, landmarks = on_sphere(4, 3), on_sphere(200, 4)
    both = np.concatenate([landmarks, landmarks + 10])
    with pytest.raises(DataError, match=r"2 of 4 pairs have no path.*another component") as raised:
        atlas_geodesics(Sphere(2), a, np.concatenate([a[:2] * -1, a[2:] + 10]), landmarks=both)
    assert "\n" not in str(raised.value)


def test_decoders_trained_anew_share_a_latent_space_and_differ(tmp_path: Any) -> None:
    data = tiny.images()
    model: Any = tiny.build("ae", data, tiny.small("ae"))
    x = data.space.to_model(torch.as_tensor(data.x).float())
    z = np.random.default_rng(0).normal(size=(len(x), 3))
    members = geometry.retrained_decoders(model, z, x, 2, steps=150, learning_rate=1e-2)
    again = geometry.retrained_decoders(model, z, x, 1, steps=150, learning_rate=1e-2)[0]
    codes = torch.as_tensor(z).float()

    def error(decoder: Any) -> float:
        with torch.no_grad():
            return float((decoder.decode(codes).mean - x).square().mean())

    assert max(map(error, members)) < 0.7 * min(error(model), float(x.var()))
    torch.testing.assert_close(again.decode(codes).mean, members[0].decode(codes).mean)
    assert float((members[0].decode(codes).mean - members[1].decode(codes).mean).abs().max()) > 0.01
    for ours, theirs in zip(members[0].encoder.parameters(), model.encoder.parameters(),
                            strict=True):
        assert torch.equal(ours, theirs)
    metric = geometry.ensemble(members)
    mean = np.mean([geometry.pullback(m).tensors(z[:3]) for m in members], 0)
    np.testing.assert_allclose(metric.tensors(z[:3]), mean, rtol=1e-9)


def test_what_cannot_be_trained_anew_is_refused() -> None:
    z, x = np.zeros((4, 2)), np.zeros((4, 5))
    for model, words in ((tiny.build("flow-matching", tiny.points(), tiny.small("flow-matching")),
                          "no decoder"),
                         (tiny.build("pca", tiny.table(), tiny.small("pca", latent_dim=2)),
                          "no weights")):
        with pytest.raises(CapabilityError, match=words):
            geometry.retrained_decoders(model, z, x, 1)
    with pytest.raises(DataError, match="4 codes of 3"):
        geometry.retrained_decoders(None, z, x[:3])
