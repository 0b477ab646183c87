"""From a run folder back to a model: rebuilt from MODELS, weights from safetensors, no pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas import models
from latlas.core.errors import RunError
from latlas.core.options import parse
from latlas.core.space import parse_space

#: folder of a run that holds the prior fitted to its codes
PRIOR = "prior"

if TYPE_CHECKING:
    from torch import Tensor, nn

    from latlas.core.model import Model


@dataclass(frozen=True)
class RunInfo:
    """What a run folder says of itself; reading it imports no torch.

    Attributes:
        model: name in MODELS; ``config`` its config dataclass; ``provides`` what it can do.
        space: a Space, or of a model of two sides a PairSpace.
        data: how its data source was named; ``training`` the options asked for.
        chosen: what was decided by timing.
    """

    path: Path
    model: str
    config: Any
    space: Any
    provides: frozenset[str]
    data: dict[str, Any] | None
    training: dict[str, Any]
    chosen: dict[str, Any]
    custom: tuple[str, ...]
    finished: bool
    record: dict[str, Any]


def run_info(path: Path | str) -> RunInfo:
    """Read RUN/run.json.

    Raises:
        RunError: no run there, or one this version cannot read.
    """
    from latlas.core.folders import open_run
    run = open_run(Path(path))
    record = run.record
    try:
        entry = models.get(record["model"])
        config = parse(entry.config, record["config"], where="run.json")
        return RunInfo(run.path, record["model"], config, parse_space(record["space"]),
                       entry.provides, record.get("data"), record["training"],
                       record.get("chosen") or {}, tuple(record.get("custom", ())),
                       run.finished, record)
    except KeyError as error:
        raise RunError(f"{path}/run.json lacks {error}; it is no whole run") from error
    except (TypeError, ValueError) as error:
        raise RunError(f"{path}/run.json is no whole run: {error}") from error


def load(path: Path | str, *, device: str = "cpu", **modules: nn.Module) -> Model:
    """The model of a run, ready to use: evaluation mode, no gradients.

    An unfinished run gives its best weights so far. Where `latlas fit-prior` has fitted a prior to
    its codes, the model carries it as ``fitted_prior``.

    Args:
        modules: the networks a run was trained with, where they were the user's own
            (``encoder=…, decoder=…``).
    """
    info = run_info(path)
    missing = [name for name in info.custom if name not in modules]
    if missing:
        raise RunError(f"{path} was trained with modules of its own; pass "
                       + ", ".join(f"{name}=…" for name in missing) + " to load it")
    from latlas.engine.choose import apply_layout
    model = models.build(info.model, info.config, info.space, **modules)
    try:
        model.load_state_dict(_weights(Path(path)))
    except RuntimeError as error:  # torch names every key, on lines of their own
        whose, hint = ("the modules passed", "") if info.custom else (
            "its run.json", "; if another version of latlas trained it, use that, or train again")
        raise RunError(f"the weights in {path} do not fit {whose}: "
                       f"{' '.join(str(error).split())[:200]}{hint}") from error
    apply_layout(model, info.chosen.get("layout", ""))  # the same kernels, the same bits
    _add_prior(model, Path(path) / PRIOR)
    return model.to(device).eval().requires_grad_(False)


def _add_prior(model: Model, folder: Path) -> None:
    if (folder / "model.safetensors").is_file():
        from latlas.models.flow_matching import FittedPrior
        model.fitted_prior = FittedPrior(load(folder))  # type: ignore[arg-type]


def _weights(path: Path) -> dict[str, Tensor]:
    from latlas.core.trees import load_tree
    if (path / "model.safetensors").is_file():
        return load_tree(path / "model.safetensors")[0]
    if not (path / "checkpoint.safetensors").is_file():
        raise RunError(f"{path} has no checkpoint yet; let the training run go on")
    best, _ = load_tree(path / "checkpoint.safetensors", "best.")
    return best or load_tree(path / "checkpoint.safetensors", "ema.")[0]
