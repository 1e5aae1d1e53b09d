"""Downloads a published file into a folder of weights, from the first of its addresses that has it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urljoin, urlsplit

from matchrt._util.reading import open_regular
from matchrt.downloads.archive import take_member
from matchrt.downloads.checks import Facts, check
from matchrt.downloads.connection import is_loopback, shown
from matchrt.downloads.failures import AddressError, no_address_worked
from matchrt.downloads.folder import WeightsFolder, require_folder
from matchrt.downloads.part import Part
from matchrt.downloads.settings import SETTINGS, Progress, Settings
from matchrt.downloads.transfer import Wanted, require_room, transfer
from matchrt.errors import MatchRTError, missing_package
from matchrt.families.published import Address, PublishedFile

if TYPE_CHECKING:
    import requests

State = Literal["there", "put-there", "downloaded"]


@dataclass(frozen=True)
class Downloaded:
    """A file that is there, whole, and recorded.

    file: what it is.
    path: where it is.
    bytes: size.
    sha256: hex digest.
    state: `there` if it was there already, `put-there` if somebody had put it there and it was checked and recorded
        now, or `downloaded`.
    address: where it came from; an empty string if somebody put it there.
    """

    file: PublishedFile
    path: Path
    bytes: int
    sha256: str
    state: State
    address: str


def download(
    file: PublishedFile,
    folder: WeightsFolder,
    *,
    addresses: Sequence[Address] | None = None,
    again: str = "matchrt download MODEL",
    settings: Settings = SETTINGS,
    tell: Progress | None = None,
) -> Downloaded:
    """Makes sure that the folder has the file, whole and with the right digest. Its licence must have been accepted.

    A file that is there is not downloaded again. A transfer that was cut or interrupted goes on where it ended. Two
    processes can do this at the same time: the second waits for the first.

    addresses: in place of the file's own.
    again: the command that looks at a file that was put there by hand, for the error's remedy.
    tell: called with what is done, and how many bytes of how many are there.
    Errors: download-failed, download-page, download-digest, download-space, download-busy, download-address,
    output-unwritable, package-missing.
    """
    tell = tell or (lambda what, done, total: None)
    require_folder(folder)
    with _locked(folder, file, settings, tell):
        tell("verifying", 0, file.bytes)
        if (path := folder.verified(file)) is not None:
            return _already_there(file, folder, path)
        if folder.path(file).exists():
            return _put_there(file, folder)
        return _from_addresses(file, folder, addresses or file.addresses, again, settings, tell)


def addresses_at(url: str, files: Sequence[PublishedFile]) -> dict[str, tuple[Address, ...]]:
    """What `--from URL` means: the addresses of each file, by its name; a file that it does not name has its own.

    url: of a folder, which ends with `/` and holds all the files under their names; or of the first file.
    Error: download-address.
    """
    try:
        usable = urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        usable = False
    if not usable:
        raise MatchRTError(
            "download-address",
            f"--from '{url}' is no web address.",
            "Give one that begins with https://. A file that is on this machine needs no download: use --checkpoint.",
        )
    if url.endswith("/"):
        return {file.name: (Address(urljoin(url, file.name), "--from"),) for file in files}
    return {files[0].name: (Address(url, "--from"),)}


def require_address(file: PublishedFile, addresses: Sequence[Address], folder: WeightsFolder) -> None:
    """Raises `download-address` if none of the addresses may be used for this file.

    Over plain http anybody on the way can change the file, so it is used only where a digest would tell.
    """
    if not any(_may_ask(address.url, folder.expected_sha256(file)) for address in addresses):
        raise MatchRTError(
            "download-address",
            f"The digest of '{file.name}' is not known, so it is not downloaded over plain http.",
            "Give an address that begins with https://.",
        )


def _may_ask(url: str, expected: str | None) -> bool:
    return expected is not None or urlsplit(url).scheme == "https" or is_loopback(url)


def _already_there(file: PublishedFile, folder: WeightsFolder, path: Path) -> Downloaded:
    record, expected = folder.record(file), folder.expected_sha256(file) or ""
    size = path.stat().st_size
    if record is None or (record.bytes, record.sha256) != (size, expected):
        folder.write_record(file, size, expected, "")
        return Downloaded(file, path, size, expected, "put-there", "")
    return Downloaded(file, path, size, expected, "there", record.address)


def _put_there(file: PublishedFile, folder: WeightsFolder) -> Downloaded:
    """Checks a file that somebody put there, of which only its form and size may be known, and records it."""
    path = folder.path(file)
    try:
        facts = check(path, file, folder.expected_sha256(file))
    except AddressError as failure:
        raise MatchRTError(
            "download-digest",
            f"'{path}' is not the published file: it {failure.reason}.",
            f"Remove it, and download it again.{_if_changed(file, folder)}",
        ) from failure
    except OSError as error:
        raise MatchRTError(
            "output-unwritable", f"'{path}' cannot be read: {error.strerror}.", "Remove it, or let this user read it."
        ) from error
    folder.write_record(file, facts.bytes, facts.sha256, "")
    return Downloaded(file, path, facts.bytes, facts.sha256, "put-there", "")


def _if_changed(file: PublishedFile, folder: WeightsFolder) -> str:
    """The end of a remedy, if the digest is only the one that was recorded first; else empty."""
    if file.sha256 is not None or folder.record(file) is None:
        return ""
    return f" If the publisher has another file now and you trust it, remove '{folder.record_path(file)}' first."


def _from_addresses(
    file: PublishedFile,
    folder: WeightsFolder,
    addresses: Sequence[Address],
    again: str,
    settings: Settings,
    tell: Progress,
) -> Downloaded:
    failures: list[tuple[str, AddressError]] = []
    with _session() as session:
        for address in addresses:
            try:
                facts = _from_address(session, address, file, folder, settings, tell)
            except AddressError as failure:
                failures.append((shown(address.url), failure))
                continue
            return Downloaded(file, folder.path(file), facts.bytes, facts.sha256, "downloaded", shown(address.url))
    raise no_address_worked(file, folder.path(file), failures, again, _if_changed(file, folder))


def _from_address(
    session: requests.Session,
    address: Address,
    file: PublishedFile,
    folder: WeightsFolder,
    settings: Settings,
    tell: Progress,
) -> Facts:
    """Transfers, checks, and moves the file into place. A wrong file is removed, so that nobody goes on with it."""
    expected = folder.expected_sha256(file)
    if not _may_ask(address.url, expected):
        raise AddressError("failed", "is plain http, and the file's digest is not known, so it was not asked")
    target = folder.path(file)
    packed = address.archive
    part = Part(target.with_name(f"{target.name}.zip.part" if packed else f"{target.name}.part"))
    if packed is None:
        pinned = expected is not None or file.md5 is not None
        wanted = Wanted(expected or f"{file.name} {file.bytes}", file.bytes, pinned)
    else:
        # The zip's own checksum tells whether its bytes fit together.
        wanted = Wanted(f"zip of {file.name} {packed.bytes}", packed.bytes, True, file.bytes or 0)
    for last in (False, True):
        in_one = transfer(session, address.url, part, wanted, settings, tell)
        try:
            return _deliver(part, address, file, folder, expected, settings, tell)
        except AddressError:
            part.discard()
            # Bytes that came in several answers, or from several addresses, may not fit together: once more, from zero.
            if in_one or last:
                raise
    raise AssertionError("the last try either returns or raises")


def _deliver(
    part: Part,
    address: Address,
    file: PublishedFile,
    folder: WeightsFolder,
    expected: str | None,
    settings: Settings,
    tell: Progress,
) -> Facts:
    """Checks the file, records it and gives it its name. Errors: download-space, output-unwritable; `AddressError`."""
    target, whole = folder.path(file), part.path
    tell("verifying", part.size, part.size)
    try:
        if address.archive is not None:
            whole = target.with_name(f"{target.name}.member")
            require_room(whole, file.bytes or 0, settings)
            take_member(part.path, address.archive, whole, file.bytes)
        facts = check(whole, file, expected)
        _synchronise(whole)
        folder.write_record(file, facts.bytes, facts.sha256, shown(address.url))
        os.replace(whole, target)
        part.discard()
    except OSError as error:
        raise MatchRTError(
            "output-unwritable",
            f"Cannot write '{target}': {error.strerror or error}.",
            "Free some space, or set MATCHRT_STORE, --store or --output to another folder.",
        ) from error
    finally:
        if whole != part.path:
            whole.unlink(missing_ok=True)
    return facts


def _synchronise(path: Path) -> None:
    """Has the disk keep the bytes before the name says that they are there."""
    with open_regular(path) as stream:
        os.fsync(stream.fileno())


@contextlib.contextmanager
def _session() -> Iterator[requests.Session]:
    try:
        import requests
    except ImportError as error:
        raise missing_package("requests", "download", "Downloading weights") from error
    with requests.Session() as session:
        yield session


@contextlib.contextmanager
def _locked(folder: WeightsFolder, file: PublishedFile, settings: Settings, tell: Progress) -> Iterator[None]:
    """Holds the file's lock. Waits for another process as long as it gets on."""
    try:
        import filelock
    except ImportError as error:
        raise missing_package("filelock", "download", "Downloading weights") from error
    path = folder.path(file)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    seen, since = -1, time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except filelock.Timeout:
            size = max(Part(path.with_name(f"{path.name}{suffix}")).size for suffix in (".part", ".zip.part", ""))
            tell("another process downloads it; waiting", size, file.bytes)
            if size != seen:
                seen, since = size, time.monotonic()
            elif time.monotonic() - since > settings.busy_after:
                raise MatchRTError(
                    "download-busy",
                    f"Another process has been downloading '{path}' and gets no further.",
                    "End that process, and run the command again.",
                ) from None
        except (OSError, NotImplementedError) as error:
            raise MatchRTError(
                "output-unwritable",
                f"'{folder.root}' cannot be locked: {error}.",
                "Set MATCHRT_STORE, --store or --output to a folder on another disk.",
            ) from error
    try:
        yield
    finally:
        lock.release()
