"""Recordings for a run of voices: found where the data are named, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.api.items import known, open_items
from latlas.core.errors import DataError
from latlas.core.space import PairSpace
from latlas.data.pairs import PairDataset

if TYPE_CHECKING:
    from latlas.data.recordings import RecordingFiles


def hears(run: Any) -> bool:
    """Whether a run or model is one of recordings; reads no weights."""
    space = known(run).space
    return isinstance(space, PairSpace) and space.a.sound is not None


def open_clips(run: Any, data: Any = None, split: str | None = None, *, side: str = "A",
               **options: Any) -> RecordingFiles:
    """Whole recordings of a side: of a source of one side all, of two those of that domain.

    Args:
        data: a wav file, a folder or zip, or two of them; ``None`` is what the run was trained on.
        split: as in :func:`latlas.api.items.open_items`.

    Raises:
        DataError: no recordings there, nothing that has a place, or a broken file, unless
            ``on_error`` is ``skip``.
    """
    like = known(run)
    spec = like.spec if data is None else data if isinstance(data, Mapping) else {"source": data}
    found = _found(_place(spec, side), spec or {}, side, options.get("on_error", "raise"))
    if data is not None and split in (None, "all"):
        return found.whole()
    items = open_items(run, data, split, side=side, **options)
    names = (items.a if isinstance(items, PairDataset) else items).take("names")
    assert names is not None  # windows know their recordings
    return found.only(list(dict.fromkeys(str(name) for name in names)))


def _place(spec: Mapping[str, Any] | None, side: str) -> str:
    """Where the recordings of a side lie."""
    place = None if spec is None else spec["source"]
    if isinstance(place, list | tuple) and len(place) == 2 and spec is not None:
        place = place[_number(spec, side)]
    place = place.get("source") if isinstance(place, Mapping) else place
    if not isinstance(place, str | Path):
        raise DataError("recordings are translated whole: name a wav file, or a folder or zip of "
                        "them (--data)")
    return str(place)


def _found(place: str, spec: Mapping[str, Any], side: str, on_error: str) -> RecordingFiles:
    from latlas.data.recordings import Listening, open_recordings

    name, _, pattern = place.partition("::")
    path = Path(name).expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    found = open_recordings(path, pattern, how=Listening(on_error=on_error))
    sides = found.sides()
    return found if sides is None else sides[:2][_number(spec, side)]


def _number(spec: Mapping[str, Any], side: str) -> int:
    """Which of two domains a side is, as they lie."""
    return ("AB".index(side) + (spec.get("direction") == "BtoA")) % 2
