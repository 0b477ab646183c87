"""How wide the networks of a translator are, by the minutes and the speed of the machine."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from PIL import Image

import latlas
from latlas import budget
from latlas.core.errors import DataNote
from latlas.core.model import Step
from latlas.core.noise import Noise
from latlas.core.space import Images
from latlas.data.batches import Batches
from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.models.translation import START, WIDTHS
from latlas.training import TrainingData, plan_of


def data(n=40, side=16, aligned=True):
    x = np.random.default_rng(0).integers(0, 256, (n, 1, side, side), np.uint8)
    one = Dataset(x, Images(x.shape[1:]))
    return TrainingData(PairDataset(one, one, aligned))


def speed(monkeypatch, images):
    """The machine sees so many images of the published networks in the minutes, and of lighter ones
    more, by the square of the width, and three times as many with a U-Net of cycle-gan."""
    def seconds(plan, n, examples):
        c = plan.config
        rate = images * (WIDTHS[0] / c.width) ** 2 * (3 if c.network == "unet" and (
            plan.model == "cycle-gan") else 1)
        return 60 * budget.STEPPING * plan.options.minutes / rate, 4
    monkeypatch.setattr(budget, "trial", seconds)


@pytest.mark.parametrize(("images", "width"), [(1e6, 64), (2e4, 48), (4e3, 32), (10, 16)])
def test_pix2pix_is_as_wide_as_learns_in_the_minutes(monkeypatch, images, width):
    speed(monkeypatch, images)
    plan = plan_of("pix2pix", {"minutes": 15})
    if width == WIDTHS[0]:
        config = budget.within_minutes(plan, data(), None).config
        assert (config.discriminator_width, config.adversarial_start) == (0, 0.0)
    else:
        with pytest.warns(DataNote, match=rf"width {width}, .* epochs in 15 minutes .*width=64"
                          ) as notes:
            config = budget.within_minutes(plan, data(), None).config
        assert (config.discriminator_width, config.adversarial_start) == (width // 2, START)
        assert "e+" not in str(notes[0].message)
    assert config.width == width


@pytest.mark.parametrize(("images", "network", "width"), [
    (1e6, "residual", 64), (3e4, "residual", 32), (2e3, "unet", 32), (10, "unet", 16)])
@pytest.mark.filterwarnings("ignore::latlas.core.errors.DataNote")
def test_cycle_gan_has_a_lighter_network_in_few_minutes(monkeypatch, images, network, width):
    speed(monkeypatch, images)
    config = budget.within_minutes(plan_of("cycle-gan", {"minutes": 15}), data(aligned=False),
                                   None).config
    assert (config.network, config.width) == (network, width)


@pytest.mark.parametrize("settings", [{"images": 640}, {"epochs": 2}, {"width": 24, "minutes": 1}])
def test_other_budgets_and_named_widths_stay(monkeypatch, settings):
    speed(monkeypatch, 1)
    plan = plan_of("pix2pix", settings)
    assert budget.within_minutes(plan, data(), None) == plan
    space = data().train.space
    assert plan.config.resolve(space).width == settings.get("width", WIDTHS[0])


@pytest.mark.filterwarnings("ignore::latlas.core.errors.DataNote")
def test_a_run_that_goes_on_keeps_its_width(monkeypatch, tmp_path):
    settings = {"minutes": 0.02, "threads": 1, "progress": False, "depth": 1}
    root = tmp_path / "pairs"
    for side in "AB":
        (root / side).mkdir(parents=True)
        for i, x in enumerate(data(20).train.a.x):
            Image.fromarray(x[0]).save(root / side / f"{i}.png")
    speed(monkeypatch, 1)
    run = latlas.train("pix2pix", root, out=tmp_path / "run", **settings)
    assert run.config.width == WIDTHS[-1]
    speed(monkeypatch, 1e9)
    again = latlas.train("pix2pix", root, out=tmp_path / "run", **settings)
    assert again.outcome.stopped == "already finished" and again.config.width == WIDTHS[-1]
    other = latlas.train("pix2pix", root, out=tmp_path / "other", init_from=tmp_path / "run",
                         **settings)
    assert other.config.width == WIDTHS[-1]


def test_the_adversarial_loss_sets_in_at_its_share():
    pairs = tiny.pairs()
    model = tiny.build("pix2pix", pairs, tiny.small("pix2pix", adversarial_start=0.6))
    batch = Batches(pairs, 6).at(0)
    early, late = (dict(model.losses(batch, Step(0, 0, progress, Noise(0))))
                   for progress in (0.59, 0.61))
    assert set(early) == {"generator"} and set(early["generator"].terms) == {"l1"}
    assert set(late) == {"discriminator", "generator"}
    assert set(late["generator"].terms) == {"l1", "generator"}
    assert {phase.name: phase.span for phase in model.phases} == {
        "discriminator": (0.6, 1.0), "generator": (0.0, 1.0)}
    assert model.defaults.progressive  # the clock knows that later steps take longer
