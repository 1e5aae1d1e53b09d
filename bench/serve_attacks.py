"""Requests that cost a service more than their sender, each bounded in bytes and seconds. They go to this machine only.

`bench/serve_attack.py` sends them beside honest load, and tests/serving/test_attacks.py sends each of them once.
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import io
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import grpc
from PIL import Image

SERVICE = "inference.GRPCInferenceService"
FORM = "multipart/form-data; boundary=BB"
JSON = "application/json"
MB = 1_000_000
Seen = collections.Counter[str]


@dataclass(frozen=True)
class Target:
    """A service.

    http, grpc: its ports.
    model: the name of the engine.
    scale: how much of each attack is sent, 0..1: 1 for load, less for tests.
    """

    http: int
    grpc: int
    model: str = "loftr-lite"
    scale: float = 1.0

    def some(self, count: int) -> int:
        """That many, scaled."""
        return max(int(count * self.scale), 1)


Attack = Callable[[Target], Seen]


def ask(port: int, data: bytes, seconds: float = 60.0) -> str:
    """The status of an answer over HTTP; `closed` without one, `silent` if nothing comes."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as link:
            with contextlib.suppress(ConnectionError):  # refused before all was sent; the answer may be there
                link.sendall(data)
            return status_of(link)
    except TimeoutError:
        return "silent"
    except OSError:
        return "closed"


def send_health(target: Target) -> str:
    """The status of a health check on a new connection."""
    return ask(target.http, b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")


def status_of(link: socket.socket) -> str:
    """The status of the next answer on a connection."""
    try:
        head = link.recv(65536)
    except ConnectionError:
        return "closed"
    return head[9:12].decode("latin-1") if head.startswith(b"HTTP/") else "closed"


def request(path: str, body: bytes, kind: str, *extra: str, packed: bool = False) -> bytes:
    """A POST, which the server closes the connection after."""
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Content-Type: {kind}", *extra]
    if packed:
        head.append("Content-Encoding: gzip")
        body = gzip.compress(body, 6)
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", "")).encode() + body


def part(name: str, content: bytes, filename: str | None = "x") -> bytes:
    """A field of a form."""
    file = "" if filename is None else f'; filename="{filename}"'
    return f'--BB\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A form's body."""
    return b"".join(parts) + b"--BB--\r\n"


@cache
def picture(side: int = 96) -> bytes:
    """A small image file."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def scans(side: int, count: int) -> bytes:
    """A progressive JPEG that repeats its last scan: a pass over the whole image for a few bytes each."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


def tensors(data: str, shape: list[int], datatype: str = "UINT8", more: str = "") -> bytes:
    """A JSON request whose first tensor has that text as data."""
    entry = f'{{"name":"image0","shape":{shape},"datatype":"{datatype}","data":{data}}}'
    return f'{{"inputs":[{entry}]{more}}}'.encode()


# ------------------------------------------------------------------------------------------------------- HTTP, bodies


def _infer(body: bytes, *extra: str, packed: bool = True) -> Callable[[Target], bytes]:
    return lambda target: request(f"/v2/models/{target.model}/infer", body, JSON, *extra, packed=packed)


def _match(body: bytes, kind: str = FORM, *extra: str, packed: bool = True) -> Callable[[Target], bytes]:
    return lambda target: request("/v1/match", body, kind, *extra, packed=packed)


def bodies() -> dict[str, Callable[[], Callable[[Target], bytes]]]:
    """Whole requests by name. They are large, so they are made when they are asked for."""
    texts = json.dumps(["x" * MB, *["a"] * 400])
    pair = form(part("image0", picture()), part("image1", picture()))
    evil = ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site")
    many = 4 * MB
    return {
        "json: one long text pads the others": lambda: _infer(tensors(texts, [401, 1, 1])),
        "json: 60 texts pad": lambda: _infer(tensors(json.dumps(["x" * 100_000] * 60), [60, 1, 1])),
        "json: BYTES of many texts": lambda: _infer(tensors('["' + '","' * many + '"]', [many + 1], "BYTES")),
        "json: lists of one": lambda: _infer(tensors("[" + "[1]," * 3 * MB + "[1]]", [3 * MB + 1])),
        "json: deep": lambda: _infer(b"[" * 15 * MB),
        "json: deep in data": lambda: _infer(tensors("[" * 5 * MB + "]" * 5 * MB, [1])),
        "json: objects": lambda: _infer(b'{"inputs":[' + b"{}," * 5 * MB + b"{}]}"),
        "json: objects in objects": lambda: _infer(b'{"a":' * 3 * MB + b"1" + b"}" * 3 * MB),
        "json: numbers that fit no shape": lambda: _infer(tensors("[" + "1," * 7 * MB + "1]", [7, 7, 7])),
        "json: numbers of a true shape": lambda: _infer(tensors("[" + "1," * 6_999_999 + "1]", [7000, 1000, 1])),
        "json: nested numbers": lambda: _infer(tensors("[" + "[[1]]," * 2 * MB + "[[1]]]", [2 * MB + 1, 1, 1])),
        "json: floats": lambda: _infer(tensors("[" + "1e9," * 3 * MB + "1]", [3 * MB + 1], "FP64")),
        "json: one huge number": lambda: _infer(tensors("1" * 15 * MB, [1])),
        "json: many tensors": lambda: _infer(b'{"inputs":[' + b'{"name":"a"},' * MB + b"{}]}"),
        "json: many outputs": lambda: _infer(tensors("[1]", [1], more=',"outputs":[' + '"a",' * 3 * MB + "1]")),
        "json: many keys": lambda: _infer(b"{" + b'"k":1,' * 2 * MB + b'"k":1}'),
        "json: escapes": lambda: _infer(b'{"id":"' + b"\\u00e9" * 2 * MB + b'"}'),
        "json: blanks": lambda: _infer(b" " * 60 * MB),
        "gzip: beyond the limit": lambda: _infer(bytes(200 * MB)),
        "gzip: cut": lambda: _infer(gzip.compress(bytes(MB))[:-9], "Content-Encoding: gzip", packed=False),
        "gzip: of gzip": lambda: _infer(gzip.compress(bytes(60 * MB))),
        "form: beyond the limit": lambda: _match(form(part("image0", bytes(200 * MB)))),
        "form: many fields": lambda: _match(form(*[part(f"f{i}", b"", None) for i in range(200_000)])),
        "form: a head without end": lambda: _match(b"--BB\r\nContent-Disposition: " + b"x" * 50 * MB),
        "form: heads": lambda: _match(b"--BB\r\n" + b"A: b\r\n" * 8 * MB),
        "form: almost boundaries": lambda: _match(part("image0", b"\r\n--B" * 10 * MB) + b"--BB--\r\n"),
        "form: line ends": lambda: _match(part("image0", b"\r\n" * 25 * MB) + b"--BB--\r\n"),
        "form: long boundary": lambda: _match(pair, "multipart/form-data; boundary=" + "B" * 3000),
        "form: a text without end": lambda: _match(form(part("engine", b"e" * 50 * MB, None))),
        "urlencoded": lambda: _match(b"&" * 60 * MB, "application/x-www-form-urlencoded"),
        "urlencoded, not packed": lambda: _match(b"a=b&" * MB, "application/x-www-form-urlencoded", packed=False),
        "text/plain": lambda: _match(pair, "text/plain", packed=False),
        "another site": lambda: _match(pair, FORM, *evil, packed=False),
        "another site, urlencoded": lambda: _match(b"a=b", "application/x-www-form-urlencoded", *evil),
        "too long, says the head": lambda: lambda t: _POST + b"Content-Length: 1000000000000\r\n\r\n",
        "image: scans": lambda: _match(form(part("image0", scans(1000, 1500)), part("image1", picture()))),
        "image: large": lambda: _match(form(part("image0", large()), part("image1", large()))),
        "binary: many empty elements": lambda: many_elements,
    }  # fmt: skip


@cache
def large() -> bytes:
    """A PNG of 49 megapixels, all of one value."""
    buffer = io.BytesIO()
    Image.new("L", (7000, 7000)).save(buffer, "PNG")
    return buffer.getvalue()


def many_elements(target: Target) -> bytes:
    """A BYTES tensor of 10 million empty elements."""
    count = 10 * MB
    entry = {"name": "image0", "shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": 4 * count}}
    head = json.dumps({"inputs": [entry]}).encode()
    size = f"Inference-Header-Content-Length: {len(head)}"
    path = f"/v2/models/{target.model}-files/infer"
    return request(path, head + bytes(4 * count), "application/octet-stream", size, packed=True)


def body_attack(name: str, at_once: int = 4) -> Attack:
    """Sends one of `bodies` several times at once."""

    def run(target: Target) -> Seen:
        data = bodies()[name]()(target)
        count = target.some(at_once)
        with ThreadPoolExecutor(count) as crowd:
            return Seen(crowd.map(lambda _: ask(target.http, data), range(count)))

    return run


# -------------------------------------------------------------------------------------------------- HTTP, connections


@contextlib.contextmanager
def links(port: int, count: int) -> Iterator[list[socket.socket]]:
    """That many connections, or as many as there is room for."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                opened.append(socket.create_connection(("127.0.0.1", port), timeout=5))
        yield opened
    finally:
        for link in opened:
            link.close()


def send(link: socket.socket, data: bytes) -> bool:
    """Whether it could be sent."""
    try:
        link.sendall(data)
    except OSError:
        return False
    return True


def held(first: bytes, then: bytes = b"", count: int = 600, seconds: float = 3.0) -> Attack:
    """Connections that send something, then a little more now and then, and never end."""

    def run(target: Target) -> Seen:
        with links(target.http, target.some(count)) as opened:
            for link in opened:
                send(link, first.replace(b"MODEL", target.model.encode()))
            end = time.monotonic() + seconds * target.scale
            while time.monotonic() < end:
                time.sleep(0.2)
                for link in opened if then else ():
                    send(link, then)
            return Seen({"held": len(opened)})

    return run


def endless(first: bytes, more: bytes, most: int = 40 * MB) -> Attack:
    """A connection that sends without end, until it is closed."""

    def run(target: Target) -> Seen:
        with links(target.http, 1) as opened:
            sent = len(first)
            good = send(opened[0], first)
            while good and sent < most:
                good = send(opened[0], more)
                sent += len(more)
            return Seen({"taken" if good else status_of(opened[0]): 1})

    return run


def churn(target: Target) -> Seen:
    """Connections that are closed at once, some by a reset."""
    for number in range(target.some(1000)):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target.http), timeout=5) as link:
            if number % 2:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                link.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return Seen({"churned": 1})


def deaf(target: Target) -> Seen:
    """Connections that ask for much and read nothing."""
    wish = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with links(target.http, target.some(50)) as opened:
        for link in opened:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            link.setblocking(False)
        end = time.monotonic() + 3.0 * target.scale
        while time.monotonic() < end:
            for link in opened:
                with contextlib.suppress(OSError):
                    link.send(wish)
            time.sleep(0.01)
    return Seen({"deaf": 1})


def tokens(target: Target) -> Seen:
    """Guesses of a token."""

    def guess(number: int) -> str:
        bearer = f"Authorization: Bearer {number}"
        return ask(target.http, request("/v1/match", b"x", FORM, bearer))

    return Seen(guess(number) for number in range(target.some(100)))


# ---------------------------------------------------------------------------------------------------------------- gRPC


def call(target: Target, raw: bytes, method: str = "ModelInfer", *, seconds: float = 30.0) -> str:
    """The status of a call on a connection of its own."""
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(f"127.0.0.1:{target.grpc}", options) as channel:
        try:
            channel.unary_unary(f"/{SERVICE}/{method}")(raw, timeout=seconds)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf with a length."""
    size, text = len(content), bytearray(((number << 3) | 2,))
    while size > 127:
        text.append(size & 127 | 128)
        size >>= 7
    return bytes((*text, size)) + content


def messages() -> dict[str, Callable[[], tuple[str, bytes]]]:
    """Method and message by name."""
    return {
        "empty inputs": lambda: ("ModelInfer", b"\x2a\x00" * 30 * MB),
        "empty outputs": lambda: ("ModelInfer", b"\x32\x00" * 30 * MB),
        "empty raw contents": lambda: ("ModelInfer", b"\x3a\x00" * 30 * MB),
        "empty parameters": lambda: ("ModelInfer", b"\x22\x00" * 30 * MB),
        "unknown fields": lambda: ("ModelInfer", b"\x78\x00" * 30 * MB),
        "small numbers": lambda: ("ModelInfer", field(5, field(5, field(5, bytes(60 * MB))))),
        "numbers one by one": lambda: ("ModelInfer", field(5, field(5, b"\x08\x00" * 30 * MB))),
        "empty texts": lambda: ("ModelInfer", field(5, field(5, b"\x42\x00" * 30 * MB))),
        "a long shape": lambda: ("ModelInfer", field(5, field(3, bytes(60 * MB)))),
        "parameters of an output": lambda: ("ModelInfer", field(6, b"\x12\x00" * 30 * MB)),
        "groups": lambda: ("ModelInfer", b"\x0b" * 60 * MB),
        "cut": lambda: ("ModelInfer", field(7, bytes(50 * MB))[:-1]),
        "a large name": lambda: ("ModelReady", field(1, b"n" * 60 * MB)),
        "metadata of a large name": lambda: ("ModelMetadata", field(1, b"n" * 60 * MB)),
        "beyond the limit": lambda: ("ModelInfer", bytes(200 * MB)),
    }


def message_attack(name: str, at_once: int = 8) -> Attack:
    """Sends one of `messages` several times at once."""

    def run(target: Target) -> Seen:
        method, raw = messages()[name]()
        count = target.some(at_once)
        with ThreadPoolExecutor(count) as crowd:
            return Seen(crowd.map(lambda _: call(target, raw, method), range(count)))

    return run


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(content))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + content


def infer_head(stream: int) -> bytes:
    """The head of a call, as HPACK without compression."""
    pairs = {
        ":method": "POST", ":scheme": "http", ":path": f"/{SERVICE}/ModelInfer", ":authority": "127.0.0.1",
        "content-type": "application/grpc", "te": "trailers",
    }  # fmt: skip
    text = b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in pairs.items()
    )
    return frame(1, 4, stream, text)


def frames(make: Callable[[int], bytes], count: int = 20_000) -> Attack:
    """A connection of HTTP/2 with many frames, until it is closed."""

    def run(target: Target) -> Seen:
        with links(target.grpc, 1) as opened:
            good = send(opened[0], PREFACE)
            for number in range(target.some(count)):
                good = good and send(opened[0], make(2 * number + 1))
            return Seen({"taken" if good else "closed": 1})

    return run


def half_calls(target: Target) -> Seen:
    """Calls that send the length of a message and never the message, 50 on each connection."""
    with links(target.grpc, target.some(20)) as opened:
        for link in opened:
            calls = [infer_head(2 * n + 1) + frame(0, 0, 2 * n + 1, b"\0" + struct.pack(">I", 60 * MB) + bytes(9))
                     for n in range(50)]  # fmt: skip
            send(link, PREFACE + b"".join(calls))
        time.sleep(3.0 * target.scale)
    return Seen({"held": len(opened)})


def idle_grpc(target: Target) -> Seen:
    """Connections of HTTP/2 without a call, and some that do not even begin."""
    with links(target.grpc, target.some(600)) as opened:
        for number, link in enumerate(opened):
            send(link, PREFACE if number % 2 else PREFACE[:9])
        time.sleep(2.0 * target.scale)
    return Seen({"held": len(opened)})


# ----------------------------------------------------------------------------------------------------------------- all

_GET = b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_POST = b"POST /v1/match HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=BB\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"

CONNECTIONS: dict[str, Attack] = {
    "half a line": held(b"GET / HT"),
    "half a head": held(_GET),
    "nothing at all": held(b""),
    "a head by the byte": held(_GET, b"A"),
    "a head by the line": held(_GET, b"A: b\r\n"),
    "idle after a request": held(_GET + b"\r\n"),
    "idle after a refusal": held(_POST + b"Content-Length: 99999999999\r\n\r\n"),
    "a body by the byte": held(_POST + b"Content-Length: 1000000\r\n\r\n", b"-", 40),
    "a body by the chunk": held(_CHUNKED, b"1\r\n-\r\n", 40),
    "a body of which nothing comes": held(_POST + b"Content-Length: 60000000\r\n\r\n", b"", 600),
    "a body after a promise": held(_POST + b"Expect: 100-continue\r\nContent-Length: 60000000\r\n\r\n", b"", 100),
    "an address without end": endless(b"GET /", b"a" * 65536),
    "a field without end": endless(_GET + b"A: ", b"a" * 65536),
    "fields without end": endless(_GET, b"A: b\r\n" * 10_000),
    "a chunk's extension without end": endless(_CHUNKED + b"5;a=", b"a" * 65536),
    "a trailer without end": endless(_CHUNKED + b"1\r\nx\r\n0\r\nA: ", b"a" * 65536),
    "trailers without end": endless(_CHUNKED + b"1\r\nx\r\n0\r\n", b"A: b\r\n" * 10_000),
    "the rest of a refused body without end": endless(
        b"POST /v1/match HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"10000\r\n" + bytes(65536) + b"\r\n", 200 * MB,
    ),
    "requests without waiting": endless(b"", (_GET + b"\r\n") * 5000, 20 * MB),
    "blank lines": endless(b"", b"\r\n" * 30_000),
    "connections opened and closed": churn,
    "answers that nobody reads": deaf,
    "guessed tokens": tokens,
}  # fmt: skip

GRPC: dict[str, Attack] = {
    "gRPC: pings": frames(lambda n: frame(6, 0, 0, bytes(8))),
    "gRPC: settings": frames(lambda n: frame(4, 0, 0, b"")),
    "gRPC: resets": frames(lambda n: infer_head(n) + frame(3, 0, n, bytes((0, 0, 0, 8)))),
    "gRPC: a head without end": frames(lambda n: frame(1 if n == 1 else 9, 0, 1, b"\0\1a\1b" * 1000)),
    "gRPC: windows": frames(lambda n: frame(8, 0, 0, bytes((0, 0, 0, 1)))),
    "gRPC: priorities": frames(lambda n: frame(2, 0, n, bytes(5))),
    "gRPC: empty data": frames(lambda n: infer_head(1) if n == 1 else frame(0, 0, 1, b"")),
    "gRPC: half calls": half_calls,
    "gRPC: idle connections": idle_grpc,
}


def attacks() -> dict[str, Attack]:
    """All attacks by name."""
    return {
        **{name: body_attack(name) for name in bodies()},
        **CONNECTIONS,
        **{f"gRPC: {name}": message_attack(name) for name in messages()},
        **GRPC,
    }
