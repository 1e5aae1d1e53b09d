"""Printing for all commands: results go to stdout, everything else goes to stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from matchrt._util.text import is_printable, printable, printable_lines
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.export.weights.report import Entry

# Errors whose messages have several lines: a sentence, and a list of tensors.
_LISTING = ("weights-unaccounted",)

# Colours of the verdicts on pairs.
VERDICT_STYLES = {"match": "green", "doubtful": "yellow", "no match": "red"}

# Between two lines about a long run, in logs.
_LINE_SECONDS = 60.0

# A width that no table reaches; rich would cut tables in pipes at 80 characters.
_NO_LIMIT = 10_000


class SafeConsole(Console):
    """A console that shows text of strangers, such as names in files, without obeying it.

    Text is printed as it is, because file names may contain rich's markup. What is printed as a string or as rich's
    Text is one line, and control characters in it, also in cells of tables, become escapes (`_util.text.printable`).
    Where there is no terminal, as in pipes and files, tables are as wide as their cells need.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False)
        if not self.is_terminal:
            self.width = _NO_LIMIT

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's own."""
        super().print(*map(_one_line, objects), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich's own; everything that is printed passes through it, whatever it is part of."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable_lines(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


def _one_line(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Text) and not is_printable(value.plain):
        return Text(printable(value.plain), style=value.style)
    return value


def stdout() -> Console:
    """The console for results."""
    return SafeConsole()


def stderr() -> Console:
    """The console for progress and errors."""
    return SafeConsole(stderr=True)


class PrintableFormatter(logging.Formatter):
    """Log lines whose messages cannot make lines of their own, or move a terminal's cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """As logging's own."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """As logging's own."""
        return printable_lines(super().formatException(ei))


def print_json(value: Any) -> None:
    """Prints one JSON document on stdout, in ASCII, where control characters are escapes."""
    text = json.dumps(value, indent=2, allow_nan=False)
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")  # DEL is the one that JSON allows


def verdict_counts(counts: Mapping[Any, int]) -> str:
    """How many pairs have which verdict, such as `verdicts: 12 match, 1 doubtful, 3 no match`; empty without any."""
    if not sum(counts.values()):
        return ""
    return "verdicts: " + ", ".join(f"{counts.get(word, 0)} {word}" for word in VERDICT_STYLES)


def facts(rows: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="bold"), Text(printable(str(value))))
    stdout().print(table)


def megabytes(size: int) -> str:
    """A number of bytes as text, such as `12.34 MB`; small sizes such as `1.2 kB`."""
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def tensor_json(entry: Entry) -> dict[str, Any]:
    """A tensor and what became of it, as JSON values."""
    return {"key": entry.key, "shape": list(entry.shape), "fate": entry.fate, "detail": entry.detail}


def print_written(*paths: Path | None, style: str = "") -> None:
    """Prints a line for every file that was written. None stands for a file that was not requested."""
    for path in paths:
        if path is not None:
            stdout().print(f"wrote {path}", style=style)


def error_json(error: MatchRTError) -> dict[str, str]:
    """An error as JSON values."""
    return {"code": error.code, "message": error.message, "remedy": error.remedy}


def fail(error: Exception, *, as_json: bool, debug: bool) -> int:
    """Prints an error in one line, and its remedy. Returns the exit code. debug: print the traceback too."""
    if debug:
        traceback.print_exception(error)
    if not isinstance(error, MatchRTError):
        what = f"{type(error).__name__}: {error}"
        error = _unexpected(what)
    print_error(error, f"error[{error.code}]: ")
    if as_json:
        with suppress(MatchRTError):  # stdout cannot be written, and there is an error to tell already
            print_json({"error": error_json(error)})
    return error.exit_code


def print_lines(console: Console, text: str, style: str = "") -> None:
    """Prints text of several lines, which no stranger can have written: their line breaks would count."""
    for line in text.split("\n"):
        console.print(line, style=style)


def print_error(error: MatchRTError, before: str = "") -> None:
    """Prints an error's message in one line, and its remedy in another, to stderr. before: what the line begins with.

    An error about many tensors lists them in lines of their own.
    """
    console = stderr()
    if error.code in _LISTING:
        print_lines(console, f"{before}{error.message}", style="red")
    else:
        console.print(f"{before}{error.message}", style="red")
    console.print(f"  {error.remedy}")


def _unexpected(what: str) -> MatchRTError:
    from matchrt.errors import InternalError

    return InternalError("unexpected", f"Unexpected failure: {what}", "Run again with --debug and report the output.")


def _unseen(quiet: bool) -> bool:
    """Whether nobody would see a progress bar; where stderr is no terminal, it would only leave an empty line."""
    return quiet or not stderr().is_terminal


def _described() -> TextColumn:
    """The column that says what is done."""
    return TextColumn("{task.description}", markup=False)


@contextmanager
def stages(quiet: bool) -> Iterator[Any]:
    """Shows a progress bar over named stages. Yields `tell(stage, share)`, whose share of the work done is 0..1."""
    with Progress(
        SpinnerColumn("line"), _described(), BarColumn(), TimeElapsedColumn(), console=stderr(),
        transient=True, disable=_unseen(quiet),
    ) as progress:  # fmt: skip
        task = progress.add_task("starting", total=1.0)

        def tell(stage: str, done: float) -> None:
            progress.update(task, description=stage, completed=done)

        yield tell


@contextmanager
def counter(total: int, what: str, quiet: bool) -> Iterator[Any]:
    """Shows a progress bar over `total` items. Yields `advance()`, which is called after each item."""
    with Progress(
        _described(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=stderr(),
        transient=True, disable=_unseen(quiet),
    ) as progress:  # fmt: skip
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def progress_of(what: str, quiet: bool, unit: str = "pairs") -> Iterator[Any]:
    """Shows how far a long run is. Yields `tell(done, total)` for numbers of items.

    On a terminal it is a bar with the time left. Elsewhere, as in logs, it is a line a minute on stderr, also with
    --json. unit: what the items are, in the plural.
    """
    if not stderr().is_terminal:
        minutes = MinuteLines(what, unit)
        yield minutes.tell
        return
    with Progress(
        _described(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=stderr(), transient=True, disable=_unseen(quiet),
    ) as progress:  # fmt: skip
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class MinuteLines:
    """A line a minute about a long run, with an estimate of the time that is left."""

    def __init__(self, what: str, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        """what: the work, such as `matching`. unit: of the items, in the plural. clock: in seconds."""
        self._what, self._unit, self._clock = what, unit, clock
        self._start = self._last = clock()
        self._first: int | None = None

    def tell(self, done: int, total: int) -> None:
        """Prints a line if the last one was a minute ago. done, total: numbers of items."""
        now = self._clock()
        if self._first is None:
            self._first = done
        if now - self._last < _LINE_SECONDS:
            return
        self._last = now
        rate = (done - self._first) / (now - self._start)
        left = f", about {duration((total - done) / rate)} left" if rate > 0 and total > done else ""
        stderr().print(f"{self._what}: {done} of {total} {self._unit}, {rate:.2f} a second{left}")


def duration(seconds: float) -> str:
    """A time as text, such as `45 s`, `12 min` or `3 h 5 min`. Raises nothing."""
    if seconds < _LINE_SECONDS:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def bytes_progress(name: str, quiet: bool) -> Iterator[Any]:
    """Shows a progress bar over the bytes of a file. Yields `tell(what, done, total)`; total is None if not known."""
    with Progress(
        _described(), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(), console=stderr(), transient=True, disable=_unseen(quiet),
    ) as progress:  # fmt: skip
        task = progress.add_task(name, total=None)

        def tell(what: str, done: int, total: int | None) -> None:
            progress.update(task, description=f"{name}: {what}", completed=done, total=total)

        yield tell
