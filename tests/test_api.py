"""The verbs as functions: arrays in, arrays out, in the units of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import latlas
from latlas.cli import __main__ as cli
from latlas.core.errors import CapabilityError, ConfigError, DataError, RunError
from latlas.core.space import Column, Images, Space, Table
from latlas.data.dataset import Dataset
from latlas.data.fitting import class_codes, conform, open_examples
from latlas.networks import must_fit

TINY = {"images": 1000, "width": 32, "depth": 1, "threads": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "vae"
    latlas.train("vae", "digits", out=folder, progress=False, **TINY)
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> torch.nn.Module:
    return latlas.load(run).model


def table_space(*columns: str, classes: tuple[str, ...] = ()) -> Space:
    return Table(fields=tuple(Column(c, "real", "Float64", fill=0.0) for c in columns),
                 location=(0.0,) * len(columns), scale=(1.0,) * len(columns), classes=classes)


def test_the_package_offers_the_verbs() -> None:
    assert all(callable(getattr(latlas, name)) for name in latlas.__all__[1:])
    assert "vae" in latlas.list_models()


def test_a_finished_run_is_loaded_not_trained(run: Path, model: torch.nn.Module) -> None:
    again = latlas.train("vae", "digits", out=run, progress=False, **TINY)
    assert again.outcome.stopped == "already finished"
    for mine, theirs in zip(again.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_without_a_folder_the_same_seed_gives_the_same_model(run: Path) -> None:
    trained = latlas.train("vae", "digits", progress=False, **TINY)
    assert trained.path is None
    np.testing.assert_array_equal(latlas.sample(trained.model, 4), latlas.sample(run, 4))
    other = latlas.train("vae", "digits", progress=False, seed=1, **TINY)
    assert not np.array_equal(latlas.sample(other.model, 4), latlas.sample(run, 4))


def test_shapes_and_units(run: Path, model: torch.nn.Module) -> None:
    test = latlas.open_data(like=run)
    assert len(test) == 179
    latents = latlas.encode(run)
    assert latents.shape == (179, model.latent_dim)
    samples = latlas.sample(run, 3).values
    assert samples.shape == (3, 1, 8, 8)
    assert samples.dtype == np.uint8
    assert samples.max() <= 16
    np.testing.assert_array_equal(latlas.decode(run, latents), latlas.reconstruct(latlas.load(run)))
    assert latlas.interpolate(run, latents[0], latents[1], steps=5).shape == (5, 1, 8, 8)
    assert latlas.traverse(run, dims=[2, 0], steps=3, latents=latents).shape == (2, 3, 1, 8, 8)
    assert latlas.score(run, draws=3).nats.shape == (179,)


def test_results_say_in_a_line_what_they_are(run: Path) -> None:
    """An array of a thousand examples is no answer to what it is."""
    lines = [repr(result) for result in (
        latlas.load(run), latlas.sample(run, 3), latlas.encode(run), latlas.score(run, draws=2),
        latlas.project(run, n=2, starts=1, steps=1), latlas.outliers(run, fpr=0.1, controls=False))]
    assert lines[0].startswith("Run(vae, ") and "sample" in lines[0]
    assert lines[1] == "Examples(image, (3, 1, 8, 8), uint8)"
    assert lines[2].startswith("Latents(n=179, latent_dim=")
    assert lines[3].startswith("Scores(examples=179, method=iw, draws=2, nats=-")
    assert lines[4] == "Projection(space=z)" and lines[5].startswith("Outliers(examples=179, ")


def test_arrays_files_and_data_sets_mean_the_same_examples(model: torch.nn.Module) -> None:
    test = latlas.open_data("digits", "test")
    x = test.take("x")
    expected = latlas.encode(model, "digits", split="test")
    for same in (test, x, x[:, 0], x.astype(float), x.reshape(179, 64), (x, test.take("label"))):
        np.testing.assert_array_equal(latlas.encode(model, same), expected)


def test_colour_channels_may_come_last() -> None:
    space = Images((3, 5, 4))
    last = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    got = open_examples(_Like(space), last)
    np.testing.assert_array_equal(got.x, last.transpose(0, 3, 1, 2))


class _Like:
    """What open_examples asks of a run."""

    def __init__(self, space: Space) -> None:
        self.space, self.data = space, None


def test_columns_are_taken_by_name() -> None:
    """Another order of columns, another order of classes, other units: same examples."""
    space = table_space("a", "b", classes=("no", "yes"))
    data = Dataset(np.array([[1, 2, 3], [4, 5, 6]], np.float32),
                   table_space("b", "x", "a", classes=("yes", "no")), np.array([0, 1]))
    got = conform(data, space, "t.csv")
    np.testing.assert_array_equal(got.x, [[3, 1], [6, 4]])
    np.testing.assert_array_equal(got.label, [1, 0])
    assert got.space == space
    with pytest.raises(DataError, match=r"t\.csv has no column 'c'"):
        conform(data, table_space("a", "c"), "t.csv")


def test_few_rows_need_not_hold_every_word(tmp_path) -> None:
    """Levels that do not occur, and numbers of which none is missing, are columns of zeros."""
    rng, rows = np.random.default_rng(0), ["a,b,city"]
    for i in range(60):
        number = "" if i % 10 == 0 else f"{rng.normal():.3f}"
        rows.append(f"{number},{rng.normal():.3f},{('Bonn', 'Oslo', 'Rome')[i % 3]}")
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    run = tmp_path / "run"
    latlas.train("pca", str(tmp_path / "all.csv"), out=run, progress=False, latent_dim=2)
    (tmp_path / "some.csv").write_text("\n".join([rows[0], rows[3]]) + "\n")
    alone = latlas.score(run, str(tmp_path / "some.csv")).nats
    every = latlas.score(run, str(tmp_path / "all.csv"), split="all").nats
    np.testing.assert_allclose(alone, every[2:3], rtol=1e-4)
    (tmp_path / "new.csv").write_text("a,b,city\n1,2,Kyiv\n")
    with pytest.raises(DataError, match=r"new.*column city holds 'Kyiv'.*knows Bonn, Oslo, Rome"):
        latlas.score(run, str(tmp_path / "new.csv"))


def test_strange_classes_are_named() -> None:
    data = Dataset(np.zeros((1, 1), np.float32), table_space("a", classes=("maybe",)),
                   np.array([0]))
    with pytest.raises(DataError, match="unknown class 'maybe'"):
        conform(data, table_space("a", classes=("no", "yes")), "t.csv")


def test_class_codes() -> None:
    space = table_space("a", classes=("3", "7"))
    np.testing.assert_array_equal(class_codes(space, [7, "3"]), [1, 0])
    with pytest.raises(ConfigError, match="no classes"):
        class_codes(table_space("a"), 3)
    with pytest.raises(ConfigError, match="unknown class '8'"):
        class_codes(space, 8)


def test_networks_of_ones_own(tmp_path: Path) -> None:
    def modules() -> dict[str, torch.nn.Module]:
        encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8))
        decoder = torch.nn.Sequential(torch.nn.Linear(4, 128), torch.nn.Unflatten(1, (2, 8, 8)))
        return {"encoder": encoder, "decoder": decoder}

    trained = latlas.train("vae", "digits", out=tmp_path / "own", progress=False, images=256,
                        latent_dim=4, threads=1, **modules())
    loaded = latlas.load(tmp_path / "own", **modules())
    np.testing.assert_array_equal(latlas.sample(loaded, 3), latlas.sample(trained.model, 3))
    with pytest.raises(RunError, match="modules of its own"):
        _ = latlas.load(tmp_path / "own").model
    other = {k: torch.nn.Sequential(torch.nn.Identity(), v) for k, v in modules().items()}
    with pytest.raises(RunError, match=r"do not fit the modules passed: .* is missing and"):
        _ = latlas.load(tmp_path / "own", **other).model


@pytest.mark.parametrize(("model", "modules", "message"), [
    ("vae", {"encoder": torch.nn.Flatten()},
     r"encoder must turn \(n, 1, 8, 8\) into \(n, 8\); it gives \(n, 64\)"),
    ("vae", {"decoder": torch.nn.Linear(4, 64)},
     r"decoder must turn \(n, 4\) into \(n, 2, 8, 8\); it gives \(n, 64\)"),
    ("ae", {"encoder": torch.nn.Linear(3, 4)}, "encoder must turn .* it fails: .*shapes"),
    ("ae", {"encoder": 3}, r"encoder must be a torch.nn.Module, not int"),
    ("pca", {"encoder": torch.nn.Flatten()}, "pca takes no encoder of your own")])
def test_networks_that_do_not_fit(model: str, modules: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        latlas.train(model, "digits", images=256, latent_dim=4, progress=False, **modules)


def test_a_network_is_tried_and_left_as_it_was() -> None:
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64),
                                  torch.nn.Linear(64, 4))
    encoder[1].eval()
    must_fit("encoder", encoder, (1, 8, 8), (4,))
    assert encoder.training
    assert not encoder[1].training
    assert encoder[1].num_batches_tracked == 0


def test_completion_keeps_the_part_that_was_given() -> None:
    trained = latlas.train("conditional-vae", "digits", condition="part", part="left",
                        progress=False, **TINY)
    x = latlas.open_data("digits", "test").take("x")[:2]
    samples = latlas.sample(trained.model, 4, given=x)
    assert samples.shape == (4, 1, 8, 8)
    latents = latlas.encode(trained.model, x)
    np.testing.assert_array_equal(latlas.decode(trained.model, latents, given=x),
                                  latlas.reconstruct(trained.model, x))
    walk = latlas.interpolate(trained.model, *latents, steps=3, given=x)
    np.testing.assert_array_equal(walk[0], latlas.decode(trained.model, latents[:1], given=x)[0])
    assert latlas.traverse(trained.model, dims=[0], steps=3, given=x).shape == (1, 3, 1, 8, 8)
    with pytest.raises(CapabilityError, match="a part of an image: name it with `given`"):
        latlas.sample(trained.model, 4, label=3)
    with pytest.raises(DataError, match="--given"):
        latlas.sample(trained.model, 4)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda run: latlas.train("vea"), ConfigError, "did you mean 'vae'"),
    (lambda run: latlas.train("vae", latentdim=3), ConfigError, "did you mean 'latent_dim'"),
    (lambda run: latlas.train("vae", images=1, epochs=1), ConfigError, "at most one budget"),
    (lambda run: latlas.train("vae", split="test"), ConfigError, "train on `train` or `all`"),
    (lambda run: latlas.sample("nowhere"), RunError, "nowhere"),
    (lambda run: latlas.encode(run, "nowhere.npz"), DataError, "no such file"),
    (lambda run: latlas.encode(run, np.zeros((2, 3))), DataError, "shape 3 given"),
    (lambda run: latlas.encode(run, np.full((2, 64), np.nan)), DataError, "NaN"),
    (lambda run: latlas.encode(run, np.array([["a"]])), DataError, "must be numbers"),
    (lambda run: latlas.encode(run, np.full((2, 64), 0.5)), DataError, r"0 … 16, these are 0.5"),
    (lambda run: latlas.train("vae", None), DataError, "name a source"),
    (lambda run: latlas.encode(run, "ring"), DataError, "points"),
    (lambda run: latlas.sample(run, 2, label=3), CapabilityError, "not conditional"),
    (lambda run: latlas.sample(run, 2, given="digits"), CapabilityError, "not conditional")])
def test_errors(run: Path, call: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(run)  # type: ignore[operator]


def test_a_model_of_arrays_in_memory_asks_for_data() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3))
    trained = latlas.train("pca", x, progress=False)
    with pytest.raises(DataError, match="name the data"):
        latlas.encode(trained.model)
    assert latlas.encode(trained.model, x).shape == (200, trained.model.latent_dim)


def test_samples_show_the_class_that_was_asked_for() -> None:
    """By the eyes of a classifier of real digits. With labels as faint as a 1 it is 56%."""
    x, label = (latlas.open_data("digits", "train").take(k) for k in ("x", "label"))
    reader = LogisticRegression(max_iter=2000).fit(x.reshape(-1, 64) / 16, label)
    trained = latlas.train("conditional-vae", "digits", progress=False,
                        **TINY | {"width": 128, "images": 20_000})
    samples = latlas.sample(trained.model, 300, label=list(range(10))).values.reshape(-1, 64) / 16
    assert (reader.predict(samples) == np.resize(np.arange(10), 300)).mean() > 0.9


def test_runs_of_two_sources_are_compared_on_the_test_part_of_the_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", x=rng.normal(size=(200, 3)).astype(np.float32))
        latlas.train("pca", tmp_path / f"{name}.npz", out=tmp_path / name, latent_dim=1,
                     progress=False)
    runs = [tmp_path / "a", tmp_path / "b"]
    table = latlas.compare(runs, metrics=("likelihood",))
    assert [e.settings["examples"] for e in table.evaluations] == [31, 31]
    assert cli.run(["compare", *map(str, runs), "--metrics", "likelihood"]) == 0
