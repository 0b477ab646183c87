"""A run folder: the request, the resolved options, the state of training, and its result.

    run.json                the request and the resolved options; written before the first step
    metrics.jsonl           one JSON object a line
    checkpoint.safetensors  everything training needs to go on; removed when it has ended
    rollback-K.safetensors  the same as of step K, of a monitored model; removed likewise
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

#: raised by one whenever a run folder is written differently
FORMAT = 1


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
        """The resolved options, once there are any."""
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

    def record_choice(self, chosen: dict[str, Any]) -> None:
        """Write the resolved options, before the first step."""
        self.record["chosen"] = chosen
        save_json(self.path / "run.json", self.record)

    def save_checkpoint(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Replace the checkpoint; the old one stays until the new one is whole."""
        save_tree(self.path / "checkpoint.safetensors", tensors, {"format": FORMAT, **meta})

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The checkpoint, or ``None`` if there is none yet."""
        path = self.path / "checkpoint.safetensors"
        return load_tree(path) if path.is_file() else None

    def save_rollback_point(self, step: int, tensors: dict[str, Tensor],
                            meta: dict[str, Any]) -> None:
        """Keep this state; of the points up to ``step`` the last two stay."""
        save_tree(self._rollback_file(step), tensors, {"format": FORMAT, **meta})
        for old in [k for k in self._rollback_steps() if k <= step][:-2]:
            self._rollback_file(old).unlink(missing_ok=True)

    def load_rollback_point(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last point but one before ``step``, or the only one; ``None`` if there is none."""
        before = [k for k in self._rollback_steps() if k < step][-2:]
        return load_tree(self._rollback_file(before[0])) if before else None

    def _rollback_file(self, step: int) -> Path:
        return self.path / f"rollback-{step}.safetensors"

    def _rollback_steps(self) -> list[int]:
        names = (file.stem.partition("-")[2] for file in self.path.glob("rollback-*.safetensors"))
        return sorted(int(name) for name in names if name.isdigit())

    def save_model(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The finished model; the checkpoint is no longer needed."""
        save_tree(self.path / "model.safetensors", tensors, {"format": FORMAT, **meta})
        (self.path / "checkpoint.safetensors").unlink(missing_ok=True)
        for step in self._rollback_steps():
            self._rollback_file(step).unlink(missing_ok=True)

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
        """Drop the lines after so many images, also one that a crash has cut off."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return
        lines = [line for line in path.read_text("utf-8").splitlines() if _images(line) <= images]
        path.write_text("".join(line + "\n" for line in lines), "utf-8")


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


def _images(line: str) -> float:
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
    return RunFolder(path, record)


def _same(run: RunFolder, request: dict[str, Any]) -> RunFolder:
    """The run, if everything in the request is what its run.json says."""
    old, new = _flat({k: run.record.get(k) for k in request}), _flat(_jsonable(request))
    # the data and what was asked for come first: the model's config follows from them
    for key in sorted(old.keys() | new.keys(), key=lambda k: (k.startswith("config."), k)):
        if old.get(key) != new.get(key):
            raise RunError(f"{run.path} holds another run ({key} is {old.get(key)!r} there, "
                           f"{new.get(key)!r} asked)", what=str(run.path),
                           option=key.rpartition(".")[2], hint=_way_out(run))
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
