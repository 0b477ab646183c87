"""Options as frozen dataclasses: one declaration gives the default, the help, the type check.

    @dataclass(frozen=True)
    class Config:
        latent_dim: int = option(16, "size of the code", low=1)

The same declaration serves ``--set latent_dim=32``, a TOML file, keyword arguments and run.json.
Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from latlas.core.errors import ConfigError, unknown

T = TypeVar("T")
_FACTORS = {"k": 10**3, "m": 10**6, "g": 10**9}
_BOOLS = {"true": True, "yes": True, "on": True, "1": True,
          "false": False, "no": False, "off": False, "0": False}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class FieldInfo:
    """One option: what ``--help`` shows and :func:`parse` checks. ``low`` and ``high`` included."""

    name: str
    type: Any
    default: Any
    help: str = ""
    choices: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None

    @property
    def allowed(self) -> str:
        """What a value may be, in words: ``one of a, b``, ``1 … 9``, ``at least 1``."""
        if self.choices is not None:
            return f"one of {', '.join(map(str, self.choices))}"
        if self.low is not None and self.high is not None:
            return f"{_type_words(self.type)}, {self.low:g} … {self.high:g}"
        if self.low is not None:
            return f"{_type_words(self.type)}, at least {self.low:g}"
        if self.high is not None:
            return f"{_type_words(self.type)}, at most {self.high:g}"
        return _type_words(self.type)


def option(default: Any, help: str, *, choices: Sequence[Any] | None = None,
           low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with its help and the values it accepts.

    Args:
        default: an immutable value (use tuples for sequences).
        help: one line, with the unit.
        choices: the only values allowed.
        low, high: bounds, both included; every element of a tuple is held to them.
    """
    listed = None if choices is None else tuple(choices)
    metadata = {"help": help, "choices": listed, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


def fields_of(cls: type) -> list[FieldInfo]:
    """Every option of a dataclass, in order, annotations resolved."""
    hints = get_type_hints(cls)
    return [_info(field, hints[field.name]) for field in dataclasses.fields(cls) if field.init]


def _info(field: dataclasses.Field[Any], hint: Any) -> FieldInfo:
    default = field.default
    if default is MISSING and field.default_factory is not MISSING:
        default = field.default_factory()
    choices = field.metadata.get("choices") or _literals(hint)
    rest = {k: field.metadata.get(k) for k in ("low", "high")}
    return FieldInfo(field.name, hint, default, field.metadata.get("help", ""), choices, **rest)


def parse(cls: type[T], values: Mapping[str, Any], where: str = "--set") -> T:
    """An instance from texts or values, types and ranges checked.

    Whole numbers may be written ``200_000``, ``2e6``, ``64k``, ``2M``; tuples ``512,512``;
    an optional field ``none``.

    Args:
        values: field name to text (command line) or value (TOML, JSON, keyword argument).
        where: what the user wrote it in; starts every error.

    Raises:
        ConfigError: an unknown name (with the nearest one), or a value that does not fit.
    """
    infos = {info.name: info for info in fields_of(cls)}
    known(values, infos, where)
    return cls(**{name: convert(infos[name], value, where) for name, value in values.items()})


def known(values: Mapping[str, Any], valid: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for the first name that is not valid."""
    for name in values:
        if name not in valid:
            raise ConfigError(f"{where}: {unknown('option', name, valid)}")


def divide(values: Mapping[str, Any], *classes: type, where: str = "--set") -> list[dict[str, Any]]:
    """Which values belong to which class; a name in several goes to the first.

    Raises:
        ConfigError: a name that is in none.
    """
    names = [{info.name: info for info in fields_of(cls)} for cls in classes]
    known(values, {k: v for group in names for k, v in group.items()}, where)
    parts: list[dict[str, Any]] = [{} for _ in classes]
    for name, value in values.items():
        owner = next(i for i, group in enumerate(names) if name in group)
        parts[owner][name] = value
    return parts


def convert(info: FieldInfo, value: Any, where: str = "--set") -> Any:
    """One value of the field's type, held to its choices and bounds."""
    try:
        result = _convert(info.type, value)
    except (TypeError, ValueError, KeyError):
        raise _misfit(info, value, where) from None
    if result is not None and not all(_fits(info, v) for v in _elements(result)):
        raise _misfit(info, value, where)
    return result


def validate(instance: Any, where: str = "config") -> None:
    """Raise ConfigError if a field of an instance made by hand does not fit."""
    for info in fields_of(type(instance)):
        convert(info, getattr(instance, info.name), where)


def _misfit(info: FieldInfo, value: Any, where: str) -> ConfigError:
    given = f"{info.name}={_text(value)}"
    return ConfigError(f"{where} {given}: {info.name} must be {info.allowed}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else repr(value)


def _fits(info: FieldInfo, value: Any) -> bool:
    if info.choices is not None:
        return value in info.choices
    above = info.low is None or value >= info.low
    return above and (info.high is None or value <= info.high)


def _elements(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _convert(hint: Any, value: Any) -> Any:
    """``value`` as the annotated type. Raises Value-, Type- or KeyError if it is not one."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _first_fitting(args, value)
    if origin is Literal:
        return {str(a): a for a in args}[str(value)]
    if origin is tuple:
        return _tuple(args, value)
    return _SCALARS[hint](value)


def _first_fitting(members: tuple[Any, ...], value: Any) -> Any:
    for member in sorted(members, key=_text_last):
        try:
            return _convert(member, value)
        except (TypeError, ValueError, KeyError):
            continue
    raise ValueError(value)


def _text_last(member: Any) -> bool:
    return member is str  # text accepts anything, so it is asked last


def _tuple(args: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    parts = [p.strip() for p in value.split(",") if p.strip()] if isinstance(value, str) else value
    parts = list(parts) if isinstance(parts, (list, tuple)) else [parts]
    kinds = [args[0]] * len(parts) if args[-1] is Ellipsis else list(args)
    return tuple(_convert(kind, part) for kind, part in zip(kinds, parts, strict=True))


def _int(value: Any) -> int:
    number = _float(value)
    if isinstance(value, int):  # not by way of a float, which is exact to 2^53 alone
        return value
    return int(number) if number.is_integer() else _refuse(value)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(value)
    number = float(value) if not isinstance(value, str) else _number(value.strip().lower())
    return number if math.isfinite(number) else _refuse(value)


def _number(text: str) -> float:
    factor = _FACTORS.get(text[-1:], 1)
    return float(text[:-1] if factor > 1 else text) * factor


def _bool(value: Any) -> bool:
    return value if isinstance(value, bool) else _BOOLS[_str(value).strip().lower()]


def _str(value: Any) -> str:
    return value if isinstance(value, str) else _refuse(value)


def _none(value: Any) -> None:
    if value is not None and str(value).strip().lower() not in ("none", "auto", ""):
        raise ValueError(value)


def _refuse(value: Any) -> Any:
    raise ValueError(value)


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    int: _int, float: _float, bool: _bool, str: _str, type(None): _none}


def _literals(hint: Any) -> tuple[Any, ...] | None:
    return get_args(hint) if get_origin(hint) is Literal else None


def _type_words(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        named = [_type_words(a) for a in args if a is not type(None)]
        return " or ".join([*named, "none"] if type(None) in args else named)
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        return f"{count}numbers with commas between"
    return _WORDS.get(hint, str(hint))


def to_json(instance: Any) -> dict[str, Any]:
    """Every field, tuples as lists."""
    return {k: list(v) if isinstance(v, tuple) else v
            for k, v in ((i.name, getattr(instance, i.name)) for i in fields_of(type(instance)))}


def from_json(cls: type[T], data: Mapping[str, Any], where: str = "run.json") -> T:
    """The inverse of :func:`to_json`; fields that are missing take their default."""
    return parse(cls, data, where)
