"""latlas: learn a distribution from samples with a latent-variable model, and put it to work.

``import latlas`` is light: torch is imported when a verb is first called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_API = ("train", "fit_prior", "load", "open_data", "sample", "reconstruct", "encode", "decode",
        "interpolate", "traverse", "denoise", "score", "outliers", "audit", "evaluate", "compare",
        "write_report", "list_models", "write_parts", "Scorer", "project", "mix", "directions",
        "edit", "translate", "classify", "weights", "prior_codes")
__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module("latlas.api"), name)
    raise AttributeError(f"module 'latlas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
