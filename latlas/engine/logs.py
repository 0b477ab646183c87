"""TensorBoard events beside metrics.jsonl, where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latlas.core.errors import ConfigError


class EventLog:
    """Writes entries as TensorBoard scalars against items seen; does nothing unless ``on``."""

    def __init__(self, path: Path, on: bool) -> None:
        self._writer: Any = None
        if on:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ConfigError("tensorboard=true needs the extra: pip install "
                                  "'latlas[tensorboard]'") from error
            self._writer = SummaryWriter(str(path / "tensorboard"))  # type: ignore[no-untyped-call]

    def write(self, entry: dict[str, Any]) -> None:
        """Every value of the entry but the counters."""
        if self._writer is None:
            return
        for name, value in entry.items():
            if name not in ("images", "seconds"):
                self._writer.add_scalar(name, value, entry["images"])

    def close(self) -> None:
        """Flush."""
        if self._writer is not None:
            self._writer.close()
