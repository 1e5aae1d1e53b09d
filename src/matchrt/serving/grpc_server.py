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
from matchrt.serving.call import Call
from matchrt.serving.failures import bad_request, grpc_status, surprise
from matchrt.serving.grpc_messages import SERVICE, message
from matchrt.serving.grpc_tensors import read_call, write_answer
from matchrt.serving.http_guard import require_token
from matchrt.serving.infer import infer, model_metadata, server_metadata
from matchrt.serving.models import VERSION, Model, find
from matchrt.serving.service import Service

LOGGER = logging.getLogger("matchrt.serving")
Handler = Callable[[Any, Any], Awaitable[Any]]
_OPEN = ("ServerLive", "ServerReady")


class GrpcService:
    """The protocol's six calls. A MatchRTError that one raises becomes the call's status."""

    def __init__(self, service: Service, models: Mapping[str, Model]) -> None:
        self._service, self._models = service, models

    async def server_live(self, request: Any, context: Any) -> Any:
        """Says that the process answers."""
        return message("ServerLiveResponse")(live=True)

    async def server_ready(self, request: Any, context: Any) -> Any:
        """Says whether the service takes requests."""
        return message("ServerReadyResponse")(ready=self._service.ready)

    async def model_ready(self, request: Any, context: Any) -> Any:
        """Says whether the service takes requests for a model. Error: model-not-served."""
        find(self._models, request.name, request.version)
        return message("ModelReadyResponse")(ready=self._service.ready)

    async def server_metadata(self, request: Any, context: Any) -> Any:
        """Name, version and extensions of the server."""
        return message("ServerMetadataResponse")(**server_metadata(__version__))

    async def model_metadata(self, request: Any, context: Any) -> Any:
        """Inputs and outputs of a model. Error: model-not-served."""
        return message("ModelMetadataResponse")(**model_metadata(find(self._models, request.name, request.version)))

    async def model_infer(self, request: Any, context: Any) -> Any:
        """Runs a model. Errors: model-not-served, request-invalid, those of `Service.run`."""
        model = find(self._models, request.model_name, request.model_version)
        left = context.time_remaining()
        # If the caller set no deadline, grpc returns a very large number.
        call = Call(min(self._service.options.timeout, left) if left is not None else self._service.options.timeout)
        infer_call, tensors, _ = await infer(self._service, model, call, lambda: read_call(request))
        return write_answer(model.name, VERSION, infer_call, tensors)

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
                name: grpc.unary_unary_rpc_method_handler(self._guarded(name, handler))
                for name, handler in methods.items()
            },
        )

    def _guarded(self, name: str, handler: Handler) -> Handler:
        """The handler as a function of bytes; an exception that it raises becomes the call's status."""

        async def answer(raw: bytes, context: Any) -> bytes:
            start, status = time.perf_counter(), "OK"
            try:
                self._require_token(name, context)
                return bytes((await handler(_parse(f"{name}Request", raw), context)).SerializeToString())
            except asyncio.CancelledError:
                status = "CANCELLED"
                raise
            except MatchRTError as error:
                status, failure = grpc_status(error), error
            except Exception as error:
                LOGGER.exception("unexpected failure in %s", name)
                status, failure = "INTERNAL", surprise(error)
            finally:
                self._service.metrics.answered("grpc", name, status, time.perf_counter() - start)
            await context.abort(getattr(grpc.StatusCode, status), str(failure))
            raise AssertionError("abort raises")

        return answer

    def _require_token(self, name: str, context: Any) -> None:
        token = self._service.options.token
        if token is not None and name not in _OPEN:
            given = dict(context.invocation_metadata() or ()).get("authorization")
            require_token(given if isinstance(given, str) else None, token)


def _parse(name: str, raw: bytes) -> Any:
    try:
        return message(name).FromString(raw)
    except DecodeError as error:
        raise bad_request(f"These bytes are not a {name}.", "Use the protocol's .proto file.") from error


def make_server(service: Service, models: Mapping[str, Model]) -> tuple[Any, int]:
    """A server that listens, and its port. It must be started in the running event loop. Error: port-taken."""
    options = service.options
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", options.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        )
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
