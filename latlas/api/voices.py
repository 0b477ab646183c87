"""Recordings for a run of voices: found where the data are named, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.api.items import known, open_items
from latlas.core.errors import DataError

if TYPE_CHECKING:
    from latlas.data.recordings import Recordings


def hears(run: Any) -> bool:
    """Whether a run or model is one of recordings; reads no weights."""
    return known(run).space.sound is not None


def open_clips(run: Any, data: Any = None, split: str | None = None, *, side: str = "A",
               **options: Any) -> Recordings:
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
    found = _found(_place(spec, side), spec or {}, side)
    if data is not None and split in (None, "all"):
        return found.whole(options.get("on_error", "raise"))
    items = open_items(run, data, split, side=side, **options).take("names")
    assert items is not None  # windows know their recordings
    return found.only(list(dict.fromkeys(str(name) for name in items)))


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


def _found(place: str, spec: Mapping[str, Any], side: str) -> Recordings:
    from latlas.data.recordings import find_recordings, sides_of

    name, _, pattern = place.partition("::")
    path = Path(name).expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    found = find_recordings(path, pattern)
    sides = sides_of(found)
    return found if sides is None else sides[_number(spec, side)]


def _number(spec: Mapping[str, Any], side: str) -> int:
    """Which of two domains a side is, as they lie."""
    return ("AB".index(side) + (spec.get("direction") == "BtoA")) % 2
