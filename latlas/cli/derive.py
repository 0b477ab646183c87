"""A command from a verb: its flags and help are those of the function's signature and docstring.

``run`` and arguments without a default are positional, ``**read`` becomes the options of a source,
``progress`` a progress bar, ``out`` a file in the run folder where none is named. Every command
also has ``--json``, and ``--device`` where it takes a run.
"""

import inspect
import json as jsonlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter
from docstring_parser import Docstring, parse

from latlas import models
from latlas.cli.surroundings import say
from latlas.core.errors import ConfigError, flags_of_command
from latlas.verbs.common import Flag, Output, Result

#: options of a source that have a flag of their own; ``--data-option`` sets any of them
READ = {
    "image_size": Flag(int, "Pixels per side; images are scaled and cropped to it."),
    "key": Flag(str, "Name of the array in an npz."),
    "on_error": Flag(Literal["raise", "skip"], "What to do with a broken file."),
    "label": Flag(str, "Column or array that holds the label, or none."),
    "split_by": Flag(str, "Column of a table, such as a date, whose last rows are held out."),
    "data_option": Flag(tuple[str, ...], "key=value, any option of the source; may be repeated.",
                        lambda texts: pairs(texts, "--data-option"), repeated=True),
}
JSON = Flag(bool, "Print the result as JSON on stdout, all else on stderr.")
DEVICE = Flag(str, "auto, cpu, cuda, cuda:1, mps.")
MODEL = Flag(str, "module:Class of a model of your own, whose code runs only if named.")


def as_command(name: str, verb: Callable[..., Result]) -> Callable[..., int]:
    """A function for cyclopts that calls the verb, writes its result and says what it is."""
    docs, arguments = parse(inspect.getdoc(verb) or ""), inspect.signature(verb).parameters
    flags, parameters, default = _declared(verb, docs)
    reads = "read" in arguments
    extra = {k: v for k, v in READ.items() if reads and k not in flags}
    device = "run" in flags and "device" not in flags  # that of the run's model
    # errors of the data about a label mean the source's, where the verb has one of its own
    typed = {k: v.name or f"--{k.replace('_', '-')}" for k, v in {**flags, **extra}.items()
             if k in extra or not (reads and k in READ)}
    more = {**extra, **({"device": DEVICE} if device else {}), "json": JSON}
    if flags.keys() & {"run", "runs"} and "model" not in flags:
        more["model"], typed["model"] = MODEL, "--model"
    parameters += [_parameter(k, v, {"device": "auto", "json": False}.get(k), False)
                   for k, v in more.items()]
    flags |= more

    def command(*args: Any, **named: Any) -> int:
        values = {p.name: v for p, v in zip(parameters, args, strict=False)} | named
        json = values.pop("json", False)
        bar = _progress_bar(name) if "progress" in arguments else nullcontext()
        with flags_of_command(typed), bar as progress:
            values = {k: _converted(k, flags[k], v) for k, v in values.items()}
            read = {k: values.pop(k, None) for k in extra}
            read |= read.pop("data_option", None) or {}
            for model in (values.pop("model", None) or "").split(",") if "model" in more else ():
                if model:  # runs may be of these models of the person's own from now on
                    models.get(model)
            if "run" in values:
                from latlas.run import Run

                run = Run(values["run"], device=values.pop("device", "auto") if device else "auto")
                values["run"] = run
                if default and values.get("out") is None and not values.get("shard"):
                    values["out"] = _default_file(run, default.format(to=values.get("to", "B")))
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


def _default_file(run: Any, file: str) -> Path:
    """A verb's file in the run folder; without an ending one that suits the data."""
    if "." not in file and not file.endswith("/"):
        file += ".png" if run.space.kind == "image" else ".csv"
    return Path(run.path or "") / file


def _converted(name: str, flag: Flag, value: Any) -> Any:
    """What was typed as the verb takes it; ConfigError for text that is empty."""
    texts = value if isinstance(value, tuple) else (value,)
    if any(isinstance(text, str) and not text.strip() for text in texts):
        typed = flag.name or f"--{name.replace('_', '-')}"
        raise ConfigError(f"{typed} '{texts[-1]}': it is empty; leave it out, or give it a value",
                          option=name)
    if flag.type is Path and value is not None:
        value = Path(value)
    return flag.convert(value) if flag.convert and value is not None else value


def _declared(verb: Callable[..., Result],
              docs: Docstring) -> tuple[dict[str, Flag], list[inspect.Parameter], str]:
    """Flags and arguments that a verb declares, and the file in the run folder that it writes."""
    helps = {p.arg_name: " ".join((p.description or "").split()) for p in docs.params}
    hints = get_type_hints(verb, include_extras=True)
    flags: dict[str, Flag] = {}
    parameters: list[inspect.Parameter] = []
    default = ""
    for name, p in inspect.signature(verb).parameters.items():
        mark = next((m for m in getattr(hints[name], "__metadata__", ())
                     if isinstance(m, Flag | Output)), None)
        if p.kind is p.VAR_KEYWORD or name == "progress" or (
                isinstance(mark, Flag) and not mark.type):
            continue
        if isinstance(mark, Output):
            default, mark = mark.default, Flag(Path, mark.help)
        bare = hints[name].__origin__ if hasattr(hints[name], "__metadata__") else hints[name]
        flags[name] = mark or Flag(bare, helps.get(name, ""))
        parameters.append(_parameter(name, flags[name], p.default, p.kind is not p.KEYWORD_ONLY))
    return flags, parameters, default


def _parameter(name: str, flag: Flag, default: Any, positional: bool) -> inspect.Parameter:
    """One argument as cyclopts reads it; keyword-only but for those a verb takes by position."""
    more: dict[str, Any] = {"help": flag.help}
    if flag.name:
        more["name"] = flag.name
    if flag.several:
        more |= {"negative": "", "consume_multiple": True}
    if flag.repeated:
        more |= {"negative": "", "consume_multiple": False, "show_default": False}
        default = ()
    if flag.type is bool:
        more["negative"] = flag.negative
    required = default is inspect.Parameter.empty
    type_ = str if flag.type is Path else flag.type  # an empty path would be the folder here
    kind = type_ if required or default is not None else type_ | None
    place = (inspect.Parameter.POSITIONAL_ONLY if positional and (required or flag.positional)
             else inspect.Parameter.KEYWORD_ONLY)
    return inspect.Parameter(name, place, default=default,
                             annotation=Annotated[kind, Parameter(**more)])


def pairs(texts: tuple[str, ...], where: str) -> dict[str, str]:
    """``("a=1", "b=2")`` as a dictionary; the last of equal keys counts. ConfigError: a text
    without ``=``."""
    result = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{where} {key}: write it as key=value")
        result[key.strip().replace("-", "_")] = value.strip()
    return result


def emit(facts: Any, json: bool, text: str) -> None:
    """A result on stdout: as one JSON object, or as text. A number that is not finite is null."""
    say(jsonlib.dumps(_plain(facts), indent=2) if json else text)


def _plain(value: Any) -> Any:
    """JSON's own types: arrays as lists, infinities and NaN as null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


@contextmanager
def _progress_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """On stderr, for tasks that call it with (done, all); nothing without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
