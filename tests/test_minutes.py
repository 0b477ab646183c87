"""A budget of minutes: plans that follow the clock, and what is said of too little training."""

import json
import signal
import sys

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_engine import FakeTime, Walk, run_of

import latlas
from latlas import cli as package
from latlas.cli import __main__ as cli
from latlas.core.record import Chosen, read_run
from latlas.core.space import Images, Points
from latlas.core.trees import Ending
from latlas.data.dataset import Dataset
from latlas.engine.progress import Bar
from latlas.engine.resolve import too_few_steps
from latlas.engine.schedule import Plan, Schedule
from latlas.engine.train import train

DATA = Dataset(np.zeros((32, 1), np.float32), Points((1,)))


@given(st.integers(1, 10_000), st.integers(1, 64), st.integers(1, 300))
def test_one_plan_is_the_share_of_its_examples(images, batch_size, times):
    schedule = Schedule([Plan(0, images)], batch_size)
    steps = -(-images // batch_size)
    period = max(1, steps // times)
    assert schedule.steps(0) == steps
    for step in range(0, steps + 1, max(1, steps // 50)):
        assert schedule.progress(step) == min(1.0, step * batch_size / images)
        assert schedule.due(step, period) == (step % period == 0)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 400)), max_size=6),
       st.integers(1, 300))
def test_no_plan_takes_progress_back(changes, first):
    """It rises from 0 to 1, whatever is planned on the way; moments are those of the first plan."""
    schedule, step = Schedule([Plan(0, 8 * first)], 8), 0
    for ahead, left in changes:
        step += ahead
        if step >= schedule.steps(step):
            break
        schedule.follow(Plan(step, 8 * (step + left)))
    last = schedule.steps(schedule.plans[-1].step)
    shares = [schedule.progress(s) for s in range(last + 1)]
    moments = [schedule.moment(s) for s in range(last + 1)]
    assert shares[0] == 0 and shares[-1] == pytest.approx(1) and shares == sorted(shares)
    assert moments[0] == 0 and moments[-1] == first and moments == sorted(moments)
    again = Schedule(schedule.plans, 8)
    assert [again.progress(s) for s in range(last + 1)] == shares


class Slows(Walk):
    """Whose steps take ``seconds`` at first, and ``later`` after the given moment."""

    def __init__(self, clock, seconds, later, moment):
        super().__init__()
        self.clock, self.seconds, self.later, self.moment = clock, seconds, later, 1000 + moment

    def __deepcopy__(self, memo):  # the clock is the same for the copy that is timed
        twin = type(self)(self.clock, self.seconds, self.later, self.moment - 1000)
        twin.load_state_dict(self.state_dict())
        return twin

    def losses(self, batch, step):
        late = self.clock.seconds > self.moment
        self.clock.seconds += self.later if late else self.seconds
        return super().losses(batch, step)


@pytest.mark.parametrize(("seconds", "later", "moment"), [
    (0.05, 0.05, 0), (0.05, 0.2, 60), (0.2, 0.05, 60), (0.02, 0.4, 20), (0.05, 0.15, 150),
    (2.0, 2.0, 0), (6.0, 6.0, 0), (2.0, 8.0, 90)])
def test_minutes_are_kept_when_the_machine_becomes_busy_or_idle(tmp_path, monkeypatch, seconds,
                                                               later, moment):
    """Three minutes, of which 20 seconds were spent before training began."""
    clock = FakeTime(monkeypatch)
    model, options = Slows(clock, seconds, later, moment), tiny.options(images=None, minutes=3)
    run = run_of(tmp_path / "run")
    outcome = train(model, DATA, None, options, run, started=clock.seconds - 20)
    spent = clock.seconds - 1000 + 20
    assert 0.9 * 180 - seconds <= spent <= 1.1 * 180 + later
    chosen = read_run(run)["chosen"]
    assert outcome.images == chosen["plans"][-1][1] and chosen["minutes"] == 3
    assert outcome.ending.steps == outcome.images // 16


def test_the_learning_rate_falls_to_its_end_though_the_plan_changes(tmp_path, monkeypatch):
    clock, shares = FakeTime(monkeypatch), []

    class Notes(Slows):
        def losses(self, batch, step):
            shares.append((step.index, step.progress))
            return super().losses(batch, step)

    train(Notes(clock, 0.05, 0.2, 30), DATA, None, tiny.options(images=None, minutes=1),
          run_of(tmp_path / "run"))
    first = max(i for i, (index, _) in enumerate(shares) if index == 0)  # those before were timed
    progress = [share for _, share in shares[first:]]
    assert progress == sorted(progress) and progress[0] == 0 and 0.95 < progress[-1] < 1


def test_stalled_threads_become_one(tmp_path, monkeypatch):
    """Steps on two threads that take far longer than when they were timed."""
    clock, used = FakeTime(monkeypatch), [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: used.append(n))

    class Stalls(Slows):
        def losses(self, batch, step):
            late = self.clock.seconds > self.moment
            self.clock.seconds += 2.0 if late and used[-1] == 2 else 0.1 * (3 - used[-1])
            return Walk.losses(self, batch, step)

    run = run_of(tmp_path / "run")
    train(Stalls(clock, 0, 0, 60), DATA, None,
          tiny.options(images=None, minutes=3, threads=0), run)
    plans = read_run(run)["chosen"]["plans"]
    assert plans[1][2] == 2 and plans[-1][2] == 1
    assert 0.9 * 180 <= clock.seconds - 1000 <= 1.1 * 180


def test_a_run_that_was_stopped_repeats_its_plans(tmp_path, monkeypatch):
    """It follows those in run.json, ends as they say, and keeps its minutes over both parts."""
    clock = FakeTime(monkeypatch)
    options = tiny.options(images=None, minutes=1, checkpoint_seconds=1e9)
    run = run_of(tmp_path / "run")
    stop = tiny.At(16 * 300, lambda: signal.raise_signal(signal.SIGINT))
    assert train(Slows(clock, 0.05, 0.1, 10), DATA, None, options, run,
                 stop).stopped == "interrupt"
    before, spent = read_run(run)["chosen"]["plans"], clock.seconds
    clock.seconds += 1000  # the night
    train(Slows(clock, 0.1, 0.1, 10), DATA, None, options, run)
    after = read_run(run)["chosen"]["plans"]
    assert after[:len(before)] == before and len(after) > len(before)
    assert 54 <= clock.seconds - 1000 - 1000 <= 66 and spent < clock.seconds


def test_too_few_steps_are_said_with_the_way_out():
    chosen = json.loads('{"images": 1000, "threads": 1, "precision": "fp32", "layout": '
                        '"contiguous", "batch_size": 64, "learning_rate": 0.001, '
                        '"examples_per_second": 7.0, "minutes": 5}')
    [text] = too_few_steps(Chosen(**chosen), 2000, Images((3, 200, 200)))
    assert "5 minutes are 16 steps and 0.5 epochs at 7 examples/s" in text
    assert "image_size=32 makes about 273 examples/s" in text and "minutes=160" in text
    assert too_few_steps(Chosen(**chosen | {"images": 64_000}), 2000, Images((3, 64, 64))) == []
    assert too_few_steps(Chosen(**chosen | {"minutes": 0}), 2000, Images((3, 64, 64))) == []


def test_what_was_reached_is_said():
    ending = Ending(1, "", 2000, 10.0, "budget", best=93.1, steps=31, epochs=0.5, improved=0.02,
                    alarms=("collapse",))
    assert ending.summary() == (
        "finished 2,000 examples in 10.0 s (31 steps, 0.5 epochs); held-out loss 93.1, and it was "
        "still falling: by 2.0% in the last fifth; not resolved: collapse")
    assert ending.warnings() == ["it saw 31 steps and 0.5 epochs",
                               "an alarm held to its end (collapse)"]
    assert Ending(1, "", 2000, 10.0, "closed form").warnings() == []


def test_minutes_count_from_the_command_that_runs(tmp_path, monkeypatch):
    """Not from when the process began, which may have run others before."""
    monkeypatch.setattr(package, "IMPORTED", 0.0)
    monkeypatch.setattr(package, "launched", 0.0)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["train", "vae", "--data", "digits", "--minutes", "0.03", "--out", "run",
                    "--set", "threads=1"]) == 0
    assert latlas.load("run").ending.seconds < 60


@pytest.mark.parametrize("changes", [
    [], [(100, 4000)], [(100, 4000), (300, 9000), (500, 10_000)], [(150, 2600), (200, 12_000)]])
def test_the_bar_never_goes_back_when_a_plan_grows(changes, capsys):
    """A step takes a second; a line is printed at the first one and every ten."""
    clock, schedule = [0.0], Schedule([Plan(0, 3200)], 16)
    bar = Bar(lambda: clock[0])
    bar.begin("begun", 400)
    step = 0
    while schedule.progress(step) < 1:
        step, clock[0] = step + 1, clock[0] + 1.0
        for at, images in changes:
            if at == step:
                schedule.follow(Plan(step, images))
        bar.advance(16 * step, schedule.progress(step))
    lines = capsys.readouterr().err.splitlines()[1:]
    shares = [float(line.split("%")[0]) for line in lines]
    assert shares == sorted(shares) and len(lines) == 1 + (step - 1) // 10
    last = changes[-1][0] if changes else 0
    for i, (line, share) in enumerate(zip(lines, shares, strict=True)):
        now = 10 * i + 1
        assert share == pytest.approx(100 * schedule.progress(now), abs=0.06)
        assert f"{16 * now:,} examples ({16 * now / 400:.3g} epochs)  16/s  " in line
        if now >= last + 40:  # what is left is by the half minute before
            minutes, seconds = map(int, line.split(" left")[0].split(":")[-2:])
            assert 60 * minutes + seconds == pytest.approx(step - now, abs=1)


def test_the_bar_stands_still_after_a_roll_back(capsys):
    clock = [0.0]
    bar = Bar(lambda: clock[0])
    bar.begin("begun", 400, images=160, share=0.25)
    for images, share in ((320, 0.5), (240, 0.375), (320, 0.5), (400, 0.625)):
        clock[0] += 20.0
        bar.advance(images, share)
    lines = capsys.readouterr().err.splitlines()[1:]
    assert [line.split("%")[0].strip() for line in lines] == ["50.0", "50.0", "50.0", "62.5"]
    assert "8/s  0:00:40 left" in lines[0] and "left" not in lines[2]


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    clock = [0.0]
    with Bar(lambda: clock[0]) as bar:
        bar.begin("begun", 400)
        for images in (800, 1600):
            clock[0] += 10.0
            bar.terms({"loss": 1234.56})
            bar.advance(images, images / 1600)
        bar.end("ended")
    text = capsys.readouterr().err
    assert "100.0%" in text and "(4 epochs)" in text and "80/s" in text
    assert "left  loss 1,235" in text and text.endswith("ended: loss 1,235\n")
