"""A folder of results belongs to one command: ``results.json`` in it says to which.

The same command again goes on where it stopped; another run, other data or other options are
refused, so that no folder holds results of two kinds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from latlas.core.errors import ConfigError, RunError
from latlas.data.dataset import Dataset
from latlas.data.keys import digest_of, keys_of
from latlas.data.splits import hash_rows
from latlas.render.text import counted
from latlas.verbs import write
from latlas.verbs.common import Result
from latlas.verbs.names import same_but_for_case

MANIFEST, FORMAT = "results.json", 1


class Manifest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the files of a folder are results of.

    Attributes:
        weights: digest of the model's, ``data`` of the examples and their names.
        run, source: what people call them.
        options: of the verb, as JSON.
    """

    format: int
    verb: str
    weights: str
    data: str
    options: dict[str, Any]
    run: str = ""
    source: str = ""


class Results:
    """A folder that is written file by file.

    Raises:
        ConfigError: it holds results of something else.
        RunError: its manifest cannot be read.
    """

    def __init__(self, folder: Path | str, manifest: Manifest) -> None:
        self.folder, self.manifest = Path(folder), manifest
        self.there = self._read()
        for key in ("verb", "weights", "data", "options"):
            if self.there is not None and getattr(self.there, key) != getattr(manifest, key):
                raise ConfigError(f"{self.folder} holds {self._difference(key)}", option="out",
                                  hint=f"name another folder, or remove {self.folder}")

    def _read(self) -> Manifest | None:
        file = self.folder / MANIFEST
        try:
            manifest = msgspec.convert(json.loads(file.read_bytes()), Manifest)
            if manifest.format != FORMAT:
                raise ValueError(f"it is of format {manifest.format}; this latlas reads {FORMAT}")
            return manifest
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunError(f"{file} cannot be read: {error}", option="out",
                           hint=f"name another folder, or remove {self.folder}") from None

    def _difference(self, key: str) -> str:
        old, new = self.there, self.manifest
        assert old is not None
        if key == "options":
            names = sorted(k for k in old.options.keys() | new.options.keys()
                           if old.options.get(k) != new.options.get(k))
            return f"results of `{old.verb}` with other options: " + ", ".join(
                f"{k} is {_said(old.options.get(k))} there, {_said(new.options.get(k))} asked"
                for k in names)
        if key == "verb":
            return f"results of `{old.verb}`, not of `{new.verb}`"
        what = {"weights": ("run", "run"), "data": ("data", "source")}[key]
        a, b = getattr(old, what[1]), getattr(new, what[1])
        named = f" ({a} there, {b} asked)" if a != b else f" ({a} has changed)" if a else ""
        return f"results of {'another run' if key == 'weights' else 'other data'}{named}"

    def write(self, names: Sequence[str],
              contents: Callable[[list[int]], Iterator[bytes]]) -> tuple[int, int]:
        """Write the files of these names that are not there; how many, and how many were there.

        Args:
            contents: what the files at these positions hold, in turn.
        """
        self.claim(names)
        missing = [i for i, name in enumerate(names) if not (self.folder / name).exists()]
        for i, data in zip(missing, contents(missing), strict=True):
            write.write_bytes(self.folder / names[i], data)
        return len(missing), len(names) - len(missing)

    def claim(self, names: Sequence[str]) -> None:
        """Say in the folder whose results it holds, before the first file of these names.

        Raises:
            ConfigError: files of these names that are no results, or names that differ in case
                alone where the file system does not tell them apart.
        """
        if self.there is None:
            strange = next((n for n in names if (self.folder / n).exists()), None)
            if strange is not None:
                raise ConfigError(f"{self.folder} holds {strange} already, and no {MANIFEST} that "
                                  "says what it is", option="out",
                                  hint=f"name another folder, or remove {self.folder}")
            text = json.dumps(msgspec.to_builtins(self.manifest), indent=2) + "\n"
            write.write_bytes(self.folder / MANIFEST, text.encode())
            self.there = self.manifest
        both = same_but_for_case(names)
        if both and (self.folder / MANIFEST.upper()).exists():
            raise ConfigError(f"{self.folder} cannot hold both {both[0]} and {both[1]}: its file "
                              "system does not tell capitals apart", option="out",
                              hint="name a folder on another disk, or a file (.npz)")

    def line(self, written: int, there: int, what: str) -> str:
        """What was done, for people."""
        if not written and there:
            return f"{self.folder} is complete: wrote 0 {what}s; {there:,} were there"
        return f"wrote {counted(written, what)} to {self.folder}" + (
            f"; {there:,} were there" if there else "")


def results_of(out: Path | str | None, verb: str, run: Any, data: Any = None,
               source: Any = None, **options: Any) -> Results | None:
    """The folder that a command writes to, checked before its work; ``None`` where it writes a
    file or nothing.

    Args:
        run: a :class:`latlas.run.Run`; ``data`` its examples, latents or recordings, if it has
            any; ``source`` what they were opened of.
    """
    if out is None or not write.is_folder(out):
        return None
    places = source if isinstance(source, tuple) else (source,)
    named = " ".join(str(place) for place in places if isinstance(place, str | Path))
    if data is None and named:
        options["data"] = named
    return Results(out, Manifest(
        FORMAT, verb, model_digest(run.model), "" if data is None else data_digest(data),
        json.loads(json.dumps(options, default=lambda value: (  # what JSON has no type for
            value.tolist() if hasattr(value, "tolist") else str(value)))), run.name, named))


def model_digest(model: Any, *, own: bool = False) -> str:
    """Of a model's weights and their names; ``own`` without its fitted prior's."""
    parts = {"": model.state_dict()}
    if not own and (prior := getattr(model, "fitted_prior", None)) is not None:
        parts["prior."] = prior.flow.state_dict()
    return digest_of(*(part for prefix, state in parts.items()
                       for name, tensor in sorted(state.items())
                       for part in (prefix + name, tensor.detach().cpu().numpy())))


def data_digest(data: Any) -> str:
    """Of examples and their names, in order; of recordings of their files."""
    if isinstance(data, np.ndarray):
        return digest_of(hash_rows(data))
    if isinstance(data, Dataset):
        names = data.take("names")
        return digest_of(keys_of(data), "\0".join(() if names is None else names.tolist()))
    return digest_of(*(part for name, stored in zip(data.names, data.files.stored, strict=True)
                       for part in (name, np.frombuffer(data.files.read(stored), np.uint8))))


def _said(value: Any) -> str:
    return "left out" if value is None else str(value)


@dataclass(eq=False, repr=False)
class ShardParts(Result):
    """What a call has done: parts written and found there, of those this shard has."""

    count: int
    existing: int
    folder: Path
    shard: str

    def facts(self) -> dict[str, Any]:
        return {"shard": self.shard, "written": self.count, "kept": self.existing}

    def text(self) -> str:
        there = f"; {self.existing:,} were there" if self.existing else ""
        return (f"shard {self.shard}: wrote {counted(self.count, 'part')} to "
                f"{self.folder}{there}")
