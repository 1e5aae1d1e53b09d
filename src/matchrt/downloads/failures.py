"""How an address can fail, and the error that names all failures of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matchrt.errors import MatchRTError
from matchrt.families.published import PublishedFile

Kind = Literal["failed", "page", "digest"]


class AddressError(Exception):
    """This address gives no such file, and trying again does not help.

    kind: `failed`, `page` (a web page came in place of the file) or `digest` (it has another file).
    reason: the end of a sentence that begins with the address, or with the file's path.
    """

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class CutError(Exception):
    """The transfer ended early, and another try may go on.

    reason: the end of a sentence about the address.
    wait: seconds that the server asks to wait; None if it asks nothing.
    restart: whether the bytes that are there must not be gone on with.
    idle: whether the try counts as one that brought nothing, though a few bytes came.
    """

    def __init__(self, reason: str, *, wait: float | None = None, restart: bool = False, idle: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.restart = restart
        self.idle = idle


def no_address_worked(
    file: PublishedFile, path: Path, failures: Sequence[tuple[str, AddressError]], again: str, if_changed: str
) -> MatchRTError:
    """The error about a file that no address gave. It is returned, not raised.

    path: where the file should be.
    failures: of each address. The worst of them names the error: another file, then a web page, then no answer.
    again: the command that looks at a file that was put there.
    if_changed: what to do if the publisher has another file now; empty if the digest is a published one.
    """
    kinds = {failure.kind for _, failure in failures}
    code = "download-digest" if "digest" in kinds else "download-page" if "page" in kinds else "download-failed"
    reasons = "; ".join(f"{url} {failure.reason}" for url, failure in failures)
    return MatchRTError(
        code,
        f"'{file.name}' could not be downloaded: {reasons}.",
        f"Try again later, or download it by hand from {file.page}, put it at '{path}', and run: {again}"
        + (if_changed and f" —{if_changed}"),
    )
