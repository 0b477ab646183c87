"""What a data set holds little of: figures, and files about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlas.api.runs import Count, Items, Run, load

if TYPE_CHECKING:
    from latlas.core.model import Model
    from latlas.data.dataset import Dataset
    from latlas.tasks.audit import Audit


def audit(run: Run, data: Items = None, split: str = "all", *, group: str | None = None,
          draws: int = 4, out: str | Path | None = None, seed: int = 0,
          progress: Count | None = None, **options: Any) -> Audit:
    """How rare each item is, what rare ones share, how groups fare: ``.rarity``, ``.order``,
    ``.clusters``, ``.groups``.

    Args:
        data: the labels of the source, or of a pair (items, labels), are the groups.
        group: a factor or column that groups the items instead.
        draws: of the code behind the likelihood of groups; 0 leaves it out.
        out: folder for report.html, audit.json and items.csv.

    Raises:
        CapabilityError: a model without an encoder. DataError: fewer than 50 items, labels of
            another number, codes that do not vary.
    """
    found, model, items = audited(run, data, split, group=group, draws=draws, seed=seed,
                                  progress=progress, **options)
    if out is not None:
        write(found, model, items, Path(out), title=_title(run), seed=seed)
    return found


def audited(run: Run, data: Items = None, split: str = "all", *, group: str | None = None,
            draws: int = 4, seed: int = 0, progress: Count | None = None, device: str = "auto",
            **options: Any) -> tuple[Audit, Model, Dataset]:
    """:func:`audit` with the model and the items it was made of."""
    from latlas.api.items import open_grouped, require

    require(run, "encode", "audit")
    items, label, names = open_grouped(run, data, split, group=group, **options)
    from latlas.tasks.audit import audit as look  # torch, after what may be refused

    model = load(run, device=device) if isinstance(run, (str, Path)) else run
    found = look(model, items, label=label, names=names, draws=draws, seed=seed,
                 progress=progress)
    return found, model, items


def write(found: Audit, model: Model, items: Dataset, folder: Path, *, title: str,
          command: str = "", seed: int = 0) -> list[str]:
    """The page, the figures and the table of the items; a line on each."""
    from latlas.core.trees import save_json
    from latlas.tasks.audit_page import build_page
    from latlas.tasks.output import write_bytes, write_table

    text = build_page(found, model, items, title=title, command=command, seed=seed)
    page, figures = folder / "report.html", folder / "audit.json"
    write_bytes(page, text.encode("utf-8"))
    save_json(figures, found.to_json())
    table = write_table(folder / "items.csv", found.columns(items.take("names")))
    return [f"wrote {page}", f"wrote {figures}", table]


def _title(run: Run) -> str:
    name = Path(run).resolve().name if isinstance(run, (str, Path)) else type(run).__name__
    return f"{name}: audit"
