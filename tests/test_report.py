"""The page: self-contained, whole, and with exactly the sections a model's capabilities allow."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from latlas.core.distributions import PointMass
from latlas.core.model import Model
from latlas.core.space import Images, Points
from latlas.data.dataset import Dataset
from latlas.metrics.table import KINDS
from latlas.render import html, imaging, plots
from latlas.verbs.evaluate import Evaluation, evaluated, side_by_side
from latlas.verbs.report import Report
from latlas.verbs.sample_quality import feature_extractor
from latlas.verbs.sections import Subject, build_page, principal_plane, read_metrics

SPACE = Images((1, 4, 4), 17, classes=("left", "right"))


class Half(Model):
    """An autoencoder that keeps the left half of an image."""

    def __init__(self, space=SPACE):
        super().__init__(None, space)
        self.latent_dim = 8

    def encode(self, x, *, condition=None):
        return PointMass(x[..., :2].flatten(1))

    def decode(self, z, *, condition=None):
        left = z.reshape(-1, 1, 4, 2)
        return PointMass(torch.cat([left, -torch.ones_like(left)], -1), 3)

    def sample(self, n, *, noise, condition=None):
        return self.decode(noise.normal(n, 8).tanh()).mean


class Sampler(Model):
    latent_dim = 1

    def sample(self, n, *, noise, condition=None):
        return noise.uniform(n, *self.space.shape) * 2 - 1


class Page(HTMLParser):
    """Tags, attributes and the balance of the two."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def data(n, seed=0, space=SPACE):
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=n)
    x = rng.integers(0, 17, size=(n, 1, 4, 4)).astype(np.uint8)
    return Dataset(x, space, label)


def size(image):
    with Image.open(io.BytesIO(image)) as picture:
        picture.load()
        return picture.size


@pytest.fixture
def run(tmp_path):
    lines = [{"images": i, "seconds": i, "loss": 9 - i, "kl": i, "rec": 1} for i in range(5)]
    lines.append({"images": 4, "seconds": 4, "validation/loss": 5.0})
    text = "\n".join(map(json.dumps, lines)) + '\n{"images": 5, "lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    return tmp_path


def sections(text):
    return re.findall(r'<section id="([^"]+)"', text)


def test_a_model_that_does_all_gets_every_section(run):
    text = build_page([Subject("half", Half(), run)], train=data(60), test=data(40, 1))
    assert sections(text) == ["samples", "reconstructions", "traversal", "interpolation",
                              "map-of-the-latents", "geometry-of-the-latent-space-half",
                              "loss-curves", "how-it-was-made"]


def test_sections_follow_capabilities():
    sampler = Subject("sampler", Sampler(None, SPACE))
    text = build_page([sampler], train=data(60), test=data(40, 1))
    assert sections(text) == ["samples", "how-it-was-made"]


def test_points_have_plots_and_no_picture_sections():
    space = Points((2,))

    class Identity(Model):
        latent_dim = 2

        def encode(self, x, *, condition=None):
            return PointMass(x)

        def decode(self, z, *, condition=None):
            return PointMass(z)

    rng = np.random.default_rng(0)
    points = Dataset(rng.normal(size=(50, 2)).astype(np.float32), space)
    text = build_page([Subject("id", Identity(None, space))], train=points, test=points)
    assert sections(text) == ["reconstructions", "map-of-the-latents",
                              "geometry-of-the-latent-space-id", "how-it-was-made"]


def test_the_page_is_one_file_that_asks_for_nothing(run):
    text = build_page([Subject("half", Half(), run)], train=data(60), test=data(40, 1))
    page = Page(text)
    assert not page.open and not page.of("script") and not page.of("link")
    addresses = [a["src"] for a in page.of("img")] + [a["srcset"] for a in page.of("source")]
    assert addresses and all(a.startswith("data:image/png;base64,") for a in addresses)
    for address in addresses:
        assert min(size(base64.b64decode(address.partition(",")[2]))) > 20
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert all(a["href"][1:] in sections(text) for a in page.of("a"))
    assert all(a.get("alt") for a in page.of("img"))


def test_the_same_seed_makes_the_same_page():
    pages = [build_page([Subject("s", Sampler(None, SPACE))], train=data(60), test=data(40, 1),
                       seed=s, command="c") for s in (1, 1, 2)]
    assert pages[0] == pages[1] != pages[2]


def test_names_are_text_and_never_markup(tmp_path):
    evil = '<img src=x onerror="alert(1)">'
    page = Page(build_page([Subject(evil, Sampler(None, SPACE))], train=data(20), test=data(20),
                           title=evil, command=evil, facts={evil: evil}))
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert evil in "".join(page.text)


def test_the_log_is_read_by_name_and_a_torn_line_left_out(run):
    history = read_metrics(run)
    assert set(history) == {"loss", "kl", "rec", "validation/loss"}
    np.testing.assert_array_equal(history["loss"], [[0, 1, 2, 3, 4], [9, 8, 7, 6, 5]])
    assert read_metrics(run / "elsewhere") == {}


def test_the_plane_keeps_the_two_largest_variances():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    latents = (rng.normal(size=(4000, 4)) * [3, 2, 1, 0.5]) @ turn
    plane, share = principal_plane(latents)
    np.testing.assert_allclose(plane.std(0), [3, 2], rtol=0.05)
    np.testing.assert_allclose(share, np.array([9, 4]) / 14.25, rtol=0.05)
    line, share = principal_plane(latents[:, :1])
    assert line.shape == (4000, 2) and share.tolist() == [1, 0]


def test_evaluated_models_are_summarised_and_explained():
    parts = {"train": data(80), "test": data(60, 1)}
    extract = feature_extractor("pixels", parts["train"])
    subjects = [Subject(n, Half(), None, evaluated(Half(), **parts, features=extract, name=n),
                        {"settings": "none"}) for n in ("one", "two")]
    text = build_page(subjects, **parts)
    page, words = Page(text), " ".join(Page(text).text)
    assert sections(text)[0] == "summary" and "all-metrics" in sections(text)
    assert not page.open and "one: settings" in words
    keys = {f.key for s in subjects for f in s.evaluation.metrics}
    assert keys and all(KINDS[key].meaning in words for key in keys)


def test_the_page_is_written_whole(tmp_path):
    target = tmp_path / "new" / "report.html"
    text = build_page([Subject("s", Sampler(None, SPACE))], train=data(20), test=data(20))
    Report(text, side_by_side([Evaluation("s", None, ())])).save(target)
    assert target.read_text("utf-8").endswith("</html>\n")
    assert [p.name for p in target.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize("dark", [False, True])
def test_every_plot_draws_without_a_window(dark):
    rng = np.random.default_rng(0)
    points, label = rng.normal(size=(60, 2)), rng.integers(12, size=60)
    steps = np.arange(10.0)
    drawn = [plots.curves({"loss": (steps, steps), "validation/loss": (steps, steps + 1),
                           "empty": (steps[:0], steps[:0])}, dark=dark),
             plots.curves({"constant": (steps, 0 * steps)}, dark=dark),
             plots.scatter(points, label, [str(i) for i in range(12)], dark=dark),
             plots.scatter(points, dark=dark),
             plots.overlay({"real": points, "model": points + 1}, dark=dark),
             plots.pairs({"real": points}, ["a", "b"], dark=dark)]
    assert all(min(size(d)) > 200 for d in drawn)


def test_plots_leave_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.overlay({"a": np.zeros((1, 2))}, dark=True)
    assert dict(matplotlib.rcParams) == before


def test_thumbnails_lie_where_their_points_do():
    x = np.array([0, 85, 170, 255], np.uint8).reshape(4, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)
    points = corners + 1e-3 * (0.5 - corners)  # just inside the frame
    drawn = imaging.mosaic(np.concatenate([points, points]), np.concatenate([x, x]), cells=2)
    half = len(drawn) // 2
    keys = [drawn[half + 5, 5, 0], drawn[half + 5, half + 5, 0], drawn[5, 5, 0],
             drawn[5, half + 5, 0]]
    assert keys == [0, 85, 170, 255]


def test_tables_mark_roles_and_escape():
    table = html.Table(["", "a<b"], [[html.Cell("group")], [html.Cell("x&y", below="why"),
                                                            html.Cell("1", "best")]])
    text = table.html()
    assert "a&lt;b" in text and "x&amp;y<small>why</small>" in text
    assert '<td class="best">1</td>' in text and 'colspan="2"' in text
