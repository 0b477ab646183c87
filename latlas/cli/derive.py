"""A command from a verb: its flags and help are those of the function's signature and docstring.

``run`` and arguments without a default are positional, ``**read`` becomes the options of a source,
``progress`` a progress bar, ``out`` a file in the run folder where none is named. Every command
also has ``--json``, and ``--device`` where it takes a run.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from cyclopts import App, Parameter
from docstring_parser import Docstring, parse

from latlas.cli.commands import COMMANDS
from latlas.cli.show import counting, emit
from latlas.core.errors import ConfigError, flags_of_command
from latlas.verbs.common import Flag, Output, Result

if TYPE_CHECKING:
    from latlas.run import Run

#: options of a source that have a flag of their own; ``--data-option`` sets any of them
READ = {
    "image_size": Flag(int, "Pixels per side; images are scaled and cropped to it."),
    "key": Flag(str, "Name of the array in an npz."),
    "on_error": Flag(Literal["raise", "skip"], "What to do with a broken file."),
    "label": Flag(str, "Column or array that holds the label, or none."),
    "data_option": Flag(tuple[str, ...], "key=value, any option of the source; may be repeated.",
                        lambda texts: pairs(texts, "--data-option"), repeated=True),
}
JSON = Flag(bool, "Print the result as JSON on stdout, all else on stderr.")
DEVICE = Flag(str, "auto, cpu, cuda, cuda:1, mps.")


def app_of(name: str) -> App:
    """The command as an app of its own."""
    module, _, function = COMMANDS[name].target.partition(":")
    command = as_command(name, getattr(import_module(module), function))
    return App(name=f"latlas {name}", help=command.__doc__, help_format="plaintext",
               help_flags=(), version_flags=(), result_action="return_value",
               suppress_keyboard_interrupt=False, default_command=command)


def as_command(name: str, verb: Callable[..., Result]) -> Callable[..., int]:
    """A function for cyclopts that calls the verb, writes its result and says what it is."""
    docs = parse(inspect.getdoc(verb) or "")
    flags, parameters, output, reads = _declared(verb, docs)
    extra = {k: v for k, v in READ.items() if reads and k not in flags}
    device = "run" in flags and "device" not in flags  # that of the run's model
    # errors of the data about a label mean the source's, where the verb has one of its own
    typed = {k: v.name or f"--{k.replace('_', '-')}" for k, v in {**flags, **extra}.items()
             if k in extra or not (reads and k in READ)}
    more = {**extra, **({"device": DEVICE} if device else {}), "json": JSON}
    parameters += [_parameter(k, v, {"device": "auto", "json": False}.get(k), False)
                   for k, v in more.items()]
    flags |= more

    def command(*args: Any, **named: Any) -> int:
        values = {p.name: v for p, v in zip(parameters, args, strict=False)} | named
        json = values.pop("json", False)
        bar = counting(name) if "progress" in inspect.signature(verb).parameters else nullcontext()
        with flags_of_command(typed), bar as progress:
            values = {k: flags[k].convert(v) if flags[k].convert and v is not None else v  # type: ignore[misc]
                      for k, v in values.items()}
            read = {k: values.pop(k, None) for k in extra}
            read |= read.pop("data_option", None) or {}
            if "run" in values:
                from latlas.run import Run

                run = Run(values["run"], device=values.pop("device", "auto") if device else "auto")
                values |= {"run": run, **_default_output(output, run, values)}
            if progress is not None:
                values["progress"] = progress
            result = verb(**values, **{k: v for k, v in read.items() if v is not None})
        out = values.get("out")
        emit({**result.facts(), **({} if out is None else {"out": str(out)})}, json,
             "" if json else "\n".join(filter(None, [result.text(), *result.written])))
        return result.exit_code

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    paragraphs = (docs.description or "").split("\n\n")
    command.__doc__ = "\n\n".join(" ".join(part.split()) for part in paragraphs)
    return command


def _declared(verb: Callable[..., Result], docs: Docstring) -> tuple[
        dict[str, Flag], list[inspect.Parameter], Output | None, bool]:
    """Flags and arguments that a verb declares, what it writes, whether it takes options of a
    source."""
    helps = {p.arg_name: " ".join((p.description or "").split()) for p in docs.params}
    hints = get_type_hints(verb, include_extras=True)
    flags: dict[str, Flag] = {}
    parameters: list[inspect.Parameter] = []
    output, reads = None, False
    for p in inspect.signature(verb).parameters.values():
        if p.kind is p.VAR_KEYWORD:
            reads = p.name == "read"
            continue
        mark = next((m for m in getattr(hints[p.name], "__metadata__", ())
                     if isinstance(m, Flag | Output)), None)
        if p.name == "progress" or (isinstance(mark, Flag) and not mark.type):
            continue
        if isinstance(mark, Output):
            output, mark = mark, Flag(Path, mark.help)
        flags[p.name] = mark or Flag(_without_none(hints[p.name]), helps.get(p.name, ""))
        parameters.append(_parameter(p.name, flags[p.name], p.default,
                                     p.kind is not p.KEYWORD_ONLY))
    return flags, parameters, output, reads


def _default_output(output: Output | None, run: Run, values: dict[str, Any]) -> dict[str, Path]:
    """``out`` in the run folder, where none is named and the verb has a default."""
    if output is None or not output.default or values.get("out") is not None \
            or values.get("shard"):
        return {}
    file = output.default.format(to=values.get("to", "B"))
    suffix = "" if "." in file or file.endswith("/") else (
        ".png" if run.space.kind == "image" else ".csv")
    assert run.path is not None
    return {"out": run.path / f"{file}{suffix}"}


def _parameter(name: str, flag: Flag, default: Any, positional: bool) -> inspect.Parameter:
    """One argument as cyclopts reads it; keyword-only but for those a verb takes by position."""
    more: dict[str, Any] = {"help": flag.help}
    if flag.name:
        more["name"] = flag.name
    if flag.several:
        more |= {"negative": "", "consume_multiple": True}
    if flag.repeated:
        more |= {"negative": "", "consume_multiple": False, "show_default": False}
    if flag.type is bool:
        more["negative"] = flag.negative
    if flag.repeated:
        default = ()
    required = default is inspect.Parameter.empty
    kind = flag.type if required or default is not None else flag.type | None
    place = (inspect.Parameter.POSITIONAL_ONLY if positional and (required or flag.positional)
             else inspect.Parameter.KEYWORD_ONLY)
    return inspect.Parameter(name, place, default=default,
                             annotation=Annotated[kind, Parameter(**more)])


def _without_none(hint: Any) -> Any:
    """``int | None`` as ``int``: ``None`` is what is not given."""
    if get_origin(hint) in (Union, types.UnionType):
        others = [a for a in get_args(hint) if a is not type(None)]
        return others[0] if len(others) == 1 else Union[tuple(others)]  # noqa: UP007
    return hint


def pairs(texts: tuple[str, ...], where: str) -> dict[str, str]:
    """``("a=1", "b=2")`` as a dictionary; the last of equal keys counts.

    Raises:
        ConfigError: a text without ``=``.
    """
    split = [text.partition("=") for text in texts]
    for key, equals, _ in split:
        if not equals or not key.strip():
            raise ConfigError(f"{where} {key}: write it as key=value")
    return {key.strip().replace("-", "_"): value.strip() for key, _, value in split}
