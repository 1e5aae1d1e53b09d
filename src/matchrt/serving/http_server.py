"""The HTTP server: it accepts connections, with uvicorn's protocol on each, and ends them in time.

uvicorn's own server takes every connection that comes. Where descriptors are short, asyncio logs thousands of
tracebacks, and tries again thousands of times. So connections are accepted here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from matchrt.serving.connections import Connections, HttpConnection, answer
from matchrt.serving.failures import busy

LOGGER = logging.getLogger("matchrt.serving")
# Connections that are accepted before others get their turn.
_AT_ONCE = 32
_SWEEP_SECONDS = 0.25
# Seconds to wait where there is no descriptor or memory for a connection, and between two lines of the log about it.
_RETRY_SECONDS = 0.05
_LOG_SECONDS = 60.0
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class HttpServer:
    """Serves an ASGI application on a socket that listens, in the running event loop.

    table: of the connections, with their limits.
    """

    def __init__(self, app: Any, listener: socket.socket, table: Connections) -> None:
        self._listener, self.table = listener, table
        self._loop = asyncio.get_running_loop()
        self._config = uvicorn.Config(
            app, http=HttpConnection, interface="asgi3", lifespan="off", ws="none", log_config=None, access_log=False,
            server_header=False, proxy_headers=False,
        )  # fmt: skip
        self._config.load()
        self._state = ServerState()
        self._opening: set[asyncio.Task[None]] = set()
        self._full_logged = -_LOG_SECONDS
        self._listening = True
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._accept)
        self._sweep = self._loop.call_soon(self._tick)

    async def end(self, seconds: float) -> None:
        """Takes no more connections, lets answers under way be sent for some seconds, and closes everything."""
        self._listening = False
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self.table.shut_down()
        end = self._loop.time() + seconds
        while self.table and self._loop.time() < end:
            await asyncio.sleep(0.01)
        self.table.abort()
        self._sweep.cancel()
        # Requests hear that their connections have gone, and end; those that do not are cancelled.
        for cancel in (False, True):
            tasks = {*self._state.tasks, *self._opening}
            for task in tasks if cancel else ():
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=0.1)

    def _tick(self) -> None:
        date = formatdate(usegmt=True).encode()
        self._state.default_headers = [(b"date", date)]
        self.table.sweep(self._loop.time())
        self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._tick)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._opening and len(self.table) >= self.table.limit:
                return  # those that open now may be the ones that make room a moment later
            try:
                client, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            client.setblocking(False)
            host = str(address[0])
            if self.table.enter(host):
                task = self._loop.create_task(self._open(client, host))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
            else:
                _turn_away(client)

    async def _open(self, client: socket.socket, host: str) -> None:
        def make() -> HttpConnection:
            return HttpConnection(self._config, self._state, self._loop, self.table, host)

        try:
            await self._loop.connect_accepted_socket(make, client)
        except BaseException as error:
            client.close()
            self.table.leave(host)
            if not isinstance(error, Exception):
                raise
            LOGGER.warning("a connection could not be opened: %s", type(error).__name__)

    def _pause(self, error: OSError) -> None:
        """Makes room where descriptors or memory are short, and accepts again a little later."""
        if error.errno not in _SHORT:
            LOGGER.warning("a connection could not be accepted: %s", os.strerror(error.errno or 0))
            return
        now = self._loop.time()
        if now - self._full_logged >= _LOG_SECONDS:
            self._full_logged = now
            LOGGER.warning("no more connections: %s; idle ones are closed", os.strerror(error.errno))
        self.table.close_oldest()
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(_RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._listening:
            self._loop.add_reader(self._listener.fileno(), self._accept)


def _turn_away(client: socket.socket) -> None:
    with client:
        try:
            client.send(answer(busy()))
        except OSError:
            return
