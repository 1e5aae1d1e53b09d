"""The journal of a run: the pairs and their results, in one SQLite file.

With SQLite's write-ahead log, a commit is whole or absent, whenever the process is killed. HDF5 does not promise that,
and Parquet files can be read only after they are closed. So results are written here first. At the end, the output is
written from here in one atomic step. docs/many-pairs.md says more.

The order of a pair's images does not matter: a second listing of a pair is dropped, also with its images swapped.
Names are bytes here, because names of files need not be UTF-8. Every result has a checksum (`seals`).

Errors:

| code            | meaning                                                                              |
| --------------- | ------------------------------------------------------------------------------------ |
| journal-format  | the file is no journal, or a journal of another layout                               |
| journal-plan    | the journal is for another list, engine, options or version; the message says which  |
| journal-busy    | another process uses the journal                                                     |
| journal-damaged | the list in the journal is damaged, or a result that was good when the run began     |
| journal-failed  | the journal cannot be read or written: missing rights, a full or failing disk        |
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

from matchrt.batch.journal_errors import damaged, sqlite_errors
from matchrt.batch.journal_layout import FAILED, KIND, NAMED, REFUSED, SEALED, WAITING
from matchrt.batch.journal_rows import Counts, Failure, ImageRow
from matchrt.batch.listing import NamePair
from matchrt.batch.results import Found, ImageFacts, Judged, ListedPair, Result, pack, unpack, unpack_judged
from matchrt.batch.seals import list_seal, seal
from matchrt.batch.sqlite_file import open_sqlite
from matchrt.errors import MatchRTError
from matchrt.runtime.verdict import WORDS, Word

_CHUNK = 1024

Plan = Mapping[str, Any]


class Journal:
    """An open journal. Only one process may open it at a time, and only one thread may use it.

    All methods raise `journal-busy`, `journal-damaged` or `journal-failed` if SQLite fails.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, or creates an empty journal. Errors: those of the module's table, output-unwritable."""
        self.path = path
        self._base = open_sqlite(path, KIND)
        with sqlite_errors(path):
            self._base.execute("CREATE TEMP TABLE refused (image INTEGER PRIMARY KEY, error TEXT NOT NULL)")

    # ------------------------------------------------------------------------------------------- the plan

    def begin(self, plan: Plan, pairs: Iterable[NamePair]) -> None:
        """Starts a run: a new journal stores the plan and the pairs, and an old journal must have the same plan.

        plan: JSON values that decide the results. Errors: journal-plan, journal-damaged, pairs-empty.
        """
        with sqlite_errors(self.path):
            stored = self._fact("plan")
            if stored is None:
                if self._base.execute("SELECT 1 FROM pairs").fetchone() is not None:
                    raise damaged(self.path, "its plan is lost")
                self._store(plan, pairs)
                return
            differing = [key for key in {**stored, **plan} if stored.get(key) != plan.get(key)]
            if not differing:
                if self._fact("list") != list_seal(self._base):
                    raise damaged(self.path, "its list of pairs has changed")
                return
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
                data = _to_bytes(name)
                run("INSERT OR IGNORE INTO images (name) VALUES (?)", (data,))
                return int(run("SELECT id FROM images WHERE name = ?", (data,)).fetchone()[0])

            for first, second in pairs:
                listed += 1
                run("INSERT OR IGNORE INTO pairs (first, second) VALUES (?, ?)", (image(first), image(second)))
            if not listed:
                raise MatchRTError("pairs-empty", "The list has no pair of images.", "Name at least two images.")
            self._set_fact("listed", listed)
            self._set_fact("list", list_seal(self._base))
            self._set_fact("plan", dict(plan))

    def plan(self) -> Any:
        """The plan that `begin` stored; None before."""
        with sqlite_errors(self.path):
            return self._fact("plan")

    def _fact(self, key: str) -> Any:
        """A fact; None if it is not there, or damaged."""
        row = self._base.execute("SELECT value, seal FROM facts WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row is not None and row[1] == seal(key, row[0]) else None

    def _set_fact(self, key: str, value: Any) -> None:
        text = json.dumps(value)
        self._base.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (key, text, seal(key, text)))

    @property
    def revision(self) -> int:
        """A number that grows with every commit that changes results."""
        with sqlite_errors(self.path):
            return int(self._fact("revision") or 0)

    def _next_revision(self) -> None:
        self._set_fact("revision", int(self._fact("revision") or 0) + 1)

    def written(self, output: str) -> Any:
        """What `mark_written` noted last for this output; None if it noted nothing."""
        with sqlite_errors(self.path):
            return self._fact(f"written:{output}")

    def mark_written(self, output: str, what: Any) -> None:
        """Notes that an output was written, and `what` its content depends on, as JSON values."""
        with self._transaction():
            self._set_fact(f"written:{output}", what)

    # ---------------------------------------------------------------------------------------- the results

    def commit(self, results: Sequence[Result]) -> None:
        """Stores all results or none of them. A new result replaces an earlier one of the same pair.

        If a result's image has another content than in earlier results, then the earlier pairs of that image are
        without a result again, so that keypoints of two pictures are not mixed.
        """
        if not results:
            return
        with self._transaction():
            for result in results:
                self._put(result)
            self._next_revision()

    def _put(self, result: Result) -> None:
        run, number, outcome = self._base.execute, result.pair.number, result.outcome
        if isinstance(outcome, Found):
            images = run("SELECT first, second FROM pairs WHERE id = ?", (number,)).fetchone()
            for image, facts in zip(images, (outcome.image0, outcome.image1), strict=True):
                self._put_facts(image, facts)
        for table in ("matches", "failures"):
            run(f"DELETE FROM {table} WHERE pair = ?", (number,))
        if isinstance(outcome, Found):
            data = pack(outcome)
            run("INSERT INTO matches VALUES (?, ?, ?)", (number, data, seal(number, data)))
            return
        text = _error_text(outcome)
        run("INSERT INTO failures VALUES (?, ?, ?)", (number, text, seal(number, text)))

    def _put_facts(self, image: int, facts: ImageFacts) -> None:
        known = self._facts_of(image)
        if known == facts:
            return
        if known is not None and known.content != facts.content:
            self._forget([image])
        text = json.dumps(astuple(facts))
        self._base.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (image, text, seal(image, text)))

    def _facts_of(self, image: int) -> ImageFacts | None:
        row = self._base.execute("SELECT image, facts, seal FROM files WHERE image = ?", (image,)).fetchone()
        return None if row is None else self._facts(*row)

    def _facts(self, image: int, text: str, check: bytes) -> ImageFacts:
        if check != seal(image, text):
            raise damaged(self.path, "a row of its images has changed")
        return ImageFacts(*json.loads(text))

    def _forget(self, images: Collection[int]) -> int:
        """Drops the results of all pairs of these images, and returns how many they were."""
        run = self._base.execute
        run("CREATE TEMP TABLE IF NOT EXISTS forgotten (image INTEGER PRIMARY KEY)")
        run("DELETE FROM forgotten")
        self._base.executemany("INSERT INTO forgotten VALUES (?)", ((image,) for image in images))
        theirs = """(SELECT id FROM pairs WHERE first IN (SELECT image FROM forgotten)
        OR second IN (SELECT image FROM forgotten))"""
        run("DELETE FROM files WHERE image IN (SELECT image FROM forgotten)")
        return sum(
            int(run(f"DELETE FROM {table} WHERE pair IN {theirs}").rowcount) for table in ("matches", "failures")
        )

    def forget_failures(self) -> int:
        """Forgets the errors of failed pairs, so that they are tried again. Returns the number of these pairs."""
        with self._transaction():
            count = int(self._base.execute("DELETE FROM failures").rowcount)
            if count:
                self._next_revision()
        return count

    def forget_images(self, images: Collection[int]) -> int:
        """Forgets the results of all pairs of these images, so that they are matched again. Returns their number."""
        if not images:
            return 0
        with self._transaction():
            count = self._forget(images)
            self._next_revision()
        return count

    def restamp(self, facts: Mapping[int, ImageFacts]) -> None:
        """Notes newer stamps of images, by their numbers, whose content is the same."""
        if facts:
            with self._transaction():
                for image, known in facts.items():
                    self._put_facts(image, known)

    def mend(self) -> int:
        """Drops rows whose checksum is wrong, so that their pairs are matched again. Returns the number of these rows.

        It reads all results once. Error: journal-damaged if the rows are not in their order, so that not all are found.
        """
        with sqlite_errors(self.path):
            run = self._base.execute
            bad = {row[0]: self._bad_rows(*row) for row in SEALED}
            bad["matches"] += [
                row[0]
                for row in run("""SELECT matches.pair FROM matches LEFT JOIN pairs ON pairs.id = matches.pair
                WHERE first IS NULL OR first NOT IN (SELECT image FROM files)
                OR second NOT IN (SELECT image FROM files)""")
            ]
        count = sum(map(len, bad.values()))
        if count:
            with self._transaction():
                self._forget(bad["files"])
                for table in ("matches", "failures"):
                    self._base.executemany(f"DELETE FROM {table} WHERE pair = ?", ((key,) for key in bad[table]))
                self._next_revision()
        return count

    def _bad_rows(self, table: str, key_name: str, column: str, kind: str) -> list[int]:
        """The keys of a table's rows whose checksum is wrong."""
        bad, last = [], -1
        for key, value, check in self._base.execute(f"SELECT {key_name}, {column}, seal FROM {table} NOT INDEXED"):
            if key <= last:
                raise damaged(self.path, "its pages are mixed up")
            last = key
            if type(value).__name__ != kind or check != seal(key, value):
                bad.append(key)
        return bad

    # ------------------------------------------------------------------------------------------ refusals

    def refuse(self, errors: Mapping[int, MatchRTError]) -> None:
        """Treats all pairs of these images as failed, by their numbers, until the journal is closed.

        The results that they have stay, for outputs that do not refuse them.
        """
        with sqlite_errors(self.path):
            rows = [(image, _error_text(error)) for image, error in errors.items()]
            self._base.executemany("INSERT OR REPLACE INTO refused VALUES (?, ?)", rows)

    def refused(self) -> dict[int, MatchRTError]:
        """The images that are refused now, by their numbers, and why."""
        return {int(image): MatchRTError(*json.loads(text)) for image, text in self._rows("SELECT * FROM refused")}

    def refused_pairs(self) -> int:
        """Number of pairs with a refused image."""
        return int(self._rows(f"SELECT count(*) FROM pairs WHERE {REFUSED}")[0][0])

    # ------------------------------------------------------------------------------------------- reading

    def counts(self) -> Counts:
        """The numbers of pairs by their state."""

        def count(query: str) -> int:
            return int(self._base.execute(f"SELECT count(*) FROM {query}").fetchone()[0])  # indexes may be damaged

        with sqlite_errors(self.path):
            pairs, matched, failed, images = (
                count(f"{name} NOT INDEXED") for name in ("pairs", "matches", "failures", "images")
            )
            if count("refused"):
                matched -= count(f"pairs JOIN matches ON matches.pair = pairs.id WHERE {REFUSED}")
                failed -= count(f"pairs JOIN failures ON failures.pair = pairs.id WHERE {REFUSED}")
                failed += count(f"pairs WHERE {REFUSED}")
            return Counts(int(self._fact("listed") or pairs), pairs, matched, failed, images)

    def waiting(self) -> Iterator[ListedPair]:
        """The pairs without a result, in the list's order. Results may be committed during the iteration."""
        last = 0
        while rows := self._rows(f"{NAMED} WHERE pairs.id > ? AND {WAITING} ORDER BY pairs.id LIMIT {_CHUNK}", last):
            yield from (_listed(*row) for row in rows)
            last = rows[-1][0]

    def matches(self) -> Iterator[tuple[ListedPair, bytes]]:
        """The matched pairs in the list's order, with their matches as `results.pack` packed them.

        Error: journal-damaged.
        """
        query = NAMED.replace("two.name FROM", "two.name, matches.data, matches.seal FROM", 1)
        query += f" JOIN matches ON matches.pair = pairs.id WHERE NOT {REFUSED} ORDER BY pairs.id"
        missing = self.counts().matched
        with sqlite_errors(self.path):
            for number, first, second, data, check in self._base.execute(query):
                self._require(number, data, check)
                missing -= 1
                yield _listed(number, first, second), data
        if missing:
            raise damaged(self.path, f"{missing} results are not found")

    def judged(self) -> Iterator[tuple[int, int, int, Judged | None]]:
        """The matched pairs, by number: (pair, image 0, image 1, verdict), images by their numbers.

        The verdict is None for a pair that nobody judged.
        """
        # The numbers of a verdict stand at the end of a pair's matches, which are a multiple of 20 bytes without it.
        query = f"""SELECT pairs.id, first, second, CASE length(data) % 20 WHEN 16 THEN substr(data, -16) END FROM pairs
        JOIN matches ON matches.pair = pairs.id WHERE NOT {REFUSED} ORDER BY pairs.id"""
        with sqlite_errors(self.path):
            for pair, first, second, end in self._base.execute(query):
                yield pair, first, second, None if end is None else unpack_judged(end)

    def verdicts(self) -> dict[Word, int]:
        """How many matched pairs have which verdict; a pair that nobody judged has none."""
        found = Counter(judged.verdict for *_, judged in self.judged() if judged is not None)
        return {word: found[word] for word in WORDS}

    def failed_by(self) -> dict[str, int]:
        """How many pairs have failed with which error's code, the most frequent one first. Error: journal-damaged."""
        return dict(Counter(failure.code for failure in self.failures()).most_common())

    def found_of(self, pair: int) -> Found:
        """The matches of a matched pair, by its number. Error: journal-damaged."""
        query = "SELECT first, second, data, seal FROM pairs JOIN matches ON matches.pair = id WHERE id = ?"
        with sqlite_errors(self.path):
            row = self._base.execute(query, (pair,)).fetchone()
            facts = [] if row is None else [self._facts_of(image) for image in row[:2]]
        if row is None or facts[0] is None or facts[1] is None:
            raise damaged(self.path, f"pair {pair} is not found")
        self._require(pair, row[2], row[3])
        return Found(*unpack(row[2]), facts[0], facts[1], unpack_judged(row[2]))

    def _require(self, number: int, data: Any, check: bytes) -> None:
        if not isinstance(data, bytes) or check != seal(number, data):
            raise damaged(self.path, f"the matches of pair {number} have changed")

    def failures(self) -> Iterator[Failure]:
        """The failed pairs in the list's order. Error: journal-damaged."""
        with sqlite_errors(self.path):
            for number, first, second, text, check, own in self._base.execute(FAILED):
                if own and check != seal(number, text):
                    raise damaged(self.path, f"the error of pair {number} has changed")
                yield Failure(_listed(number, first, second), *json.loads(text))

    def images(self) -> Iterator[ImageRow]:
        """All images that are not refused, sorted by the bytes of their names. Error: journal-damaged."""
        last, query = b"", "SELECT id, name, facts, seal FROM images LEFT JOIN files ON files.image = images.id"
        query += f" WHERE name > ? AND id NOT IN (SELECT image FROM refused) ORDER BY name LIMIT {_CHUNK}"
        while rows := self._rows(query, last):
            for number, name, text, check in rows:
                yield ImageRow(number, _to_name(name), None if text is None else self._facts(number, text, check))
            last = rows[-1][1]

    def facts_of(self, name: str) -> ImageFacts:
        """What is known of an image of a matched pair. Error: journal-damaged."""
        with sqlite_errors(self.path):
            row = self._base.execute("SELECT id FROM images WHERE name = ?", (_to_bytes(name),)).fetchone()
            facts = None if row is None else self._facts_of(row[0])
        if facts is None:
            raise damaged(self.path, f"nothing is known of '{name}'")
        return facts

    def matches_of(self, image: int) -> Iterator[tuple[int, int, bytes]]:
        """The matched pairs of an image: (pair's number, 0 or 1 for the image's side, packed matches), by number.

        Error: journal-damaged.
        """
        query = f"""SELECT pairs.id, pairs.second = ?1, data, seal FROM pairs JOIN matches ON matches.pair = pairs.id
        WHERE pairs.id IN (SELECT id FROM pairs WHERE first = ?1 UNION ALL SELECT id FROM pairs WHERE second = ?1)
        AND NOT {REFUSED} ORDER BY pairs.id"""
        with sqlite_errors(self.path):
            for number, side, data, check in self._base.execute(query, (image,)):
                self._require(number, data, check)
                yield number, side, data

    def index_by_image(self) -> None:
        """Makes the index that makes `matches_of` fast. It is called once, before outputs are written.

        Indexes have no checksums, so all of them are made anew.
        """
        with self._transaction():
            for side in ("first", "second"):
                self._base.execute(f"CREATE INDEX IF NOT EXISTS pairs_by_{side} ON pairs ({side})")
            self._base.execute("REINDEX")

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with sqlite_errors(self.path):
            return self._base.execute(query, values).fetchall()

    # ------------------------------------------------------------------------------------------- closing

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with sqlite_errors(self.path):
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
        with sqlite_errors(self.path):
            self._base.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _to_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _to_name(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _listed(number: int, first: bytes, second: bytes) -> ListedPair:
    return ListedPair(number, _to_name(first), _to_name(second))


def _error_text(error: MatchRTError) -> str:
    return json.dumps([error.code, error.message, error.remedy])
