"""The HTML report on one run or several: every section that the models' capabilities allow."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from latlas.data.dataset import Dataset
from latlas.data.pairs import PairDataset
from latlas.report.html import Facts, Notes, Section, page
from latlas.tasks import sections
from latlas.tasks.compare import Comparison, compare
from latlas.tasks.output import write_bytes
from latlas.tasks.sections import Context, Subject

HEADLINE = ("bits_per_dim", "nats", "mse", "active_units", "completeness", "frechet", "precision",
            "recall", "two_sample", "copying_z", "l1", "ssim", "cycle")
PACKAGES = ("latlas", "torch", "numpy")
SHOWN = (sections.samples, sections.translations_to_b, sections.translations_to_a,
         sections.reconstructions, sections.traversals, sections.interpolations, sections.maps,
         sections.latent_planes, sections.loss_curves)


def write_page(out: Path | str, subjects: Sequence[Subject], *, train: Any, test: Any,
               title: str = "", command: str = "", seed: int = 0,
               facts: Mapping[str, str] | None = None, cache: Path | None = None,
               to: str = "") -> Path:
    """Write one self-contained HTML file, by rename, and return its path.

    Args:
        subjects: the models; those with an evaluation appear in the tables.
        train, test: the data they are shown on; all that is shown is held out.
        title: of the page; made from the models' names if empty.
        command: what made it, as typed; taken from the running program if empty.
        facts: more about how it was made, name to text.
        cache: folder that keeps what is known of the real items, as for ``evaluate``.
        to: the domain whose translations are shown alone; every one if empty.
    """
    text = build_page(subjects, train=train, test=test, title=title, command=command, seed=seed,
                      facts=facts, cache=cache, to=to)
    target = Path(out)
    write_bytes(target, text.encode("utf-8"))
    return target


def build_page(subjects: Sequence[Subject], *, train: Any, test: Any, title: str = "",
               command: str = "", seed: int = 0, facts: Mapping[str, str] | None = None,
               cache: Path | None = None, to: str = "") -> str:
    """The page as text; see :func:`write_page`."""
    pairs = test if isinstance(test, PairDataset) else None
    train, test = (d.a if isinstance(d, PairDataset) else d for d in (train, test))
    context = Context(train, test, seed, cache, to, pairs)
    evaluations = [e for s in subjects for e in s.evaluations]
    compared = compare(evaluations) if evaluations else None
    shown = [section for make in SHOWN if (section := make(subjects, context)) is not None]
    parts = [*([_summary(compared)] if compared else []), *shown,
             *([_details(compared)] if compared else []),
             _made(subjects, command or _command(), seed, facts or {})]
    names = ", ".join(s.name for s in subjects)
    return page(title or f"{names}: report", _subtitle(names, train, test), parts,
                "One file: no script, no network. Made by latlas.")


def _subtitle(names: str, train: Dataset, test: Dataset) -> str:
    shape = " × ".join(map(str, train.space.shape))
    what = {"picture": "pictures", "table": "rows", "points": "points"}[train.space.kind]
    return (f"{names} trained on {len(train):,} {what} ({shape}) and judged on {len(test):,} that "
            "were held out.")


def _summary(compared: Comparison) -> Section:
    lines = [line for line in compared.notes if "not compared" in line or "†" in line]
    one = len(compared.evaluations) == 1
    best = "" if one else " Green is best among those that can be compared."
    return Section("Summary", "Figures on held-out data, beside the control that could explain "
                   "them: held-out real data for samples, a diagonal Gaussian for likelihoods, the "
                   "mean item for reconstructions, the median picture for translations."
                   f"{best}",
                   [compared.html(HEADLINE, meaning=False), Notes(lines)])


def _details(compared: Comparison) -> Section:
    return Section("All figures", "Each with what it says. ↓ less is better, ↑ more is better, "
                   "≈ nearer to the control is better. Under copies: the same figure of a model "
                   "that copies its training items; only the copying figures give it away.",
                   [compared.html(), Notes(compared.notes)])


def _made(subjects: Sequence[Subject], command: str, seed: int,
          facts: Mapping[str, str]) -> Section:
    values = {"command": command, "seed": str(seed), **facts, "versions": versions()}
    for subject in subjects:
        for key, value in (subject.facts or {}).items():
            values[key if len(subjects) == 1 else f"{subject.name}: {key}"] = value
        if subject.run is not None:
            values[f"{subject.name}: run"] = str(subject.run)
    code = frozenset(k for k in values if k == "command" or k.endswith(": run"))
    return Section("How it was made", "", [Facts(values, code)])


def versions() -> str:
    """latlas, torch, numpy, Python and the machine, in one line."""
    found = [f"{name} {_version(name)}" for name in PACKAGES]
    return ", ".join([*found, f"Python {platform.python_version()}",
                      f"{platform.system()} {platform.machine()}"])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        from latlas import __version__

        return __version__ if name == "latlas" else "?"


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
