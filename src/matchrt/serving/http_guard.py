"""The guard in front of every HTTP request: it checks the token, limits bodies and time, and counts requests."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from matchrt.errors import MatchRTError
from matchrt.serving.failures import as_json, bad_request, busy, http_status, surprise, too_large
from matchrt.serving.service import Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGGER = logging.getLogger("matchrt.serving")
# These need no token: the health checks, and pages without any data.
_OPEN = ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")
# A body must arrive within this many seconds, whatever the request's own deadline is.
_BODY_SECONDS = 30.0
# The bytes of all bodies in memory at one time, in multiples of the largest body allowed.
_BODIES = 4


class Guard:
    """An ASGI application around another one. It reads whole bodies, so that the inner application only computes."""

    def __init__(self, app: App, service: Service) -> None:
        self._app, self._service = app, service
        self._held = 0

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

        body = _Body(self)
        try:
            self._require_token(scope)
            content = await body.read(scope, receive)
            await self._app(scope, _replay(content, receive), counted)
        except MatchRTError as error:
            await _refuse(error, counted)
        except Exception as error:
            LOGGER.exception("unexpected failure in %s", scope["path"])
            if status == 0:
                await _refuse(surprise(error), counted)
        finally:
            body.release()
            route = getattr(scope.get("route"), "path", "other")
            self._service.metrics.answered("http", route, str(status), time.perf_counter() - start)

    def hold(self, size: int) -> None:
        """Counts bytes of bodies in memory. Error: server-busy if they are too many.

        size: bytes that come; negative for bytes that go.
        """
        if size > 0 and self._held + size > _BODIES * self._service.options.max_body:
            raise busy()
        self._held += size

    @property
    def limit(self) -> int:
        """The largest body, bytes."""
        return self._service.options.max_body

    def _require_token(self, scope: Scope) -> None:
        token = self._service.options.token
        if token is not None and scope["path"] not in _OPEN:
            require_token(_header(scope, b"authorization"), token)


def require_token(given: str | None, token: str) -> None:
    """Raises token-wrong unless `given` is `Bearer TOKEN`. It takes the same time wherever they differ."""
    kind, _, word = (given or "").partition(" ")
    if not hmac.compare_digest(word.strip().encode(), token.encode()) or kind.lower() != "bearer":
        raise MatchRTError(
            "token-wrong", "The token is missing or wrong.", "Send the header 'Authorization: Bearer TOKEN'."
        )


class _Body:
    """A request's body on its way into memory."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._size = 0

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The body, unpacked. Errors: body-too-large, body-slow, server-busy, request-invalid."""
        length = _header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > self._guard.limit:
            raise too_large(self._guard.limit)
        try:
            packed = await asyncio.wait_for(self._collect(receive), _BODY_SECONDS)
        except asyncio.TimeoutError as error:
            raise MatchRTError(
                "body-slow", f"The body took more than {_BODY_SECONDS:g} seconds.", "Send it faster."
            ) from error
        encoding = (_header(scope, b"content-encoding") or "identity").strip().lower()
        if encoding == "identity":
            return packed
        scope["headers"] = [
            pair for pair in scope["headers"] if pair[0] not in (b"content-encoding", b"content-length")
        ]
        content = unpack(packed, encoding, self._guard.limit)
        self._take(len(content))
        return content

    async def _collect(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise bad_request("The body ended before its length.", "Send it whole.")
            part = message.get("body", b"")
            self._take(len(part))
            parts.append(part)
            if self._size > self._guard.limit:
                raise too_large(self._guard.limit)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _take(self, size: int) -> None:
        self._guard.hold(size)
        self._size += size

    def release(self) -> None:
        """Called when the body is no longer in memory."""
        self._guard.hold(-self._size)
        self._size = 0


def unpack(data: bytes, encoding: str, limit: int) -> bytes:
    """Undoes gzip or deflate, up to `limit` bytes. Errors: request-invalid, body-too-large."""
    if encoding not in ("gzip", "deflate"):
        raise bad_request("The content encoding is unknown.", "Use gzip, deflate, or none.")
    unpacker = zlib.decompressobj(31 if encoding == "gzip" else 15)
    try:
        content = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise bad_request(f"The body is not {encoding}.", "Send it whole, or without an encoding.") from error
    if len(content) > limit:
        raise too_large(limit)
    if not unpacker.eof:
        raise bad_request(f"The body's {encoding} is cut off.", "Send it whole, or without an encoding.")
    return content


def _replay(content: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body at once, and after it what the connection says."""
    sent = False

    async def next_message() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    return next_message


def _header(scope: Scope, name: bytes) -> str | None:
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return values[0] if values else None


async def _refuse(error: MatchRTError, send: Send) -> None:
    body = orjson.dumps(as_json(error))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.code == "token-wrong":
        headers.append((b"www-authenticate", b"Bearer"))
    if error.code in ("body-too-large", "body-slow"):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": http_status(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
