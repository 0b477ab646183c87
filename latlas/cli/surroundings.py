"""Terminals, pipes and signals as a process finds them: what cannot be shown is replaced, what
cannot be written is said in one line, and who is told to stop tidies up first."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, TextIO

from latlas.core.errors import LatlasError


class Stopped(BaseException):
    """A signal that ends the process; what is half-written is removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stream:
    """Standard output or error, that may be full or closed.

    Args:
        stream: ``None`` if it is closed.
        matters: losing what is written to it is an error; otherwise it is passed over.
    """

    def __init__(self, stream: TextIO | None, matters: bool) -> None:
        self._stream, self._matters = stream, matters

    def write(self, text: str) -> int:
        """As a file's; LatlasError where what is written is lost and matters."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """As a file's; errors as those of :meth:`write`."""
        if self._stream is not None:
            self._try("flush")

    def _try(self, method: str, *args: Any) -> None:
        try:
            if self._stream is None:
                raise OSError(0, "it is closed")
            getattr(self._stream, method)(*args)
        except BrokenPipeError:
            raise
        except OSError as error:
            discard(1 if self._matters else 2)
            if self._matters:
                raise LatlasError(f"cannot write to standard output: {error.strerror}; what goes "
                                  "to files is written") from None

    def __getattr__(self, name: str) -> Any:
        if name == "isatty" and self._stream is None:
            return lambda: False
        return getattr(self._stream, name)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print, with question marks for what the stream has no characters for."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=stream)


def prepare() -> None:
    """Make standard streams such that printing neither fails for a character nor goes astray, and
    let SIGTERM and SIGHUP end the process as an exception."""
    for number in range(3):  # a file opened later must not become standard output
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = Stream(sys.stdout, True), Stream(sys.stderr, False)  # type: ignore[assignment]

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    for name in ("SIGTERM", "SIGHUP"):
        if not hasattr(signal, name):  # Windows has no SIGHUP
            continue
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, stop)


def discard(number: int = 1) -> None:
    """Whatever is still to be written to this stream goes nowhere: Python flushes once more at
    its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
