"""What every test starts from: one thread, a fixed seed, no process group of torchrun's."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of NumPy, SciPy and scikit-learn, and processes

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's job in the background has it
    signal.signal(signal.SIGINT, signal.default_int_handler)
# the same examples in every run; HYPOTHESIS_PROFILE=default looks for new ones
settings.register_profile("repeated", derandomize=True, database=None, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeated"))


@pytest.fixture(autouse=True)
def _same_start(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch.manual_seed would also write down the stack for devices that are not there: 5 ms
    torch.default_generator.manual_seed(0)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which it does not matter how well the classifier of features has learnt."""
    from latlas.metrics import features
    learn = features.train_classifier
    monkeypatch.setattr(features, "train_classifier",
                        lambda *args, **more: learn(*args, **({"steps": 60} | more)))
