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

Values = dict[str, Any]


def settings(model: str, file: Path | None, texts: Mapping[str, str],
             flags: Mapping[str, Any]) -> Values:
    """Every setting that was given, checked where it was written; later ones win.

    A budget in a later layer replaces those of earlier ones.
    """
    result: Values = {}
    for where, values in ((str(file), read_toml(file)), ("--set", texts), ("option", flags)):
        layer = checked(model, values, where)
        if any(layer.get(name) is not None for name in BUDGETS):
            result = {k: v for k, v in result.items() if k not in BUDGETS}
        result |= layer
    return result


def checked(model: str, values: Mapping[str, Any], where: str) -> Values:
    """Values converted to the types of their fields."""
    fields = _fields(model)
    check_names(values, fields, f"{where}, model {model}")
    return {k: convert(fields[k], v, where) for k, v in values.items()}


def _fields(model: str) -> dict[str, FieldInfo]:
    """Settings by name; the model's own come first where a name is in both."""
    both = [*fields_of(TrainOptions), *fields_of(get(model).config)]
    return {info.name: info for info in both}


def setting_of(model: str, key: str) -> bool:
    """Whether a model, or its training, has a setting of this name."""
    return model in MODELS and key in _fields(model)


def read_toml(file: Path | None) -> Values:
    """A TOML file's keys; the tables ``[model]`` and ``[training]`` are only headings."""
    if file is None:
        return {}
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {file}: {error}") from error
    headings = [content.pop(name, {}) for name in ("model", "training")]
    for heading in headings:
        if not isinstance(heading, dict):
            raise ConfigError(f"--config {file}: `model` and `training` are headings: [model]")
        content |= heading
    return content


#: of models that learn from two sides
TWO_SIDED = {
    "pix2pix": ("latlas train pix2pix --data maps/ --image-size 64 --minutes 30 --out runs/maps",
                "latlas translate runs/maps --data new/ --out scenes/"),
    "cycle-gan": ("latlas train cycle-gan --data horses/ --data zebras/ --image-size 64 "
                  "--out runs/horses",
                  "latlas translate runs/horses --data mine/ --to B --out striped/")}


def train_examples(tokens: Sequence[str]) -> Sequence[str]:
    """Command lines of ``train`` for the model named in the tokens; none where none is."""
    model = _model_named(tokens)
    if model is None:
        return ()
    return TWO_SIDED.get(model, (
        f"latlas train {model} --data digits",
        f"latlas train {model} --data photos/ --image-size 64 --out runs/photos"))


def model_help(tokens: Sequence[str]) -> str:
    """Settings for ``--set``: training's always, a model's if one is named in the tokens."""
    model = _model_named(tokens)
    parts = [_model_part(model)] if model else [
        f"Models: {', '.join(MODELS)}. `latlas train MODEL --help` lists a model's settings.\n"]
    own = get(model).training if model else {}
    return "\n".join([*parts, "Settings of training (--set key=value):",
                      *_lines(TrainOptions, own)])


def _model_named(tokens: Sequence[str]) -> str | None:
    return next((t for t in tokens if not t.startswith("-")), None)


def _model_part(name: str) -> str:
    entry = get(name)
    return "\n".join([f"Settings of {name} (--set key=value): {entry.summary}",
                      *_lines(entry.config, {}), ""])


def _lines(cls: type, defaults: Mapping[str, Any]) -> list[str]:
    infos = fields_of(cls)
    defaults_of = {i.name: f"{i.name}={_shown(defaults.get(i.name, i.default))}" for i in infos}
    width = min(max(map(len, defaults_of.values()), default=0), 34)
    return [f"  {defaults_of[i.name]:<{width}}  {_describe(i)}" for i in infos]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(
        value)


def _describe(info: FieldInfo) -> str:
    return f"{info.help} ({info.allowed})" if info.help else info.allowed
