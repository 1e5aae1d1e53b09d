"""The gRPC server, on grpc.aio."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.json_format import ParseDict

from matchrt._version import __version__
from matchrt.errors import MatchRTError
from matchrt.serving.admission import Admission
from matchrt.serving.failures import grpc_status, lacks_memory, surprise
from matchrt.serving.grpc_bounds import check_small
from matchrt.serving.grpc_infer import Inference
from matchrt.serving.grpc_messages import SERVICE, message
from matchrt.serving.grpc_reading import parse, read_whole
from matchrt.serving.http_guard import require_token
from matchrt.serving.infer import model_metadata, server_metadata
from matchrt.serving.model_config import model_config, repository_index
from matchrt.serving.models import VERSION, Model, find
from matchrt.serving.service import Service

LOGGER = logging.getLogger("matchrt.serving")
Handler = Callable[[Any], Awaitable[Any]]
_OPEN = ("ServerLive", "ServerReady")
_STREAM = "ModelStreamInfer"
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
    """The protocol's calls. A MatchRTError that one raises becomes the call's status.

    Each but the stream is one message in both directions, as the protocol has it. Here the message is read when it is
    asked for, so that a call first shows its token and gets a place. Until then gRPC's flow control keeps it with the
    client.
    """

    def __init__(self, service: Service, models: Mapping[str, Model]) -> None:
        self._service, self._models = service, models
        self._turns = asyncio.Lock()
        self._inference = Inference(service, models, self._turns, service.options.max_body // _SHARE)
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

    async def model_config(self, context: Any) -> Any:
        """Configuration of a model. Error: model-not-served."""
        request = await self._read_small("ModelConfigRequest", context)
        config = model_config(find(self._models, request.name, request.version), self._service.options)
        return ParseDict({"config": config}, message("ModelConfigResponse")())

    async def model_statistics(self, context: Any) -> Any:
        """Statistics of a model, or of all where none is named. Error: model-not-served."""
        request = await self._read_small("ModelStatisticsRequest", context)
        asked = [find(self._models, request.name, request.version)] if request.name else list(self._models.values())
        return message("ModelStatisticsResponse")(model_stats=[one.statistics.describe(VERSION) for one in asked])

    async def repository_index(self, context: Any) -> Any:
        """All models, and whether they take requests."""
        request = await self._read_small("RepositoryIndexRequest", context)
        found = repository_index(self._models, self._service.ready, request.ready)
        return message("RepositoryIndexResponse")(models=found)

    def handlers(self) -> Any:
        """The handlers of the methods, by their names, as grpc takes them."""
        methods: dict[str, Handler] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "ModelInfer": self._inference.once,
        }
        found = {
            # Of the kinds of calls, this one leaves it to the handler when the message is read.
            name: grpc.stream_unary_rpc_method_handler(self._guarded(name, handler))
            for name, handler in methods.items()
        }
        found[_STREAM] = grpc.stream_stream_rpc_method_handler(self._guarded(_STREAM, self._inference.stream))
        return grpc.method_handlers_generic_handler(SERVICE, found)

    def _guarded(self, name: str, handler: Handler) -> Callable[[Any, Any], Awaitable[bytes | None]]:
        """The handler as a function that gives bytes; an exception that it raises becomes the call's status.

        A stream's handler has written its answers itself, and gives None.
        """

        async def answer(_: Any, context: Any) -> bytes | None:
            start, status = time.perf_counter(), "OK"
            try:
                self._require_token(name, context)
                found = await handler(context)
                return found if found is None or isinstance(found, bytes) else bytes(found.SerializeToString())
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
                # Of a stream, each message is counted by itself.
                if name != _STREAM or status != "OK":
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
            raw = await read_whole(context, self._turns, place, _SMALL_SECONDS)
        finally:
            place.leave()
        check_small(raw)
        return parse(name, raw)


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
