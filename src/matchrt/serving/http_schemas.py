"""The schemas of requests and answers on the OpenAPI page. Other modules read and write the requests themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matchrt.serving.models import VERSION

_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "examples": ["UINT8"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
_DECLARED = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}, "description": "-1: any size"},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {
            "type": "object",
            "description": "min_score: 0..1; timeout: microseconds; binary_data_output: true for binary outputs.",
        },
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
            },
        },
    },
}
_ANSWER = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error", "code", "remedy"],
    "properties": {name: {"type": "string"} for name in ("error", "code", "remedy")},
}
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
# The failures of requests that run a model or an engine.
WORK = (400, 403, 404, 408, 413, 415, 429, 503, 504)
Responses = dict[int | str, dict[str, Any]]


def plain(*failures: int) -> Responses:
    """The responses of a route whose answer is only its status, and the failures."""
    return {200: {"description": "Yes"}, **_failures(failures)}


def json_answer(schema: dict[str, Any], failures: tuple[int, ...]) -> Responses:
    """The responses of a route that answers in JSON, and the failures."""
    content = {"application/json": {"schema": schema}}
    return {200: {"description": "The answer", "content": content}, **_failures(failures)}


def inference() -> dict[str, Any]:
    """Request and responses of an inference route, as arguments of FastAPI's decorators."""
    content = {"application/json": {"schema": _REQUEST}, "application/octet-stream": {}}
    responses = json_answer(_ANSWER, WORK)
    responses[200]["content"]["application/octet-stream"] = {}
    return {"openapi_extra": {"requestBody": {"required": True, "content": content}}, "responses": responses}


def tidy(schema: dict[str, Any], models: Iterable[str], token: bool) -> dict[str, Any]:
    """Corrects FastAPI's schema, in place, and returns it.

    It removes the status 422, which is 400 here, and describes the token if one is needed. If not, it lists the models'
    names: the schema itself is shown to everybody.
    """
    known = {"model": {} if token else {"enum": list(models)}, "version": {"enum": [VERSION]}}
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for entry in operation.get("parameters", []):
                entry["schema"] = {"type": "string", **known[entry["name"]]}
            if token:
                operation["responses"].update({str(key): value for key, value in _failures((401,)).items()})
    if token:
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
    return schema


def _failures(failures: tuple[int, ...]) -> Responses:
    content = {"application/json": {"schema": _ERROR}}
    return {status: {"description": _WORDS[status], "content": content} for status in failures}


SERVER = json_answer(
    {
        "type": "object",
        "required": ["name", "version", "extensions"],
        "properties": {"extensions": {"type": "array", "items": {"type": "string"}}},
    },
    (),
)
METADATA = json_answer(
    {
        "type": "object",
        "required": ["name", "versions", "platform", "inputs", "outputs"],
        "properties": {
            "inputs": {"type": "array", "items": _DECLARED},
            "outputs": {"type": "array", "items": _DECLARED},
        },
    },
    (404,),
)
