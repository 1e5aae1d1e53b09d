"""Printing for all commands: results go to stdout, everything else goes to stderr."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
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
from rich.table import Table
from rich.text import Text

from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.export.weights.report import Entry


def stdout() -> Console:
    """The console for results. Text is printed as it is, because file names may contain rich's markup."""
    return Console(highlight=False, soft_wrap=True, markup=False)


def stderr() -> Console:
    """The console for progress and errors. Text is printed as it is."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def print_json(value: Any) -> None:
    """Prints one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def facts(rows: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="bold"), Text(str(value)))
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
    if as_json:
        print_json({"error": error_json(error)})
    console = stderr()
    console.print(f"error[{error.code}]: {error.message}", style="red")
    console.print(f"  {error.remedy}")
    return error.exit_code


def _unexpected(what: str) -> MatchRTError:
    from matchrt.errors import InternalError

    return InternalError("unexpected", f"Unexpected failure: {what}", "Run again with --debug and report the output.")


@contextmanager
def stages(quiet: bool) -> Iterator[Any]:
    """Shows a progress bar over named stages. Yields `tell(stage, share)`, whose share of the work done is 0..1."""
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=stderr(),
        transient=True, disable=quiet,
    ) as progress:  # fmt: skip
        task = progress.add_task("starting", total=1.0)

        def tell(stage: str, done: float) -> None:
            progress.update(task, description=stage, completed=done)

        yield tell


@contextmanager
def counter(total: int, what: str, quiet: bool) -> Iterator[Any]:
    """Shows a progress bar over `total` items. Yields `advance()`, which is called after each item."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=stderr(),
        transient=True, disable=quiet,
    ) as progress:  # fmt: skip
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def progress_of(what: str, quiet: bool) -> Iterator[Any]:
    """Shows a progress bar over many items, with the time left. Yields `tell(done, total)` for numbers of items."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=stderr(), transient=True, disable=quiet,
    ) as progress:  # fmt: skip
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def bytes_progress(name: str, quiet: bool) -> Iterator[Any]:
    """Shows a progress bar over the bytes of a file. Yields `tell(what, done, total)`; total is None if not known."""
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(), console=stderr(), transient=True, disable=quiet,
    ) as progress:  # fmt: skip
        task = progress.add_task(name, total=None)

        def tell(what: str, done: int, total: int | None) -> None:
            progress.update(task, description=f"{name}: {what}", completed=done, total=total)

        yield tell
