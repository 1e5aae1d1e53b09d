"""The errors of a journal, and of other SQLite files of ours; `journal` lists their codes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matchrt.errors import MatchRTError


@dataclass(frozen=True)
class Named:
    """What messages say of a file.

    what: it is, such as `journal`.
    option: names another one.
    again: what is done again if it is removed.
    """

    what: str
    option: str
    again: str


JOURNAL = Named("journal", "--journal", "match")


@contextmanager
def sqlite_errors(path: Path, named: Named = JOURNAL) -> Iterator[None]:
    """Turns SQLite's errors into ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "locked" in text:
            raise MatchRTError(
                "journal-busy",
                f"Another process uses '{path}'.",
                f"Wait for it to end, or name another {named.option}.",
            ) from error
        if "not a database" in text:
            raise not_ours(path, named, another_version=False) from error
        if "malformed" in text or "corrupt" in text:
            raise damaged(path, text, named) from error
        raise MatchRTError(
            "journal-failed",
            f"'{path}' cannot be used: {text}.",
            "Check the rights to the file and the free space of the disk, and run the command again.",
        ) from error


def damaged(path: Path, what: str, named: Named = JOURNAL) -> MatchRTError:
    """The error (journal-damaged) for a file in which something is wrong. It is not raised here."""
    return MatchRTError(
        "journal-damaged",
        f"'{path}' is damaged: {what}.",
        f"Run the command again. If it says the same, remove the {named.what} and {named.again} again; check the disk.",
    )


def not_ours(path: Path, named: Named, *, another_version: bool) -> MatchRTError:
    """The error (journal-format) for a file of another kind, or one of another layout. It is not raised here."""
    return MatchRTError(
        "journal-format",
        f"'{path}' is {f'a {named.what} of another version' if another_version else f'not a {named.what}'} of matchrt.",
        f"Name another {named.option}{', or remove this one' if another_version else ''}; this file was not changed.",
    )
