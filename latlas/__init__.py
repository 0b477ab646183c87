"""latlas: learn a distribution from samples with a latent-variable model, and put it to work.

    run = latlas.train("vae", x, latent_dim=16, minutes=2, out="runs/mnist")
    latlas.sample(run, 64).save("samples.png")

A verb takes a run (a folder, a :class:`Run` or a model) and data (a source's name, a file or
folder, an array, a pair (array, labels), two sources for two domains, or what :func:`open_data`
returns), and gives a result with ``.table()``, ``.facts()`` and ``.save(path)``.

``import latlas`` is light: torch is imported when a verb is first called.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
#: every public name and the module that has it
_HOMES = {
    "latlas.run": ("Run", "load", "open_data"),
    "latlas.models": ("list_models",),
    "latlas.learning": ("train", "continue_training"),
    "latlas.prior_fitting": ("fit_prior",),
    "latlas.advice": ("advise",),
    "latlas.verbs.generate": ("sample", "decode", "interpolate", "traverse", "prior_latents"),
    "latlas.verbs.encode": ("encode", "reconstruct", "denoise", "classify"),
    "latlas.verbs.styles": ("mix", "directions", "edit"),
    "latlas.verbs.project": ("project",),
    "latlas.verbs.translate": ("translate",),
    "latlas.verbs.score": ("score", "Scorer"),
    "latlas.verbs.outliers": ("outliers",),
    "latlas.verbs.weights": ("weights",),
    "latlas.verbs.audit": ("audit",),
    "latlas.verbs.evaluate": ("evaluate", "compare"),
    "latlas.verbs.geometry": ("measure_geometry",),
    "latlas.verbs.report": ("report",),
    "latlas.verbs.runs": ("runs",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'latlas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
