"""The errors of a journal; `journal` lists their codes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matchrt.errors import MatchRTError


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "locked" in text:
            raise MatchRTError(
                "journal-busy", f"Another process uses '{path}'.", "Wait for it to end, or name another --journal."
            ) from error
        if "not a database" in text:
            raise not_a_journal(path, of_ours=False) from error
        if "malformed" in text or "corrupt" in text:
            raise damaged(path, text) from error
        raise MatchRTError(
            "journal-failed",
            f"'{path}' cannot be used: {text}.",
            "Check the rights to the file and the free space of the disk, and run the command again.",
        ) from error


def damaged(path: Path, what: str) -> MatchRTError:
    """The error (journal-damaged) for a journal in which something is wrong. It is not raised here."""
    return MatchRTError(
        "journal-damaged",
        f"'{path}' is damaged: {what}.",
        "Run the command again. If it says the same, remove the journal and match again; check the disk.",
    )


def not_a_journal(path: Path, *, of_ours: bool) -> MatchRTError:
    """The error (journal-format) for a file that is no journal, or one of another layout. It is not raised here."""
    return MatchRTError(
        "journal-format",
        f"'{path}' is {'a journal of another version' if of_ours else 'not a journal'} of matchrt.",
        f"Name another --journal{', or remove this one' if of_ours else ''}; this file was not changed.",
    )
