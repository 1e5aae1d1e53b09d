"""The journal of a run: the pairs and their results, in one SQLite file.

With SQLite's write-ahead log, a commit is whole or absent, whenever the process is killed. HDF5 does not promise that,
and Parquet files can be read only after they are closed. So results are written here first. At the end, the output is
written from here in one atomic step. docs/many-pairs.md says more.

The order of a pair's images does not matter: a second listing of a pair is dropped, also with its images swapped.

Errors:

| code            | meaning                                                                              |
| --------------- | ------------------------------------------------------------------------------------ |
| journal-format  | the file is no journal, or a journal of another layout                               |
| journal-plan    | the journal is for another list, engine, options or version; the message says which  |
| journal-busy    | another process uses the journal                                                     |
| journal-failed  | the journal cannot be read or written: missing rights, a full or failing disk        |
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from matchrt._util.atomic import require_writable
from matchrt.batch.listing import NamePair
from matchrt.batch.results import Found, ListedPair, Result, pack
from matchrt.errors import MatchRTError

LAYOUT = 1
# Marks the file as ours (SQLite's application_id): "mrtj".
_APPLICATION = 0x6D72746A
_CHUNK = 1024

_TABLES = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, height INTEGER, width INTEGER);
CREATE TABLE pairs (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, second INTEGER NOT NULL);
CREATE UNIQUE INDEX pair_of_images ON pairs (min(first, second), max(first, second));
CREATE TABLE matches (pair INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE failures (pair INTEGER PRIMARY KEY, code TEXT NOT NULL, message TEXT NOT NULL, remedy TEXT NOT NULL);
"""
_NAMED = """SELECT pairs.id, one.name, two.name FROM pairs
JOIN images AS one ON one.id = pairs.first JOIN images AS two ON two.id = pairs.second"""
_WAITING = """NOT EXISTS (SELECT 1 FROM matches WHERE matches.pair = pairs.id)
AND NOT EXISTS (SELECT 1 FROM failures WHERE failures.pair = pairs.id)"""

Plan = Mapping[str, Any]


class Counts(NamedTuple):
    """Numbers of pairs by their state.

    listed: lines of the list, duplicates included.
    pairs: different pairs.
    matched: pairs with matches.
    failed: pairs with an error.
    images: different images.
    """

    listed: int
    pairs: int
    matched: int
    failed: int
    images: int

    @property
    def waiting(self) -> int:
        """Number of pairs without a result."""
        return self.pairs - self.matched - self.failed


class Failure(NamedTuple):
    """A pair that could not be matched.

    pair: the pair's number and image names.
    code: the error's code.
    message: what went wrong.
    remedy: what to do about it.
    """

    pair: ListedPair
    code: str
    message: str
    remedy: str


class ImageRow(NamedTuple):
    """An image of the list.

    id: the image's number in the journal.
    name: the image's path below the root.
    height, width: of the image in pixels; None if none of its pairs was matched.
    """

    id: int
    name: str
    height: int | None
    width: int | None


class Journal:
    """An open journal. Only one process may open it at a time, and only one thread may use it.

    All methods raise `journal-busy` or `journal-failed` if SQLite fails.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, or creates an empty journal. Errors: those of the module's table, output-unwritable."""
        self.path = path
        require_writable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _as_errors(path):
            # In autocommit mode, every transaction is explicit.
            self._base = sqlite3.connect(path, isolation_level=None, timeout=0.0)
        try:
            with _as_errors(path):
                self._prepare()
        except BaseException:
            self._base.close()
            raise

    def _prepare(self) -> None:
        run = self._base.execute
        run("PRAGMA locking_mode=EXCLUSIVE")  # the lock is held until the process ends, in whatever way
        empty = not run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        marks = tuple(run(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if not empty and marks != (_APPLICATION, LAYOUT):
            raise _not_a_journal(self.path)
        run("PRAGMA page_size=16384")
        # A commit survives the end of the process at once, and a crash of the machine after the log's next checkpoint.
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        run("BEGIN IMMEDIATE")
        if empty:
            for statement in _TABLES.split(";\n"):
                run(statement)
            run(f"PRAGMA application_id={_APPLICATION}")
            run(f"PRAGMA user_version={LAYOUT}")
        run("COMMIT")

    # ------------------------------------------------------------------------------------------- the plan

    def begin(self, plan: Plan, pairs: Iterable[NamePair]) -> None:
        """Starts a run: a new journal stores the plan and the pairs, and an old journal must have the same plan.

        plan: JSON values that decide the results. Errors: journal-plan, pairs-empty.
        """
        with _as_errors(self.path):
            stored = self._fact("plan")
            if stored is None:
                self._store(plan, pairs)
                return
        differing = [key for key in {**stored, **plan} if stored.get(key) != plan.get(key)]
        if differing:
            what = ", ".join(f"{key} ({stored.get(key)} there, {plan.get(key)} here)" for key in sorted(differing))
            raise MatchRTError(
                "journal-plan",
                f"'{self.path}' belongs to another run; different: {what}.",
                "Use the same options as that run, or name another --output or --journal, or remove the journal.",
            )

    def _store(self, plan: Plan, pairs: Iterable[NamePair]) -> None:
        run, listed = self._base.execute, 0
        with self._transaction():

            @lru_cache(1 << 16)
            def image(name: str) -> int:
                run("INSERT OR IGNORE INTO images (name) VALUES (?)", (name,))
                return int(run("SELECT id FROM images WHERE name = ?", (name,)).fetchone()[0])

            for first, second in pairs:
                listed += 1
                run("INSERT OR IGNORE INTO pairs (first, second) VALUES (?, ?)", (image(first), image(second)))
            if not listed:
                raise MatchRTError("pairs-empty", "The list has no pair of images.", "Name at least two images.")
            self._set_fact("listed", listed)
            self._set_fact("plan", dict(plan))

    def _fact(self, key: str) -> Any:
        row = self._base.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _set_fact(self, key: str, value: Any) -> None:
        self._base.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, json.dumps(value)))

    @property
    def revision(self) -> int:
        """A number that grows with every commit that changes results."""
        with _as_errors(self.path):
            return int(self._fact("revision") or 0)

    def written(self, output: str) -> Any:
        """What `mark_written` noted last for this output; None if it noted nothing."""
        with _as_errors(self.path):
            return self._fact(f"written:{output}")

    def mark_written(self, output: str, what: Any) -> None:
        """Notes that an output was written, and `what` its content depends on, as JSON values."""
        with self._transaction():
            self._set_fact(f"written:{output}", what)

    # ---------------------------------------------------------------------------------------- the results

    def commit(self, results: Sequence[Result]) -> None:
        """Stores all results or none of them. A new result replaces an earlier one of the same pair."""
        if not results:
            return
        with self._transaction():
            for result in results:
                self._put(result)
            self._set_fact("revision", int(self._fact("revision") or 0) + 1)

    def _put(self, result: Result) -> None:
        run, (number, first, second), outcome = self._base.execute, result.pair, result.outcome
        for table in ("matches", "failures"):
            run(f"DELETE FROM {table} WHERE pair = ?", (number,))
        if not isinstance(outcome, Found):
            run("INSERT INTO failures VALUES (?, ?, ?, ?)", (number, outcome.code, outcome.message, outcome.remedy))
            return
        run("INSERT INTO matches VALUES (?, ?)", (number, pack(outcome)))
        for name, size in ((first, outcome.size0), (second, outcome.size1)):
            run("UPDATE images SET height = ?, width = ? WHERE name = ? AND height IS NULL", (*size, name))

    def forget_failures(self) -> int:
        """Forgets the errors of failed pairs, so that they are tried again. Returns the number of these pairs."""
        with self._transaction():
            count = int(self._base.execute("DELETE FROM failures").rowcount)
            if count:
                self._set_fact("revision", int(self._fact("revision") or 0) + 1)
        return count

    # ------------------------------------------------------------------------------------------- reading

    def counts(self) -> Counts:
        """The numbers of pairs by their state."""
        tables = ("pairs", "matches", "failures", "images")
        with _as_errors(self.path):
            numbers = [int(self._base.execute(f"SELECT count(*) FROM {t}").fetchone()[0]) for t in tables]
            return Counts(int(self._fact("listed") or 0), *numbers)

    def waiting(self) -> Iterator[ListedPair]:
        """The pairs without a result, in the list's order. Results may be committed during the iteration."""
        last = 0
        while rows := self._rows(f"{_NAMED} WHERE pairs.id > ? AND {_WAITING} ORDER BY pairs.id LIMIT {_CHUNK}", last):
            yield from (ListedPair(*row) for row in rows)
            last = rows[-1][0]

    def matches(self) -> Iterator[tuple[ListedPair, bytes]]:
        """The matched pairs in the list's order, with their matches as `results.pack` packed them."""
        query = _NAMED.replace("two.name FROM", "two.name, matches.data FROM", 1)
        query += " JOIN matches ON matches.pair = pairs.id ORDER BY pairs.id"
        with _as_errors(self.path):
            for number, first, second, data in self._base.execute(query):
                yield ListedPair(number, first, second), data

    def failures(self) -> Iterator[Failure]:
        """The failed pairs in the list's order."""
        query = _NAMED.replace("two.name FROM", "two.name, code, message, remedy FROM", 1)
        query += " JOIN failures ON failures.pair = pairs.id ORDER BY pairs.id"
        with _as_errors(self.path):
            for number, first, second, *error in self._base.execute(query):
                yield Failure(ListedPair(number, first, second), *error)

    def images(self) -> list[ImageRow]:
        """All images, sorted by name."""
        return [ImageRow(*row) for row in self._rows("SELECT id, name, height, width FROM images ORDER BY name")]

    def matches_of(self, image: int) -> Iterator[tuple[int, int, bytes]]:
        """The matched pairs of an image: (pair's number, 0 or 1 for the image's side, packed matches), by number."""
        query = """SELECT pairs.id, pairs.second = ?1, data FROM pairs JOIN matches ON matches.pair = pairs.id
        WHERE pairs.id IN (SELECT id FROM pairs WHERE first = ?1 UNION ALL SELECT id FROM pairs WHERE second = ?1)
        ORDER BY pairs.id"""
        with _as_errors(self.path):
            yield from self._base.execute(query, (image,))

    def index_by_image(self) -> None:
        """Makes the index that makes `matches_of` fast. It is called once, before outputs are written."""
        with self._transaction():
            for side in ("first", "second"):
                self._base.execute(f"CREATE INDEX IF NOT EXISTS pairs_by_{side} ON pairs ({side})")

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with _as_errors(self.path):
            return self._base.execute(query, values).fetchall()

    # ------------------------------------------------------------------------------------------- closing

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _as_errors(self.path):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._base.in_transaction:  # SQLite itself has rolled back if the disk failed
                    self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    def close(self) -> None:
        """Writes the log into the file and closes it."""
        with _as_errors(self.path):
            self._base.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _as_errors(path: Path) -> Iterator[None]:
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
            raise _not_a_journal(path) from error
        raise MatchRTError(
            "journal-failed",
            f"'{path}' cannot be used: {text}.",
            "Check the rights to the file and the free space of the disk, and run the command again.",
        ) from error


def _not_a_journal(path: Path) -> MatchRTError:
    return MatchRTError(
        "journal-format",
        f"'{path}' is not a journal of this version of matchrt.",
        "Name another --journal; this file was not changed.",
    )
