"""An HTTP server on 127.0.0.1 whose answers go wrong in ways that real servers' answers do."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# How one request is answered.
Step = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers the n-th request of a path by the n-th step of its route; the last step answers all others."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def do_GET(self) -> None:
        self.close_connection = True
        route = self.server.routes.get(self.path.split("?")[0])
        if route is None:
            answer(404)(self)
            return
        with self.server.lock:
            step = route.steps[min(len(route.ranges), len(route.steps) - 1)]
            route.ranges.append(self.headers.get("Range"))
            route.headers.append(dict(self.headers.items()))
        with contextlib.suppress(ConnectionError):
            step(self)

    def log_message(self, *_: object) -> None:
        """Nothing: a test's output is not the place."""

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def body(self, data: bytes) -> None:
        self.wfile.write(data)
        with self.server.lock:
            self.server.sent += len(data)

    def abort(self) -> None:
        """Ends the connection as a crash does, without an orderly close."""
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@dataclass
class Route:
    """The steps of a path, and the Range header and all headers of each request that came."""

    steps: Sequence[Step]
    ranges: list[str | None] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


class FaultyServer(ThreadingHTTPServer):
    """The server. `sent`: bytes of bodies."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Route] = {}
        self.lock = threading.Lock()
        self.sent = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients that hang up are part of the test."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def route(self, path: str, *steps: Step) -> str:
        """Has these steps answer for the path. Returns its URL."""
        self.routes[path] = Route(steps)
        return self.url(path)


@contextlib.contextmanager
def faulty_server() -> Iterator[FaultyServer]:
    """A server in threads of its own."""
    with FaultyServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


# Steps.


def answer(status: int, body: bytes = b"", **headers: object) -> Step:
    """This status, with this body and these headers (`_` stands for `-`)."""

    def step(handler: Handler) -> None:
        handler.head(status, **{"Content_Length": len(body), **headers})
        handler.body(body)

    return step


def redirect(to: str | None, status: int = 302) -> Step:
    return answer(status) if to is None else answer(status, Location=to)


def serve(
    data: bytes,
    *,
    etag: str | None = '"one"',
    modified: str | None = None,
    ranges: bool = True,
    if_range: bool = True,
    cut: int | None = None,
    abort: bool = False,
    stall: float = 0.0,
    send_etag: bool = True,
    **headers: object,
) -> Step:
    """The file, as a good server gives it.

    etag, modified: the validators; None to give none.
    ranges: whether Range is honoured. if_range: whether If-Range is, too.
    cut: end the connection after so many bytes of this answer; abort: without an orderly close.
    stall: seconds to wait in front of the end.
    """

    def step(handler: Handler) -> None:
        start, condition = 0, handler.headers.get("If-Range")
        asked = handler.headers.get("Range")
        if ranges and asked and not (if_range and condition is not None and condition not in (etag, modified)):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        known = {"ETag": etag if send_etag else None, "Last_Modified": modified}
        given: dict[str, object] = {name: value for name, value in known.items() if value is not None}
        if start >= len(data):
            handler.head(416, Content_Length=0, Content_Range=f"bytes */{len(data)}")
            return
        if start:
            given["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        rest = data[start:]
        handler.head(206 if start else 200, **{**given, "Content_Length": len(rest), **headers})
        handler.body(rest if cut is None else rest[:cut])
        handler.wfile.flush()
        time.sleep(stall)
        if abort:
            handler.abort()

    return step


def chunked(data: bytes, *, cut: int | None = None, etag: str = '"one"', pieces: int = 7) -> Step:
    """The file in chunks, with no length. cut: end the connection inside the chunk that reaches so many bytes."""

    def step(handler: Handler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        headers: dict[str, object] = {"ETag": etag, "Transfer_Encoding": "chunked"}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.head(206 if start else 200, **headers)
        rest, size = data[start:], max(len(data) // pieces, 1)
        sent = 0
        for begin in range(0, len(rest), size):
            piece = rest[begin : begin + size]
            handler.wfile.write(f"{len(piece):x}\r\n".encode())
            if cut is not None and sent + len(piece) > cut:
                handler.body(piece[: cut - sent])
                return
            handler.body(piece)
            handler.wfile.write(b"\r\n")
            sent += len(piece)
        handler.wfile.write(b"0\r\n\r\n")

    return step


def until_close(data: bytes, *, cut: int | None = None, etag: str | None = None) -> Step:
    """The file with neither length nor chunks, as HTTP/1.0 servers give it."""

    def step(handler: Handler) -> None:
        handler.head(200, **({} if etag is None else {"ETag": etag}))
        handler.body(data if cut is None else data[:cut])

    return step


def trickle(data: bytes, *, every: float = 0.02, seconds: float = 30.0) -> Step:
    """A byte now and then, from where it was asked for."""

    def step(handler: Handler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        ranged = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        handler.head(206 if start else 200, Content_Length=len(data) - start, ETag='"one"', **ranged)
        end = time.monotonic() + seconds
        for at in range(start, len(data)):
            if time.monotonic() > end:
                return
            handler.body(data[at : at + 1])
            handler.wfile.flush()
            time.sleep(every)

    return step


def silence(seconds: float) -> Step:
    """No answer at all for so long."""

    def step(handler: Handler) -> None:
        time.sleep(seconds)
        handler.abort()

    return step


def raw(data: bytes) -> Step:
    """These bytes on the wire, instead of an answer."""

    def step(handler: Handler) -> None:
        handler.wfile.write(data)

    return step


def hang_up(handler: Handler) -> None:
    """The connection is reset before any answer."""
    handler.abort()
