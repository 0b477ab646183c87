"""``latlas demo``: a few models on one source, the comparison, one report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latlas.api.training import execute, parts, plan
from latlas.cli.show import drawn, emit, tell
from latlas.core.errors import ConfigError

DRAWS = 1000
#: enough for 1,437 small digits: the held-out loss is at its lowest after 60,000 to 100,000 items
IMAGES = 100_000


def run_demo(out: Path, data: str, models: tuple[str, ...], minutes: float | None, seed: int,
             json: bool) -> int:
    """Train each model in a folder of its own under ``out``, then compare and report.

    Called again it goes on where it stopped; finished runs are not trained again.
    """
    if not models:
        raise ConfigError("--models: name at least one; `latlas models` lists them")
    budget = {"minutes": minutes} if minutes else {"images": IMAGES} if data == "digits" else {}
    plans = [plan(model, {**budget, "seed": seed}, where="demo") for model in models]
    if _train(plans, data, out) == "interrupt":
        return 130
    _report(out, models, seed, json)
    return 0


def _train(plans: list[Any], data: str, out: Path) -> str:
    """How the last run ended; the first interrupted one ends it all."""
    from latlas.data import open_source

    items, stopped = parts(open_source(data)), ""
    for asked in plans:
        tell(f"{asked.model}:")
        stopped = execute(asked, items, out / asked.model, True, {}).outcome.stopped
        if stopped == "interrupt":
            break
    return stopped


def _report(out: Path, models: tuple[str, ...], seed: int, json: bool) -> None:
    from latlas.api.reporting import write

    tell("comparing on held-out data …")
    page = out / "report.html"
    table = write([out / m for m in models], page, draws=DRAWS, seed=seed,
                  command="latlas demo", title="latlas demo")
    text = "" if json else "\n".join(
        [drawn(table.text()), *table.notes, "", f"wrote {page}: open it in a browser. Next:",
         f"  latlas sample {out / models[-1]}", "  latlas train vae --data YOUR_DATA"])
    emit({"report": str(page), **table.to_json()}, json, text)
