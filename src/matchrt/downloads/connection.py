"""One GET request: from an offset on, over redirects, to an answer that has the bytes that were asked for.

`requests` makes the connections, because it honours the user's proxies, certificates and netrc. pooch goes
on with no part, huggingface_hub knows one host, and urllib3 alone or the standard library would leave proxies and
certificates to us.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from matchrt._version import __version__
from matchrt.downloads.failures import AddressError, CutError
from matchrt.downloads.settings import Settings

if TYPE_CHECKING:
    import requests

_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN_LATER = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Answer:
    """A server's answer that holds bytes of the file.

    response: its body has not been read.
    start: offset of the body's first byte in the file.
    end: offset after its last byte; None if the server did not say.
    total: bytes of the whole file; None if the server did not say.
    validator: what tells whether the server has another file now; None if nothing does.
    encoding: how the body is packed, such as `gzip`; an empty string if it is the file itself.
    """

    response: requests.Response
    start: int
    end: int | None
    total: int | None
    validator: str | None
    encoding: str


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def shown(url: str, *, query: bool = True) -> str:
    """The URL as messages and records may have it: without name and password, and on request without its query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query=parts.query if query else "", fragment="").geturl()


def ask(session: requests.Session, url: str, offset: int, validator: str | None, settings: Settings) -> Answer | None:
    """Asks for the bytes from `offset` on; None if the server has none there (416).

    validator: of the bytes that are there already. If the server has another file now, it answers with the whole of it.
    Errors: `AddressError`, `CutError`.
    """
    headers = {"User-Agent": f"matchrt/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator is not None:
            headers["If-Range"] = validator
    response = _follow(session, url, headers, settings)
    try:
        return _read_head(response, offset)
    except BaseException:
        response.close()
        raise


def _follow(session: requests.Session, url: str, headers: dict[str, str], settings: Settings) -> requests.Response:
    """The answer at the end of all redirects. They are followed here, to see where each one leads before it is gone."""
    seen = {url}
    for _ in range(settings.redirects + 1):
        response = _get(session, url, headers, settings)
        if response.status_code not in _REDIRECTS:
            return response
        response.close()
        target = urljoin(url, response.headers.get("Location", ""))
        _require_followable(url, target)
        if target in seen:
            raise AddressError("failed", f"redirects in a circle (to {shown(target, query=False)})")
        seen.add(target)
        url = target
    raise AddressError("failed", f"redirects more than {settings.redirects} times")


def _require_followable(url: str, target: str) -> None:
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https") or not urlsplit(target).hostname:
        raise AddressError("failed", f"redirects to {shown(target, query=False)!r}, which is no web address")
    if urlsplit(url).scheme == "https" and scheme == "http" and not is_loopback(target):
        raise AddressError("failed", f"redirects from https to plain http ({shown(target, query=False)})")


def _get(session: requests.Session, url: str, headers: dict[str, str], settings: Settings) -> requests.Response:
    import requests

    timeout = (settings.connect_timeout, settings.read_timeout)
    try:
        return session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
    except requests.exceptions.SSLError as error:
        raise AddressError("failed", f"has no certificate that is trusted here ({_root(error)})") from error
    except requests.exceptions.Timeout as error:
        raise CutError("does not answer in time") from error
    except requests.exceptions.ConnectionError as error:
        if _no_such_host(error):
            raise AddressError("failed", "cannot be found: no network, or no such host") from error
        raise CutError(f"cannot be reached ({_root(error)})") from error
    except (requests.exceptions.RequestException, UnicodeError) as error:
        raise AddressError("failed", f"cannot be asked ({_root(error)})") from error


def _no_such_host(error: BaseException) -> bool:
    from urllib3.exceptions import NameResolutionError

    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, NameResolutionError)


def _root(error: BaseException) -> str:
    """The innermost reason of an error of requests, in its own words."""
    reason: object = error
    while True:
        inner = getattr(reason, "reason", None) or next(iter(getattr(reason, "args", ())), None)
        if not isinstance(inner, BaseException):
            break
        reason = inner
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def _read_head(response: requests.Response, offset: int) -> Answer | None:
    status, headers = response.status_code, response.headers
    if status == 416 and offset:
        response.close()
        return None
    if status in _AGAIN_LATER:
        raise CutError(f"answers {status}", wait=_retry_after(headers.get("Retry-After")))
    if status not in (200, 206):
        raise AddressError("failed", f"answers {status}{_meaning(status)}")
    encoding = headers.get("Content-Encoding", "").strip().lower().replace("identity", "")
    if headers.get("Content-Type", "").split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        raise AddressError("page", "gives a web page in place of the file")
    length = _number(headers.get("Content-Length")) if not encoding else None
    validator = _validator(response)
    if status == 200:
        return Answer(response, 0, length, length, validator, encoding)
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if found is None or encoding:
        # Parts of a packed file are not parts of the file, and several ranges in one body were not asked for.
        raise CutError("answers with a part that was not asked for", restart=True)
    start, end = int(found[1]), int(found[2]) + 1
    if start != offset or end <= start:
        raise CutError(f"answers with bytes from {start} on, in place of {offset}", restart=True)
    return Answer(response, start, end, None if found[3] == "*" else int(found[3]), validator, encoding)


def _validator(response: requests.Response) -> str | None:
    """The strong ETag, or else the date of the last change. A weak ETag does not say that bytes are equal."""
    etag = response.headers.get("ETag", "").strip()
    if len(etag) > 1 and etag.startswith('"') and etag.endswith('"'):
        return etag
    return response.headers.get("Last-Modified")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdecimal() else None


def _retry_after(text: str | None) -> float | None:
    """The seconds that a header Retry-After asks for, which may be a number or a date; None if it is neither."""
    if text is None:
        return None
    if (seconds := _number(text)) is not None:
        return float(seconds)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return max((moment - datetime.now(timezone.utc)).total_seconds(), 0.0)


def _meaning(status: int) -> str:
    known = {401: ": it asks for a login", 403: ": it refuses", 404: ": it has no such file", 410: ": the file is gone"}
    return known.get(status, "")
