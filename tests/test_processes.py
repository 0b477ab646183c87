"""Two processes under torchrun end where one process ends."""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from test_watch import DATA, Recorder, Steps

from latlas import train
from latlas.core.devices import DistributedContext, join, pick_device
from latlas.core.errors import ConfigError
from latlas.core.files import create_run
from latlas.core.model import Batch, Loss, Step
from latlas.core.noise import Noise
from latlas.engine.options import batch_size_of
from latlas.engine.train import train as train_model
from latlas.run import Run

ROOT = Path(__file__).parent.parent
#: 20 steps of 32 digits, fp32; the rate rises at once
SETTINGS = {"images": 640, "batch_size": 32, "precision": "fp32", "threads": 1, "ema": 0.0,
            "width": 32, "depth": 1, "latent_dim": 4, "device": "cpu"}
TRAIN = """
import sys, latlas
for model, settings in {cases}.items():
    latlas.train(model, "digits", out=sys.argv[1] + model, progress=False, **settings)
"""
SCRIPT = TRAIN.format(cases=dict.fromkeys(("vae", "ae"), SETTINGS)) + """
latlas.train("pca", "digits", out=sys.argv[1] + "pca", progress=False, latent_dim=4, device="cpu")
import pathlib, test_processes
test_processes.climb_together(pathlib.Path(sys.argv[1]))
"""


class OneFails(Steps):
    """What it reports on the second process, and only there, turns NaN by long steps."""

    def loss(self, batch: Batch, step: Step) -> Loss:
        long = bool(self.weight - self.before > self.longest) and step.index >= self.at
        self.before.copy_(self.weight.detach())
        total = -self.weight.sum()
        bad = long and os.environ["RANK"] == "1"
        return Loss(total, {"height": total * (torch.nan if bad else 1.0)})


def climb_together(out: Path) -> None:
    """20 steps of 0.1, and what each process ends with. A process that takes another number of
    steps than the other would wait for it without end."""
    faulthandler.dump_traceback_later(40, exit=True)
    context, model, progress = join(torch.device("cpu")), OneFails(), Recorder()
    if context.is_main:
        create_run(out / "climb", {"model": "steps"})
    context.agree(None)  # the folder is there
    training = tiny.options(learning_rate=0.1, warmup=0.0, schedule="constant", ema=0.0)
    train_model(model, DATA, None, training, out / "climb", progress)
    ending = {"weight": model.weight.item(), "warnings": progress.warnings}
    (out / f"climb-{context.rank}.json").write_text(json.dumps(ending))
    faulthandler.cancel_dump_traceback_later()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(out: Path, code: str) -> None:
    """Two processes of a script, whose argument is the folder."""
    script = out / "script.py"
    script.write_text(code)
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                    "--master-addr", "127.0.0.1", "--master-port", str(free_port()),
                    str(script), f"{out}/"], check=True, timeout=600, capture_output=True,
                   env={**os.environ, "OMP_NUM_THREADS": "1",
                        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])})


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder of runs that two processes made together."""
    out = tmp_path_factory.mktemp("pair")
    torchrun(out, SCRIPT)
    return out


def equals_one_process(together: Path, alone: Path, model: str, settings: dict) -> None:
    """Weights, and held-out losses, each half of which was computed by another process."""
    weights = train(model, "digits", out=alone, progress=False, **settings).model.state_dict()
    for name, value in Run(together).model.state_dict().items():
        torch.testing.assert_close(value, weights[name], atol=1e-5, rtol=1e-5,
                                   msg=lambda m, name=name: f"{name}: {m}")
    one, two = ([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
                for run in (alone, together))
    losses = [[line["validation/loss"] for line in lines if "validation/loss" in line]
              for lines in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("model", ["vae", "ae"])
def test_twenty_steps_of_two_processes_equal_one(pair, tmp_path, model):
    equals_one_process(pair / model, tmp_path / "run", model, SETTINGS)


@pytest.mark.slow
def test_other_models_of_two_processes_equal_one_too(tmp_path):
    """At full network sizes; adaptive augmentation, which each process does by itself, is off. Of
    the flow and its autoencoder ten steps each. Adam makes whole steps of the rounding errors of a
    gradient that is nearly zero, but for its epsilon."""
    common = SETTINGS | {"adam_eps": 1e-5}
    del common["width"], common["depth"], common["latent_dim"]
    cases = {"vae": common, "gan": common | {"augment": "none"}, "latent-flow": common}
    torchrun(tmp_path, TRAIN.format(cases=cases))
    for model, settings in cases.items():
        equals_one_process(tmp_path / model, tmp_path / f"{model}-alone", model, settings)


def test_closed_form_is_saved_once(pair):
    assert Run(pair / "pca").finished


def test_a_number_that_is_not_finite_on_one_process_takes_both_back(pair):
    """Ten steps of 0.1, the last of them again, as all that follow, at half the rate."""
    for rank, culprit in enumerate(("a number of another process", "height")):
        ending = json.loads((pair / f"climb-{rank}.json").read_text())
        assert ending["weight"] == pytest.approx(9 * 0.1 + 11 * 0.05, rel=1e-4)
        warning, = ending["warnings"]
        assert f"{culprit} is not a finite number at 176 examples" in warning


def test_noise_of_a_rank_is_its_rows_of_the_global_draw():
    whole = Noise(5).normal(8, 3)
    parts = [Noise(5, rank=rank, world=2).normal(4, 3) for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_batch_that_does_not_divide_is_refused():
    data = tiny.images()
    model = tiny.build("vae", data, tiny.small("vae"))
    with pytest.raises(ConfigError, match=r"=33 does not divide over 2 processes; choose a "
                                          r"multiple of 2$") as caught:
        batch_size_of(model, len(data), tiny.options(batch_size=33), DistributedContext(0, 2))
    assert caught.value.option == "batch_size"


def test_every_process_has_its_own_gpu(monkeypatch):
    """Of those of one machine, also for what is broadcast before the first tensor."""
    current, groups, at_exit = [], [], []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setattr(torch, "empty", lambda *_, device: device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.distributed, "init_process_group",
                        lambda backend, device_id: groups.append((backend, device_id)))
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 7)
    assert [str(pick_device(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:3", "cuda:3", "cuda:1", "cpu"]
    context = join(pick_device("auto"))
    assert (context.rank, context.size, groups) == (7, 8, [("nccl", torch.device("cuda", 3))])
    assert current == [torch.device("cuda", 3)]
    assert at_exit == [torch.distributed.destroy_process_group]
