"""What the OpenAPI description says of requests and answers. Other modules read and write the requests themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from matchrt.serving.http_components import FILE, Schema, list_of, ref, whole
from matchrt.serving.models import VERSION

_LENGTH = "Inference-Header-Content-Length"
_WORDS = {
    400: "The request does not fit; the text says how",
    401: "The token is missing or wrong",
    403: "The request is from a page of another site",
    404: "No such model",
    408: "The body came too slowly",
    413: "The body or an image is too large",
    415: "The route does not take a body of this type",
    429: "All places for requests are taken; try again",
    499: "The caller has closed the connection",
    503: "The service is shutting down, or memory is short",
    504: "The request's deadline passed before its result",
}
# The failures of requests with a body, and of those that run a model or an engine.
_SENT = (400, 403, 408, 413, 415, 429)
WORK = (*_SENT, 404, 503, 504)
Responses = dict[int | str, dict[str, Any]]
TIMEOUT: Schema = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "Seconds that the request may take, where that is less than the service allows.",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e6},
}


def plain(*failures: int) -> Responses:
    """The responses of a route whose answer is only its status, and the failures."""
    return {200: {"description": "Yes"}, **_failures(failures)}


def plain_text(*failures: int) -> Responses:
    """The responses of a route that answers with text, and the failures."""
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {200: {"description": "The text", "content": content}, **_failures(failures)}


def json_answer(schema: Schema, failures: tuple[int, ...]) -> Responses:
    """The responses of a route that answers in JSON, and the failures."""
    content = {"application/json": {"schema": schema}}
    return {200: {"description": "The answer", "content": content}, **_failures(failures)}


def takes(content: dict[str, Schema], headers: Iterable[Schema] = (), required: bool = True) -> dict[str, Any]:
    """A request body, as the argument of FastAPI's decorators.

    content: schemas by media type. headers: parameters that are headers. required: whether there must be a body.
    """
    body = {"required": required, "content": {kind: {"schema": schema} for kind, schema in content.items()}}
    parameters = list(headers)
    return {"openapi_extra": {"requestBody": body, **({"parameters": parameters} if parameters else {})}}


def inference() -> dict[str, Any]:
    """Request and responses of an inference route, as arguments of FastAPI's decorators."""
    binary = {**FILE, "description": f"The JSON of InferRequest, {_LENGTH} bytes of it, then the tensors' binary data"}
    length: Schema = {
        "name": _LENGTH,
        "in": "header",
        "required": False,
        "description": "Bytes of the JSON part, where binary data follow.",
        "schema": whole(),
    }
    content = {"application/json": ref("InferRequest"), "application/octet-stream": binary}
    responses = json_answer(ref("InferAnswer"), WORK)
    answer = {**FILE, "description": f"The JSON of InferAnswer, {_LENGTH} bytes of it, then the outputs' binary data"}
    responses[200]["content"]["application/octet-stream"] = {"schema": answer}
    responses[200]["headers"] = {
        _LENGTH: {"description": "Bytes of the JSON part, where binary data follow", "schema": whole()}
    }
    return {**takes(content, (length, TIMEOUT)), "responses": responses}


def index_request() -> dict[str, Any]:
    """Request and responses of the index of models, as arguments of FastAPI's decorators."""
    content = {"application/json": ref("IndexRequest")}
    return {**takes(content, required=False), "responses": json_answer(list_of(ref("ModelState")), _SENT)}


def tidy(schema: dict[str, Any], named: Mapping[str, Schema], models: Iterable[str], token: bool) -> dict[str, Any]:
    """Corrects FastAPI's schema, in place, and returns it.

    It removes the status 422, which is 400 here, adds the named schemas, and describes the token if one is needed. If
    not, it lists the models' names: the schema itself is shown to everybody. The names are examples, so that a client
    that was generated from one service fits another.
    """
    known = {"model": {} if token else {"examples": list(models)}, "version": {"examples": [VERSION]}}
    parts = schema.setdefault("components", {})
    parts["schemas"] = dict(named)
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for entry in operation.get("parameters", []):
                if entry["in"] == "path":
                    entry["schema"] = {"type": "string", **known[entry["name"]]}
            if token:
                operation["responses"].update({str(key): value for key, value in _failures((401,)).items()})
    if token:
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
    return schema


def _failures(failures: tuple[int, ...]) -> Responses:
    content = {"application/json": {"schema": ref("Error")}}
    return {status: {"description": _WORDS[status], "content": content} for status in failures}


SERVER = json_answer(ref("ServerMetadata"), ())
METADATA = json_answer(ref("ModelMetadata"), (404,))
CONFIG = json_answer(ref("ModelConfig"), (404,))
STATISTICS = json_answer(ref("Statistics"), (404,))
ENGINES = json_answer(list_of(ref("Engine")), ())
