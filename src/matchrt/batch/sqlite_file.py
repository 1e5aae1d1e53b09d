"""Opens an SQLite file of ours for one process: with our mark, a write-ahead log, and a lock until it is closed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matchrt._util.atomic import require_writable
from matchrt.batch.journal_errors import JOURNAL, Named, not_ours, sqlite_errors


@dataclass(frozen=True)
class FileKind:
    """What a file of ours holds.

    application: marks the file as ours (SQLite's application_id).
    layout: version of its tables (SQLite's user_version).
    tables: the statements that make them.
    named: what messages call it.
    """

    application: int
    layout: int
    tables: Sequence[str]
    named: Named = JOURNAL


def open_sqlite(path: Path, kind: FileKind) -> sqlite3.Connection:
    """Opens the file, or makes an empty one. In autocommit mode, every transaction is explicit.

    Only one thread may use it. Errors: journal-busy, journal-format, journal-damaged, journal-failed,
    output-unwritable.
    """
    require_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite_errors(path, kind.named):
        base = sqlite3.connect(path, isolation_level=None, timeout=0.0)
    try:
        with sqlite_errors(path, kind.named):
            _prepare(base, path, kind)
    except BaseException:
        base.close()
        raise
    return base


def _prepare(base: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    run = base.execute
    base.text_factory = lambda data: data.decode("utf-8", "surrogateescape")  # damage is found by seals
    run("PRAGMA locking_mode=EXCLUSIVE")  # the lock is held until the process ends, in whatever way
    empty = not run("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application, layout = (run(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if not empty and (application, layout) != (kind.application, kind.layout):
        raise not_ours(path, kind.named, another_version=application == kind.application)
    run("PRAGMA page_size=16384")
    # A commit survives the end of the process at once, and a crash of the machine after the log's next checkpoint.
    run("PRAGMA journal_mode=WAL")
    run("PRAGMA synchronous=NORMAL")
    run("BEGIN IMMEDIATE")
    if empty:
        for statement in kind.tables:
            run(statement)
        run(f"PRAGMA application_id={kind.application}")
        run(f"PRAGMA user_version={kind.layout}")
    run("COMMIT")
