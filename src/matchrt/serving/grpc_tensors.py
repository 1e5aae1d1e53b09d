"""Inference requests and answers as gRPC messages."""

from __future__ import annotations

from typing import Any

from matchrt.serving.failures import bad_request
from matchrt.serving.tensors import (
    InferCall,
    Tensor,
    Wanted,
    byte_strings,
    from_bytes,
    from_slices,
    read_datatype,
    read_shape,
    text_count,
    to_bytes,
)

# The field of InferTensorContents that holds each datatype. FP16 has no field, and comes raw.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
# What Triton's clients send unasked: a wish for an empty answer at the end of several. A request has one answer here.
_NO_WISH = "triton_enable_empty_final_response"
# Numbers that are read at a time, so that other threads run meanwhile.
_SLICE = 1 << 16


def read_call(request: Any) -> InferCall:
    """Reads a ModelInferRequest. Error: request-invalid."""
    raw = list(request.raw_input_contents)
    if len(request.inputs) > 64 or (raw and len(raw) != len(request.inputs)):
        raise bad_request("raw_input_contents do not have one entry for each input.", "Send one for each, or none.")
    tensors: dict[str, Tensor] = {}
    for index, entry in enumerate(request.inputs):
        name = entry.name[:80]
        if name in tensors:
            raise bad_request(f"'{name}' is given twice.", "Name every input once.")
        _no_parameters(entry.parameters)
        shape, datatype = read_shape(name, list(entry.shape)), read_datatype(name, entry.datatype)
        if raw:
            if entry.HasField("contents"):
                raise bad_request(f"'{name}' has contents and raw contents.", "Send one of them.")
            tensors[name] = from_bytes(name, datatype, shape, raw[index])
        else:
            tensors[name] = _typed(name, datatype, shape, entry.contents)
    wanted = tuple(Wanted(output.name, True) for output in request.outputs)
    parameters = _parameters(request.parameters)
    parameters.pop(_NO_WISH, None)
    return InferCall(tensors, parameters, wanted or None, request.id)


def write_answer(answer: Any, model: str, version: str, call: InferCall, tensors: list[Tensor]) -> Any:
    """Fills an empty ModelInferResponse, with raw contents, and returns it. Raises nothing."""
    answer.model_name, answer.model_version, answer.id = model, version, call.request_id
    for tensor in tensors:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        answer.raw_output_contents.append(to_bytes(tensor))
    return answer


def _typed(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> Tensor:
    field = _CONTENTS.get(datatype)
    filled = [descriptor.name for descriptor, _ in contents.ListFields()]
    if field is None or [entry for entry in filled if entry != field]:
        raise bad_request(f"The contents of '{name}' are not those of {datatype}.", "Send raw_input_contents.")
    values = getattr(contents, field)
    if datatype == "BYTES":
        text_count(name, shape)
        return byte_strings(name, shape, list(values))
    slices = (values[start : start + _SLICE] for start in range(0, len(values), _SLICE))
    return from_slices(name, datatype, shape, len(values), slices)


def _parameters(parameters: Any) -> dict[str, Any]:
    found = {name: entry.WhichOneof("parameter_choice") for name, entry in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in found.items() if choice is not None}


def _no_parameters(parameters: Any) -> None:
    if any(name.startswith("shared_memory") for name in parameters):
        raise bad_request("Shared memory is not supported.", "Send the tensor's data.")
