"""One cyclopts app for the one command that was asked for."""

from __future__ import annotations

from importlib import import_module

from cyclopts import App

from latlas.cli.commands import COMMANDS


def build(name: str) -> App:
    """The command as an app: its function, its summary, its examples."""
    command = COMMANDS[name]
    module, _, function = command.target.partition(":")
    examples = "\n".join(["Examples:", *(f"  {line}" for line in command.examples)])
    return App(name=f"latlas {name}", help_format="plaintext", help_epilogue=examples,
               help_flags=(), version_flags=(), result_action="return_value",
               suppress_keyboard_interrupt=False,
               default_command=getattr(import_module(module), function))
