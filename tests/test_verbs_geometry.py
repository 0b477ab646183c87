"""``latlas geometry``, ``interpolate --method geodesic`` and the report's section."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_geometry_atlas import Sphere, on_sphere
from torch import Tensor

import latlas
from latlas import geometry
from latlas.cli.__main__ import run as cli
from latlas.core.distributions import PointMass
from latlas.core.errors import CapabilityError, ConfigError, DataError
from latlas.core.model import Model
from latlas.core.space import Points
from latlas.data.dataset import Dataset


class Roll(Model):
    """A swiss roll with its exact inverse; ``flat`` decodes everything to one point."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__(None, Points((3,), classes=("near", "far")))
        self.latent_dim, self.flat = 2, flat

    def encode(self, x: Tensor, *, condition: Any = None) -> PointMass:
        return PointMass(torch.stack([x[:, :2].norm(dim=1), x[:, 2]], 1))

    def decode(self, z: Tensor, *, condition: Any = None) -> PointMass:
        x = torch.stack([z[..., 0] * z[..., 0].cos(), z[..., 0] * z[..., 0].sin(), z[..., 1]], -1)
        return PointMass(0 * x if self.flat else x)


@pytest.fixture
def data() -> Dataset:
    z = np.random.default_rng(0).uniform([5, 0], [12, 10], (200, 2))
    x = Roll().decode(torch.as_tensor(z)).mean.numpy().astype(np.float32)
    return Dataset(x, Roll().space, (z[:, 0] > 8).astype(np.int64))


def along(t: np.ndarray) -> np.ndarray:
    """Length of the roll from its axis."""
    return (t * np.hypot(1, t) + np.arcsinh(t)) / 2


def test_measures_of_a_swiss_roll(data: Dataset) -> None:
    result = latlas.measure_geometry(Roll(), data=data, pairs=6)
    z = result.codes
    i, j = result.pairs["start"], result.pairs["end"]
    exact = np.hypot(along(z[i, 0]) - along(z[j, 0]), z[i, 1] - z[j, 1])
    np.testing.assert_allclose(result.pairs["length"], exact, rtol=1e-3)
    assert (np.abs(result.pairs["length"] - exact) <= result.pairs["error"] + 1e-5 * exact).all()
    facts = result.facts()
    assert facts["full_rank"] == 1 and facts["orientation_flips"] == facts["overlaps"] == 0
    assert facts["latent_error"] < 1e-5 and facts["data_error"] < 1e-5
    assert facts["smoothness_order"] == pytest.approx(2, abs=0.01)
    stretch = np.hypot(1, z[:, 0])
    assert facts["condition_number"] == pytest.approx(np.median(stretch), rel=1e-3)
    low, high = result.extent[:2]
    np.testing.assert_allclose(
        result.magnification[0], np.hypot(1, np.linspace(low, high, len(result.magnification))))
    assert result.classes == ("near", "far") and len(result.label) == 200


def test_results_are_written(data: Dataset, tmp_path: Any) -> None:
    result = latlas.measure_geometry(Roll(), data=data, pairs=3, metric="density")
    result.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "density metric" in page and "data:image/png" in page and "condition number" in page
    result.save(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    result.save(tmp_path / "pairs.csv")
    header, *rows = (tmp_path / "pairs.csv").read_text().splitlines()
    assert header == "start,end,length,error,line_length,latent_distance" and len(rows) == 3
    figure = result.figure()
    assert figure.axes[0].get_xlabel() == "latent dimension 0" and len(figure.axes) == 2
    assert "geodesic_over_line" in result.text()


def test_a_geodesic_walk_goes_at_constant_speed_along_the_roll(data: Dataset) -> None:
    a, b = [6.0, 1.0], [11.0, 5.0]
    walk = latlas.interpolate(Roll(), a, b, steps=41, method="geodesic").values
    sides = np.linalg.norm(np.diff(walk, axis=0), axis=1)
    exact = math.hypot(float(along(np.array(11.0)) - along(np.array(6.0))), 4)
    assert sides.sum() == pytest.approx(exact, rel=1e-3) and sides.std() < 1e-3 * sides.mean()
    line = latlas.interpolate(Roll(), a, b, steps=41).values
    assert np.linalg.norm(np.diff(line, axis=0), axis=1).std() > 0.1
    dense = latlas.interpolate(Roll(), 0, 1, data=data, steps=9, method="geodesic",
                               metric="density")
    np.testing.assert_allclose(dense.values[[0, -1]], data.x[:2], atol=1e-3)


class Globe(Model):
    """Two stereographic charts; flat latents are coordinates and the number of the chart."""

    def __init__(self) -> None:
        super().__init__(None, Points((3,)))
        self.charts, self.n_charts, self.latent_dim = Sphere(), 2, 3

    def encode(self, x: Tensor, *, condition: Any = None) -> PointMass:
        chart, z = self.encode_chart(x)
        return PointMass(torch.cat([z, chart[:, None].to(z)], 1))

    def decode(self, z: Tensor, *, condition: Any = None) -> PointMass:
        both = [self.decode_chart(k, z[:, :2]).mean for k in (0, 1)]
        return PointMass(torch.where(z[:, 2:] > 0.5, both[1], both[0]))

    def decode_chart(self, k: int, z: Tensor) -> PointMass:
        return self.charts.decode_chart(k, z)

    def responsibilities(self, x: Tensor) -> Tensor:
        return self.charts.responsibilities(x)

    def encode_chart(self, x: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        return self.charts.encode_chart(x, k)


def test_walks_and_measures_of_an_atlas() -> None:
    x = on_sphere(300, 5).astype(np.float32)
    x[:2] = [[0, 0.6, 0.8], [0, 0.6, -0.8]]
    data = Dataset(x, Points((3,)))
    walk = latlas.interpolate(Globe(), 0, 1, data=data, steps=9, method="geodesic").values
    angle = np.linspace(math.atan2(0.8, 0.6), math.atan2(-0.8, 0.6), 9)
    np.testing.assert_allclose(walk, np.stack([0 * angle, np.cos(angle), np.sin(angle)], 1),
                               atol=1e-3)
    with pytest.warns(UserWarning, match=r"chart 1 of 2, in charge of"):
        result = latlas.measure_geometry(Globe(), data=data, chart=1, pairs=2)
    assert result.codes.shape[1] == 2 and (np.linalg.norm(result.codes, axis=1) <= 1.001).all()
    assert result.facts()["overlaps"] == 0 and result.name.endswith("chart 1")
    with pytest.raises(ConfigError, match="charts 0 … 1"):
        latlas.measure_geometry(Globe(), data=data, chart=2)


def test_what_has_no_geometry_is_refused(data: Dataset) -> None:
    flow = tiny.build("flow-matching", tiny.points(), tiny.small("flow-matching"))
    images = tiny.build("style-gan", tiny.images(), tiny.small("style-gan"))
    for error, words, call in (
            (CapabilityError, "needs a decoder", lambda: latlas.measure_geometry(flow)),
            (DataError, "rank 0", lambda: latlas.measure_geometry(Roll(flat=True), data=data)),
            (DataError, "2 codes", lambda: latlas.measure_geometry(
                Roll(), data=data.subset(slice(0, 1)))),
            (ConfigError, "metric", lambda: latlas.measure_geometry(
                Roll(), data=data, metric="flat")),  # type: ignore[arg-type]
            (CapabilityError, "mix", lambda: latlas.measure_geometry(Roll(), data=data, space="w")),
            (ConfigError, "one chart", lambda: latlas.measure_geometry(
                Roll(), data=data, chart=0)),
            (ConfigError, "encoder, and data", lambda: latlas.measure_geometry(
                images, metric="ensemble")),
            (ConfigError, "needs the codes", lambda: latlas.interpolate(
                Roll(), [6, 1], [7, 1], method="geodesic", metric="uncertain")),
            (ConfigError, "one width", lambda: latlas.interpolate(
                Roll(), [6, 1], [7], method="geodesic")),
            (CapabilityError, "not conditional", lambda: latlas.measure_geometry(
                Roll(), data=data, label="near"))):
        with pytest.raises(error, match=words) as raised:
            call()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["pca", "ae", "conditional-vae", "gan", "conditional-gan",
                                  "style-gan", "hierarchical-vae"])
def test_every_family_is_measured(name: str) -> None:
    data = tiny.images()
    model: Any = tiny.build(name, data, tiny.small(name)).eval().requires_grad_(False)
    if name == "pca":
        model.eigenvalues.copy_(torch.tensor([4.0, 3.0, 2.0]))
    for parameter in model.parameters():
        parameter.data += 0.05
    given = {"data": data} if "gan" not in name else {}
    result = latlas.measure_geometry(model, pairs=2, n=40, **given)
    facts = result.facts()
    assert facts["pairs"] == 2 and np.isfinite(result.magnification).all()
    assert facts["geodesic_over_line"] <= 1 + 1e-6
    if name == "pca":
        assert facts["geodesic_over_line"] == pytest.approx(1, rel=1e-9)
    if name == "style-gan":
        assert latlas.measure_geometry(model, pairs=1, n=20, space="w").codes.shape[1] != 3


def test_an_ensemble_is_trained_for_the_verb(data: Dataset) -> None:
    x = tiny.images(n=30)
    model = tiny.build("ae", x, tiny.small("ae"))
    result = latlas.measure_geometry(model, data=x, metric="ensemble", members=2, pairs=1)
    assert result.facts()["metric"] == "ensemble"


def test_the_command(tmp_path: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    data = tiny.images(n=60)
    np.savez(tmp_path / "x.npz", x=data.x, y=data.label)
    tiny.train(tmp_path / "run", "ae", data, tiny.small("ae"))
    assert cli(["geometry", "run", "--data", "x.npz", "--pairs", "2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["pairs"] == 2 and facts["out"].endswith("geometry.html")
    assert (tmp_path / "run" / "geometry.html").is_file()
    assert cli(["interpolate", "run", "--data", "x.npz", "--method", "geodesic", "--metric",
                "uncertain", "--steps", "5", "--out", "walk.gif"]) == 0
    assert (tmp_path / "walk.gif").read_bytes()[:3] == b"GIF"
    assert cli(["geometry", "run", "--pairs", "0"]) == 2


def test_the_geometry_of_convolutions_in_channels_last():
    """The layout that training gives them is one that forward mode cannot take in batches."""
    model = tiny.build("vae", tiny.images(), tiny.small("vae", network="conv")).eval()
    codes = np.random.default_rng(0).standard_normal((4, model.latent_dim))
    plain = geometry.pullback(model).tensors(codes)
    model.to(memory_format=torch.channels_last)
    np.testing.assert_allclose(geometry.pullback(model).tensors(codes), plain)
