"""Disentanglement as metrics: which factors, what stands beside them, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch

import latlas
from latlas.cli.__main__ import run as command
from latlas.core.distributions import PointMass
from latlas.core.errors import CapabilityError, ConfigError, DataError
from latlas.core.model import Model
from latlas.core.space import Points
from latlas.data.dataset import Dataset
from latlas.metrics.table import GROUPS, KINDS
from latlas.verbs.evaluate import evaluated, side_by_side
from latlas.verbs.metric_groups import disentanglement, has_factors, known_factors

NAMES = ("shape", "orientation", "x", "still")


class Reader(Model):
    """Its code is the example, which holds the factors."""

    def __init__(self, space):
        super().__init__(None, space)
        self.latent_dim = space.dims

    def encode(self, x, *, condition=None):
        return PointMass(x)


class Blind(Model):
    latent_dim = 1

    def sample(self, n, *, noise, condition=None):
        return torch.zeros(n, *self.space.shape)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    factors = rng.integers(0, (4, 10, 16, 1), (600, 4)).astype(np.float32)
    x = np.c_[factors[:, [2, 0]], 0.1 * rng.standard_normal((600, 2))].astype(np.float32)
    return Dataset(x, Points((4,), factors=NAMES), factors=factors)


def test_the_factors_by_default_leave_out_orientation_and_what_never_varies(data):
    notes = []
    names, values = known_factors(data, (), notes)
    assert names == ["shape", "x"]
    np.testing.assert_array_equal(values, data.factors[:, [0, 2]])
    assert "orientation is left out" in notes[0]
    assert known_factors(data, ("orientation", "x"), [])[0] == ["orientation", "x"]


def test_factors_without_names_are_numbered(data):
    bare = Dataset(data.x, Points((4,)), factors=data.factors)
    assert known_factors(bare, (), [])[0] == ["factor0", "factor1", "factor2"]
    with pytest.raises(DataError, match=r"'y'.*factor0"):
        known_factors(bare, ("y",), [])


def test_figures_stand_between_their_control_and_their_ceiling(data):
    found = {f.key: f for f in disentanglement(Reader(data.space), data, (), 0, [])}
    assert set(found) == {k for k, kind in KINDS.items() if kind.group == "disentanglement"}
    assert all(f.control_name == "rotated latents" for f in found.values())
    for key in ("mig", "dci_disentanglement", "sap"):
        figure = found[key]
        assert figure.control < 0.9 * figure.value, key
        assert figure.value == pytest.approx(figure.ceiling, abs=0.05), key


def test_evaluate_takes_what_the_data_allow(data):
    model = Reader(data.space)
    result = evaluated(model, train=data, test=data)
    assert result.get("mig").value > 0.9 and result.get("active_units") is not None
    without = Dataset(data.x, Points((4,)))
    assert not has_factors(without)
    assert evaluated(model, train=without, test=without).get("mig") is None
    only = evaluated(model, train=data, test=data, metrics=("disentanglement",),
                    factors=("x", "shape"))
    assert {KINDS[f.key].group for f in only.metrics} == {"disentanglement"}
    assert any("the factors x, shape, on 600 examples" in note for note in only.notes)


def test_what_was_asked_for_and_cannot_be_is_said(data):
    without = Dataset(data.x, Points((4,)))
    with pytest.raises(DataError, match="data=shapes"):
        evaluated(Reader(data.space), train=without, test=without, metrics=("disentanglement",))
    with pytest.raises(DataError, match="two factors"):
        evaluated(Reader(data.space), train=data, test=data, metrics=("disentanglement",),
                 factors=("x",))
    with pytest.raises(ConfigError, match="likelihood"):
        evaluated(Reader(data.space), train=data, test=data, metrics=("likelyhood",))
    with pytest.raises(CapabilityError, match="encode"):
        evaluated(Blind(None, data.space), train=data, test=data, metrics=("disentanglement",))


def test_groups_are_those_of_the_metrics():
    assert list(dict.fromkeys(kind.group for kind in KINDS.values())) == [
        "likelihood", "reconstruction", "translation", "classification", "encoding",
        "disentanglement", "latent-space", "samples"]
    assert {kind.group for kind in KINDS.values()} == set(GROUPS)


def test_the_table_has_a_column_for_the_ceiling(data):
    table = side_by_side([evaluated(Reader(data.space), train=data, test=data, name="reader")])
    line = next(line for line in table.lines() if line.key == "mig")
    assert line.control.endswith("(rotated latents)") and float(line.ceiling) > 0.9
    assert table.html().columns[-1] == "ceiling"
    columns = table.table()
    row = [text.startswith("MIG") for text in columns["metric"]].index(True)
    assert float(columns["ceiling"][row]) > 0.9


def test_by_command_on_shapes(tmp_path, capsys):
    run = tmp_path / "run"
    latlas.train("beta-tc-vae", "shapes", out=run, images=64, width=16, depth=1, latent_dim=3,
                 threads=1, precision="fp32", progress=False, likelihood="bernoulli",
                 batch_size=32)
    code = command(["evaluate", str(run), "--data", "shapes", "--metrics", "disentanglement",
                    "--factors", "x,y", "--json"])
    assert code == 0
    result = json.loads(capsys.readouterr().out)
    mig = next(f for f in result["metrics"] if f["key"] == "mig")
    assert mig["ceiling"] > 0.7 > mig["value"] >= 0 and mig["control_name"] == "rotated latents"
    assert len(result["metrics"]) == 8


def test_factors_survive_models_that_were_trained_without(data):
    """The names belong to the examples, not to what the model was trained on."""
    space = Points((4,))
    model = tiny.build("ae", Dataset(data.x, space), tiny.small("ae"))
    result = latlas.evaluate(model, data, metrics=("disentanglement",))
    assert any("the factors shape, x" in note for note in result.notes)
