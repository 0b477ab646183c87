"""Entry point: dispatch, and errors as one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import latlas
from latlas.cli.commands import COMMANDS, overview
from latlas.core.errors import ConfigError, LatlasError, out_of_memory, unknown

if TYPE_CHECKING:
    from cyclopts import CycloptsError

_HELP = ("--help", "-h")
USER_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def main() -> None:
    """The ``latlas`` command."""
    sys.exit(run(sys.argv[1:]))


def run(tokens: Sequence[str]) -> int:
    """Run one command line; returns the exit code.

    0 done; 2 an error the user can fix, one line on stderr; 130 interrupted (training has saved
    by then); 141 whoever read the output went away. Other exceptions keep their traceback.
    """
    try:
        code = _dispatch(list(tokens))
        sys.stdout.flush()
        return code
    except LatlasError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return _quiet()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        why = f": {error}" if str(error) else ""
        return _fail(f"out of memory{why}. Try a smaller batch_size, latent_dim, width or image "
                     "size, fewer draws, or fewer examples")


def _dispatch(tokens: list[str]) -> int:
    if not tokens or tokens[0] in _HELP:
        print(overview())
        return 0
    if tokens[0] == "--version":
        print(f"latlas {latlas.__version__}")
        return 0
    return _call(*_find(tokens))


def _find(tokens: list[str]) -> tuple[str, list[str]]:
    """The command's name and what follows it. ``data`` has commands of its own."""
    words = 2 if any(k.startswith(tokens[0] + " ") for k in COMMANDS) else 1
    name = " ".join(tokens[:words])
    if name not in COMMANDS:
        raise ConfigError(unknown("command", name, COMMANDS))
    return name, tokens[words:]


def _call(name: str, tokens: list[str]) -> int:
    from cyclopts import CycloptsError

    from latlas.cli.derive import app_of

    app = app_of(name)
    try:
        if any(t in _HELP for t in tokens):
            _help(name, app.help_print, tokens)
        else:
            return app(tokens, exit_on_error=False, print_error=False) or 0
        return 0
    except CycloptsError as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"{said}{_setting_meant(name, tokens, error)} See `latlas {name} --help`."
                          ) from error


def _setting_meant(name: str, tokens: list[str], error: CycloptsError) -> str:
    """How to give what was meant as an option of ``train`` and is a setting."""
    from cyclopts import UnknownOptionError

    from latlas.cli.settings import setting_of

    if name != "train" or not isinstance(error, UnknownOptionError):
        return ""
    key = (error.token.keyword or error.token.value).split("=")[0].lstrip("-").replace("-", "_")
    return f" {key} is a setting: --set {key}=…" if setting_of(tokens[0], key) else ""


def _help(name: str, show: Callable[[], None], tokens: list[str]) -> None:
    show()
    examples: Sequence[str] = COMMANDS[name].examples
    if name == "train":
        from latlas.cli.settings import model_help, train_examples

        examples = train_examples(tokens) or examples
    print("\n".join(["", "Examples:", *(f"  {line}" for line in examples)]))
    if name == "train":
        print(f"\n{model_help(tokens)}")


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def _quiet() -> int:
    """Python flushes stdout once more at exit: give it somewhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


if __name__ == "__main__":
    main()
