"""The HTML report on one run or several, on the same held-out items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas import api
from latlas.checkpoint import RunInfo, run_info

if TYPE_CHECKING:
    from latlas.data.dataset import Dataset
    from latlas.tasks.compare import Comparison
    from latlas.tasks.sections import Subject


def write(runs: Sequence[Path], out: Path, data: Any = None, *, draws: int = 100,
          samples: int = 2000, seed: int = 0, command: str = "", title: str = "",
          progress: Any = None) -> Comparison:
    """Evaluate the runs, write the page, return the table.

    Args:
        data: a source with a test part; by default what the first run was trained on.
        progress: called with (items scored, items) while a likelihood is computed.
    """
    from latlas.tasks.compare import compare
    from latlas.tasks.page import write_page

    source = api.open_source_for(runs[0], data)
    settings = {"draws": draws, "samples": samples, "seed": seed, "progress": progress,
                "cache": runs[0] / "cache"}
    subjects = [_subject(run, source, settings) for run in runs]
    write_page(out, subjects, train=_items(runs[0], source, "train"),
               test=_items(runs[0], source, "test"), title=title, command=command, seed=seed,
               cache=runs[0] / "cache")
    return compare([e for s in subjects for e in s.evaluations])


def _items(run: Path, source: Any, split: str) -> Dataset:
    return api.open_data(source, split, like=run)


def _subject(run: Path, source: Any, settings: dict[str, Any]) -> Subject:
    from latlas.tasks.sections import Subject

    info, model = run_info(run), api.load(run)
    found = api.evaluate_priors(model, source, "test", name=run.name, **settings)
    return Subject(run.name, model, run, found[0], _facts(info), *found[1:])


def _facts(info: RunInfo) -> dict[str, str]:
    """What was set, what was chosen, how long it took."""
    own = {f.name: getattr(info.config, f.name) for f in fields(info.config)}
    facts = {"model": info.model, "settings": _pairs(own)}
    if info.chosen:
        facts["chosen"] = _pairs(info.chosen)
    end = _end(info.path)
    if "images" in end:
        facts["training"] = f"{end['images']:,} items" + (
            f" in {end['seconds']:,.1f} s" if end.get("seconds") is not None else "")
    return facts


def _end(run: Path) -> dict[str, Any]:
    """What the finished model says of its training."""
    from latlas.core.trees import load_tree

    file = run / "model.safetensors"
    return load_tree(file, prefix="no tensor has this name")[1] if file.is_file() else {}


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in values.items())
