"""The demo: three models on one data set, compared on one footing, in one report.

Tasks import neither models nor the engine, so training and loading are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlas.core.model import Model
from latlas.core.trees import save_json
from latlas.data.dataset import Dataset
from latlas.tasks.compare import Comparison, compare
from latlas.tasks.evaluate import evaluate, feature_extractor
from latlas.tasks.page import write_page
from latlas.tasks.sections import Subject

#: name of the model; its training is the caller's, in a folder of that name
MODELS = ("pca", "ae", "vae")
#: (name, run folder) to a finished run in that folder
Train = Callable[[str, Path], Any]
Load = Callable[[Path], Model]
#: called with one line on what is being done
Say = Callable[[str], None]


@dataclass(frozen=True)
class Demo:
    """What the demo made: the table, the report, the run folders."""

    comparison: Comparison
    report: Path
    runs: tuple[Path, ...]


def run_demo(out: Path | str, *, train: Train, load: Load, data: tuple[Dataset, Dataset],
             models: Sequence[str] = MODELS, draws: int = 200, seed: int = 0,
             title: str = "latlas demo", command: str = "latlas demo",
             say: Say | None = None) -> Demo:
    """Train, evaluate, compare, report.

    Args:
        out: a folder: a run folder per model, ``report.html`` and ``comparison.json`` in it.
        train: makes a finished run of the named model in the folder given; ``load`` reads it.
        data: training items for controls and memorisation test, and held-out items.
        draws: per item for importance-weighted likelihoods.
    """
    say = say or (lambda line: None)
    folder = Path(out)
    subjects: list[Subject] = []
    features = feature_extractor("auto", data[0], seed)
    for name in models:
        say(f"training {name}")
        train(name, folder / name)
        say(f"evaluating {name}")
        model = load(folder / name)
        found = evaluate(model, train=data[0], test=data[1], draws=draws, features=features,
                         seed=seed, name=name)
        subjects.append(Subject(name, model, folder / name, found))
    say("writing the report")
    report = write_page(folder / "report.html", subjects, train=data[0], test=data[1],
                        title=title, command=command, seed=seed)
    comparison = compare([s.evaluation for s in subjects if s.evaluation is not None])
    save_json(folder / "comparison.json", comparison.to_json())
    return Demo(comparison, report, tuple(folder / name for name in models))
