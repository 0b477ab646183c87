"""A second prior, fitted to the codes of a trained model: codes, flow matching, RUN/prior."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.api.training import Parts, Trained, execute, parts, plan
from latlas.checkpoint import PRIOR, RunInfo, run_info
from latlas.core.errors import CapabilityError, RunError
from latlas.core.space import Space, Table
from latlas.engine.options import BUDGETS

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.data.dataset import Dataset

#: items to see where no budget is given
IMAGES = 4_000_000
#: draws of every training item's code, as long as they are not more numbers than this in all
DRAWS, MOST = 4, 100_000_000
#: held-out codes whose density is compared, and probes of the trace for each
CHECKED, PROBES = 1000, 2


@dataclass(frozen=True)
class Fitted(Trained):
    """How the fit ended; ``model`` is the flow.

    Attributes:
        own, fitted: mean log-density of held-out codes under the model's own prior (NaN where it
            has none) and under the fitted one, nats; ``None`` before the fit has ended. The gain
            estimates by how much KL(q(z) ‖ p(z)) fell.
    """

    own: float | None = None
    fitted: float | None = None


def fit(run: Path, source: Any, settings: dict[str, Any], *, draws: int = DRAWS,
        progress: bool = True, where: str = "fit_prior()") -> Fitted:
    """Train flow matching on codes of the run's training items, in RUN/prior.

    Raises:
        CapabilityError: a model without an encoder, or one that is conditional.
        RunError: a run that is not finished, or whose fitted prior has other settings.
    """
    from latlas import api

    info = run_info(run)
    _must_fit(info)
    given = any(settings.get(name) is not None for name in BUDGETS)
    asked = plan("flow-matching", settings if given else {**settings, "images": IMAGES},
                 where=where)
    items = _items(info, source or api.open_source_for(run))
    model = api.load(run, device=asked.options.device)
    codes = _codes(model, info, items, draws, asked.options.seed)
    done = _execute(asked, codes, run / PRIOR, progress)
    figures = _densities(model, done, codes) if done.outcome.stopped != "interrupt" else {}
    return Fitted(done.model, done.run, done.outcome, **figures)


def _must_fit(info: RunInfo) -> None:
    from latlas.api.items import require

    require(info.path, "encode", "fit-prior")
    if hasattr(info.config, "condition"):
        raise CapabilityError(f"{info.model} is conditional; a fitted prior takes no condition")
    if not info.finished:
        raise RunError(f"{info.path} is not trained to its end; the same `latlas train` goes on")


def _items(info: RunInfo, source: Any) -> Parts:
    """The items the run was trained on and those it held out, in its own units."""
    from latlas.api.items import fitted
    from latlas.data.pairs import first_side

    found = parts(source, info.record.get("split", "train"))
    held = found.validation
    return Parts(fitted(first_side(found.train), info.space, source.name),
                 None if held is None else fitted(first_side(held), info.space, source.name))


def _codes(model: Model, info: RunInfo, items: Parts, draws: int, seed: int) -> Parts:
    """Their codes as a table. What it was made of is written to run.json."""
    draws = max(1, min(draws, MOST // (len(items.train) * model.latent_dim)))
    train = _table(model, items.train, draws, seed)
    space = _space(info.path / PRIOR, train)
    held = None if items.validation is None else replace(
        _table(model, items.validation, 1, seed), space=space)
    weights = hashlib.blake2b((info.path / "model.safetensors").read_bytes(), digest_size=8)
    return Parts(replace(train, space=space), held,
                 made_of={"weights": weights.hexdigest(), "draws": draws})


def _table(model: Model, items: Any, draws: int, seed: int) -> Dataset:
    from latlas.data.dataset import Dataset
    from latlas.tasks.codes import draw_codes

    codes = draw_codes(model, items, draws, seed=seed)
    names = tuple(f"z{i}" for i in range(codes.shape[1]))
    return Dataset(codes, Table((codes.shape[1],), columns=names))


def _space(folder: Path, codes: Dataset) -> Space:
    """Standardised; a fit that goes on keeps the numbers it began with, to the last bit."""
    from latlas.data.dataset import standardised

    if (folder / "run.json").is_file():
        return run_info(folder).space
    return standardised(codes.space, codes.x)


def _execute(asked: Any, codes: Parts, folder: Path, progress: bool) -> Trained:
    try:
        return execute(asked, codes, folder, progress, {})
    except RunError as error:
        if "another run" not in str(error):
            raise
        reason = str(error).partition(";")[0]
        raise RunError(f"{reason}; remove {folder} to fit another prior") from error


def _densities(model: Any, done: Trained, codes: Parts) -> dict[str, float]:
    import numpy as np
    import torch

    from latlas.core.noise import Noise

    held: Any = codes.validation or codes.train
    rows = np.random.default_rng(0).permutation(len(held))[:CHECKED]
    z = torch.as_tensor(np.asarray(held.x[rows]), device=model.device)
    flow: Any = done.model.to(model.device)
    x = flow.space.to_model(z)
    noise = Noise(0, model.device)
    probes = [2.0 * noise.integers(2, *x.shape) - 1 for _ in range(PROBES)]
    found = torch.stack([flow.log_density(x, probe) for probe in probes]).mean()
    own = model.prior.log_prob(z).mean().item() if hasattr(model, "prior") else math.nan
    return {"own": own, "fitted": found.item() - flow.space.log_volume}
