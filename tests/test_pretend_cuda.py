"""Every model on a GPU that is not there: no mix of devices, no wait in a step, the CPU's numbers.

What the pretend device is, and what it cannot show, is said in :mod:`pretend_cuda`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from latlas import models

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the pretend device needs g++")

#: waits of a step that are allowed, by case: none
WAITS: dict[str, list[str]] = {}
#: whose numbers follow from rounding errors after some steps, on the CPU's own layouts too:
#: instance norms over a few pixels
CHAOTIC = {"cycle-gan"}
#: whose step goes by numbers of Python's, so that no CUDA graph of it is replayed
NOT_RECORDED = {"pca", "progressive-gan", "cycle-gan"}
SMALL = ["vae", "gan"]
#: of those of the contract
VARIANTS = ["vae-table", "vae-vamp", "gan-points", "gan-ada", "conditional-gan-conv",
            "conditional-vae-part-conv", "cycle-gan-frames", "latent-flow-wide"]
OTHERS = sorted(set(models.MODELS) - set(SMALL)) + VARIANTS


def reports(folder: Path, cases: list[str]) -> list[dict[str, Any]]:
    """What :mod:`pretend_check` says of these cases, in a process of its own, which torchrun has
    told that the first GPU is its."""
    run = subprocess.run(
        [sys.executable, str(HERE / "pretend_check.py"), str(folder / "runs"), *cases],
        capture_output=True, text=True, timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "LOCAL_RANK": "0",
             "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])})
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def require(report: dict[str, Any]) -> None:
    """The contract."""
    case = report["case"]
    float64 = models.load_class(models.get(case)).defaults.needs_float64 if (
        case in models.MODELS) else bool(report["float64"])
    assert report["failures"] == {}, case
    assert report["waits"] == WAITS.get(case, []), case
    assert bool(report["float64"]) == float64, f"{case}: {report['float64']}"
    assert (report["replays"] == 0) == (case in NOT_RECORDED), case
    for way, distance in report["distances"].items():
        tolerance = 0.1 if way == "bf16" else 1e-5
        assert distance < tolerance or case in CHAOTIC, f"{case} {way}"


def test_a_vae_and_a_gan(tmp_path):
    result = reports(tmp_path, SMALL)
    assert [report["case"] for report in result] == SMALL
    for report in result:
        require(report)


@pytest.mark.slow
@pytest.mark.parametrize("cases", [OTHERS[i::7] for i in range(7)], ids="+".join)
def test_all_other_models(tmp_path, cases):
    result = reports(tmp_path, cases)
    assert [report["case"] for report in result] == cases
    for report in result:
        require(report)
