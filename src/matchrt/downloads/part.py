"""What has come of a file so far. It outlives the process, so that the next one goes on where this one ended."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from matchrt._util import atomic
from matchrt._util.from_json import parse_json
from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json

_MOST_ORIGIN = 1 << 20


@dataclass(frozen=True)
class Origin:
    """Where the bytes of a part come from.

    identity: which file they are of: its expected digest, or its name and size.
    address: the URL that was asked, without a password.
    validator: the server's strong ETag or the date of the last change, which tell whether it has another file now; None
        if it gave neither.
    total: bytes of the whole file; None if the server did not say.
    """

    identity: str
    address: str
    validator: str | None = None
    total: int | None = None


@dataclass(frozen=True)
class Part:
    """The file `NAME.part`, and beside it `NAME.part.json`, which says what the part is of.

    path: of the part.
    """

    path: Path

    @property
    def size(self) -> int:
        """Bytes that are there."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def origin(self) -> Origin | None:
        """Where the bytes come from; None if nothing says so, and they must not be gone on with."""
        try:
            found: Origin = parse_json(Origin, read_json(read_regular(self._origin_path, _MOST_ORIGIN)), "origin")
        except (OSError, ValueError):
            return None
        return found

    def begin(self, origin: Origin) -> None:
        """Empties the part for bytes of this origin. Error: output-unwritable. Raises OSError as `open` does."""
        self.discard()
        atomic.write_text(self._origin_path, json.dumps(asdict(origin)))
        self.path.touch()

    def update(self, origin: Origin) -> None:
        """Notes that the next bytes come from here. Error: output-unwritable."""
        atomic.write_text(self._origin_path, json.dumps(asdict(origin)))

    def discard(self) -> None:
        """Removes the part. Raises OSError if it cannot be."""
        self.path.unlink(missing_ok=True)
        self._origin_path.unlink(missing_ok=True)

    @property
    def _origin_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")
