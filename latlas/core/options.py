"""Options as frozen dataclasses: one declaration gives the default, the help and the checks.

    @dataclass(frozen=True)
    class Config:
        latent_dim: int = option(16, "latent dimensions", low=1)

It serves ``--set latent_dim=32``, a TOML file, keyword arguments and run.json. msgspec checks types
and bounds; what only people write (``64k``, ``512,512``, ``none``) becomes a plain value first.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from latlas.core.errors import ConfigError, unknown

T = TypeVar("T")
_FACTORS = {"k": 10**3, "m": 10**6, "g": 10**9}
_FLAGS = {"true": True, "yes": True, "on": True, "1": True,
          "false": False, "no": False, "off": False, "0": False}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text",
          NoneType: "none"}


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
        members = get_args(self.type) or (self.type,)
        words = " or ".join(_WORDS[member] for member in members if member in _WORDS)
        if get_origin(self.type) is tuple:
            words = f"{'' if ... in members else f'{len(members)} '}numbers with commas between"
        if self.low is not None and self.high is not None:
            return f"{words}, {self.low:g} … {self.high:g}"
        return words + ("" if self.low is None else f", at least {self.low:g}") + (
            "" if self.high is None else f", at most {self.high:g}")


def option(default: Any, help: str, *, choices: Sequence[Any] | None = None,
           low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with an immutable default, one line of help, which names the unit, and the
    only values allowed or bounds, both included, which hold for every element of a tuple."""
    return dataclasses.field(default=default, metadata={
        "help": help, "choices": choices and tuple(choices), "low": low, "high": high})


def fields_of(cls: type) -> list[FieldInfo]:
    """Every option of a dataclass, in order, annotations resolved."""
    hints = get_type_hints(cls)
    literal: dict[str, dict[str, Any]] = {
        k: {"choices": get_args(v)} for k, v in hints.items() if get_origin(v) is Literal}
    return [FieldInfo(f.name, hints[f.name], f.default, **f.metadata | literal.get(f.name, {}))
            for f in dataclasses.fields(cls)]


def parse(cls: type[T], values: Mapping[str, Any], origin: str = "--set") -> T:
    """An instance of a dataclass of options.

    Args:
        values: option name to text (command line) or value (TOML, JSON, keyword argument).
        origin: what the person wrote it in; starts every error.

    ConfigError: an unknown name (with the nearest one), or a value that does not fit.
    """
    infos = {info.name: info for info in fields_of(cls)}
    check_names(values, infos, origin)
    return cls(**{name: convert(infos[name], value, origin) for name, value in values.items()})


def check_names(values: Mapping[str, Any], valid: Mapping[str, Any], origin: str) -> None:
    """Refuse the first name that is not valid, by a ConfigError."""
    for name in values:
        if name not in valid:
            raise ConfigError(f"{origin}: {unknown('option', name, valid)}", option=name)


def convert(info: FieldInfo, value: Any, origin: str = "--set") -> Any:
    """One value of the option's type, held to its choices and bounds."""
    try:
        return msgspec.convert(_plain(value, info.type), _bounded(info.type, info))
    except msgspec.ValidationError:
        text = value if isinstance(value, str) and value else repr(value)
        raise ConfigError(f"{origin} {info.name}={text}: {info.name} must be {info.allowed}",
                          option=info.name) from None


def to_json(instance: Any) -> dict[str, Any]:
    """Every option, tuples as lists; :func:`parse` is the inverse."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(instance).items()}


def numbers(text: str) -> list[int] | None:
    """``1,2,5-9`` as whole numbers; ``None`` if it is nothing of the kind, or over a million.

    >>> numbers("1,2,5-7"), numbers("a"), numbers("3-1")
    ([1, 2, 5, 6, 7], None, None)
    """
    result: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not (last.isdigit() and int(first) <= int(last))):
            return None
        more = range(int(first), int(last if dash else first) + 1)
        if len(result) + len(more) > 1_000_000:  # a slip of the hand
            return None
        result += more
    return result


def _bounded(hint: Any, info: FieldInfo) -> Any:
    """A type with the choices and bounds of an option, as msgspec checks them."""
    if info.choices is not None:
        return Literal[info.choices]
    if hint in (int, float):
        return Annotated[hint, msgspec.Meta(ge=info.low, le=info.high)]
    members = tuple(_bounded(member, info) for member in get_args(hint))
    generic: Any = tuple if get_origin(hint) is tuple else Union
    return generic[members] if members else hint


def _plain(value: Any, hint: Any) -> Any:
    """What a person wrote, as the number, flag, list or ``None`` that a type asks for."""
    args, text = get_args(hint), value.strip().lower() if isinstance(value, str) else None
    if get_origin(hint) in (Union, UnionType):
        return None if NoneType in args and text in ("none", "auto", "") else _plain(value, args[0])
    if get_origin(hint) is tuple:
        parts = value if text is None else [p for p in value.split(",") if p.strip()]
        return [_plain(p, args[0]) for p in (parts if isinstance(parts, list | tuple) else [parts])]
    if hint is bool:
        return _FLAGS.get(str(text), value)
    if text and hint in (int, float):
        factor = _FACTORS.get(text[-1], 1)
        with suppress(ArithmeticError):  # a float would be exact to 2^53 alone
            value = Decimal(text[:-1] if factor > 1 else text) * factor
    numeric = isinstance(value, Real | Decimal) and not isinstance(value, bool)
    if not numeric or isinstance(value, Integral):  # NumPy's own are numbers, too
        return int(value) if numeric else value
    if not math.isfinite(value):
        return str(value)
    return int(value) if hint is int and value == int(value) else float(value)
