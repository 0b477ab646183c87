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
          to: str | None = None, progress: Any = None) -> Comparison:
    """Evaluate the runs, write the page, return the table.

    Args:
        data: a source with a test part; by default what the first run was trained on.
        to: the domain that runs translate to; by default every one that they reach.
        progress: called with (items scored, items) while a likelihood is computed.
    """
    from latlas.tasks.compare import compare
    from latlas.tasks.page import write_page

    source = api.open_source_for(runs[0], data)
    settings = {"draws": draws, "samples": samples, "seed": seed, "progress": progress,
                "cache": runs[0] / "cache"}
    subjects = [_subject(run, source, settings, to) for run in runs]
    write_page(out, subjects, train=_items(runs[0], source, "train"),
               test=_items(runs[0], source, "test"), title=title, command=command, seed=seed,
               cache=runs[0] / "cache", to=to or "")
    return compare([e for s in subjects for e in s.evaluations])


def _items(run: Path, source: Any, split: str) -> Dataset:
    return api.open_data(source, split, like=run)


def _subject(run: Path, source: Any, settings: dict[str, Any], to: str | None) -> Subject:
    from latlas.core.model import Translates
    from latlas.tasks.sections import Subject

    info, model = run_info(run), api.load(run)
    ways = _ways(model, to)
    reached = model.ways if isinstance(model, Translates) else ()
    judged = {way: api.evaluate_priors(model, source, "test", to=way, name=(
        f"{run.name} to {way}" if len(reached) > 1 else run.name), **settings) for way in ways}
    found = judged[ways[0]]
    named = {way: of[0] for way, of in judged.items() if reached}
    fitted = found[1] if len(found) > 1 else None
    return Subject(run.name, model, run, found[0], _facts(info), fitted, named)


def _ways(model: Any, to: str | None) -> list[str]:
    """The domains whose figures are wanted, B first; B of a model that does not translate."""
    from latlas.core.model import Translates
    from latlas.tasks.common import check
    from latlas.tasks.translate import must_reach

    if to is None:
        return sorted(model.ways, reverse=True) if isinstance(model, Translates) else ["B"]
    check(model, "translate")
    must_reach(model, to)
    return [to]


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
