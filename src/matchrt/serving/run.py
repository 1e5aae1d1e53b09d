"""Starts a service, and ends it without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from matchrt.serving.grpc_server import make_server, port_taken
from matchrt.serving.http_app import make_app
from matchrt.serving.models import models_of
from matchrt.serving.service import Service

LOGGER = logging.getLogger("matchrt.serving")
# Connections of idle clients are closed after this many seconds.
_KEEP_ALIVE = 30
_MAX_CONNECTIONS = 512
# When the service ends, finished answers get this many seconds to reach slow clients.
_SENDING = 5
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


class _HttpServer(uvicorn.Server):
    """uvicorn without its own signal handlers, because `serve` ends both protocols in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(service: Service, started: Callable[[Listening], None]) -> None:
    """Serves until SIGTERM or SIGINT, then takes no more requests, finishes those under way, and ends.

    A second signal ends the wait. started: called with where the service listens, as soon as it does. Errors:
    port-taken, serve-name, decoder-start.
    """
    models = models_of(service)
    service.decoders.start()
    options = service.options
    stop = asyncio.Event()
    with _on_signals(stop.set):
        listener = None if options.http is None else _listen(options.host, options.http)
        http = None if listener is None else _start_http(service, make_app(service, models), listener)
        grpc = None
        try:
            grpc, grpc_port = (None, None) if options.grpc is None else make_server(service, models)
            if grpc is not None:
                await grpc.start()
            started(Listening(options.host, None if listener is None else listener.getsockname()[1], grpc_port))
            await stop.wait()
            stop.clear()
            LOGGER.info("shutting down: finishing the requests under way")
            await _first_of(service.drain(), stop.wait())
        finally:
            if grpc is not None:
                await grpc.stop(_SENDING)
            if http is not None:
                await http()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off, which costs 40 ms an answer, only for sockets that name their protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise port_taken(host, port) from error
    return listener


def _start_http(service: Service, app: Any, listener: socket.socket) -> Callable[[], Any]:
    """Starts the HTTP server on a socket, and returns the function that ends it."""
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_SENDING,
        limit_concurrency=_MAX_CONNECTIONS,
        ws="none",
    )
    server = _HttpServer(config)
    task = asyncio.ensure_future(server.serve(sockets=[listener]))

    async def end() -> None:
        server.should_exit = True
        await task

    return end


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
