"""Runs an inference request of the protocol, in the same way for HTTP and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from matchrt.serving.call import Call
from matchrt.serving.failures import bad_request
from matchrt.serving.models import PLATFORM, VERSION, Model
from matchrt.serving.service import Job, Service
from matchrt.serving.tensors import InferCall, Tensor, Wanted

EXTENSIONS = ("binary_tensor_data",)
Answer = tuple[InferCall, list[Tensor], tuple[Wanted, ...]]


def server_metadata(version: str) -> dict[str, Any]:
    """The protocol's description of the server."""
    return {"name": "matchrt", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(model: Model) -> dict[str, Any]:
    """The protocol's description of a model."""
    tensors = {
        kind: [{"name": info.name, "datatype": info.datatype, "shape": list(info.shape)} for info in infos]
        for kind, infos in (("inputs", model.inputs), ("outputs", model.outputs))
    }
    return {"name": model.name, "versions": [VERSION], "platform": PLATFORM, **tensors}


def infer(service: Service, model: Model, call: Call, read: Callable[[], InferCall]) -> asyncio.Future[Answer]:
    """Reads a request in a thread of its own, runs it, and returns the outputs that it asks for, in its order.

    read: reads the request. Errors: request-invalid, session-input, image-*, those of `Service.run`.
    """

    def prepare() -> Job[Answer]:
        request = read()
        limit_by_parameter(call, request.parameters)
        wanted = _wanted(request, model)
        job = model.job(request, call)

        def finish(run: Any) -> Answer:
            tensors = {tensor.name: tensor for tensor in job.finish(run)}
            return request, [tensors[output.name] for output in wanted], wanted

        return Job(job.inputs, finish)

    return service.run(model.engine, call, prepare)


def limit_by_parameter(call: Call, parameters: Any) -> None:
    """Applies Triton's request parameter `timeout`, in microseconds; 0 means none. Error: request-invalid."""
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise bad_request("'timeout' is not a number of microseconds.", "Give, for instance, 2000000.")
    if timeout:
        call.limit(min(timeout / 1e6, 1e6))


def _wanted(request: InferCall, model: Model) -> tuple[Wanted, ...]:
    names = [info.name for info in model.outputs]
    if request.wanted is None or [output.name for output in request.wanted] == [""]:
        binary = request.wanted is not None and request.wanted[0].binary
        return tuple(Wanted(name, binary) for name in names)
    asked = [output.name for output in request.wanted]
    if not asked:
        return tuple(Wanted(name, False) for name in names)
    if len(set(asked)) != len(asked) or not set(asked) <= set(names):
        raise bad_request("The outputs asked for are not the model's.", f"Ask for some of {', '.join(names)}, once.")
    return request.wanted
