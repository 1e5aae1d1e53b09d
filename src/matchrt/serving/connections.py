"""The limits on HTTP connections: how many there are, and how long and how large their heads may be.

uvicorn's protocol on httptools has no limit on the bytes or the time of a head: it counts the seconds between bytes
only. So each connection here tells a table what it waits for. The table closes those that wait for too long, and closes
the one that has waited longest where a new one needs room.
"""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from matchrt.errors import MatchRTError
from matchrt.serving.body import BODY
from matchrt.serving.failures import as_json, bad_request, http_status

# A head may have this many bytes and fields, and take this many seconds in all.
HEAD_BYTES = 32_768
HEAD_FIELDS = 100
HEAD_SECONDS = 10.0
# Seconds that a connection may be open without a request, after its first one.
IDLE_SECONDS = 30.0
# Seconds in which a client must take an answer, and send the rest of a body that was refused; and in which it must
# close after an answer that came before the end of its request: if the service closed then, the answer would be lost.
SENDING_SECONDS = 30.0
REST_SECONDS = 10.0
LAST_SECONDS = 3.0
# Requests that a client may send before the answer to its first one.
PIPELINED = 8
# Bytes that may come without being a head or a body, such as a chunk's extension or a trailer.
_LOOSE_BYTES = HEAD_BYTES + 65_536


class Phase(enum.Enum):
    """What a connection waits for."""

    FIRST_HEAD = "its first request's head"
    HEAD = "the rest of another head"
    IDLE = "another request"
    WORK = "the service"
    REST = "the rest of a refused body"
    LAST = "the client, to close after its last answer"
    CLOSING = "the client, to take its last answer"


_SECONDS = {
    Phase.FIRST_HEAD: HEAD_SECONDS, Phase.HEAD: HEAD_SECONDS, Phase.IDLE: IDLE_SECONDS, Phase.REST: REST_SECONDS,
    Phase.LAST: LAST_SECONDS, Phase.CLOSING: SENDING_SECONDS,
}  # fmt: skip


class Connections:
    """All HTTP connections of a service. It is used in the event loop's thread only. No method raises an error.

    limit: how many there may be.
    per_address: how many of one address.
    largest: bytes of the largest body. Four such answers may wait for clients to take them, and of a refused body so
        much is read and thrown away before its connection is closed.
    """

    def __init__(self, limit: int, per_address: int, largest: int) -> None:
        self.limit, self.per_address, self.largest = limit, per_address, largest
        self._count = 0
        self._all: set[HttpConnection] = set()
        self._addresses: dict[str, int] = {}
        # By rank, in the order in which they began to wait.
        self._waiting: tuple[OrderedDict[HttpConnection, None], ...] = (OrderedDict(), OrderedDict(), OrderedDict())

    def __len__(self) -> int:
        return self._count

    def enter(self, address: str) -> bool:
        """Counts a connection that comes; False if there is no room.

        Where it is full, whoever waits longest is closed for it: of the same address if that has too many, and of those
        that have sent no whole request before those whose requests were worked on.
        """
        of_address = self._addresses.get(address, 0)
        if of_address >= self.per_address and not self.close_oldest(address):
            return False
        if self._count >= self.limit and not self.close_oldest():
            return False
        self._addresses[address] = self._addresses.get(address, 0) + 1
        self._count += 1
        return True

    def leave(self, address: str) -> None:
        """Counts a connection that has gone."""
        self._count -= 1
        left = self._addresses.get(address, 0) - 1
        if left > 0:
            self._addresses[address] = left
        else:
            self._addresses.pop(address, None)

    def close_oldest(self, address: str | None = None) -> bool:
        """Closes the connection that has waited longest, of that address or of any; False if none waits."""
        for waiting in self._waiting:
            for connection in waiting:
                if address is None or connection.address == address:
                    connection.abort()
                    return True
        return False

    def add(self, connection: HttpConnection) -> None:
        """Called by a connection that has begun."""
        self._all.add(connection)

    def remove(self, connection: HttpConnection) -> None:
        """Called by a connection that has ended, or that was given up."""
        if connection in self._all:
            self._all.remove(connection)
            self._forget(connection)
            self.leave(connection.address)

    def waits(self, connection: HttpConnection) -> None:
        """Called by a connection whose phase has changed."""
        self._forget(connection)
        if connection.phase is not Phase.WORK and connection in self._all:
            self._waiting[connection.rank][connection] = None

    def _forget(self, connection: HttpConnection) -> None:
        for waiting in self._waiting:
            waiting.pop(connection, None)

    def sweep(self, now: float) -> None:
        """Closes connections that have waited for too long; called a few times a second.

        now: on the event loop's clock.
        """
        unsent = 0
        for connection in list(self._all):
            unsent += connection.check(now)
            if unsent > 4 * self.largest:
                connection.abort()

    def shut_down(self) -> None:
        """Closes connections without a request under way; the others close after their answers."""
        for connection in list(self._all):
            connection.shutdown()

    def abort(self) -> None:
        """Closes all connections at once."""
        for connection in list(self._all):
            connection.abort()


class HttpConnection(HttpToolsProtocol):
    """One connection: uvicorn's, with limits.

    table: that counts it already.
    address: of the client.
    """

    def __init__(
        self, config: uvicorn.Config, state: ServerState, loop: asyncio.AbstractEventLoop, table: Connections,
        address: str,
    ) -> None:  # fmt: skip
        super().__init__(config, state, {}, loop)
        self.address, self._table = address, table
        self.phase, self._since = Phase.FIRST_HEAD, loop.time()
        # 0 before a whole request; 1 after one; 2 after one that had a place.
        self.rank = 0
        self._head = self._fields = self._loose = self._rest = 0
        self._in_head = self._in_body = False
        self._sending: float | None = None
        self._failure: MatchRTError | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(_Transport(transport, self))  # type: ignore[arg-type]
        self._table.add(self)
        self._table.waits(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._table.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.phase in (Phase.REST, Phase.LAST):
            self._rest += len(data)
            if self._rest > self._table.largest:
                self.abort()
        if self.transport.is_closing():
            return
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        self._loose += len(data)
        super().data_received(data)
        if self._loose > _LOOSE_BYTES and not self.transport.is_closing():
            self._refuse(_head_too_large())

    # What httptools calls. What these raise ends the connection.

    def on_message_begin(self) -> None:
        """A request begins."""
        if len(self.pipeline) >= PIPELINED:
            self._failure = bad_request("Too many requests before the first answer.", "Wait for answers.")
            raise self._failure
        self._head = self._fields = 0
        self._in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of a trailer."""
        self._fields += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._loose, self._in_head, self._in_body = 0, False, True
        self._enter(Phase.WORK)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._loose, self._in_body = 0, False
        super().on_message_complete()
        if self.phase is Phase.REST:
            self._enter(Phase.IDLE)

    # What uvicorn calls.

    def on_response_complete(self) -> None:
        """An answer is written."""
        more = bool(self.pipeline)
        self.rank = max(self.rank, 2 if BODY in self.cycle.scope else 1)
        super().on_response_complete()
        # Idle connections are this table's matter.
        self._unset_keepalive_if_required()
        if not self.transport.is_closing() and not more:
            self._rest = 0
            self._enter(Phase.REST if self._in_body else Phase.HEAD if self._in_head else Phase.IDLE)

    def send_400_response(self, msg: str) -> None:
        """httptools cannot read the request, or one of the methods above has raised an error."""
        self._refuse(self._failure or bad_request(msg, "Send a request of HTTP/1.1."))

    # What the table calls.

    def check(self, now: float) -> int:
        """The bytes that the client has not taken. Closes the connection if it has waited for too long."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._sending = None
        elif self._sending is None:
            self._sending = now
        elif now - self._sending > SENDING_SECONDS:
            self.abort()
        waited = now - self._since
        if self.phase is not Phase.WORK and waited > _SECONDS[self.phase]:
            if self.phase in (Phase.FIRST_HEAD, Phase.HEAD) and self._in_head:
                what = f"The request's head took more than {HEAD_SECONDS:g} seconds."
                self._refuse(MatchRTError("header-slow", what, "Send it at once."))
            else:
                self.abort()
        return unsent

    def close(self, transport: asyncio.Transport) -> None:
        """Closes the connection so that its last answer arrives."""
        if self._in_body or self._in_head:
            # The kernel resets a connection that is closed while bytes of it are unread, and the answer with it.
            self._rest = 0
            try:
                transport.write_eof()
            except OSError:  # the client has reset it
                self.abort()
                return
            self.flow.resume_reading()
            self._enter(Phase.LAST)
        else:
            transport.close()
            self._enter(Phase.CLOSING)

    def shutdown(self) -> None:
        """Closes the connection after the answer under way, or at once."""
        if self.phase is Phase.WORK:
            super().shutdown()
        elif not self.transport.get_write_buffer_size():
            self.abort()

    def abort(self) -> None:
        """Closes the connection now, whatever it does."""
        self._table.remove(self)
        self.transport.abort()

    def _enter(self, phase: Phase) -> None:
        if phase is not self.phase:
            self.phase, self._since = phase, self.loop.time()
            self._table.waits(self)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_BYTES or self._fields > HEAD_FIELDS:
            self._failure = _head_too_large()
            raise self._failure

    def _refuse(self, failure: MatchRTError) -> None:
        """Answers, and closes the connection."""
        # An answer between the parts of another one would be read as a part of it.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(answer(failure))
        self._in_head = True  # or between heads, which is the same: not all that comes was read
        self.transport.close()


class _Transport:
    """A connection's transport for uvicorn's protocol; its `close` is the connection's."""

    def __init__(self, transport: asyncio.Transport, connection: HttpConnection) -> None:
        self._transport, self._connection = transport, connection
        self._closed = False

    def write(self, data: bytes) -> None:
        """See asyncio.Transport. Answers to requests before the last one are dropped once it is closed."""
        if not self._closed:
            self._transport.write(data)

    def close(self) -> None:
        """See asyncio.Transport."""
        if not self.is_closing():
            self._closed = True
            self._connection.close(self._transport)

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self._closed or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def answer(failure: MatchRTError) -> bytes:
    """The whole answer to a request that the application does not see."""
    body = orjson.dumps(as_json(failure))
    head = (
        f"HTTP/1.1 {http_status(failure)} Refused\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _head_too_large() -> MatchRTError:
    what = f"The request's head has more than {HEAD_BYTES} bytes or {HEAD_FIELDS} fields."
    return MatchRTError("header-too-large", what, "Send fewer or shorter header fields.")
