"""A digest of what an output holds, so that two runs can be compared: equal digests, equal content.

Files of one content may differ in their bytes (free pages, order of groups, a library's version). The digest is sha256
over the canonical form that the file's format gives instead: `OutputFormat.content`.
"""

from __future__ import annotations

import hashlib

from matchrt.batch.output import Output


def content_digest(output: Output) -> str:
    """Hex sha256 of the content of an output's files, one after the other. Error: output-format."""
    digest = hashlib.sha256()
    for path in output.files:
        for part in output.format.content(path):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()
