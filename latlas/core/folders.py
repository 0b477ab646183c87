"""A run folder: what was asked, what was chosen, where training stands, what came out.

    run.json                what was asked and chosen; written before the first step
    metrics.jsonl           one JSON object a line
    checkpoint.safetensors  everything training needs to go on; removed when it has ended
    anchor-K.safetensors    the same as of step K, for a model that may have to go back; likewise
    model.safetensors       the finished model
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.core.errors import RunError
from latlas.core.trees import load_tree, save_json, save_tree

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

#: raised by one whenever a run folder is written differently; older ones are migrated on reading
FORMAT = 2
#: up to format 1: settings that models had and could not use, and what was not there yet
UNUSED = dict.fromkeys(("style-gan", "progressive-gan"),
                       ("network", "spectral_norm", "groups", "sketch"))
WITHOUT = dict.fromkeys(("gan", "conditional-gan"), ("groups", "sketch"))


@dataclass
class RunFolder:
    """A folder and the contents of its run.json."""

    path: Path
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """The last step was made and the model saved."""
        return (self.path / "model.safetensors").is_file()

    @property
    def begun(self) -> bool:
        """There is a checkpoint to go on from."""
        return (self.path / "checkpoint.safetensors").is_file()

    @property
    def chosen(self) -> dict[str, Any] | None:
        """What was chosen by timing, once it was."""
        return self.record.get("chosen")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else trains here meanwhile; the lock goes with the process, however that ends.

        Raises:
            RunError: another process trains here.
        """
        handle = _lock(self.path)
        try:
            yield
        finally:
            if handle is not None:
                os.close(handle)

    def choose(self, chosen: dict[str, Any]) -> None:
        """Record what was chosen, before the first step."""
        self.record["chosen"] = chosen
        save_json(self.path / "run.json", self.record)

    def save_checkpoint(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Replace the checkpoint; the old one stays until the new one is whole."""
        save_tree(self.path / "checkpoint.safetensors", tensors, {"format": FORMAT, **meta})

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The checkpoint, or ``None`` if there is none yet."""
        path = self.path / "checkpoint.safetensors"
        return load_tree(path) if path.is_file() else None

    def save_anchor(self, step: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Keep this state; of those up to ``step`` the last two stay."""
        save_tree(self._anchor(step), tensors, {"format": FORMAT, **meta})
        for old in [k for k in self._anchors() if k <= step][:-2]:
            self._anchor(old).unlink(missing_ok=True)

    def load_anchor(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last but one kept before ``step``, or the only one; ``None`` if there is none."""
        before = [k for k in self._anchors() if k < step][-2:]
        return load_tree(self._anchor(before[0])) if before else None

    def _anchor(self, step: int) -> Path:
        return self.path / f"anchor-{step}.safetensors"

    def _anchors(self) -> list[int]:
        names = (file.stem.partition("-")[2] for file in self.path.glob("anchor-*.safetensors"))
        return sorted(int(name) for name in names if name.isdigit())

    def save_model(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The finished model; the checkpoint is no longer needed."""
        save_tree(self.path / "model.safetensors", tensors, {"format": FORMAT, **meta})
        (self.path / "checkpoint.safetensors").unlink(missing_ok=True)
        for step in self._anchors():
            self._anchor(step).unlink(missing_ok=True)

    def log(self, entry: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {path}: {error}; what was saved before is "
                           "intact") from error

    def rewind_log(self, images: int) -> None:
        """Drop lines written after the checkpoint that training goes on from."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return
        kept = [line for line in path.read_text("utf-8").splitlines() if _seen(line) <= images]
        path.write_text("".join(line + "\n" for line in kept), "utf-8")


def _lock(path: Path) -> int | None:
    """A lock on the folder itself; ``None`` where the system or its disk has no such locks."""
    if fcntl is None:
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise RunError(f"{path} is being trained by another process; wait for it, or choose "
                       "another --out") from error
    except OSError:
        os.close(handle)
        return None
    return handle


def _seen(line: str) -> float:
    """Items seen when a line was written; a line cut off by a crash counts as never."""
    try:
        return float(json.loads(line)["images"])
    except (ValueError, KeyError):
        return float("inf")


def start(path: Path, request: dict[str, Any]) -> RunFolder:
    """A new run folder, or the one that holds the same request.

    Raises:
        RunError: the folder holds another run, or something that is no run.
    """
    if (path / "run.json").is_file():
        return _same(open_run(path), request)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path} exists and holds no run; choose another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {path}: {error.strerror}") from error
    run = RunFolder(path, {"format": FORMAT, **request})
    save_json(path / "run.json", run.record)
    return run


def open_run(path: Path) -> RunFolder:
    """An existing run folder.

    Raises:
        RunError: no such run, an unreadable one, or one of a newer format.
    """
    file = path / "run.json"
    if not file.is_file():
        why = "it has no run.json" if path.exists() else "there is nothing of that name"
        raise RunError(f"{path} is no run folder ({why})")
    try:
        record = json.loads(file.read_text("utf-8"))
        version = int(record["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error
    if version > FORMAT:
        raise RunError(f"{path} is of format {version}, this latlas reads up to {FORMAT}; "
                       "update latlas")
    return RunFolder(path, _migrated(record) if version < FORMAT else record)


def _migrated(record: dict[str, Any]) -> dict[str, Any]:
    """What this version would have written of a run of format 1."""
    model, config = record.get("model", ""), dict(record.get("config") or {})
    for name in UNUSED.get(model, ()):
        config.pop(name, None)
    for name in WITHOUT.get(model, ()):
        config.setdefault(name, 0)
    return {**record, "format": FORMAT, "config": config}


def _same(run: RunFolder, request: dict[str, Any]) -> RunFolder:
    """The run, if everything in the request is what its run.json says."""
    old, new = _flat({k: run.record.get(k) for k in request}), _flat(_jsonable(request))
    # the data and what was asked for come first: the model's config follows from them
    for key in sorted(old.keys() | new.keys(), key=lambda k: (k.startswith("config."), k)):
        if old.get(key) != new.get(key):
            raise RunError(f"{run.path} holds another run ({key} is {old.get(key)!r} there, "
                           f"{new.get(key)!r} asked)", option=key, hint=_way_out(run))
    return run


def _way_out(run: RunFolder) -> str:
    """What to do about a folder that holds another run."""
    if run.finished or (run.path / "checkpoint.safetensors").is_file():
        return f"choose another --out, or start from its weights with --from {run.path}"
    return "it holds no weights yet: remove it, unless it is being trained, or choose another --out"


def _jsonable(data: Any) -> Any:
    return json.loads(json.dumps(data))


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for name, child in tree.items()
            for k, v in _flat(child, f"{prefix}.{name}" if prefix else name).items()}
