"""A page that shows the pictures of a run while it goes on (MJPEG), on the service's HTTP server.

The server runs in a thread with an event loop of its own. It keeps the newest picture only: a viewer whose connection
is slow misses pictures, and delays nobody. Errors: port-taken, option-range, package-missing.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import resources
from typing import Any

import cv2

from matchrt.errors import MatchRTError, missing_package
from matchrt.runtime.decoding.values import UInt8Array

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FILES = {"/": ("page.html", b"text/html"), "/page.js": ("page.js", b"text/javascript"),
          "/page.css": ("page.css", b"text/css")}  # fmt: skip
_BOUNDARY = b"matchrt-picture"
_QUALITY = 80
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    # Pages of other sites may not show these pictures.
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy",
     b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
     b"frame-ancestors 'none'; form-action 'none'; base-uri 'none'"),
]  # fmt: skip
# Connections beside those of viewers, for the page and what it asks for. No request has a body.
_OTHER_CONNECTIONS, _LARGEST_BODY = 16, 1024
_END_SECONDS, _START_SECONDS = 1.0, 10.0


class Page:
    """A page with the newest picture.

    host: address to listen on. port: 0 for any free one. viewers: how many may watch at the same time; others are
    refused. Errors: port-taken, option-range, package-missing.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", viewers: int = 4) -> None:
        if not 0 <= port < 65536 or viewers < 1:
            raise MatchRTError(
                "option-range",
                f"Port {port} or {viewers} viewers is out of range.",
                "Use a port up to 65535.",
            )
        if not host:  # to the system, it is every address
            raise MatchRTError("option-range", "The address of the page is empty.", "Use 127.0.0.1 or another address.")
        self._host, self._limit = host, viewers
        self._viewers = 0
        self._number, self._jpeg, self._status = 0, b"", b"{}"
        self._files = {path: (_read(name), kind) for path, (name, kind) in _FILES.items()}
        self._listener = _listen(host, port)
        self.port = int(self._listener.getsockname()[1])
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="matchrt-live-page", daemon=True)
        self._thread.start()
        self._ready.wait(_START_SECONDS)
        if self._failure is not None:
            self._listener.close()
            raise self._failure

    @property
    def address(self) -> str:
        """Where the page is. Raises nothing."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self.port}/"

    @property
    def watched(self) -> bool:
        """Whether anybody watches; else no picture need be drawn. Raises nothing."""
        return self._viewers > 0

    def show(self, picture: UInt8Array | None, status: dict[str, Any]) -> None:
        """Shows a picture, uint8 RGB [h, w, 3], and values in words; None keeps the picture. Raises nothing."""
        self._status = json.dumps(status, allow_nan=False).encode()
        if picture is None:
            return
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        good, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if good:
            self._jpeg, self._number = jpeg.tobytes(), self._number + 1
            self._call(self._wake)

    def close(self) -> None:
        """Ends the server and all connections. Raises nothing."""
        self._call(self._stop)
        self._thread.join(2 * _END_SECONDS + 1)

    # ------------------------------------------------------------------------------------ in the server's thread

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        try:
            from matchrt.serving.connections import Connections
            from matchrt.serving.http_server import HttpServer
        except ModuleNotFoundError as error:
            raise missing_package(error.name or "uvicorn", "serve", "The page") from error
        self._loop, self._ended, self._new = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        most = self._limit + _OTHER_CONNECTIONS
        server = HttpServer(self._answer, self._listener, Connections(most, most, _LARGEST_BODY))
        self._ready.set()
        await self._ended.wait()
        self._wake()
        await server.end(_END_SECONDS)

    def _call(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop has ended
            return

    def _stop(self) -> None:
        self._ended.set()

    def _wake(self) -> None:
        """Tells every viewer that there is a new picture."""
        self._new.set()
        self._new = asyncio.Event()

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not self._own_host(scope):
            await _plain(send, 403, b"This page is for this machine only.\n")
        elif scope["method"] != "GET":
            await _plain(send, 405, b"Only GET is answered.\n")
        elif scope["path"] == "/stream":
            await self._stream(receive, send)
        elif scope["path"] == "/status":
            await _plain(send, 200, self._status, b"application/json")
        elif scope["path"] in self._files:
            await _plain(send, 200, *self._files[scope["path"]])
        else:
            await _plain(send, 404, b"There is no such page.\n")

    def _own_host(self, scope: Message) -> bool:
        """Whether a browser asks for this machine by its own name: else a page elsewhere may have made up the name."""
        if self._host not in LOOPBACK:
            return True
        named = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
        name = named.partition("]")[0].lstrip("[") if named.startswith("[") else named.partition(":")[0]
        return name.lower() in LOOPBACK

    async def _stream(self, receive: Receive, send: Send) -> None:
        if self._viewers >= self._limit:
            await _plain(send, 503, b"Others watch already, as many as are allowed.\n")
            return
        self._viewers += 1
        gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnected(receive))
        try:
            kind = b"multipart/x-mixed-replace; boundary=" + _BOUNDARY
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind), *_HEADERS]})
            await self._send_pictures(send, gone)
        finally:
            self._viewers -= 1
            gone.cancel()

    async def _send_pictures(self, send: Send, gone: asyncio.Future[Any]) -> None:
        seen = 0
        while not gone.done() and not self._ended.is_set():
            new = self._new
            if self._number == seen:
                waiting: asyncio.Future[Any] = asyncio.ensure_future(new.wait())
                await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                continue
            seen, jpeg = self._number, self._jpeg
            head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (_BOUNDARY, len(jpeg))
            # It waits here while the viewer has not taken the pictures before.
            await send({"type": "http.response.body", "body": head + jpeg + b"\r\n", "more_body": True})
        if not gone.done():
            await send({"type": "http.response.body", "body": b"--%s--\r\n" % _BOUNDARY})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _plain(send: Send, status: int, body: bytes, kind: bytes = b"text/plain") -> None:
    headers = [(b"content-type", kind + b"; charset=utf-8"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _read(name: str) -> bytes:
    return (resources.files("matchrt.live") / "pages" / name).read_bytes()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise MatchRTError(
            "port-taken", f"Cannot listen on {host}:{port}.", "Choose another port or address; 0 is any."
        ) from error
    return listener
