"""The gRPC server, on grpc.aio."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from matchrt._version import __version__
from matchrt.errors import MatchRTError
from matchrt.serving.admission import Admission, Place
from matchrt.serving.body import LARGE, SECONDS, slow
from matchrt.serving.call import Call
from matchrt.serving.failures import abandoned, busy, grpc_status, lacks_memory, surprise
from matchrt.serving.grpc_bounds import check_infer, check_small, damaged
from matchrt.serving.grpc_messages import SERVICE, message
from matchrt.serving.grpc_reading import InTurn
from matchrt.serving.grpc_tensors import read_call, write_answer
from matchrt.serving.http_guard import require_token
from matchrt.serving.infer import infer_job, model_metadata, server_metadata
from matchrt.serving.models import VERSION, Model, find
from matchrt.serving.service import Job, Service
from matchrt.serving.tensors import InferCall, Tensor, Wanted

LOGGER = logging.getLogger("matchrt.serving")
Handler = Callable[[Any], Awaitable[Any]]
_OPEN = ("ServerLive", "ServerReady")
# Calls other than ModelInfer whose messages are read at the same time, and how long one may take.
_SMALL_CALLS = 2
_SMALL_SECONDS = 2.0
# Calls of one connection, and of all, that are answered at the same time. Those without a place are refused at once.
_STREAMS = 100
_CALLS = 1024
# grpc joins a message's bytes, and copies them, in the event loop. So a message may be half as long as a body, or
# health would wait for it.
_SHARE = 2
# Seconds that a connection may take to become one of HTTP/2, and that it may have no call.
_HANDSHAKE = 10
_IDLE = 60


class GrpcService:
    """The protocol's six calls. A MatchRTError that one raises becomes the call's status.

    Each is one message in both directions, as the protocol has it. Here the message is read when it is asked for, so
    that a call first shows its token and gets a place. Until then gRPC's flow control keeps it with the client.
    """

    def __init__(self, service: Service, models: Mapping[str, Model]) -> None:
        self._service, self._models = service, models
        self._turns = asyncio.Lock()
        self._small = Admission(_SMALL_CALLS, _SMALL_CALLS * service.options.max_body, service.trimmer.freed)

    async def server_live(self, context: Any) -> Any:
        """Says that the process answers."""
        return message("ServerLiveResponse")(live=True)

    async def server_ready(self, context: Any) -> Any:
        """Says whether the service takes requests."""
        return message("ServerReadyResponse")(ready=self._service.ready)

    async def model_ready(self, context: Any) -> Any:
        """Says whether the service takes requests for a model. Error: model-not-served."""
        request = await self._read_small("ModelReadyRequest", context)
        find(self._models, request.name, request.version)
        return message("ModelReadyResponse")(ready=self._service.ready)

    async def server_metadata(self, context: Any) -> Any:
        """Name, version and extensions of the server."""
        return message("ServerMetadataResponse")(**server_metadata(__version__))

    async def model_metadata(self, context: Any) -> Any:
        """Inputs and outputs of a model. Error: model-not-served."""
        request = await self._read_small("ModelMetadataRequest", context)
        return message("ModelMetadataResponse")(**model_metadata(find(self._models, request.name, request.version)))

    async def model_infer(self, context: Any) -> bytes:
        """Runs a model. Errors: model-not-served, request-invalid, those of `Service.run`."""
        place = self._service.enter()
        try:
            received = [await _read(context, self._turns, place, SECONDS)]
            left = context.time_remaining()
            # If the caller set no deadline, grpc returns a very large number.
            call = Call(min(self._service.options.timeout, left) if left is not None else self._service.options.timeout)

            # Parsing a message may take long, so the request's own thread does it, and looks for the model.
            def prepare() -> Job[bytes]:
                raw = received.pop()
                with call.alone(self._service.parsing if len(raw) >= LARGE else None):
                    check_infer(raw)
                    request = _parse("ModelInferRequest", raw)
                    del raw
                    model = find(self._models, request.model_name, request.model_version)
                    asked = read_call(request)
                del request

                def write(asked: InferCall, tensors: list[Tensor], wanted: tuple[Wanted, ...]) -> bytes:
                    return bytes(write_answer(model.name, VERSION, asked, tensors).SerializeToString())

                return infer_job(model, call, asked, write)

            return await self._service.run(None, call, prepare, place)
        finally:
            if not place.used:
                place.leave()

    def handlers(self) -> Any:
        """The handlers of the methods, by their names, as grpc takes them."""
        methods: dict[str, Handler] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                # Of the kinds of calls, this one leaves it to the handler when the message is read.
                name: grpc.stream_unary_rpc_method_handler(self._guarded(name, handler))
                for name, handler in methods.items()
            },
        )

    def _guarded(self, name: str, handler: Handler) -> Callable[[Any, Any], Awaitable[bytes]]:
        """The handler as a function that gives bytes; an exception that it raises becomes the call's status."""

        async def answer(_: Any, context: Any) -> bytes:
            start, status = time.perf_counter(), "OK"
            try:
                self._require_token(name, context)
                found = await handler(context)
                return found if isinstance(found, bytes) else bytes(found.SerializeToString())
            except asyncio.CancelledError:
                status = "CANCELLED"
                raise
            except MatchRTError as error:
                # Not the error itself: this frame would keep it, and it would keep this frame.
                status, text = grpc_status(error), str(error)
            except Exception as error:
                if lacks_memory(error):
                    LOGGER.error("out of memory in %s", name)
                else:
                    LOGGER.exception("unexpected failure in %s", name)
                failure = surprise(error)
                status, text = grpc_status(failure), str(failure)
            finally:
                self._service.metrics.answered("grpc", name, status, time.perf_counter() - start)
            await context.abort(getattr(grpc.StatusCode, status), text)
            raise AssertionError("abort raises")

        return answer

    def _require_token(self, name: str, context: Any) -> None:
        token = self._service.options.token
        if token is not None and name not in _OPEN:
            given = dict(context.invocation_metadata() or ()).get("authorization")
            require_token(given if isinstance(given, str) else None, token)

    async def _read_small(self, name: str, context: Any) -> Any:
        """A message that has a name or two. Few are read at a time, since only a whole one shows its size."""
        place = self._small.enter()
        try:
            raw = await _read(context, self._turns, place, _SMALL_SECONDS)
        finally:
            place.leave()
        check_small(raw)
        return _parse(name, raw)


async def _read(context: Any, turns: asyncio.Lock, place: Place, seconds: float) -> bytes:
    """The call's message. Errors: body-slow, request-invalid; server-busy if others got the place or hold too much."""

    async def in_turn() -> Any:
        return await InTurn(context.read(), turns)

    # It is never cancelled, because grpc may still write into what it waits for. It ends when the call does.
    work = asyncio.ensure_future(in_turn())
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def give_up() -> None:
        if not lost.done():
            lost.set_result(None)

    place.arriving(give_up)
    try:
        await asyncio.wait((work, lost), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        place.arrived()
    if place.lost:
        raise busy()
    if not work.done():
        raise slow()
    try:
        raw = work.result()
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "grpc":  # of the ways in which it says that the client has gone
            raise abandoned() from None
        raise
    if not isinstance(raw, bytes):  # the client has ended its side without a message
        raise damaged()
    place.hold(len(raw))
    return raw


def _parse(name: str, raw: bytes) -> Any:
    try:
        return message(name).FromString(raw)
    except DecodeError as error:
        raise damaged() from error


def make_server(service: Service, models: Mapping[str, Model], connections: int = 512) -> tuple[Any, int]:
    """A server that listens, and its port. It must be started in the running event loop.

    connections: how many it keeps at most. Error: port-taken.
    """
    options = service.options
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", options.max_body // _SHARE),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            # Without probing, a message that is not asked for stays with the client but for 64 kB.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_concurrent_streams", _STREAMS),
            ("grpc.max_allowed_incoming_connections", connections),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE * 1000),
            ("grpc.max_connection_idle_ms", _IDLE * 1000),
        ),
        maximum_concurrent_rpcs=_CALLS,
    )
    server.add_generic_rpc_handlers((GrpcService(service, models).handlers(),))
    host = f"[{options.host}]" if ":" in options.host else options.host
    try:
        port = server.add_insecure_port(f"{host}:{options.grpc}")
    except RuntimeError as error:
        raise port_taken(options.host, options.grpc) from error
    return server, port


def port_taken(host: str, port: int | None) -> MatchRTError:
    """The error of a port that another program uses, or an address that is not this machine's."""
    return MatchRTError("port-taken", f"Cannot listen on {host}:{port}.", "Choose another port or address; 0 is any.")
