"""Shards together are the whole, a killed one goes on, and a scorer gives every example its own."""

from __future__ import annotations

import json
import pickle

import numpy as np
import polars
import pytest
import tiny
import torch

import latlas
from latlas import models
from latlas.cli import __main__ as cli
from latlas.core.errors import CapabilityError, ConfigError, RunError
from latlas.core.space import Points
from latlas.data.dataset import Dataset
from latlas.models import MODELS
from latlas.verbs import outliers, shards
from latlas.verbs.encode import encode
from latlas.verbs.score import VERBS, score
from latlas.verbs.shards import share_of

N = 1300  # two blocks of 512 and a shorter one
SCORED = {"draws": 7, "method": "iw", "precision": "fp32"}


def points(n=N, names=False):
    x = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    titles = np.array([f"row {i}" for i in range(n)]) if names else None
    return Dataset(x, Points((2,)), names=titles)


@pytest.fixture(scope="module")
def model():
    return tiny.build("vae", points(), tiny.small("vae", latent_dim=2)).eval()


def all_parts(model, data, out, count, name="score", **options):
    verb = {"score": score, "encode": encode}[name]
    return [verb(model, data, out=out, shard=f"{i + 1}/{count}", block=512, **options)
            for i in range(count)]


def table(out):
    return polars.read_parquet(out / "*.parquet")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_together_are_the_whole_to_the_last_bit(model, tmp_path, count):
    data = points()
    all_parts(model, data, tmp_path, count, **SCORED)
    result, whole = table(tmp_path), score(model, data, **SCORED)
    np.testing.assert_array_equal(result["example"], np.arange(N))
    np.testing.assert_array_equal(result["nats"], whole.nats)
    np.testing.assert_array_equal(result["ess"], whole.ess)
    assert len(list(tmp_path.glob("part-*.parquet"))) == 3


def test_any_subset_by_rows_gets_what_the_whole_gets(model):
    """Not only in shards: the rows of a split keep their draws."""
    data = points().subset(np.random.default_rng(1).permutation(N))
    whole = score(model, data, **SCORED).nats
    part = score(model, data.subset(slice(512, 1024)), **SCORED).nats
    np.testing.assert_array_equal(part, whole[512:1024])


def test_small_batches_still_fit_into_blocks(model, monkeypatch, tmp_path):
    monkeypatch.setattr("latlas.verbs.estimators.MEMORY", 100 * 7 * 4 * 4 * 32)  # some 100 examples
    data = points()
    all_parts(model, data, tmp_path, 2, **SCORED)
    np.testing.assert_array_equal(table(tmp_path)["nats"], score(model, data, **SCORED).nats)


def test_codes_and_names(model, tmp_path):
    data = points(names=True)
    all_parts(model, data, tmp_path, 2, "encode")
    result = table(tmp_path)
    assert result.columns == ["example", "z0", "z1"]
    assert result["example"].to_list()[600] == "row 600"
    np.testing.assert_array_equal(result.select("z0", "z1").to_numpy(), encode(model, data))


def test_what_is_lost_or_torn_is_written_again_and_nothing_else(model, tmp_path):
    data = points()
    first, = all_parts(model, data, tmp_path, 1, **SCORED)
    assert (first.count, first.existing) == (3, 0)
    before = table(tmp_path)
    parts = sorted(tmp_path.glob("part-*"))
    written_at = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:-200])
    again, = all_parts(model, data, tmp_path, 1, **SCORED)
    assert (again.count, again.existing) == (2, 1)
    assert parts[0].stat().st_mtime_ns == written_at and table(tmp_path).equals(before)


def test_a_part_of_other_items_is_not_taken_for_this_one(model, tmp_path):
    data = points()
    all_parts(model, data, tmp_path, 1, **SCORED)
    parts = sorted(tmp_path.glob("part-*"))
    parts[0].write_bytes(parts[1].read_bytes())
    assert all_parts(model, data, tmp_path, 1, **SCORED)[0].count == 1
    np.testing.assert_array_equal(table(tmp_path)["example"], np.arange(N))


def test_a_run_killed_halfway_leaves_whole_parts(model, tmp_path, monkeypatch):
    calls = []

    def dies(target, columns):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return shards_write(target, columns)

    shards_write = shards.write_table
    monkeypatch.setattr(shards, "write_table", dies)
    with pytest.raises(KeyboardInterrupt):
        all_parts(model, points(), tmp_path, 1, **SCORED)
    monkeypatch.undo()
    assert all_parts(model, points(), tmp_path, 1, **SCORED)[0].existing == 1
    np.testing.assert_array_equal(table(tmp_path)["nats"], score(model, points(), **SCORED).nats)


@pytest.mark.parametrize(("change", "said"), [
    ({"options": {**SCORED, "draws": 8}}, "options"), ({"count": 3}, "shards"),
    ({"data": points(1200)}, "data"), ({"name": "encode", "options": {}}, "verb"),
    ({"weights": 1.0}, "model")])
def test_a_folder_holds_parts_of_one_thing(model, tmp_path, change, said):
    all_parts(model, points(), tmp_path, 2, **SCORED)
    before = sorted(p.name for p in tmp_path.iterdir())
    other = model
    if "weights" in change:
        other = tiny.build("vae", points(), tiny.small("vae", latent_dim=2), seed=1).eval()
    with pytest.raises(ConfigError, match=f"parts of other .*{said}.*another folder"):
        all_parts(other, change.get("data", points()), tmp_path, change.get("count", 2),
                  change.get("name", "score"), **change.get("options", SCORED))
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_note_that_cannot_be_read_is_named(model, tmp_path):
    (tmp_path / "shard-1-of-1.json").write_text("{")
    with pytest.raises(RunError, match=r"shard-1-of-1\.json.*start afresh"):
        all_parts(model, points(), tmp_path, 1, **SCORED)


def test_empty_shards_write_nothing(model, tmp_path):
    result = score(model, points(), out=tmp_path, shard="4/5", block=512,
                       **SCORED)
    assert (result.count, result.existing) == (0, 0)


@pytest.mark.parametrize(("text", "said"), [
    ("3/2", "of 2 shards the first is 1/2"), ("0/4", "the last 4/4"), ("1", "i/n"),
    ("a/b", "i/n"), ("1/0", "shard=1/0"), ("-1/2", "i/n"), ("1/2/3", "i/n")])
def test_bad_shards_are_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        share_of(text)


def test_blocks_and_folders_are_checked(model, tmp_path):
    with pytest.raises(ConfigError, match="a multiple of 512"):
        score(model, points(), out=tmp_path, shard="1/1", block=100)
    with pytest.raises(ConfigError, match="name a folder"):
        score(model, points(), out=tmp_path / "a.parquet", shard="1/1")


# ------------------------------------------------------------------------------ command line

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "vae"
    latlas.train("vae", "ring", out=path, images=512, batch_size=64, width=16, depth=1,
                 latent_dim=2, progress=False, threads=1, device="cpu", precision="fp32",
                 likelihood="gaussian", noise_sd=1.0)
    return path


def test_the_command_line_writes_parts_and_says_what_it_did(run, tmp_path, capsys):
    words = ["score", run, "--data", "ring", "--split", "all", "--draws", 3, "--out", tmp_path]
    words = [*map(str, words), "--block", "512"]
    for i in (1, 2):
        assert cli.run([*words, "--shard", f"{i}/2"]) == 0
    assert "shard 2/2: wrote" in capsys.readouterr().out
    assert cli.run([*words, "--shard", "2/2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 0
    whole = latlas.score(run, "ring", split="all", draws=3)
    np.testing.assert_array_equal(table(tmp_path)["nats"], whole.nats)


@pytest.mark.parametrize(("words", "said"), [
    (("score", "--shard", "1/2"), "error: --shard needs a folder"),
    (("encode", "--shard", "3/2", "--out", "parts"), "error: --shard 3/2: of 2 shards"),
    (("score", "--shard", "1/2", "--out", "parts", "--block", "100"), "error: --block 100")])
def test_bad_words_are_one_line(run, words, said, capsys):
    assert cli.run([words[0], str(run), *words[1:]]) == 2
    assert capsys.readouterr().err.startswith(said)


def test_parts_from_python(run, tmp_path):
    result = latlas.encode(run, "ring", split="all", out=tmp_path, shard="1/1")
    assert result.count == len(list(tmp_path.glob("part-*.parquet")))
    np.testing.assert_array_equal(table(tmp_path).select("z0", "z1").to_numpy(),
                                  latlas.encode(run, "ring", split="all"))


def test_outliers_in_shards_are_judged_as_the_whole(run, tmp_path, capsys):
    whole = latlas.outliers(run, "ring", split="all", method="nats", controls=False)
    words = ["outliers", str(run), "--data", "ring", "--split", "all", "--method", "nats",
             "--out", str(tmp_path), "--block", "512"]
    for i in (1, 2):
        assert cli.run([*words, "--shard", f"{i}/2"]) == 0
    result = table(tmp_path)
    assert result.columns == ["example", "score", "flag"] and 0 < result["flag"].sum() < len(result)
    np.testing.assert_array_equal(result["score"], whole.score)
    np.testing.assert_array_equal(result["flag"], whole.flag)
    assert latlas.outliers(run, "ring", split="all", out=tmp_path, shard="1/2", block=512,
                           method="nats", seed=0).count == 0
    with pytest.raises(ConfigError, match="other reference examples"):
        latlas.outliers(run, "ring", split="all", out=tmp_path, shard="1/2", block=512,
                        reference=points(300).x, method="nats", seed=0)


# ------------------------------------------------------------------------------ scorer

def test_a_scorer_survives_pickling_and_is_light(run):
    scorer = latlas.Scorer(run, draws=5)
    x = points(6).x
    before = scorer({"x": x})
    packed = pickle.dumps(scorer)
    assert len(packed) < 2000
    again = pickle.loads(packed)({"x": x})
    assert list(again) == ["nats", "se", "bits_per_dim", "ess", "unreliable"]
    for name, values in before.items():
        np.testing.assert_array_equal(again[name], values)


def test_an_item_gets_its_own_draws_in_any_batch(run):
    x = points(9).x
    scorer = latlas.Scorer(run, draws=5)
    whole = scorer({"x": x})["nats"]
    order = np.random.default_rng(2).permutation(9)
    np.testing.assert_array_equal(scorer({"x": x[order]})["nats"], whole[order])
    np.testing.assert_array_equal(scorer({"x": x[3:5]})["nats"], whole[3:5])
    other = latlas.Scorer(run, draws=5, seed=1)({"x": x})["nats"]
    assert (other != whole).all()


def test_a_scorer_estimates_what_score_does(run):
    """By other draws: within the standard errors of both, example by example and in the mean."""
    x = latlas.open_data("ring", "all").x[:80]
    whole = latlas.score(run, x, draws=1000)
    assert np.median(whole.se) < 0.02
    for draws, together in ((1000, 1), (1000, 40), (250, 1)):
        scored = latlas.Scorer(run, draws=draws, together=together)({"x": x})
        assert (scored["nats"] != whole.nats).all()
        z = (scored["nats"] - whole.nats) / np.hypot(scored["se"], whole.se)
        assert np.abs(z).max() < 4.5 and abs(z.mean()) < 4 / np.sqrt(len(x))
        # of as many draws the same error, of a quarter of them twice that
        ratio = np.median(scored["se"] / whole.se)
        assert ratio == pytest.approx(np.sqrt(1000 / draws), rel=0.1)


def test_a_scorer_judges_outliers_and_sets_its_threshold_once(run, monkeypatch):
    x = np.concatenate([latlas.open_data("ring", "test").x[:20], np.full((5, 2), 9, np.float32)])
    scorer = pickle.loads(pickle.dumps(latlas.Scorer(run, "outliers", method="nats")))
    whole = latlas.outliers(run, x, method="nats", controls=False)
    np.testing.assert_allclose(scorer({"x": x})["score"], whole.score, rtol=1e-5)
    monkeypatch.setattr(outliers, "Normality", None)  # it would be called again
    np.testing.assert_array_equal(scorer({"x": x})["flag"], whole.flag)
    assert whole.flag[20:].all() and not whole.flag[:20].all()


def test_codes_and_columns_that_are_kept(run):
    x = points(5).x
    scorer = latlas.Scorer(run, "encode", column="point", keep=("key",))
    nested = np.empty(5, object)
    nested[:] = [list(map(float, row)) for row in x]  # as Spark hands arrays over
    result = scorer({"key": np.arange(5), "point": nested})
    assert list(result) == ["key", "z0", "z1"]
    np.testing.assert_allclose(np.c_[result["z0"], result["z1"]], latlas.encode(run, x), atol=1e-6)


def test_tables_are_found_by_their_columns(tmp_path):
    data = tiny.table()
    model, _ = tiny.train(tmp_path / "pca", "pca", data, models.get("pca").config())
    names = data.space.columns
    batch = {"id": np.arange(90), **{c: data.x[:, i] for i, c in reversed(list(enumerate(names)))}}
    result = latlas.Scorer(tmp_path / "pca", keep=("id",))(batch)
    np.testing.assert_allclose(result["nats"], score(model, data).nats, rtol=1e-6)


def test_a_scorer_says_what_is_wrong(run, tmp_path):
    with pytest.raises(ConfigError, match="column=…"):
        latlas.Scorer(run)({"a": np.ones((2, 2))})
    with pytest.raises(ConfigError, match="no column 'b'"):
        latlas.Scorer(run, column="b")({"a": np.ones((2, 2))})
    with pytest.raises(ConfigError, match="together=0"):
        latlas.Scorer(run, together=0)
    with pytest.raises(ConfigError, match="encode, outliers, score"):
        latlas.Scorer(run, "nothing")({"x": np.ones((2, 2))})
    tiny.train(tmp_path / "ae", "ae", tiny.points(), tiny.small("ae"))
    with pytest.raises(CapabilityError, match="cannot score"):
        latlas.Scorer(tmp_path / "ae")({"x": np.ones((2, 2))})


def test_every_verb_names_a_capability():
    words = set().union(*(entry.provides for entry in MODELS.values()))
    assert set(VERBS) - {"outliers"} <= words
    assert torch.get_num_threads() == 1
