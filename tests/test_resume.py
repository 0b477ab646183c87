"""Runs that are killed, interrupted, out of disk or out of numbers; runs that are refused."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

import latlas
from latlas.core.errors import RunError, TrainingError
from latlas.core.files import alone, create_run, load_tree
from latlas.engine.progress import Log, Progress
from latlas.engine.train import train
from latlas.models.vae import VAE
from latlas.run import Run

ROOT = Path(__file__).parent.parent
SCRIPT = """
import sys, pathlib, tiny, test_resume
tiny.torch.set_num_threads(1)
test_resume.run(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
"""


def run(path: Path, precision: str, images: int, progress=None) -> torch.Tensor:
    """Training with held-out checks and a checkpoint every 50 ms."""
    training = tiny.options(images=images, precision=precision, checkpoint_seconds=0.05)
    data = tiny.images()
    model, _ = tiny.train(path, "vae", data, tiny.small("vae"), training=training,
                          validation=data, progress=progress)
    return tiny.weights(model)


def started(path: Path, precision: str, images: int) -> subprocess.Popen:
    places = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), precision, str(images)],
                            env={**os.environ, "PYTHONPATH": places})


def kill_after(process: subprocess.Popen, path: Path, seconds: float) -> bool:
    """SIGKILL so many seconds after the next checkpoint is written; whether it still ran."""
    file, before = path / "checkpoint.safetensors", time.time()
    while process.poll() is None and not (file.is_file() and file.stat().st_mtime > before):
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_killed_once_it_ends_with_the_same_bits(tmp_path):
    process = started(tmp_path / "run", "fp32", 4800)
    assert kill_after(process, tmp_path / "run", 0.02)
    begun, bar = [], Progress()
    bar.begin = lambda note, n, images=0, share=0.0: begun.append(images)
    killed = run(tmp_path / "run", "fp32", 4800, bar)
    assert 0 < begun[0] < 4800
    assert torch.equal(killed, run(tmp_path / "whole", "fp32", 4800))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_at_three_random_moments_it_ends_with_the_same_bits(tmp_path, precision):
    settings = precision, 32_000
    assert started(tmp_path / "whole", *settings).wait() == 0
    whole = load_tree(tmp_path / "whole/model.safetensors")[0]
    for _ in range(3):
        process = started(tmp_path / "run", *settings)
        assert kill_after(process, tmp_path / "run", random.uniform(0, 0.5))
    assert started(tmp_path / "run", *settings).wait() == 0
    killed = load_tree(tmp_path / "run/model.safetensors")[0]
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[k], whole[k]) for k in whole)


def test_bf16_differs_from_fp32_so_equal_bits_mean_something(tmp_path):
    one, two = (run(tmp_path / p, p, 320) for p in ("fp32", "bf16"))
    assert not torch.equal(one, two)


def short(path: Path, progress=None, **more):
    return tiny.train(path, "vae", tiny.images(), tiny.small("vae"), progress=progress,
                      training=tiny.options(**more))


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path):
    stop = tiny.At(64, lambda: signal.raise_signal(signal.SIGINT))
    _, outcome = short(tmp_path / "run", stop)
    assert (outcome.stopped, outcome.images) == ("interrupt", 64)
    assert Run(tmp_path / "run").finished is False
    _ = Run(tmp_path / "run").model  # what there is so far can be used
    _, outcome = short(tmp_path / "run")
    assert (outcome.stopped, outcome.images) == ("budget", 320)
    assert not (tmp_path / "run/checkpoint.safetensors").exists()
    _, outcome = short(tmp_path / "run")
    assert outcome.stopped == "already finished"


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_convolutions_in_bf16_resume_to_the_same_bits(tmp_path, layout):
    """Optimiser moments must come back in the memory layout of their weights."""
    def train(path, progress=None):
        config = tiny.small("vae", network="conv", width=8, depth=2)
        training = tiny.options(images=160, precision="bf16", layout=layout)
        data = tiny.images((3, 12, 12))
        return tiny.train(path, "vae", data, config, training=training, progress=progress)[0]
    whole = train(tmp_path / "whole")
    train(tmp_path / "run", tiny.At(80, lambda: signal.raise_signal(signal.SIGINT)))
    assert torch.equal(tiny.weights(train(tmp_path / "run")), tiny.weights(whole))


def test_draws_of_a_users_module_are_the_same_after_a_resume(tmp_path):
    """``nn.Dropout`` draws from torch's own generator, of which a checkpoint holds nothing."""
    def train(path, share=0.5, progress=None):
        def own():
            encoder = nn.Sequential(nn.Flatten(), nn.Dropout(share), nn.Linear(64, 3))
            return {"encoder": encoder, "decoder": nn.Sequential(
                nn.Linear(3, 64), nn.Unflatten(-1, (1, 8, 8)))}
        return tiny.weights(tiny.train(path, "ae", tiny.images(), tiny.small("ae"), modules=own,
                                       progress=progress)[0])
    whole = train(tmp_path / "whole")
    assert not torch.equal(whole, train(tmp_path / "without", 0.0))
    train(tmp_path / "run", progress=tiny.At(176, lambda: signal.raise_signal(signal.SIGINT)))
    torch.rand(1)  # whatever else this process has drawn meanwhile
    assert torch.equal(train(tmp_path / "run"), whole)


def test_a_run_goes_on_in_batches_of_its_own_size_alone(tmp_path):
    """A size that is left to choose is rounded up to a multiple of the processes."""
    model, _ = short(tmp_path / "run", tiny.At(64, lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(RunError, match="batches of 16, here they are of 18; go on with as many"):
        train(model, tiny.images(), None, tiny.options(batch_size=18),
              tmp_path / "run")


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs ignore it
    with pytest.raises(KeyboardInterrupt):
        short(tmp_path / "run", tiny.At(64, twice))
    assert signal.getsignal(signal.SIGINT) is before


def test_the_log_has_no_line_from_a_life_that_was_lost(tmp_path):
    def cut():
        raise KeyboardInterrupt
    short(tmp_path / "run", tiny.At(64, lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):  # dies 10 steps after its checkpoint
        short(tmp_path / "run", tiny.At(224, cut))
    short(tmp_path / "run")
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    images_logged = [json.loads(line)["images"] for line in lines if "kl" in json.loads(line)]
    assert images_logged == list(range(16, 321, 16))


@contextmanager
def disk_of(size: int):
    """No file can grow beyond ``size`` bytes; the system then answers as for a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    short(tmp_path / "run", tiny.At(64, lambda: signal.raise_signal(signal.SIGINT)))
    before = (tmp_path / "run/checkpoint.safetensors").read_bytes()
    with disk_of(8_000), pytest.raises(RunError, match=r"cannot save .*checkpoint.*intact"):
        short(tmp_path / "run", tiny.At(128, lambda: signal.raise_signal(signal.SIGINT)))
    assert (tmp_path / "run/checkpoint.safetensors").read_bytes() == before
    assert not list((tmp_path / "run").glob("*.part*"))
    resumed, _ = short(tmp_path / "run")
    whole, _ = short(tmp_path / "whole")
    assert torch.equal(tiny.weights(resumed), tiny.weights(whole))


def test_a_full_disk_while_logging_is_one_line(tmp_path):
    run = create_run(tmp_path / "run", {"model": "vae"})
    with disk_of(10), pytest.raises(RunError, match=r"cannot write .*metrics.jsonl"):
        Log(run, Progress()).write(1, {"loss": 2.0})


class Breaks(VAE):
    """Its KL term is no number from the example counted on."""

    at = 160

    def kl_weight(self, step):
        return float("nan") if step.images >= self.at else 1.0


@pytest.mark.parametrize("seconds, checkpoint", [(1000.0, "no checkpoint"), (0.0, "intact")])
def test_a_loss_that_is_no_number_is_named(tmp_path, seconds, checkpoint):
    data, training = tiny.images(), tiny.options(checkpoint_seconds=seconds)
    model = Breaks(tiny.small("vae"), data.space)
    run = create_run(tmp_path / "run", {"model": "vae"})
    with pytest.raises(TrainingError, match=rf"^loss is not a finite number at .*{checkpoint}"):
        train(model, data, None, training, run)
    checkpoint = run / "checkpoint.safetensors"
    assert checkpoint.exists() == (seconds == 0)
    if seconds == 0:
        tensors, meta = load_tree(checkpoint)
        assert meta["images"] == 160
        assert all(v.isfinite().all() for v in tensors.values())


def test_the_term_that_broke_is_named_rather_than_the_sum(tmp_path):
    data = tiny.images()
    run = create_run(tmp_path / "run", {"model": "vae"})
    model = VAE(tiny.small("vae", likelihood="gaussian"), data.space)
    with torch.no_grad():
        model.decoder.net[-1].bias[3] = float("inf")
    with pytest.raises(TrainingError, match=r"^reconstruction is not"):
        train(model, data, None, tiny.options(), run)


def test_a_newer_format_is_refused_in_one_line(tmp_path):
    short(tmp_path / "run")
    file = tmp_path / "run/run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    for use in (lambda: short(tmp_path / "run"), lambda: Run(tmp_path / "run").model):
        with pytest.raises(RunError, match=r"is of format 99.*update latlas") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_another_request_is_refused_and_the_difference_named(tmp_path):
    short(tmp_path / "run")
    with pytest.raises(RunError, match=r"training\.learning_rate is 0\.001 there, 0\.1 asked"):
        short(tmp_path / "run", learning_rate=0.1)


def test_another_request_in_a_folder_without_weights_may_remove_it(tmp_path):
    create_run(tmp_path / "run", {"model": "vae"})
    with pytest.raises(RunError, match="holds no weights yet: remove it"):
        create_run(tmp_path / "run", {"model": "ae"})
    short(tmp_path / "trained")
    with pytest.raises(RunError, match="--from"):
        short(tmp_path / "trained", learning_rate=0.1)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        short(tmp_path)
    with pytest.raises(RunError, match="no run folder"):
        _ = Run(tmp_path).model


def test_a_damaged_checkpoint_is_named(tmp_path):
    short(tmp_path / "run", tiny.At(64, lambda: signal.raise_signal(signal.SIGINT)))
    file = tmp_path / "run/checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"cannot read .*checkpoint.safetensors"):
        short(tmp_path / "run")


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    train = partial(latlas.train, "vae", "digits", out=tmp_path / "run", images=64,
                    batch_size=32, width=8, progress=False)
    train()
    with (alone(tmp_path / "run"),
          pytest.raises(RunError, match=r"run is being trained by another process")):
        train()
    assert train().outcome.stopped == "already finished"
