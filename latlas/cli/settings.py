"""Settings of a model and of its training: file, then ``--set``, then flags; and their help."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latlas.core.errors import ConfigError
from latlas.core.options import FieldInfo, check_names, convert, fields_of
from latlas.engine.options import BUDGETS, TrainOptions
from latlas.models import MODELS, get

#: examples of models that learn from two domains
TWO_DOMAINS = {
    "pix2pix": ("latlas train pix2pix --data maps/ --image-size 64 --minutes 30 --out runs/maps",
                "latlas translate runs/maps --data new/ --out scenes/"),
    "cycle-gan": ("latlas train cycle-gan --data horses/ --data zebras/ --image-size 64 "
                  "--out runs/horses",
                  "latlas translate runs/horses --data mine/ --to B --out striped/")}


def settings(model: str, file: Path | None, texts: Mapping[str, str],
             flags: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that was given, checked where it was written; later ones win.

    A budget in a later layer replaces those of earlier ones. Flags that are ``None`` were not
    given. The tables ``[model]`` and ``[training]`` of a TOML file are only headings.
    """
    content: dict[str, Any] = {}
    if file is not None:
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--config {file}: {error}") from error
        for heading in [content.pop(name, {}) for name in ("model", "training")]:
            if not isinstance(heading, dict):
                raise ConfigError(f"--config {file}: `model` and `training` are headings: [model]")
            content |= heading
    result: dict[str, Any] = {}
    fields = _fields(model)
    flags = {k: v for k, v in flags.items() if v is not None}
    for where, values in ((str(file), content), ("--set", texts), ("option", flags)):
        check_names(values, fields, f"{where}, model {model}")
        layer = {k: convert(fields[k], v, where) for k, v in values.items()}
        if any(layer.get(name) is not None for name in BUDGETS):
            result = {k: v for k, v in result.items() if k not in BUDGETS}
        result |= layer
    return result


def _fields(model: str) -> dict[str, FieldInfo]:
    """Settings by name; the model's own come first where a name is in both."""
    return {info.name: info for cls in (TrainOptions, get(model).config) for info in fields_of(cls)}


def setting_meant(model: str, option: str) -> str:
    """How to give a setting of a model that was typed as an option of ``train``; else empty."""
    key = option.split("=")[0].lstrip("-").replace("-", "_")
    if model not in MODELS or key not in _fields(model):
        return ""
    return f" {key} is a setting: --set {key}=…"


def train_help(model: str | None) -> tuple[Sequence[str], list[str]]:
    """Command lines of ``train``, none without a model; and lines on the settings for ``--set``:
    the model's, then those of training."""
    entry = get(model) if model else None
    training = ("training (--set key=value):", TrainOptions, entry.training if entry else {})
    if entry is None:
        examples: Sequence[str] = ()
        lines = ["", f"Models: {', '.join(MODELS)}. `latlas train MODEL --help` lists a model's "
                     "settings."]
        parts = [training]
    else:
        examples = TWO_DOMAINS.get(str(model), (
            f"latlas train {model} --data digits",
            f"latlas train {model} --data photos/ --image-size 64 --out runs/photos"))
        lines = []
        parts = [(f"{model} (--set key=value): {entry.summary}", entry.config, {}), training]
    for title, cls, defaults in parts:
        lines += ["", f"Settings of {title}"]
        infos = fields_of(cls)
        values = [f"{i.name}={_as_typed(defaults.get(i.name, i.default))}" for i in infos]
        width = min(max(map(len, values), default=0), 34)
        lines += [f"  {value:<{width}}  " + (f"{i.help} ({i.allowed})" if i.help else i.allowed)
                  for value, i in zip(values, infos, strict=True)]
    return examples, lines


def _as_typed(value: Any) -> str:
    """``(64, 64)`` as ``64,64``, ``None`` as ``none``, ``True`` as ``true``."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
