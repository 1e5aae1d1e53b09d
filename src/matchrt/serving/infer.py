"""Runs an inference request of the protocol, in the same way for HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from matchrt.serving.call import Call
from matchrt.serving.failures import bad_request
from matchrt.serving.models import PLATFORM, VERSION, Model
from matchrt.serving.service import Job
from matchrt.serving.tensors import InferCall, Tensor, Wanted
from matchrt.serving.workers import Run

EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
T = TypeVar("T")
Write = Callable[[InferCall, list[Tensor], tuple[Wanted, ...]], T]


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


def infer_job(model: Model, call: Call, request: InferCall, write: Write[T]) -> Job[T]:
    """The job of a request, for the request's own thread.

    write: makes the answer of the request, the outputs that it asks for, in its order, and what it asks for.
    Errors: request-invalid, session-input, image-*.
    """
    limit_by_parameter(call, request.parameters)
    wanted = _wanted(request, model)
    job = model.job(request, call)
    # The tensors are large, and the run has its own.
    asked = InferCall({}, request.parameters, request.wanted, request.request_id)

    def finish(run: Run) -> T:
        tensors = {tensor.name: tensor for tensor in job.finish(run)}
        return write(asked, [tensors[output.name] for output in wanted], wanted)

    return Job(job.inputs, finish, model.engine)


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
