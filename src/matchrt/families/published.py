"""What is known of a published file of weights: where it is, its size, its digest and its licence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_SHA256, _MD5 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Licence:
    """The licence of one file, at one date.

    name: as people write it, such as `Apache-2.0`.
    date: ISO date.
    dated: what the date says: `since` when the licence holds, or when its statement was `read`.
    note: what else somebody has to know before they use the file; one to three sentences.
    commercial: whether this statement permits commercial use of the file and nothing that is known speaks against it.
        False also where that is unclear; the note says why.
    """

    name: str
    date: str
    dated: Literal["since", "read"]
    note: str
    commercial: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.dated} {self.date})"


@dataclass(frozen=True)
class Archive:
    """A zip file that a published file is a member of.

    member: the member's file name, without folders.
    bytes: size of the zip file; None if it is not known.
    """

    member: str
    bytes: int | None = None


@dataclass(frozen=True)
class Address:
    """One place that has the file.

    url: what a GET request returns the file for; http or https.
    by: who offers it there.
    archive: the zip file that the address gives; None if it gives the file itself.
    """

    url: str
    by: str
    archive: Archive | None = None


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights as somebody has published it.

    Nothing is pinned that is not known: a size or digest that nobody has measured is None. matchrt then records what it
    got first.

    name: the name under which matchrt keeps the file; unique among all files.
    title: what the file is, in words.
    page: where a person finds it, to download it by hand.
    addresses: where it is, in the order in which they are tried; all have the same bytes.
    licence: the licence of this file.
    bytes: size; None if it is not known to the byte.
    about_bytes: size as somebody rounded it, to be shown only; None if nobody said.
    sha256: hex digest; None if it is not known.
    md5: hex digest, for files of which only that is known; None otherwise. It finds damage, not malice.
    """

    name: str
    title: str
    page: str
    addresses: tuple[Address, ...]
    licence: Licence
    bytes: int | None = None
    about_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None

    def __post_init__(self) -> None:
        for name, pattern in (("sha256", _SHA256), ("md5", _MD5)):
            digest = getattr(self, name)
            if digest is not None:
                object.__setattr__(self, name, digest.lower())
                assert pattern.fullmatch(digest.lower()), f"{self.name}: {name} {digest} is no digest"
