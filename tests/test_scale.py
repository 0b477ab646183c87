"""The recipes of docs/scale.md as they stand: compiled always, run where Ray and Spark are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars
import pytest

import latlas

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
    done = subprocess.run([sys.executable, "-c", text], cwd=folder, env=env, text=True,
                          capture_output=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run and the file of the recipes."""
    path = tmp_path_factory.mktemp("scale")
    latlas.train("vae", "digits", out=path / "runs" / "vae-digits", images=2000, width=32,
                 depth=1, latent_dim=4, progress=False, threads=1, device="cpu",
                 precision="fp32")
    run_in(path, block('write_parquet("digits.parquet")'))
    return path


def must_equal_the_scorer(folder, out):
    """Row by row what the scorer gives here, in whatever order and parts it came."""
    found = polars.read_parquet(folder / out / "*.parquet").sort("item")
    digits = latlas.open_data("digits", "test")
    here = latlas.Scorer(folder / "runs" / "vae-digits", draws=50)({"x": digits.take("x")})
    np.testing.assert_array_equal(found["item"], np.arange(len(digits)))
    np.testing.assert_allclose(found["nats"], here["nats"], rtol=1e-6)
    np.testing.assert_allclose(found["ess"], here["ess"], rtol=1e-4)


@pytest.mark.parametrize("text", BLOCKS)
def test_every_recipe_compiles(text):
    compile(text, str(PAGE), "exec")


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
    found = polars.read_parquet(folder / "scores" / "*.parquet")
    whole = latlas.score(folder / "runs" / "vae-digits", draws=3)
    np.testing.assert_allclose(found["nats"], whole.nats, rtol=1e-6)
