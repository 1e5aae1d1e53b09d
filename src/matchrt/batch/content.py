"""A digest of an output's content. Two runs with equal digests have equal content.

Files with the same content may differ in their bytes (free pages, order of groups, a library's version). So the digest
is the sha256 of the canonical form that the file's format gives: `OutputFormat.content`.
"""

from __future__ import annotations

import hashlib

from matchrt.batch.output import Output


def content_digest(output: Output) -> str:
    """The hex sha256 of the content of all files of an output. Error: output-format."""
    digest = hashlib.sha256()
    for path in output.files:
        for part in output.format.content(path):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()
