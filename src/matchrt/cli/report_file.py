"""The reports that `--output` writes, in Markdown or JSON. The suffix decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matchrt._util import atomic
from matchrt.errors import MatchRTError


def check_report(path: Path | None) -> None:
    """Checks before any work that a report can be written. Errors: output-format, output-unwritable."""
    if path is None:
        return
    if path.suffix.lower() not in (".md", ".json"):
        raise MatchRTError("output-format", f"--output '{path}' has no known suffix.", "Use .md or .json.")
    atomic.require_writable(path)


def write_report(path: Path, markdown: str, document: Any) -> None:
    """Writes a report: `document` as JSON into a .json file, else the `markdown` text. Error: output-unwritable."""
    as_json = path.suffix.lower() == ".json"
    text = json.dumps(document, indent=2, allow_nan=False) if as_json else markdown
    atomic.write_text(path, text.rstrip() + "\n")
