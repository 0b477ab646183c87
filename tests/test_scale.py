"""The recipes of docs/scale.md as they stand: with stand-ins for Ray and Spark, and with both."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars
import pytest

import latlas
from latlas.cli.__main__ import run as command

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
#: on a busy machine Ray's workers, which are nice, take long to come up
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
       "RAY_worker_register_timeout_seconds": "600", "RAY_worker_niceness": "0"}
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def block(word):
    return next(text for text in BLOCKS if word in text)


def run_in(folder, text, **environment):
    """In a process of its own: its threads, warnings and sessions are none of ours."""
    root = str(Path(latlas.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.run([sys.executable, "-c", text], cwd=folder, env=env, text=True,
                          capture_output=True, timeout=1500)
    assert process.returncode == 0, process.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run and the file of the recipes."""
    path = tmp_path_factory.mktemp("scale")
    latlas.train("vae", "digits", out=path / "runs" / "vae-digits", images=2000, width=32,
                 depth=1, latent_dim=4, progress=False, threads=1, device="cpu",
                 precision="fp32")
    with chdir(path):
        execute(block('write_parquet("digits.parquet")'))
    return path


def execute(text):
    """In this process; the names that it leaves."""
    names = {}
    exec(compile(text, str(PAGE), "exec"), names)
    return names


def must_equal_the_scorer(folder, out, n=None):
    """Row by row what the scorer gives here, in whatever order and parts it came."""
    result = polars.read_parquet(folder / out / "*.parquet").sort("example")
    x = latlas.open_data("digits", "test").take("x")[:n]
    here = latlas.Scorer(folder / "runs" / "vae-digits", draws=50)({"x": x})
    np.testing.assert_array_equal(result["example"], np.arange(len(x)))
    np.testing.assert_allclose(result["nats"], here["nats"], rtol=1e-6)
    np.testing.assert_allclose(result["ess"], here["ess"], rtol=1e-4)


FEW = 40  # rows that the stand-ins read


@dataclass
class Rows:
    """A table, with as much of Ray's and of Spark's interface as the recipes use."""

    frame: polars.DataFrame

    @staticmethod
    def parquet(path):
        return Rows(polars.read_parquet(path).head(FEW))

    def batches(self, size):
        return [{name: part[name].to_numpy() for name in part.columns}
                for part in self.frame.iter_slices(size)]

    def map_batches(self, made_of, *, fn_constructor_args, fn_constructor_kwargs, compute,
                    batch_size, num_cpus):
        actor = made_of(*fn_constructor_args, **fn_constructor_kwargs)
        assert compute == {"min_size": 1, "max_size": 8} and (batch_size, num_cpus) == (256, 1)
        return Rows(polars.concat([polars.DataFrame(actor(b)) for b in self.batches(16)]))

    def mapInPandas(self, of, schema):
        kinds = {"long": polars.Int64, "double": polars.Float64, "boolean": polars.Boolean}
        names = dict(column.split() for column in schema.split(", "))
        parts = [polars.DataFrame(part).select(list(names)) for part in of(iter(self.batches(16)))]
        frame = polars.concat(parts)
        assert frame.schema == {name: kinds[kind] for name, kind in names.items()}
        return SimpleNamespace(write=SimpleNamespace(parquet=Rows(frame).write_parquet))

    def write_parquet(self, folder):
        Path(folder).mkdir()
        self.frame.write_parquet(f"{folder}/part.parquet")


def test_every_recipe_runs_with_stand_ins(folder, monkeypatch):
    """In the order of the page; what they write is what a scorer gives."""
    spark = SimpleNamespace(read=SimpleNamespace(parquet=Rows.parquet))
    modules = {
        "ray": {"data": SimpleNamespace(read_parquet=Rows.parquet, ActorPoolStrategy=dict)},
        "pandas": {"DataFrame": dict}, "pyspark": {},
        "pyspark.sql": {"SparkSession": SimpleNamespace(
            builder=SimpleNamespace(getOrCreate=lambda: spark))}}
    for name, names in modules.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**names))
    monkeypatch.chdir(folder)
    assert command(["score", "runs/vae-digits", "--shard", "1/1", "--out", "scores", "--draws",
                    "2"]) == 0
    names = {}
    for text in BLOCKS:
        names |= execute(text)
    np.testing.assert_array_equal(names["scores"]["example"], np.arange(len(names["digits"])))
    batch = names["rows"].batches(5)[0]
    assert list(names["scorer"](batch))[:2] == ["example", "nats"]
    for out in ("scores-ray", "scores-spark"):
        must_equal_the_scorer(folder, out, FEW)
        shutil.rmtree(out)
    shutil.rmtree("scores")


@pytest.mark.slow
def test_the_ray_recipe(folder):
    pytest.importorskip("ray")
    small = "import ray\nray.init(num_cpus=2, include_dashboard=False)\n"
    run_in(folder, small + block("import ray"), **RAY)
    must_equal_the_scorer(folder, "scores-ray")


@pytest.mark.slow
def test_the_spark_recipe(folder):
    pytest.importorskip("pyspark")
    pytest.importorskip("pandas")
    if shutil.which("java") is None:
        pytest.skip("Spark needs java")
    run_in(folder, block("pyspark"), PYSPARK_PYTHON=sys.executable)
    must_equal_the_scorer(folder, "scores-spark")


@pytest.mark.slow
def test_shards_in_processes_are_one_table(folder):
    words = [sys.executable, "-m", "latlas.cli", "score", "runs/vae-digits", "--draws", "3",
             "--out", "scores", "--shard"]
    env = {**os.environ, "PYTHONPATH": str(Path(latlas.__file__).parents[1])}
    running = [subprocess.Popen([*words, f"{i}/2"], cwd=folder, env=env) for i in (1, 2)]
    assert [process.wait(300) for process in running] == [0, 0]
    result = polars.read_parquet(folder / "scores" / "*.parquet")
    whole = latlas.score(folder / "runs" / "vae-digits", draws=3)
    np.testing.assert_allclose(result["nats"], whole.nats, rtol=1e-6)
