"""Starts a service, and ends it without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from matchrt.serving.connections import Connections
from matchrt.serving.grpc_server import make_server, port_taken
from matchrt.serving.http_app import make_app
from matchrt.serving.http_server import HttpServer
from matchrt.serving.limits import connection_limits
from matchrt.serving.log_limits import limit_logs
from matchrt.serving.memory import return_large_pieces
from matchrt.serving.models import models_of
from matchrt.serving.options import LOOPBACK
from matchrt.serving.service import Service

LOGGER = logging.getLogger("matchrt.serving")
# When the service ends, finished answers get this many seconds to reach slow clients, within `drain` and AFTER_DRAIN.
_SENDING = 5.0
# Seconds after the drain in which everything must have ended: a part for answers, and a part for engines and threads.
AFTER_DRAIN = 0.8
_LAST_ANSWERS = 0.4
# Connections that the system keeps until they are accepted. A client that finds no room tries again after a second.
_BACKLOG = 2048
# Seconds that a thread may keep the interpreter's lock while others want it: a fifth of Python's own, because an answer
# asks for the lock several times.
_SWITCH = 0.001
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Listening:
    """Where a service listens.

    host: the address.
    http: the HTTP port; None without HTTP.
    grpc: the gRPC port; None without gRPC.
    """

    host: str
    http: int | None
    grpc: int | None


async def serve(service: Service, started: Callable[[Listening], None]) -> None:
    """Serves until SIGTERM or SIGINT, then takes no more requests, finishes those under way, and ends.

    A second signal ends the wait. started: called with where the service listens, as soon as it does. Errors:
    port-taken, serve-name, decoder-start.
    """
    models = models_of(service)
    service.decoders.start()
    options, limits = service.options, connection_limits()
    return_large_pieces()
    sys.setswitchinterval(_SWITCH)
    limit_logs(("matchrt.serving", "asyncio", "uvicorn.error", "grpc._cython.cygrpc"))
    stop = asyncio.Event()
    end = time.monotonic()
    with _on_signals(stop.set):
        http, grpc, listener = None, None, None
        try:
            if options.http is not None:
                listener = _listen(options.host, options.http)
                # Of this machine's own addresses, one is everybody.
                each = limits.http if options.host in LOOPBACK else max(limits.http // 4, 1)
                http = HttpServer(make_app(service, models), listener, Connections(limits.http, each, options.max_body))
            grpc, grpc_port = (None, None) if options.grpc is None else make_server(service, models, limits.grpc)
            if grpc is not None:
                await grpc.start()
            started(Listening(options.host, None if listener is None else listener.getsockname()[1], grpc_port))
            await stop.wait()
            stop.clear()
            end = time.monotonic() + options.drain
            LOGGER.info("shutting down: finishing the requests under way")
            await _first_of(service.drain(), stop.wait())
        finally:
            left = min(_SENDING, max(end - time.monotonic(), 0.0) + _LAST_ANSWERS)
            ends = [*([grpc.stop(left)] if grpc is not None else ()), *([http.end(left)] if http is not None else ())]
            await asyncio.gather(*ends)


def close(service: Service, seconds: float = AFTER_DRAIN - _LAST_ANSWERS) -> None:
    """Closes a service. If a run or a thread does not end within `seconds`, the process ends here, with 0.

    Nobody waits for its result any more, and Python cannot end a thread.
    """
    closing = threading.Thread(target=service.close, daemon=True)
    closing.start()
    closing.join(seconds)
    if closing.is_alive():
        LOGGER.warning("ended before the last run was done")
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off, which costs 40 ms an answer, only for sockets that name their protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise port_taken(host, port) from error
    return listener


async def _first_of(*works: Any) -> None:
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


@contextlib.contextmanager
def _on_signals(handle: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
