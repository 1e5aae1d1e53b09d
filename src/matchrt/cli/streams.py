"""The program's standard streams: consoles that lack characters, full disks, closed pipes, and streams that are closed.

What a command prints is written after its work, so a stream must not undo that work. A character that the console's
encoding lacks is replaced. Results that cannot be written are an error in one line; a reader that has gone, as in
`matchrt models | head -1`, is none, and ends the program as SIGPIPE would. What goes to stderr is only told: if stderr
cannot be written, the work goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from matchrt.errors import MatchRTError

# The exit code of a program that SIGPIPE ended, as shells give it: 128 + 13.
_BROKEN_PIPE = 141


@contextlib.contextmanager
def guarded_streams() -> Iterator[MatchRTError | None]:
    """While it lasts, stdout and stderr behave as the module says.

    Yields the error (output-unwritable) if stdout was closed from the start, so that no work is done in vain; else
    None. What is written to stdout and flushed raises output-unwritable if it cannot be written, and SystemExit if its
    reader has gone.
    """
    _open_lowest_descriptors()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - it is no path of a user
        # Python sets a stream to None whose descriptor was closed when it started.
        sys.stdout = cast(TextIO, _Checked(before[0] or nowhere))
        sys.stderr = cast(TextIO, _Forgiving(before[1] or nowhere))
        try:
            yield None if before[0] is not None else _unwritable("it is closed")
        finally:
            sys.stdout, sys.stderr = before


class _Stream:
    """A text stream that replaces what its encoding lacks, and deals with failures in its own way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")

    def write(self, text: str) -> int:
        """Writes text. Errors: those of the class."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes lines. Errors: those of the class."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes the stream. Errors: those of the class."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _failed(self, error: OSError) -> None:
        """Called with the failure. From now on everything goes nowhere, also what Python flushes at its end."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Checked(_Stream):
    """stdout. Errors: output-unwritable; SystemExit, if the reader has gone.

    After the first failure every write and flush raises it, because libraries may swallow the first.
    """

    _lost: OSError | None = None

    def write(self, text: str) -> int:
        """Writes text. Errors: those of the class."""
        self._require_whole()
        return super().write(text)

    def flush(self) -> None:
        """Flushes the stream. Errors: those of the class."""
        self._require_whole()
        super().flush()

    def _failed(self, error: OSError) -> None:
        super()._failed(error)
        self._lost = error
        self._require_whole()

    def _require_whole(self) -> None:
        if self._lost is None:
            return
        if self._lost.errno == errno.EPIPE:
            raise SystemExit(_BROKEN_PIPE) from self._lost
        raise _unwritable(self._lost.strerror or str(self._lost)) from self._lost


class _Forgiving(_Stream):
    """stderr, whose failures end nothing. Raises nothing."""


def _unwritable(reason: str) -> MatchRTError:
    return MatchRTError(
        "output-unwritable",
        f"Cannot write the result to standard output: {reason}.",
        "Choose a place with room that can be written; files that the command wrote are whole.",
    )


def _open_lowest_descriptors() -> None:
    """Gives descriptors 0 to 2 to the null device where they are closed.

    Else the next file that is opened gets such a number, and what a library prints to stderr would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that was found closed.
            os.open(os.devnull, os.O_RDWR)
