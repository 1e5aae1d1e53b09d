"""The guard in front of every HTTP request: it looks at the head, gives a place, and only then reads the body."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.requests import Request

from matchrt.errors import MatchRTError
from matchrt.serving.admission import Admission
from matchrt.serving.body import BODY, ENCODINGS, Body
from matchrt.serving.failures import as_json, bad_request, http_status, lacks_memory, surprise, too_large
from matchrt.serving.http_pages import PAGES
from matchrt.serving.service import Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_Types = tuple[str | None, ...]

LOGGER = logging.getLogger("matchrt.serving")
# These need no token: the health checks, and pages without any data.
_HEALTH = ("/v2/health/live", "/v2/health/ready")
_OPEN = (*PAGES, "/openapi.json", *_HEALTH)
# The types of bodies. The protocol's bodies may have no type, or that which curl -d and urllib give to whatever they
# send; they are read as JSON all the same.
_FORM: _Types = ("multipart/form-data",)
_JSON: _Types = ("application/json", "application/octet-stream", "application/x-www-form-urlencoded", None)
# Takes a body of a few words, and nothing of the engines: it has places and a limit of its own.
_INDEX = "/v2/repository/index"
_INDEX_BYTES = 65_536
_INDEX_CALLS = 4
# Methods that change nothing and run nothing.
_SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """An ASGI application around another one, which then only computes."""

    def __init__(self, app: App, service: Service) -> None:
        self._app, self._service = app, service
        self._turns = asyncio.Lock()
        self._small = Admission(_INDEX_CALLS, _INDEX_CALLS * _INDEX_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        start = time.perf_counter()
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._require_token(scope)
            _require_own_site(scope)
            types = _types_of(scope)
            if types is None:
                if scope["path"] not in _HEALTH:
                    await self._turn()
                await self._app(scope, _nothing(receive), counted)
            else:
                await self._with_body(scope, types, receive, counted)
        except MatchRTError as error:
            await _refuse(error, counted)
        except Exception as error:
            _log(error, scope)
            if status == 0:
                await _refuse(surprise(error), counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._service.metrics.answered("http", route, str(status), time.perf_counter() - start)

    async def _turn(self) -> None:
        """Waits for a turn. One request has it in each round of the event loop, so that many do not delay health."""
        async with self._turns:
            await asyncio.sleep(0)

    async def _with_body(self, scope: Scope, types: _Types, receive: Receive, send: Send) -> None:
        """Everything that the head can show is refused before the request gets a place, and all else after."""
        index = scope["path"] == _INDEX
        limit = min(self._service.options.max_body, _INDEX_BYTES) if index else self._service.options.max_body
        _require_type(scope, types)
        encoding = (_header(scope, b"content-encoding") or "identity").strip().lower()
        if encoding not in ENCODINGS:
            raise bad_request("The content encoding is unknown.", "Use gzip, deflate, or none.")
        length = _header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > limit:
            raise too_large(limit)
        place = self._small.enter() if index else self._service.enter()
        try:
            body = Body(place, limit, encoding)
            await body.read(receive)
            scope[BODY] = body
            await self._app(scope, _nothing(receive), send)
        finally:
            # Where the request's thread has it, it leaves it when its work is done.
            if not place.used:
                place.leave()

    def _require_token(self, scope: Scope) -> None:
        token = self._service.options.token
        if token is not None and scope["path"] not in _OPEN:
            require_token(_header(scope, b"authorization"), token)


def body_of(request: Request) -> Body:
    """The body of a request to a route that takes one; its place is the request's."""
    body = request.scope[BODY]
    assert isinstance(body, Body)
    return body


def require_token(given: str | None, token: str) -> None:
    """Raises token-wrong unless `given` is `Bearer TOKEN`. It takes the same time wherever they differ."""
    kind, _, word = (given or "").partition(" ")
    if not hmac.compare_digest(word.strip().encode(), token.encode()) or kind.lower() != "bearer":
        raise MatchRTError(
            "token-wrong", "The token is missing or wrong.", "Send the header 'Authorization: Bearer TOKEN'."
        )


def _types_of(scope: Scope) -> _Types | None:
    """The types of bodies that the route takes; None if it takes no body."""
    path: str = scope["path"]
    if scope["method"] != "POST":
        return None
    if path == "/v1/match":
        return _FORM
    return _JSON if path == _INDEX or (path.startswith("/v2/models/") and path.endswith("/infer")) else None


def _require_type(scope: Scope, types: _Types) -> None:
    given = _header(scope, b"content-type")
    kind = None if given is None else given.partition(";")[0].strip().lower()
    if kind not in types:
        known = types[0]
        said = "no type" if kind is None else f"the type '{kind[:80]}'"
        raise MatchRTError(
            "request-media-type", f"The body has {said}; this path takes {known}.", "Set the header Content-Type."
        )


def _require_own_site(scope: Scope) -> None:
    """Raises request-foreign if a browser sends this for a page of another site.

    Browsers say so by Sec-Fetch-Site, and by Origin where they do not send that; pages cannot change either. Programs
    send neither.
    """
    if scope["method"] in _SAFE:
        return
    site, origin = _header(scope, b"sec-fetch-site"), _header(scope, b"origin")
    good = site is None or site.strip().lower() in ("same-origin", "none")
    if origin is not None and good:
        # A page cannot set X-Forwarded-Host without asking first, and a proxy says by it what the browser asked for.
        hosts = [_header(scope, name) for name in (b"host", b"x-forwarded-host")]
        port = (scope.get("server") or (None, None))[1]
        good = any(host is not None and _same_host(origin, host, port, ports=site is None) for host in hosts)
    if not good:
        raise MatchRTError(
            "request-foreign",
            "A page of another site has sent this request.",
            "Ask from the service's own page or a program. A proxy in front of it must send the header Host or "
            "X-Forwarded-Host as the browser does.",
        )


def _same_host(origin: str, host: str, port: int | None, *, ports: bool) -> bool:
    """Whether an origin is that of a host; its port counts only where the browser has not compared it.

    port: where the service listens, which a host that names no port may mean.
    """
    try:
        parts, asked = urlsplit(origin.strip().lower()), urlsplit(f"//{host.strip().lower()}")
        usual = {"http": 80, "https": 443}[parts.scheme]
        same_port = (parts.port or usual) in ({asked.port} if asked.port else {usual, port})
        return bool(parts.hostname) and parts.hostname == asked.hostname and (same_port or not ports)
    except (KeyError, ValueError):  # not an origin of the web, such as `null`
        return False


def _nothing(receive: Receive) -> Receive:
    """A `receive` that gives an empty body, and after it what the connection says."""
    sent = False

    async def next_message() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return next_message


def _log(error: Exception, scope: Scope) -> None:
    if lacks_memory(error):
        LOGGER.error("out of memory in %r", scope["path"][:200])
    else:
        LOGGER.exception("unexpected failure in %r", scope["path"][:200])


def _header(scope: Scope, name: bytes) -> str | None:
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return values[0] if values else None


async def _refuse(error: MatchRTError, send: Send) -> None:
    body = orjson.dumps(as_json(error))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.code == "token-wrong":
        headers.append((b"www-authenticate", b"Bearer"))
    if error.code == "body-slow":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": http_status(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
