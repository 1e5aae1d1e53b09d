"""Clients of a service on a stub session, over HTTP without a network between, and over gRPC."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest
from PIL import Image as PILImage

from matchrt.serving.grpc_messages import SERVICE, message
from matchrt.serving.grpc_server import make_server
from matchrt.serving.http_app import make_app
from matchrt.serving.models import models_of
from matchrt.serving.service import Service
from support.serving_stub import SIDE, StubSession, opened

Ask = Callable[..., Awaitable[Any]]


class Client:
    """Asks an application without a network between."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._app = make_app(service, models_of(service))

    def __call__(self, method: str, path: str, **sent: Any) -> Any:
        async def ask() -> Any:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as one:
                return await one.request(method, path, **sent)

        return asyncio.run(ask())

    def get(self, path: str, **sent: Any) -> Any:
        return self("GET", path, **sent)

    def post(self, path: str, **sent: Any) -> Any:
        return self("POST", path, **sent)


@contextmanager
def client(monkeypatch: pytest.MonkeyPatch, session: StubSession | None = None, **options: Any) -> Iterator[Client]:
    with opened(monkeypatch, session or StubSession(), **options) as service:
        yield Client(service)


def png(value: int = 9, size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(np.full(size, value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def files(first: bytes, second: bytes) -> dict[str, Any]:
    return {"image0": ("a.png", first), "image1": ("b.png", second)}


def failed(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["code"] == code and body["error"] and body["remedy"]


def asked(monkeypatch: pytest.MonkeyPatch, session: StubSession, test: Callable[[Ask, Any], Awaitable[None]],
          **options: Any) -> None:  # fmt: skip
    """Runs `test` with a function that calls a method of a service on `session`."""

    async def main(service: Any) -> None:
        server, port = make_server(service, models_of(service))
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

            async def ask(method: str, request: Any, **more: Any) -> Any:
                raw = request if isinstance(request, bytes) else request.SerializeToString()
                call = channel.unary_unary(f"/{SERVICE}/{method}")
                try:
                    return message(f"{method}Response").FromString(await call(raw, **{"timeout": 30, **more}))
                except grpc.aio.AioRpcError as error:
                    return error.code().name

            ask.port = port  # type: ignore[attr-defined]
            try:
                await test(ask, service)
            finally:
                session.go.set()
        await server.stop(0)

    with opened(monkeypatch, session, grpc=0, **options) as service:
        asyncio.run(main(service))


def infer(**changes: Any) -> Any:
    request = message("ModelInferRequest")(model_name="loftr-lite")
    for index in (0, 1):
        request.inputs.add(name=f"image{index}", datatype="UINT8", shape=[SIDE, SIDE, 1])
        request.raw_input_contents.append(bytes([index + 5]) * SIDE**2)
    for name, value in changes.items():
        setattr(request, name, value)
    return request
