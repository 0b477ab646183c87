"""Seeds, truncation, mixing, directions and projections on models whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor, nn

import latlas
from latlas.cli import __main__ as cli
from latlas.core.distributions import PointMass
from latlas.core.errors import CapabilityError, ConfigError
from latlas.core.model import Batch, HasStyles, Loss, Model, Phase, Step
from latlas.core.options import numbers
from latlas.core.space import Images, Space
from latlas.data.dataset import Dataset
from latlas.models.priors import StandardNormal
from latlas.verbs.generate import decode, interpolate, sample
from latlas.verbs.passes import decode_styles, to_styles
from latlas.verbs.project import FRAMES, project
from latlas.verbs.styles import directions, edit, latents_of_seeds, layer_numbers, mix

PICTURE = Images((1, 4, 4), 256)
LAYERS, WIDE = 6, 3


class Styled(Model):
    """w = z A, and an image that is the sum over layers of w_l B_l: everything is linear."""

    def __init__(self, space: Space = PICTURE) -> None:
        super().__init__(None, space)
        self.latent_dim = 2
        self.prior = StandardNormal(2)
        draws = torch.Generator().manual_seed(0)
        self.register_buffer("a", torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.5, 0.0]]))
        self.register_buffer("b", 0.05 * torch.randn(LAYERS, WIDE, 16, generator=draws))

    @property
    def layer_sizes(self):
        return tuple((2 ** (i // 2 + 1),) * 2 for i in range(LAYERS))

    def mean_w(self):
        return torch.tensor([0.5, 0.0, 1.0])

    def to_w(self, z, truncation=1.0):
        return torch.lerp(self.mean_w(), z @ self.a, truncation)

    def mix(self, first, second, level):
        raise NotImplementedError

    def decode_w(self, w, *, noise=None):
        w = w[:, None].expand(-1, LAYERS, -1) if w.dim() == 2 else w
        return PointMass(torch.einsum("nlw,lwp->np", w, self.b).reshape(-1, 1, 4, 4), 3)

    def decode(self, z, *, condition=None):
        return PointMass(self.decode_w(self.to_w(z)).mean, 3)

    def sample(self, n, *, noise, condition=None, truncation=1.0):
        return self.decode_w(self.to_w(noise.normal(n, 2), truncation)).mean


class Plain(Styled):
    """The same without styles: what the protocol asks for is not there."""

    to_w = None
    decode_w = None

    def decode(self, z, *, condition=None):
        image = torch.einsum("nw,lwp->np", z @ self.a, self.b)
        return PointMass(image.reshape(-1, 1, 4, 4), 3)

    def sample(self, n, *, noise, condition=None):
        return self.decode(noise.normal(n, 2)).mean


def images(model, w):
    """Data units of styles (n, layers, d_w)."""
    return decode_styles(model, w)


def test_the_stand_in_has_styles():
    assert isinstance(Styled(), HasStyles)


# ------------------------------------------------------------------------------ seeds, truncation

def test_an_example_of_a_seed_depends_on_that_seed_alone():
    model = Styled()
    three, other = (sample(model, seeds=seeds) for seeds in ([1, 7, 3], [7]))
    np.testing.assert_array_equal(three[1], other[0])
    np.testing.assert_array_equal(three[0], sample(model, 1, seed=1)[0])
    assert not np.array_equal(three[0], three[2])
    assert sample(model, seeds=[]).shape == (0, 1, 4, 4)


def test_truncation_moves_styles_to_their_mean():
    model = Styled()
    whole, half, none = (sample(model, 3, truncation=t).values.astype(float)
                         for t in (1.0, 0.5, 0.0))
    np.testing.assert_array_equal(none[0], none[1])
    np.testing.assert_array_equal(none[:1], images(model, model.mean_w()[None]))
    np.testing.assert_allclose(half, (whole + none) / 2, atol=1.01)
    assert np.abs(whole[0] - whole[1]).max() > 5
    with pytest.raises(CapabilityError, match="plain cannot mix; `sample truncation=` needs"):
        sample(Plain(), 3, truncation=0.5)


def test_a_walk_through_styles_is_straight_there():
    model, a, b = Styled(), np.array([1.0, 2.0]), np.array([-1.0, 0.0])
    path = interpolate(model, a, b, steps=3, space="w")
    ends = to_styles(model, np.stack([a, b]))
    np.testing.assert_array_equal(path, images(model, np.stack([ends[0], ends.mean(0), ends[1]])))
    with pytest.raises(ConfigError, match="unknown space 'v'"):
        interpolate(model, a, b, steps=3, space="v")
    with pytest.raises(CapabilityError, match="needs layers that have styles"):
        interpolate(Plain(), a, b, steps=3, space="w")


def test_lists_of_numbers():
    assert numbers("4") == [4] and numbers(" 1, 2 ,5-7") == [1, 2, 5, 6, 7]
    assert all(numbers(text) is None for text in ("", "a", "1,,2", "3-1", "-1", "1-"))


@pytest.mark.parametrize(("text", "result"), [
    ("coarse", [0, 1]), ("middle", [2, 3]), ("fine", [4, 5]), ("all", [0, 1, 2, 3, 4, 5]),
    ("0-2,5", [0, 1, 2, 5])])
def test_layers_by_name_or_number(text, result):
    assert layer_numbers(text, LAYERS) == result


# ------------------------------------------------------------------------------ mixing

def test_a_mixed_picture_has_the_styles_of_both():
    model = Styled()
    table = mix(model, [1, 2], [3, 4, 5], layers="fine")
    assert table.shape == (3, 4, 1, 4, 4)
    assert (table[0, 0] == 255).all()
    alone = sample(model, seeds=[1, 2, 3, 4, 5])
    np.testing.assert_array_equal(table[1:, 0], alone[:2])
    np.testing.assert_array_equal(table[0, 1:], alone[2:])
    w = [to_styles(model, latents_of_seeds(model, [s])) for s in (2, 4)]
    expected = np.repeat(w[0][:, None], LAYERS, 1)
    expected[:, 4:] = w[1][:, None]
    np.testing.assert_array_equal(table[2, 2], images(model, expected)[0])


def test_all_styles_of_the_column_are_the_column():
    model = Styled()
    table = mix(model, [1, 2], [3], layers="all", truncation=0.5)
    np.testing.assert_array_equal(table[1, 1], table[0, 1])
    np.testing.assert_array_equal(table[2, 1], table[0, 1])


def test_what_cannot_be_mixed_is_said():
    with pytest.raises(CapabilityError, match="plain cannot mix; `mix` needs layers"):
        mix(Plain(), [1], [2])
    with pytest.raises(ConfigError, match="no layer 9: the model has layers 0 … 5"):
        mix(Styled(), [1], [2], layers="9")
    with pytest.raises(ConfigError, match="did you mean 'coarse'"):
        mix(Styled(), [1], [2], layers="corse")
    with pytest.raises(ConfigError, match="a seed for a row"):
        mix(Styled(), [], [2])


# ------------------------------------------------------------------------------ directions

def test_directions_of_styles_are_their_principal_axes():
    result = directions(Styled(), 2)
    assert result.space == "w"
    np.testing.assert_allclose(np.abs(result.axes), [[1, 0, 0], [0, 1, 0]], atol=0.02)
    np.testing.assert_allclose(result.sd, [2, 0.5], rtol=0.03)
    np.testing.assert_allclose(result.share, [16 / 17, 1 / 17], atol=0.01)


def test_edits_move_the_layers_asked_for():
    model = Styled()
    result = directions(model, 2)
    row = edit(model, result, seed=4, steps=3, span=1.0, layers="coarse")
    assert row.shape == (2, 3, 1, 4, 4)
    np.testing.assert_array_equal(row[0, 1], sample(model, 1, seed=4)[0])
    np.testing.assert_array_equal(row[0, 1], row[1, 1])
    w = np.repeat(to_styles(model, np.zeros((1, 2)))[:, None], LAYERS, 1)
    start = edit(model, result, seed=None, steps=1, span=0.0)
    assert np.abs(start[0, 0].astype(float) - images(model, w)[0]).max() <= 2  # the mean style is 0
    whole = edit(model, result, seed=4, steps=3, span=1.0)
    moved = [np.abs(x[0, 2].astype(float) - x[0, 1]).mean() for x in (row, whole)]
    assert 0 < moved[0] < moved[1]


def test_without_styles_directions_are_those_of_decoded_examples():
    """z is round; the image changes with z_0 four times as fast, so that comes first."""
    result = directions(Plain(), 2)
    assert result.space == "z"
    assert abs(result.axes[0, 0]) > 0.95 and result.share[0] > 0.8
    np.testing.assert_allclose(np.linalg.norm(result.axes, axis=1), 1)
    assert edit(Plain(), result, steps=3).shape == (2, 3, 1, 4, 4)
    with pytest.raises(CapabilityError, match="`edit layers=` needs"):
        edit(Plain(), result, layers="fine")
    with pytest.raises(ConfigError, match="k=0"):
        directions(Plain(), 0)
    with pytest.raises(ConfigError, match=r"k=3: latents of 2 numbers .* 2 directions"):
        directions(Plain(), 3)
    with pytest.raises(ConfigError, match="k=4: 10,000 latents of 3 numbers"):
        directions(Styled(), 4)
    assert len(directions(Plain()).axes) == 2 and len(directions(Styled()).axes) == 3


def test_of_an_encoder_they_are_those_of_the_latents():
    class Encodes(Plain):
        def encode(self, x, *, condition=None):
            return PointMass(x.flatten(1)[:, :2])

    data = tiny.images((1, 4, 4), levels=256)
    result = directions(Encodes(data.space), 1, data=data)
    x = data.space.to_model(data.x.reshape(len(data), -1)[:, :2].astype(float))
    value, vector = np.linalg.eigh(np.cov(x.T))
    np.testing.assert_allclose(np.abs(result.axes[0]), np.abs(vector[:, 1]), atol=1e-4)
    assert result.sd[0] == pytest.approx(value[1] ** 0.5, rel=1e-4)


# ------------------------------------------------------------------------------ projections

def of_latents(model, latents):
    return Dataset(decode(model, latents).values, model.space)


LATENTS = np.array([[1.0, -0.5], [-1.2, 1.0], [0.3, 0.0]])


@pytest.mark.parametrize("model", [Plain(), Styled()])
def test_a_decoded_example_is_found_again(model):
    data = of_latents(model, LATENTS)
    result = project(model, data, starts=3, steps=150)
    assert result.latent_space == ("w" if isinstance(model, HasStyles) else "z")
    assert (result.error < 2e-5).all()  # rounding to whole levels is an error of 1.3e-6
    assert np.abs(result.values.astype(int) - data.x).max() <= 1
    if result.latent_space == "z":
        np.testing.assert_allclose(result.latents, LATENTS, atol=0.15)
    assert result.path.shape == (3, FRAMES, 1, 4, 4) and result.nearest is None
    first, last = (np.square(result.path[:, i].astype(float) - data.x).mean() for i in (0, -1))
    assert last < 0.05 * first


def test_the_nearest_training_example_stands_beside():
    model = Styled()
    train, data = of_latents(model, np.tile([[0.9, -0.5]], (5, 1))), of_latents(model, LATENTS)
    result = project(model, data, train=train, starts=2, steps=100)
    x, y = (d.x.reshape(len(d), -1).astype(float) / 127.5 for d in (data, train))
    expected = np.square(x[:, None] - y[None]).mean(-1).min(1)
    np.testing.assert_allclose(result.nearest, expected, rtol=1e-6)
    assert list(result.table()) == ["example", "error", "nearest"]


def test_latents_follow_the_seed():
    model, data = Plain(), of_latents(Plain(), LATENTS)
    whole, again, other = (project(model, data, steps=20, starts=2, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(whole.latents, again.latents)
    assert not np.array_equal(whole.latents, other.latents)
    one = project(model, data.subset(slice(0, 1)), steps=20, starts=1, space="z")
    assert one.latents.shape == (1, 2)


def test_more_starts_find_what_one_misses():
    """From the wrong side of a ridge the valley is not reached."""
    class Ridge(Plain):
        def decode(self, z, *, condition=None):
            value = torch.where(z[:, :1] > 0, z[:, :1] - 3, z[:, :1] * 0.1)
            return PointMass(value.expand(-1, 16).reshape(-1, 1, 4, 4) * 0.2, 3)

    data = Dataset(np.full((1, 1, 4, 4), 90, np.uint8), PICTURE)
    errors = [project(Ridge(), data, starts=n, steps=60, seed=2).error[0] for n in (1, 8)]
    assert errors[1] <= errors[0] and errors[1] < 1e-3


def test_an_encoders_latent_is_where_one_start_begins():
    class Knows(Plain):
        def encode(self, x, *, condition=None):
            return PointMass(torch.tensor(LATENTS[:len(x)], dtype=torch.float32))

    model = Knows()
    result = project(model, of_latents(model, LATENTS), starts=1, steps=1)
    np.testing.assert_allclose(result.latents, LATENTS, atol=1e-6)


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4].square()


def test_features_are_heeded():
    model, data = Plain(), of_latents(Plain(), LATENTS)
    plain, felt = (project(model, data, starts=1, steps=15, features=f)
                   for f in (None, Square()))
    assert not np.array_equal(plain.latents, felt.latents)
    assert project(model, data, starts=1, steps=2, features="random-conv").latents.shape == (3, 2)
    with pytest.raises(ConfigError, match="features=pixels is no network"):
        project(model, data, features="pixels")


def test_refusals():
    data = of_latents(Plain(), LATENTS)
    with pytest.raises(CapabilityError, match="`project space=w` needs"):
        project(Plain(), data, space="w")
    with pytest.raises(ConfigError, match="unknown space"):
        project(Plain(), data, space="x")
    with pytest.raises(ConfigError, match="starts=0"):
        project(Plain(), data, starts=0)

    class Draws(Model):
        latent_dim = 1

        def sample(self, n, *, noise, condition=None):
            return noise.normal(n, 1, 4, 4)

    with pytest.raises(CapabilityError, match="draws cannot decode"):
        project(Draws(None, PICTURE), data)


def test_the_way_is_written_as_a_strip_and_as_a_film(tmp_path):
    model, data = Plain(), of_latents(Plain(), LATENTS)
    result = project(model, data, starts=1, steps=10)
    assert "wrote 30 examples" in result.save(tmp_path / "a.png")
    assert "wrote 3 projections" in result.save(tmp_path / "a.gif")
    result.save(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), result.values)
    with Image.open(tmp_path / "a.gif") as film, Image.open(tmp_path / "a.png") as strip:
        assert film.n_frames > 2 and strip.width > 2 * strip.height


# ------------------------------------------------------------------------------ the verbs

TINY = ("--set", "width=16", "--set", "depth=1", "--set", "threads=1", "--set", "precision=fp32")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for model in ("vae", "gan", "conditional-gan"):
        assert cli.run(["train", model, "--images", "1k", "--out", str(folder / model), *TINY]) == 0
    return folder


def test_the_verbs_on_a_vae_and_a_gan(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gan, vae = str(runs / "gan"), str(runs / "vae")
    assert cli.run(["sample", gan, "--seeds", "3,5-6", "--out", "s.npy"]) == 0
    np.testing.assert_array_equal(np.load("s.npy"), latlas.sample(gan, seeds=[3, 5, 6]))
    for run in (gan, vae, str(runs / "conditional-gan")):
        few = ["--n", "2", "--starts", "2", "--steps", "4"]
        assert cli.run(["project", run, *few, "--out", "p.png"]) == 0
        assert "of the nearest training examples" in capsys.readouterr().out
    for run in (gan, vae):
        assert cli.run(["directions", run, "--k", "2", "--steps", "3", "--out", "d.png"]) == 0
    assert cli.run(["interpolate", gan, "--steps", "3", "--out", "i.npy"]) == 0
    assert np.load("i.npy").shape == (3, 1, 8, 8)
    result = latlas.project(gan, steps=2, starts=1, split="validation", n=1000)
    assert len(result.error) == len(result.nearest) == len(latlas.open_data(None, "validation",
                                                                          like=gan))


@pytest.mark.parametrize(("tokens", "words"), [
    (["mix"], "gan cannot mix; `mix` needs layers that have styles. Models that can: style-gan"),
    (["sample", "--truncation", "0.5"], "`sample --truncation` needs"),
    (["sample", "--seeds", "1-"], "--seeds 1-: write whole numbers"),
    (["interpolate", "--space", "w"], "`interpolate --space w` needs"),
    (["project", "--starts", "0"], "--starts 0: at least 1"),
    (["project", "--space", "w"], "`project --space w` needs"),
    (["directions", "--layers", "fine"], "`directions --layers` needs"),
    (["mix", "--rows", "x"], "--rows x"),
    (["project", "--out", "a.xyz"], "cannot write a.xyz"),
    (["sample", "--label", "1"], "gan is not conditional; leave out `label`"),
    (["directions", "--k", "65"], "--k 65: latents of 264 numbers and examples of 64 have 64 "
                             "directions"),
    (["project", "--data", "rgb.npz"], "examples are 3×8×8, the run's are 1×8×8"),
    (["project", "--data", "wide.npz"], "1×8×12, the run's are 1×8×8; try --image-size"),
    (["project", "--data", "rows.csv"], "the run's data are images")])
def test_refusals_are_one_line(runs, tmp_path, monkeypatch, capsys, tokens, words):
    monkeypatch.chdir(tmp_path)
    for name, shape in (("rgb", (9, 8, 8, 3)), ("wide", (9, 8, 12))):
        np.savez(f"{name}.npz", x=np.arange(np.prod(shape), dtype=np.uint8).reshape(shape))
    np.savetxt("rows.csv", np.ones((9, 2)), delimiter=",", header="a,b", comments="")
    assert cli.run([tokens[0], str(runs / "gan"), *tokens[1:]]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and words in error


@pytest.mark.parametrize("verb", ["sample", "interpolate", "traverse", "directions"])
def test_a_conditional_model_is_told_a_class_of_its_own(runs, tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    run = str(runs / "conditional-gan")
    for tokens, words in (((), "needs a label for every example: name the class with --label"),
                          (("--label", "boot"), "unknown class 'boot': Valid: 0, 1, 2"),
                          (("--label", ","), "`label`: name a class")):
        assert cli.run([verb, run, *tokens, "--out", "x.npy"]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "x.npy").exists()
    assert cli.run([verb, run, "--label", "3", "--out", "x.npy"]) == 0


def test_directions_are_those_of_the_class(runs):
    run = runs / "conditional-gan"
    result = [latlas.directions(run, 2, label=c) for c in "37"]
    assert not np.allclose(result[0].axes, result[1].axes)
    rows = [latlas.edit(run, result[0], steps=2, label=c) for c in "37"]
    assert not np.array_equal(*rows)
    with pytest.raises(ConfigError, match="name one class for all examples, not 3, 7"):
        latlas.directions(run, 2, label=["3", "7"])


def test_of_several_classes_each_has_a_stretch_of_a_walk(runs):
    run = latlas.load(runs / "conditional-gan")
    a, b = latlas.prior_latents(run, 2, label=["3", "7"])
    path = latlas.interpolate(run, a, b, steps=5, label=["3", "7"])
    for label, part in (("3", slice(0, 3)), ("7", slice(3, 5))):
        whole = latlas.interpolate(run, a, b, steps=5, label=label)
        np.testing.assert_array_equal(path[part], whole[part])
    assert not np.array_equal(path, whole)


@pytest.mark.parametrize("truncation", [np.nan, np.inf])
def test_truncation_is_finite(truncation):
    for call in (lambda: sample(Styled(), 1, truncation=truncation),
                 lambda: mix(Styled(), [1], [2], truncation=truncation)):
        with pytest.raises(ConfigError, match=f"truncation={truncation}"):
            call()


@pytest.mark.parametrize(("call", "tokens"), [
    (lambda run: latlas.mix(run, [1], [2]), ["mix"]),
    (lambda run: latlas.sample(run, truncation=0.5), ["sample", "--truncation", "0.5"]),
    (lambda run: latlas.interpolate(run, 0, 1, space="w"), ["interpolate", "--space", "w"]),
    (lambda run: latlas.project(run, space="w"), ["project", "--space", "w"]),
    (lambda run: latlas.edit(run, None, layers="fine"), ["directions", "--layers", "fine"])])
def test_what_needs_styles_is_refused_before_weights_are_read(runs, tmp_path, call, tokens):
    """There are none here to read."""
    (tmp_path / "run.json").write_bytes((runs / "gan" / "run.json").read_bytes())
    with pytest.raises(CapabilityError, match="gan cannot mix"):
        call(tmp_path)
    assert cli.run([tokens[0], str(tmp_path), *tokens[1:]]) == 2


class Learns(Styled):
    """A run of a model with styles, named by its class."""

    Config = tiny.models.get("gan").config
    phases = (Phase("p", ("scale",)),)

    def __init__(self, config, space):
        super().__init__(space)
        self.config, self.scale = config, nn.Parameter(torch.ones(1))

    def loss(self, batch: Batch, step: Step) -> Loss:
        loss = self.scale.square().sum()
        return Loss(loss, {"loss": loss})


def test_the_verbs_on_a_model_with_styles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8))
    training = ["--images", "64", "--set", "batch_size=16", "--set", "threads=1"]
    assert cli.run(["train", f"{__name__}:Learns", "--data", "x.npz", "--out", "run",
                    *training]) == 0
    assert cli.run(["mix", "run", "--rows", "1,2", "--columns", "3-5", "--out", "m.npy"]) == 0
    assert np.load("m.npy").shape == (12, 1, 4, 4)
    assert cli.run(["sample", "run", "--seeds", "1-4", "--truncation", "0.7",
                    "--out", "s.npy"]) == 0
    assert cli.run(["interpolate", "run", "--space", "w", "--steps", "4", "--out", "w.npy"]) == 0
    assert cli.run(["directions", "run", "--k", "2", "--layers", "coarse", "--example", "3",
                    "--out", "d.png"]) == 0
    assert cli.run(["project", "run", "--n", "2", "--steps", "5", "--out", "p.gif"]) == 0
