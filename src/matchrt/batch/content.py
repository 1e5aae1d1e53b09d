"""A digest of what an output holds, so that two runs can be compared: equal digests, equal content.

Files of one content may differ in their bytes (free pages, order of groups, a library's version). The digest is sha256
over the canonical form that the file's format gives instead: `OutputFormat.content`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from matchrt.batch.output import format_of


def content_digest(paths: Iterable[Path]) -> str:
    """Hex sha256 of files' content, by their suffixes, in the order given. Error: output-format."""
    digest = hashlib.sha256()
    for path in paths:
        for part in format_of(path).content(path):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()
