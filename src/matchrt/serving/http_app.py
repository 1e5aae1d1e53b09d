"""The HTTP application, on FastAPI: the protocol's routes, health, metrics, pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from matchrt._version import __version__
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.serving.call import Call
from matchrt.serving.failures import as_json, bad_request, draining, http_status, surprise
from matchrt.serving.http_components import COMPONENTS
from matchrt.serving.http_guard import App, Guard, body_of
from matchrt.serving.http_json import json_response
from matchrt.serving.http_match import add_match, match_schemas
from matchrt.serving.http_pages import add_pages
from matchrt.serving.http_schemas import ENGINES, METADATA, SERVER, inference, plain, plain_text, tidy
from matchrt.serving.http_tensors import HEADER, read_call, write_answer
from matchrt.serving.http_triton import add_triton
from matchrt.serving.http_waiting import read_timeout, unless_gone
from matchrt.serving.infer import infer_job, model_metadata, server_metadata
from matchrt.serving.metrics import CONTENT_TYPE
from matchrt.serving.models import VERSION, Model, find
from matchrt.serving.options import LOOPBACK
from matchrt.serving.service import Job, Service
from matchrt.serving.tensors import InferCall, Tensor, Wanted

T = TypeVar("T")


def make_app(service: Service, models: Mapping[str, Model]) -> App:
    """The ASGI application that a server runs, with its guard.

    models: all models of the service, by name. Raises nothing.
    """
    app = FastAPI(
        title="matchrt",
        version=__version__,
        description="Image matching: the Open Inference Protocol version 2, and one friendly endpoint.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Generated clients name their functions so.
        generate_unique_id_function=lambda route: route.name,
    )
    _add_health(app, service, models)
    # Before the protocol's own routes: `/v2/models/stats` is no model.
    add_triton(app, service, models)
    _add_protocol(app, service, models)
    add_match(app, service, models)
    _add_engines(app, service)
    add_pages(app)
    _add_failures(app)
    named = {**COMPONENTS, **match_schemas()}
    # Made once: it takes longer than a health check may wait.
    schema = orjson.dumps(tidy(app.openapi(), named, models, service.options.token is not None))

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(schema, media_type="application/json")

    guarded: App = Guard(app, service)
    if service.options.host in LOOPBACK:
        # A web page whose host name points to 127.0.0.1 gets no answer.
        return TrustedHostMiddleware(guarded, ["127.0.0.1", "localhost", "[::1]"], www_redirect=False)
    return guarded


def _add_health(app: FastAPI, service: Service, models: Mapping[str, Model]) -> None:
    def ready() -> Response:
        if not service.ready:
            raise draining()
        return Response()

    @app.get("/v2/health/live", tags=["health"], responses=plain(), response_class=Response)
    async def live() -> Response:
        """Whether the process answers."""
        return Response()

    @app.get("/v2/health/ready", tags=["health"], responses=plain(503), response_class=Response)
    async def server_ready() -> Response:
        """Whether requests are taken: not before the engines are warm, nor while the service shuts down."""
        return ready()

    @app.get("/v2/models/{model}/ready", tags=["health"], responses=plain(404, 503), response_class=Response)
    async def model_ready(model: str) -> Response:
        """Whether there is such a model, and requests are taken."""
        find(models, model)
        return ready()

    path = "/v2/models/{model}/versions/{version}/ready"

    @app.get(path, tags=["health"], responses=plain(404, 503), response_class=Response)
    async def version_ready(model: str, version: str) -> Response:
        """The same of a version."""
        find(models, model, version)
        return ready()

    @app.get("/metrics", tags=["health"], responses=plain_text(), response_class=Response)
    async def metrics() -> Response:
        """What Prometheus reads."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_protocol(app: FastAPI, service: Service, models: Mapping[str, Model]) -> None:
    @app.get("/v2", tags=["protocol"], responses=SERVER, response_class=Response)
    async def server() -> Response:
        """Name, version and extensions of the server."""
        return json_response(server_metadata(__version__))

    one, versioned = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"

    @app.get(one, tags=["protocol"], responses=METADATA, response_class=Response)
    async def metadata(model: str) -> Response:
        """Inputs and outputs of a model."""
        return json_response(model_metadata(find(models, model)))

    @app.get(versioned, tags=["protocol"], responses=METADATA, response_class=Response)
    async def version_metadata(model: str, version: str) -> Response:
        """The same of a version."""
        return json_response(model_metadata(find(models, model, version)))

    @app.post(f"{one}/infer", tags=["protocol"], response_class=Response, **inference())
    async def model_infer(request: Request, model: str) -> Response:
        """Runs a model. Tensors are JSON, or binary after the JSON (header `Inference-Header-Content-Length`)."""
        return await _infer(request, service, find(models, model))

    @app.post(f"{versioned}/infer", tags=["protocol"], response_class=Response, **inference())
    async def version_infer(request: Request, model: str, version: str) -> Response:
        """The same of a version."""
        return await _infer(request, service, find(models, model, version))


async def _infer(request: Request, service: Service, model: Model) -> Response:
    body, header = body_of(request), request.headers.get(HEADER)
    call = Call(read_timeout(request, service.options.timeout))
    call.statistics = model.statistics

    def write(asked: InferCall, tensors: list[Tensor], wanted: tuple[Wanted, ...]) -> tuple[bytes, int | None]:
        return write_answer(model.name, VERSION, asked, tensors, wanted)

    def prepare() -> Job[tuple[bytes, int | None]]:
        with call.alone(service.parsing if body.large else None):
            asked = read_call(body.take(), header)
        return infer_job(model, call, asked, write)

    content, length = await unless_gone(request, service.run(None, call, prepare, body.place))
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={HEADER: str(length)})


def _add_engines(app: FastAPI, service: Service) -> None:
    @app.get("/v1/engines", tags=["matching"], responses=ENGINES, response_class=Response)
    async def engines() -> Response:
        """The engines that are served, in the order in which they were named."""
        return json_response([_engine(name, one.manifest) for name, one in service.engines.items()])


def _engine(name: str, manifest: EngineManifest) -> dict[str, Any]:
    return {
        "name": name,
        "model": manifest.model,
        "backend": manifest.backend,
        "precision": manifest.precision,
        "batch": manifest.input.batch,
        "max_matches": manifest.matching.max_matches,
        "default_score": manifest.matching.default_score,
    }


def _add_failures(app: FastAPI) -> None:
    @app.exception_handler(MatchRTError)
    async def expected(request: Request, error: MatchRTError) -> Response:
        return json_response(as_json(error), http_status(error))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        # The exception's text is not for strangers. The guard writes it to the log.
        failure = surprise(error)
        return json_response(as_json(failure), http_status(failure))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        codes = {404: "request-not-found", 405: "request-method"}
        failure = MatchRTError(codes.get(error.status_code, "request-invalid"), str(error.detail), "See /docs.")
        return json_response(as_json(failure), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return json_response(as_json(bad_request(f"{where[:80]}: {first['msg']}.", "See /docs.")), 400)
