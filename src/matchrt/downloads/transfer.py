"""Brings the bytes of one address into a part file, over cut connections and servers that change their mind."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from matchrt.downloads.connection import Answer, ask, shown
from matchrt.downloads.failures import AddressError, CutError
from matchrt.downloads.part import Origin, Part
from matchrt.downloads.settings import Progress, Settings
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    import requests

_PIECE = 1 << 18
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Servers that call a web page a file.
_PAGE_STARTS = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Wanted:
    """What is to be transferred.

    identity: which file it is; a part of another identity is not gone on with.
    bytes: the size that it must have; None if it is not known.
    pinned: whether a digest is known, so that bytes that do not fit together are found at the end.
    room: bytes that must be free on the disk besides those that are transferred.
    """

    identity: str
    bytes: int | None
    pinned: bool
    room: int = 0


def transfer(
    session: requests.Session, url: str, part: Part, wanted: Wanted, settings: Settings, tell: Progress
) -> bool:
    """Fills the part until it has all bytes. Returns whether they came in one answer of the server.

    Cut transfers go on where they ended, as long as each few tries bring something new. What has come stays in the
    part, whatever happens. Errors: download-space, output-unwritable; `AddressError`.
    """
    with _writing(part.path):
        _prepare(part, url, wanted)
    furthest, in_a_row = part.size, 0
    for count in range(1, settings.all_tries + 1):
        try:
            with _writing(part.path):
                return _try_once(session, url, part, wanted, settings, tell)
        except CutError as cut:
            in_a_row = 1 if part.size > furthest and not cut.idle else in_a_row + 1
            furthest = max(furthest, part.size)
            if cut.restart and part.size:
                with _writing(part.path):
                    part.begin(Origin(wanted.identity, shown(url)))
            wait = settings.wait(in_a_row) if cut.wait is None else cut.wait
            if in_a_row >= settings.tries or count == settings.all_tries:
                raise AddressError("failed", f"{cut.reason} ({count} tries)") from cut
            if wait > settings.longest_retry_after:
                raise AddressError("failed", f"{cut.reason} and asks to wait {wait:.0f} s") from cut
            tell(f"{cut.reason}; trying again", part.size, wanted.bytes)
            time.sleep(wait)
    raise AssertionError("the last try either returns or raises")


def _prepare(part: Part, url: str, wanted: Wanted) -> None:
    """Empties the part, unless its bytes can be gone on with."""
    origin = part.origin()
    if origin is None or origin.identity != wanted.identity or not 0 < part.size <= (wanted.bytes or part.size):
        part.begin(Origin(wanted.identity, shown(url)))
    elif wanted.pinned and origin.address != shown(url):
        # Validators of one server mean nothing to another.
        part.update(Origin(wanted.identity, shown(url), None, wanted.bytes))
    elif not wanted.pinned and (origin.address != shown(url) or origin.validator is None):
        part.begin(Origin(wanted.identity, shown(url)))


def _try_once(
    session: requests.Session, url: str, part: Part, wanted: Wanted, settings: Settings, tell: Progress
) -> bool:
    """Asks once for what is missing. Returns whether the answer had the whole file."""
    origin = part.origin() or Origin(wanted.identity, shown(url))
    offset = part.size
    whole = wanted.bytes if wanted.bytes is not None else origin.total
    if offset and offset == whole:
        return False
    answer = ask(session, url, offset, origin.validator, settings)
    if answer is None:
        raise CutError("has another file than before, with fewer bytes", restart=True)
    with contextlib.closing(answer.response):
        _require_same(answer, origin, wanted)
        total = _require_size(answer, wanted)
        if answer.start == 0:
            part.begin(origin)
        part.update(Origin(wanted.identity, shown(url), None if answer.encoding else answer.validator, total))
        require_room(part.path, (total or 0) - answer.start + wanted.room, settings)
        try:
            _write_body(answer, part, total, settings, tell)
        except AddressError:
            part.discard()  # what came is of another file
            raise
    end = total if total is not None else answer.end
    if end is not None and part.size < end:
        raise CutError(f"ended the connection after {part.size} of {end} bytes")
    return answer.start == 0


def _require_same(answer: Answer, origin: Origin, wanted: Wanted) -> None:
    """Raises `CutError` if the server would go on with another file than it began with."""
    if answer.start == 0:
        return
    changed = None not in (origin.validator, answer.validator) and origin.validator != answer.validator
    resized = None not in (origin.total, answer.total) and origin.total != answer.total
    # A server that stopped sending validators: only a known digest would find out.
    unsure = not wanted.pinned and (origin.validator is None or answer.validator is None)
    if changed or resized or unsure:
        raise CutError("has another file than before", restart=True)


def _require_size(answer: Answer, wanted: Wanted) -> int | None:
    """The size of the whole file. Raises `AddressError` if the server's file has another size than it must have."""
    total = answer.total
    if total is not None and wanted.bytes is not None and total != wanted.bytes:
        raise AddressError("digest", f"has {total} bytes, and {wanted.bytes} were published")
    return wanted.bytes if total is None else total


def _write_body(answer: Answer, part: Part, total: int | None, settings: Settings, tell: Progress) -> None:
    # `ab` and the offset of the answer agree: the part was emptied, or the answer begins at its end.
    limit = settings.largest if total is None else total
    with part.path.open("ab") as stream:
        size = stream.tell()
        tell("downloading", size, total)
        pace = _Pace(settings)
        for piece in _pieces(answer):
            if not size and piece.lstrip()[:20].lower().startswith(_PAGE_STARTS):
                raise AddressError("page", "gives a web page in place of the file")
            if size + len(piece) > limit:
                raise AddressError("digest", f"sends more than {limit} bytes")
            stream.write(piece)
            size += len(piece)
            pace.count(len(piece))
            tell("downloading", size, total)


class _Pace:
    """Ends connections that bring a few bytes now and then, which no time limit of a single read ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since, self._bytes = time.monotonic(), 0

    def count(self, size: int) -> None:
        self._bytes += size
        now = time.monotonic()
        if now - self._since < self._settings.slow_after:
            return
        if self._bytes < self._settings.slow_bytes:
            raise CutError(f"sends only {self._bytes} bytes in {now - self._since:.0f} s", idle=True)
        self._since, self._bytes = now, 0


def _pieces(answer: Answer) -> Iterator[bytes]:
    """The body as it comes, unpacked if the server packed it, though it was asked not to."""
    from urllib3.exceptions import DecodeError, HTTPError

    raw = answer.response.raw
    try:
        if answer.encoding in ("gzip", "x-gzip", "deflate"):
            yield from raw.stream(_PIECE, decode_content=True)
            return
        if answer.encoding:
            raise AddressError("failed", f"packs the file as {answer.encoding!r}, though it was asked not to")
        # What has come, without waiting for a whole piece: a slow server is seen to be slow, and a cut loses nothing.
        while piece := raw.read1(_PIECE, decode_content=False):
            yield piece
    except DecodeError as error:
        raise AddressError("failed", "packs the file wrongly") from error
    except (HTTPError, HTTPException, TimeoutError, ConnectionError) as error:
        slow = "timed out" in str(error).lower()
        raise CutError("stopped sending" if slow else "cut the connection") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what goes wrong with our own files into our errors; none of the connection's errors is an OSError here."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise MatchRTError(
                "download-space",
                f"There is no room for '{path}': {error.strerror}.",
                "Free some space and run the command again: it goes on where it ended. Or choose another --output.",
            ) from error
        raise MatchRTError(
            "output-unwritable",
            f"Cannot write '{path}': {error.strerror or error}.",
            "Set MATCHRT_STORE, --store or --output to a folder that you may write to.",
        ) from error


def require_room(path: Path, needed: int, settings: Settings) -> None:
    """Raises `download-space` if so many bytes beside `path` would fill the disk."""
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:  # a file system that does not say; writing will
        return
    if needed + settings.spare_bytes > free:
        raise MatchRTError(
            "download-space",
            f"'{path.parent}' has {free / 1e6:.0f} MB free, and {needed / 1e6:.0f} MB are needed.",
            "Free some space, or set MATCHRT_STORE, --store or --output to a folder on another disk.",
        )
