"""The tables of a journal, and the queries over them that several methods share."""

from __future__ import annotations

from matchrt.batch.sqlite_file import FileKind

LAYOUT = 3
# Marks the file as ours (SQLite's application_id): "mrtj".
APPLICATION = 0x6D72746A

# files: what was known of the images of matched pairs. facts, files and failures hold JSON.
_TABLES = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL, seal BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE images (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
CREATE TABLE files (image INTEGER PRIMARY KEY, facts TEXT NOT NULL, seal BLOB NOT NULL);
CREATE TABLE pairs (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, second INTEGER NOT NULL);
CREATE UNIQUE INDEX pair_of_images ON pairs (min(first, second), max(first, second));
CREATE TABLE matches (pair INTEGER PRIMARY KEY, data BLOB NOT NULL, seal BLOB NOT NULL);
CREATE TABLE failures (pair INTEGER PRIMARY KEY, error TEXT NOT NULL, seal BLOB NOT NULL);
"""
KIND = FileKind(APPLICATION, LAYOUT, _TABLES.strip().split(";\n"))
NAMED = """SELECT pairs.id, one.name, two.name FROM pairs
JOIN images AS one ON one.id = pairs.first JOIN images AS two ON two.id = pairs.second"""
REFUSED = "(pairs.first IN (SELECT image FROM refused) OR pairs.second IN (SELECT image FROM refused))"
WAITING = f"""NOT EXISTS (SELECT 1 FROM matches WHERE matches.pair = pairs.id)
AND NOT EXISTS (SELECT 1 FROM failures WHERE failures.pair = pairs.id) AND NOT {REFUSED}"""
# A pair of a refused image has failed, whatever result it has.
FAILED = """SELECT pairs.id, one.name, two.name, coalesce(no1.error, no2.error, failures.error), failures.seal,
no1.error IS NULL AND no2.error IS NULL FROM pairs
JOIN images AS one ON one.id = pairs.first JOIN images AS two ON two.id = pairs.second
LEFT JOIN failures ON failures.pair = pairs.id
LEFT JOIN refused AS no1 ON no1.image = pairs.first LEFT JOIN refused AS no2 ON no2.image = pairs.second
WHERE coalesce(no1.error, no2.error, failures.error) IS NOT NULL ORDER BY pairs.id"""

# Tables of results: name, key, the column under the seal, and its type.
SEALED = (
    ("files", "image", "facts", "str"),
    ("matches", "pair", "data", "bytes"),
    ("failures", "pair", "error", "str"),
)
