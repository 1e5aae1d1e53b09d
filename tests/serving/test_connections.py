"""The limits on HTTP connections, against a real server on a loopback port in this process."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from matchrt.serving import connections, http_server
from matchrt.serving.connections import Connections
from matchrt.serving.http_server import HttpServer
from matchrt.serving.limits import ConnectionLimits, connection_limits
from matchrt.serving.log_limits import FirstFew

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Site:
    """A server of an application that says how long the path is; `/wait` waits for `go`, `/long` is ten megabytes."""

    def __init__(self, limit: int, per_address: int, largest: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.go = asyncio.Event()
        self.table = Connections(limit, per_address, largest)
        self.server = HttpServer(self._answer, self.listener, self.table)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await self.go.wait()
        if scope["path"] == "/body":
            while (await receive()).get("more_body"):
                pass
        body = bytes(10_000_000) if scope["path"] == "/long" else scope["path"].encode()
        size = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [size]})
        await send({"type": "http.response.body", "body": body})

    async def open(self, data: bytes = b"") -> Streams:
        streams = await asyncio.open_connection("127.0.0.1", self.port)
        streams[1].write(data)
        await asyncio.sleep(0.02)
        return streams

    async def ask(self, data: bytes) -> int:
        """The status of an answer; 0 if the connection closes without one."""
        return await status(await self.open(data))


async def status(streams: Streams) -> int:
    try:
        head = await asyncio.wait_for(streams[0].readuntil(b"\r\n\r\n"), 10)
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    return int(head[9:12])


async def closed(streams: Streams) -> bool:
    """Whether the other side has closed the connection, or does so in two seconds."""
    try:
        while await asyncio.wait_for(streams[0].read(65536), 2):
            pass
    except asyncio.TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def at(test: Callable[[Site], Awaitable[None]], limit: int = 20, per_address: int = 20, largest: int = 100_000) -> None:
    async def main() -> None:
        site = Site(limit, per_address, largest)
        try:
            await test(site)
        finally:
            site.go.set()
            await site.server.end(0.2)
            assert len(site.table) == 0

    asyncio.run(main())


def test_ordinary_requests() -> None:
    async def test(site: Site) -> None:
        reader, writer = await site.open(GET + b"\r\n")
        for path in ("/", "/b", "/body"):
            assert await status((reader, writer)) == 200
            assert await reader.readexactly(len(path)) == path.encode() if path == "/" else True
            await reader.read(100) if path != "/" else None
            writer.write(POST.replace(b"/ ", b"/body ") + b"Content-Length: 3\r\n\r\nabc")
        assert len(site.table) == 1
        writer.close()
        # Eight may wait for the first answer.
        assert await site.ask((GET + b"\r\n") * 8) == 200

    at(test)


@pytest.mark.parametrize("head", [
    GET + b"A: " + b"a" * 40_000, GET + b"A: " + b"a" * 40_000 + b"\r\n\r\n", GET + b"A: b\r\n" * 101 + b"\r\n",
    b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", GET + b"A" * 40_000 + b": b\r\n\r\n", GET + b"A: b\r\n" * 30_000,
    b"GET /" + b"a" * 400_000,
])  # fmt: skip
def test_heads_that_are_too_large(head: bytes) -> None:
    async def test(site: Site) -> None:
        # What has no end is seen to be too large a little later.
        streams = await site.open(head + b"" if b"\r\n\r\n" in head else head + b"a" * 200_000)
        assert await status(streams) == 431 and await closed(streams)

    at(test)


@pytest.mark.parametrize("data", [
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=" + b"a" * 300_000,
    b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: " + b"a" * 300_000,
    b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 50_000,
    b"\r\n" * 200_000,
    (GET + b"\r\n") * 5000,
])  # fmt: skip
def test_what_comes_without_end_is_cut(data: bytes) -> None:
    async def test(site: Site) -> None:
        streams = await site.open()
        for _ in range(3):
            streams[1].write(data)
            await asyncio.sleep(0.05)
        assert await closed(streams)

    at(test)


def test_too_many_requests_end_the_first_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async def test(site: Site) -> None:
        many = await site.open(GET.replace(b"/ ", b"/wait ") + b"\r\n" + (GET + b"\r\n") * 20)
        site.go.set()
        assert await closed(many)
        await asyncio.sleep(0.05)

    at(test)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_head_has_its_time_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that come now and then do not make it longer; nor do whole requests before it."""
    seconds = dict.fromkeys(connections._SECONDS, 0.4)
    monkeypatch.setattr(connections, "_SECONDS", {**seconds, connections.Phase.IDLE: 0.9})
    monkeypatch.setattr(http_server, "_SWEEP_SECONDS", 0.05)

    async def test(site: Site) -> None:
        start = time.monotonic()
        silent, half, second, idle = [await site.open(data) for data in (b"", GET, GET + b"\r\n" + GET, GET + b"\r\n")]
        assert await status(second) == 200 and await status(idle) == 200
        await second[0].readexactly(1)
        for _ in range(12):
            for _, writer in (half, second):
                writer.write(b"A: b\r\n")
            await asyncio.sleep(0.05)
        assert await status(half) == 408 and await status(second) == 408
        assert await closed(silent) and await closed(half)
        assert time.monotonic() - start < 3
        # A connection without a request may be open for longer.
        assert await closed(idle)
        assert time.monotonic() - start >= 0.8

    at(test)


def test_the_rest_of_a_refused_body_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_SECONDS", dict.fromkeys(connections._SECONDS, 0.4))
    monkeypatch.setattr(http_server, "_SWEEP_SECONDS", 0.05)

    async def test(site: Site) -> None:
        whole = await site.open(POST + b"Content-Length: 90000\r\n\r\n")
        assert await status(whole) == 200  # it answers without reading
        whole[1].write(b"-" * 90_000 + GET + b"\r\n")
        assert await whole[0].readexactly(1) and await status(whole) == 200  # and takes the next request
        slow, large = [await site.open(POST + b"Content-Length: 9000000\r\n\r\n") for _ in range(2)]
        large[1].write(b"-" * 2_000_000)
        assert await closed(large) and await closed(slow)

    at(test)


def test_who_waits_longest_makes_room() -> None:
    async def test(site: Site) -> None:
        working = await site.open(GET.replace(b"/ ", b"/wait ") + b"\r\n")
        idle = await site.open(GET + b"\r\n")
        half = [await site.open(GET) for _ in range(30)]
        for streams in half[:12]:
            assert await closed(streams)
        assert len(site.table) == 20
        # New requests are answered all the time; and none under way is given up for them. Who has sent a whole request
        # may stay for longer.
        assert [await site.ask(GET + b"\r\n") for _ in range(10)] == [200] * 10
        assert await status(idle) == 200
        site.go.set()
        assert await status(working) == 200

    at(test)


def test_who_works_is_not_closed_for_anybody() -> None:
    async def test(site: Site) -> None:
        working = [await site.open(GET.replace(b"/ ", b"/wait ") + b"\r\n") for _ in range(20)]
        assert await site.ask(b"") == 429
        site.go.set()
        assert [await status(streams) for streams in working] == [200] * 20
        assert await site.ask(GET + b"\r\n") == 200

    at(test)


def test_one_address_has_a_share() -> None:
    table = Connections(10, 4, 1000)

    class Waiting:
        phase = connections.Phase.FIRST_HEAD
        closed, rank = False, 0

        def __init__(self, address: str) -> None:
            self.address = address
            table.add(self)  # type: ignore[arg-type]
            table.waits(self)  # type: ignore[arg-type]

        def abort(self) -> None:
            self.closed = True
            table.remove(self)  # type: ignore[arg-type]

    def come(address: str) -> Waiting | None:
        return Waiting(address) if table.enter(address) else None

    others = [come("b") for _ in range(3)]
    mine = [come("a") for _ in range(9)]
    assert [one.closed for one in mine if one] == [True] * 5 + [False] * 4
    assert not any(one.closed for one in others if one)
    assert len(table) == 7
    for one in mine[5:]:
        assert one is not None
        one.phase = connections.Phase.WORK
        table.waits(one)  # type: ignore[arg-type]
    assert come("a") is None and come("c") is not None
    # Full: the oldest of all makes room.
    come("d"), come("e"), come("f")
    assert others[0] is not None and others[0].closed and len(table) == 10


def test_who_takes_no_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SENDING_SECONDS", 0.3)
    monkeypatch.setattr(http_server, "_SWEEP_SECONDS", 0.05)

    async def test(site: Site) -> None:
        with socket.create_connection(("127.0.0.1", site.port)) as deaf:
            deaf.send(GET.replace(b"/ ", b"/long ") + b"\r\n")
            await asyncio.sleep(0.2)
            assert len(site.table) == 1
            await asyncio.sleep(0.6)
            assert len(site.table) == 0

    at(test, largest=20_000_000)


def test_all_that_wait_to_be_taken_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_SWEEP_SECONDS", 0.05)

    async def test(site: Site) -> None:
        deaf = []
        for _ in range(6):
            deaf.append(socket.create_connection(("127.0.0.1", site.port)))
            deaf[-1].send(GET.replace(b"/ ", b"/long ") + b"\r\n")
        await asyncio.sleep(0.5)
        assert 1 <= len(site.table) <= 5
        for one in deaf:
            one.close()

    at(test, largest=8_000_000)


def test_the_end_waits_for_answers_but_not_for_clients() -> None:
    async def test(site: Site) -> None:
        working = await site.open(GET.replace(b"/ ", b"/wait ") + b"\r\n")
        half, idle = await site.open(GET), await site.open(GET + b"\r\n")
        start = time.monotonic()
        ending = asyncio.ensure_future(site.server.end(5.0))
        await asyncio.sleep(0.05)
        site.go.set()
        await ending
        assert time.monotonic() - start < 2
        assert await status(working) == 200 and await closed(half) and await closed(idle)

    async def stuck(site: Site) -> None:
        await site.open(GET.replace(b"/ ", b"/wait ") + b"\r\n")
        start = time.monotonic()
        await site.server.end(0.2)
        assert time.monotonic() - start < 2

    async def main(one: Any) -> None:
        await one(Site(20, 20, 1000))

    for one in (test, stuck):
        asyncio.run(main(one))


def test_without_descriptors_it_says_so_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        """A socket for which there is no descriptor for a while."""

        def __init__(self, listener: socket.socket) -> None:
            self._listener, self.left = listener, 5

        def accept(self) -> Any:
            if self.left:
                self.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self._listener.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._listener, name)

    async def test(site: Site) -> None:
        half = await site.open(GET)
        site.server._listener = Full(site.listener)  # type: ignore[assignment]
        with caplog.at_level(logging.WARNING):
            assert await site.ask(GET + b"\r\n") == 200
        assert len(caplog.records) == 1 and "Too many open files" in caplog.text
        assert await closed(half)

    at(test)


def test_limits_follow_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    from matchrt.serving import limits

    assert connection_limits() == ConnectionLimits(512, 4096) or connection_limits().http <= 512
    for allowed, most in ((64, 64), (256, 256), (1024, 1024), (1 << 20, 5000)):
        monkeypatch.setattr(limits.resource, "getrlimit", lambda kind, allowed=allowed: (allowed, allowed))
        found = connection_limits()
        assert 4 <= found.http <= 512 and 4 <= found.grpc <= 4096 and found.http + found.grpc <= most


def test_the_log_has_the_first_few(monkeypatch: pytest.MonkeyPatch) -> None:
    few = FirstFew()

    def record(text: str, value: int) -> logging.LogRecord:
        return logging.LogRecord("x", logging.ERROR, "", 0, text, (value,), None)

    assert [few.filter(record("bad %d", value)) for value in range(8)] == [True] * 5 + [False] * 3
    assert few.filter(record("other %d", 1))
    now = time.monotonic() + 100
    monkeypatch.setattr("matchrt.serving.log_limits.time.monotonic", lambda: now)
    again = record("bad %d", 9)
    assert few.filter(again) and again.getMessage().startswith("bad 9 (and 3 more like it")
