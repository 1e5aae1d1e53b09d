"""The folder of downloaded weights: files, a record beside each, and the licences that were accepted."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path

from matchrt._util import atomic
from matchrt._util.atomic import why_unwritable
from matchrt._util.digest import sha256_file, sha256_json
from matchrt._util.from_json import parse_json
from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json
from matchrt.errors import MatchRTError
from matchrt.families.published import Licence, PublishedFile
from matchrt.store import open_store

_MOST_RECORD = 1 << 20


@dataclass(frozen=True)
class Record:
    """What is written down about a file once it is there and whole.

    bytes: size.
    sha256: hex digest.
    address: where it came from; an empty string if somebody put it there.
    licence: the licence as it was shown, with its date.
    time: when it was recorded, ISO 8601 in UTC.
    """

    bytes: int
    sha256: str
    address: str
    licence: str
    time: str


@dataclass(frozen=True)
class WeightsFolder:
    """A folder of published files, each under its `PublishedFile.name`.

    root: the folder, which need not exist yet. `NAME.json` is the record of `NAME`; `NAME.part` is what has come of a
        file so far; `accepted/` holds one small file for each licence that was accepted.
    """

    root: Path

    def path(self, file: PublishedFile) -> Path:
        """Where the file is, or would be."""
        return self.root / file.name

    def record_path(self, file: PublishedFile) -> Path:
        """Where the file's record is, or would be."""
        return self.root / f"{file.name}.json"

    def record(self, file: PublishedFile) -> Record | None:
        """The file's record; None if there is none that can be read."""
        try:
            found = read_json(read_regular(self.record_path(file), _MOST_RECORD))
            kept = {field.name: found[field.name] for field in fields(Record)}
            record: Record = parse_json(Record, kept, "record")
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return replace(record, sha256=record.sha256.lower())

    def expected_sha256(self, file: PublishedFile) -> str | None:
        """The digest that the file must have: the published one, or else the one that was recorded first."""
        record = self.record(file)
        return file.sha256 or (None if record is None else record.sha256)

    def holds(self, file: PublishedFile) -> bool:
        """Whether the file is there, recorded, and of the recorded size. It is not read."""
        record = self.record(file)
        try:
            return record is not None and self.path(file).stat().st_size == record.bytes
        except OSError:
            return False

    def verified(self, file: PublishedFile) -> Path | None:
        """The file's path, if it is there and its bytes have the expected digest; else None.

        A file without a record and without a published digest is not verified: nothing says what it is.
        """
        path, expected = self.path(file), self.expected_sha256(file)
        try:
            whole = expected is not None and path.is_file() and sha256_file(path) == expected
        except OSError:
            return None
        return path if whole else None

    def write_record(self, file: PublishedFile, size: int, sha256: str, address: str) -> None:
        """Records a file that was checked. Error: output-unwritable."""
        record = Record(size, sha256, address, str(file.licence), _now())
        atomic.write_text(self.record_path(file), json.dumps(asdict(record), indent=2) + "\n")

    def accepted(self, file: PublishedFile) -> bool:
        """Whether this licence of this file, of this date, was accepted."""
        return self._acceptance(file).is_file()

    def accept(self, file: PublishedFile) -> None:
        """Remembers that the licence was accepted. If that cannot be written, it is asked for again next time."""
        licence = file.licence
        text = json.dumps({"file": file.name, **asdict(licence), "accepted": _now()}, indent=2)
        with contextlib.suppress(MatchRTError):
            atomic.write_text(self._acceptance(file), text + "\n")

    def _acceptance(self, file: PublishedFile) -> Path:
        return self.root / "accepted" / f"{file.name}-{_licence_key(file.licence)}.json"


def default_folder() -> WeightsFolder:
    """The folder in the default store. Raises nothing."""
    return WeightsFolder(open_store().weights)


def require_folder(folder: WeightsFolder) -> None:
    """Makes the folder. Error: output-unwritable, if it cannot be made or written to."""
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        reason = why_unwritable(folder.root)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason is not None:
        raise MatchRTError(
            "output-unwritable",
            f"Cannot write to the folder of weights '{folder.root}': {reason}.",
            "Set MATCHRT_STORE, --store or --output to a folder that you may write to.",
        )


def _licence_key(licence: Licence) -> str:
    return f"{licence.date}-{sha256_json([licence.name, licence.note])[:8]}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
