"""The routes of Triton's extensions over HTTP: configuration, statistics, and the index of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response

from matchrt.serving.failures import bad_request
from matchrt.serving.http_guard import body_of
from matchrt.serving.http_json import json_response
from matchrt.serving.http_schemas import CONFIG, STATISTICS, index_request
from matchrt.serving.json_bounds import loads
from matchrt.serving.model_config import model_config, repository_index
from matchrt.serving.models import VERSION, Model, find
from matchrt.serving.service import Service


def add_triton(app: FastAPI, service: Service, models: Mapping[str, Model]) -> None:
    """Adds the routes to the application. Raises nothing."""
    one, versioned = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"

    @app.get(f"{one}/config", tags=["triton"], responses=CONFIG, response_class=Response)
    async def config(model: str) -> Response:
        """A model's configuration, as Triton gives it: tensors, largest batch, workers."""
        return json_response(model_config(find(models, model), service.options))

    @app.get(f"{versioned}/config", tags=["triton"], responses=CONFIG, response_class=Response)
    async def version_config(model: str, version: str) -> Response:
        """The same of a version."""
        return json_response(model_config(find(models, model, version), service.options))

    @app.get("/v2/models/stats", tags=["triton"], responses=STATISTICS, response_class=Response)
    async def all_statistics() -> Response:
        """The statistics of all models."""
        return json_response(statistics(models))

    @app.get(f"{one}/stats", tags=["triton"], responses=STATISTICS, response_class=Response)
    async def model_statistics(model: str) -> Response:
        """How many requests a model has answered, and where their time went."""
        return json_response(statistics({model: find(models, model)}))

    @app.get(f"{versioned}/stats", tags=["triton"], responses=STATISTICS, response_class=Response)
    async def version_statistics(model: str, version: str) -> Response:
        """The same of a version."""
        return json_response(statistics({model: find(models, model, version)}))

    @app.post("/v2/repository/index", tags=["triton"], response_class=Response, **index_request())
    async def index(request: Request) -> Response:
        """All models, and whether they take requests. The body may be empty."""
        return json_response(repository_index(models, service.ready, _only_ready(bytes(body_of(request).take()))))


def statistics(models: Mapping[str, Model]) -> dict[str, Any]:
    """The statistics extension's answer about those models. Raises nothing."""
    return {"model_stats": [model.statistics.describe(VERSION) for model in models.values()]}


def _only_ready(body: bytes) -> bool:
    """Whether the request asks only for models that take requests. Error: request-invalid."""
    if not body.strip():
        return False
    asked, _ = loads(body)
    ready = asked.get("ready", False) if isinstance(asked, dict) else None
    if not isinstance(ready, bool):
        raise bad_request("The body is not an index request.", 'Send {"ready": true}, or nothing.')
    return ready
