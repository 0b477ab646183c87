"""One cyclopts app for the one command that was asked for."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from cyclopts import App

from latlas.cli.commands import COMMANDS


def build(name: str) -> App:
    """The command as an app: its function and the help of its docstring."""
    command = COMMANDS[name]
    module, _, function = command.target.partition(":")
    call = getattr(import_module(module), function)
    return App(name=f"latlas {name}", help=_paragraphs(call), help_format="plaintext",
               help_flags=(), version_flags=(), result_action="return_value",
               suppress_keyboard_interrupt=False, default_command=call)


def _paragraphs(function: Any) -> str:
    """The docstring, lines joined where no empty line parts them: the terminal wraps them."""
    text = inspect.getdoc(function) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
