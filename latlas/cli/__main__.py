"""Entry point: dispatch, and errors as one line."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import latlas
from latlas import cli
from latlas.cli.commands import COMMANDS, overview
from latlas.cli.surroundings import Stopped, discard, prepare, say
from latlas.core.errors import ConfigError, DataNote, LatlasError, out_of_memory, unknown

_HELP = ("--help", "-h")
USER_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def main() -> None:
    """The ``latlas`` command."""
    prepare()
    code = run(sys.argv[1:], cli.IMPORTED)
    try:
        sys.stdout.flush()
    except (LatlasError, OSError):
        discard()
    sys.exit(code)


def run(tokens: Sequence[str], started: float | None = None) -> int:
    """Run one command line, which began at a ``time.monotonic()``; returns the exit code.

    0 done; 2 an error the user can fix, one line on stderr; 130 interrupted (training has saved
    by then); 141 whoever read the output went away; 128 + N ended by signal N. Other exceptions
    keep their traceback.
    """
    cli.launched = time.monotonic() if started is None else started
    try:
        code = _dispatch(list(tokens))
        sys.stdout.flush()
        return code
    except LatlasError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Stopped as stopped:
        print(f"stopped by signal {stopped.number}", file=sys.stderr)
        return 128 + stopped.number
    except BrokenPipeError:
        discard(sys.stdout.fileno())
        return BROKEN_PIPE
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        message = f"out of memory: {error}".removesuffix(": ") + (
            ". Try a smaller batch_size, latent_dim, width or image size, fewer draws, or fewer "
            "examples")
    say(f"error: {' '.join(message.split())}", sys.stderr)
    return USER_ERROR


def _dispatch(tokens: list[str]) -> int:
    """Find the command that the first words name, and print its help or call it."""
    if not tokens or tokens[0] in _HELP:
        print(overview())
        return 0
    if tokens[0] == "--version":
        print(f"latlas {latlas.__version__}")
        return 0
    words = 2 if any(k.startswith(tokens[0] + " ") for k in COMMANDS) else 1  # data info
    name, tokens = " ".join(tokens[:words]), tokens[words:]
    if name not in COMMANDS:
        raise ConfigError(unknown("command", name, COMMANDS))

    from cyclopts import App, CycloptsError

    from latlas.cli.derive import as_command

    module, _, function = COMMANDS[name].target.partition(":")
    command = as_command(name, getattr(import_module(module), function))
    app = App(name=f"latlas {name}", help=command.__doc__, help_format="plaintext", help_flags=(),
              version_flags=(), result_action="return_value", suppress_keyboard_interrupt=False,
              default_command=command)
    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DataNote):
            say(f"note: {message}", sys.stderr)
        else:
            before(message, category, *place, **more)

    before = warnings.showwarning
    try:
        if not any(t in _HELP for t in tokens):
            with warnings.catch_warnings():
                warnings.simplefilter("always", DataNote)
                warnings.showwarning = show
                return app(tokens, exit_on_error=False, print_error=False) or 0
        app.help_print()
    except CycloptsError as error:
        message = " ".join(str(error).split()) + _meant(name, tokens, error)
        raise ConfigError(f"{message} See `latlas {name} --help`.") from error
    examples: Sequence[str] = COMMANDS[name].examples
    settings: list[str] = []
    if name == "train":
        from latlas.cli.train import train_help

        own, settings = train_help(next((t for t in tokens if not t.startswith("-")), None))
        examples = own or examples
    print("\n".join(["", "Examples:", *(f"  {line}" for line in examples), *settings]))
    return 0


def _meant(name: str, tokens: list[str], error: Exception) -> str:
    """What was probably meant by a word or option that the command does not take."""
    from cyclopts import UnknownOptionError, UnusedCliTokensError

    if isinstance(error, UnusedCliTokensError) and "--data" in tokens:
        return " Each source has its own --data: --data a.png --data b.png; or name their folder."
    if name == "train" and isinstance(error, UnknownOptionError):
        from latlas.cli.train import setting_meant

        return setting_meant(tokens[0], error.token.keyword or error.token.value)
    return ""


if __name__ == "__main__":
    main()
